"""Scans that a cohort pools: made in one way, of images that are still in the dataset."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from closed_folders import closed
from test_group import run, write_cohort

from tau_pipeline.cohort.provenance import PROVENANCE_COLUMNS, mixtures, repeated
from tau_pipeline.derivatives.index import find_scans
from tau_pipeline.derivatives.status import ScanStatus, update_status
from tau_pipeline.files import read_tsv

pytestmark = pytest.mark.usefixtures("without_figures")


def sidecars(out: Path) -> list[Path]:
    return sorted(out.glob("sub-*/**/pet/*_desc-suvr_pet.json"))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("SoftwareVersion", "99.0", "version"),
        ("SmoothingFWHM", 8.0, "SmoothingFWHM"),
        ("FrameTimesStart", [1200.0], "window"),
        ("FrameDuration", [300.0], "window"),
    ],
)
def test_scans_made_in_different_ways_are_refused_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], key: str, value: object, named: str
) -> None:
    refused(tmp_path, capfd, key, value, named)


def test_scans_made_in_different_ways_are_taken_where_that_is_asked_or_the_odd_ones_are_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bids, out = refused(tmp_path, capfd, "SettingsHash", "abcdef", "SettingsHash")
    assert run(bids, out, "--unknown-manufacturer", "pooled", "--allow-mixed-settings") == 0
    odd = tmp_path / "odd.tsv"
    odd.write_text("\n".join(["scan", *(path.name.split("_space")[0] for path in sidecars(out)[::2])]) + "\n")
    assert run(bids, out, "--unknown-manufacturer", "pooled", "--exclude", str(odd)) == 0


def refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], key: str, value: object, named: str
) -> tuple[Path, Path]:
    """Change a key of every other scan and check that the group level names it; folders of the cohort."""
    bids, out = write_cohort(tmp_path, 6, images=False)
    for path in sidecars(out):
        edit(path, lambda content: content.update(FrameTimesStart=[4800.0], FrameDuration=[1200.0]))
    assert mixtures(find_scans(out)) == []
    for path in sidecars(out)[::2]:
        edit(path, lambda content: content.update({key: value}))
    (sentence,) = {text.split(":")[0] for text in mixtures(find_scans(out))}
    assert named in sentence
    before = sorted(out.rglob("*"))
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 2
    said = capfd.readouterr().err
    assert named in said
    assert sidecars(out)[0].name.split("_space")[0] in said
    assert [path for path in sorted(out.rglob("*")) if path.name != ".tau-pipeline.lock"] == before
    return bids, out


def test_scanners_may_have_different_smoothing_and_start_some_minutes_apart(tmp_path: Path) -> None:
    _, out = write_cohort(tmp_path, 6, images=False)
    for number, path in enumerate(sidecars(out)):
        edit(
            path,
            lambda content, number=number: content.update(
                FrameTimesStart=[4800.0 + 60 * number], FrameDuration=[1200.0]
            ),
        )
        edit(path, lambda content: content.update(SmoothingFWHM=len(content["Manufacturer"])))
    assert mixtures(find_scans(out)) == []


@pytest.mark.parametrize("verdict", ["warn", "fail"])
def test_a_scan_whose_window_is_doubted_already_does_not_stop_the_cohort(tmp_path: Path, verdict: str) -> None:
    bids, out = write_cohort(tmp_path, 6, images=False)
    doubt = {"Check": "window_start_min", "Value": -20, "Verdict": verdict}
    for number, path in enumerate(sidecars(out)):
        odd = {"FrameTimesStart": [3600.0], "QualityChecks": [doubt]} if number == 0 else {"FrameTimesStart": [4800.0]}
        edit(path, lambda content, odd=odd: content.update(FrameDuration=[1200.0], **odd))
    assert mixtures(find_scans(out)) == []
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    counted = read_tsv(out / "group/suvr_rois.tsv").groupby("participant_id")["included"].first()
    assert (counted == "no").tolist() == [verdict == "fail", *[False] * (len(counted) - 1)]


def test_the_tables_state_how_each_scan_was_made(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, 6, images=False)
    made = {"FrameTimesStart": [4800.0], "FrameDuration": [1200.0], "SettingsHash": "0=1+1", "EffectiveFWHM": 6.5}
    for path in sidecars(out):
        edit(path, lambda content: content.update(made, DaysBetweenPETAndT1w=12))
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    for name in ("suvr_rois", "suvr_rois_wide", "status"):
        table = pd.read_csv(out / f"group/{name}.csv") if "wide" in name else read_tsv(out / f"group/{name}.tsv")
        described = json.loads((out / f"group/{name}.json").read_text())
        for column, value in zip(PROVENANCE_COLUMNS, (80.0, 100.0, 6.5, "0=1+1", 12.0), strict=True):
            assert set(table[column]) == {value}, (name, column)
            assert described[column]["Description"]


def test_a_participant_that_was_removed_from_the_dataset_leaves_the_tables(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, 6, images=False)
    with_raw_images(bids, out)
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    everybody = set(read_tsv(out / "group/suvr_rois.tsv")["participant_id"])
    gone = sidecars(out)[0].name.split("_")[0]
    next((bids / gone).rglob("*_pet.nii.gz")).unlink()
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    assert set(read_tsv(out / "group/suvr_rois.tsv")["participant_id"]) == everybody - {gone}
    status = read_tsv(out / "group/status.tsv")
    assert not (status["state"] == "done")[status["participant_id"] == gone].any()


def with_raw_images(bids: Path, out: Path) -> list[Path]:
    """Give each scan an empty raw image that its sidecar names; return the images."""
    images = []
    for path in sidecars(out):
        raw = bids / path.parent.relative_to(out) / f"{path.name.split('_space')[0]}_pet.nii.gz"
        uri = f"bids:raw:{raw.relative_to(bids).as_posix()}"
        edit(path, lambda content, uri=uri: content.update(Sources=[uri]))
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.touch()
        images.append(raw)
    return images


def test_a_scan_that_bidsignore_names_since_leaves_the_tables(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, 6, images=False)
    image = with_raw_images(bids, out)[2]
    (bids / ".bidsignore").write_text(f"{image.name}\n")
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    who = image.name.split("_")[0]
    assert who not in set(read_tsv(out / "group/suvr_rois.tsv")["participant_id"])
    assert (read_tsv(out / "group/status.tsv").set_index("participant_id").loc[who, "state"]) == "skipped"


def test_a_scan_that_the_last_run_left_out_leaves_the_tables(tmp_path: Path) -> None:
    """Its sidecar says by now that it was not corrected for attenuation."""
    bids, out = write_cohort(tmp_path, 6, images=False)
    key = f"{sidecars(out)[0].name.split('_space')[0]}_pet"
    left_out = ScanStatus(key, "skipped", "left out: no attenuation correction", key.removesuffix("_pet"))
    update_status(out, {key: left_out})
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    assert key not in set(read_tsv(out / "group/suvr_rois.tsv")["scan"])
    assert read_tsv(out / "group/status.tsv")["scan"].tolist().count(key) == 1


def test_two_reconstructions_of_one_pet_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bids, out = write_cohort(tmp_path, 6, images=False)
    assert repeated(find_scans(out)) == []
    stem = sidecars(out)[0].name.split("_space")[0]
    for path in list(sidecars(out)[0].parent.glob(f"{stem}_*")):
        shutil.copy(path, path.with_name(path.name.replace(stem, f"{stem}_rec-b")))
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    assert f"1 session has several scans of one tracer, each of which counts: {stem} and {stem}_rec-b" in (
        capfd.readouterr().err
    )
    decided = tmp_path / "x.tsv"
    decided.write_text(f"scan\n{stem}_rec-b\n")
    assert run(bids, out, "--unknown-manufacturer", "pooled", "--exclude", str(decided)) == 0
    assert "several scans of one tracer" not in capfd.readouterr().err


def test_another_dataset_and_maps_that_are_gone_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bids, out = write_cohort(tmp_path, 6)
    images = with_raw_images(bids, out)
    next(sidecars(out)[0].parent.glob("*_desc-suvr_pet.nii.gz")).unlink()
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    said = capfd.readouterr().err
    assert "1 of 6 scans has no SUVR map any more" in said
    assert "none of the raw images" not in said
    for image in images:
        image.unlink()
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    assert "none of the raw images" in capfd.readouterr().err
    assert read_tsv(out / "group/status.tsv")["state"].tolist() == ["done"] * 6


def test_tables_of_other_participants_and_tables_that_were_cut_off_are_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bids, out = write_cohort(tmp_path, 6, images=False)
    tables = sorted(out.glob("sub-*/**/*_rois.tsv"))
    lines = tables[0].read_text().splitlines(keepends=True)
    tables[0].write_text("".join(lines[: len(lines) // 2]))
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    said = capfd.readouterr().err
    assert f"the table of 1 scan has fewer regions than the others: {tables[0].name.split('_desc')[0]}" in said
    shutil.copy(tables[1], tables[0])
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 2
    said = capfd.readouterr().err
    assert f"{tables[0]} has rows with the participant_id {tables[1].name.split('_')[0]}" in said


def test_decisions_that_name_no_scan_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Somebody means to leave a scan out, and it counts."""
    bids, out = write_cohort(tmp_path, 6, images=False)
    stem = sidecars(out)[0].name.split("_space")[0]
    file = tmp_path / "x.tsv"
    file.write_text(f"scan\n{stem}\n{stem.split('_')[0]}\nsub-99_trc-AV1451\n")
    assert run(bids, out, "--unknown-manufacturer", "pooled", "--exclude", str(file)) == 0
    assert f"names no scan that is there by {stem.split('_')[0]}, sub-99_trc-AV1451; expected" in capfd.readouterr().err
    key = "sub-99_trc-AV1451_pet"
    update_status(out, {key: ScanStatus(key, "failed", "no T1w", key.removesuffix("_pet"))})
    file.write_text("participant_id\nsub-99\nsub-00\n")
    run(bids, out, "--unknown-manufacturer", "pooled", "--exclude", str(file))
    assert "names no scan" not in capfd.readouterr().err


def test_where_no_scan_counts_any_more_earlier_tables_are_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bids, out = write_cohort(tmp_path, 3, images=False)
    assert run(bids, out, "--unknown-manufacturer", "pooled", "--min-participants", "1") == 0
    keys = [f"{path.name.split('_space')[0]}_pet" for path in sidecars(out)]
    update_status(out, {key: ScanStatus(key, "failed", "no T1w", key.removesuffix("_pet")) for key in keys})
    capfd.readouterr()
    assert run(bids, out, "--unknown-manufacturer", "pooled", "--min-participants", "1") == 2
    said = capfd.readouterr().err
    assert f"none of the scans in {out} counts: {keys[0].removesuffix('_pet')}" in said
    assert "has tables of an earlier run" in said


def test_scans_whose_raw_folder_cannot_be_read_are_not_told_to_be_removed(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, 6, images=False)
    images = with_raw_images(bids, out)
    with closed(images[0].parent):
        assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    assert read_tsv(out / "group/status.tsv")["state"].tolist() == ["done"] * 6
