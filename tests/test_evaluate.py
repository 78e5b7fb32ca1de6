"""Evaluation against maps whose errors are known, sums over scans, and scikit-learn."""

import math

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from synthesis_cohort import Person
from toy_models import GRID, SCALES, toy_model, write_people

from tau_pipeline.errors import GridMismatchError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_like
from tau_pipeline.measures import images as metrics
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.synthesis.data.pairs import find_pairs
from tau_pipeline.synthesis.evaluation.scores import (
    MASK,
    MEASURES,
    ScanScores,
    canonical,
    evaluate,
    score_scan,
)
from tau_pipeline.synthesis.model.baseline_scores import DIAGNOSIS_MEAN, MODEL, TRAINING_MEAN, baseline_maps
from tau_pipeline.synthesis.model.baselines import TrainingStatistics, regional_values

LEVELS = {"01": 0.9, "02": 1.0, "03": 1.15, "04": 1.3, "05": 1.4, "06": 1.2}
ORIENTATIONS = ("RAS", "LPS", "LAS", "RAS", "LIA", "RAS")
PEOPLE = tuple(
    Person(label, codes, "GE", level, (22, 24, 20))
    for (label, level), codes in zip(LEVELS.items(), ORIENTATIONS, strict=True)
)
HOW = Synthesis(lesion_volume=0.02)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return find_pairs(write_people(tmp_path_factory.mktemp("people"), PEOPLE), diagnoses=dict.fromkeys(LEVELS, "CN"))


def measured_map(pair, add=0.0, times=1.0):
    """The measured map in the brain, off by a known amount; 0 outside."""
    suvr, mask = load_volume(pair.suvr_file), load_volume(pair.mask_file)
    values = np.asarray(suvr.dataobj) * times + add
    return image_like(np.where(np.asarray(mask.dataobj) > 0, values, 0).astype(np.float32), suvr)


def test_a_perfect_map_has_no_error_and_a_map_that_is_off_has_its_offset(pairs):
    scores = score_scan(pairs[1], {MODEL: measured_map(pairs[1]), "off": measured_map(pairs[1], 0.3)}, HOW)
    perfect, off = (scores.scans.set_index("predictor").loc[name] for name in (MODEL, "off"))
    assert perfect["ssim"] == pytest.approx(1.0)
    assert (perfect["mae"], perfect["rmse"], perfect["psnr"]) == (0.0, 0.0, math.inf)
    assert (off["mae"], off["psnr"]) == pytest.approx((0.3, 20.0), abs=1e-4)
    assert off["mae_axial"] == pytest.approx(0.3, abs=1e-4)
    assert perfect["dice_1.3"] == 1.0


def test_the_figures_say_their_mask_and_data_range_and_count_only_where_the_pet_has_a_value(pairs):
    pair = pairs[0]
    found = score_scan(pair, {MODEL: measured_map(pair, 0.1)}, HOW).scans.iloc[0]
    mask = np.asarray(nib.load(pair.mask_file).dataobj) > 0
    assert (found["data_range"], found["n_voxels"]) == (3.0, mask.sum())
    assert "brain mask" in found["mask"]


def test_slices_are_axial_whatever_the_orientation_of_the_file(pairs):
    # The second person's axes run left, posterior, superior; the fifth's left, inferior, anterior.
    for pair in (pairs[1], pairs[4]):
        predicted = measured_map(pair, 0.1, 1.1)
        found = score_scan(pair, {MODEL: predicted}, HOW).slices
        measured, mask = (nib.as_closest_canonical(nib.load(f)) for f in (pair.suvr_file, pair.mask_file))
        a, b, inside = canonical(predicted), np.asarray(measured.dataobj), np.asarray(mask.dataobj) > 0
        for row in found.itertuples():
            off = np.abs(a[:, :, row.slice] - b[:, :, row.slice])[inside[:, :, row.slice]]
            assert row.mae == pytest.approx(off.mean(), rel=1e-5)
        assert found["n_voxels"].sum() == inside.sum()
        assert set(found["data_range"]) == {3.0}
        assert set(found["mask"]) == {MASK}


def test_the_whole_volume_is_measured_as_the_metrics_room_does(pairs):
    pair = pairs[3]
    predicted = measured_map(pair, 0.05, 0.9)
    row = score_scan(pair, {MODEL: predicted}, HOW).scans.iloc[0]
    arrays = (np.asarray(x.dataobj) for x in (predicted, load_volume(pair.suvr_file), load_volume(pair.mask_file)))
    expected = metrics.image_agreement(*arrays, 3.0)
    assert (row["ssim"], row["psnr"]) == pytest.approx((expected.ssim, expected.psnr), rel=1e-6)


def test_a_map_on_another_grid_is_refused(pairs):
    with pytest.raises(GridMismatchError):
        score_scan(pairs[0], {MODEL: measured_map(pairs[1])}, HOW)


@pytest.mark.parametrize("diagnosis", ["CN", "AD"])
def test_a_baseline_has_the_training_mean_on_the_scale_of_the_manufacturer(pairs, diagnosis):
    mean = np.full(GRID.shape, 0.5, np.float32)
    training_statistics = TrainingStatistics({}, mean, {"CN": 2 * mean})
    mask = load_volume(pairs[1].mask_file)
    found = baseline_maps(training_statistics, toy_model(lambda t1w: t1w), mask, "GE", diagnosis)
    assert set(found) == ({TRAINING_MEAN, DIAGNOSIS_MEAN} if diagnosis == "CN" else {TRAINING_MEAN})
    inside = np.asarray(mask.dataobj) > 0
    centre, width = SCALES["GE"]
    np.testing.assert_allclose(np.asarray(found[TRAINING_MEAN].dataobj)[inside], centre + 0.5 * width, rtol=1e-6)
    assert not np.asarray(found[TRAINING_MEAN].dataobj)[~inside].any()
    if diagnosis == "CN":
        np.testing.assert_allclose(np.asarray(found[DIAGNOSIS_MEAN].dataobj)[inside], centre + width, rtol=1e-6)


SPLITS = {"sub-01": "train", "sub-02": "train", **{f"sub-0{n}": "test" for n in (3, 4, 5)}}
CUT = 1.35


@pytest.fixture(scope="module")
def report(pairs):
    rng = np.random.default_rng(0)
    scores = [
        score_scan(
            pair, {MODEL: measured_map(pair, 0.02 * n, rng.uniform(0.8, 1.2)), "flat": measured_map(pair, 9, 0)}, HOW
        )
        for n, pair in enumerate(pairs)
    ]
    measured = pd.concat([regional_values(pair) for pair in pairs])
    return evaluate(scores, measured, SPLITS, {"ctx-lh-entorhinal|left": CUT}, HOW, n_resamples=100), measured


@pytest.mark.slow
def test_each_scan_has_a_row_a_predictor_with_its_split(report):
    scans = report[0].scans
    assert len(scans) == 2 * len(PEOPLE)
    assert dict(zip(scans["participant_id"], scans["split"], strict=True)) == {**SPLITS, "sub-06": "none"}


def test_splits_are_never_mixed_and_means_are_over_their_participants(report):
    table, scans = report[0].summary, report[0].scans
    for split in ("train", "test", "none"):
        for measure in ("mae", "ssim_axial", "regional_mae"):
            row = table.query("split == @split and predictor == 'model' and measure == @measure").iloc[0]
            own = scans[(scans["split"] == split) & (scans["predictor"] == MODEL)]
            assert row["n_participants"] == len(own)
            assert row["estimate"] == pytest.approx(own[measure].mean())
    lonely = table.query("split == 'none' and predictor == 'model' and measure == 'mae'").iloc[0]
    assert math.isnan(lonely["low"])
    several = table.query("split == 'test' and predictor == 'model' and measure == 'mae'").iloc[0]
    assert several["low"] <= several["estimate"] <= several["high"]


def test_the_regional_error_of_a_scan_is_the_mean_over_its_regions(report, pairs):
    scans = report[0].scans.set_index(["scan", "predictor"])
    flat = scans.loc[(pairs[0].scan, "flat")]
    single = regional_values(pairs[0]).query("kind in ('cortical', 'subcortical')")["suvr_mean"].dropna()
    assert flat["regional_mae"] == pytest.approx((9.0 - single).mean(), rel=1e-5)
    assert flat["regional_bias"] == pytest.approx((9.0 - single).mean(), rel=1e-5)


def test_regions_agree_as_scipy_and_scikit_learn_say(pairs):
    rng = np.random.default_rng(1)
    factors = rng.uniform(0.7, 1.3, len(pairs))
    scores = [
        score_scan(pair, {MODEL: measured_map(pair, times=f)}, HOW) for pair, f in zip(pairs, factors, strict=True)
    ]
    measured = pd.concat([regional_values(pair) for pair in pairs])
    found = evaluate(scores, measured, {}, {"ctx-lh-entorhinal|left": CUT}, HOW, n_resamples=100).regions
    row = found[found["region"] == "ctx-lh-entorhinal"].iloc[0]
    truth = measured[measured["region"] == "ctx-lh-entorhinal"]["suvr_mean"].to_numpy(float)
    predicted = truth * factors
    assert 0 < (truth >= CUT).sum() < len(truth)
    assert row["n"] == len(pairs)
    assert row["pearson_r"] == pytest.approx(pearsonr(predicted, truth).statistic, rel=1e-4)
    assert row["bias"] == pytest.approx(np.mean(predicted - truth), rel=1e-4)
    assert row["auc"] == pytest.approx(roc_auc_score(truth >= CUT, predicted))
    assert (row["positive_suvr"], row["n_positive"]) == (CUT, (truth >= CUT).sum())
    other = found[found["region"] == "ctx-rh-entorhinal"].iloc[0]
    assert math.isnan(other["auc"])


def test_braak_stages_need_thresholds_of_all_three_composites(pairs):
    scores = [score_scan(pair, {MODEL: measured_map(pair)}, HOW) for pair in pairs]
    measured = pd.concat([regional_values(pair) for pair in pairs])
    without = evaluate(scores, measured, {}, {}, HOW, n_resamples=100)
    assert without.scans["braak_measured"].isna().all()
    kappa = without.summary.query("measure == 'braak_kappa'").iloc[0]
    assert (kappa["n_participants"], math.isnan(kappa["estimate"])) == (0, True)


def test_braak_stages_are_compared_as_scikit_learn_does():
    rng = np.random.default_rng(2)
    names, cuts = ("braak1", "braak34", "braak56"), (1.2, 1.3, 1.4)
    rows = []
    for n in range(12):
        for source in ("measured", "synthetic"):
            for name in names:
                key = {"participant_id": f"sub-{n}", "scan": f"sub-{n}", "region": name, "source": source}
                rows.append({**key, "suvr_mean": rng.uniform(1.0, 1.5), "n_voxels": 5})
    table = pd.DataFrame(rows).assign(session_id=None, tracer="t", index=None, hemisphere="both", kind="composite")
    table["reference_region"] = "CerebellarGM"
    measured, synthetic = (table[table["source"] == source] for source in ("measured", "synthetic"))
    columns = dict.fromkeys(set(MEASURES) - {"regional_mae", "regional_bias"}, 0.0)
    scans = pd.DataFrame(
        [{"participant_id": f"sub-{n}", "scan": f"sub-{n}", "a": 0, "b": 0, **columns} for n in range(12)]
    )
    scores = ScanScores(scans.assign(predictor=MODEL), pd.DataFrame(), synthetic.assign(predictor=MODEL))
    found = evaluate(
        [scores],
        measured,
        {},
        {f"{name}|both": cut for name, cut in zip(names, cuts, strict=True)},
        HOW,
        n_resamples=100,
    )
    stages = []
    for source in (synthetic, measured):
        wide = source.pivot_table(index="participant_id", columns="region", values="suvr_mean")
        stages.append(
            [max([0, *(k for k in (1, 2, 3) if row[k - 1] >= cuts[k - 1])]) for row in wide[list(names)].values]
        )
    kappa = found.summary.query("measure == 'braak_kappa'").iloc[0]
    assert len(set(stages[0])) > 2
    assert kappa["estimate"] == pytest.approx(cohen_kappa_score(*stages, weights="quadratic"))
    same = found.summary.query("measure == 'braak_same'").iloc[0]
    assert same["estimate"] == pytest.approx(np.mean(np.equal(*stages)))


def test_what_the_pet_did_not_measure_is_compared_nowhere(tmp_path):
    pair = find_pairs(write_people(tmp_path, PEOPLE[:1]), diagnoses={"01": "CN"})[0]
    suvr, mask = load_volume(pair.suvr_file), np.asarray(load_volume(pair.mask_file).dataobj) > 0
    cut = np.array(suvr.dataobj, np.float32)
    middle = cut.shape[2] // 2
    cut[:, :, middle:] = np.nan
    wrong = np.array(measured_map(pair, 0.1).dataobj)
    wrong[:, :, middle:] = 99
    nib.Nifti1Image(cut, suvr.affine).to_filename(pair.suvr_file)
    scores = score_scan(pair, {MODEL: image_like(wrong, suvr)}, HOW)
    found = scores.scans.iloc[0]
    assert found["n_voxels"] == mask[:, :, :middle].sum()
    assert (found["mae"], found["mae_axial"]) == pytest.approx((0.1, 0.1), abs=1e-5)
    regions = scores.regions
    assert (regions["measured_fraction"] < 1).any()
    assert (regions["suvr_mean"].dropna() < 10).all()
    assert regions[regions["measured_fraction"] < 0.5]["suvr_mean"].isna().all()
