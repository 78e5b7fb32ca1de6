"""Calibration of uncertainty on errors of known size, and against slow loops."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from synthesis_cohort import Person
from toy_models import SCALES, toy_ensemble, toy_model, write_people

from tau_pipeline.atlas import composites, label_table
from tau_pipeline.errors import DamagedFileError
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.synthesis.data.pairs import find_pairs
from tau_pipeline.synthesis.data.prepare import prepare
from tau_pipeline.synthesis.model.calibration import (
    FILE,
    Calibration,
    Errors,
    calibrate,
    fit_calibration,
    moderated_sd,
    region_means,
    region_sd,
)
from tau_pipeline.synthesis.model.predict import predict_placed

RNG = np.random.default_rng(0)
HOW = Synthesis(test_time_flips=False, prediction_memory="whole")


def normal_errors(who, voxel_scale, region_scale):
    """Errors that are normal, with SDs that are this many times what the members say."""
    voxels, regions = RNG.standard_normal(20000), RNG.standard_normal(2000)
    return Errors(who, np.abs(voxels) * voxel_scale, np.abs(regions) * region_scale)


def test_the_factors_are_how_many_times_too_small_the_members_sd_is():
    found = fit_calibration([normal_errors(f"sub-{n}", 3.0, 7.0) for n in range(5)], [normal_errors("sub-9", 3.0, 7.0)])
    assert (found.voxel_factor, found.region_factor) == pytest.approx((3.0, 7.0), rel=0.03)
    assert (found.coverage_voxels, found.coverage_regions) == pytest.approx((0.9, 0.9), abs=0.02)
    assert (found.n_participants, found.coverage_on, found.n_coverage) == (5, "test split", 1)


def test_the_coverage_on_the_test_split_tells_that_its_errors_are_larger():
    found = fit_calibration([normal_errors("sub-1", 1.0, 1.0)], [normal_errors("sub-2", 2.0, 4.0)])
    # The normal distribution holds 2 Φ(1.645 / s) - 1 within 1.645 SD of a distribution s times as wide.
    expected = [math.erf(1.6448536 / scale / math.sqrt(2)) for scale in (2.0, 4.0)]
    assert (found.coverage_voxels, found.coverage_regions) == pytest.approx(expected, abs=0.04)


def test_without_a_test_split_each_participant_is_left_out_in_turn():
    scans = [normal_errors("sub-1", 1.0, 1.0), normal_errors("sub-2", 1.0, 1.0), normal_errors("sub-3", 10.0, 1.0)]
    found = fit_calibration(scans)
    assert "left out" in found.coverage_on
    one_by_one = []
    for left in range(3):
        others = np.concatenate([scan.voxels for n, scan in enumerate(scans) if n != left])
        one_by_one.append(np.mean(scans[left].voxels <= np.quantile(others, 0.9)))
    assert found.coverage_voxels == pytest.approx(np.mean(one_by_one))
    assert math.isnan(fit_calibration(scans[:1]).coverage_voxels)
    assert fit_calibration([]) is None


def test_the_calibrated_sd_is_the_factor_times_the_raw_one_and_never_nothing():
    found = Calibration(2.0, 5.0, 1, 0.9, 0.9, "test split", 1)
    np.testing.assert_allclose(found.sd(np.array([0.1, 0.0])), [0.2, 0.002])
    np.testing.assert_allclose(found.sd(np.array([0.1]), "region"), [0.5])


def test_a_calibration_comes_back_from_its_file_and_a_damaged_one_is_refused(tmp_path):
    assert Calibration.load(tmp_path) is None
    found = Calibration(2.0, 5.0, 1, math.nan, 0.9, "test split", 1, "abc")
    found.save(tmp_path)
    assert Calibration.load(tmp_path).as_dict() == found.as_dict()
    assert math.isnan(Calibration.load(tmp_path).coverage_voxels)
    for text in ("{}", '{"voxel_factor": "x"}', "[]"):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(DamagedFileError):
            Calibration.load(tmp_path)


def test_region_means_are_those_of_loops_over_regions_and_their_composites():
    table = label_table()
    numbers = table.loc[table["kind"].isin(["cortical", "subcortical"])].sort_values(["kind", "index"])["index"]
    labels = RNG.choice([0, *numbers[:-3]], (14, 14, 14)).astype(np.int32)
    suvr = RNG.normal(1.2, 0.3, labels.shape)
    expected = [suvr[labels == number].mean() if (labels == number).any() else np.nan for number in numbers]
    for name, hemispheres in composites().items():
        for members in hemispheres.values():
            own = [suvr[labels == number] for number in members if (labels == number).any()]
            weights = [values.size for values in own]
            medians = name == "metatemporal_jack2017"
            expected.append(np.average([np.median(v) if medians else v.mean() for v in own], weights=weights))
    np.testing.assert_allclose(region_means(suvr, labels), expected)


def test_the_moderated_sd_lies_between_a_regions_own_and_that_of_all():
    members = RNG.normal(1.0, [[0.01, 0.1, 0.5]], (3, 3))
    variance = [sum((m - np.mean(column)) ** 2 for m in column) / 2 for column in members.T]
    expected = [math.sqrt((2 * own + 4 * np.mean(variance)) / 6) for own in variance]
    np.testing.assert_allclose(moderated_sd(members), expected)
    empty = np.hstack([members, np.full((3, 1), np.nan)])
    np.testing.assert_allclose(moderated_sd(empty), [*expected, np.nan])
    assert np.isnan(moderated_sd(members[:1])).all()


PEOPLE = tuple(Person(f"{n:02d}", manufacturer="GE", shape=(22, 24, 20), level=1 + 0.05 * n) for n in range(1, 6))
SPLITS = {"sub-01": "train", "sub-02": "train", "sub-03": "validation", "sub-04": "validation", "sub-05": "test"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return find_pairs(write_people(tmp_path_factory.mktemp("people"), PEOPLE))


def constants(*values, splits=SPLITS):
    return toy_ensemble(*(toy_model(lambda t1w, v=v: torch.full_like(t1w, v), splits) for v in values))


def test_the_interval_holds_nine_tenths_of_the_voxels_of_the_validation_scans(pairs):
    ensemble = constants(0.0, 1.0)
    found = calibrate(ensemble, pairs, settings=HOW, device="cpu")
    inside = []
    for pair in pairs[2:4]:
        known = prepare(pair, ensemble.grid)
        prediction = predict_placed(ensemble, known.placed_t1w, "GE", HOW, "cpu")
        error = np.abs(prediction.mean - known.suvr)[known.known]
        inside.append(np.mean(error <= 1.6448536 * found.sd(prediction.sd)[known.known]))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.01)
    assert (found.n_participants, found.coverage_on, found.n_coverage) == (2, "test split", 1)


def test_a_model_never_predicts_whom_it_was_trained_on(pairs):
    # The first model is wild, and was trained on everyone; the others have not seen sub-03.
    everyone = dict.fromkeys(SPLITS, "train")
    wild = toy_model(lambda t1w: torch.full_like(t1w, 1e3), everyone)
    calm = [toy_model(lambda t1w, v=v: torch.full_like(t1w, v), SPLITS) for v in (0.0, 1.0)]
    with_wild = calibrate(toy_ensemble(wild, *calm), pairs, settings=HOW, device="cpu")
    without = calibrate(toy_ensemble(*calm), pairs, settings=HOW, device="cpu")
    assert with_wild.voxel_factor == pytest.approx(without.voxel_factor)
    assert with_wild.region_factor == pytest.approx(without.region_factor)


def test_a_manufacturer_without_a_scale_of_its_own_is_calibrated_on_the_pooled_one(pairs):
    rare = [dataclasses.replace(pair, manufacturer="Canon") for pair in pairs]
    ensemble = constants(0.0, 1.0)
    found = calibrate(ensemble, rare, settings=HOW, device="cpu")
    ratios = []
    for pair in rare[2:4]:
        known = prepare(pair, ensemble.grid)
        prediction = predict_placed(ensemble, known.placed_t1w, "pooled", HOW, "cpu")
        ratios.append(np.abs(prediction.mean - known.suvr)[known.known] / prediction.sd[known.known])
    assert found.voxel_factor == pytest.approx(np.quantile(np.concatenate(ratios), 0.9) / 1.6448536, rel=0.01)


def test_there_is_no_calibration_without_validation_scans_or_with_a_single_member(pairs):
    assert calibrate(constants(0.0, 1.0), pairs[:2], settings=HOW, device="cpu") is None
    assert calibrate(constants(0.0), pairs, settings=HOW, device="cpu") is None


def test_the_sd_of_regions_is_that_of_the_members_regional_means(pairs):
    ensemble = constants(0.0, 1.0)
    known = prepare(pairs[0], ensemble.grid)
    prediction = predict_placed(ensemble, known.placed_t1w, "GE", HOW, "cpu")
    found = region_sd(prediction, known.labels)
    # Two constants one standardised unit apart: every region has the same SD, their difference over root two.
    np.testing.assert_allclose(found[np.isfinite(found)], SCALES["GE"][1] / math.sqrt(2), rtol=1e-5)
    assert np.isfinite(found).sum() >= 4
