"""Figures of a training: learning curves, and slices of what the network makes of held-out heads.

Arrays in, matplotlib Figure out, without pyplot; knows no torch. Arrays are on the model's grid, axes right, anterior,
superior, so that left of the picture is left of the head (neurological view).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

#: Perceptually uniform, as in the other figures of SUVR.
UPTAKE_MAP = "inferno"
#: Background of the epochs of each plane: light tints that colour-blind readers can tell apart.
PLANE_TINTS = {"axial": "#dce9f5", "coronal": "#fdf0d5", "sagittal": "#e3f1e0"}
ROWS = ("T1w", "measured", "synthetic")
DPI = 110


@dataclass(frozen=True)
class Sample:
    """One held-out scan; arrays ``(I, J, K)`` on one grid, SUVR where not T1w.

    ``title`` says whose, and how well they agree.
    """

    t1w: NDArray
    measured: NDArray
    synthetic: NDArray
    title: str


def learning_curves_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses, agreement with the validation split, and the learning rate, by epoch.

    The background shows the plane of the perceptual term; losses of different planes cannot be compared.

    Parameters
    ----------
    rows
        Rows of the training log (``log.tsv``), in order.

    Raises
    ------
    ImageError
        There is no row.
    """
    from matplotlib.figure import Figure

    if not rows:
        raise ImageError("the log has no epoch yet, so there is nothing to draw")
    panels = {
        "loss": ["train_loss", "validation_loss"],
        "parts of the training loss": [name for name in rows[0] if _is_part(name)],
        "SSIM": ["validation_ssim"],
        "PSNR (dB)": ["validation_psnr"],
        "error (SUVR)": ["validation_mae", "validation_regional_error"],
        "learning rate": ["learning_rate"],
    }
    figure = Figure(figsize=(13, 7), dpi=DPI, layout="constrained")
    epochs = np.array([float(row["epoch"]) for row in rows])
    for axes, (title, names) in zip(figure.subplots(2, 3).flat, panels.items(), strict=True):
        _tint_planes(axes, rows, epochs)
        for name in names:
            values = np.array([_number(row.get(name)) for row in rows])
            if np.isfinite(values).any():
                label = name.removeprefix("train_").removeprefix("validation_") if len(names) > 2 else name
                axes.plot(epochs, values, label=label.replace("_", " "), linewidth=1.4)
        axes.set(title=title, xlabel="epoch")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small", frameon=False)
    planes = ", ".join(f"{plane}: {colour}" for plane, colour in _tints_in_words(rows).items())
    figure.suptitle(f"Learning curves{f' (background: plane of the loss; {planes})' if planes else ''}")
    return figure


def _is_part(name: str) -> bool:
    return name.startswith("train_") and name != "train_loss"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _tint_planes(axes: Axes, rows: Sequence[Mapping[str, Any]], epochs: NDArray) -> None:
    """Colour the background by plane, one stretch of epochs at a time."""
    planes = [row.get("plane") for row in rows]
    starts = [i for i, plane in enumerate(planes) if i == 0 or plane != planes[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(planes)], strict=True):
        tint = PLANE_TINTS.get(str(planes[start]))
        if tint:
            axes.axvspan(epochs[start] - 0.5, epochs[end - 1] + 0.5, color=tint, linewidth=0)


def _tints_in_words(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    words = {"axial": "blue", "coronal": "yellow", "sagittal": "green"}
    return {plane: words[plane] for plane in words if any(row.get("plane") == plane for row in rows)}


def samples_figure(samples: Sequence[Sample]) -> Figure:
    """T1w, measured and synthetic SUVR of held-out scans: axial, coronal and sagittal slices through the middle.

    Measured and synthetic share one scale of colours, from 0 to the 99.5th percentile of what was measured.

    Parameters
    ----------
    samples
        One to four scans, side by side.

    Raises
    ------
    ImageError
        There is no scan, or the arrays of one differ in shape.
    """
    from matplotlib.figure import Figure

    if not samples:
        raise ImageError("there is no scan to draw")
    for sample in samples:
        if not sample.t1w.shape == sample.measured.shape == sample.synthetic.shape:
            raise ImageError(f"T1w, measured and synthetic of {sample.title} differ in shape; one grid is needed")
    top = float(np.percentile(np.concatenate([s.measured[s.measured > 0] for s in samples] or [np.ones(1)]), 99.5))
    figure = Figure(figsize=(5.2 * len(samples), 5.6), dpi=DPI, layout="constrained")
    for sample, part in zip(samples, figure.subfigures(1, len(samples), squeeze=False)[0], strict=True):
        part.suptitle(sample.title, fontsize="medium")
        _draw_sample(part, sample, top)
    figure.suptitle("Held-out scans. Left is left of the head (neurological). The lower row is synthetic.")
    return figure


def _draw_sample(part: SubFigure, sample: Sample, top: float) -> None:
    """Three rows of three slices, and the scale of the two rows that show SUVR."""
    grid = part.subplots(3, 3)
    for row, (name, array) in enumerate(zip(ROWS, (sample.t1w, sample.measured, sample.synthetic), strict=True)):
        colours: dict[str, Any] = {"cmap": UPTAKE_MAP, "vmin": 0.0, "vmax": top} if row else {"cmap": "gray"}
        for axes, picture in zip(grid[row], _middle_slices(array), strict=True):
            image = axes.imshow(picture, origin="lower", **colours)
            axes.set(xticks=[], yticks=[])
            for side in axes.spines.values():
                side.set_visible(False)
        grid[row][0].set_ylabel(name, fontsize="large")
    part.colorbar(image, ax=list(grid[1:].flat), label="SUVR", shrink=0.9)


def _middle_slices(array: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Axial, coronal and sagittal slice through the middle, rows upwards."""
    i, j, k = (side // 2 for side in array.shape)
    return array[:, :, k].T, array[:, j, :].T, array[i, :, :].T
