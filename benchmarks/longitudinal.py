"""Change between simulated visits with known truth: how well it is found, and what the longitudinal stream gains.

    python benchmarks/longitudinal.py FOLDER [--participants 1 2 3] [--voxel-size 2.5] [--nprocs 2] [--tell]

Simulates participants with three visits a year apart (`tau-simulate --sessions 3`), without any change and with 3 % a
year, and runs the participant level cross-sectionally (``off``), with own tissue, and with fixed labels. All is kept in
FOLDER; a run that was stopped goes on, and parts can be asked for one by one with ``--only`` and ``--methods``. The
figures:

- ``same``: visits without change. Absolute change of meta-temporal SUVR between any two visits, in percent, median and
  95th percentile. The standard deviation within participants for the composite, for the 68 regions (median), and for
  small ones: of SUVR, of the means of the true map without noise by the same labels (the part of the spread that
  labels are to blame for), and of volumes. Above them, the same by the true labels and the true registration: what the
  noise of the PET leaves, and what the voxels of the simulation leave. No segmentation can be expected below it.
- ``differing``: the same, where contrast, noise, coil, and motion of the T1w differ between visits
  (`tau-simulate --t1w-differs`).
- ``swapped``: the first two visits under each other's name. Changes must have the other sign, and nothing else may
  differ.
- ``changed``: the slope that is found, over the slope of the true map at the resolution of the scanner.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tau_pipeline.atlas import CORTICAL_NUMBERS, composites
from tau_pipeline.derivatives.names import AnatNames
from tau_pipeline.files import read_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample, resample_array
from tau_pipeline.simulate.dataset import Simulation, simulate_dataset

REGION = "metatemporal"
PERCENT = 3.0
#: Groups of regions; the median over the regions of each is printed.
NAMED: dict[str, tuple[int, ...]] = {
    "68 regions": tuple(side + number for side in (1000, 2000) for number in CORTICAL_NUMBERS),
    "entorhinal": (1006, 2006),
    "amygdala": (18, 54),
    "hippocampus": (17, 53),
}


def simulated(folder: Path, numbers: list[int], voxel_mm: float, percent: float, *, differing: bool = False) -> Path:
    """Return a simulated dataset, made if it is not there."""
    if not (folder / "truth" / "scans.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        cohort = Simulation(max(numbers), 11, voxel_mm, pet="static", visits=3)
        settings = replace(cohort, annual_change=percent, t1w_differs=differing)
        simulate_dataset(folder, settings, lambda line: print(line, flush=True))
    return folder


def swapped(source: Path, target: Path, labels: Iterable[str]) -> Path:
    """Return a copy of a dataset in which the first two visits have each other's name."""
    if (target / "participants.tsv").is_file():
        return target
    new = {"ses-01": "ses-02", "ses-02": "ses-01", "ses-03": "ses-03"}
    for path in sorted(source.glob("*")):
        if path.is_file() and path.name != "participants.tsv":
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.name)
    for label in labels:
        for path in sorted((source / label).glob("ses-*/*/*")):
            session = path.parts[-3]
            name = path.name.replace(session, new[session])
            place = target / label / new[session] / path.parent.name / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    shutil.copyfile(source / "participants.tsv", target / "participants.tsv")
    return target


def run(bids: Path, out: Path, labels: list[str], nprocs: int, method: str) -> Path:
    """Run the participant level; what an earlier run has done is used again."""
    # The methods share what they have in common.
    call = [sys.executable, "-m", "tau_workflows", str(bids), str(out), "participant", "-w", f"{bids}_work"]
    call += ["--skip-bids-validation", "--nprocs", str(nprocs), "--participant-label", *labels]
    call += ["--longitudinal", method]
    subprocess.run(call, check=True)
    return out


def tables(out: Path) -> pd.DataFrame:
    """Return all rows of the tables of SUVR."""
    return pd.concat([read_tsv(path) for path in sorted(out.glob("sub-*/ses-*/pet/*_desc-suvr_rois.tsv"))])


def values(out: Path, region: str = REGION) -> pd.DataFrame:
    """Return the mean SUVR of a region, one row per participant and one column per session."""
    rows = tables(out)
    rows = rows[(rows["region"] == region) & (rows["hemisphere"] == "both")]
    return rows.pivot(index="participant_id", columns="session_id", values="suvr_mean")


def of_regions(out: Path, column: str) -> pd.DataFrame:
    """Return a column of the table, one row per participant and session and one column per region of `NAMED`."""
    rows = tables(out)
    composite = rows[(rows["region"] == REGION) & (rows["hemisphere"] == "both")].assign(index=REGION)
    rows = pd.concat([composite, rows[rows["index"].isin([code for codes in NAMED.values() for code in codes])]])
    return rows.pivot(index=["participant_id", "session_id"], columns="index", values=column).astype(float)


def noise_alone(bids: Path, labels: list[str]) -> pd.DataFrame:
    """Return regional SUVR by the true labels and the true registration: what noise and voxels leave."""
    rows = {}
    for scan in _scans(bids, labels):
        pet = load_volume(next((bids / scan["participant"] / scan["session"] / "pet").glob("*_pet.nii.gz")), ndim=3)
        true = load_volume(_truth(bids, scan, "labels"), ndim=3)
        to_voxel = np.linalg.inv(np.array(scan["pet2t1"]) @ pet.affine) @ true.affine
        activity = resample_array(np.asanyarray(pet.dataobj).astype(np.float32), to_voxel, true.shape, order=1)
        codes = np.asanyarray(true.dataobj)
        rows[scan["participant"], scan["session"]] = _means(activity / activity[np.isin(codes, (8, 47))].mean(), codes)
    return _framed(rows)


def labels_alone(out: Path, bids: Path, labels: list[str]) -> pd.DataFrame:
    """Return regional means of the true map, without noise and in its place, by the labels of each visit.

    By cubic splines: linear interpolation blurs a map on voxels of 2 mm by another width at each visit.
    """
    rows = {}
    for scan in _scans(bids, labels):
        names = AnatNames(out, {"sub": scan["participant"].removeprefix("sub-"), "ses": scan["session"][4:]})
        found, suvr = load_volume(names.dseg, ndim=3), load_volume(_truth(bids, scan, "suvr"), ndim=3)
        reference = load_volume(names.reference_mask("CerebellarGM"), ndim=3)
        on_labels = np.asanyarray(resample(suvr, found, np.eye(4), "cubic").dataobj)
        mean = on_labels[np.asanyarray(reference.dataobj) > 0].mean()
        rows[scan["participant"], scan["session"]] = _means(on_labels / mean, np.asanyarray(found.dataobj))
    return _framed(rows)


def true_labels_alone(bids: Path, labels: list[str]) -> pd.DataFrame:
    """Return the same by the true labels, on the same grid: what the voxels of the simulation leave."""
    rows = {}
    for scan in _scans(bids, labels):
        codes, suvr = (
            np.asanyarray(load_volume(_truth(bids, scan, what), ndim=3).dataobj) for what in ("labels", "suvr")
        )
        rows[scan["participant"], scan["session"]] = _means(suvr / suvr[np.isin(codes, (8, 47))].mean(), codes)
    return _framed(rows)


def _scans(bids: Path, labels: list[str]) -> list[dict[str, Any]]:
    scans = json.loads((bids / "truth" / "scans.json").read_text())
    return [scan for scan in scans if scan["participant"] in labels]


def _truth(bids: Path, scan: dict[str, Any], what: str) -> Path:
    return bids / "truth" / f"{scan['participant']}_{scan['session']}_{what}.nii.gz"


def _means(suvr: np.ndarray, codes: np.ndarray) -> dict[str | int, float]:
    """Return the mean of the meta-temporal composite and of each region of `NAMED`."""
    composite = np.isin(codes, composites()[REGION]["both"])
    regions = {code: float(suvr[codes == code].mean()) for own in NAMED.values() for code in own}
    return {REGION: float(suvr[composite].mean()), **regions}


def _framed(rows: dict[tuple[str, str], dict[str | int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows).T.rename_axis(index=["participant_id", "session_id"])


def pair_changes(table: pd.DataFrame) -> np.ndarray:
    """Return the change between any two visits of each participant, in percent of their mean."""
    pairs = [200 * (table[b] - table[a]) / (table[a] + table[b]) for a, b in combinations(table.columns, 2)]
    return np.concatenate([one.to_numpy(float) for one in pairs])


def within_sd(table: pd.DataFrame) -> pd.Series:
    """Return the standard deviation between the visits of a participant, in percent of their mean.

    Pooled over participants, by region; ``table`` is that of `of_regions`.
    """
    visits = table.groupby(level="participant_id")
    return (100 * visits.std(ddof=1) / visits.mean()).pow(2).mean().pow(0.5)


def tell_spread(name: str, table: pd.DataFrame) -> None:
    """Print the spread of the composite, and the median over the regions of each group of `NAMED`."""
    spread = within_sd(table)
    groups = ", ".join(f"{group} {spread[list(codes)].median():.2f}" for group, codes in NAMED.items())
    worst = spread[list(NAMED["68 regions"])].quantile(0.9)
    print(f"SD within participants, {name}: {REGION} {spread[REGION]:.2f}, {groups}, 90th percentile {worst:.2f} %")


def true_slopes(bids: Path) -> pd.Series:
    """Return the annual change of the true map in the true region, in percent of the first visit, by participant."""
    scans = pd.DataFrame(json.loads((bids / "truth" / "scans.json").read_text()))
    scans["suvr"] = [means[REGION] for means in scans["mean_suvr"]]
    return pd.Series({who: _slope(own["years"], own["suvr"]) for who, own in scans.groupby("participant")})


def _slope(years: Iterable[float], suvr: Iterable[float]) -> float:
    values_of = np.array(list(suvr), float)
    return float(100 * np.polyfit(np.array(list(years), float), values_of, 1)[0] / values_of[0])


def tell_same(name: str, out: Path, bids: Path, labels: list[str], noise: pd.DataFrame) -> None:
    """Print the spread of visits without change, and the parts of it that processing and labels add.

    ``noise`` is that of `noise_alone`. Each scan has the same noise in it, so that the ratio is left with what
    processing adds: by the labels, the place of the reference region, and the registration of the PET.
    """
    change = np.abs(pair_changes(values(out)))
    print(
        f"{name}: {len(change)} pairs: |change| median {np.median(change):.2f} %, 95th percentile "
        f"{np.percentile(change, 95):.2f} %, largest {change.max():.2f} %"
    )
    tell_spread(f"{name}, SUVR", of_regions(out, "suvr_mean"))
    tell_spread(f"{name}, SUVR over that by true labels and registration", of_regions(out, "suvr_mean") / noise)
    tell_spread(f"{name}, by its labels alone", labels_alone(out, bids, labels))
    tell_spread(f"{name}, volume", of_regions(out, "volume_mm3"))


def tell_swapped(out: Path, other: Path) -> None:
    """Print by how much results differ when visits have other names."""
    one, two = values(out), values(other).rename(columns={"ses-01": "ses-02", "ses-02": "ses-01"})
    two = two.loc[one.index.intersection(two.index), one.columns]
    difference = 100 * np.abs(two / one.loc[two.index] - 1).to_numpy()
    signs = np.sign(one["ses-02"] - one["ses-01"]).loc[two.index]
    kept = (signs == -np.sign(values(other)["ses-02"] - values(other)["ses-01"])).all()
    print(f"swapped: SUVR differs by at most {np.nanmax(difference):.4f} %; changes have the other sign: {kept}")


def tell_changed(name: str, out: Path, bids: Path) -> None:
    """Print the slopes that were found, beside the true ones."""
    table, truth = values(out), true_slopes(bids)
    found = pd.Series({who: _slope(range(3), row) for who, row in table.iterrows()})
    truth = truth[found.index]
    print(
        f"changed, {name}: painted {PERCENT:g} % a year; true map {truth.mean():.2f}, found {found.mean():.2f} % a year"
    )
    ratios = ", ".join(f"{who} {found[who]:.2f} of {truth[who]:.2f}" for who in found.index)
    print(f"  found over true {found.mean() / truth.mean():.3f} ({ratios})")


def main() -> int:
    """Run the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--participants", type=int, nargs="+", default=[1, 2, 3], help="numbers; 4 has no PET")
    parser.add_argument("--voxel-size", type=float, default=2.5)
    parser.add_argument("--nprocs", type=int, default=2)
    parts, methods = ("same", "differing", "swapped", "changed"), ("off", "own-tissue", "fixed-labels")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--methods", nargs="+", choices=methods, default=list(methods))
    parser.add_argument("--tell", action="store_true", help="print the figures of outputs that are there; run nothing")
    args = parser.parse_args()
    labels = [f"sub-{number:02d}" for number in args.participants]

    def processed(bids: Path, method: str, only: list[str]) -> Path:
        out = args.folder / f"{bids.name}_{method}"
        return out if args.tell else run(bids, out, only, args.nprocs, method)

    for part in ("same", "differing"):
        if part in args.only:
            bids = simulated(args.folder / part, args.participants, args.voxel_size, 0.0, differing=part == "differing")
            noise = noise_alone(bids, labels)
            tell_spread(f"{part}, true labels and registration, SUVR", noise)
            tell_spread(f"{part}, true labels alone", true_labels_alone(bids, labels))
            for method in args.methods:
                tell_same(f"{part}, {method}", processed(bids, method, labels), bids, labels, noise)
    if "swapped" in args.only:
        same = simulated(args.folder / "same", args.participants, args.voxel_size, 0.0)
        bids = swapped(same, args.folder / "swapped", labels[:1])
        tell_swapped(*(processed(one, "own-tissue", labels[:1]) for one in (same, bids)))
    if "changed" in args.only:
        bids = simulated(args.folder / "changed", args.participants, args.voxel_size, PERCENT)
        for method in args.methods:
            tell_changed(method, processed(bids, method, labels), bids)
    return 0


if __name__ == "__main__":
    sys.exit(main())
