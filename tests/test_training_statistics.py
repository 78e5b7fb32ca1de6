"""Training range, baselines and thresholds of positivity against slow loops on made-up people."""

from dataclasses import replace

import numpy as np
import pytest
from synthesis_cohort import Person
from toy_models import GRID, SCALES, toy_model, write_people

from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.files import read_tsv
from tau_pipeline.synthesis.data.covariates import CovariateScale
from tau_pipeline.synthesis.data.dataset import PairDataset
from tau_pipeline.synthesis.data.pairs import find_pairs
from tau_pipeline.synthesis.data.prepare import prepare
from tau_pipeline.synthesis.model.baselines import (
    FILE,
    TrainingStatistics,
    fit_training_statistics,
    positivity_thresholds,
    regional_values,
    t1w_measures,
    unlike_training,
)
from tau_pipeline.synthesis.model.channels import InputChannels
from tau_pipeline.synthesis.training.data import TrainingData
from tau_pipeline.synthesis.training.grid_baselines import fit_grid_baselines

LABELS = {f"{n:02d}": ("CN" if n < 7 else "AD") for n in range(1, 9)}
PEOPLE = tuple(
    Person(label, "RAS", "GE" if n % 2 else "Siemens", 1 + 0.1 * n, (22 + n % 3, 24, 20))
    for n, label in enumerate(LABELS)
)
#: The first person has a second scan, which must not count twice.
AGAIN = Person("01", "RAS", "Siemens", 2.0, (22, 24, 20), session="b", t1w_session="b")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return find_pairs(write_people(tmp_path_factory.mktemp("people"), (*PEOPLE, AGAIN)), diagnoses=LABELS)


@pytest.fixture(scope="module")
def model():
    splits = {f"sub-{label}": ("train" if label != "08" else "test") for label in LABELS}
    return toy_model(lambda t1w: t1w, splits)


@pytest.fixture(scope="module")
def found(pairs, model):
    return fit_training_statistics(model, pairs)


def slow_mean(pairs, chosen):
    """Mean over participants of the means over their scans, of standardised SUVR where it is known."""
    total, weights = np.zeros(GRID.shape), np.zeros(GRID.shape)
    for pair in pairs:
        if pair.participant not in chosen:
            continue
        share = 1 / sum(other.participant == pair.participant for other in pairs)
        known, (mean, sd) = prepare(pair, GRID), SCALES[pair.manufacturer]
        total += np.where(known.known, share * (known.suvr - mean) / sd, 0)
        weights += share * known.known
    return np.divide(total, weights, out=np.zeros(GRID.shape), where=weights > 0)


@pytest.mark.slow
def test_the_mean_image_is_that_of_the_training_participants_each_of_whom_counts_once(pairs, found):
    np.testing.assert_allclose(found.mean_image, slow_mean(pairs, set(LABELS) - {"08"}), atol=1e-4)
    assert found.participants == tuple(f"sub-{label}" for label in LABELS if label != "08")


def test_the_mean_of_a_diagnosis_is_that_of_its_training_participants(pairs, found):
    assert set(found.diagnosis_images) == {"CN", "AD"}
    np.testing.assert_allclose(found.diagnosis_images["AD"], slow_mean(pairs, {"07"}), atol=1e-4)


def test_the_log_has_the_same_baselines_on_the_grid_and_each_for_every_scan(pairs, model, found):
    train, held_out = ([pair for pair in pairs if (pair.participant == "08") is out] for out in (False, True))
    stranger = replace(held_out[0], diagnosis="FTD")
    parts = [PairDataset(part, GRID, model.target_scaling, labels=True) for part in (train, [], [*held_out, stranger])]
    data = TrainingData(*parts, model.splits, model.target_scaling)
    baselines = fit_grid_baselines(data, ())
    np.testing.assert_allclose(baselines.mean_image, found.mean_image, atol=1e-6)
    np.testing.assert_allclose(baselines.diagnosis_images["CN"], found.diagnosis_images["CN"], atol=1e-6)
    scores = baselines.scores(data, "test")
    assert set(scores) == {"training mean", "diagnosis mean", "regional regression"}
    # Nobody knows the diagnosis of the second scan, so that both means are the same there.
    assert scores["training mean"]["mae"] != scores["diagnosis mean"]["mae"]
    data = replace(data, test=PairDataset([stranger], GRID, model.target_scaling, labels=True))
    scores = baselines.scores(data, "test")
    assert scores["training mean"]["mae"] == scores["diagnosis mean"]["mae"]
    assert baselines.scores(data, "validation") == {}


def test_nothing_of_the_test_split_changes_the_statistics(pairs, model, found):
    without = fit_training_statistics(model, [pair for pair in pairs if pair.participant != "08"])
    np.testing.assert_array_equal(without.mean_image, found.mean_image)
    assert (without.t1w_range, without.positivity) == (found.t1w_range, found.positivity)


def test_a_region_is_positive_two_sd_above_the_controls(pairs, found):
    controls = [pair for pair in pairs if LABELS[pair.participant] == "CN"]
    by_person = {}
    for pair in controls:
        table = read_tsv(pair.rois_file)
        row = table[(table["region"] == "ctx-lh-entorhinal") & (table["hemisphere"] == "left")]
        by_person.setdefault(pair.participant, []).append(float(row["suvr_mean"].iloc[0]))
    means = [np.mean(values) for values in by_person.values()]
    expected = np.mean(means) + 2 * np.std(means, ddof=1)
    assert found.positivity["ctx-lh-entorhinal|left"] == pytest.approx(expected, rel=1e-5)
    assert "ctx-rh-cuneus|right" not in found.positivity


def test_a_few_controls_give_no_threshold(pairs):
    assert positivity_thresholds([pair for pair in pairs if pair.participant in ("02", "03", "04", "05")]) == {}


def test_images_of_the_training_split_are_like_it_and_another_voxel_size_is_not(pairs, found):
    for pair in pairs[:3]:
        known = prepare(pair, GRID)
        figures = t1w_measures(known.t1w, known.brain, known.placement)
        assert unlike_training(figures, found.t1w_range) == []
    (said,) = unlike_training({**figures, "largest_voxel_mm": 5.0}, found.t1w_range)
    assert "voxel edge is 5 mm" in said
    (said,) = unlike_training({**figures, "brain_ml": figures["brain_ml"] * 2}, found.t1w_range)
    assert "brain volume" in said
    (said,) = unlike_training({**figures, "t1w_p50": 0.99}, found.t1w_range)
    assert "percentile 50 of the T1w in the brain is 0.99" in said


def test_a_participant_whose_age_or_diagnosis_is_outside_of_the_training_is_unlike_it(pairs, model):
    scale = CovariateScale.fit(("age", "diagnosis", "apoe"), {"sub-02": {"age": 70.0, "diagnosis": 0.0}})
    channels = InputChannels(("t1w", "age", "age_known"), scale)
    known = [
        replace(pair, covariates={"age": 60.0 + 2 * number, "diagnosis": 0.0, "p_tau217": 1.0})
        for number, pair in enumerate(pairs)
    ]
    ends = fit_training_statistics(replace(model, channels=channels), known).t1w_range
    # Those that the model uses and that somebody has.
    assert set(ends) & {"age", "diagnosis", "apoe", "p_tau217"} == {"age", "diagnosis"}
    (said,) = unlike_training({"age": 35.0, "diagnosis": 0.0}, ends)
    assert said.startswith(
        "The participant is unlike the training participants: the age is 35 years, and there it lies"
    )
    (said,) = unlike_training({"age": 66.0, "diagnosis": 2.0}, ends)
    assert "the diagnosis is 2 (0 unimpaired, 1 mild impairment, 2 dementia), and there it lies between 0 and 0" in said


def test_the_figures_of_a_t1w_are_its_own(pairs):
    known = prepare(pairs[0], GRID)
    figures = t1w_measures(known.t1w, known.brain, known.placement)
    assert figures["smallest_voxel_mm"] == figures["largest_voxel_mm"] == pytest.approx(2.0)
    assert figures["brain_ml"] == pytest.approx(known.brain.sum() * 8 / 1000)
    assert figures["t1w_p50"] == pytest.approx(np.median(known.t1w[known.brain]))


def test_statistics_come_back_from_their_file_and_a_damaged_one_is_refused(tmp_path, found):
    assert TrainingStatistics.load(tmp_path) is None
    found.save(tmp_path)
    again = TrainingStatistics.load(tmp_path)
    np.testing.assert_array_equal(again.mean_image, found.mean_image)
    np.testing.assert_array_equal(again.diagnosis_images["CN"], found.diagnosis_images["CN"])
    assert (again.t1w_range, again.positivity) == (found.t1w_range, found.positivity)
    assert again.participants == found.participants
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-200])
    with pytest.raises(DamagedFileError, match="damaged"):
        TrainingStatistics.load(tmp_path)


def test_scans_that_no_model_was_trained_on_give_no_statistics(pairs, model):
    with pytest.raises(SettingError, match="training split"):
        fit_training_statistics(model, [pair for pair in pairs if pair.participant == "08"])


def test_measured_values_carry_their_scan_and_the_tracers_common_name(pairs):
    table = regional_values(pairs[0])
    assert set(table["scan"]) == {pairs[0].scan}
    assert set(table["tracer"]) == {"flortaucipir"}
