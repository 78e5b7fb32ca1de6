"""Figures of a comparison of systems, losses and scalings: tables and images in, a matplotlib Figure out.

As in the paper: scores, T1w beside measured and synthetic SUVR with the error, percentiles of cortical SUVR by
manufacturer and diagnosis, and regional SUVR on the average cortex.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.figures.cortex import VIEW_SIZE, VIEWS, draw_views, name_views
from tau_pipeline.figures.planes import View, sample, spread_views, world_box
from tau_pipeline.figures.sheet import (
    CAPTION_IN,
    DIFFERENCE_MAP,
    NOTE_COLOR,
    Box,
    Sheet,
    group_handle,
    group_style,
    in_rows,
    line_handle,
    plain_axes,
    strip,
)
from tau_pipeline.figures.slices import NO_VALUE, gray_window, show_gray, show_uptake, size_of
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid
from tau_pipeline.measures.agreement import pearson
from tau_pipeline.measures.quality import PERCENTILES
from tau_pipeline.synthesis.comparison.runs import DIAGNOSIS_MEAN, NO_LOSS, REGIONAL_REGRESSION, TRAINING_MEAN
from tau_pipeline.synthesis.comparison.tables import REGIONAL, measures_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: How systems and losses are called in print.
NAMES = {
    "unet": "U-Net",
    "unetr": "UNETR",
    "swinunetr": "SwinUNETR",
    "pix2pix": "Pix2Pix",
    "cyclegan": "CycleGAN",
    "mse_ssim": "MSE + SSIM",
    "2.5d": "+ 2.5D",
    "3d": "+ 3D",
    "cyclic2.5d": "+ cyclic 2.5D",
}
#: Scales of SUVR and of differences of SUVR, the same in every picture of this program.
SUVR_SCALE, _ERROR_SCALE = (0.0, 3.0), (-1.0, 1.0)
#: Measures that the first figure shows, where they are there.
SHOWN = ("ssim", "psnr", "regional_mae", "regional_r", "regional_r_within")
#: Scans that one place across holds before its points become smaller.
_MANY_POINTS = 40
#: Lines of the trivial predictors.
_DASHES = {TRAINING_MEAN: "--", DIAGNOSIS_MEAN: ":", REGIONAL_REGRESSION: "-."}
#: Heights of a plot of scores and of percentiles, and of a row of scatter plot and cortex; width of a scatter plot with
#: its labels; room for the names of losses above their pictures, and of systems beside them, in inches.
_SCORES_IN, _PERCENTILES_IN, _SCATTER_IN, _LOSSES_IN, _SYSTEM_IN = 2.3, 2.5, 2.75, 0.45, 0.4


@dataclass(frozen=True)
class DrawnScan:
    """A held-out scan: images on one grid, and what each setting makes of it.

    Attributes
    ----------
    title
        Who, and from what scanner.
    t1w, mask, measured
        Images.
    synthetic
        By system and loss.
    scores
        SSIM and PSNR by system and loss.
    """

    title: str
    t1w: Volume
    mask: Volume
    measured: Volume
    synthetic: Mapping[tuple[str, str], Volume]
    scores: Mapping[tuple[str, str], tuple[float, float]]


def in_print(name: str) -> str:
    """Return a system or loss as it is written for people."""
    return NAMES.get(name, name)


def scores_figure(summary: pd.DataFrame) -> Figure:
    """Draw mean and SD of the main measures of every setting, with the trivial predictors as lines.

    Parameters
    ----------
    summary
        From `tau_pipeline.synthesis.comparison.tables.summary_table`.
    """
    models = summary[summary["loss"] != NO_LOSS]
    systems, losses = list(dict.fromkeys(models["system"])), list(dict.fromkeys(models["loss"]))
    scalings = list(dict.fromkeys(models["target_scaling"]))
    present = set(summary["measure"])
    measures = [name for name in SHOWN if name in present]
    headings = measures_of(summary.pivot_table(index="system", columns="measure", values="mean")) | REGIONAL
    legend = [group_handle(in_print(loss), group_style(k)) for k, loss in enumerate(losses)]
    legend += [
        line_handle(name, dashes, NOTE_COLOR) for name, dashes in _DASHES.items() if name in set(summary["system"])
    ]
    title = "Scores of held-out participants: mean and standard deviation"
    sheet = Sheet(_SCORES_IN * len(measures), title, legend=legend)
    panels = sheet.plots(len(measures), len(scalings), sharey="row")
    for line, measure in zip(panels, measures, strict=True):
        for axes, scaling in zip(line, scalings, strict=True):
            own = summary[(summary["measure"] == measure) & (summary["target_scaling"] == scaling)]
            _score_panel(axes, own, systems, losses)
            axes.set_title(f"{headings[measure]}; {scaling}", fontsize=10.5)
    return sheet.figure


def _score_panel(axes: Axes, own: pd.DataFrame, systems: Sequence[str], losses: Sequence[str]) -> None:
    """Draw mean and SD of one measure: systems from left to right, each with its losses side by side."""
    width = 0.7 / max(len(losses), 1)
    for k, loss in enumerate(losses):
        rows = own[own["loss"] == loss].set_index("system")
        there = [n for n, system in enumerate(systems) if system in rows.index]
        found = rows.loc[[systems[n] for n in there]]
        across = np.array(there) + (k - (len(losses) - 1) / 2) * width
        axes.errorbar(across, found["mean"], found["sd"], linestyle="", capsize=2.5, **group_style(k))
    for name, dashes in _DASHES.items():
        value = own.loc[own["system"] == name, "mean"]
        if len(value):
            axes.axhline(float(value.iloc[0]), color=NOTE_COLOR, linestyle=dashes, linewidth=1.2)
    axes.set_xticks(range(len(systems)), [in_print(system) for system in systems], fontsize=10)
    axes.set_xlim(-0.5, len(systems) - 0.5)
    plain_axes(axes)


def panels_figure(scan: DrawnScan, systems: Sequence[str], losses: Sequence[str], what: str) -> Figure:
    """Draw T1w and measured SUVR, then one row per system: what each loss makes of it, its error, SSIM and PSNR.

    One axial slice: that in which most measured SUVR lies above 1.

    Parameters
    ----------
    scan
        The held-out scan.
    systems, losses
        Rows and pairs of columns. What the scan lacks stays empty.
    what
        What all of it has in common, for the title.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    ImageError
        The mask is empty.
    """
    synthetic = {f"{system} {loss}": img for (system, loss), img in scan.synthetic.items()}
    require_same_grid(t1w=scan.t1w, mask=scan.mask, measured=scan.measured, **synthetic)
    view = _view_of_most_uptake(scan)
    rows, columns = max(len(systems), 2), 1 + 2 * len(losses)
    # T1w and measured are the first column; then come the names of the systems, and a pair of columns for each loss.
    boxes, height = in_rows([[size_of(view)] * columns] * rows, bar=True, left_in=_SYSTEM_IN, top_in=_LOSSES_IN)
    note = f"{what}. Axial slice at z = {view.position_mm:.0f} mm. Left is left of the head (neurological)."
    sheet = Sheet(height, scan.title, note=note, bar=True)
    # The first column has no name at its left, and moves to the edge of the sheet.
    first_column = [(left - _SYSTEM_IN + 0.08, top, width, up) for (left, top, width, up), *_ in boxes]
    inputs = [_picture(sheet, box, name) for box, name in zip(first_column, ("T1w", "measured"), strict=False)]
    show_gray(inputs[0], scan.t1w, view, gray_window(scan.t1w, scan.mask))
    show_uptake(inputs[1], scan.measured, view, SUVR_SCALE)
    for row, system in enumerate(systems):
        left, top, _, up = boxes[row][1]
        name: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 11}
        sheet.text(left - 0.06, top + up / 2, in_print(system), **name)
        for k, loss in enumerate(losses):
            if (system, loss) in scan.synthetic:
                _synthetic_and_error(sheet, boxes[row][2 * k + 1 : 2 * k + 3], scan, (system, loss), view)
    for k, loss in enumerate(losses):
        _name_loss(sheet, boxes[0][2 * k + 1 : 2 * k + 3], in_print(loss))
    sheet.color_bar(SUVR_SCALE, "SUVR", part=(0, 2))
    sheet.color_bar(_ERROR_SCALE, "Synthetic minus measured SUVR", part=(1, 2), colors=DIFFERENCE_MAP)
    return sheet.figure


def _picture(sheet: Sheet, box: Box, caption: str = "") -> Axes:
    """Add empty axes for a slice, with a caption above."""
    axes = sheet.axes(box, facecolor=NO_VALUE)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(caption, fontsize=9, pad=2.5)
    return axes


def _synthetic_and_error(
    sheet: Sheet, boxes: Sequence[Box], scan: DrawnScan, which: tuple[str, str], view: View
) -> None:
    """Draw a synthetic map and its error side by side, with SSIM and PSNR above."""
    img = scan.synthetic[which]
    minus = np.asanyarray(img.dataobj, np.float32) - np.asanyarray(scan.measured.dataobj, np.float32)
    error = image_like(np.where(np.asanyarray(scan.mask.dataobj) > 0, minus, np.float32(0)), img)
    show_uptake(_picture(sheet, boxes[0]), img, view, SUVR_SCALE)
    show_uptake(_picture(sheet, boxes[1]), error, view, _ERROR_SCALE, DIFFERENCE_MAP)
    ssim, psnr = scan.scores.get(which, (np.nan, np.nan))
    left, top, _, _ = boxes[1]
    sheet.text(left, top - 0.03, f"SSIM {ssim:.3f}, PSNR {psnr:.1f} dB", ha="center", va="bottom", fontsize=9)


def _name_loss(sheet: Sheet, boxes: Sequence[Box], name: str) -> None:
    """Write the name of a loss, and what its two columns show, above them."""
    sheet.text(boxes[1][0], 0.0, name, ha="center", fontsize=11.5)
    for (left, _, width, _), what in zip(boxes, ("synthetic", "error"), strict=True):
        sheet.text(left + width / 2, _LOSSES_IN - CAPTION_IN, what, ha="center", fontsize=9, color=NOTE_COLOR)


def _view_of_most_uptake(scan: DrawnScan) -> View:
    """Return the axial view, of thirty over the brain, with most SUVR above 1 in the brain."""
    views = spread_views(world_box(scan.mask), "axial", 30, margin_mm=4.0, step_mm=1.5)
    inside = np.asanyarray(scan.mask.dataobj) > 0
    excess = np.where(inside, np.maximum(np.asanyarray(scan.measured.dataobj, np.float32) - 1, 0), 0)
    above = image_like(excess.astype(np.float32), scan.mask)
    return max(views, key=lambda view: float(sample(above, view, outside=0.0).sum()))


def percentiles_figure(scans: pd.DataFrame, loss: str, target_scaling: str) -> Figure:
    """Draw percentiles (75, 90, 99) of cortical SUVR by manufacturer and diagnosis: measured beside each system's.

    Parameters
    ----------
    scans
        One row per held-out scan and setting, with ``cortex_p75`` … and ``measured_p75`` ….
    loss, target_scaling
        Of the systems that are shown.
    """
    own = scans[(scans["loss"] == loss) & (scans["target_scaling"] == target_scaling)].copy()
    for name in ("manufacturer", "diagnosis"):
        own[name] = own[name].fillna("n/a").astype(str)
    manufacturers, diagnoses = sorted(own["manufacturer"].unique()), sorted(own["diagnosis"].unique())
    legend = [group_handle(name, group_style(k)) for k, name in enumerate(diagnoses)]
    sheet = Sheet(
        _PERCENTILES_IN * len(PERCENTILES),
        f"Percentiles of cortical SUVR, {in_print(loss)}, {target_scaling}",
        legend=[*legend, line_handle("median of three or more")],
    )
    panels = sheet.plots(len(PERCENTILES), len(manufacturers), sharey="row", sharex=True)
    for line, percentile in zip(panels, PERCENTILES, strict=True):
        for axes, manufacturer in zip(line, manufacturers, strict=True):
            _percentile_panel(axes, own[own["manufacturer"] == manufacturer], diagnoses, percentile)
        line[0].set_ylabel(f"SUVR, {percentile}th percentile", fontsize=10)
    for axes, manufacturer in zip(panels[0], manufacturers, strict=True):
        count = own.loc[own["manufacturer"] == manufacturer, "scan"].nunique()
        axes.set_title(f"{manufacturer} (n = {count})", fontsize=11, parse_math=False)
    systems = ["measured", *map(in_print, dict.fromkeys(own["system"]))]
    for axes in panels[-1]:
        axes.set_xticks(range(len(systems)), systems, fontsize=9, rotation=20, ha="right")
        axes.set_xlim(-0.5, len(systems) - 0.5)
    return sheet.figure


def _percentile_panel(axes: Axes, own: pd.DataFrame, diagnoses: Sequence[str], percentile: int) -> None:
    """Draw one manufacturer's scans: measured, then each system's, with the diagnoses side by side."""
    width = 0.8 / max(len(diagnoses), 1)
    size = float(np.clip(20 * _MANY_POINTS / max(own["scan"].nunique(), 1), 6, 26))
    measured = (own.drop_duplicates("scan"), f"measured_p{percentile}")
    of_systems = [(rows, f"cortex_p{percentile}") for _, rows in own.groupby("system", sort=False)]
    for n, (rows, column) in enumerate([measured, *of_systems]):
        for k, diagnosis in enumerate(diagnoses):
            values = rows.loc[rows["diagnosis"] == diagnosis, column].to_numpy(float)
            values = values[np.isfinite(values)]
            if values.size:
                center = n + (k - (len(diagnoses) - 1) / 2) * width
                strip(axes, values, center, width, s=size, alpha=0.75, **group_style(k))
    axes.axvspan(-0.5, 0.5, color="#eef1f4", zorder=0)
    plain_axes(axes)


def regions_figure(
    regions: pd.DataFrame, agreement: pd.DataFrame, value: str, label: str, scale: tuple[float, float]
) -> Figure:
    """Draw, for each system, synthetic against measured regional SUVR, and a value per region on the average cortex.

    Parameters
    ----------
    regions
        Rows of one loss and scaling: ``system``, ``participant_id``, ``kind``, ``measured``, ``synthetic``,
        ``diagnosis``.
    agreement
        Of the same settings, from `tau_pipeline.synthesis.comparison.tables.region_table`.
    value
        Column of ``agreement`` that is painted.
    label, scale
        Of the color bar; values beyond the scale take the color of its end.
    """
    systems = list(dict.fromkeys(regions["system"]))
    # Each row is as high as the cortex; the scatter plot at its left leaves room for its labels.
    boxes, height = in_rows(
        [[VIEW_SIZE] * len(VIEWS)] * len(systems), bar=True, left_in=_SCATTER_IN, top_in=0.1, above_in=0.7
    )
    note = "Points: one region of one participant. Brain: average cortex (fsaverage5); gray: no value."
    sheet = Sheet(height + 0.2, "Regional SUVR of held-out participants", note=note, bar=True)
    name_views(sheet, boxes[0])
    cortical, agreement = (table[table["kind"] == "cortical"] for table in (regions, agreement))
    limits = _limits(cortical[["measured", "synthetic"]].to_numpy(float))
    for system, places in zip(systems, boxes, strict=True):
        side = places[0][3]
        axes = sheet.axes((0.75, places[0][1] - 0.15, side, side))
        _scatter(axes, cortical[cortical["system"] == system], limits, in_print(system))
        own = agreement[agreement["system"] == system]
        values = dict(zip(own["index"].astype(int), own[value].astype(float), strict=True))
        draw_views(sheet, places, values, scale, DIFFERENCE_MAP, system)
    sheet.color_bar(scale, label, colors=DIFFERENCE_MAP)
    return sheet.figure


def _limits(values: NDArray) -> tuple[float, float]:
    """Return the lowest and the highest finite value, with a margin."""
    known = values[np.isfinite(values)]
    return (float(known.min()) - 0.05, float(known.max()) + 0.05) if known.size else (0.0, 1.0)


def _scatter(axes: Axes, own: pd.DataFrame, limits: tuple[float, float], title: str) -> None:
    """Draw synthetic against measured SUVR, one point per region and participant, with the correlation."""
    diagnoses = sorted(map(str, own["diagnosis"].fillna("n/a").unique()))
    for k, diagnosis in enumerate(diagnoses):
        rows = own[own["diagnosis"].fillna("n/a").astype(str) == diagnosis]
        style: dict[str, Any] = {"s": 4, "alpha": 0.5, "linewidths": 0, "color": group_style(k)["color"]}
        axes.scatter(rows["measured"], rows["synthetic"], label=diagnosis, **style)
    axes.plot(limits, limits, color=NOTE_COLOR, linewidth=0.9)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    r = float(pearson(own["synthetic"].to_numpy(float), own["measured"].to_numpy(float)))
    axes.set_title(f"{title}: r = {r:.2f}", fontsize=10.5, parse_math=False)
    axes.set_xlabel("measured SUVR", fontsize=9, labelpad=1)
    axes.set_ylabel("synthetic SUVR", fontsize=9, labelpad=1)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(
        fontsize=7.5, frameon=False, handletextpad=0.1, borderaxespad=0.1, markerscale=2, loc="upper left"
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
