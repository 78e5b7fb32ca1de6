import json

import numpy as np
import pytest
import torch
from monai.networks.layers import GaussianFilter

from tau_pipeline.synthesis.data.augment import (
    AXES,
    apply_augmentation,
    displacement,
    draw_augmentation,
)

SHAPE = (1, 20, 24, 16)
NOTHING = {"elastic": None, "affine": None, "flip": [], "noise": None}
ELASTIC = {"seed": 3, "sigma": 4.0, "magnitude": 90.0}
AFFINE = {"rotation_deg": [9.0, -12.0, 5.0], "scale": [1.08, 0.93, 1.02]}
MOVED = {**NOTHING, "elastic": ELASTIC, "affine": AFFINE, "flip": ["left-right"]}


def draw(seed, augmentation="paper"):
    return draw_augmentation(np.random.default_rng(seed), augmentation)


def images(background=0.0):
    """T1w, PET, a brain in the middle, labels; T1w and PET are the background outside."""
    rng = np.random.default_rng(0)
    x, y, z = (np.linspace(-1, 1, n) for n in SHAPE[1:])
    mask = torch.from_numpy(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 < 0.6)[None]
    t1w, pet = (torch.from_numpy(rng.normal(size=SHAPE).astype(np.float32)) for _ in range(2))
    labels = torch.where(mask, torch.from_numpy(rng.integers(1000, 2036, SHAPE)), 0).to(torch.int32)
    return t1w.masked_fill(~mask, -1), pet.masked_fill(~mask, background), mask, labels


# --- draw ---


def test_the_same_random_state_draws_the_same_and_json_keeps_it():
    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert json.loads(json.dumps(draw(5))) == draw(5)


def test_by_default_each_part_is_drawn_as_often_and_as_large_as_in_the_paper():
    many = [draw(seed) for seed in range(600)]
    for part in ("elastic", "affine", "flip"):
        # 600 throws of a coin: 300, give or take five standard deviations of 12.
        assert abs(sum(bool(drawn[part]) for drawn in many) - 300) < 61
    assert {tuple(drawn["flip"]) for drawn in many} == {(), AXES}
    elastic = [drawn["elastic"] for drawn in many if drawn["elastic"]]
    affine = [drawn["affine"] for drawn in many if drawn["affine"]]
    for values, low, high in (
        ([each["sigma"] for each in elastic], 4, 7),
        ([each["magnitude"] for each in elastic], 50, 100),
        ([angle for each in affine for angle in each["rotation_deg"]], -15, 15),
        ([scale for each in affine for scale in each["scale"]], 0.9, 1.1),
        ([drawn["noise"]["sd"] for drawn in many], 0, 0.1),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high


def test_the_parts_are_drawn_independently():
    many = [draw(seed) for seed in range(600)]
    # A quarter of 600, give or take five standard deviations.
    for a, b in (("elastic", "affine"), ("affine", "flip"), ("elastic", "flip")):
        assert abs(sum(bool(drawn[a]) and bool(drawn[b]) for drawn in many) - 150) < 54


def test_upright_draws_the_same_but_flips_left_and_right_only():
    for seed in range(50):
        paper, upright = draw(seed), draw(seed, "upright")
        assert upright == {**paper, "flip": ["left-right"] if paper["flip"] else []}


def test_off_draws_nothing():
    assert draw(0, "off") is None


# --- apply ---


def test_nothing_drawn_changes_nothing():
    given = images()
    for before, after in zip(given, apply_augmentation(NOTHING, *given), strict=True):
        assert torch.equal(before, after)


def test_a_deformation_by_nothing_changes_nothing():
    given = images()
    still = {
        **NOTHING,
        "elastic": {**ELASTIC, "magnitude": 0.0},
        "affine": {"rotation_deg": [0, 0, 0], "scale": [1, 1, 1]},
    }
    t1w, pet, mask, labels = apply_augmentation(still, *given)
    torch.testing.assert_close(t1w, given[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(pet, given[1], atol=1e-4, rtol=0)
    assert torch.equal(mask, given[2])
    assert torch.equal(labels, given[3])


@pytest.mark.parametrize("axes", [AXES, ("left-right",), ("inferior-superior",)])
def test_a_flip_turns_all_images_about_the_same_axes(axes):
    given = images()
    dims = [1 + AXES.index(axis) for axis in axes]
    for before, after in zip(given, apply_augmentation({**NOTHING, "flip": list(axes)}, *given), strict=True):
        assert torch.equal(torch.flip(before, dims), after)


def test_a_quarter_turn_swaps_two_axes_exactly():
    cube = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 9, 9, 9)).astype(np.float32))
    everywhere = torch.ones((1, 9, 9, 9), dtype=torch.bool)
    turn = {**NOTHING, "affine": {"rotation_deg": [0, 0, 90], "scale": [1, 1, 1]}}
    turned = apply_augmentation(turn, cube, cube, everywhere)[1]
    # The outermost voxels may fall outside by rounding.
    inner = (slice(None), *[slice(1, -1)] * 3)
    expected = [torch.rot90(cube, times, (1, 2))[inner] for times in (1, -1)]
    assert any(torch.allclose(turned[inner], each, atol=1e-4) for each in expected)


def test_a_scale_of_two_takes_values_from_twice_as_far_from_the_middle():
    line = torch.arange(9, dtype=torch.float32)[None, :, None, None].expand(1, 9, 9, 9).contiguous()
    everywhere = torch.ones((1, 9, 9, 9), dtype=torch.bool)
    scaled = apply_augmentation(
        {**NOTHING, "affine": {"rotation_deg": [0, 0, 0], "scale": [2, 2, 2]}}, line, line, everywhere
    )[1]
    torch.testing.assert_close(scaled[0, 3:6, 4, 4], torch.tensor([2.0, 4.0, 6.0]), atol=1e-4, rtol=0)


def test_t1w_and_pet_have_the_same_geometry():
    t1w, _, mask, _ = images()
    pet = t1w + 5
    moved_t1w, moved_pet, moved_mask, _ = apply_augmentation(MOVED, t1w, pet, mask, None, None, (-1.0, 4.0))
    torch.testing.assert_close(moved_t1w + 5, moved_pet, atol=1e-4, rtol=0)
    assert not torch.equal(moved_mask, mask)


def test_mask_and_labels_have_the_geometry_of_the_images():
    along = torch.arange(SHAPE[1], dtype=torch.float32)[None, :, None, None].expand(SHAPE).contiguous()
    mask = images()[2]
    moved_t1w, _, moved_mask, moved_labels = apply_augmentation(
        MOVED, along, along, mask, torch.where(mask, along.int(), 0), torch.ones_like(mask)
    )
    # Labels are voxel numbers along I: the nearest lies within half a voxel of the interpolated place.
    off = (moved_t1w - moved_labels)[moved_mask]
    assert off.numel() > 500
    assert off.abs().max() <= 0.5 + 1e-3


def test_mask_and_labels_of_it_stay_together():
    _, pet, mask, _ = images()
    _, _, moved_mask, moved_labels = apply_augmentation(MOVED, pet, pet, mask, mask.int() * 2035)
    assert torch.equal(moved_labels, moved_mask.int() * 2035)
    assert moved_labels.dtype == torch.int32


def test_no_label_appears_that_was_not_there():
    given = images()
    moved = apply_augmentation(MOVED, *given)[3]
    assert set(moved.unique().tolist()) <= set(given[3].unique().tolist())


@pytest.mark.parametrize("background", [0.0, -1.0, 3.5])
def test_the_background_holds_exactly_outside_the_moved_mask(background):
    given = images(background)
    drawn = {**MOVED, "noise": {"seed": 1, "sd": 0.1}}
    t1w, pet, mask, _ = apply_augmentation(drawn, *given, None, (-1.0, background))
    assert (t1w[~mask] == -1).all()
    assert (pet[~mask] == background).all()
    assert mask.any()


def test_the_papers_code_adds_noise_everywhere_and_mirrors_the_image_at_the_border():
    assert draw(5, "paper-strict") == {**draw(5), "background": "mirrored"}
    # Twice as large a step from voxel to voxel: the outer half of the grid lies beyond the border.
    wide = {**NOTHING, "affine": {"rotation_deg": [0.0, 0.0, 0.0], "scale": [2.0, 1.0, 1.0]}, "background": "mirrored"}
    given = torch.arange(20.0).reshape(1, 20, 1, 1).expand(SHAPE).contiguous()
    mask = torch.ones(SHAPE, dtype=torch.bool)
    t1w, pet, _, _ = apply_augmentation(wide, given, given, mask)
    line = 2 * (np.arange(20) - 9.5) + 9.5
    # Mirrored at the outer faces of the first and the last voxel, whose own values reach to these faces.
    folded = np.where(line < -0.5, -1 - line, np.where(line > 19.5, 39 - line, line)).clip(0, 19)
    np.testing.assert_allclose(pet[0, :, 3, 3], folded, atol=1e-4)
    np.testing.assert_allclose(t1w[0, :, 3, 3], folded, atol=1e-4)
    t1w, pet, mask, _ = images()
    noisy, same, _, _ = apply_augmentation(
        {**NOTHING, "noise": {"seed": 1, "sd": 0.1}, "background": "mirrored"}, t1w, pet, mask
    )
    assert (noisy - t1w)[~mask].std().item() == pytest.approx(0.1, rel=0.1)
    assert torch.equal(same, pet)


def test_the_brain_can_be_larger_than_the_mask():
    t1w, pet, mask, _ = images()
    part = mask.clone()
    part[..., 8:] = False
    moved_t1w, moved_pet, moved_part, _ = apply_augmentation(MOVED, t1w, pet, part, None, mask)
    whole_t1w, _, moved_brain, _ = apply_augmentation(MOVED, t1w, pet, mask)
    assert torch.equal(moved_t1w, whole_t1w)
    assert (moved_pet[~moved_part] == 0).all()
    assert (moved_part & ~moved_brain).sum() == 0
    assert moved_part.sum() < moved_brain.sum()


def test_noise_is_on_the_t1w_in_the_brain_only_and_as_large_as_drawn():
    zeros = torch.zeros((1, 30, 30, 30))
    mask = torch.zeros((1, 30, 30, 30), dtype=torch.bool)
    mask[:, 5:25, 5:25, 5:25] = True
    t1w, pet, _, _ = apply_augmentation({**NOTHING, "noise": {"seed": 1, "sd": 0.08}}, zeros, zeros, mask)
    assert torch.equal(pet, zeros)
    assert (t1w[~mask] == -1).all()
    # 8000 values: their SD is that of the population within five standard errors of 0.8 %.
    assert t1w[mask].std().item() == pytest.approx(0.08, rel=0.04)
    assert abs(t1w[mask].mean().item()) < 5 * 0.08 / np.sqrt(8000)


def test_applying_the_same_draw_twice_gives_the_same_bits_and_leaves_the_inputs():
    given = images()
    before = [image.clone() for image in given]
    drawn = {**MOVED, "noise": {"seed": 1, "sd": 0.1}}
    first, second = apply_augmentation(drawn, *given), apply_augmentation(drawn, *given)
    for a, b, image, kept in zip(first, second, given, before, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(image, kept)
        assert (a.dtype, a.shape, type(a)) == (image.dtype, image.shape, torch.Tensor)


def test_the_elastic_field_is_that_of_monais_filter():
    field = displacement(ELASTIC, (21, 18, 25))
    white = np.random.default_rng(ELASTIC["seed"]).uniform(-1, 1, (3, 21, 18, 25)).astype(np.float32)
    other = GaussianFilter(3, ELASTIC["sigma"], truncated=3.0)(torch.from_numpy(white)[None])[0] * ELASTIC["magnitude"]
    # MONAI integrates the Gaussian over voxels, scipy samples it.
    assert (field - other).abs().max() < 0.05 * field.abs().max()


def test_the_elastic_field_is_smooth_and_moves_by_about_a_voxel():
    field = displacement({"seed": 0, "sigma": 5.5, "magnitude": 75.0}, (48, 48, 48))[:, 12:-12, 12:-12, 12:-12]
    # White noise of variance 1/3 through a Gaussian of SD sigma: variance / (2 sqrt(pi) sigma)^3.
    expected = 75 * np.sqrt(1 / 3 / (2 * np.sqrt(np.pi) * 5.5) ** 3)
    assert field.std().item() == pytest.approx(expected, rel=0.3)
    assert field.diff(dim=1).abs().max() < 0.5
