"""The index finds the outputs of a folder by the names that are stated in one module, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from participant_results import write_scan
from synthesis_cohort import PEOPLE, write_cohort

from tau_pipeline.derivatives.index import DoneScan, Output, find_maps, find_outputs, find_scans
from tau_pipeline.derivatives.names import AnatNames, PetNames, SyntheticNames, sidecar_path
from tau_pipeline.derivatives.read import read_suvr_sidecar
from tau_pipeline.errors import MissingInputError

ENTITIES = {"sub": "01", "ses": "a", "trc": "AV1451", "rec": "x+1", "run": "2"}


def outputs(root: Path, entities: dict[str, str]) -> dict[Output, Path]:
    """Return one output of each kind."""
    anat, pet, synthetic = (names(root, entities) for names in (AnatNames, PetNames, SyntheticNames))
    return {
        "t1w": anat.t1w,
        "mask": anat.mask,
        "labels": anat.dseg,
        "thickness": anat.thickness_table,
        "t1w_figure": anat.figure("brainMask"),
        "pet_figure": pet.figure("suvr"),
        "suvr": pet.suvr(),
        "further_suvr": pet.suvr("Pons"),
        "rois": pet.rois,
        "synthetic_suvr": synthetic.suvr(),
        "synthetic_rois": synthetic.rois,
        "agreement": synthetic.agreement,
    }


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def other_outputs(root: Path) -> list[Path]:
    """Return outputs that are not read again, and files that are no outputs."""
    anat, pet, synthetic = (names(root, ENTITIES) for names in (AnatNames, PetNames, SyntheticNames))
    elsewhere = [
        path.with_name(path.name.replace("space-T1w", "space-MNI152NLin6Asym"))
        for path in (pet.suvr(), pet.suvr("Pons"), synthetic.suvr())
    ]
    return [
        *elsewhere,
        anat.t1w.with_name(anat.t1w.name.replace("_desc", "_space-MNI152NLin6Asym_desc")),
        pet.rois.with_name(pet.rois.name.replace("_desc", "_seg-Own_desc")),
        anat.reference_mask("Pons"),
        *(names.standardized(region) for names in (pet, synthetic) for region in ("", "Pons")),
        synthetic.uncertainty,
        pet.rois.with_name(f".partial-{pet.rois.name}"),
        pet.rois.with_name(pet.rois.name.replace("AV1451", "AV-1451")),
        root / "sub-02" / "ses-a" / "pet" / pet.rois.name,
        root / "sub-01" / "old" / "pet" / pet.rois.name,
        root / "sub-01" / "anat" / anat.t1w.name,
    ]


@pytest.mark.parametrize("entities", [{"sub": "01"}, ENTITIES], ids=["plain", "all"])
def test_every_output_is_found_as_what_it_is_and_no_other(tmp_path: Path, entities: dict[str, str]) -> None:
    written = outputs(tmp_path, entities)
    assert set(written) == set(get_args(Output))
    touch(*written.values(), *other_outputs(tmp_path))
    for output, path in written.items():
        assert find_outputs(tmp_path, output) == [path]
        assert find_outputs(tmp_path, output, "01") == [path]
        assert find_outputs(tmp_path, output, "0") == []
        assert find_outputs(tmp_path, output, sidecars=True) == []
        touch(sidecar_path(path))
    assert find_outputs(tmp_path, "suvr", sidecars=True) == [sidecar_path(written["suvr"])]


@pytest.mark.parametrize("names", [AnatNames, PetNames, SyntheticNames])
def test_names_are_read_from_a_path_as_they_were_written(names: type, tmp_path: Path) -> None:
    for entities in ({"sub": "01"}, {"sub": "01", "ses": "a", "run": "2"}):
        own = names(tmp_path, entities)
        assert names.of(own.t1w if names is AnatNames else own.suvr("Pons")) == own


def test_a_scan_reads_its_sidecar_and_table_when_they_are_needed(tmp_path: Path) -> None:
    names = write_scan(tmp_path, "00", "GE", 0, images=False)
    scan = DoneScan(names)
    sidecar_path(names.suvr()).rename(tmp_path / "away.json")
    assert (scan.participant_id, scan.stem, scan.source) == ("sub-00", "sub-00_trc-AV1451", "measured")
    (tmp_path / "away.json").rename(sidecar_path(names.suvr()))
    assert scan.stated("Manufacturer") == "GE"
    assert (scan.stated("NoSuchKey"), set(scan.rows["reference_region"])) == (None, {scan.reference_region})


def test_a_map_of_each_reference_region_is_a_scan_of_its_own(tmp_path: Path) -> None:
    write_scan(tmp_path, "00", "GE", 0, images=False)
    for scan in find_scans(tmp_path):
        assert (scan.rows["reference_region"] == scan.reference_region).all()
        assert (scan.further_region == "") == (scan.reference_region == scan.table["reference_region"].iloc[0])
        assert scan.sidecar["ReferenceRegion"] == scan.reference_region


def test_measured_maps_know_the_t1w_on_whose_grid_they_are(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    assert [scan.anat for scan in find_maps(tmp_path)] == [person.anat(tmp_path) for person in PEOPLE]


def test_a_table_in_the_folder_of_another_participant_is_not_read(tmp_path: Path) -> None:
    names = write_scan(tmp_path, "00", "GE", 0, images=False)
    names.rois.parent.parent.rename(tmp_path / "sub-01")
    assert find_scans(tmp_path) == []


def test_a_sidecar_of_an_output_that_was_not_fetched_is_said_to_be_a_broken_link(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_desc-suvr_pet.json"
    with pytest.raises(MissingInputError, match="run the participant level again for sub-01"):
        read_suvr_sidecar(path)
    path.symlink_to("../.git/annex/objects/none")
    with pytest.raises(MissingInputError, match="datalad get"):
        read_suvr_sidecar(path)
