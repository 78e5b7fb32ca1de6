"""The group level reads files of scans once: a later run opens those that are new, and no others."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from participant_results import write_cohort, write_scan

from tau_pipeline.derivatives.compact import Compact
from tau_pipeline.derivatives.kept_json import KeptJson
from tau_pipeline.derivatives.names import AnatNames, sidecar_path
from tau_pipeline.errors import DamagedFileError, MissingInputError
from tau_pipeline.files import read_json, write_json
from tau_workflows.cli import main

OPTIONS = ("group", "--unknown-manufacturer", "pooled", "--min-participants", "1")
_noting: list[list[str]] = []


def _note(event: str, values: tuple[object, ...]) -> None:
    """Note the path of a file that is opened; hooks cannot be removed, so this one does nothing between tests."""
    if _noting and event == "open" and isinstance(values[0], str) and "w" not in str(values[1]):
        _noting[-1].append(values[0])


sys.addaudithook(_note)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Paths of the files that are opened for reading, in their order."""
    found: list[str] = []
    _noting.append(found)
    yield found
    _noting.remove(found)


def whose(paths: list[str], out: Path) -> Counter[str]:
    """Count the files of participants that were opened, by participant; of pictures and pages none is a result."""
    named = [path.removeprefix(f"{out}/") for path in paths if path.startswith(f"{out}/") and ".partial" not in path]
    found = [re.search(r"sub-[0-9A-Za-z]+", name) for name in named if name.endswith((".json", ".tsv", ".nii.gz"))]
    return Counter(match[0] for match in found if match)


def add_scan(out: Path, label: str, seed: int) -> None:
    write_scan(out, label, "Philips", seed, regions=("CerebellarGM", "Pons"))
    anat = AnatNames(out, {"sub": label})
    for image in (anat.t1w, anat.dseg):
        write_json({"SkullStripped": False, "MadeBy": "tau-pipeline: made up", "Assumptions": ["one"]},
                   sidecar_path(image))  # fmt: skip


@pytest.mark.slow
def test_a_run_with_two_further_scans_opens_their_files_alone(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("percentile_figure", "quality_figure", "cortex_by_diagnosis_figure"):
        monkeypatch.setattr(f"tau_pipeline.figures.cohort.{name}", lambda *_: Figure((0.5, 0.25)))
    bids, out = write_cohort(tmp_path, 3)
    for k in range(3, 6):
        add_scan(out, f"{k:02d}", k)
    assert main([str(bids), str(out), *OPTIONS]) == 0
    # With a fit that stays the same, maps that have been made remain.
    fit = shutil.copy(out / "group/standardization.tsv", tmp_path / "fit.tsv")
    again = [str(bids), str(out), *OPTIONS, "--standardization", str(fit)]
    assert main(again) == 0
    opened.clear()
    assert main(again) == 0
    assert whose(opened, out) == Counter()
    first = (out / "group/suvr_rois.csv").read_text()
    add_scan(out, "06", 6)
    add_scan(out, "07", 7)
    opened.clear()
    assert main(again) == 0
    assert whose(opened, out).keys() == {"sub-06", "sub-07"}
    assert (out / "group/suvr_rois.csv").read_text().startswith(first)
    status = (out / "group/status.tsv").read_text()
    assert all(f"sub-{k:02d}_trc-AV1451_pet" in status for k in range(8))
    # The tables are those of a run that reads everything.
    written = {path.name: path.read_text() for path in (out / "group").glob("*sv")}
    for path in out.glob(".tau-pipeline-*.npz"):
        path.unlink()
    assert main(again) == 0
    assert {path.name: path.read_text() for path in (out / "group").glob("*sv")} == written
    assert whose(opened, out).keys() == {f"sub-{k:02d}" for k in range(8)}


def test_files_that_have_changed_are_read_again(tmp_path: Path, opened: list[str]) -> None:
    files = [tmp_path / f"{k}.json" for k in range(3)]
    for k, file in enumerate(files):
        write_json({"value": k}, file)
    archive = tmp_path / "archive.npz"
    before = KeptJson(tmp_path, archive)
    assert [before.read(file)["value"] for file in files] == [0, 1, 2]
    before.write(archive)
    write_json({"value": 100}, files[1])
    files[2].unlink()
    opened.clear()
    now = KeptJson(tmp_path, archive)
    assert [now.read(file)["value"] for file in files[:2]] == [0, 100]
    with pytest.raises(MissingInputError):
        now.read(files[2])
    assert [path for path in opened if path.endswith(".json")] == [str(files[1])]
    now.write(archive)
    opened.clear()
    assert KeptJson(tmp_path, archive).read(files[1]) == {"value": 100}
    files[0].write_text("{")
    with pytest.raises(DamagedFileError):
        KeptJson(tmp_path, archive).read(files[0])
    assert str(files[1]) not in opened


def test_a_compact_sidecar_is_the_sidecar(tmp_path: Path) -> None:
    check = {"Check": "noise", "Value": 0.5, "Unit": "1", "Verdict": "warn", "DecidedBy": "me", "Why": "x"}
    odd = {"Check": "fit", "Value": 10**400, "Verdict": "pass"}
    write_json({"a": 1, "b": [1.5, "x"], "c": {"75": 2.0}, "d": None, "e": "y" * 400, "QualityChecks": [check, odd]},
               tmp_path / "x.json")  # fmt: skip
    stated = read_json(tmp_path / "x.json")
    found, other = (Compact(read_json(tmp_path / "x.json"), values=values) for values in (True, False))
    assert list(found) == list(stated)
    assert len(found) == len(stated)
    assert {name: value for name, value in found.items() if name != "QualityChecks"} == {
        name: value for name, value in stated.items() if name != "QualityChecks"
    }
    assert found["QualityChecks"] == [
        {"Check": "noise", "Value": 0.5, "Verdict": "warn", "DecidedBy": "me", "Why": "x"},
        {"Check": "fit", "Verdict": "pass"},
    ]
    assert "Value" not in other["QualityChecks"][0]
    assert found["b"] is other["b"]
    assert found.get("f", 7) == 7
    assert "f" not in found
    with pytest.raises(KeyError):
        found["f"]
