"""Figures of a training: learning curves, and slices and regional values of what the model makes of held-out heads.

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
from tau_pipeline.figures.sheet import NOTE_COLOR, SIDE_IN, UPTAKE_MAP, Box, Sheet, group_style, in_rows, plain_axes
from tau_pipeline.measures.agreement import pearson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Background of the epochs of each plane: light tints that are distinct for color-blind readers.
PLANE_TINTS = {"axial": "#dce9f5", "coronal": "#fdf0d5", "sagittal": "#e3f1e0"}
_TINTS_IN_WORDS = {"axial": "blue", "coronal": "yellow", "sagittal": "green"}
#: Images of a scan, from left to right, and their captions.
SHOWN = {"t1w": "T1w", "measured": "measured", "synthetic": "synthetic"}
#: Curves with at most this many points show each of them.
_FEW_POINTS = 20
#: Room above the pictures of a scan, and heights of the plots of curves and of regional values, in inches.
HEADING_IN, _CURVES_IN, _REGIONAL_IN = 0.45, 6.8, 4.0


@dataclass(frozen=True)
class Sample:
    """One held-out scan; arrays ``(I, J, K)`` on one grid, SUVR where not T1w.

    ``title`` says whose.
    """

    t1w: NDArray
    measured: NDArray
    synthetic: NDArray
    title: str


def learning_curves_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw losses, agreement with the validation split, and the learning rate, by epoch.

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
    if not rows:
        raise ImageError("the log has no epoch yet, so there is nothing to draw")
    parts = [name for name in rows[0] if name.startswith("train_") and name != "train_loss"]
    training = {
        "loss": ["train_loss", "validation_loss"],
        "parts of the training loss": parts,
        "learning rate": ["learning_rate"],
    }
    measures = {
        "SSIM": "validation_ssim",
        "PSNR (dB)": "validation_psnr",
        "MAE (SUVR)": "validation_mae",
        "regional error": "validation_regional_error",
    }
    drawn = {row.get("plane") for row in rows}
    planes = ", ".join(f"{plane}: {color}" for plane, color in _TINTS_IN_WORDS.items() if plane in drawn)
    sheet = Sheet(_CURVES_IN, "Learning curves", aside=f"background: plane of the loss; {planes}" if planes else "")
    (*above, key), below = sheet.plots(2, 4)
    for axes, (title, names) in zip(above, training.items(), strict=True):
        short = {name: name.removeprefix("train_") if names is parts else name for name in names}
        _draw_curves(axes, title, rows, {name: label.replace("_", " ") for name, label in short.items()})
        if axes.lines:
            axes.legend(fontsize="small", frameon=False)
    predictors: dict[str, Line2D] = {}
    for axes, (title, name) in zip(below, measures.items(), strict=True):
        of = {column: column.partition("_of_")[2].replace("_", " ") for column in _with_baselines(rows, name)}
        _draw_curves(axes, f"{title}, on the model's grid", rows, {**of, name: "model"})
        predictors |= {str(line.get_label()): line for line in axes.lines}
    key.set_axis_off()
    if predictors:
        key.legend(predictors.values(), predictors.keys(), loc="center", frameon=False, title="Predictors, below")
    return sheet.figure


def _draw_curves(axes: Axes, title: str, rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> None:
    """Draw columns of the log by epoch; those of baselines are dashed."""
    epochs = np.array([float(row["epoch"]) for row in rows])
    _tint_planes(axes, rows, epochs)
    for place, (name, label) in enumerate(labels.items()):
        values = np.array([v if isinstance(v := row.get(name), int | float) else np.nan for row in rows], float)
        known = np.isfinite(values)
        if known.any():
            style = {"linestyle": "--", "linewidth": 0.9} if "_of_" in name else {"linewidth": 1.4}
            # Not every epoch is validated, and a single one is no line.
            marker = "o" if known.sum() <= _FEW_POINTS else ""
            axes.plot(epochs[known], values[known], f"C{place}", label=label, marker=marker, markersize=3, **style)
    axes.set(title=title, xlabel="epoch")
    axes.locator_params(axis="x", integer=True)


def _with_baselines(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Return a column of the log, and those of the baselines of the same measure."""
    every = dict.fromkeys(column for row in rows for column in row)
    return [name, *(column for column in every if column.startswith(f"{name}_of_"))]


def _tint_planes(axes: Axes, rows: Sequence[Mapping[str, Any]], epochs: NDArray) -> None:
    """Tint the background by plane, one stretch of epochs at a time."""
    planes = [row.get("plane") for row in rows]
    starts = [i for i, plane in enumerate(planes) if i == 0 or plane != planes[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(planes)], strict=True):
        tint = PLANE_TINTS.get(str(planes[start]))
        if tint:
            axes.axvspan(epochs[start] - 0.5, epochs[end - 1] + 0.5, color=tint, linewidth=0)


def samples_figure(samples: Sequence[Sample]) -> Figure:
    """Draw T1w, measured and synthetic SUVR of held-out scans: axial, coronal and sagittal slices through the middle.

    Measured and synthetic share one color scale, from 0 to the 99.5th percentile of what was measured.

    Parameters
    ----------
    samples
        One to four scans, one row each.

    Raises
    ------
    ImageError
        There is no scan, or the arrays of one differ in shape.
    """
    if not samples:
        raise ImageError("there is no scan to draw")
    for sample in samples:
        if not sample.t1w.shape == sample.measured.shape == sample.synthetic.shape:
            raise ImageError(f"T1w, measured and synthetic of {sample.title} differ in shape; one grid is needed")
    top = float(np.percentile(np.concatenate([s.measured[s.measured > 0] for s in samples] or [np.ones(1)]), 99.5))
    sizes = [[picture.shape[::-1] for name in SHOWN for picture in _middle_slices(s, name)] for s in samples]
    boxes, height = in_rows(sizes, bar=True, above_in=HEADING_IN)
    note = (
        "Axial, coronal, and sagittal slices through the middle, on the model's grid. Left is left of the head "
        "(neurological)."
    )
    sheet = Sheet(height, "Held-out scans: T1w, measured, and synthetic", note=note, bar=True)
    for sample, places in zip(samples, boxes, strict=True):
        sheet.text(SIDE_IN, places[0][1] - HEADING_IN, sample.title, fontsize=11)
        _draw_sample(sheet, places, sample, top)
    sheet.color_bar((0.0, top), "SUVR")
    return sheet.figure


def _draw_sample(sheet: Sheet, places: Sequence[Box], sample: Sample, top: float) -> None:
    """Draw three slices of each image of a scan, side by side."""
    pictures = [(name, picture) for name in SHOWN for picture in _middle_slices(sample, name)]
    for k, ((name, picture), box) in enumerate(zip(pictures, places, strict=True)):
        axes = sheet.axes(box)
        colors: dict[str, Any] = {"cmap": "gray"} if name == "t1w" else {"cmap": UPTAKE_MAP, "vmin": 0.0, "vmax": top}
        axes.imshow(picture, origin="lower", aspect="auto", **colors)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if k % 3 == 0:
            axes.set_title(SHOWN[name], fontsize=9, pad=2.5, loc="left")


def _middle_slices(sample: Sample, name: str) -> tuple[NDArray, NDArray, NDArray]:
    """Return axial, coronal and sagittal slice through the middle of one image of a scan, rows upward."""
    array: NDArray = getattr(sample, name)
    i, j, k = (side // 2 for side in array.shape)
    return array[:, :, k].T, array[:, j, :].T, array[i, :, :].T


def regional_figure(scans: pd.DataFrame, regions: pd.DataFrame, predictors: Sequence[str]) -> Figure:
    """Draw synthetic against measured SUVR of cortical regions, one panel per predictor, and SSIM scan by scan.

    Parameters
    ----------
    scans
        One row per predictor and scan: ``predictor``, ``scan``, ``ssim``.
    regions
        One row per predictor, scan, and region: ``predictor``, ``kind``, ``measured``, ``synthetic``.
    predictors
        The model first, then what it is compared with; the last panel has SSIM of the first and the last of them.

    Raises
    ------
    ImageError
        There is no value to draw.
    """
    cortex = regions[regions["kind"] == "cortical"].dropna(subset=["measured", "synthetic"])
    if cortex.empty:
        raise ImageError("no cortical region of a held-out scan has a value, so there is nothing to draw")
    values = cortex[["measured", "synthetic"]].to_numpy(float)
    ends = (float(values.min()) - 0.05, float(values.max()) + 0.05)
    note = (
        "Points: one cortical region of one scan, and r over all of them; right: one scan. On the grid of the T1w. "
        "Gray line: equality."
    )
    sheet = Sheet(_REGIONAL_IN, "Held-out scans: regional SUVR and SSIM", note=note)
    panels = sheet.plots(1, len(predictors) + 1)[0]
    for number, (axes, name) in enumerate(zip(panels, predictors, strict=False)):
        own = cortex[cortex["predictor"] == name]
        style: dict[str, Any] = {"s": 5, "alpha": 0.4, "linewidths": 0, "color": group_style(number)["color"]}
        axes.scatter(own["measured"], own["synthetic"], **style)
        r = float(pearson(own["synthetic"].to_numpy(float), own["measured"].to_numpy(float)))
        axes.set(xlim=ends, ylim=ends, xlabel="measured SUVR", ylabel="synthetic SUVR", title=f"{name}: r = {r:.2f}")
        _equality(axes, ends)
    by_scan = scans.pivot_table(index="scan", columns="predictor", values="ssim")
    axes, (first, last) = panels[-1], (predictors[0], predictors[-1])
    axes.scatter(by_scan[last], by_scan[first], s=16, alpha=0.7, linewidths=0, color=group_style(0)["color"])
    both = by_scan[[first, last]].to_numpy(float)
    ends = (float(np.nanmin(both)) - 0.01, float(np.nanmax(both)) + 0.01)
    better = int((by_scan[first] > by_scan[last]).sum())
    title = f"SSIM: {first} better\nin {better} of {len(by_scan)} scans"
    axes.set(xlim=ends, ylim=ends, xlabel=last, ylabel=first, title=title)
    _equality(axes, ends)
    return sheet.figure


def _equality(axes: Axes, ends: tuple[float, float]) -> None:
    """Draw the line on which both are equal, on square axes."""
    axes.plot(ends, ends, color=NOTE_COLOR, linewidth=0.9, zorder=0)
    axes.set_aspect("equal")
    axes.title.set_fontsize(10.5)
    plain_axes(axes)
