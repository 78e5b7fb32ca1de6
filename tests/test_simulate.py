"""Simulated datasets: the truth is the truth, the same seed gives the same bytes, the heads are like heads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from tau_pipeline.errors import ImageError, OutputError, SettingError
from tau_pipeline.imaging.volume import image_like
from tau_pipeline.simulate.dataset import (
    Simulation,
    draw_visits,
    plan_participant,
    plasma_p_tau217,
    simulate_dataset,
    with_atrophy,
)
from tau_pipeline.simulate.heads import draw_head, make_head, spline_field, template_coordinates
from tau_pipeline.simulate.pet import (
    BRAAK_STAGE,
    BURDEN,
    SCANNERS,
    draw_motion,
    draw_pet,
    draw_uptake,
    make_pet,
    rigid_about,
    tau_load,
    true_suvr,
)
from tau_pipeline.simulate.template import (
    OUTSIDE,
    PERSON_BOX,
    grid,
    load_template,
    look_up,
    signed_distance,
)
from tau_workflows.simulate_cli import main

COARSE = 4.0
DESIKAN_KILLIANY = {h + k for h in (1000, 2000) for k in range(1, 36) if k != 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five coarse participants: static, dynamic in two sessions, static, no PET, second session without T1w.

    With the template that heads are made of, they take 10 s of processor time, so all tests of heads are slow.
    """
    out = tmp_path_factory.mktemp("simulated") / "bids"
    return simulate_dataset(out, Simulation(5, seed=3, voxel_mm=COARSE, sessions=True))


@pytest.fixture(scope="module")
def head():
    return make_head(draw_head(np.random.default_rng(0)), load_template(), COARSE)


def scans(dataset: Path) -> list[dict]:
    return json.loads((dataset / "truth" / "scans.json").read_text())


def stem(scan: dict) -> str:
    return "_".join([scan["participant"], *([scan["session"]] if "session" in scan else [])])


def pet_of(dataset: Path, scan: dict) -> nib.Nifti1Image:
    (path,) = dataset.glob(f"{scan['participant']}/**/{stem(scan)}_trc-*_pet.nii.gz")
    return nib.load(path)


def truth(dataset: Path, scan: dict, what: str) -> nib.Nifti1Image:
    return nib.load(dataset / "truth" / f"{stem(scan)}_{what}.nii.gz")


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# the truth


@pytest.mark.slow
def test_the_true_suvr_is_one_in_the_cerebellar_cortex(dataset: Path) -> None:
    for scan in scans(dataset):
        labels = np.asarray(truth(dataset, scan, "labels").dataobj)
        suvr = truth(dataset, scan, "suvr").get_fdata()
        assert suvr[np.isin(labels, (8, 47))].mean() == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_each_frame_moved_by_its_true_transform_is_the_true_suvr_times_the_reference(dataset: Path) -> None:
    for scan in scans(dataset):
        pet, suvr = pet_of(dataset, scan), truth(dataset, scan, "suvr")
        brain = np.asarray(truth(dataset, scan, "mask").dataobj) > 0
        frames = pet.get_fdata().reshape(*pet.shape[:3], -1)
        assert frames.shape[3] == len(scan["frames"])
        for number, frame in enumerate(scan["frames"]):
            vox = np.linalg.inv(pet.affine) @ np.linalg.inv(frame) @ suvr.affine
            moved = ndimage.affine_transform(frames[..., number], vox[:3, :3], vox[:3, 3], suvr.shape, order=3)
            ratio = (moved / scan["ref_bqml"])[brain] / suvr.get_fdata()[brain]
            assert np.median(ratio) == pytest.approx(1, abs=0.01)
            # the noise of a frame is at most 4 % x sqrt(4), and more where the activity is low
            assert np.median(np.abs(ratio - 1)) < 0.08


@pytest.mark.slow
def test_a_wrong_transform_does_not_fit(dataset: Path) -> None:
    scan = scans(dataset)[0]
    pet, suvr = pet_of(dataset, scan), truth(dataset, scan, "suvr")
    brain = np.asarray(truth(dataset, scan, "mask").dataobj) > 0

    def misfit(pet2t1: np.ndarray) -> float:
        vox = np.linalg.inv(pet.affine) @ np.linalg.inv(pet2t1) @ suvr.affine
        moved = ndimage.affine_transform(pet.get_fdata(), vox[:3, :3], vox[:3, 3], suvr.shape, order=1)
        return float(np.abs(moved / scan["ref_bqml"] - suvr.get_fdata())[brain].mean())

    true = np.array(scan["pet2t1"])
    for axis in range(3):
        for sign in (-1, 1):
            wrong = true.copy()
            wrong[axis, 3] += 3 * sign
            assert misfit(true) < misfit(wrong)


@pytest.mark.slow
def test_pet_to_t1w_is_the_first_frame_and_all_are_rigid(dataset: Path) -> None:
    for scan in scans(dataset):
        assert scan["pet2t1"] == scan["frames"][0]
        for frame in np.array(scan["frames"]):
            np.testing.assert_allclose(frame[:3, :3] @ frame[:3, :3].T, np.eye(3), atol=1e-12)
            assert np.linalg.det(frame[:3, :3]) == pytest.approx(1)


def test_pet_lies_5_to_25_mm_and_3_to_15_degrees_from_the_t1w_at_the_centre_of_the_brain() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        draw = draw_pet(rng, draw_uptake(rng, 0.5), SCANNERS[seed % 3], draw_motion(rng, 1, False))
        assert 5 <= np.linalg.norm(draw.offset_mm) <= 25
        assert np.deg2rad(3) <= np.linalg.norm(draw.turn_rad) <= np.deg2rad(15)


def test_frames_move_up_to_3_mm_and_2_degrees_or_not_at_all() -> None:
    rng = np.random.default_rng(0)
    motion = draw_motion(rng, 200, True)
    assert not motion[0].any()
    assert 2 < np.linalg.norm(motion[:, :3], axis=1).max() <= 3
    assert np.rad2deg(np.linalg.norm(motion[:, 3:], axis=1)).max() <= 2
    assert not draw_motion(rng, 4, False).any()


@pytest.mark.slow
def test_all_68_regions_have_voxels_and_an_uptake(dataset: Path) -> None:
    for scan in scans(dataset):
        labels = set(np.unique(np.asarray(truth(dataset, scan, "labels").dataobj)).tolist())
        assert {k for k in labels if k >= 1000} <= DESIKAN_KILLIANY
        assert len({k for k in labels if k >= 1000}) >= 66  # a 4-mm grid may miss the smallest
        assert {str(k) for k in labels - {0}} <= set(scan["uptake"])
        assert {8, 47, 16, 7, 46, 17, 53, 10, 49, 4, 43, 24} <= labels


@pytest.mark.slow
def test_labels_fill_the_brain_mask(dataset: Path) -> None:
    for scan in scans(dataset):
        labels, mask = truth(dataset, scan, "labels"), truth(dataset, scan, "mask")
        np.testing.assert_array_equal(np.asarray(labels.dataobj) > 0, np.asarray(mask.dataobj) > 0)
        litres = mask.get_fdata().sum() * abs(np.linalg.det(mask.affine[:3, :3])) / 1e6
        assert 1.0 < litres < 2.1


@pytest.mark.slow
def test_the_t1w_image_and_the_truth_share_a_world_in_every_axis_order(dataset: Path) -> None:
    """White matter is brighter than cortex, and cortex than fluid, where the truth says so."""
    orders = set()
    for path in sorted(dataset.glob("sub-*/**/anat/*_T1w.nii.gz")):
        img = nib.load(path)
        orders.add("".join(nib.aff2axcodes(img.affine)))
        labels = nib.load(dataset / "truth" / path.name.replace("_T1w", "_labels"))
        vox = np.linalg.inv(labels.affine) @ img.affine
        on_t1w = ndimage.affine_transform(
            np.asarray(labels.dataobj), vox[:3, :3], vox[:3, 3], output_shape=img.shape, order=0
        )
        t1w = img.get_fdata()
        white, gray, fluid = (np.median(t1w[m]) for m in (np.isin(on_t1w, (2, 41)), on_t1w > 1000, on_t1w == 24))
        assert white > 1.15 * gray > 1.15 * 1.3 * fluid
    assert orders == {"RAS", "LAS", "PSR", "LIA"}


@pytest.mark.slow
def test_a_later_session_without_t1w_has_its_pet_in_the_world_of_the_first(dataset: Path) -> None:
    first, second = (s for s in scans(dataset) if s["participant"] == "sub-05")
    assert not list((dataset / "sub-05" / "ses-02").glob("anat"))
    np.testing.assert_array_equal(
        np.asarray(truth(dataset, first, "labels").dataobj), np.asarray(truth(dataset, second, "labels").dataobj)
    )
    assert first["pet2t1"] != second["pet2t1"]


@pytest.mark.slow
def test_a_uniform_uptake_looks_uniform_inside_the_brain(head) -> None:
    suvr = true_suvr(head, dict.fromkeys([*range(1, 2036), *OUTSIDE.values()], 1.0), fwhm_mm=6)
    deep = ndimage.binary_erosion(np.asarray(head.labels.dataobj) > 0, iterations=3)
    np.testing.assert_allclose(suvr[deep], 1, atol=0.01)


@pytest.mark.slow
def test_a_head_without_cerebellum_is_refused(head) -> None:
    gone = replace(head, labels=image_like(np.zeros(head.labels.shape, np.int16), head.labels))
    with pytest.raises(ImageError, match="cerebellar cortex"):
        true_suvr(gone, {2: 1.0}, 6)


def test_turning_about_a_point_leaves_the_point_but_for_the_shift() -> None:
    centre, shift = np.array([10.0, -20, 30]), np.array([1.0, 2, 3])
    matrix = rigid_about(centre, shift, np.array([0.1, -0.2, 0.3]))
    np.testing.assert_allclose(matrix[:3, :3] @ centre + matrix[:3, 3], centre + shift)


# disease


def test_the_order_of_braak_is_kept_on_average() -> None:
    stages = []
    for stage, regions in BRAAK_STAGE.items():
        loads = [tau_load(draw_uptake(np.random.default_rng(s), 0.45))[1000 + k] for s in range(20) for k in regions]
        stages.append((stage, np.mean(loads)))
    assert [stage for stage, _ in sorted(stages, key=lambda x: -x[1])] == [1, 3, 4, 5, 6]


def test_every_cortical_region_has_exactly_one_braak_stage() -> None:
    regions = [k for group in BRAAK_STAGE.values() for k in group]
    assert len(regions) == len(set(regions))
    assert {h + k for h in (1000, 2000) for k in regions} == DESIKAN_KILLIANY


def test_groups_differ_in_burden_without_overlap() -> None:
    assert BURDEN["CN"][1] < BURDEN["MCI"][0] <= BURDEN["MCI"][1] <= BURDEN["AD"][0]


@pytest.mark.slow
def test_tau_makes_cortex_smaller_and_ventricles_larger_in_the_same_person() -> None:
    person = draw_head(np.random.default_rng(1))
    uptake = draw_uptake(np.random.default_rng(2), 0.9)
    well, ill = (
        np.asarray(make_head(d, load_template(), COARSE).labels.dataobj)
        for d in (person, with_atrophy(person, uptake, 1.0))
    )
    assert (ill > 1000).sum() < 0.9 * (well > 1000).sum()
    assert np.isin(ill, (4, 43)).sum() > 1.3 * np.isin(well, (4, 43)).sum()
    assert np.array_equal(well > 0, ill > 0)


@pytest.mark.slow
def test_regional_tau_and_cortical_volume_correlate_negatively_over_a_cohort(tmp_path: Path) -> None:
    out = simulate_dataset(tmp_path / "cohort", Simulation(12, seed=5, voxel_mm=COARSE))
    rows = pd.read_csv(out / "truth" / "regions.tsv", sep="\t")
    share = rows["volume_mm3"] / rows.groupby("participant_id")["volume_mm3"].transform("sum")
    rows["size"] = share / share.groupby(rows["index"]).transform("mean")
    tau, size = (rows.pivot_table(index="participant_id", columns="index", values=v) for v in ("uptake", "volume_mm3"))
    assert np.corrcoef(tau.mean(axis=1), size.sum(axis=1))[0, 1] < -0.4
    each = [np.corrcoef(tau[k], size[k])[0, 1] for k in tau]
    assert np.median(each) < -0.3


# heads


@pytest.mark.slow
def test_a_deformation_never_folds() -> None:
    template = load_template()
    affine, shape = grid(*PERSON_BOX, COARSE)
    for seed in range(10):
        at = template_coordinates(draw_head(np.random.default_rng(seed)), template, affine, shape)
        gradient = np.array([np.gradient(axis) for axis in at]) / COARSE
        jacobian = np.linalg.det(np.moveaxis(gradient.reshape(3, 3, -1), -1, 0))
        assert jacobian.min() > 0.1


@pytest.mark.slow
def test_two_persons_differ_and_their_noise_is_not_in_the_draw_of_the_shape() -> None:
    a, b = (draw_head(np.random.default_rng(s)) for s in (1, 2))
    heads = [np.asarray(make_head(d, load_template(), COARSE).labels.dataobj) for d in (a, b, replace(a, noise_seed=9))]
    assert (heads[0] != heads[1]).mean() > 0.05
    np.testing.assert_array_equal(heads[0], heads[2])


@pytest.mark.slow
def test_a_head_has_skull_and_scalp_around_the_brain(head) -> None:
    """Going out from the brain one meets dark bone and then bright fat, and air at the corners."""
    t1w, brain = np.asarray(head.t1w.dataobj), np.asarray(head.labels.dataobj) > 0
    outside = np.asarray(head.outside.dataobj)
    white = np.median(t1w[np.isin(np.asarray(head.labels.dataobj), (2, 41))])
    near = ndimage.distance_transform_edt(~brain) * COARSE
    assert {OUTSIDE[k] for k in ("bone", "marrow", "fat", "skin", "muscle", "eye", "meninges")} <= set(
        np.unique(outside)
    )
    assert np.median(t1w[(near > 0) & (near < 10)]) < 0.5 * white
    assert np.median(t1w[outside == OUTSIDE["fat"]]) > 0.6 * white
    assert t1w[:3, :3, -3:].mean() < 0.1 * white


def test_a_spline_field_of_equal_knots_is_constant_and_others_stay_within_their_range() -> None:
    np.testing.assert_allclose(spline_field(np.full((5, 6, 7), 2.5), (9, 12, 8)), 2.5, rtol=1e-5)
    knots = np.random.default_rng(0).normal(size=(6, 5, 7))
    field = spline_field(knots, (20, 21, 22))
    assert knots.min() <= field.min() < field.max() <= knots.max()


def test_a_signed_distance_is_half_a_voxel_on_both_sides_of_a_border() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[3:6, 3:6, 3:6] = True
    np.testing.assert_allclose(signed_distance(mask)[4, 4], [-2.5, -1.5, -0.5, 0.5, 1.5, 0.5, -0.5, -1.5, -2.5])


def test_codes_without_a_value_are_zero() -> None:
    np.testing.assert_array_equal(look_up({2: 1.5, 2035: 3.0}, np.array([0, 2, 3, 2035])), [0, 1.5, 0, 3.0])


@pytest.mark.slow
def test_making_a_scan_changes_neither_head_nor_draw(head) -> None:
    rng = np.random.default_rng(4)
    draw = draw_pet(rng, draw_uptake(rng, 0.5), SCANNERS[0], draw_motion(rng, 1, False))
    before = (np.asarray(head.labels.dataobj).copy(), draw.offset_mm.copy(), dict(draw.uptake))
    first, second = make_pet(draw, head), make_pet(draw, head)
    np.testing.assert_array_equal(np.asarray(first.pet.dataobj), np.asarray(second.pet.dataobj))
    np.testing.assert_array_equal(before[0], np.asarray(head.labels.dataobj))
    np.testing.assert_array_equal(before[1], draw.offset_mm)
    assert before[2] == draw.uptake


# the dataset


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_participants_do_not_depend_on_their_number(
    dataset: Path, tmp_path: Path
) -> None:
    fewer = digests(simulate_dataset(tmp_path / "fewer", Simulation(2, seed=3, voxel_mm=COARSE, sessions=True)))
    images = {name: digest for name, digest in digests(dataset).items() if "sub-01" in name or "sub-02" in name}
    assert images.items() <= fewer.items()
    assert {name for name in fewer if "sub-" in name} == set(images)


def test_another_seed_gives_other_people() -> None:
    plan = plan_participant(1, Simulation())
    a, b = (draw_visits(1, plan, seed)[0] for seed in (1, 2))
    assert not np.allclose(a.head.to_template, b.head.to_template)
    assert a.uptake != b.uptake


def test_the_first_four_are_static_dynamic_with_motion_static_with_disease_and_no_pet() -> None:
    plans = [plan_participant(i, Simulation()) for i in range(1, 5)]
    assert [p.frames for p in plans] == [1, 4, 1, 0]
    assert plans[1].moves
    assert plans[2].group == "AD"
    assert [SCANNERS[p.scanner].manufacturer for p in plans[:3]] == ["SIEMENS", "GE MEDICAL SYSTEMS", "Philips"]


def test_groups_and_manufacturers_are_crossed_in_every_nine() -> None:
    plans = [plan_participant(i, Simulation(9)) for i in range(1, 10)]
    assert len({(p.group, p.scanner) for p in plans}) == 9


@pytest.mark.parametrize(("pet", "frames"), [("static", {0, 1}), ("dynamic", {0, 4}), ("mixed", {0, 1, 4})])
def test_the_kind_of_pet_can_be_chosen(pet: str, frames: set[int]) -> None:
    assert {plan_participant(i, Simulation(12, pet=pet)).frames for i in range(1, 13)} == frames  # type: ignore[arg-type]


@pytest.mark.slow
def test_everything_says_that_it_is_simulated(dataset: Path) -> None:
    assert "SIMULATED" in json.loads((dataset / "dataset_description.json").read_text())["Name"]
    assert (dataset / "README").read_text().startswith("SIMULATED")
    sidecars = list(dataset.glob("sub-*/**/*.json"))
    assert len(sidecars) == len(list(dataset.glob("sub-*/**/*.nii.gz")))
    assert all(json.loads(p.read_text())["Simulated"] is True for p in sidecars)


@pytest.mark.slow
def test_pet_is_int16_with_a_scale_factor_and_frames_that_agree_with_the_sidecar(dataset: Path) -> None:
    for path in dataset.glob("sub-*/**/*_pet.nii.gz"):
        img = nib.load(path)
        side = json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())
        n_frames = 1 if img.ndim == 3 else img.shape[3]
        assert img.get_data_dtype() == np.int16
        assert img.dataobj.slope not in (0, 1)
        assert len(side["FrameTimesStart"]) == len(side["FrameDuration"]) == n_frames
        assert (side["FrameTimesStart"][0], sum(side["FrameDuration"])) == (4800, 1200)


@pytest.mark.slow
def test_participants_are_described(dataset: Path) -> None:
    table = pd.read_csv(dataset / "participants.tsv", sep="\t")
    assert list(table.columns) == ["participant_id", "age", "sex", "group"]
    assert set(table["group"]) <= {"CN", "MCI", "AD"}
    assert set(json.loads((dataset / "participants.json").read_text())) == {"age", "sex", "group"}


@pytest.mark.slow
def test_one_participant_has_no_pet(dataset: Path) -> None:
    assert not list(dataset.glob("sub-04/**/*_pet.*"))
    assert {s["participant"] for s in scans(dataset)} == {"sub-01", "sub-02", "sub-03", "sub-05"}


@pytest.mark.slow
def test_the_validator_finds_no_errors(dataset: Path) -> None:
    from tau_pipeline.bids.validator import validate

    assert validate(dataset).valid


# the program


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main([str(tmp_path), "--voxel-size", "4"]) == 2
    message = capsys.readouterr().err
    assert "not an empty folder" in message
    assert "Traceback" not in message
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(OutputError):
        simulate_dataset(tmp_path / "mine.txt", Simulation(1))


@pytest.mark.parametrize("wrong", [["--participants", "0"], ["--seed", "-1"], ["--voxel-size", "9"]])
def test_a_wrong_number_is_named_and_nothing_is_written(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "out"), *wrong]) == 2
    assert wrong[1] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_kind_of_pet_is_refused() -> None:
    with pytest.raises(SettingError, match="static, dynamic, mixed"):
        Simulation(pet="ecat")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_program_prints_a_line_for_each_participant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "out"), "--participants", "1", "--seed", "1", "--voxel_size", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sub-01: 1 of 1")
    assert "complete" in lines[-1]


@pytest.mark.slow
def test_deepbet_finds_the_brain_of_a_simulated_head(tmp_path: Path) -> None:
    from tau_pipeline.anatomy.brain_mask import extract_brain
    from tau_pipeline.imaging.load import load_volume

    out = simulate_dataset(tmp_path / "one", Simulation(1, seed=2))
    mask = extract_brain(load_volume(out / "sub-01" / "anat" / "sub-01_T1w.nii.gz"))
    true = nib.load(out / "truth" / "sub-01_mask.nii.gz")
    vox = np.linalg.inv(mask.affine) @ true.affine
    found = ndimage.affine_transform(
        np.asarray(mask.dataobj), vox[:3, :3], vox[:3, 3], output_shape=true.shape, order=0
    ).astype(bool)
    brain = np.asarray(true.dataobj) > 0
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.93


def test_plasma_p_tau217_follows_the_amount_of_tau_and_tells_more_of_it_than_the_group() -> None:
    settings = Simulation(60, seed=5, p_tau217=True)
    plans = [plan_participant(number, settings) for number in range(1, 61)]
    burden = np.array([draw_visits(number, plan, 5)[0].burden for number, plan in enumerate(plans, start=1)])
    found = np.log([plasma_p_tau217(number, plan, 5) for number, plan in enumerate(plans, start=1)])
    assert np.corrcoef(burden, found)[0, 1] > 0.9
    within = {group: np.array([plan.group == group for plan in plans]) for group in BURDEN}
    assert min(np.corrcoef(burden[own], found[own])[0, 1] for own in within.values()) > 0.5


@pytest.mark.slow
def test_p_tau217_is_a_described_column_that_changes_no_image(tmp_path: Path) -> None:
    for name, more in (("with", True), ("without", False)):
        simulate_dataset(tmp_path / name, Simulation(1, seed=3, voxel_mm=COARSE, pet="static", p_tau217=more))
    tables = {name: pd.read_csv(tmp_path / name / "participants.tsv", sep="\t") for name in ("with", "without")}
    assert set(tables["with"]) - set(tables["without"]) == {"p_tau217"}
    described = json.loads((tmp_path / "with/participants.json").read_text())
    assert set(described) == set(tables["with"]) - {"participant_id"}
    images = [sorted((tmp_path / name / "sub-01").rglob("*.nii.gz")) for name in ("with", "without")]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*images, strict=True))


# visits over years


@pytest.fixture(scope="module")
def yearly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One coarse participant with three sessions a year apart, 10 % more uptake in each."""
    settings = Simulation(1, seed=3, voxel_mm=COARSE, pet="static", visits=3, annual_change=10.0, annual_atrophy=0.1)
    return simulate_dataset(tmp_path_factory.mktemp("yearly") / "bids", settings)


@pytest.mark.slow
def test_visits_a_year_apart_change_by_what_the_truth_says(yearly: Path) -> None:
    dates = pd.read_csv(yearly / "sub-01/sub-01_sessions.tsv", sep="\t")
    assert pd.to_datetime(dates["acq_time"]).diff().dt.days.dropna().tolist() == [365, 365]
    scans = json.loads((yearly / "truth/scans.json").read_text())
    assert [scan["years"] for scan in scans] == [0, 1, 2]
    first, _, last = (scan["uptake"] for scan in scans)
    # entorhinal and fusiform cortex, another cortex, cerebellum, and white matter
    ratios = [last[code] / first[code] for code in ("1006", "2007", "1024", "8", "2")]
    assert ratios == pytest.approx([1.2, 1.2, 1.1, 1, 1])
    for scan in scans:
        name = f"truth/sub-01_{scan['session']}"
        labels, suvr = (
            np.asanyarray(nib.load(yearly / f"{name}_{what}.nii.gz").dataobj) for what in ("labels", "suvr")
        )
        own = np.isin(labels, (18, 54, *(side + region for side in (1000, 2000) for region in (6, 7, 9, 15, 16))))
        assert suvr[own].mean() == pytest.approx(scan["mean_suvr"]["metatemporal"], rel=2e-3)
    means = [scan["mean_suvr"]["metatemporal"] for scan in scans]
    assert means[0] < means[1] < means[2]
    lost = pd.read_csv(yearly / "truth/regions.tsv", sep="\t").query("index == 1024")["thinning_mm"].tolist()
    assert lost[1] - lost[0] > 0.1


@pytest.mark.slow
def test_the_head_lies_otherwise_at_a_later_visit_and_is_the_same_head() -> None:
    settings = Simulation(1, seed=3, visits=2)
    first, second = draw_visits(1, plan_participant(1, settings), settings.seed, settings)
    assert second.uptake == first.uptake
    assert second.head.thinning == first.head.thinning
    affine, shape = grid(*PERSON_BOX, 8.0)
    template, position = load_template(), second.head.position
    assert position is not None
    before, after = (template_coordinates(visit.head, template, affine, shape) for visit in (first, second))
    # A point of the second image and the point of the first that it was have the same place in the template.
    points = np.array([[12.0, 10, 9], [9, 14, 12], [14, 8, 14]]).T
    moved = (np.linalg.inv(affine) @ position @ affine @ [*points, np.ones(3)])[:3]
    expected = [ndimage.map_coordinates(axis, moved, order=3) for axis in before]
    found = [axis[tuple(points.astype(int))] for axis in after]
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.slow
def test_another_protocol_changes_the_t1w_of_later_visits_and_nothing_else() -> None:
    settings = Simulation(1, seed=3, visits=2, t1w_differs=True)
    plan = plan_participant(1, settings)
    first, second = draw_visits(1, plan, settings.seed, settings)
    plain = draw_visits(1, plan, settings.seed, replace(settings, t1w_differs=False))
    assert first.head.contrast == plain[0].head.contrast
    assert second.pet is not None
    assert plain[1].pet is not None
    assert second.pet.noise_seed == plain[1].pet.noise_seed
    same, other = (make_head(visit.head, load_template(), COARSE) for visit in (plain[1], second))
    labels = np.asanyarray(same.labels.dataobj)
    np.testing.assert_array_equal(np.asanyarray(other.labels.dataobj), labels)
    ratios = []
    for head in (same, other):
        t1w = np.asanyarray(head.t1w.dataobj)
        ratios.append(t1w[labels == 24].mean() / t1w[np.isin(labels, (2, 41))].mean())
    assert abs(ratios[1] / ratios[0] - 1) > 0.02


def test_changes_of_a_year_need_several_visits() -> None:
    with pytest.raises(SettingError, match="--sessions"):
        Simulation(annual_change=3.0)
    with pytest.raises(SettingError, match="--sessions"):
        Simulation(t1w_differs=True)
    with pytest.raises(SettingError, match="from 1 to 9"):
        Simulation(visits=0)
