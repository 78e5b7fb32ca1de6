"""The layout that all figures share: title, rows of panels, note, legend, color bars, sizes, and colors.

A sheet is measured in inches from its top left corner, below the title, so that nothing can overlap. Figures are made
without pyplot, so that nothing is shared between threads or left open in a worker process.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.files import complete_file

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Left, top, width and height of a panel, in inches.
Box = tuple[float, float, float, float]
#: Width and height of a panel beside others, in any unit.
Size = tuple[float, float]

WIDTH_IN, DPI = 14.0, 120
#: Of PNG: half of the time of the default, 6, and files of slices are 5% smaller.
_COMPRESSION = 3
#: Margin at the left; room for the title, a legend under it, the note, a caption, and color bars; between panels.
SIDE_IN, _TITLE_IN, _LEGEND_IN, _NOTE_IN, CAPTION_IN, _BAR_IN, _GAP_IN = 0.08, 0.42, 0.33, 0.3, 0.2, 1.3, 0.05
#: A color bar is at most this long.
_LONGEST_BAR_IN = 4.0

#: Perceptually uniform (van der Walt & Smith, SciPy 2015), dark where there is no uptake.
UPTAKE_MAP = "inferno"
#: Diverging, pale at no difference, distinct for color-blind readers (Brewer, colorbrewer2.org).
DIFFERENCE_MAP = "PuOr_r"
#: Groups, distinct for color-blind readers (Okabe & Ito, Color Universal Design, 2008), without yellow, pale on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_MARKERS = ("o", "^", "s", "D", "v", "P")
#: Text that is less important, and lines behind the data.
NOTE_COLOR, _GRID_COLOR = "#444444", "#e3e6ea"


class Sheet:
    """A figure of `WIDTH_IN` with a title, whose content is placed in inches from the top left corner.

    Parameters
    ----------
    height_in
        Height of the content, without title, legend and note.
    title
        Text at the top left.
    note, aside
        Text at the bottom left and the top right.
    legend
        What the line under the title shows; each artist has a label.
    bar
        Whether the right `_BAR_IN` are kept for color bars.
    """

    def __init__(
        self,
        height_in: float,
        title: str,
        *,
        note: str = "",
        aside: str = "",
        legend: Sequence[Artist] = (),
        bar: bool = False,
    ) -> None:
        from matplotlib.figure import Figure

        self.height_in = height_in
        self._top_in = _TITLE_IN + (_LEGEND_IN if legend else 0.0)
        self._bottom_in = _NOTE_IN if note else SIDE_IN
        total = self._top_in + height_in + self._bottom_in
        self.figure: Figure = Figure(figsize=(WIDTH_IN, total), dpi=DPI, facecolor="white")
        self.text(SIDE_IN, 0.1 - self._top_in, title, fontsize=13, weight="bold")
        if aside:
            self.text(WIDTH_IN - SIDE_IN, 0.12 - self._top_in, aside, ha="right", fontsize=10)
        if note:
            self.text(SIDE_IN, height_in + _NOTE_IN - 0.09, note, va="bottom", fontsize=9, color=NOTE_COLOR)
        if legend:
            self._legend(legend)
        self._content_in = content_in(bar)

    def axes(self, box: Box, **style: Any) -> Axes:
        """Add axes at a place of the content; ``style`` goes to `matplotlib.figure.Figure.add_axes`."""
        left, top, width, height = box
        x, y = self._place(left, top + height)
        return self.figure.add_axes((x, y, width / WIDTH_IN, height / self.figure.get_figheight()), **style)

    def text(self, left_in: float, top_in: float, text: str, **style: Any) -> None:
        """Write text at a place of the content, below it unless ``style`` says otherwise."""
        given: dict[str, Any] = {"va": "top", "parse_math": False} | style
        self.figure.text(*self._place(left_in, top_in), text, **given)

    def plots(self, rows: int, columns: int, **shared: Any) -> NDArray[Any]:
        """Fill the content with a grid ``(rows, columns)`` of axes that make room for their labels themselves."""
        total = self.figure.get_figheight()
        rect = (0.0, self._bottom_in / total, self._content_in / WIDTH_IN, self.height_in / total)
        self.figure.set_layout_engine("constrained", rect=rect)
        found: NDArray[Any] = self.figure.subplots(rows, columns, squeeze=False, **shared)
        return found

    def color_bar(
        self,
        scale: tuple[float, float],
        label: str,
        *,
        colors: str = UPTAKE_MAP,
        part: tuple[int, int] = (0, 1),
        extend: str = "",
    ) -> None:
        """Draw a color bar at the right.

        Parameters
        ----------
        scale
            Values at its ends.
        label
            What it shows, with the unit.
        colors
            Name of a matplotlib color map.
        part
            Which bar, from the top, and of how many.
        extend
            At which ends values lie beyond the scale, as in matplotlib; else the upper end, and for differences both.
        """
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        number, count = part
        room = self.height_in / count
        length = min(room - 0.45, _LONGEST_BAR_IN)
        top = (number + 0.5) * room - length / 2
        axes = self.axes((WIDTH_IN - _BAR_IN + 0.15, top, 0.2, length))
        extend = extend or ("both" if scale[0] < 0 else "max")
        bar = self.figure.colorbar(ScalarMappable(Normalize(*scale), colors), cax=axes, extend=extend)
        bar.set_label(textwrap.fill(label, int(12 * length)), fontsize=10, parse_math=False)
        bar.ax.tick_params(labelsize=9)

    def _place(self, left_in: float, top_in: float) -> tuple[float, float]:
        """Return a place of the content as parts of the figure."""
        total = self.figure.get_figheight()
        return left_in / WIDTH_IN, 1 - (self._top_in + top_in) / total

    def _legend(self, handles: Sequence[Artist]) -> None:
        legend = self.figure.legend(
            handles=list(handles),
            loc="upper left",
            bbox_to_anchor=self._place(0.0, -_LEGEND_IN - 0.06),
            ncols=len(handles),
            frameon=False,
            fontsize=10,
            handletextpad=0.3,
            columnspacing=1.4,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def content_in(bar: bool) -> float:
    """Return the width for content, without the color bars where there are any, in inches."""
    return WIDTH_IN - (_BAR_IN if bar else SIDE_IN)


def in_rows(
    sizes: Sequence[Sequence[Size]],
    *,
    bar: bool = False,
    left_in: float = SIDE_IN,
    top_in: float = 0.0,
    above_in: float = CAPTION_IN,
) -> tuple[list[list[Box]], float]:
    """Place panels in rows, side by side and at one scale, as large as the widest row allows.

    Parameters
    ----------
    sizes
        Width and height of each panel in each row, in any unit.
    bar
        Whether there are color bars at the right.
    left_in, top_in
        Where the first row starts.
    above_in
        Room above each row, for captions.

    Returns
    -------
    boxes, height_in
        Place of each panel, and where the last row ends.
    """
    room = content_in(bar) - left_in
    scale = min((room - _GAP_IN * (len(row) - 1)) / sum(width for width, _ in row) for row in sizes)
    boxes: list[list[Box]] = []
    for row in sizes:
        top_in += above_in
        left, placed = left_in, []
        for width, height in row:
            placed.append((left, top_in, width * scale, height * scale))
            left += width * scale + _GAP_IN
        boxes.append(placed)
        top_in += max(height for _, height in row) * scale + _GAP_IN
    return boxes, top_in


def group_style(number: int) -> dict[str, Any]:
    """Return color and marker of a group, counted from 0."""
    return {"color": COLORS[number % len(COLORS)], "marker": _MARKERS[number % len(_MARKERS)]}


def group_handle(label: str, style: dict[str, Any]) -> Artist:
    """Return what stands for a group in a legend: its marker, in its color."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", label=label, **style)


def line_handle(label: str, linestyle: Any = "-", color: str = "black") -> Artist:
    """Return what stands for a line in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle=linestyle, color=color, linewidth=1.6, label=label)


def plain_axes(axes: Axes) -> None:
    """Take away the frame at the top and right, and draw pale lines behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID_COLOR, linewidth=0.7)
    axes.set_axisbelow(True)


#: A line at the median of fewer points would hide them.
LEAST_FOR_MEDIAN = 3


#: Points of a group that are drawn one by one, and bins of the histogram of larger groups.
_MOST_POINTS, _BINS = 400, 60


def strip(axes: Axes, values: NDArray[np.float64], center: float, width: float, **style: Any) -> NDArray[np.float64]:
    """Draw the values of a group as points around a place on the horizontal axis, three or more with their median.

    More than `_MOST_POINTS` hide each other, and are drawn as a histogram, symmetric about the place.

    Parameters
    ----------
    axes
        Where to draw.
    values
        ``(N,)``, finite.
    center, width
        Place of the group, and how wide it is.
    style
        Of the points, for `matplotlib.axes.Axes.scatter`.

    Returns
    -------
    NDArray
        Places of the points across ``(N,)``. They follow from the order of the values: multiples of the golden ratio,
        modulo 1, which fill a group evenly.
    """
    spread = np.modf(np.arange(values.size) * 0.6180339887498949)[0] - 0.5 if values.size > 1 else np.zeros(1)
    across: NDArray[np.float64] = center + spread * 0.7 * width
    if values.size > _MOST_POINTS:
        counts, edges = np.histogram(values, bins=_BINS)
        lengths = 0.84 * width * counts / counts.max()
        look = {name: style[name] for name in ("color", "alpha") if name in style}
        left, right = center - lengths / 2, center + lengths / 2
        axes.stairs(right, edges, baseline=left, orientation="horizontal", fill=True, linewidth=0, **look)
    # Points that are not seen keep the places by which a page links them.
    style |= {"alpha": 0.0} if values.size > _MOST_POINTS else {}
    axes.scatter(across, values, linewidths=0, **style)
    if values.size >= LEAST_FOR_MEDIAN:
        ends = [center - 0.42 * width, center + 0.42 * width]
        axes.plot(ends, [float(np.median(values))] * 2, color="black", linewidth=1.6)
    return across


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, complete or not at all; the same figure gives the same bytes. Returns the path.

    Raises
    ------
    OutputError
        The folder cannot be written to, or the disk is full.
    """
    with complete_file(path) as partial:
        figure.savefig(
            partial, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": _COMPRESSION}
        )
    return Path(path)
