"""The common grid of the synthesis: one shape, one voxel size and one direction of the axes for all participants.

The common grid is RAS; docs/decisions/synthesis-grid.md gives the reasons. `tau_pipeline.synthesis.data.placement`
brings images onto it and back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import DamagedFileError, SettingError, shown
from tau_pipeline.imaging.volume import Affine
from tau_pipeline.settings.training import GridSpace

#: What the paper's grid covers (160 x 192 x 160 voxels of 1 mm) left-right, posterior-anterior, inferior-superior.
FIELD_MM = (160.0, 192.0, 160.0)


@dataclass(frozen=True)
class Grid:
    """A box of cubic or brick voxels, axes right, anterior, superior, its middle at world 0.

    Parameters
    ----------
    shape
        Voxels along I, J, K.
    voxel_mm
        Edges of a voxel along I, J, K.
    space
        ``own``: heads keep their size and pose. ``template``: an affine aligns them to the template.

    Raises
    ------
    SettingError
        A side or an edge is not above 0, or there is no such space.
    """

    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    space: GridSpace = "own"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "voxel_mm", tuple(float(mm) for mm in self.voxel_mm))
        usable = len(self.shape) == len(self.voxel_mm) == 3 and min(self.shape) > 0
        if not (usable and all(math.isfinite(mm) and mm > 0 for mm in self.voxel_mm)):
            raise SettingError(
                f"a grid of shape {list(self.shape)} and voxels of {list(self.voxel_mm)} mm is not possible; three "
                "sides of 1 voxel or more and three edges above 0 mm are needed"
            )
        if self.space not in get_args(GridSpace):
            raise SettingError(
                f"{self.space!r} is not the space of a grid; expected: {' or '.join(get_args(GridSpace))}"
            )

    @property
    def affine(self) -> Affine:
        """Voxel to world in mm, RAS+; the middle of the box is world 0, not the origin of any scanner."""
        affine = np.diag([*self.voxel_mm, 1.0])
        affine[:3, 3] = -affine[:3, :3] @ self.middle
        return affine

    @property
    def middle(self) -> NDArray[np.float64]:
        """The middle of the box in voxels; between two voxels where a side is even."""
        return (np.array(self.shape) - 1) / 2

    @property
    def size_mm(self) -> NDArray[np.float64]:
        """Edges of the whole box in mm."""
        return np.array(self.shape) * np.array(self.voxel_mm)

    def describe(self) -> str:
        """Return shape, voxels, and space in words."""
        shape, voxel = (" x ".join(f"{side:g}" for side in sides) for sides in (self.shape, self.voxel_mm))
        space = " in the space of the template" if self.space == "template" else ""
        return f"of {shape} voxels of {voxel} mm{space}"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"shape": list(self.shape), "voxel_mm": list(self.voxel_mm), "space": self.space}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Grid:
        """Return the grid of a JSON form: the inverse of `as_dict`.

        Raises
        ------
        DamagedFileError
            ``shape`` or ``voxel_mm`` is missing or is not three numbers.
        """
        try:
            # Models of earlier versions knew no other space.
            return cls(tuple(content["shape"]), tuple(content["voxel_mm"]), content.get("space", "own"))
        except (KeyError, TypeError, ValueError) as exc:
            raise DamagedFileError(
                f"{shown(dict(content))} does not describe a grid; shape and voxel_mm with three numbers each are "
                "needed"
            ) from exc


def common_grid(
    voxel_mm: float | Sequence[float],
    shape: Sequence[int] | None = None,
    side_multiple: int = 16,
    space: GridSpace = "own",
) -> Grid:
    """Return the common grid of a model.

    Parameters
    ----------
    voxel_mm
        Edge of a voxel; one number for cubes.
    shape
        Voxels along I, J, K. None takes the smallest that covers the paper's field, `FIELD_MM`.
    side_multiple
        Each side must divide by it: the network halves the sides again and again
        (`tau_pipeline.synthesis.networks.networks.SIDE_MULTIPLE`).
    space
        As in `Grid`.

    Examples
    --------
    >>> common_grid(1.0).shape, common_grid(2.0).shape, common_grid(2.0, side_multiple=32).shape
    ((160, 192, 160), (80, 96, 80), (96, 96, 96))

    Raises
    ------
    SettingError
        A side of the shape does not divide.
    """
    edges = np.broadcast_to(np.asarray(voxel_mm, dtype=np.float64), (3,))
    sides = covering_sides(FIELD_MM, edges.tolist(), side_multiple) if shape is None else shape
    grid = Grid(tuple(sides), tuple(edges.tolist()), space)  # type: ignore[arg-type]
    require_side_multiple(grid, side_multiple)
    return grid


def covering_sides(
    field_mm: Sequence[float], voxel_mm: Sequence[float], side_multiple: int = 1
) -> tuple[int, int, int]:
    """Return the fewest voxels per side that cover ``field_mm`` and divide by ``side_multiple``.

    Examples
    --------
    >>> covering_sides((150, 180, 141), (1.5, 1.5, 1.5), 16)
    (112, 128, 96)
    """
    # The small number keeps 160 mm / 1.6 mm at 100 voxels whatever the rounding.
    blocks = [math.ceil(mm / edge / side_multiple - 1e-6) for mm, edge in zip(field_mm, voxel_mm, strict=True)]
    first, second, third = (max(n, 1) * side_multiple for n in blocks)
    return first, second, third


def require_side_multiple(grid: Grid, side_multiple: int, what: str = "the network") -> None:
    """Refuse a grid whose sides do not divide by what a network needs.

    Raises
    ------
    SettingError
        With the nearest larger shape that does.
    """
    if any(n % side_multiple for n in grid.shape):
        fitting = covering_sides(grid.shape, (1, 1, 1), side_multiple)
        raise SettingError(
            f"the grid has {times(grid.shape)} voxels, and {what} needs sides that divide by {side_multiple}; "
            f"take {times(fitting)}"
        )


def times(numbers: Sequence[Any]) -> str:
    """Return the sides of a box as text, such as ``80 x 96 x 80``."""
    return " x ".join(f"{n:g}" for n in numbers)
