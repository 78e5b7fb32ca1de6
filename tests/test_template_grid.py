"""Common grid in the space of the template: the affine of label centers, and heads of any pose on one grid."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from tau_pipeline.atlas import atlas_files
from tau_pipeline.errors import ImageError, MissingInputError, SettingError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.placement import place, to_grid
from tau_pipeline.synthesis.data.template_space import to_template

GRID = Grid((40, 48, 40), (5.0, 5.0, 5.0), "template")
#: Poses and sizes of heads: matrix and shift from the template's world to that of the head.
HEADS = {
    "as it is": np.eye(4),
    "turned": from_matvec(Rotation.from_euler("xyz", [20, -15, 30], degrees=True).as_matrix(), [30, -500, 80]),
    "smaller and sheared": from_matvec(np.diag([0.85, 0.9, 0.95]) + 0.03 * np.eye(3, k=1), [0, 12, -9]),
}


@pytest.fixture(scope="module")
def template() -> tuple[Volume, Volume]:
    """Every second voxel of the template's labels and brain."""
    found = []
    for path in (atlas_files().desikan_killiany, atlas_files().template_brain):
        img = load_volume(path, ndim=3)
        found.append(Volume(np.asanyarray(img.dataobj)[::2, ::2, ::2], img.affine @ np.diag([2.0, 2.0, 2.0, 1.0])))
    return found[0], found[1]


@pytest.mark.parametrize("case", HEADS)
def test_the_affine_of_a_head_that_is_the_template_moved_is_found(case: str, template: tuple[Volume, Volume]) -> None:
    labels, _ = template
    moved = Volume(np.asanyarray(labels.dataobj), HEADS[case] @ labels.affine)
    found = to_template(moved) @ HEADS[case]
    # The centers of every second voxel are not quite those of all.
    assert found == pytest.approx(to_template(labels), abs=1e-6)
    assert found[:3, :3] == pytest.approx(np.eye(3), abs=0.01)
    assert np.abs(found[:3, 3]).max() < 1.0


def test_heads_in_any_pose_and_size_are_the_same_on_the_grid_of_the_template(template: tuple[Volume, Volume]) -> None:
    labels, brain = template
    on_grid, own = [], []
    for move in HEADS.values():
        dseg, t1w = (
            Volume(np.asanyarray(img.dataobj).astype(np.float32), move @ img.affine) for img in (labels, brain)
        )
        mask = Volume((np.asanyarray(t1w.dataobj) > 0).astype(np.uint8), t1w.affine)
        on_grid.append(to_grid(t1w, place(mask, GRID, dseg_img=dseg)))
        own.append(to_grid(t1w, place(mask, Grid(GRID.shape, GRID.voxel_mm))))
    inside = on_grid[0] > 0
    for other, unaligned in zip(on_grid[1:], own[1:], strict=True):
        scale = on_grid[0][inside].mean()
        assert np.abs(other - on_grid[0])[inside].mean() < 0.01 * scale
        assert np.abs(unaligned - own[0])[inside].mean() > 0.1 * scale


def test_what_is_missing_is_said(template: tuple[Volume, Volume]) -> None:
    labels, brain = template
    mask = Volume((np.asanyarray(brain.dataobj) > 0).astype(np.uint8), brain.affine)
    with pytest.raises(MissingInputError, match="the labels of sub-07 were not given"):
        place(mask, GRID, "sub-07")
    values = np.asanyarray(labels.dataobj)
    few = Volume(np.where(values == 1006, values, 0), labels.affine)
    with pytest.raises(ImageError, match=r"the labels of sub-07 have 1 of the template's .* grid_space own needs none"):
        place(mask, GRID, "sub-07", dseg_img=few)
    with pytest.raises(SettingError, match="'mni' is not the space of a grid; expected: own or template"):
        Grid((8, 8, 8), (1, 1, 1), "mni")  # type: ignore[arg-type]


def test_a_grid_of_an_earlier_model_is_in_the_space_of_the_head() -> None:
    assert Grid.from_dict({"shape": [8, 8, 8], "voxel_mm": [2, 2, 2]}) == Grid((8, 8, 8), (2, 2, 2))
    assert Grid.from_dict(GRID.as_dict()) == GRID
