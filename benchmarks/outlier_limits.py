"""Limits of the outlier test in cohorts of 5 to 12 scans, by simulation: what is in `tau_pipeline.cohort.outliers`.

    python benchmarks/outlier_limits.py [--cohorts 200000] [--seed 0] [--share 0.019] [--smallest 5] [--largest 12]

For each number of scans and of those left out: the least distance from the core (in its standard deviations) of which
chance explains too few, and the least distance of the mean of those left out in pooled standard deviations. They are
chosen so that in clean normal cohorts the stated share of scans is marked, that bad scans of any number, 10 standard
deviations away on one side, are missed equally often, and that a part of the marks of two scans and more is left to
the first of the two. Prints the table, and the share of cohorts in which all bad scans are found.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
#: Share of the marks of two scans and more that is left to the test of each scan by itself, by number of scans. From
#: ten scans on, and for eight, that test alone finds nearly all.
_APART = {6: 0.2, 7: 0.5, 9: 0.6}


@dataclass(frozen=True)
class Statistics:
    """Statistics ``(cohorts,)`` of cohorts for a number of scans left out."""

    apart: Array
    together: Array


def statistics(cohorts: Array, one_sided: bool) -> dict[int, Statistics]:
    """Return the statistics of cohorts ``(cohorts, n)`` by number of scans left out, high values being bad."""
    ordered = np.sort(cohorts, axis=1)
    many, n = ordered.shape
    found = {}
    for left_out in range(1, n // 3 + 1):
        stretches = np.lib.stride_tricks.sliding_window_view(ordered, n - left_out, axis=1)
        variances = stretches.var(axis=2, ddof=1)
        start = variances.argmin(axis=1)
        inside = np.arange(n) - start[:, None]
        core = (inside >= 0) & (inside < n - left_out)
        center = np.where(core, ordered, 0).sum(axis=1) / (n - left_out)
        distance = (ordered - center[:, None]) / np.sqrt(variances[np.arange(many), start])[:, None]
        out = np.where(core, 0, distance)
        apart = np.where(core, np.inf, np.abs(distance)).min(axis=1)
        mean = out.sum(axis=1) / left_out
        pooled = np.where(core, distance**2, (distance - mean[:, None]) ** 2).sum(axis=1) / (n - 2)
        one_side = (start == 0) | (start == left_out)
        if one_sided:
            one_side = start == 0
            apart = np.where(start == left_out, 0, apart)
        found[left_out] = Statistics(apart, np.where(one_side, np.abs(mean) / np.sqrt(pooled), 0))
    return found


def limits(
    clean: dict[int, Statistics], bad: dict[int, Statistics], missed: float, apart: float | None
) -> dict[int, tuple[float, float]]:
    """Return the limits at which a share of bad cohorts is missed by the second statistic (the first for one scan).

    ``apart`` is the share of marks that is left to the first; None for all of them.
    """
    chosen = {}
    for left_out, chance in clean.items():
        if left_out == 1 or apart is None:
            chosen[left_out] = float(np.quantile(bad[left_out].apart, missed)), np.inf
            continue
        together = float(np.quantile(bad[left_out].together, missed))
        share = apart * (chance.together > together).mean()
        chosen[left_out] = float(np.quantile(chance.apart, 1 - share)), together
    return chosen


def marks(found: dict[int, Statistics], chosen: dict[int, tuple[float, float]]) -> Array:
    """Return how many scans are marked in each cohort."""
    result = np.zeros(len(found[1].apart), int)
    for left_out, (apart, together) in chosen.items():
        result = np.where((found[left_out].apart > apart) | (found[left_out].together > together), left_out, result)
    return result


def main() -> None:
    """Print the limits and the error rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.019)
    parser.add_argument("--smallest", type=int, default=5)
    parser.add_argument("--largest", type=int, default=12)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    for n in range(args.smallest, args.largest + 1):
        clean_values = rng.normal(size=(args.cohorts, n))
        some = args.cohorts // 8
        counts = range(1, n // 3 + 1)
        shifted = {f"{k}": rng.normal(size=(some, n)) + 10 * (np.arange(n) < k) for k in counts}
        further = {k: rng.uniform(0, 10, (some, n)) * (np.arange(n) < k) for k in counts}
        spread = {f"{k} at 10 to 20": shifted[f"{k}"] + further[k] for k in counts}
        signs = {f"{k} on either side": shifted[f"{k}"] * rng.choice([-1, 1], (some, n)) for k in counts}
        for one_sided in (False, True):
            clean = statistics(clean_values, one_sided)
            kinds = shifted | spread | ({} if one_sided else signs)
            every = {kind: statistics(values, one_sided) for kind, values in kinds.items()}
            bad = {k: every[f"{k}"][k] for k in counts}
            low, high = 0.0, 0.5
            for _ in range(30):
                middle = (low + high) / 2
                too_many = marks(clean, limits(clean, bad, middle, _APART.get(n))).mean() / n > args.share
                low, high = (middle, high) if too_many else (low, middle)
            chosen = limits(clean, bad, high, _APART.get(n))
            shown = ", ".join(f"({one:.2f}, {other:.2f})" for one, other in chosen.values())
            all_found = {kind: float((marks(found, chosen) >= int(kind[0])).mean()) for kind, found in every.items()}
            share = marks(clean, chosen).mean() / n
            print(f"{n} {'one' if one_sided else 'two'}-sided: {shown}; clean {share:.4f}; found", end=" ")
            print(", ".join(f"{kind}: {rate:.4f}" for kind, rate in all_found.items()), flush=True)


if __name__ == "__main__":
    main()
