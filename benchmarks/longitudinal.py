"""Change between simulated visits with known truth: how well it is found, and what the longitudinal stream gains.

    python benchmarks/longitudinal.py FOLDER [--participants 1 2 3] [--voxel-size 2.5] [--nprocs 2]

Simulates participants with three visits a year apart (`tau-simulate --sessions 3`), without any change and with 3 % a
year, and runs the participant level with and without ``--longitudinal``. All is kept in FOLDER; a run that was stopped
goes on, and parts can be asked for one by one with ``--only``. The figures:

- ``same``: visits without change. Absolute change of meta-temporal SUVR between any two visits, in percent, median and
  95th percentile, and the standard deviation within participants; cross-sectional, own tissue, and fixed labels.
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
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from tau_pipeline.files import read_tsv
from tau_pipeline.simulate.dataset import Simulation, simulate_dataset

REGION = "metatemporal"
PERCENT = 3.0


def simulated(folder: Path, numbers: list[int], voxel_mm: float, percent: float) -> Path:
    """Return a simulated dataset, made if it is not there."""
    if not (folder / "truth" / "scans.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        settings = Simulation(max(numbers), 11, voxel_mm, pet="static", visits=3, annual_change=percent)
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
    call = [sys.executable, "-m", "tau_workflows", str(bids), str(out), "participant", "-w", f"{out}_work"]
    call += ["--skip-bids-validation", "--nprocs", str(nprocs), "--participant-label", *labels]
    call += ["--longitudinal", method]
    subprocess.run(call, check=True)
    return out


def values(out: Path, region: str = REGION) -> pd.DataFrame:
    """Return the mean SUVR of a region, one row per participant and one column per session."""
    rows = pd.concat([read_tsv(path) for path in sorted(out.glob("sub-*/ses-*/pet/*_desc-suvr_rois.tsv"))])
    rows = rows[(rows["region"] == region) & (rows["hemisphere"] == "both")]
    return rows.pivot(index="participant_id", columns="session_id", values="suvr_mean")


def pair_changes(table: pd.DataFrame) -> np.ndarray:
    """Return the change between any two visits of each participant, in percent of their mean."""
    pairs = [200 * (table[b] - table[a]) / (table[a] + table[b]) for a, b in combinations(table.columns, 2)]
    return np.concatenate([one.to_numpy(float) for one in pairs])


def within_sd(table: pd.DataFrame) -> float:
    """Return the standard deviation of a participant's visits, in percent of the mean, pooled over participants."""
    return float(np.sqrt((100 * table.std(axis=1, ddof=1) / table.mean(axis=1)).pow(2).mean()))


def true_slopes(bids: Path) -> pd.Series:
    """Return the annual change of the true map in the true region, in percent of the first visit, by participant."""
    scans = pd.DataFrame(json.loads((bids / "truth" / "scans.json").read_text()))
    scans["suvr"] = [means[REGION] for means in scans["mean_suvr"]]
    return pd.Series({who: _slope(own["years"], own["suvr"]) for who, own in scans.groupby("participant")})


def _slope(years: Iterable[float], suvr: Iterable[float]) -> float:
    values_of = np.array(list(suvr), float)
    return float(100 * np.polyfit(np.array(list(years), float), values_of, 1)[0] / values_of[0])


def tell_same(name: str, out: Path) -> None:
    """Print the spread of visits without change."""
    table = values(out)
    change = np.abs(pair_changes(table))
    print(
        f"same, {name:14s} {len(change):3d} pairs: |change| median {np.median(change):.2f} %, 95th percentile "
        f"{np.percentile(change, 95):.2f} %, largest {change.max():.2f} %, SD within {within_sd(table):.2f} %"
    )


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
    parts = ("off", "own-tissue", "fixed-labels", "swapped", "changed")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    labels = [f"sub-{number:02d}" for number in args.participants]
    same = simulated(args.folder / "same", args.participants, args.voxel_size, 0.0)
    for method in ("off", "own-tissue", "fixed-labels"):
        if method in args.only:
            tell_same(method, run(same, args.folder / f"same_{method}", labels, args.nprocs, method))
    if "swapped" in args.only:
        bids = swapped(same, args.folder / "swapped", labels[:1])
        out = run(bids, args.folder / "swapped_own-tissue", labels[:1], args.nprocs, "own-tissue")
        tell_swapped(args.folder / "same_own-tissue", out)
    if "changed" in args.only:
        bids = simulated(args.folder / "changed", args.participants, args.voxel_size, PERCENT)
        out = run(bids, args.folder / "changed_own-tissue", labels, args.nprocs, "own-tissue")
        tell_changed("own-tissue", out, bids)
    return 0


if __name__ == "__main__":
    sys.exit(main())
