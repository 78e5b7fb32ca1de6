"""The participant page: everything embedded, nothing executed, nothing hidden."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tau_pipeline.atlas import label_table
from tau_pipeline.derivatives.names import AnatNames, PetNames, error_path, sidecar_path
from tau_pipeline.errors import MissingInputError
from tau_pipeline.files import read_json, read_tsv, write_json, write_text, write_tsv
from tau_pipeline.imaging.volume import image_like, image_on, save_volume
from tau_pipeline.measures.regions import regional_table
from tau_workflows.reports import html
from tau_workflows.reports.participant import write_participant_report
from tau_workflows.reports.scans import find_scans

TEMPLATES = Path(html.__file__).parent / "templates"
HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)> & \"quoted\""
SIDECAR = {
    "TracerName": "AV1451",
    "Manufacturer": "Siemens",
    "FrameTimesStart": [4800],
    "FrameDuration": [1200],
    "ReferenceRegion": "CerebellarGM",
    "ReferenceValue": 3512.4,
    "ReferenceRegionVolume": 93412.0,
    "RegistrationMetric": 1.1823,
    "SmoothingFWHM": 0.0,
    "EffectiveFWHM": "n/a",
    "BrainMean": 1.187,
    "BrainStandardDeviation": 0.2811,
    "CorticalPercentiles": {"75": 1.31, "90": 1.5204, "99": 2.02},
    "Noise": 0.0712,
    "SoftwareName": "tau-pipeline",
    "SoftwareVersion": "0.1.0",
    "Assumptions": ["the PET has one frame; it was taken as the late image"],
}


class Reader(HTMLParser):
    """Collect tags, attributes, text and table rows, and complain of tags that do not match."""

    VOID = frozenset({"meta", "img", "input", "br", "hr", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def attributes(self, *names: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags for name in names if name in attrs]


@pytest.fixture(autouse=True)
def quick_cortex(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A blank picture in place of the cortex, except in tests that name it; the maps that were to be drawn."""
    asked: list[dict] = []

    def blank(rows: dict, title: str, scale: tuple[float, float], label: str, colors: str) -> Figure:
        asked.append({"rows": rows, "title": title, "scale": scale, "label": label, "colours": colors})
        return Figure((0.5, 0.25))

    if "real_picture" not in request.node.name:
        monkeypatch.setattr("tau_workflows.reports.regions.cortex_figure", blank)
    return asked


def png(path: Path, color: tuple[int, int, int] = (200, 30, 90)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), color).save(path)
    return path


def rois(path: Path, *references: str) -> None:
    """A region table of a box in which each label has a few voxels; one label has none."""

    numbers = label_table().loc[lambda table: table["kind"].isin(["cortical", "subcortical"]), "index"].to_numpy()[1:]
    labels = np.resize(np.repeat(numbers, 4), (10, 10, 10)).astype(np.int16)
    dseg = image_on(labels, np.eye(4))
    suvr = image_like(np.linspace(0.5, 2.5, 1000, dtype=np.float32).reshape(labels.shape), dseg)
    identity = {"participant_id": "sub-01", "tracer": "AV1451", "manufacturer": "Siemens", "source": "measured"}
    write_tsv(pd.concat([regional_table(suvr, dseg, dseg, name, identity) for name in references]), path)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return the outputs of a run for one participant, with tiny pictures."""
    anat, pet = AnatNames(tmp_path, {"sub": "01"}), PetNames(tmp_path, {"sub": "01", "trc": "AV1451"})
    for desc in ("brainMask", "parcellation"):
        png(anat.figure(desc))
    for desc in ("coregistration", "suvr", "referenceCerebellarGM", "blendT1w", "blendPET"):
        png(pet.figure(desc))
    save_volume(image_on(np.ones((10, 10, 10), np.uint8), np.diag([10.0, 10, 10, 1])), anat.mask)
    write_json(SIDECAR, sidecar_path(pet.suvr()))
    rois(pet.rois, "CerebellarGM")
    write_text("# Methods\n\nT1w images were corrected for bias.\n", tmp_path / "logs" / "CITATION.md")
    return tmp_path


def page_of(output: Path, participant: str = "01") -> str:
    return write_participant_report(output, participant).read_text(encoding="utf-8")


def test_the_page_is_sub_label_html_in_the_output_folder(output: Path) -> None:
    assert write_participant_report(output, "01") == output / "sub-01.html"
    assert write_participant_report(output, "sub-01") == output / "sub-01.html"


def test_every_figure_is_embedded_as_a_readable_image(output: Path) -> None:
    sources = [source for source in Reader(page_of(output)).attributes("src") if "image/jpeg" in source]
    assert len(sources) == len(list(output.rglob("figures/*.png"))) == 7
    for source in sources:
        head, content = source.split(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.size == (40, 30)
            np.testing.assert_allclose(picture.convert("RGB").getpixel((20, 15)), (200, 30, 90), atol=4)


def test_the_page_needs_nothing_outside_itself(output: Path) -> None:
    page = page_of(output)
    reader = Reader(page)
    assert all(source.startswith("data:") for source in reader.attributes("src", "srcset", "action"))
    links = [link for link in reader.attributes("href") if not link.startswith("#")]
    assert links
    assert all((output / unquote(link)).is_file() for link in links)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in reader.tags}
    assert not re.search(r"https?:|@import|url\(", page)


def test_every_link_inside_the_page_leads_somewhere(output: Path) -> None:
    reader = Reader(page_of(output))
    places = reader.attributes("id")
    assert len(places) == len(set(places))
    assert {link[1:] for link in reader.attributes("href") if link.startswith("#")} <= set(places)


def test_summary_and_assumptions_come_before_the_figures(output: Path) -> None:
    page = page_of(output)
    order = [
        page.index(text) for text in ('id="summary"', "taken as the late image", "Brain mask", "PET on T1w", "SUVR,")
    ]
    assert order == sorted(order)


def test_quality_numbers_stand_with_their_units(output: Path) -> None:
    facts = {row[0]: row[1] for row in Reader(page_of(output)).rows if len(row) == 2}
    assert facts["Mean of the reference region, in the unit of the PET"] == "3512"
    assert facts["Volume of the reference region"] == "93412\N{NO-BREAK SPACE}mm³"
    assert facts["Fit of PET to T1w (normalized mutual information)"] == "1.182"
    assert facts["Volume of the brain mask"] == "1000 mL"
    assert facts["Window after injection"] == "80 to 100 min"
    assert facts["Smoothing applied, FWHM"] == "0\N{NO-BREAK SPACE}mm"
    assert facts["Mean SUVR of the brain"] == "1.187"
    assert facts["Standard deviation of SUVR over the brain"] == "0.2811"
    assert facts["SUVR of cortex at percentiles"] == "75: 1.31, 90: 1.52, 99: 2.02"
    assert facts["Noise (SD), SUVR"] == "0.0712"
    assert facts["Effective resolution, FWHM"] == "n/a"


def test_every_region_of_the_table_is_on_the_page_with_its_numbers(output: Path) -> None:
    rows = {row[0]: row[1:] for row in Reader(page_of(output)).rows if len(row) >= 7}
    table = read_tsv(next(output.rglob("*_rois.tsv")))
    cortical = table[table["kind"] == "cortical"]
    assert len(cortical) == 68
    for region in cortical.to_dict("records"):
        cells = rows[region["region"].split("-", 2)[2]]
        start = 0 if region["hemisphere"] == "left" else 3
        shown = cells[start : start + 3]
        wanted = [region["suvr_mean"], region["suvr_sd"], region["volume_mm3"] / 1000]
        np.testing.assert_allclose([float(cell) for cell in shown], wanted, atol=0.006)
    for name in ("Braak I", "Braak III–IV", "Braak V–VI", "Meta-temporal", "Hippocampus", "CerebellarGM"):
        assert name in rows


def test_a_region_without_voxels_keeps_its_row_and_says_so(output: Path) -> None:
    table = read_tsv(next(output.rglob("*_rois.tsv")))
    empty = table.loc[table["n_voxels"] == 0, "region"].iloc[0].split("-", 1)[1]
    row = next(row for row in Reader(page_of(output)).rows if row[0] == empty)
    assert "n/a" in row


def test_composites_stand_in_the_summary(output: Path) -> None:
    table = read_tsv(next(output.rglob("*_rois.tsv"))).query("kind == 'composite' and hemisphere == 'both'")
    headline = table.set_index("region").loc[["braak1", "braak34", "braak56", "metatemporal"]]
    row = next(row for row in Reader(page_of(output)).rows if "CerebellarGM" in row)
    assert [f"{value:.3f}" for value in headline["suvr_mean"]] == [cell.strip() for cell in row[2:-1]]


def test_the_summary_has_the_quality_of_each_map(output: Path) -> None:
    pet = PetNames(output, {"sub": "01", "trc": "AV1451"})
    summary = [row for row in Reader(page_of(output)).rows if row and row[0] == "PET, tracer AV1451"]
    assert [row[-1] for row in summary] == ["n/a"]
    check = {"Check": "noise_percent", "Value": 3.0, "Unit": "%", "Verdict": "pass"}
    path = sidecar_path(pet.suvr())
    write_json({**SIDECAR, "QualityChecks": [check]}, path)
    table = read_tsv(pet.rois)
    write_tsv(pd.concat([table, table.assign(reference_region="Pons")]), pet.rois)
    pons = {**SIDECAR, "ReferenceRegion": "Pons", "QualityChecks": [check | {"Value": 40.0, "Verdict": "fail"}]}
    write_json(pons, path.with_name(path.name.replace("desc-suvr_", "desc-suvrPons_")))
    summary = [row for row in Reader(page_of(output)).rows if row and row[0] == "PET, tracer AV1451"]
    assert [(row[1], row[-1]) for row in summary] == [("CerebellarGM", "pass"), ("Pons", "fail")]


def test_what_several_maps_share_is_said_once_and_the_rest_side_by_side(output: Path) -> None:
    pet = PetNames(output, {"sub": "01", "trc": "AV1451"})
    pons = {**SIDECAR, "ReferenceRegion": "Pons", "ReferenceValue": 2000.0, "Noise": None}
    path = sidecar_path(pet.suvr())
    write_json(pons, path.with_name(path.name.replace("desc-suvr_", "desc-suvrPons_")))
    rows = {row[0]: row[1:] for row in Reader(page_of(output)).rows if row}
    assert rows["Reference region"] == ["CerebellarGM", "Pons"]
    assert rows["Mean of the reference region, in the unit of the PET"] == ["3512", "2000"]
    assert rows["Noise (SD), SUVR"] == ["0.0712", ""]
    assert rows["Tracer"] == ["AV1451"]


def test_each_region_table_is_drawn_on_the_cortex_with_its_numbers(output: Path, quick_cortex: list[dict]) -> None:
    rois(PetNames(output, {"sub": "01", "trc": "AV1451"}).rois, "CerebellarGM", "Pons")
    page = page_of(output)
    table = read_tsv(next(output.rglob("*_rois.tsv"))).query("kind == 'cortical' and reference_region == 'Pons'")
    assert [one["label"] for one in quick_cortex] == ["SUVR (reference: CerebellarGM)", "SUVR (reference: Pons)"]
    assert {one["scale"] for one in quick_cortex} == {(0.5, 2.5)}
    drawn = quick_cortex[1]["rows"][""]
    assert drawn == pytest.approx(dict(zip(table["index"], table["suvr_mean"], strict=True)))
    assert page.count("data:image/png") == 2


def test_a_real_picture_of_the_cortex_is_embedded_in_its_size(output: Path) -> None:
    [source] = [one for one in Reader(page_of(output)).attributes("src") if "image/png" in one]
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as picture:
        assert picture.size[0] == 1680
        assert len(picture.convert("RGB").getcolors(10**6)) > 50


def test_a_table_without_cortex_has_no_picture_of_it(output: Path, quick_cortex: list[dict]) -> None:
    path = next(output.rglob("*_rois.tsv"))
    write_tsv(read_tsv(path).query("kind != 'cortical'"), path)
    assert "Braak I" in page_of(output)
    assert quick_cortex == []


def synthetic_files(output: Path, **entities: str) -> None:
    """A synthetic map's sidecar and region table, 0.25 above the measured one."""
    pet = PetNames(output, {"sub": "01", **entities})
    said = {"Description": "Model 0a1b2c", "Assumptions": ["taken as Siemens"], "ReferenceRegion": "CerebellarGM"}
    write_json(said, sidecar_path(pet.suvr()).with_name(sidecar_path(pet.suvr()).name.replace("suvr", "synthSUVR")))
    table = read_tsv(PetNames(output, {"sub": "01", "trc": "AV1451"}).rois)
    table["source"], table["suvr_mean"] = "synthetic", table["suvr_mean"] + 0.25
    write_tsv(table, pet.rois.with_name(pet.rois.name.replace("suvr", "synthSUVR")))
    png(pet.figure("synthSUVR"))


def test_a_synthetic_scan_stands_beside_the_measured_one_and_says_so(output: Path, quick_cortex: list[dict]) -> None:
    synthetic_files(output, trc="AV1451")
    reader = Reader(page_of(output))
    assert re.search(r"synthetic SUVR,.* CerebellarGM", reader.text)
    assert "not measured. Model 0a1b2c" in reader.text
    assert "PET, tracer AV1451 (synthetic)" in reader.text
    rows = [row for row in reader.rows if row[0] == "Braak I" and len(row) == 4]
    assert len(rows) == 1
    assert float(rows[0][2]) - float(rows[0][1]) == pytest.approx(0.25, abs=0.0011)
    assert rows[0][3] == "+0.250"
    assert len(quick_cortex) == 3
    assert list(quick_cortex[2]["rows"][""].values()) == pytest.approx([0.25] * len(quick_cortex[2]["rows"][""]))
    assert quick_cortex[2]["scale"] == (-1.0, 1.0)
    assert find_scans(output, "sub-01")[1].title == "PET, tracer AV1451"


def test_what_makes_a_synthetic_map_doubtful_is_said(output: Path) -> None:
    synthetic_files(output, trc="AV1451")
    path = next(output.rglob("*desc-synthSUVR_pet.json"))
    assert "trained on this participant" not in Reader(page_of(output)).text
    doubt = {"ParticipantInTrainingSet": True, "TrainingSplit": "train", "Flags": ["The T1w is darker than any."]}
    write_json({**read_json(path), **doubt, "Uncertainty": "one model alone", "ModelHash": "0a1b"}, path)
    reader = Reader(page_of(output))
    summary = reader.text.index("Mean SUVR over both hemispheres.")
    for sentence in ("trained on this participant", "darker than any", "Uncertainty: one model alone"):
        # Before the first number of the page.
        assert reader.text.index(sentence) < summary
    assert ["Model (hash)", "0a1b"] in reader.rows


def test_a_synthetic_scan_is_not_counted_as_a_pet_scan(output: Path) -> None:
    assert "1 T1w, 1 PET scan" in Reader(page_of(output)).text
    synthetic_files(output, trc="AV1451")
    assert "1 T1w, 1 PET scan, 1 synthetic" in Reader(page_of(output)).text
    for path in list(output.rglob("*desc-suvr_*")):
        path.unlink()
    assert "1 T1w, 0 PET scans, 1 synthetic" in Reader(page_of(output)).text


def test_the_interval_of_a_synthetic_mean_stands_beside_it(output: Path) -> None:
    synthetic_files(output, trc="AV1451")
    assert "interval" not in Reader(page_of(output)).text
    path = next(output.rglob("*desc-synthSUVR_rois.tsv"))
    table = read_tsv(path)
    table["suvr_mean_low"], table["suvr_mean_high"] = table["suvr_mean"] - 0.1, table["suvr_mean"] + 0.1
    write_tsv(table, path)
    row = next(row for row in Reader(page_of(output)).rows if row[0] == "Braak I" and "to" in row[2])
    assert row[2] == f"{float(row[1]) - 0.1:.3f} to {float(row[1]) + 0.1:.3f}"


def test_the_agreement_of_maps_is_a_table(output: Path) -> None:
    pet = PetNames(output, {"sub": "01", "trc": "AV1451"})
    names = "predictor\tssim\tpsnr\tmae\tregional_mae\tmask\tdata_range\n"
    path = pet.rois.with_name(pet.rois.name.replace("suvr_rois", "synthSUVR_agreement"))
    write_text(
        f"{names}model\t0.91234\t28.04\t0.0712\t0.05\tbrain\t3\ntraining mean\tn/a\t20\t0.2\t0.13\tbrain\t3\n", path
    )
    rows = Reader(page_of(output)).rows
    assert ["model", "0.912", "28.0", "0.071", "0.050", "3", "brain"] in rows
    assert ["training mean", "n/a", "20.0", "0.200", "0.130", "3", "brain"] in rows


def test_sidecars_of_standardised_and_uncertainty_maps_are_no_suvr_maps(output: Path) -> None:
    pet = PetNames(output, {"sub": "01", "trc": "AV1451"})
    path = sidecar_path(pet.suvr())
    for desc in ("std", "synthStd", "synthSUVRsd"):
        write_json(
            {**SIDECAR, "TracerName": "not a map"}, path.with_name(path.name.replace("desc-suvr_", f"desc-{desc}_"))
        )
    assert "not a map" not in Reader(page_of(output)).text


def test_a_scan_that_is_synthetic_alone_is_called_so(output: Path) -> None:
    synthetic_files(output, trc="MK6240")
    titles = [scan.title for scan in find_scans(output, "sub-01")]
    assert titles == ["T1w", "PET, tracer AV1451", "Synthetic PET, tracer MK6240"]
    assert "Synthetic and measured" not in Reader(page_of(output)).text


def test_each_reference_region_has_its_own_table(output: Path) -> None:
    rois(PetNames(output, {"sub": "01", "trc": "AV1451"}).rois, "CerebellarGM", "Pons")
    text = Reader(page_of(output)).text
    assert all(re.search(rf"measured SUVR,.* {name}", text) for name in ("CerebellarGM", "Pons"))


def test_hostile_text_is_shown_and_never_run(output: Path) -> None:
    pet = PetNames(output, {"sub": "01", "trc": "AV1451"})
    write_json({**SIDECAR, "Assumptions": [HOSTILE], "TracerName": HOSTILE}, sidecar_path(pet.suvr()))
    write_json({"message": HOSTILE}, error_path(output, "sub-01_pet"))
    write_text(HOSTILE, output / "logs" / "CITATION.md")
    write_text(pet.rois.read_text(encoding="utf-8").replace("ctx-lh-entorhinal", HOSTILE), pet.rois)
    reader = Reader(page_of(output))
    assert reader.text.count("<script>alert('x')</script>") >= 4
    own = (attrs for tag, attrs in reader.tags if tag == "script")
    assert sum("type" not in attrs for attrs in own) == 1
    assert not any("onerror" in attrs for _, attrs in reader.tags)
    assert all(source.startswith("data:") for source in reader.attributes("src"))


def test_errors_of_this_participant_alone_are_shown(output: Path) -> None:
    write_json({"message": "the PET is truncated"}, error_path(output, "sub-01_trc-AV1451_run-2_pet"))
    write_json({"message": "somebody else's"}, error_path(output, "sub-010_pet"))
    write_text("first line\nand more", output / "logs" / "errors" / "sub-01.txt")
    write_text("{not json", output / "logs" / "errors" / "sub-01_T1w.json")
    text = Reader(page_of(output)).text
    assert "the PET is truncated" in text
    assert "2 failed" in text
    assert "1 error" in text
    assert "first line" in text
    assert "somebody else's" not in text


def test_figures_of_another_participant_stay_away(output: Path) -> None:
    png(AnatNames(output, {"sub": "010"}).figure("brainMask"))
    assert page_of(output).count("data:image/jpeg") == 7


def test_sessions_and_tracers_have_sections_of_their_own(output: Path) -> None:
    for session in ("base", "later"):
        png(AnatNames(output, {"sub": "01", "ses": session}).figure("brainMask"))
        for tracer in ("AV1451", "MK6240"):
            pet = PetNames(output, {"sub": "01", "ses": session, "trc": tracer})
            png(pet.figure("suvr"))
            write_json({**SIDECAR, "TracerName": tracer}, sidecar_path(pet.suvr()))
    scans = find_scans(output, "sub-01")
    assert [scan.kind for scan in scans] == ["T1w"] * 3 + ["pet"] * 5
    assert [len(scan.figures) for scan in scans] == [2, 1, 1, 3, 1, 1, 1, 1]
    text = Reader(page_of(output)).text
    assert "3 T1w, 5 PET scans" in text
    assert "PET, session later, tracer MK6240" in text


def test_damaged_files_are_named_and_do_not_stop_the_page(output: Path) -> None:
    anat, pet = AnatNames(output, {"sub": "01"}), PetNames(output, {"sub": "01", "trc": "AV1451"})
    for path in (anat.figure("brainMask"), sidecar_path(pet.suvr()), anat.mask):
        path.write_bytes(b"\x00broken")
    write_text("region\nx\n", pet.rois)
    text = Reader(page_of(output)).text
    for path in (anat.figure("brainMask"), sidecar_path(pet.suvr()), anat.mask, pet.rois):
        assert path.name in text
    assert "has no column" in text


def test_what_should_be_a_number_and_is_none_is_missing(output: Path) -> None:
    path = next(output.rglob("*_rois.tsv"))
    table = read_tsv(path)
    table["suvr_mean"] = table["suvr_mean"].astype(object)
    table.loc[table["region"] == "ctx-lh-fusiform", "suvr_mean"] = "much"
    write_tsv(table, path)
    row = next(row for row in Reader(page_of(output)).rows if row[0] == "fusiform")
    assert row[1] == "n/a"
    assert float(row[4]) > 0


def test_a_participant_without_pet_has_a_page(tmp_path: Path) -> None:
    png(AnatNames(tmp_path, {"sub": "04"}).figure("brainMask"))
    reader = Reader(page_of(tmp_path, "04"))
    assert "no PET scan" in reader.text
    assert "Methods" not in reader.text


def test_a_participant_that_failed_at_once_has_a_page(tmp_path: Path) -> None:
    write_json({"message": "sub-05 has no T1w"}, error_path(tmp_path, "sub-05"))
    assert "sub-05 has no T1w" in Reader(page_of(tmp_path, "05")).text


def test_an_unknown_participant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="sub-99"):
        write_participant_report(tmp_path, "99")


def test_the_same_files_give_the_same_page(output: Path) -> None:
    assert page_of(output) == page_of(output)


def test_methods_are_those_that_the_run_left(output: Path) -> None:
    write_text(
        "# Methods\n\nT1w images\nwere corrected.\n\n## Papers\n\n- N4: 2010\n- greedy: 2016\n",
        output / "logs/CITATION.md",
    )
    page = page_of(output)
    assert "<p>T1w images were corrected.</p>" in page
    assert "<h3>Papers</h3>" in page
    assert "<li>greedy: 2016</li>" in page
    assert "#" not in Reader(page).text.split("T1w images")[1]


def test_every_page_has_a_place_for_its_policy_before_all_that_could_run() -> None:
    pages = [path for path in TEMPLATES.glob("*.jinja") if "<html" in path.read_text(encoding="utf-8")]
    assert len(pages) >= 7
    for path in pages:
        before, policy, after = path.read_text(encoding="utf-8").partition("<!--policy-->")
        assert policy, path.name
        assert "<head>" in before, path.name
        assert not re.search("<(script|style|body)", before), path.name
        assert "<!--policy-->" not in after, path.name


def test_signs_that_a_terminal_obeys_are_not_written_into_pages():
    page = html.render("citation.html.jinja", methods=html.blocks_of("a\x1b[31mred\u202e b"))
    assert "a?[31mred? b" in page
