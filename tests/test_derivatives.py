import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import tau_pipeline
from tau_pipeline.bids.validator import validate
from tau_pipeline.derivatives.dataset import check_output_dir, write_dataset_files
from tau_pipeline.derivatives.names import (
    ENTITY_ORDER,
    AnatNames,
    PetNames,
    derivative_path,
    error_path,
    report_path,
    sidecar_path,
)
from tau_pipeline.derivatives.sidecars import SuvrSidecar, bids_uri, image_sidecar
from tau_pipeline.errors import OutputError
from tau_pipeline.files import read_json, write_json, write_text
from tau_pipeline.imaging.volume import image_on, save_volume
from tau_pipeline.settings.spaces import parse_space

MNI = parse_space("MNI152NLin6Asym")
OUT = Path("out")
PLAIN, IN_SESSION = {"sub": "01"}, {"sub": "01", "ses": "X"}
PET, PET_IN_SESSION = {"sub": "01", "trc": "AV1451"}, {"sub": "01", "ses": "X", "trc": "AV1451"}

CONTRACT_FIELDS = (
    "Units SkullStripped Sources ReferenceRegion ReferenceRegionIndices ReferenceRegionVolume ReferenceValue "
    "FrameTimesStart FrameDuration FrameIndices TracerName TracerRadionuclide Manufacturer SmoothingFWHM EffectiveFWHM "
    "RegistrationMetric SoftwareName SoftwareVersion Assumptions"
)


def suvr_sidecar(**changes: object) -> SuvrSidecar:
    values: dict[str, object] = {
        "sources": ("bids:raw:sub-01/pet/sub-01_trc-AV1451_pet.nii.gz",),
        "reference_image": "bids::sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "settings_hash": "0123456789ab",
        "reference_region": "CerebellarGM",
        "reference_region_indices": (8, 47),
        "reference_region_volume_mm3": 90000.0,
        "reference_value": 5000.0,
        "frame_start_s": 4800.0,
        "frame_duration_s": 1200.0,
        "frame_indices": (0,),
        "tracer": "AV1451",
        "radionuclide": "F18",
        "manufacturer": "Siemens",
        "model": "Biograph mMR",
        "smoothing_fwhm_mm": 0.0,
        "effective_fwhm_mm": 4.5,
        "registration_metric": 1.1,
        "labels": "own parcellation",
    }
    return SuvrSidecar(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (AnatNames(OUT, PLAIN).t1w, "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"),
        (AnatNames(OUT, IN_SESSION).t1w, "sub-01/ses-X/anat/sub-01_ses-X_desc-preproc_T1w.nii.gz"),
        (AnatNames(OUT, PLAIN).mask, "sub-01/anat/sub-01_desc-brain_mask.nii.gz"),
        (AnatNames(OUT, PLAIN).dseg, "sub-01/anat/sub-01_seg-DesikanKilliany_dseg.nii.gz"),
        (AnatNames(OUT, PLAIN).dseg_table, "sub-01/anat/sub-01_seg-DesikanKilliany_dseg.tsv"),
        (AnatNames(OUT, PLAIN).reference_mask("Pons"), "sub-01/anat/sub-01_label-Pons_mask.nii.gz"),
        (AnatNames(OUT, PLAIN).to_template(), "sub-01/anat/sub-01_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5"),
        (AnatNames(OUT, PLAIN).from_template(), "sub-01/anat/sub-01_from-MNI152NLin6Asym_to-T1w_mode-image_xfm.h5"),
        (PetNames(OUT, PET).suvr(), "sub-01/pet/sub-01_trc-AV1451_space-T1w_desc-suvr_pet.nii.gz"),
        (PetNames(OUT, PET).suvr("Pons"), "sub-01/pet/sub-01_trc-AV1451_space-T1w_desc-suvrPons_pet.nii.gz"),
        (AnatNames(OUT, PLAIN).t1w_in(MNI), "sub-01/anat/sub-01_space-MNI152NLin6Asym_res-2_desc-preproc_T1w.nii.gz"),
        (
            AnatNames(OUT, PLAIN).dseg_in(MNI),
            "sub-01/anat/sub-01_space-MNI152NLin6Asym_seg-DesikanKilliany_res-2_dseg.nii.gz",
        ),
        (AnatNames(OUT, PLAIN).jacobian_in(MNI), "sub-01/anat/sub-01_space-MNI152NLin6Asym_res-2_jacobian.nii.gz"),
        (
            PetNames(OUT, PET).suvr_in(MNI, "Pons"),
            "sub-01/pet/sub-01_trc-AV1451_space-MNI152NLin6Asym_res-2_desc-suvrPons_pet.nii.gz",
        ),
        (PetNames(OUT, PLAIN).suvr(), "sub-01/pet/sub-01_space-T1w_desc-suvr_pet.nii.gz"),
        (PetNames(OUT, PET_IN_SESSION).rois, "sub-01/ses-X/pet/sub-01_ses-X_trc-AV1451_desc-suvr_rois.tsv"),
        (PetNames(OUT, PET).to_t1w, "sub-01/pet/sub-01_trc-AV1451_from-pet_to-T1w_mode-image_xfm.txt"),
        (PetNames(OUT, PET_IN_SESSION).figure("suvr"), "sub-01/figures/sub-01_ses-X_trc-AV1451_desc-suvr_pet.png"),
        (AnatNames(OUT, PLAIN).figure("brainMask"), "sub-01/figures/sub-01_desc-brainMask_T1w.png"),
        (report_path(OUT, "01"), "sub-01.html"),
        (error_path(OUT, "sub-01_trc-AV1451_pet"), "logs/errors/sub-01_trc-AV1451_pet.json"),
        (sidecar_path(PetNames(OUT, PET).suvr()), "sub-01/pet/sub-01_trc-AV1451_space-T1w_desc-suvr_pet.json"),
    ],
)
def test_outputs_have_the_names_of_the_contract(path, expected):
    assert path.relative_to(OUT).as_posix() == expected


def test_entities_come_in_the_order_of_the_bids_schema():
    schema = pytest.importorskip("bidsschematools.schema").load_schema()
    order = [schema.objects.entities[name].name for name in schema.rules.entities]
    ours = [name for name in ENTITY_ORDER if name not in ("from", "to", "mode")]
    assert ours == [name for name in order if name in ours]


def test_a_name_does_not_depend_on_the_order_of_its_parts():
    forward = {"sub": "01", "ses": "X", "trc": "AV1451", "rec": "acdyn", "run": "2"}
    backward = dict(reversed(forward.items()))
    paths = {derivative_path(OUT, parts, "pet", "pet", desc="suvr", space="T1w") for parts in (forward, backward)}
    assert {path.name for path in paths} == {"sub-01_ses-X_trc-AV1451_rec-acdyn_run-2_space-T1w_desc-suvr_pet.nii.gz"}


def test_entities_that_bids_does_not_know_for_derivatives_are_left_out():
    assert (
        AnatNames(OUT, PLAIN | {"inv": "2", "acq": "mp2rage"}).mask.name == "sub-01_acq-mp2rage_desc-brain_mask.nii.gz"
    )


@pytest.mark.parametrize("changes", [{"desc": "a_b"}, {"desc": ""}, {"desc": "../x"}, {"colour": "red"}])
def test_what_is_no_bids_entity_is_refused(changes):
    with pytest.raises(ValueError, match="is not a BIDS entity"):
        derivative_path(OUT, PLAIN, "anat", "T1w", **changes)


def test_uris_name_the_dataset_and_the_path_in_it():
    assert bids_uri(Path("/d/sub-01/a.nii"), Path("/d")) == "bids:raw:sub-01/a.nii"
    assert bids_uri(Path("/d/x/sub-01/a.nii"), Path("/d/x"), "") == "bids::sub-01/a.nii"
    with pytest.raises(ValueError, match="not in the subpath"):
        bids_uri(Path("/elsewhere/a.nii"), Path("/d"))


def test_the_suvr_sidecar_has_every_field_of_the_contract_and_is_json():
    content = json.loads(json.dumps(suvr_sidecar(assumptions=("one", "two", "one")).content()))
    assert not set(CONTRACT_FIELDS.split()) - set(content)
    assert (content["SoftwareName"], content["SoftwareVersion"]) == ("tau-pipeline", tau_pipeline.__version__)
    assert content["Assumptions"] == ["one", "two"]
    assert content["FrameTimesStart"] == [4800.0]


def test_what_is_not_known_is_written_as_na():
    unknown = {"tracer": None, "radionuclide": None, "manufacturer": None, "effective_fwhm_mm": None}
    content = suvr_sidecar(**unknown).content()
    keys = ("TracerName", "TracerRadionuclide", "Manufacturer", "EffectiveFWHM")
    assert [content[key] for key in keys] == ["n/a"] * 4


def whole_output(out: Path) -> None:
    """Every name of the contract, with tiny images, for a participant without and one with sessions."""
    image = image_on(np.ones((3, 3, 3), np.float32), np.eye(4))
    labels = image_on(np.ones((3, 3, 3), np.int16), np.eye(4))
    common = image_sidecar(["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"], "0123456789ab", skull_stripped=False)

    def put(path: Path, content: dict[str, object]) -> None:
        save_volume(labels if path.name.endswith("dseg.nii.gz") else image, path)
        write_json(content, sidecar_path(path))

    write_dataset_files(out, out.parent / "raw", {"freesurfer": out.parent / "fs"})
    for parts in (PLAIN, {"sub": "02", "ses": "X", "acq": "mprage", "run": "1"}):
        anat = AnatNames(out, parts)
        masks = [anat.reference_mask(name) for name in ("CerebellarGM", "Labels8x47")]
        for path in (anat.t1w, anat.mask, anat.dseg, *masks):
            put(path, common)
        write_text("index\tname\tcolor\n1\tx\t#00ff00\n", anat.dseg_table)
        for path in (
            anat.to_template(),
            anat.from_template(".mat"),
            anat.figure("brainMask"),
            report_path(out, parts["sub"]),
        ):
            write_text("x", path)
    for parts in (PET, {"sub": "02", "ses": "X", "trc": "MK6240", "rec": "acdyn", "run": "1"}):
        pet = PetNames(out, parts)
        for path in (pet.suvr(), pet.suvr("Pons")):
            put(path, suvr_sidecar(tracer=None, manufacturer=None).content())
        write_text("region\tsuvr_mean\n", pet.rois)
        write_json({}, sidecar_path(pet.rois))
        write_text("#Insight Transform File V1.0\n", pet.to_t1w)
        write_text("x", pet.figure("coregistration"))
    for name in ("group/suvr_rois.tsv", "group/report.html", "logs/CITATION.md", "logs/errors/sub-01_pet.json"):
        write_text("{}", out / name)


def test_an_output_with_every_name_is_valid_for_the_official_validator(tmp_path):
    whole_output(tmp_path / "out")
    report = validate(tmp_path / "out")
    assert (report.errors, report.participant_errors) == ((), {})


def test_the_validator_does_look_at_the_output(tmp_path):
    out = tmp_path / "out"
    whole_output(out)
    image = PetNames(out, PET).suvr()
    content = read_json(sidecar_path(image))
    write_json({key: value for key, value in content.items() if key != "SkullStripped"}, sidecar_path(image))
    write_text("x", out / "sub-02" / "ses-X" / "anat" / "notes.txt")
    assert list(validate(out).participant_errors) == ["01", "02"]


def test_the_output_says_what_made_it_and_from_what(tmp_path):
    write_dataset_files(tmp_path / "out", tmp_path / "raw", {"freesurfer": tmp_path / "fs"})
    found = read_json(tmp_path / "out" / "dataset_description.json")
    assert found["DatasetType"] == "derivative"
    assert found["GeneratedBy"] == [{"Name": "tau-pipeline", "Version": tau_pipeline.__version__}]
    assert set(found["DatasetLinks"]) == {"raw", "freesurfer"}
    assert found["DatasetLinks"]["raw"] == (tmp_path / "raw").as_uri()
    write_dataset_files(tmp_path / "out", tmp_path / "raw")


def test_a_place_that_is_taken_is_refused_before_anything_is_written(tmp_path):
    raw = tmp_path / "raw"
    write_json({"Name": "raw"}, raw / "dataset_description.json")
    other = tmp_path / "other"
    write_json({"GeneratedBy": [{"Name": "fMRIPrep"}]}, other / "dataset_description.json")
    write_text("{", tmp_path / "broken" / "dataset_description.json")
    write_text("x", tmp_path / "file")
    for place, message in (
        (raw, "is the input dataset"),
        (other, "made by fMRIPrep"),
        (tmp_path / "broken", "holds a damaged dataset"),
        (tmp_path / "file", "is a file"),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(OutputError, match=message):
            write_dataset_files(place, raw)
        assert sorted(tmp_path.rglob("*")) == before
    check_output_dir(tmp_path / "new", raw)
    made = {"Name": "tau-pipeline", "Version": "0.1.0"}
    for version, refused in (("0.0.9", False), (made["Version"], False), ("not stated", False), ("99.1.dev2", True)):
        write_json({"GeneratedBy": [{**made, "Version": version}]}, tmp_path / "ours/dataset_description.json")
        with pytest.raises(OutputError, match="made by version 99") if refused else nullcontext():
            check_output_dir(tmp_path / "ours", raw)
    check_output_dir(raw / "derivatives" / "tau", raw)
