"""Reference regions on heads made of blocks, where what is right can be said in advance."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tau_pipeline import atlas
from tau_pipeline.errors import GridMismatchError, ReferenceRegionError, UnknownNameError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_on, voxel_volume_mm3
from tau_pipeline.measures.regions import regional_table
from tau_pipeline.pet import reference_check
from tau_pipeline.pet import reference_region as reference
from tau_pipeline.pet.quantification import mean_of_parts

DATASET = Path(__file__).resolve().parents[2] / "shared" / "data" / "ds-simtau"
needs_dataset = pytest.mark.skipif(not DATASET.is_dir(), reason="needs ../shared/data/ds-simtau")
ADNI = ("ADNIInferiorCerebellarGM", "ADNIErodedWM", "ADNIWholeCerebellum", "ADNIBrainstem", "ADNICompositeWM")
SIDES = {"L": (8, 7, 2, 1011), "R": (47, 46, 41, 2011)}


def block_head(edge_mm=2.0):
    """A head of slabs, 128 x 96 x 112 mm: from below air, cerebellum around its white matter, cortex, white, cortex.

    The brainstem stands in front of the cerebellum. Left and right are halves of I.
    """
    shape = tuple(int(n / edge_mm) for n in (128, 96, 112))
    i, j, k = (edge_mm * (axis + 0.5) for axis in np.indices(shape))
    labels = np.zeros(shape, dtype=np.int16)
    head = (i > 16) & (i < 112) & (j > 16) & (j < 80)
    for side, (cortex, inner, white, occipital) in zip((i < 64, i >= 64), SIDES.values(), strict=True):
        labels[head & side & (k > 12) & (k < 52) & (j < 60)] = cortex
        labels[head & side & (k > 28) & (k < 36) & (j > 28) & (j < 48) & (i > 28) & (i < 100)] = inner
        labels[head & side & (k > 52) & (k < 104)] = occipital
        labels[head & side & (k > 60) & (k < 96) & (j > 24) & (j < 72) & (i > 24) & (i < 104)] = white
    labels[head & (np.abs(i - 64) < 14) & (j > 60) & (k > 12) & (k < 52)] = 16
    affine = np.diag([edge_mm, edge_mm, edge_mm, 1.0])
    affine[:3, 3] = edge_mm / 2
    return image_on(labels, affine)


def block_template(dseg):
    """Lobules of the block head: inferior below 30 mm, superior above; the pons in the middle of the brainstem."""
    labels = np.asarray(dseg.dataobj)
    height = dseg.affine[2, 2] * (np.arange(labels.shape[2]) + 0.5) * np.ones(labels.shape)
    cerebellum = np.isin(labels, (7, 8, 46, 47))
    parts = np.zeros(labels.shape, dtype=np.int16)
    parts[cerebellum & (height < 30)] = 9061
    parts[cerebellum & (height >= 30)] = 9041
    parts[(labels == 16) & (height > 24) & (height < 40)] = atlas.PONS
    return image_on(parts, dseg.affine)


def mask_of(name, dseg, **images):
    return np.asarray(reference.find_reference(name, dseg, **images).mask.dataobj) > 0


@pytest.fixture(scope="module")
def head():
    return block_head()


@pytest.fixture(scope="module")
def template(head):
    return block_template(head)


# Names


def test_the_default_is_cerebellar_grey_matter():
    assert tuple(reference.REGIONS) == (
        "CerebellarGM",
        "InferiorCerebellarGM",
        "WholeCerebellum",
        "Pons",
        "ErodedWM",
        *ADNI,
    )


@pytest.mark.parametrize("text", ["CerebellarGM", "cerebellargm", "cerebellar-gm", " Cerebellar_GM ", "CEREBELLAR GM"])
def test_case_and_hyphens_do_not_matter(text):
    assert reference.parse_reference(text) == "CerebellarGM"


@pytest.mark.parametrize("text", ["8+47", "47+8", "8,47", " 8 + 47 ", "8+47+8", "Labels8x47", "labels-8x47"])
def test_label_numbers_make_one_name(text):
    assert reference.parse_reference(text) == "Labels8x47"
    assert reference.definition(text).labels == (8, 47)


@settings(deadline=None)
@given(st.sets(st.integers(min_value=1, max_value=20000), min_size=1, max_size=6))
def test_any_label_numbers_go_into_a_bids_name_and_come_back(numbers):
    name = reference.parse_reference("+".join(map(str, numbers)))
    assert name.isalnum()
    assert reference.parse_reference(name) == name
    assert set(reference.definition(name).labels) == numbers


@pytest.mark.parametrize("name", reference.REGIONS)
def test_every_name_is_found_and_can_stand_in_a_file_name(name):
    assert name.isalnum()
    assert reference.parse_reference(name) == name
    assert set(reference.definition(name).labels) <= set(atlas.label_table()["index"])


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"'cerebelargm'; did you mean CerebellarGM\?"):
        reference.parse_reference("cerebelargm")


@pytest.mark.parametrize("text", ["", "hippo", "8+", "+", "0", "0+8", "8;47", "-8"])
def test_what_is_no_region_is_refused(text):
    with pytest.raises(UnknownNameError, match="reference region"):
        reference.parse_reference(text)


# Guard


@pytest.mark.parametrize("name", [name for name in reference.REGIONS if name not in ADNI])
def test_a_region_is_some_but_not_all_of_its_labels(name, head, template):
    found = mask_of(name, head, template_regions=template)
    whole = np.isin(np.asarray(head.dataobj), reference.definition(name).labels)
    assert found.any()
    assert not (found & ~whole).any()
    assert found.sum() < whole.sum()


def test_the_guard_is_a_blur_of_the_labels_with_two_limits(head):
    labels = np.asarray(head.dataobj)
    sigma = 6.0 / 2.354820045 / 2.0
    cortex = ndimage.gaussian_filter(np.isin(labels, (1011, 2011)).astype(float), sigma, mode="nearest")
    air = ndimage.gaussian_filter((labels == 0).astype(float), sigma, mode="nearest")
    wanted = reference.definition("CerebellarGM")
    expected = np.isin(labels, (8, 47)) & (cortex <= wanted.gray_share) & (air <= wanted.outside_share)
    differing = mask_of("CerebellarGM", head) ^ expected
    assert differing.sum() <= 0.001 * expected.sum()  # float32 at the limit


def test_voxels_touching_cortex_are_left_out_and_deep_ones_stay(head):
    found, labels = mask_of("CerebellarGM", head), np.asarray(head.dataobj)
    touching = ndimage.binary_dilation(labels > 1000)
    assert not (found & touching).any()
    deep = np.isin(labels, (8, 47)) & (ndimage.distance_transform_edt(np.isin(labels, (7, 8, 46, 47, 16))) * 2 > 8)
    assert deep.any()
    assert (found | ~deep).all()


def test_no_voxel_gets_more_from_hot_cortex_or_cold_air_than_its_limits_allow(head):
    labels = np.asarray(head.dataobj)
    activity = np.select([labels > 1000, labels > 0], [2.5, 1.0], 0.0)
    activity = ndimage.gaussian_filter(activity, 6 / 2.354820045 / 2, mode="nearest")
    whole, guarded = activity[np.isin(labels, (8, 47))], activity[mask_of("CerebellarGM", head)]
    limits = reference.definition("CerebellarGM")
    most, least = 1 + limits.gray_share * 1.5, 1 - limits.outside_share
    assert whole.max() > most + 0.2
    assert whole.min() < least - 0.2
    assert guarded.max() <= most + 1e-4
    assert guarded.min() >= least - 1e-4


def test_tau_in_cortex_moves_the_reference_far_less_than_without_the_guard(head):
    labels = np.asarray(head.dataobj)
    share = ndimage.gaussian_filter((labels > 1000).astype(float), 6 / 2.354820045 / 2, mode="nearest")
    # One more unit of activity in cortex adds its share of signal to the mean.
    assert share[mask_of("CerebellarGM", head)].mean() < 0.25 * share[np.isin(labels, (8, 47))].mean()


def test_eroded_white_matter_is_hardly_touched_by_hot_cortex(head):
    labels = np.asarray(head.dataobj)
    activity = np.select([labels > 1000, np.isin(labels, (2, 41))], [2.5, 1.0], 0.0)
    activity = ndimage.gaussian_filter(activity, 6 / 2.3548 / 2)
    assert activity[np.isin(labels, (2, 41))].mean() > 1.1
    assert activity[mask_of("ErodedWM", head)].mean() == pytest.approx(1, abs=0.04)


def test_the_guard_hardly_depends_on_the_voxel_size():
    volumes = [reference.find_reference("CerebellarGM", block_head(edge)).volume_mm3 for edge in (1.0, 2.0, 4.0)]
    assert max(volumes) / min(volumes) < 1.15


def test_turning_the_axes_turns_the_mask(head):
    labels = np.asarray(head.dataobj)
    turned = image_on(np.ascontiguousarray(labels.transpose(2, 0, 1)[:, ::-1]), head.affine)
    expected = mask_of("CerebellarGM", head).transpose(2, 0, 1)[:, ::-1]
    assert (mask_of("CerebellarGM", turned) ^ expected).sum() <= 0.001 * expected.sum()


def test_the_labels_given_are_left_as_they_were(head, template):
    before = np.array(head.dataobj)
    reference.find_reference("InferiorCerebellarGM", head, template)
    np.testing.assert_array_equal(np.asarray(head.dataobj), before)


def test_volume_and_mask_agree_and_the_grid_is_that_of_the_labels(head):
    found = reference.find_reference("CerebellarGM", head)
    assert found.mask.shape == head.shape
    np.testing.assert_allclose(found.mask.affine, head.affine)
    assert found.volume_mm3 == pytest.approx(np.asarray(found.mask.dataobj).sum() * voxel_volume_mm3(head))
    assert not found.relaxed
    assert f"{found.volume_mm3 / 1000:.1f} cm³" in found.description


def test_a_small_region_gets_a_looser_guard_and_says_so(head):
    labels = np.array(head.dataobj)
    cerebellum = np.isin(labels, (8, 47))
    i, j, k = np.argwhere(cerebellum).min(axis=0)
    labels[cerebellum] = 0
    labels[i : i + 22, j : j + 22, k : k + 2] = 8  # a sheet of 4 mm, 7.7 cm³: all of it close to air
    found = reference.find_reference("CerebellarGM", image_on(labels, head.affine))
    assert found.relaxed
    assert found.volume_mm3 >= 5000


def test_the_users_own_labels_get_the_cerebellar_guard(head):
    np.testing.assert_array_equal(mask_of("8+47", head), mask_of("CerebellarGM", head))


def test_the_users_own_cortical_labels_are_not_guarded_against_cortex(head):
    found = reference.find_reference("1011", head)
    assert found.gray_share == 1
    assert found.name == "Labels1011"
    assert not found.relaxed


def test_voxels_that_are_surely_csf_by_tissue_are_left_out_and_partial_volume_stays(head):
    tissue = np.zeros((*head.shape, 3), dtype=np.float32)
    tissue[..., 1] = 1
    tissue[20:30, :, :, 0], tissue[20:30, :, :, 1] = 0.95, 0.05
    tissue[30:40, :, :, 0], tissue[30:40, :, :, 1] = 0.6, 0.4
    found = mask_of("CerebellarGM", head, tissue=image_on(tissue, head.affine))
    without = mask_of("CerebellarGM", head)
    assert not found[20:30].any()
    assert without[20:30].any()
    np.testing.assert_array_equal(found[30:], without[30:])


# Regions from the template


def test_inferior_grey_matter_is_the_part_below_the_superior_lobules(head, template):
    found = mask_of("InferiorCerebellarGM", head, template_regions=template)
    whole = mask_of("CerebellarGM", head)
    height = 2 * (np.indices(head.shape)[2] + 0.5)
    np.testing.assert_array_equal(found, whole & (height < 30))


def test_gaps_between_warped_lobules_are_closed(head, template):
    parts = np.array(template.dataobj)
    parts[::3] = 0
    found = mask_of("InferiorCerebellarGM", head, template_regions=image_on(parts, head.affine))
    np.testing.assert_array_equal(found, mask_of("InferiorCerebellarGM", head, template_regions=template))


def test_the_pons_is_brainstem_inside_the_templates_pons(head, template):
    found = mask_of("Pons", head, template_regions=template)
    assert (np.asarray(head.dataobj)[found] == 16).all()
    assert (np.asarray(template.dataobj)[found] == atlas.PONS).all()


@pytest.mark.parametrize("name", reference.NEED_TEMPLATE)
def test_a_region_of_the_template_without_the_template_says_what_to_do(name, head):
    with pytest.raises(ReferenceRegionError, match=f"{name} needs.*register"):
        reference.find_reference(name, head)


@pytest.mark.parametrize("name", reference.NEED_TEMPLATE)
def test_a_template_that_lies_elsewhere_is_an_error(name, head, template):
    empty = image_on(np.zeros(head.shape, dtype=np.int16), head.affine)
    with pytest.raises(ReferenceRegionError, match=rf"{name} has 0\.00 cm³"):
        reference.find_reference(name, head, empty)


# Rules of ADNI


def slow_blur(mask, edge_mm, fwhm_mm=8.0):
    """Blur by a sum over shifted copies, one axis after the other, with zeros around."""
    sigma = fwhm_mm / (8 * np.log(2)) ** 0.5 / edge_mm
    reach = int(4.0 * sigma + 0.5)
    kernel = [np.exp(-0.5 * (step / sigma) ** 2) for step in range(-reach, reach + 1)]
    image = mask.astype(float)
    for axis in range(3):
        wide = np.pad(image, [(reach, reach) if axis == one else (0, 0) for one in range(3)])
        image = sum(
            weight / sum(kernel) * np.take(wide, np.arange(step, step + mask.shape[axis]), axis)
            for step, weight in enumerate(kernel)
        )
    return image


def test_eroded_white_matter_of_adni_is_where_the_blurred_labels_exceed_0_7(head):
    blurred = slow_blur(np.isin(np.asarray(head.dataobj), (2, 41)), 2.0)
    differing = mask_of("ADNIErodedWM", head) ^ (blurred > 0.7)
    assert not (differing & (np.abs(blurred - 0.7) > 1e-4)).any()


def test_inferior_cerebellum_of_adni_is_a_vote_of_blurred_lobules_in_which_vermis_6_is_kept(head, template):
    parts = np.array(template.dataobj)
    i, _, k = np.indices(parts.shape)
    parts[(parts > 0) & (parts < 9200) & (np.abs(i - 32) < 6) & (k > 18)] = 9130
    keep, toss = (slow_blur(np.isin(parts, numbers), 2.0) for numbers in ((9061, 9130), (9041,)))
    found = mask_of("ADNIInferiorCerebellarGM", head, template_regions=image_on(parts, head.affine))
    differing = found ^ (np.isin(np.asarray(head.dataobj), (8, 47)) & (keep > toss))
    assert not (differing & (np.abs(keep - toss) > 1e-4)).any()
    assert found[(parts == 9130) & np.isin(np.asarray(head.dataobj), (8, 47))].any()
    assert not found[(parts == 9041) & (keep < toss - 1e-4)].any()


def test_whole_cerebellum_of_adni_is_every_voxel_of_its_labels_also_where_the_tissue_is_csf(head):
    tissue = np.zeros((*head.shape, 3), np.float32)
    tissue[..., 0] = 1.0
    found = mask_of("ADNIWholeCerebellum", head, tissue=image_on(tissue, head.affine))
    np.testing.assert_array_equal(found, np.isin(np.asarray(head.dataobj), (7, 8, 46, 47)))


def test_the_parts_of_composite_white_matter_count_equally(head):
    mask = reference.find_reference("ADNICompositeWM", head).mask
    labels, parts = np.asarray(head.dataobj), np.asarray(mask.dataobj)
    np.testing.assert_array_equal(parts == 1, labels == 16)
    np.testing.assert_array_equal(parts == 3, np.isin(labels, (7, 8, 46, 47)))
    np.testing.assert_array_equal(parts == 2, mask_of("ADNIErodedWM", head) & ~np.isin(labels, (7, 8, 16, 46, 47)))
    activity = np.choose(parts, (9.0, 1.0, 2.0, 6.0))
    assert mean_of_parts(activity, parts) == pytest.approx(3.0)
    suvr = image_on((activity / 3).astype(np.float32), head.affine)
    table = regional_table(suvr, head, mask, "ADNICompositeWM", {})
    assert table.loc[table["kind"] == "reference", "suvr_mean"].tolist() == pytest.approx([1.0])


def test_a_part_of_composite_white_matter_outside_the_field_of_view_is_an_error(head):
    parts = np.asarray(reference.find_reference("ADNICompositeWM", head).mask.dataobj)
    labels = np.asarray(head.dataobj)
    activity = np.where(labels == 16, np.nan, 1.0)
    assert np.isfinite(activity[parts > 0]).mean() > 0.9
    with pytest.raises(ReferenceRegionError, match="measured 0% of one of the parts of reference region C"):
        reference_check.check_reference(activity, parts, labels > 0, "C")


def test_the_brainstem_of_adni_is_the_whole_label(head):
    np.testing.assert_array_equal(mask_of("ADNIBrainstem", head), np.asarray(head.dataobj) == 16)


@pytest.mark.parametrize("name", ADNI)
def test_a_region_of_adni_has_no_guard_and_says_its_rule(name, head, template):
    found = reference.find_reference(name, head, template)
    assert not found.relaxed
    assert "ADNI's rule" in found.description
    assert "at most" not in found.description


# What cannot be


@pytest.mark.parametrize("name", [*reference.REGIONS, "8+47", "1234"])
def test_a_head_without_the_labels_is_an_error_that_names_region_and_labels(name, head):
    nothing = image_on(np.zeros(head.shape, dtype=np.int16), head.affine)
    label = str(reference.definition(name).labels[0])
    with pytest.raises(ReferenceRegionError, match=f"{reference.parse_reference(name)} is empty.*{label}"):
        reference.find_reference(name, nothing)


def test_a_region_of_a_few_voxels_is_an_error_with_found_and_expected_volume(head):
    labels = np.zeros(head.shape, dtype=np.int16)
    labels[10:15, 10:15, 10:15] = 8
    with pytest.raises(ReferenceRegionError, match=r"has 1\.00 cm³; at least 5 cm³"):
        reference.find_reference("CerebellarGM", image_on(labels, head.affine))


def test_images_on_another_grid_are_refused(head, template):
    moved = image_on(np.asarray(template.dataobj), np.diag([3.0, 2, 2, 1]))
    with pytest.raises(GridMismatchError, match="template_regions"):
        reference.find_reference("Pons", head, moved)


# Activity


@pytest.fixture
def scan(head):
    labels = np.asarray(head.dataobj)
    rng = np.random.default_rng(0)
    activity = np.where(labels > 0, 5000.0, 0.0) * rng.normal(1, 0.1, labels.shape)
    return activity, mask_of("CerebellarGM", head), labels > 0


def test_a_plausible_activity_has_nothing_to_report(scan):
    assert reference_check.check_reference(*scan, "CerebellarGM") == ()


@settings(deadline=None)
@given(st.floats(min_value=1e-6, max_value=1e6))
def test_the_unit_of_activity_does_not_matter(factor):
    reference_mask = np.zeros((6, 6, 6), dtype=bool)
    reference_mask[2:4] = True
    activity = np.random.default_rng(1).normal(1, 0.1, (6, 6, 6)) * factor
    assert reference_check.check_reference(activity, reference_mask, np.ones((6, 6, 6), bool), "x") == ()


@pytest.mark.parametrize(
    ("factor", "message"),
    [(0.0, "measured 0% of"), (-1.0, "above 0"), (0.2, "0.20|0.2. times"), (9.0, "times the brain's")],
)
def test_an_impossible_activity_is_an_error(scan, factor, message):
    activity, region, brain = scan
    activity[region] *= factor
    with pytest.raises(ReferenceRegionError, match=message):
        reference_check.check_reference(activity, region, brain, "CerebellarGM")


def test_a_region_outside_the_field_of_view_is_an_error_and_partly_outside_a_sentence(scan):
    activity, region, brain = scan
    voxels = np.argwhere(region)
    for at in voxels[: len(voxels) // 10]:
        activity[tuple(at)] = np.nan
    (sentence,) = reference_check.check_reference(activity, region, brain, "CerebellarGM")
    assert sentence.startswith("10 % of reference region CerebellarGM has no PET activity")
    activity[region] = np.nan
    with pytest.raises(ReferenceRegionError, match="field of view"):
        reference_check.check_reference(activity, region, brain, "CerebellarGM")


def test_the_measured_part_keeps_the_mean_of_a_region_that_the_field_of_view_cuts(scan):
    activity, region, _ = scan
    activity[region] = 3000.0
    activity[:, :, :12] = 0
    activity[:, 9] = np.nan
    part = reference_check.measured_part(activity, region)
    assert 0 < part.sum() < region.sum()
    assert activity[part].mean() == 3000
    assert not (part & ~region).any()


def test_a_scattered_activity_is_flagged(scan):
    activity, region, brain = scan
    activity[region] *= np.random.default_rng(2).choice([0.4, 1.6], region.sum())
    (sentence,) = reference_check.check_reference(activity, region, brain, "CerebellarGM")
    assert "coefficient of variation" in sentence


def test_an_empty_mask_is_an_error(scan):
    activity, region, brain = scan
    with pytest.raises(ReferenceRegionError, match="CerebellarGM is empty"):
        reference_check.check_reference(activity, np.zeros_like(region), brain, "CerebellarGM")


# Simulated scans with known truth


@cache
def true_scan(participant):
    """Label image around the cerebellum, mean PET of all frames on its grid by the true transforms, true reference."""
    scans = json.loads((DATASET / "truth" / "scans.json").read_text())
    scan = next(scan for scan in scans if scan["participant"] == participant)
    whole = load_volume(DATASET / "truth" / f"{participant}_labels.nii.gz")
    where = np.argwhere(np.isin(np.asarray(whole.dataobj), (8, 47)))
    labels = whole.slicer[tuple(slice(max(0, a - 12), b + 13) for a, b in zip(where.min(0), where.max(0), strict=True))]
    pet = load_volume(next((DATASET / participant / "pet").glob("*_pet.nii.gz")), ndim=4)
    data, frames = np.asarray(pet.dataobj, dtype=np.float32), []
    for number, pet_to_t1w in enumerate(scan["frames"]):
        matrix = np.linalg.inv(pet.affine) @ np.linalg.inv(pet_to_t1w) @ labels.affine
        frame = data[..., number]
        frames.append(
            ndimage.affine_transform(frame, matrix[:3, :3], matrix[:3, 3], output_shape=labels.shape, order=1)
        )
    return labels, np.mean(frames, axis=0), scan["ref_bqml"]


@needs_dataset
@pytest.mark.parametrize("participant", ["sub-01", "sub-02", "sub-03"])
@pytest.mark.parametrize(("change", "bar"), [("none", 0.015), ("up", 0.03), ("down", 0.03), ("forward", 0.03)])
def test_the_mean_of_a_simulated_scan_is_the_true_one_even_with_labels_a_voxel_off(participant, change, bar):
    labels, activity, true_reference = true_scan(participant)
    axis, shift = {"none": (0, 0), "up": (2, 1), "down": (2, -1), "forward": (1, 1)}[change]
    moved = image_on(np.roll(np.asarray(labels.dataobj), shift, axis=axis), labels.affine)
    found = reference.find_reference("CerebellarGM", moved)
    mean = activity[np.asarray(found.mask.dataobj) > 0].mean()
    assert mean == pytest.approx(true_reference, rel=bar)


def test_a_label_that_nobody_has_is_not_left_out_of_a_region_without_a_word():
    head = block_head(4.0)
    assert reference.find_reference("8+47", head).volume_mm3 > 0
    with pytest.raises(ReferenceRegionError, match="no voxel has label 74 of reference region"):
        reference.find_reference("8+74", head)
