"""Splits into training, validation and test: by participant, never by scan.

Two scans of one participant are nearly the same image, so that a network that was trained on one has seen the other.
Splits are stratified by manufacturer and diagnosis, fixed by a seed, do not depend on the order of the input, and are
kept as a table: the file states what was run, whatever a later version of scikit-learn would draw.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from tau_pipeline.errors import DamagedFileError, SettingError, shown
from tau_pipeline.files import AnyPath, read_tsv, write_tsv
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.pairs import UNKNOWN, Pair

#: Names of the splits, in the order of the fractions.
SPLITS = ("train", "validation", "test")
#: Columns of a table of splits, in order.
COLUMNS = ("participant_id", "split", "manufacturer", "diagnosis")
#: What a stratum is made of, the most important first.
_STRATIFY = ("manufacturer", "diagnosis")
#: Splits that are drawn, of which the most even one is taken. Among thirty participants every stratum of manufacturer
#: and diagnosis is too small to be spread; the values of each column by itself can still be.
_DRAWS = 30


def split_participants(
    pairs: Iterable[Pair],
    split_fractions: Sequence[float] = Training.split_fractions,
    random_seed: int = 0,
    stratify: Sequence[str] = _STRATIFY,
) -> pd.DataFrame:
    """Split participants into training, validation and test.

    Parameters
    ----------
    pairs
        All scans, in any order.
    split_fractions
        Parts for training, validation and test; they add up to 1. A part of 0 stays empty.
    random_seed
        The same seed and participants give the same splits.
    stratify
        Columns whose values are spread over the splits evenly; ``()`` for none. Strata that are too small to be seen
        in each split are merged (`merged_strata`); of `_DRAWS` draws the one is taken in which each column by itself is
        spread most evenly.

    Returns
    -------
    DataFrame
        The columns `COLUMNS`, one row per participant, sorted by participant. ``attrs["remarks"]`` are sentences on
        merged strata.

    Raises
    ------
    SettingError
        There are fewer participants than splits.
    """
    table = _participants(pairs)
    sizes = _sizes(len(table), split_fractions)
    smallest = math.ceil(1 / min(part for part in split_fractions if part > 0) - 1e-9)
    strata, remarks = merged_strata(table, stratify, smallest)
    splits = (_one_draw(table.index, sizes, strata, state) for state in _states(random_seed))
    return _as_table(table, min(splits, key=lambda split: _unevenness(table, split, stratify)), remarks)


def k_folds(
    pairs: Iterable[Pair], folds: int = 5, random_seed: int = 0, stratify: Sequence[str] = _STRATIFY
) -> list[pd.DataFrame]:
    """Return tables of splits for cross-validation; each participant is in the test split of exactly one.

    Fold i is the test split of table i and the validation split of the table before it; the others are for training.

    Parameters
    ----------
    pairs, random_seed, stratify
        As in `split_participants`.
    folds
        Number of folds, 3 or more.

    Raises
    ------
    SettingError
        Fewer than three folds, or more folds than participants.
    """
    table = _participants(pairs)
    if not 3 <= folds <= len(table):
        raise SettingError(
            f"{folds} folds of {len(table)} participants are not possible; give from 3 to as many folds as participants"
        )
    strata, remarks = merged_strata(table, stratify, folds)
    draws = (_one_draw_of_folds(table, folds, strata, state) for state in _states(random_seed))
    fold = min(draws, key=lambda fold: _unevenness(table, fold, stratify))
    tables = []
    for number in range(folds):
        split = pd.Series("train", index=table.index)
        split[fold == (number + 1) % folds] = "validation"
        split[fold == number] = "test"
        tables.append(_as_table(table, split, remarks))
    return tables


def merged_strata(table: pd.DataFrame, columns: Sequence[str], smallest: int) -> tuple[pd.Series, tuple[str, ...]]:
    """Return the stratum of each participant, where no stratum has fewer than ``smallest`` participants.

    A stratum that is too small goes together with others that are, first those that agree in all columns but the last
    (a manufacturer's diagnoses), in the end with whatever is left. If the leftovers are still too few, the
    smallest of the good strata takes them in.

    Parameters
    ----------
    table
        One row per participant, with ``columns``.
    columns
        The most important first.
    smallest
        Fewest participants of a stratum.

    Returns
    -------
    Series, tuple of str
        Names of strata on the index of ``table``, and a sentence for each merger.

    Raises
    ------
    SettingError
        There is no such column.
    """
    if unknown := [name for name in columns if name not in _STRATIFY]:
        raise SettingError(f"splits cannot be stratified by {unknown[0]!r}; possible are {', '.join(_STRATIFY)}")
    keys = [tuple(str(value) for value in row) for row in table[list(columns)].itertuples(index=False)]
    before = list(keys)
    for depth in range(len(columns) - 1, -1, -1):
        counts = Counter(keys)
        keys = [key if counts[key] >= smallest else key[:depth] for key in keys]
    counts = Counter(keys)
    if len(counts) > 1 and counts.get((), smallest) < smallest:
        taker = min((key for key in counts if key), key=lambda key: (counts[key], key))
        keys = [taker if key == () else key for key in keys]
    return pd.Series([_name(key) for key in keys], index=table.index), _mergers(before, keys, smallest)


def _name(key: tuple[str, ...]) -> str:
    return " / ".join(key) or "everybody else"


def _mergers(before: list[tuple[str, ...]], after: list[tuple[str, ...]], smallest: int) -> tuple[str, ...]:
    members: dict[tuple[str, ...], Counter] = {}
    for old, new in zip(before, after, strict=True):
        members.setdefault(new, Counter())[old] += 1
    said = []
    for new in sorted(members):
        if len(members[new]) > 1:
            listed = ", ".join(f"{_name(old)} ({n})" for old, n in sorted(members[new].items()))
            said.append(
                f"Strata of fewer than {smallest} participants cannot be spread over all splits, so these were drawn "
                f"as one: {listed}."
            )
    return tuple(said)


def _sizes(n: int, parts: Sequence[float]) -> tuple[int, int, int]:
    """Return the participants of each split: rounded, at least one for a part above 0; training takes the rest."""
    validation, test = (max(1, round(n * part)) if part > 0 else 0 for part in parts[1:])
    train = n - validation - test
    if train < 1:
        raise SettingError(
            f"{n} participants cannot be split into training, validation and test; at least "
            f"{1 + (validation > 0) + (test > 0)} are needed"
        )
    return train, validation, test


def _states(random_seed: int) -> list[int]:
    """Return seeds of the single draws."""
    return np.random.default_rng(random_seed).integers(2**31, size=_DRAWS).tolist()


def _unevenness(table: pd.DataFrame, split: pd.Series, columns: Sequence[str]) -> float:
    """Return the chi-square of each column's values against the splits, summed; 0 if all splits have the same mix."""
    of_split, names = pd.factorize(split)
    total = 0.0
    for column in columns:
        of_value, values = pd.factorize(table[column])
        counts = np.zeros((len(values), len(names)))
        np.add.at(counts, (of_value, of_split), 1)
        expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
        total += float(((counts - expected) ** 2 / expected).sum())
    return total


def _one_draw(everybody: pd.Index, sizes: tuple[int, int, int], strata: pd.Series, state: int) -> pd.Series:
    """Draw the split of each participant: training against the rest, then the rest in two."""
    split = pd.Series("train", index=everybody)
    rest = _drawn(everybody, sizes[1] + sizes[2], strata, state)
    split[rest] = "validation"
    split[_drawn(rest, sizes[2], strata, state)] = "test"
    return split


def _one_draw_of_folds(table: pd.DataFrame, k: int, strata: pd.Series, state: int) -> pd.Series:
    """Draw the number of each participant's fold."""
    fold = pd.Series(0, index=table.index)
    # One stratum smaller than k can only be that of everybody, and k is at most their number.
    draw = StratifiedKFold(k, shuffle=True, random_state=state)
    for number, (_, members) in enumerate(draw.split(table, strata)):
        fold.iloc[members] = number
    return fold


def _drawn(members: pd.Index, n: int, strata: pd.Series, seed: int) -> pd.Index:
    """Draw ``n`` of the members, spread over the strata."""
    if n in (0, len(members)):
        return members[:n]
    own = strata[members]
    # scikit-learn refuses strata of one, and more strata than there are places: then without strata.
    spread = own.value_counts().min() > 1 and own.nunique() <= min(n, len(members) - n)
    _, drawn = train_test_split(members, test_size=n, random_state=seed, stratify=own if spread else None)
    return pd.Index(np.sort(np.asarray(drawn)))


def _participants(pairs: Iterable[Pair]) -> pd.DataFrame:
    """Return one row per participant, sorted; values of several scans are joined by ``+``."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.participant_id, []).append(pair)
    rows = [
        {
            "participant_id": who,
            "manufacturer": "+".join(sorted({pair.manufacturer for pair in found[who]})),
            "diagnosis": "+".join(sorted({pair.diagnosis for pair in found[who]})),
        }
        for who in sorted(found)
    ]
    return pd.DataFrame(rows, columns=["participant_id", "manufacturer", "diagnosis"])


def _as_table(table: pd.DataFrame, split: pd.Series, remarks: Sequence[str]) -> pd.DataFrame:
    result = table.assign(split=split)[list(COLUMNS)]
    result.attrs["remarks"] = list(remarks)
    return result


def save_splits(table: pd.DataFrame, path: AnyPath) -> Path:
    """Check a table of splits and write it as TSV."""
    check_splits(table, path)
    return write_tsv(table[list(COLUMNS)], path)


def load_splits(path: AnyPath) -> pd.DataFrame:
    """Read a table of splits and check it; without a column of manufacturers or diagnoses, these are unknown.

    Raises
    ------
    MissingInputError, DamagedFileError
        There is no such table, or it is none of splits (`check_splits`).
    """
    table = read_tsv(path)
    # People write who belongs to which split, and no more.
    table = table.assign(**{name: None for name in COLUMNS[2:] if name not in table.columns})
    check_splits(table, path)
    for name in ("manufacturer", "diagnosis"):
        table[name] = table[name].astype("object").where(table[name].notna(), UNKNOWN).astype(str)
    table["participant_id"] = table["participant_id"].astype(str)
    return table[list(COLUMNS)]


def check_splits(table: pd.DataFrame, source: AnyPath = "the table of splits") -> None:
    """Refuse a table in which someone is in two splits, or in one that does not exist.

    Raises
    ------
    DamagedFileError
        A column is missing, a participant stands twice, a split is unknown, or nobody is for training.
    """
    if absent := [name for name in COLUMNS if name not in table.columns]:
        raise DamagedFileError(f"{source} has no column {', '.join(absent)}; {', '.join(COLUMNS)} are needed")
    unknown = table[~table["split"].isin(SPLITS)]
    if len(unknown):
        row = unknown.iloc[0].fillna("n/a")
        raise DamagedFileError(
            f"{source} puts {shown(row['participant_id'])} into a split {shown(row['split'])}; {', '.join(SPLITS)} are "
            "known"
        )
    for who, rows in table.groupby("participant_id"):
        if len(rows) > 1:
            where = " and ".join(rows["split"])
            raise DamagedFileError(f"{source} has {shown(who)} twice ({where}); a participant belongs to one split")
    if not (table["split"] == "train").any():
        raise DamagedFileError(f"{source} has no participant in the split 'train'")


def pairs_of_split(pairs: Iterable[Pair], table: pd.DataFrame, split: str) -> list[Pair]:
    """Return all scans of the participants of one split, sorted by scan.

    Raises
    ------
    SettingError
        The split is unknown, or a participant of ``pairs`` is in none.
    """
    if split not in SPLITS:
        raise SettingError(f"there is no split {split!r}; {', '.join(SPLITS)} are known")
    of = dict(zip(table["participant_id"], table["split"], strict=True))
    chosen = []
    for pair in pairs:
        if pair.participant_id not in of:
            raise SettingError(
                f"{pair.participant_id} has scans but is in no split; split again, or leave the participant out"
            )
        if of[pair.participant_id] == split:
            chosen.append(pair)
    return sorted(chosen, key=lambda pair: pair.scan)
