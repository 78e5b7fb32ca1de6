"""z-scores against a reference group: who belongs to it, the arithmetic, and groups that are too small."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tau_pipeline.cohort.codes import explained
from tau_pipeline.cohort.columns import dictionary
from tau_pipeline.cohort.reference_group import (
    FEWEST,
    reference_participants,
    reference_rows,
    with_zscores,
    zscore_statistics,
)
from tau_pipeline.cohort.tables import wide_table
from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.files import read_tsv

TABLE = (
    "participant_id\tDiagnosis\tage\tsite\n"
    "sub-01\tCN\t70\t1\n02\tCN\t50\t1\nsub-03\tAD\t75\t2\nsub-04\tn/a\t80\t2\nsub-05\tCN\tn/a\t2\n"
    "sub-06\tCN\t66\t1\nsub-06\tMCI\t67\t1\n"
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("diagnosis == CN", {"01", "02", "05"}),
        ("diagnosis == 'CN' and age >= 60", {"01"}),
        ("Diagnosis != CN", {"03"}),
        ("age<70", {"02", "06"}),
        ("site == 2 and age > 70", {"03", "04"}),
    ],
)
def test_the_group_is_who_fulfills_all_comparisons_in_all_rows(
    tmp_path: Path, expression: str, expected: set[str]
) -> None:
    (tmp_path / "participants.tsv").write_text(TABLE)
    assert reference_participants(tmp_path, expression) == {f"sub-{label}" for label in expected}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("dx == CN", {"1", "2"}),
        ("dx == cn", {"1", "2"}),
        ("dx == 1", {"1", "2"}),
        ("dx != CN", {"3"}),
        ("group == cn", {"1", "2"}),
        ("group != AD", {"1", "2"}),
        ("sex == F", {"1", "3"}),
        ("sex == female", {"1", "3"}),
        ("age > 70", {"1", "3"}),
    ],
)
def test_values_are_compared_by_what_they_mean(tmp_path: Path, expression: str, expected: set[str]) -> None:
    rows = "sub-1\t1\tCN\tF\t71,5\nsub-2\t1.0\tcn\tm\t70\nsub-3\t2\tAD\tfemale\t89+\nsub-4\t-4\tNA\t\tNA\n"
    (tmp_path / "participants.tsv").write_text(f"participant_id\tdx\tgroup\tsex\tage\n{rows}")
    (tmp_path / "participants.json").write_text('{"dx": {"Levels": {"1": "CN", "2": "AD", "-4": "not available"}}}')
    assert reference_participants(tmp_path, expression) == {f"sub-{label}" for label in expected}


def test_a_table_of_texts_has_words_for_codes_numbers_and_missing_values(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tapoe\tmmse\tsite\n1\t0\tNA\t1\n2\t1\t28,5\tunknown\n")
    (tmp_path / "participants.json").write_text('{"apoe": {"Levels": {"0": "non-carrier", "1": "carrier"}}}')
    path = tmp_path / "participants.tsv"
    table = explained(read_tsv(path, everything_is_text=True), path)
    assert table["participant_id"].tolist() == ["1", "2"]
    assert table["apoe"].tolist() == ["non-carrier", "carrier"]
    assert table["mmse"].isna().tolist() == [True, False]
    assert table["mmse"][1] == 28.5
    assert table["site"].tolist()[0] == 1
    assert table["site"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("diagnosis = CN", "reference_group has 'diagnosis = CN'"),
        ("dx == CN", "names the column dx; .* has participant_id, Diagnosis, age, site"),
        ("age > old", "compares age > 'old'; expected: a number"),
        ("diagnosis == FTD", "no participant of .* fulfills"),
    ],
)
def test_an_expression_that_cannot_be_used_is_refused(tmp_path: Path, expression: str, message: str) -> None:
    (tmp_path / "participants.tsv").write_text(TABLE)
    with pytest.raises(SettingError, match=message):
        reference_participants(tmp_path, expression)


def test_without_participants_tsv_there_is_no_group(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"needs .*participants\.tsv"):
        reference_participants(tmp_path, "diagnosis == CN")


def long_table(controls: int, patients: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for k in range(controls + patients):
        for session in ("a", "b") if k == 0 else ("a",):
            for source in ("measured", "synthetic"):
                rows.append(
                    {
                        "scan": f"sub-{k:02d}_ses-{session}_{source}",
                        "participant_id": f"sub-{k:02d}",
                        "source": source,
                        "tracer": "flortaucipir",
                        "reference_region": "CerebellarGM",
                        "region": "ctx-lh-fusiform",
                        "hemisphere": "left",
                        "kind": "cortical",
                        "suvr_mean": 1.0,
                        "suvr_z": rng.normal(),
                        "included": "yes",
                    }
                )
    return pd.DataFrame(rows)


def scored(long: pd.DataFrame, participants: set[str]) -> pd.DataFrame:
    return with_zscores(long, zscore_statistics(reference_rows(long, participants)))


def test_z_is_the_distance_from_the_mean_of_the_group_in_its_sd_over_participants() -> None:
    long = long_table(FEWEST + 2)
    long.loc[(long["participant_id"] == "sub-01"), "included"] = "no"
    long.loc[(long["participant_id"] == "sub-02"), "suvr_z"] = np.nan
    group = {f"sub-{k:02d}" for k in range(FEWEST + 2)}
    found = scored(long, group)
    values = []
    for k in [0, *range(3, FEWEST + 2)]:
        own = long[(long["participant_id"] == f"sub-{k:02d}") & (long["source"] == "measured")]
        values.append(own["suvr_z"].mean())
    assert (found["zscore_n"] == FEWEST).all()
    expected = (long["suvr_z"] - np.mean(values)) / np.std(values, ddof=1)
    np.testing.assert_allclose(found["suvr_zscore"], expected)


def test_a_group_that_is_too_small_gives_no_z_and_says_how_small_it_is() -> None:
    found = scored(long_table(FEWEST - 1), {f"sub-{k:02d}" for k in range(FEWEST - 1)})
    assert found["suvr_zscore"].isna().all()
    assert (found["zscore_n"] == FEWEST - 1).all()


def test_z_scores_stand_in_the_wide_table_and_are_described() -> None:
    long = scored(long_table(FEWEST), {f"sub-{k:02d}" for k in range(FEWEST)})
    of_scan = ("window_start_min", "window_end_min", "effective_fwhm_mm", "settings_hash", "pet_t1w_days")
    for name in ("session_id", "manufacturer", "age", "sex", "diagnosis", "quality", *of_scan):
        long[name] = None
    wide = wide_table(long)
    np.testing.assert_allclose(wide["ctx_lh_fusiform_zscore"], long["suvr_zscore"])
    described = dictionary("suvr_rois_wide", wide)
    assert "against the reference group" in described["ctx_lh_fusiform_zscore"]["Description"]
    assert "no z-score against controls" in described["ctx_lh_fusiform_standardized"]["Description"]
    assert "zscore_n" in dictionary("suvr_rois", long)
