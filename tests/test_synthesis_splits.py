import itertools
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tau_pipeline.errors import DamagedFileError, MissingInputError, SettingError
from tau_pipeline.synthesis.data import splits
from tau_pipeline.synthesis.data.pairs import UNKNOWN, Pair
from tau_pipeline.synthesis.data.splits import (
    COLUMNS,
    SPLITS,
    check_splits,
    k_folds,
    load_splits,
    merged_strata,
    pairs_of_split,
    save_splits,
    split_participants,
)

NOWHERE = Path("nowhere")
#: Tests of how evenly strata are spread need all draws of which the best is taken; others take a few.
OF_STRATA = ("paper", "stratum", "strata", "stratified", "rare", "each_manufacturer")


@pytest.fixture(autouse=True)
def few_draws(request, monkeypatch):
    if not any(word in request.node.name for word in OF_STRATA):
        monkeypatch.setattr(splits, "_DRAWS", 4)


def pair(participant, manufacturer="Siemens", diagnosis="CN", session=None):
    scan = f"sub-{participant}_ses-{session}"
    return Pair(participant, session, scan, manufacturer, diagnosis, *[NOWHERE] * 5)


def cohort(n, scans=1):
    """Participants of three manufacturers and three diagnoses in unequal numbers."""
    makers, diagnoses = ("Siemens", "Siemens", "GE", "Philips"), ("CN", "CN", "MCI", "AD", "CN")
    return [
        pair(f"{who:03d}", makers[who % 4], diagnoses[who % 5], session)
        for who, session in itertools.product(range(n), "abc"[:scans])
    ]


def sizes(table):
    return [int((table["split"] == name).sum()) for name in SPLITS]


def test_516_participants_are_split_as_in_the_paper():
    assert sizes(split_participants(cohort(516), (360 / 516, 78 / 516, 78 / 516))) == [360, 78, 78]


@pytest.mark.parametrize("n", [3, 4, 7, 10, 20, 30, 101])
def test_everybody_is_in_one_split_and_no_split_is_empty(n):
    table = split_participants(cohort(n, scans=3))
    assert table["participant_id"].tolist() == [f"sub-{who:03d}" for who in range(n)]
    assert min(sizes(table)) >= 1
    assert tuple(table.columns) == COLUMNS


@pytest.mark.parametrize("n", [60, 100, 516])
def test_each_stratum_is_spread_over_the_splits_by_their_fractions(n):
    table = split_participants(cohort(n), (0.6, 0.2, 0.2), random_seed=3)
    for column in ("manufacturer", "diagnosis"):
        for _, rows in table.groupby(column):
            for name, fraction in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
                # A stratum is off by less than one in each of the two draws, and up to five strata make a column.
                assert abs((rows["split"] == name).sum() - fraction * len(rows)) <= 5


def test_a_rare_manufacturer_is_in_every_split_where_its_number_allows():
    pairs = [pair(f"{who:03d}", "GE" if who < 7 else "Siemens") for who in range(40)]
    for seed in range(4):
        table = split_participants(pairs, random_seed=seed)
        assert set(table.loc[table["manufacturer"] == "GE", "split"]) == set(SPLITS)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_small_cohort_each_manufacturer_and_each_diagnosis_is_in_every_split(seed):
    # Nine strata of three or four: none can be spread by itself.
    pairs = [
        pair(f"{who:03d}", ("GE", "Philips", "Siemens")[who % 3], ("AD", "CN", "MCI")[who // 3 % 3])
        for who in range(30)
    ]
    tables = [split_participants(pairs, random_seed=seed), *k_folds(pairs, 5, random_seed=seed)]
    for table, column in itertools.product(tables, ("manufacturer", "diagnosis")):
        assert pd.crosstab(table[column], table["split"]).to_numpy().min() >= 1


def test_splits_do_not_depend_on_the_order_of_the_scans():
    pairs = cohort(40, scans=2)
    shuffled = random.Random(0).sample(pairs, len(pairs))
    pd.testing.assert_frame_equal(split_participants(pairs, random_seed=4), split_participants(shuffled, random_seed=4))
    for a, b in zip(k_folds(pairs, 4, random_seed=4), k_folds(shuffled, 4, random_seed=4), strict=True):
        pd.testing.assert_frame_equal(a, b)


def test_splits_do_not_depend_on_the_number_of_scans():
    once, often = split_participants(cohort(40)), split_participants(cohort(40, scans=3))
    pd.testing.assert_frame_equal(once, often)


def test_the_same_seed_gives_the_same_splits_and_another_seed_others():
    first, again, other = (split_participants(cohort(40), random_seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_strata_that_are_too_small_are_merged_and_it_is_said():
    # One participant with AD at GE: there are seven at GE together.
    pairs = [pair(f"{who:03d}", "GE", "AD" if who == 0 else "CN") for who in range(7)]
    pairs += [pair(f"{who:03d}", "Siemens", "CN") for who in range(7, 30)]
    table = split_participants(pairs)
    (sentence,) = table.attrs["remarks"]
    assert "GE / AD (1), GE / CN (6)" in sentence
    assert "fewer than 7" in sentence


def test_strata_that_are_large_enough_need_no_sentence():
    pairs = [pair(f"{who:03d}", ("GE", "Siemens")[who % 2]) for who in range(30)]
    assert split_participants(pairs).attrs["remarks"] == []


@pytest.mark.parametrize("n", [1, 5, 12, 60])
@pytest.mark.parametrize("smallest", [1, 3, 7, 20])
def test_no_merged_stratum_is_too_small_unless_it_is_everybody(n, smallest):
    rng = np.random.default_rng(n)
    table = pd.DataFrame(
        {"manufacturer": rng.choice(["a", "b", "c"], n), "diagnosis": rng.choice(["x", "y", "z"], n, p=[0.7, 0.2, 0.1])}
    )
    strata, _ = merged_strata(table, ("manufacturer", "diagnosis"), smallest)
    counts = strata.value_counts()
    assert len(counts) == 1 or counts.min() >= smallest
    # A stratum that was large enough stays a stratum, alone or with others.
    for _, rows in table.groupby(["manufacturer", "diagnosis"]):
        assert strata[rows.index].nunique() == 1


def test_a_participant_with_scans_of_two_manufacturers_is_one_participant():
    table = split_participants([*cohort(10), pair("000", "GE", "CN", "z")])
    assert table.set_index("participant_id").loc["sub-000", "manufacturer"] == "GE+Siemens"
    assert len(table) == 10


def test_splitting_without_strata_is_possible():
    table = split_participants(cohort(20), stratify=())
    assert sizes(table) == [14, 3, 3]
    with pytest.raises(SettingError, match="'age'"):
        split_participants(cohort(20), stratify=("age",))


def test_a_part_of_zero_stays_empty():
    assert sizes(split_participants(cohort(20), (0.8, 0.2, 0))) == [16, 4, 0]
    assert sizes(split_participants(cohort(20), (0.8, 0, 0.2))) == [16, 0, 4]
    assert sizes(split_participants(cohort(20), (1, 0, 0))) == [20, 0, 0]


def test_too_few_participants_are_refused_with_the_number():
    with pytest.raises(SettingError, match=r"2 participants cannot be split.*at least 3"):
        split_participants(cohort(2, scans=3))


@pytest.mark.parametrize(("n", "k"), [(3, 3), (10, 5), (30, 4), (31, 5)])
def test_in_k_folds_everybody_is_tested_once_and_validates_once(n, k):
    tables = k_folds(cohort(n, scans=2), k, random_seed=1)
    assert len(tables) == k
    splits = np.array([table["split"].tolist() for table in tables])
    assert ((splits == "test").sum(axis=0) == 1).all()
    assert ((splits == "validation").sum(axis=0) == 1).all()
    assert all(min(sizes(table)) >= 1 for table in tables)


def test_folds_are_stratified():
    for table in k_folds(cohort(100), 5):
        tested = table[table["split"] == "test"]
        assert sorted(tested["manufacturer"].value_counts()) == [5, 5, 10]


@pytest.mark.parametrize("k", [0, 2, 11])
def test_an_impossible_number_of_folds_is_refused(k):
    with pytest.raises(SettingError, match="folds of 10 participants"):
        k_folds(cohort(10), k)


def test_a_table_of_splits_survives_saving_and_loading(tmp_path):
    pairs = [*cohort(9), pair("zz", "n/a", "n/a")]
    table = split_participants(pairs)
    path = save_splits(table, tmp_path / "splits.tsv")
    pd.testing.assert_frame_equal(load_splits(path), table, check_dtype=False)
    assert path.read_text(encoding="utf-8").startswith("participant_id\tsplit\tmanufacturer\tdiagnosis\n")


def test_a_participant_in_two_splits_is_refused_by_name(tmp_path):
    path = tmp_path / "splits.tsv"
    path.write_text(
        "participant_id\tsplit\tmanufacturer\tdiagnosis\nsub-1\ttrain\tGE\tCN\nsub-1\ttest\tGE\tCN\n", "utf-8"
    )
    with pytest.raises(DamagedFileError, match=r"'sub-1' twice \(train and test\)"):
        load_splits(path)


@pytest.mark.parametrize("split", ["dev", "Train", "n/a"])
def test_a_split_that_does_not_exist_is_refused_with_the_known_ones(tmp_path, split):
    path = tmp_path / "splits.tsv"
    path.write_text(f"participant_id\tsplit\tmanufacturer\tdiagnosis\nsub-1\t{split}\tGE\tCN\n", "utf-8")
    with pytest.raises(DamagedFileError, match=rf"'sub-1' into a split '{split}'; train, validation, test are known"):
        load_splits(path)


def test_a_table_without_its_columns_or_without_training_is_refused(tmp_path):
    with pytest.raises(DamagedFileError, match="no column split"):
        check_splits(split_participants(cohort(9)).drop(columns="split"))
    with pytest.raises(DamagedFileError, match="no participant in the split 'train'"):
        check_splits(split_participants(cohort(9)).assign(split="test"))
    with pytest.raises(MissingInputError):
        load_splits(tmp_path / "splits.tsv")


def test_a_table_of_participants_and_splits_alone_is_enough(tmp_path):
    (tmp_path / "splits.tsv").write_text("participant_id\tsplit\nsub-01\ttrain\nsub-02\ttest\n")
    table = load_splits(tmp_path / "splits.tsv")
    assert table["split"].tolist() == ["train", "test"]
    assert set(table["manufacturer"]) == set(table["diagnosis"]) == {UNKNOWN}


def test_a_table_that_would_be_refused_is_not_written(tmp_path):
    with pytest.raises(DamagedFileError):
        save_splits(split_participants(cohort(9)).assign(split="test"), tmp_path / "splits.tsv")
    assert list(tmp_path.iterdir()) == []


def test_all_scans_of_a_participant_go_into_the_participants_split():
    pairs = cohort(20, scans=3)
    table = split_participants(pairs)
    found = {name: pairs_of_split(pairs, table, name) for name in SPLITS}
    assert sum(len(chosen) for chosen in found.values()) == 60
    for name, chosen in found.items():
        assert {one.participant_id for one in chosen} == set(table.loc[table["split"] == name, "participant_id"])
    for a, b in itertools.combinations(found.values(), 2):
        assert not {one.participant for one in a} & {one.participant for one in b}


def test_a_scan_of_somebody_in_no_split_is_refused():
    table = split_participants(cohort(20))
    with pytest.raises(SettingError, match="sub-020 has scans but is in no split"):
        pairs_of_split(cohort(21), table, "train")
    with pytest.raises(SettingError, match="there is no split 'dev'"):
        pairs_of_split(cohort(20), table, "dev")
