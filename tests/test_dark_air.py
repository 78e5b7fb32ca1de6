"""T1w images whose air is negative."""

from __future__ import annotations

import numpy as np
import pytest

from tau_pipeline.imaging.foreground import with_dark_air
from tau_pipeline.imaging.volume import Volume, image_on

R = np.sqrt(sum((axis - 19.5) ** 2 for axis in np.indices((40, 40, 40))))


def head(seed: int = 0) -> np.ndarray:
    """Return a ball with fluid, gray and white matter, blurred at its surface, with noise."""
    signal = np.interp(R, [8, 9, 13, 14, 16, 17], [900.0, 600, 600, 200, 200, 0])
    return (signal + np.random.default_rng(seed).normal(0, 5, R.shape) * (R < 17)).astype(np.float32)


def image(data: np.ndarray) -> Volume:
    return image_on(data, np.eye(4))


@pytest.mark.parametrize("level", [-1.0e3, -500.0, -100.0])
def test_air_filled_with_a_negative_value_becomes_zero(level: float) -> None:
    data = head()
    found, note = with_dark_air(image(np.where(R > 17, level, data).astype(np.float32)))
    np.testing.assert_allclose(np.asanyarray(found.dataobj), np.where(R > 17, 0, np.maximum(data, 0)), atol=1e-4)
    assert f"near {level:.4g}" in note
    assert "set to 0" in note


@pytest.mark.parametrize("shift", [-1024.0, -500.0, -300.0])
def test_an_image_that_was_shifted_is_shifted_back(shift: float) -> None:
    noisy = head() + np.random.default_rng(1).normal(0, 4, R.shape).astype(np.float32) * (R >= 17)
    found, note = with_dark_air(image(noisy + np.float32(shift)))
    np.testing.assert_allclose(np.asanyarray(found.dataobj), np.maximum(noisy, 0), atol=6)
    assert "was added" in note


def test_ringing_of_interpolation_and_single_voxels_stay() -> None:
    ringing = head() + np.where(R > 17, np.random.default_rng(2).normal(0, 10, R.shape), 0).astype(np.float32)
    spots = head()
    spots[::13, ::13, ::13] = -500
    for data in (head(), ringing, spots):
        img = image(data)
        assert with_dark_air(img) == (img, "")
