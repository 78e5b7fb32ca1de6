"""Largest share of bad scans that a test of outliers can find in small cohorts.

    python benchmarks/outlier_bound.py [--cohorts 200000] [--seed 1] [--share 0.02] [--smallest 5] [--largest 10]

A test that depends neither on the unit nor on the offset of a measure decides from the values after their mean and
their standard deviation are taken out. For a number of bad scans that lie together, a known number of standard
deviations away, the likelihood ratio of those against normal values has a closed form up to one integral, and the test
that weighs these ratios is the best one (Neyman and Pearson; Ferguson 1961, Proc 4th Berkeley Symp 1:253). Weights are
such that any number of bad scans, up to a third, is missed equally often, and that the stated share of scans is marked
in clean normal cohorts. Prints what is missed, in percent, when one side is bad and when either may be.
"""

from __future__ import annotations

import argparse

import numpy as np

Array = np.ndarray
#: Distance of the bad scans, standard deviations.
_AWAY = 10.0


def log_ratio_table(n: int) -> tuple[Array, Array]:
    """Return x and ln of the integral of u^(n-2) exp(-u²/2 + x u) over that for x = 0, for a look-up."""
    at, u = np.linspace(-45, 45, 1801), np.linspace(0, 70, 14001)[1:]
    exponents = (n - 2) * np.log(u) - u**2 / 2 + at[:, None] * u
    top = exponents.max(axis=1)
    logs = top + np.log(np.exp(exponents - top[:, None]).sum(axis=1))
    return at, logs - np.interp(0, at, logs)


def log_ratios(cohorts: Array, sides: int, table: tuple[Array, Array]) -> Array:
    """Return ln of likelihood ratios ``(bad scans, side, cohort)``; the bad ones are the largest or the smallest."""
    n = cohorts.shape[1]
    values = np.sort(cohorts, axis=1)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    found = []
    for bad in range(1, n // 3 + 1):
        pattern = (np.arange(n) >= n - bad) - bad / n
        both = [pattern, -pattern[::-1]][:sides]
        offset = _AWAY**2 * float(pattern @ pattern) / 2
        found.append([np.interp(_AWAY * values @ one, *table) - offset for one in both])
    return np.array(found)


def marks(ratios: Array, weights: Array) -> tuple[Array, Array]:
    """Return how many scans of each cohort are marked, and on which side (0 for large values)."""
    gain = np.cumsum(np.exp(np.minimum(ratios + weights[:, None, None], 50)), axis=0)
    gain -= np.arange(1, len(weights) + 1)[:, None, None]
    sides = gain.shape[1]
    flat = gain.reshape(-1, gain.shape[2])
    best = flat.argmax(axis=0)
    return np.where(flat.max(axis=0) > 0, best // sides + 1, 0), best % sides


def missed(n: int, sides: int, share: float, count: int, rng: np.random.Generator) -> Array:
    """Return the share of cohorts of which not all bad scans are found by the best test, by number of bad scans."""
    table = log_ratio_table(n)
    numbers = np.arange(1, n // 3 + 1)
    clean = log_ratios(rng.normal(size=(count, n)), sides, table)
    bad = [log_ratios(rng.normal(size=(count, n)) + _AWAY * (np.arange(n) < k), sides, table) for k in numbers]
    relative, rates = np.zeros(len(numbers)), np.zeros(len(numbers))
    for _ in range(20):
        low, high = -60.0, 60.0
        for _ in range(30):
            middle = (low + high) / 2
            too_many = marks(clean, relative + middle)[0].mean() / n > share
            low, high = (low, middle) if too_many else (middle, high)
        for place, (number, ratios) in enumerate(zip(numbers, bad, strict=True)):
            many, side = marks(ratios, relative + low)
            rates[place] = 1 - ((many >= number) & (side == 0)).mean()
        relative += 0.5 * np.log((rates + 1e-6) / (rates.mean() + 1e-6))
    return rates


def main() -> None:
    """Print what the best test misses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--smallest", type=int, default=5)
    parser.add_argument("--largest", type=int, default=10)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    for n in range(args.smallest, args.largest + 1):
        for sides, name in ((1, "one side"), (2, "either side")):
            rates = missed(n, sides, args.share, args.cohorts, rng)
            print(f"{n} scans, {name}: {', '.join(f'{100 * rate:.3f}' for rate in rates)} % missed", flush=True)


if __name__ == "__main__":
    main()
