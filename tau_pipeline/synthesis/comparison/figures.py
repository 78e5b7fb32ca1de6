"""Figures of a comparison of systems, losses and normalisations: tables and images in, a matplotlib Figure out.

As in the paper: scores, T1w beside measured and synthetic SUVR with the error, percentiles of cortical SUVR by
manufacturer and diagnosis, and regional SUVR on the average cortex.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.figures.cohort import COLOURS, MARKERS
from tau_pipeline.figures.cortex import VIEWS, draw_cortex
from tau_pipeline.figures.planes import View, sample, spread_views, world_box
from tau_pipeline.figures.sheet import DIFFERENCE_MAP, UPTAKE_MAP, grey_window
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid
from tau_pipeline.measures.agreement import pearson
from tau_pipeline.measures.quality import PERCENTILES
from tau_pipeline.synthesis.comparison.runs import DIAGNOSIS_MEAN, NO_LOSS, TRAINING_MEAN
from tau_pipeline.synthesis.comparison.tables import REGIONAL, measures_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Left, bottom, width and height as parts of a figure.
Box = tuple[float, float, float, float]

DPI, WIDTH_IN = 120, 14.0
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
SUVR_SCALE, ERROR_SCALE = (0.0, 3.0), (-1.0, 1.0)
#: Measures that the first figure shows, where they are there.
SHOWN = ("ssim", "psnr", "regional_mae", "regional_r", "regional_r_within")
#: Scans that one place across holds before its points become smaller.
MANY_POINTS = 40


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
    """A system or loss as it is written for people."""
    return NAMES.get(name, name)


def scores_figure(summary: pd.DataFrame) -> Figure:
    """Mean and SD of the main measures of every setting, with the trivial predictors as lines.

    Parameters
    ----------
    summary
        From `tau_pipeline.synthesis.comparison.tables.summary_table`.
    """
    from matplotlib.figure import Figure

    models = summary[summary["loss"] != NO_LOSS]
    systems, losses = list(dict.fromkeys(models["system"])), list(dict.fromkeys(models["loss"]))
    normalisations = list(dict.fromkeys(models["normalisation"]))
    present = set(summary["measure"])
    measures = [name for name in SHOWN if name in present]
    figure = Figure(figsize=(WIDTH_IN, 0.9 + 2.3 * len(measures)), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(measures), len(normalisations), squeeze=False, sharey="row")
    headings = measures_of(summary.pivot_table(index="system", columns="measure", values="mean")) | REGIONAL
    for line, measure in zip(panels, measures, strict=True):
        for axes, normalisation in zip(line, normalisations, strict=True):
            own = summary[(summary["measure"] == measure) & (summary["normalisation"] == normalisation)]
            _score_panel(axes, own, systems, losses)
            axes.set_title(f"{headings[measure]}; {normalisation}", fontsize=10.5)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=10)
    return figure


def _score_panel(axes: Axes, own: pd.DataFrame, systems: Sequence[str], losses: Sequence[str]) -> None:
    width = 0.7 / max(len(losses), 1)
    for k, loss in enumerate(losses):
        rows = own[own["loss"] == loss].set_index("system")
        there = [n for n, system in enumerate(systems) if system in rows.index]
        found = rows.loc[[systems[n] for n in there]]
        across = np.array(there) + (k - (len(losses) - 1) / 2) * width
        style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
        axes.errorbar(across, found["mean"], found["sd"], linestyle="", capsize=2.5, label=in_print(loss), **style)
    for name, dashes in ((TRAINING_MEAN, "--"), (DIAGNOSIS_MEAN, ":")):
        value = own.loc[own["system"] == name, "mean"]
        if len(value):
            axes.axhline(float(value.iloc[0]), color="#444444", linestyle=dashes, linewidth=1.2, label=name)
    axes.set_xticks(range(len(systems)), [in_print(system) for system in systems], fontsize=10)
    axes.set_xlim(-0.5, len(systems) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.7)
    axes.set_axisbelow(True)


def panels_figure(scan: DrawnScan, systems: Sequence[str], losses: Sequence[str], what: str) -> Figure:
    """T1w and measured SUVR, then a row a system: what each loss makes of it, its error, SSIM and PSNR.

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
    from matplotlib.figure import Figure

    require_same_grid(t1w=scan.t1w, mask=scan.mask, measured=scan.measured, **_numbered(scan.synthetic))
    view = _view_of_most_uptake(scan)
    sheet = _Sheet(view, max(len(systems), 2), len(losses))
    figure = Figure(figsize=(WIDTH_IN, sheet.height), dpi=DPI, facecolor="white")
    x = 0.08 / WIDTH_IN
    figure.text(x, 1 - 0.1 / sheet.height, scan.title, va="top", fontsize=13, weight="bold", parse_math=False)
    note = f"{what}. Axial slice at z = {view.position_mm:.0f} mm. Left is left of the head (neurological)."
    figure.text(x, 0.08 / sheet.height, note, fontsize=9, color="#444444", parse_math=False)
    of_t1w = _picture(figure, sheet.box(0, 0), scan.t1w, view, grey_window(scan.t1w, scan.mask), "gray")
    of_pet = _picture(figure, sheet.box(1, 0), scan.measured, view, SUVR_SCALE)
    for axes, name in ((of_t1w, "T1w"), (of_pet, "measured")):
        axes.set_xlabel(name, fontsize=9.5, labelpad=2)
    for row, system in enumerate(systems):
        for k, loss in enumerate(losses):
            if (system, loss) in scan.synthetic:
                _synthetic_and_error(
                    figure, scan, (system, loss), view, (sheet.box(row, 2 * k + 1), sheet.box(row, 2 * k + 2))
                )
    _headings(figure, sheet, systems, losses)
    _bar(figure, sheet.height, SUVR_SCALE, UPTAKE_MAP, "SUVR", (0.55, 0.88))
    _bar(figure, sheet.height, ERROR_SCALE, DIFFERENCE_MAP, "Synthetic less measured SUVR", (0.1, 0.43))
    return figure


class _Sheet:
    """Places of pictures in rows, with a column of single pictures before pairs of them; sizes in inches."""

    LEFT, BAR, GAP, TEXT, TOP, BOTTOM = 0.95, 1.0, 0.05, 0.24, 0.82, 0.3

    def __init__(self, view: View, rows: int, pairs: int) -> None:
        columns = 2 * pairs + 1
        self.side = (WIDTH_IN - self.LEFT - self.BAR - self.GAP * columns) / columns
        left, right, bottom, top = view.extent
        self.up = self.side * (top - bottom) / (right - left)
        self.row = self.up + self.TEXT + self.GAP
        self.height = self.TOP + rows * self.row + self.BOTTOM

    def box(self, row: int, column: int) -> Box:
        """Left, bottom, width and height as parts of the figure."""
        # The single pictures have a name beneath and stand apart, with room for the names of the rows.
        x = column * (self.side + self.GAP) + (self.LEFT if column else 0.1)
        y = self.height - self.TOP - row * self.row - self.up
        return x / WIDTH_IN, y / self.height, self.side / WIDTH_IN, self.up / self.height


def _synthetic_and_error(
    figure: Figure, scan: DrawnScan, which: tuple[str, str], view: View, boxes: tuple[Box, Box]
) -> None:
    """A synthetic map and its error side by side, with SSIM and PSNR beneath."""
    img = scan.synthetic[which]
    less = np.asanyarray(img.dataobj, np.float32) - np.asanyarray(scan.measured.dataobj, np.float32)
    error = image_like(np.where(np.asanyarray(scan.mask.dataobj) > 0, less, np.float32(0)), img)
    made = _picture(figure, boxes[0], img, view, SUVR_SCALE)
    _picture(figure, boxes[1], error, view, ERROR_SCALE, DIFFERENCE_MAP)
    ssim, psnr = scan.scores.get(which, (np.nan, np.nan))
    text = f"SSIM {ssim:.3f}, PSNR {psnr:.1f} dB"
    made.text(1.0, -0.03, text, transform=made.transAxes, ha="center", va="top", fontsize=9)


def _headings(figure: Figure, sheet: _Sheet, systems: Sequence[str], losses: Sequence[str]) -> None:
    """Names of the systems beside their rows, and of the losses above their columns."""
    for row, system in enumerate(systems):
        x, y, _, up = sheet.box(row, 1)
        figure.text(
            x - 0.06 / WIDTH_IN, y + up / 2, in_print(system), rotation=90, ha="right", va="center", fontsize=11
        )
    for k, loss in enumerate(losses):
        x, _, width, _ = sheet.box(0, 2 * k + 1)
        figure.text(x + width, 1 - 0.42 / sheet.height, in_print(loss), ha="center", va="top", fontsize=11.5)
        for name, at in (("synthetic", x + width / 2), ("error", x + 1.5 * width)):
            figure.text(at, 1 - 0.63 / sheet.height, name, ha="center", va="top", fontsize=9, color="#444444")


def _numbered(images: Mapping[tuple[str, str], Volume]) -> dict[str, Volume]:
    return {f"{system} {loss}": img for (system, loss), img in images.items()}


def _view_of_most_uptake(scan: DrawnScan) -> View:
    """The axial view, of thirty over the brain, with most SUVR above 1 in the brain."""
    views = spread_views(world_box(scan.mask), "axial", 30, margin_mm=4.0, step_mm=1.5)
    inside = np.asanyarray(scan.mask.dataobj) > 0
    excess = np.where(inside, np.maximum(np.asanyarray(scan.measured.dataobj, np.float32) - 1, 0), 0)
    above = image_like(excess.astype(np.float32), scan.mask)
    return max(views, key=lambda view: float(sample(above, view, outside=0.0).sum()))


def _picture(
    figure: Figure,
    box: Box,
    img: Volume,
    view: View,
    scale: tuple[float, float],
    colours: str = "",
) -> Axes:
    axes = figure.add_axes(box, label=str(box), facecolor="#404040")
    axes.imshow(
        sample(img, view),
        cmap=colours or UPTAKE_MAP,
        vmin=scale[0],
        vmax=scale[1],
        extent=view.extent,
        origin="lower",
        interpolation="nearest",
        aspect="auto",
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _bar(
    figure: Figure,
    height: float,
    scale: tuple[float, float],
    colours: str,
    label: str,
    span: tuple[float, float],
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    length = min(span[1] - span[0], 3.2 / height)
    axes = figure.add_axes((1 - 0.85 / WIDTH_IN, (span[0] + span[1] - length) / 2, 0.18 / WIDTH_IN, length))
    bar = figure.colorbar(
        ScalarMappable(Normalize(*scale), colours), cax=axes, extend="both" if scale[0] < 0 else "max"
    )
    bar.set_label(label, fontsize=9.5)
    bar.ax.tick_params(labelsize=9)


def percentiles_figure(scans: pd.DataFrame, loss: str, normalisation: str) -> Figure:
    """Cortical SUVR at the 75th, 90th and 99th percentile by manufacturer and diagnosis: measured beside each system's.

    Parameters
    ----------
    scans
        A row a held-out scan and setting, with ``cortex_p75`` … and ``measured_p75`` ….
    loss, normalisation
        Of the systems that are shown.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    own = scans[(scans["loss"] == loss) & (scans["normalisation"] == normalisation)]
    systems = list(dict.fromkeys(own["system"]))
    makers, diagnoses = (sorted(map(str, own[name].fillna("n/a").unique())) for name in ("manufacturer", "diagnosis"))
    figure = Figure(figsize=(WIDTH_IN, 0.7 + 2.5 * len(PERCENTILES)), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(PERCENTILES), len(makers), squeeze=False, sharey="row", sharex=True)
    sources = ["measured", *systems]
    for line, percentile in zip(panels, PERCENTILES, strict=True):
        for axes, maker in zip(line, makers, strict=True):
            of_maker = own[own["manufacturer"].fillna("n/a").astype(str) == maker]
            _percentile_panel(axes, of_maker, (sources, diagnoses), percentile)
        line[0].set_ylabel(f"SUVR, {percentile}th percentile", fontsize=10)
    for axes, maker in zip(panels[0], makers, strict=True):
        count = own.loc[own["manufacturer"].fillna("n/a").astype(str) == maker, "scan"].nunique()
        axes.set_title(f"{maker} (n = {count})", fontsize=11, parse_math=False)
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[k % len(MARKERS)], color=COLOURS[k % len(COLOURS)], label=name)
        for k, name in enumerate(diagnoses)
    ]
    handles.append(Line2D([], [], color="black", linewidth=1.6, label="median of a diagnosis"))
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=10)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _percentile_panel(
    axes: Axes, own: pd.DataFrame, groups: tuple[Sequence[str], Sequence[str]], percentile: int
) -> None:
    sources, diagnoses = groups
    width = 0.8 / max(len(diagnoses), 1)
    size = float(np.clip(20 * MANY_POINTS / max(own["scan"].nunique(), 1), 6, 26))
    for n, source in enumerate(sources):
        rows = own.drop_duplicates("scan") if source == "measured" else own[own["system"] == source]
        column = f"measured_p{percentile}" if source == "measured" else f"cortex_p{percentile}"
        for k, diagnosis in enumerate(diagnoses):
            values = rows.loc[rows["diagnosis"].fillna("n/a").astype(str) == diagnosis, column].to_numpy(float)
            values = values[np.isfinite(values)]
            if not values.size:
                continue
            centre = n + (k - (len(diagnoses) - 1) / 2) * width
            across = centre + (np.arange(values.size) - (values.size - 1) / 2) * min(0.1, 0.7 / values.size) * width
            style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
            axes.scatter(across, values, s=size, alpha=0.75, linewidths=0, **style)
            axes.plot(
                [centre - 0.4 * width, centre + 0.4 * width], [np.median(values)] * 2, color="black", linewidth=1.6
            )
    axes.axvspan(-0.5, 0.5, color="#eef1f4", zorder=0)
    axes.set_xticks(range(len(sources)), [in_print(name) for name in sources], fontsize=9, rotation=20, ha="right")
    axes.set_xlim(-0.5, len(sources) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.7)
    axes.set_axisbelow(True)


def regions_figure(
    regions: pd.DataFrame, agreement: pd.DataFrame, value: str, label: str, scale: tuple[float, float]
) -> Figure:
    """A row a system: measured against synthetic regional SUVR, and a value a region on the average cortex.

    Parameters
    ----------
    regions
        Rows of one loss and normalisation: ``system``, ``participant_id``, ``kind``, ``measured``, ``synthetic``,
        ``diagnosis``.
    agreement
        Of the same settings, from `tau_pipeline.synthesis.comparison.tables.region_table`.
    value
        Column of ``agreement`` that is painted.
    label, scale
        Of the colour bar; values beyond the scale take the colour of its end.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    systems = list(dict.fromkeys(regions["system"]))
    scatter_in, row_in, top_in, bottom_in, bar_in = 2.75, 2.35, 0.42, 0.5, 0.95
    height = top_in + row_in * len(systems) + bottom_in
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white")
    norm, colours = Normalize(*scale), colormaps[DIFFERENCE_MAP]
    width = (WIDTH_IN - scatter_in - bar_in) / len(VIEWS)
    for place, (side, seen_from) in enumerate(VIEWS):
        x = (scatter_in + (place + 0.5) * width) / WIDTH_IN
        name = f"{side.capitalize()}, {seen_from}"
        figure.text(x, 1 - 0.12 / height, name, ha="center", va="top", fontsize=10)
    cortical = regions[regions["kind"] == "cortical"]
    limits = _limits(cortical[["measured", "synthetic"]].to_numpy(float))
    for row, system in enumerate(systems):
        bottom = height - top_in - (row + 1) * row_in
        box = (0.75 / WIDTH_IN, (bottom + 0.42) / height, (scatter_in - 1.0) / WIDTH_IN, (row_in - 0.62) / height)
        _scatter(figure.add_axes(box), cortical[cortical["system"] == system], limits, in_print(system))
        of_system = agreement[(agreement["system"] == system) & (agreement["kind"] == "cortical")]
        painted = {int(n): float(v) for n, v in zip(of_system["index"], of_system[value], strict=True)}
        for place, view in enumerate(VIEWS):
            x = scatter_in + place * width
            brain = (x / WIDTH_IN, (bottom + 0.15) / height, width / WIDTH_IN, (row_in - 0.3) / height)
            draw_cortex(figure.add_axes(brain, label=f"{system} {view}"), view, painted, norm, colours)
    note = "Points: a region of a participant. Brain: average cortex (fsaverage5); grey: no value."
    figure.text(0.1 / WIDTH_IN, 0.08 / height, note, fontsize=9, color="#444444")
    _bar(figure, height, scale, DIFFERENCE_MAP, label, (0.2, 0.8))
    return figure


def _limits(values: NDArray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()) - 0.05, float(known.max()) + 0.05) if known.size else (0.0, 1.0)


def _scatter(axes: Axes, own: pd.DataFrame, limits: tuple[float, float], title: str) -> None:
    diagnoses = sorted(map(str, own["diagnosis"].fillna("n/a").unique()))
    for k, diagnosis in enumerate(diagnoses):
        rows = own[own["diagnosis"].fillna("n/a").astype(str) == diagnosis]
        axes.scatter(
            rows["measured"],
            rows["synthetic"],
            s=4,
            alpha=0.5,
            linewidths=0,
            color=COLOURS[k % len(COLOURS)],
            label=diagnosis,
        )
    axes.plot(limits, limits, color="#444444", linewidth=0.9)
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
