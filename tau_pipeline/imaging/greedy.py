"""Rigid, affine and deformable registration by greedy, in a frame that does not depend on the world's origin.

greedy (Yushkevich et al. 2016, Alzheimers Dement. 12:P126) is the registration tool of ITK-SNAP. An optimizer turns and
scales about the origin of the coordinates that it is given. Here that origin is a point in the brain, so that a scan
whose world begins 400 mm away is registered as well as any other.

Random steps of greedy are off: it neither jitters the points that it samples nor adds noise to the images. A linear
registration runs on one thread. Equal calls then give equal results, to the last bit.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import RegistrationError, memory_shortage
from tau_pipeline.imaging.foreground import center_of
from tau_pipeline.imaging.plain_paths import plain_folder
from tau_pipeline.imaging.volume import RAS_LPS, Affine, Volume

if TYPE_CHECKING:
    import SimpleITK

#: Options of every call; see the module's docstring.
_REPEATABLE = "-jitter 0 -noise 0 -V 0"
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Schedule:
    """Metric, iterations, and smoothing of a registration by greedy.

    Attributes
    ----------
    metric
        Of greedy: ``NMI``, ``MI``, ``NCC 2x2x2``, ``SSD``.
    iterations
        At each level of the pyramid; the last one is at full resolution, each before at half of the next. The first
        may not be 0.
    smoothing
        Of the deformable registration: width of the Gaussians that smooth each step and the whole field.
    """

    metric: str
    iterations: Sequence[int]
    smoothing: str = "2vox 0.5vox"

    def __str__(self) -> str:
        return f"-m {self.metric} -n {'x'.join(map(str, self.iterations))}"


def register_linear(
    moving: Volume,
    fixed: Volume,
    mask: Volume,
    start: Affine,
    *,
    degrees_of_freedom: Literal[6, 12],
    schedule: Schedule,
) -> Affine:
    """Return the linear transform that brings ``moving`` onto ``fixed``, moving world to fixed world, RAS+ mm.

    Parameters
    ----------
    moving, fixed
        3-D images without NaN.
    mask
        Where the metric looks, on the grid of ``fixed``; its center of mass is the center of rotation.
    start
        ``(4, 4)``, moving world to fixed world.
    degrees_of_freedom
        6 for a rigid transform, 12 for an affine one.
    schedule
        Metric and iterations.

    Raises
    ------
    RegistrationError
        greedy could not register the images.
    """
    center = np.eye(4)
    center[:3, 3] = -center_of(np.asanyarray(mask.dataobj) > 0, mask.affine)
    begin = center @ start
    engine = _engine()
    _run(
        engine,
        f"-i fixed moving -gm mask -a -dof {degrees_of_freedom} -ia-identity {schedule}"
        f" {_REPEATABLE} -threads 1 -o found",
        fixed=to_sitk(fixed, center),
        moving=to_sitk(moving, begin),
        mask=to_sitk(mask, center),
        found=None,
    )
    # greedy's matrix takes fixed points to moving points
    matrix: Affine = np.linalg.inv(center) @ np.linalg.inv(np.asarray(engine["found"])) @ begin
    if not np.isfinite(matrix).all():
        raise RegistrationError("the registration found no finite transform; look at both images")
    return matrix


def register_deformable(
    moving: Volume,
    fixed: Volume,
    mask: Volume,
    affine: Affine,
    *,
    schedule: Schedule,
    threads: int = 1,
) -> SimpleITK.Image:
    """Return the displacement field of a deformable registration, on the grid of ``fixed``, in LPS+ mm.

    It takes a fixed point to where ``affine`` then finds its partner in ``moving``.

    Parameters
    ----------
    moving, fixed
        3-D images without NaN. The world of ``fixed`` should have its origin in the brain.
    mask
        Where the metric looks, on the grid of ``fixed``.
    affine
        ``(4, 4)``, moving world to fixed world, from `register_linear`.
    schedule
        Metric, iterations, and smoothing.
    threads
        Threads; the result does not depend on them.

    Raises
    ------
    RegistrationError
        greedy could not register the images.
    """
    engine = _engine(single_precision=True)
    with plain_folder() as folder:
        before = folder / "affine.txt"
        np.savetxt(before, np.linalg.inv(affine), fmt="%.17g")
        _run(
            engine,
            f"-i fixed moving -gm mask -it {before} {schedule} -s {schedule.smoothing}"
            f" {_REPEATABLE} -threads {threads} -o warp",
            fixed=to_sitk(fixed),
            moving=to_sitk(moving),
            mask=to_sitk(mask),
            warp=None,
        )
    warp: SimpleITK.Image = engine["warp"]
    return warp


def inverse_of(field: SimpleITK.Image) -> SimpleITK.Image:
    """Return the inverse of a displacement field on the same grid, by fixed points (Chen 2008, Med Phys 35:81).

    greedy's own inverse takes two to four times as long and, rounded to a tenth of a voxel, undoes the field to 0.1 mm
    instead of 0.001 mm. One thread: more of them sum the error, which ends the iteration, in another order.
    """
    import SimpleITK

    inversion = SimpleITK.InvertDisplacementFieldImageFilter()
    inversion.SetMaximumNumberOfIterations(20)
    inversion.SetMaxErrorToleranceThreshold(0.02)
    inversion.SetMeanErrorToleranceThreshold(0.0005)
    inversion.SetEnforceBoundaryCondition(True)
    inversion.SetNumberOfWorkUnits(1)
    inverse = inversion.Execute(SimpleITK.Cast(field, SimpleITK.sitkVectorFloat64))
    return SimpleITK.Cast(inverse, SimpleITK.sitkVectorFloat32)


def to_sitk(img: Volume, frame: Affine | None = None) -> SimpleITK.Image:
    """Return a 3-D image for SimpleITK, float32, its world moved by a rigid ``frame`` first."""
    import SimpleITK

    affine = img.affine if frame is None else frame @ img.affine
    size = np.linalg.norm(affine[:3, :3], axis=0)
    lps = RAS_LPS @ affine
    result = SimpleITK.GetImageFromArray(np.ascontiguousarray(np.asanyarray(img.dataobj).astype(np.float32).T))
    result.SetSpacing(size.tolist())
    result.SetDirection((lps[:3, :3] / size).ravel().tolist())
    result.SetOrigin(lps[:3, 3].tolist())
    return result


def displacements(field: SimpleITK.Image) -> NDArray[np.float32]:
    """Return the vectors of a displacement field, ``(I, J, K, 3)``, in LPS+ mm."""
    import SimpleITK

    vectors: NDArray[np.float32] = np.moveaxis(SimpleITK.GetArrayFromImage(field), (0, 1, 2), (2, 1, 0))
    return vectors


def _engine(*, single_precision: bool = False) -> Any:
    import picsl_greedy

    return picsl_greedy.GreedyFloat3D() if single_precision else picsl_greedy.Greedy3D()


def _run(engine: Any, command: str, **images: Any) -> None:
    text = io.StringIO()
    try:
        with _one_at_a_time, _silent():
            engine.execute(command, out=text, err=text, **images)
    except (RuntimeError, ValueError, MemoryError) as exc:
        if (shortage := memory_shortage(exc)) is not None:
            raise shortage from exc
        raise RegistrationError(f"greedy could not register the images ({exc}); look at both images") from exc


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what the optimizer's C code prints off the terminal; it writes to the process's own file descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
