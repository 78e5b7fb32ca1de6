"""The methods text tells what ran, and nothing that did not."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from participant_results import write_cohort, write_scan

from tau_pipeline.cohort.standardize import save_standardizations
from tau_pipeline.cohort.tables import fit_cohort
from tau_pipeline.derivatives.index import find_scans
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.files import read_json, write_json
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.participant import Settings
from tau_workflows.reports.bibliography import bibtex
from tau_workflows.reports.methods import PACKAGES, PAPERS, found, methods_text, planned, write_methods


def with_anatomy(out: Path, participant: str, *, stripped: bool = False, labels: str = "tau-pipeline: own") -> None:
    names = AnatNames(out, {"sub": participant})
    write_json({"SkullStripped": stripped, "SettingsHash": "abc", "SoftwareVersion": "9.9"}, sidecar_path(names.t1w))
    write_json({"MadeBy": labels}, sidecar_path(names.dseg))


def with_pet(out: Path, participant: str, **fields: object) -> None:
    sidecar = sidecar_path(PetNames(out, {"sub": participant, "trc": "AV1451"}).suvr())
    own = {"Sources": [f"bids:raw:sub-{participant}_pet"], "FrameTimesStart": [4800], "FrameDuration": [1200]}
    write_json({**own, "FrameIndices": [0], "FrameMotion": [0.0], **fields}, sidecar)


def text_of(out: Path) -> str:
    return " ".join(write_methods(out).read_text().split())


def test_before_anything_ran_the_text_tells_what_the_settings_ask_for() -> None:
    text = methods_text(planned(Settings(ref_region=("Pons",), suvr_window=(75, 105), target_fwhm=8)))
    assert "Pons" in text
    assert "75-105 minutes" in text
    assert "8 mm FWHM" in text
    assert PAPERS["one resolution"] in text
    assert PAPERS["ComBat"] not in text


@pytest.mark.parametrize(("choice", "present"), [("skip", False), ("force", True), ("auto", True)])
def test_deepbet_is_cited_where_it_is_used(choice: str, present: bool) -> None:
    text = methods_text(planned(Settings(skull_strip_t1w=choice)))  # type: ignore[arg-type]
    assert ("extracted with deepbet" in text) == present
    assert (PAPERS["deepbet"] in text) == present


def test_the_counts_are_those_of_the_outputs(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    with_anatomy(tmp_path, "02", stripped=True)
    with_anatomy(tmp_path, "03", labels="aparc+aseg.mgz of sub-03")
    with_pet(tmp_path, "01", FrameIndices=[0, 1], FrameMotion=[0.0, 1.5], TracerName="AV-1451")
    with_pet(tmp_path, "02", TracerName="FTP", SmoothingFWHM=4.0)
    with_pet(tmp_path, "03", TracerName="MK6240")
    text = text_of(tmp_path)
    assert "of 2 T1w images was extracted with deepbet" in text
    assert "1 skull-stripped T1w image" in text
    assert "by their intensity (2 T1w)" in text
    assert "For 1 T1w, the segmentation and brain mask of FreeSurfer" in text
    assert "2 static and 1 dynamic PET scans of MK-6240 and flortaucipir cover 80-100 minutes" in text
    assert "rigidly registered" in text
    assert "smoothed with a Gaussian of 4 mm FWHM" in text
    assert "tau-pipeline 9.9 (settings abc)" in text


def test_steps_that_did_not_run_are_not_told(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01", stripped=True, labels="aparc+aseg.mgz of sub-01")
    text = text_of(tmp_path)
    for absent in ("deepbet.", "CVS atlas", "coregistered", "dynamic", "standardised", "ComBat", PAPERS["CVS atlas"]):
        assert absent not in text
    assert PAPERS["FreeSurfer"] in text


def test_frames_that_did_not_move_are_not_said_to_have_been_registered(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    with_pet(tmp_path, "01", FrameIndices=[0, 1], FrameMotion=[0.0, 0.0])
    text = text_of(tmp_path)
    assert "without motion correction" in text
    assert "1 dynamic PET scan" in text
    assert "0 static" not in text


def test_the_group_levels_steps_are_told_once_they_have_run(tmp_path: Path) -> None:
    _, out = write_cohort(tmp_path, n=3, images=False)
    with_anatomy(out, "00")
    assert "standardized by scanner" not in text_of(out)
    folder = out / "group"
    folder.mkdir()
    save_standardizations(fit_cohort(find_scans(out), Group(min_participants=1)), folder / "standardization.tsv")
    assert "(participants: GE 1, Philips 1, Siemens 1)" in text_of(out)
    assert PAPERS["standardization by manufacturer"] in text_of(out)
    (folder / "suvr_rois_combat_wide.csv").write_text("")
    assert "harmonized between manufacturers with ComBat" in text_of(out)


def test_partial_volume_correction_is_told_with_its_papers(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    assert "partial volume" not in text_of(tmp_path)
    source = "The point spread was estimated from the PET and its regions: 6.20 mm FWHM across."
    with_pet(
        tmp_path, "01", PVCMethods=["sgtm", "iy"], PVCPointSpreadFWHM=[6.2, 6.2, 7.14], PVCPointSpreadSource=source
    )
    text = text_of(tmp_path)
    assert "by the symmetric geometric transfer matrix and the iterative Yang method" in text
    assert "6.2 to 7.1 mm FWHM (estimated from image and regions)" in text
    assert "Sattarivand" in text
    assert "Erlandsson" in text
    assert "Rousset" not in text
    assert "Müller-Gärtner method" in methods_text(planned(Settings(pvc=("mg",))))


def test_scores_thresholds_and_centaur_are_told_as_the_tables_state_them(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    (folder := tmp_path / "group").mkdir()
    write_json(
        {
            "suvr_zscore": {"ReferenceGroup": "diagnosis == CN"},
            "suvr_wscore": {"ReferenceGroup": "diagnosis == CN", "Covariates": ["age", "sex"]},
        },
        folder / "suvr_rois.json",
    )
    (folder / "thresholds.tsv").write_text("region\tmethod\nbraak1\t2sd\nbraak34\t2sd\nmetatemporal\tvalue\n")
    (folder / "centaur.tsv").write_text("scan\n")
    text = text_of(tmp_path)
    for words in (
        "z-scores of regional SUVR are relative to the participants with diagnosis == CN",
        "regression of regional SUVR on age and sex in the participants with diagnosis == CN",
        "braak1 and braak34 (mean plus 2 standard deviations of the reference group); metatemporal (as given)",
        "not calibrated for this software",
        *("La Joie", "Weigand", "Villemagne"),
    ):
        assert words in text
    assert "Deming" not in text


def test_synthetic_maps_are_said_to_be_synthetic_and_by_what(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    assert "synthetic" not in text_of(tmp_path)
    model = {"Network": "unet", "Hash": "abc123"}
    write_json({"Models": [model]}, tmp_path / "sub-01/pet/sub-01_trc-X_space-T1w_desc-synthSUVR_pet.json")
    text = text_of(tmp_path)
    assert "(unet abc123;" in text
    assert PAPERS["synthesis"] in text


def test_the_text_of_one_participant_tells_of_that_one_alone(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    with_anatomy(tmp_path, "02", stripped=True)
    facts = found(tmp_path, "02")
    assert facts is not None
    assert (facts.extracted, facts.stripped) == (0, 1)


def test_every_package_has_its_installed_version(tmp_path: Path) -> None:
    text = write_methods(tmp_path).read_text()
    for name in PACKAGES:
        assert f"- {name} {version(name)}" in text


def test_a_damaged_sidecar_does_not_stop_the_text(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    write_scan(tmp_path, "01", "GE", 1, images=False)
    sidecar = sidecar_path(PetNames(tmp_path, {"sub": "01", "trc": "AV1451"}).suvr())
    assert read_json(sidecar)
    sidecar.write_text("{")
    assert "coregistered" not in text_of(tmp_path)
    assert "N4" in text_of(tmp_path)


def test_interpolation_motion_guard_and_resolution_are_stated(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    frames = {"FrameIndices": [0, 1], "FrameMotion": [0.0, 1.46], "ReferenceRegion": "CerebellarGM"}
    with_pet(tmp_path, "01", EffectiveFWHM=4.71, **frames)
    with_pet(tmp_path, "02", EffectiveFWHM=6.0)
    text = text_of(tmp_path)
    for words in (
        "one trilinear interpolation",
        "largest mean displacement of a frame was 1.5 mm",
        "effective resolution of the maps was 4.7 to 6.0 mm FWHM",
        "of their signal from cerebral gray matter",
    ):
        assert words in text


def test_every_paper_and_package_has_an_entry_in_bibtex_and_the_page_says_the_same(tmp_path: Path) -> None:
    path = write_methods(tmp_path, Settings())
    bib = path.with_suffix(".bib").read_text()
    cited = [name for name, paper in PAPERS.items() if f"- {name}: {paper}" in path.read_text()]
    assert len(cited) >= 5
    assert all(f"note = {{{name}}}" in bib for name in cited)
    assert all(f"title = {{{name}}}" in bib for name in PACKAGES)
    keys = [line.split("{")[1] for line in bib.splitlines() if line.startswith("@")]
    assert len(keys) == len(set(keys))
    assert bib.count("{") == bib.count("}")
    page = path.with_suffix(".html").read_text()
    assert "one trilinear interpolation" in " ".join(page.split())
    assert "default-src 'none'" in page


def test_bibtex_of_every_paper_has_author_and_year() -> None:
    for entry in bibtex(PAPERS, {}).split("\n\n"):
        assert "author = {" in entry
        assert "year = {" in entry


def test_the_halfway_space_is_told_where_labels_come_from_it(tmp_path: Path) -> None:
    with_anatomy(tmp_path, "01")
    assert "halfway" not in text_of(tmp_path)
    on = "tau-pipeline: labels of the template, registered once to the halfway image of 2 visits"
    with_anatomy(tmp_path, "02", labels=f"{on}, on the gray matter of this visit")
    with_anatomy(tmp_path, "03", labels=f"{on}, the same at each visit")
    text = text_of(tmp_path)
    assert "For 2 T1w images, this was done once per participant, in a rigid space halfway" in text
    assert "resampled once to the voxels of the median image, in its own world, where labels are the same" in text
    assert PAPERS["halfway space"] in text
    asked_for = methods_text(planned(Settings(longitudinal="own-tissue")))
    assert "For T1w images of several sessions" in asked_for
    assert "gray matter of each" in asked_for


def test_surfaces_are_told_with_the_software_that_made_them(tmp_path: Path) -> None:
    write_json({"SettingsHash": "x"}, sidecar_path(AnatNames(tmp_path, {"sub": "01"}).t1w))
    for label, maker in (("01", "cat-surf"), ("02", "FreeSurfer"), ("03", "FreeSurfer")):
        described = {"thickness_mean": {"MadeBy": maker}}
        write_json(described, sidecar_path(AnatNames(tmp_path, {"sub": label}).thickness_table))
    facts = found(tmp_path)
    assert facts is not None
    text = methods_text(facts)
    assert "with cat-surf" in text
    assert "For 2 T1w, surfaces and thickness are those of FreeSurfer." in text
    assert "cat-surf" not in methods_text(replace(facts, surfaces=0))
    assert "surface" not in methods_text(replace(facts, surfaces=0, given_surfaces=0))
