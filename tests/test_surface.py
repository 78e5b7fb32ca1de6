"""Values of regions on the average cortex: the right side, the right place, the right colour."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure

from tau_pipeline.atlas import CORTICAL_NUMBERS, label_table
from tau_pipeline.errors import SettingError, UnknownNameError
from tau_pipeline.figures.cortex import BORDER, NO_CORTEX, NO_VALUE, VIEWS, cortex_figure, draw_cortex, hemisphere

HIGHEST = colormaps["inferno"](1.0)[:3]
SIDES = {"left": 1000, "right": 2000}
NUMBER = {
    name.split("-", 2)[2]: number - 1000
    for name, number in label_table()[["region", "index"]].to_numpy()
    if "ctx-lh-" in name
}


def place_of(side: str, region: str) -> np.ndarray:
    """Mean position of a region's vertices, mm, RAS+."""
    half = hemisphere(side)
    return half.vertices[half.labels == SIDES[side] + NUMBER[region]].mean(axis=0)


def pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def drawn(view: tuple[str, str], values: dict[int, float]) -> np.ndarray:
    figure = Figure((5, 4), dpi=100)
    draw_cortex(figure.add_axes((0, 0, 1, 1)), view, values, Normalize(0, 3), colormaps["inferno"])
    return pixels(figure)


def is_of(picture: np.ndarray, color: str | tuple[float, ...]) -> np.ndarray:
    """Return which pixels ``(V, H)`` have a color."""
    return np.abs(picture - np.round(np.array(to_rgb(color)) * 255)).max(axis=-1) <= 1


def count(picture: np.ndarray, color: str | tuple[float, ...]) -> int:
    return int(is_of(picture, color).sum())


@pytest.mark.parametrize("side", SIDES)
def test_every_region_of_a_hemisphere_and_no_other_has_vertices(side: str) -> None:
    found = set(np.unique(hemisphere(side).labels)) - {0}
    assert found == {SIDES[side] + number for number in CORTICAL_NUMBERS}


@pytest.mark.parametrize("side", SIDES)
def test_vertices_lie_on_their_own_side(side: str) -> None:
    across = hemisphere(side).vertices[:, 0]
    assert (across.mean() < 0) == (side == "left")
    assert np.mean((across < 0) == (side == "left")) > 0.8


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("axis", "ascending"),
    [
        (
            1,
            [
                "lateraloccipital",
                "inferiorparietal",
                "supramarginal",
                "precentral",
                "rostralmiddlefrontal",
                "frontalpole",
            ],
        ),
        (1, ["pericalcarine", "isthmuscingulate", "posteriorcingulate", "rostralanteriorcingulate"]),
        (2, ["inferiortemporal", "middletemporal", "superiortemporal", "supramarginal", "superiorparietal"]),
        (2, ["entorhinal", "lingual", "cuneus", "precuneus"]),
    ],
)
def test_regions_follow_each_other_as_in_a_brain(side: str, axis: int, ascending: list[str]) -> None:
    positions = [place_of(side, region)[axis] for region in ascending]
    assert all(low < high for low, high in pairwise(positions))


@pytest.mark.parametrize("side", SIDES)
def test_there_is_no_cortex_where_the_hemispheres_join(side: str) -> None:
    half = hemisphere(side)
    wall = half.vertices[half.labels == 0]
    # FreeSurfer's medial wall is about a twelfth of the surface, near the midline and in the middle of the brain.
    assert 0.03 < len(wall) / len(half.labels) < 0.12
    assert np.median(np.abs(wall[:, 0])) < np.median(np.abs(half.vertices[:, 0]))


def test_left_and_right_have_much_the_same_regions() -> None:
    left, right = hemisphere("left").labels, hemisphere("right").labels
    for number in CORTICAL_NUMBERS:
        sizes = (left == 1000 + number).sum(), (right == 2000 + number).sum()
        assert min(sizes) > 0.4 * max(sizes)


@pytest.mark.parametrize("view", VIEWS)
def test_a_region_has_exactly_the_colour_of_its_value(view: tuple[str, str]) -> None:
    seen = "middletemporal" if view[1] == "lateral" else "precuneus"
    number = SIDES[view[0]] + NUMBER[seen]
    picture = drawn(view, {number: 2.0})
    assert count(picture, colormaps["inferno"](2.0 / 3.0)[:3]) > 1000
    assert count(picture, NO_VALUE) > 10 * 1000
    elsewhere = SIDES["right" if view[0] == "left" else "left"] + NUMBER[seen]
    other = drawn(view, {elsewhere: 2.0})
    assert count(other, colormaps["inferno"](2.0 / 3.0)[:3]) == 0


@pytest.mark.parametrize(("region", "side_seen"), [("supramarginal", "lateral"), ("posteriorcingulate", "medial")])
def test_what_is_seen_depends_on_the_side_that_is_looked_at(region: str, side_seen: str) -> None:
    for side, first in SIDES.items():
        seen = {of: count(drawn((side, of), {first + NUMBER[region]: 3.0}), HIGHEST) for of in ("lateral", "medial")}
        assert seen.pop(side_seen) > 1000
        assert max(seen.values()) < 20


@pytest.mark.parametrize("view", VIEWS)
def test_the_front_of_the_brain_points_the_right_way(view: tuple[str, str]) -> None:
    """Seen from the left the face looks to the left of the picture, seen from the right to the right."""
    first = SIDES[view[0]]
    front = drawn(view, {first + NUMBER["superiorfrontal"]: 3.0})
    columns = np.nonzero(is_of(front, HIGHEST))[1]
    from_left = (view[0] == "left") == (view[1] == "lateral")
    assert (columns.mean() < front.shape[1] / 2) == from_left


def test_missing_regions_are_grey_and_infinite_ones_too() -> None:
    number = 1000 + NUMBER["middletemporal"]
    gray = drawn(("left", "lateral"), {})
    assert count(gray, NO_VALUE) > 50 * count(gray, BORDER) > 0
    np.testing.assert_array_equal(drawn(("left", "lateral"), {number: float("nan")}), gray)
    np.testing.assert_array_equal(drawn(("left", "lateral"), {17: 1.0}), gray)
    assert count(drawn(("left", "medial"), {}), NO_CORTEX) > 1000


def test_a_figure_has_a_row_of_four_views_for_each_map_and_a_labelled_bar() -> None:
    figure = cortex_figure(
        {"CN": {1006: 1.0}, "AD": {1006: 2.0}}, "Title", (0.0, 3.0), "SUVR (reference: Pons)", "inferno"
    )
    labels = [axes.get_label() for axes in figure.axes]
    assert sum(label.startswith("CN: ") for label in labels) == sum(label.startswith("AD: ") for label in labels) == 4
    texts = [text.get_text() for text in figure.texts]
    assert {"Title", "CN", "AD", "Left, lateral", "Right, medial"} <= set(texts)
    assert figure.axes[-1].get_ylabel() == "SUVR (reference: Pons)"


@pytest.mark.parametrize(
    "label", ["SUVR (reference: InferiorCerebellarGM)", "Difference of SUVR (reference: CerebellarGM)"]
)
def test_no_text_is_cut_off(label: str) -> None:
    figure = cortex_figure({"AD (n = 10)": {}}, "Title", (-1.0, 1.0), label, "PuOr")
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    bar = figure.axes[-1]
    for text in [*figure.texts, bar.yaxis.label, *bar.get_yticklabels()]:
        box = text.get_window_extent()
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text


@pytest.mark.parametrize(("values", "ends"), [({}, "neither"), ({1006: 4.0}, "max"), ({1006: -1.0}, "min")])
def test_the_bar_says_where_values_lie_beyond_it(values: dict[int, float], ends: str) -> None:
    figure = cortex_figure({"": values}, "", (0.0, 3.0), "SUVR", "inferno")
    assert figure.axes[-1]._colorbar.extend == ends


def test_the_same_values_give_the_same_picture() -> None:
    first, second = (drawn(("left", "lateral"), {1006: 1.0, 1030: 2.0}) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_wrong_calls_are_refused_in_words() -> None:
    with pytest.raises(UnknownNameError, match="no hemisphere called 'lh'"):
        hemisphere("lh")
    with pytest.raises(SettingError, match="from 3 to 0"):
        cortex_figure({"": {}}, "", (3.0, 0.0), "SUVR", "inferno")
    with pytest.raises(SettingError, match="at least one row"):
        cortex_figure({}, "", (0.0, 3.0), "SUVR", "inferno")
