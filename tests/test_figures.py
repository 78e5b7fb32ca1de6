"""Figures: the same head looks the same on every grid, sides are right, nothing overlaps."""

from __future__ import annotations

import functools
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import ndimage

from tau_pipeline.errors import GridMismatchError, ImageError, OutputError, SettingError
from tau_pipeline.figures import participant as figures
from tau_pipeline.figures import sheet, synthesis
from tau_pipeline.figures.planes import PLANES, sample, spread_views, world_box
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, image_like, image_on

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
#: Draws a figure, at most once.
Drawing = Callable[[], Figure]


def grid_affine(name: str) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of one 4 mm box (or, if oblique, of a larger one around it) in several orientations."""
    shape, affine = np.array([46, 54, 44]), np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-90, -110, -80)
    if name == "oblique":
        tilt, turn = np.deg2rad([20.0, -15.0])
        about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
        about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        shape = np.array([74, 78, 74])
        affine[:3, :3] = about_z @ about_x * 4
        affine[:3, 3] = -affine[:3, :3] @ (shape - 1) / 2
        return tuple(shape), affine
    order = {"x": 0, "y": 1, "z": 2}
    flips, axes = {"RAS": ("", "xyz"), "LAS": ("x", "xyz"), "LPS": ("xy", "xyz"), "SAR": ("", "zyx")}[name]
    for axis in flips:
        k = order[axis]
        affine[k, 3] += affine[k, k] * (shape[k] - 1)
        affine[k, k] *= -1
    permutation = [order[axis] for axis in axes]
    affine[:, :3] = affine[:, permutation]
    return tuple(int(shape[k]) for k in permutation), affine


def world_of(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    return np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape)) + affine[:3, 3].reshape(3, 1, 1, 1)


def head_at(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A smooth head: an ellipsoid, much brighter in its left half."""
    body = 1 / (1 + np.exp(8 * ((x / 60) ** 2 + (y / 80) ** 2 + (z / 55) ** 2 - 1)))
    return 100 * body * (1 + 2 / (1 + np.exp(x / 6)))


def head(name: str) -> tuple[Volume, Volume]:
    """The head and its mask on a grid."""
    shape, affine = grid_affine(name)
    x, y, z = world_of(shape, affine)
    t1w = image_on(head_at(x, y, z).astype(np.float32), affine)
    return t1w, image_like((x / 60) ** 2 + (y / 80) ** 2 + (z / 55) ** 2 < 1, t1w)


def color_table() -> pd.DataFrame:
    """Colours of all labels of `labels_on` but 77."""
    rows = [(8, "subcortical", 255, 0, 0), (1001, "cortical", 0, 255, 0), (2035, "cortical", 0, 0, 255)]
    return pd.DataFrame(rows, columns=["index", "kind", "red", "green", "blue"])


def labels_on(mask: Volume) -> Volume:
    inside = np.asanyarray(mask.dataobj) > 0
    x, _, z = world_of(mask.shape, mask.affine)
    above = np.where(z > 30, 77, np.where(x < 0, 1001, 2035))
    return image_like((inside * np.where(z < -20, 8, above)).astype(np.int16), mask)


def all_figures(t1w: Volume, mask: Volume) -> dict[str, Drawing]:
    suvr = image_like(np.asanyarray(t1w.dataobj) / 100, t1w)
    core = image_like(np.asanyarray(labels_on(mask).dataobj) == 8, mask)
    inside = np.asanyarray(mask.dataobj) > 0
    tissue = image_like(np.stack([0 * inside, 0.6 * inside, 0.4 * inside], axis=-1), mask)
    none = image_like(np.zeros(mask.shape, "f4"), mask)
    blends = functools.cache(lambda: figures.flicker_figures(t1w, t1w, mask))
    drawings: dict[str, Drawing] = {
        "mask": lambda: figures.brain_mask_figure(t1w, mask),
        "tissue": lambda: figures.tissue_figure(t1w, tissue, mask),
        "parcellation": lambda: figures.parcellation_figure(t1w, labels_on(mask), color_table()),
        "coregistration": lambda: figures.coregistration_figure(t1w, t1w, mask),
        "suvr": lambda: figures.suvr_figure(suvr, t1w, mask=mask),
        "reference": lambda: figures.reference_region_figure(t1w, core, "CerebellarGM", suvr=suvr),
        "reference on T1w alone": lambda: figures.reference_region_figure(t1w, core, "CerebellarGM"),
        "synthetic": lambda: synthesis.synthetic_figure(suvr, t1w, mask, measured=none),
        "synthetic alone": lambda: synthesis.synthetic_figure(suvr, t1w, mask),
        "blend T1w": lambda: blends()[0],
        "blend PET": lambda: blends()[1],
    }
    return {what: functools.cache(draw) for what, draw in drawings.items()}


def pixels(figure: object) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(float)


GRIDS = ["LAS", "LPS", "SAR"]


@pytest.fixture(scope="module")
def drawn() -> dict[str, Drawing]:
    """All figures of the head on the RAS grid, each drawn when a test first asks for it."""
    return all_figures(*head("RAS"))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("plane", PLANES)
def test_slices_are_the_same_in_every_axis_order_and_direction(name: str, plane: str) -> None:
    (reference, mask), (turned, turned_mask) = head("RAS"), head(name)
    views, turned_views = (spread_views(world_box(one), plane, 5) for one in (mask, turned_mask))
    for view, turned_view in zip(views, turned_views, strict=True):
        assert view.caption == turned_view.caption
        np.testing.assert_allclose(sample(turned, turned_view), sample(reference, view), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("order", "outside"), [(1, np.nan), (0, -7)])
def test_slices_along_the_axes_of_the_grid_are_those_of_scipy(order: int, outside: float) -> None:
    rng, affine = np.random.default_rng(1), grid_affine("SAR")[1]
    img = image_on(rng.normal(size=(9, 8, 7)).astype(np.float32), affine)
    corners = affine[:3, 3:] + affine[:3, :3] @ np.array([[0, 8], [0, 7], [0, 6]])
    for plane, axes in PLANES.items():
        for view in spread_views(np.sort(corners, axis=1) + 0.3, plane, 2, step_mm=1.7):
            places = (view.across_mm, view.up_mm, np.array([view.position_mm]))
            world = np.stack(np.meshgrid(*(places[axes.index(axis)] for axis in range(3)), indexing="ij"))
            voxels = np.einsum(
                "ij,j...->i...", np.linalg.inv(affine[:3, :3]), world - affine[:3, 3].reshape(3, 1, 1, 1)
            )
            found = ndimage.map_coordinates(np.asanyarray(img.dataobj), voxels, order=order, cval=outside)
            expected = np.moveaxis(found, (axes[2], axes[1], axes[0]), (0, 1, 2))[0]
            assert np.isnan(expected).any() or (expected == outside).any()
            np.testing.assert_allclose(sample(img, view, order, outside), expected, atol=1e-5)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("order", [0, 1])
def test_a_slice_of_an_image_from_a_file_takes_no_copy_of_the_image(plane: str, order: int) -> None:
    data = np.asfortranarray(np.zeros((100, 100, 100), np.float32))
    (view,) = spread_views(np.array([[10.0, 90.0]] * 3), plane, 1)
    sample(image_on(data, np.eye(4)), view, order=order)
    tracemalloc.start()
    try:
        sample(image_on(data, np.eye(4)), view, order=order)
        assert tracemalloc.get_traced_memory()[1] < 0.3 * data.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("plane", PLANES)
def test_an_oblique_grid_gives_the_slice_that_the_world_has(plane: str) -> None:
    img, mask = head("oblique")
    view = spread_views(world_box(mask), plane, 3)[1]
    across, up, through = PLANES[plane]
    world = [None, None, None]
    world[across], world[up] = np.meshgrid(view.across_mm, view.up_mm)
    world[through] = np.full_like(world[across], view.position_mm)
    # Linear interpolation at 4 mm of a head that changes over some 10 mm errs by a few percent at most.
    assert np.abs(sample(img, view) - head_at(*world)).max() < 0.05 * 300


def test_a_linear_ramp_is_sampled_exactly_on_an_oblique_grid() -> None:
    shape, affine = grid_affine("oblique")
    x, y, z = world_of(shape, affine)
    ramp = image_on((x + 10 * y - 3 * z).astype(np.float32), affine)
    view = spread_views(np.array([[-40, 40], [-40, 40], [-40, 40]]), "coronal", 1, margin_mm=0)[0]
    expected = view.across_mm + 10 * view.position_mm - 3 * view.up_mm[:, None]
    np.testing.assert_allclose(sample(ramp, view), expected, atol=1e-2)


def test_labels_are_never_mixed() -> None:
    _, mask = head("oblique")
    dseg = labels_on(mask)
    for view in spread_views(world_box(mask), "axial", 4):
        assert set(np.unique(sample(dseg, view, order=0, outside=0))) <= {0, 8, 77, 1001, 2035}


@pytest.mark.parametrize("name", ["RAS", *GRIDS, "oblique"])
def test_the_box_of_a_mask_is_that_of_all_its_voxels(name: str) -> None:
    _, mask = head(name)
    inside = world_of(mask.shape, mask.affine)[:, np.asanyarray(mask.dataobj) > 0]
    np.testing.assert_allclose(world_box(mask), np.stack([inside.min(1), inside.max(1)], 1), atol=1e-9)


def test_slices_lie_at_whole_millimetres_inside_the_box() -> None:
    box = np.array([[-61.3, 58.2], [-100.7, 70.1], [-50.9, 66.6]])
    for plane, (_, _, through) in PLANES.items():
        positions = [view.position_mm for view in spread_views(box, plane, 7)]
        assert positions == sorted(set(positions))
        assert box[through, 0] < positions[0]
        assert positions[-1] < box[through, 1]
        assert all(position == round(position) for position in positions)


@pytest.mark.parametrize("name", ["LPS", "oblique"])
def test_left_of_the_head_is_left_of_the_picture_and_marked_so(name: str) -> None:
    t1w, mask = head(name)
    figure = figures.brain_mask_figure(t1w, mask)
    picture = pixels(figure)
    height, width = picture.shape[:2]
    for axes in figure.axes[:14]:
        box = axes.get_position()
        rows = slice(int((1 - box.y1) * height), int((1 - box.y0) * height))
        columns = slice(int(box.x0 * width), int(box.x1 * width))
        panel = picture[rows, columns].mean(axis=2)
        left, right = np.array_split(panel, 2, axis=1)
        assert left.mean() > 1.3 * right.mean()
    letters = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert letters["L"][0] < 0.5 < letters["R"][0]
    assert letters["P"][1] < 0.5 < letters["A"][1]
    assert "neurological" in " ".join(text.get_text() for text in figure.texts)


def test_sagittal_slices_face_right_and_name_their_side() -> None:
    figure = figures.brain_mask_figure(*head("LPS"))
    first, last = figure.axes[14], figure.axes[20]
    letters = {text.get_text(): text.get_position() for text in first.texts}
    assert letters["P"][0] < 0.5 < letters["A"][0]
    assert first.get_title().endswith("(L)")
    assert last.get_title().endswith("(R)")


@pytest.mark.slow
def test_whole_figures_look_the_same_in_every_orientation(drawn: dict[str, Drawing]) -> None:
    t1w, mask = head("SAR")
    turned = {
        "parcellation": figures.parcellation_figure(t1w, labels_on(mask), color_table()),
        "coregistration": figures.coregistration_figure(t1w, t1w, mask),
    }
    for what, figure in turned.items():
        # A rounded grey level here or there.
        assert np.abs(pixels(figure) - pixels(drawn[what]())).mean() < 0.05, what


@pytest.mark.slow
def test_nothing_overlaps_and_nothing_is_cut_off(drawn: dict[str, Drawing]) -> None:
    for what, draw in drawn.items():
        figure = draw()
        pixels(figure)
        renderer = figure.canvas.get_renderer()
        texts = [*figure.texts, *(axes.title for axes in figure.axes)]
        texts += [axes.yaxis.label for axes in figure.axes]
        texts += [tick.label2 for axes in figure.axes for tick in axes.yaxis.get_major_ticks()]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
        for label, box in boxes:
            assert box.x0 >= 0, (what, label)
            assert box.y0 >= 0, (what, label)
            assert box.x1 <= figure.bbox.width, (what, label)
            assert box.y1 <= figure.bbox.height, (what, label)
        for (a, box_a), (b, box_b) in combinations(boxes, 2):
            assert not box_a.overlaps(box_b), (what, a, b)


@pytest.mark.parametrize("thickness", [1.0, 3.0])
def test_a_millimetre_is_as_long_in_every_direction(thickness: float) -> None:
    t1w, mask = head("RAS")
    stretched = np.diag([1, 1, thickness, 1]) @ t1w.affine
    figure = figures.brain_mask_figure(
        image_on(np.asanyarray(t1w.dataobj), stretched), image_on(np.asanyarray(mask.dataobj), stretched)
    )
    scales = []
    for axes in figure.axes:
        box = axes.get_window_extent()
        scales += [box.width / np.ptp(axes.get_xlim()), box.height / np.ptp(axes.get_ylim())]
    np.testing.assert_allclose(scales, scales[0], rtol=1e-6)


def test_colour_bars_have_units_and_name_the_reference(drawn: dict[str, Drawing]) -> None:
    names = ("suvr", "reference", "coregistration", "synthetic", "synthetic alone", "mask", "parcellation")
    labels = {what: [axes.get_ylabel() for axes in drawn[what]().axes if axes.get_ylabel()] for what in names}
    assert labels["suvr"] == ["SUVR (reference: CerebellarGM)"]
    assert labels["reference"] == ["SUVR (reference: CerebellarGM)"]
    assert labels["coregistration"] == ["Activity (kBq/mL)"]
    assert labels["synthetic"] == ["SUVR (reference: CerebellarGM)", "Synthetic minus measured SUVR"]
    assert labels["synthetic alone"] == ["SUVR (reference: CerebellarGM)"]
    assert labels["mask"] == labels["parcellation"] == []


@pytest.mark.parametrize(("unit", "label"), [("g/mL", "Uptake (g/mL)"), ("", "Uptake (unit not stated)")])
def test_pet_in_another_unit_is_labelled_so(unit: str, label: str) -> None:
    t1w, mask = head("RAS")
    figure = figures.coregistration_figure(t1w, t1w, mask, unit=unit)
    assert label in [axes.get_ylabel() for axes in figure.axes]


def test_the_suvr_scale_does_not_follow_the_data(drawn: dict[str, Drawing]) -> None:
    t1w, mask = head("RAS")
    faint = image_like(np.asanyarray(t1w.dataobj) * 0.001, t1w)
    for figure in (drawn["suvr"](), figures.suvr_figure(faint, t1w, mask=mask)):
        shown = [image for axes in figure.axes for image in axes.images if image.get_cmap().name == sheet.UPTAKE_MAP]
        assert len(shown) == 21
        assert {image.get_clim() for image in shown} == {(0.5, 2.5)}
        assert "0.5 to 2.5" in figure.texts[0].get_text()


def test_a_synthetic_map_is_shown_beside_the_measured_one_and_their_difference(drawn: dict[str, Drawing]) -> None:
    """The measured map is 0 here, so that the difference is the synthetic map itself, in the brain."""
    values = {note: [] for note in ("T1w", "measured", "synthetic", "difference")}
    for axes in drawn["synthetic"]().axes:
        if axes.images:
            values[axes.get_title().split(", ")[-1]].append(np.asarray(axes.images[0].get_array()))
    assert [len(slices) for slices in values.values()] == [7] * 4
    difference, synthetic = np.array(values["difference"]), np.array(values["synthetic"])
    drawn_there = ~np.isnan(synthetic)
    same, none = np.isclose(difference, synthetic, rtol=1e-6), difference == 0
    assert same.mean() > 0.2
    assert (none & (synthetic > 0.1)).mean() > 0.1
    assert (same | none)[drawn_there].mean() > 0.9  # the rest lies between voxels at the brain's edge
    assert np.nanmax(values["measured"]) == 0
    assert np.nanmax(values["synthetic"]) > 1
    assert "not measured" in drawn["synthetic alone"]().texts[0].get_text()


def test_every_label_has_its_own_colour_beyond_255_too_and_one_without_is_grey(drawn: dict[str, Drawing]) -> None:
    pixel = np.concatenate([axes.images[1].get_array().reshape(-1, 4) for axes in drawn["parcellation"]().axes])
    code = pixel[pixel[:, 3] > 0][:, :3] @ (1, 2, 4)
    assert set(np.unique(code)) == {1, 2, 4, 3.5}


def test_missing_values_are_drawn_grey() -> None:
    t1w, mask = head("RAS")
    holes = np.asanyarray(t1w.dataobj) / 100
    holes[20:26, 20:34, 10:34] = np.nan
    figure = figures.suvr_figure(image_like(holes, t1w), t1w, mask=mask)
    gray = (pixels(figure) == 0x40).all(axis=2)
    assert gray.sum() > 100


@pytest.mark.slow
def test_images_that_are_integer_negative_or_constant_can_be_drawn() -> None:
    t1w, mask = head("RAS")
    constant, negative = np.full(t1w.shape, 7, np.int16), -np.asanyarray(t1w.dataobj)
    pixels(figures.coregistration_figure(image_like(constant, t1w), image_like(negative, t1w), mask))
    pixels(figures.brain_mask_figure(image_like(constant * 0, t1w), mask))


def test_inputs_are_left_as_they_were() -> None:
    t1w, mask = head("RAS")
    before = [np.array(img.dataobj) for img in (t1w, mask)], [img.affine.copy() for img in (t1w, mask)]
    figures.coregistration_figure(t1w, t1w, mask)
    figures.parcellation_figure(t1w, mask, color_table())
    for img, data, affine in zip((t1w, mask), *before, strict=True):
        np.testing.assert_array_equal(np.asanyarray(img.dataobj), data)
        np.testing.assert_array_equal(img.affine, affine)


def test_without_a_mask_the_suvr_is_spread_over_the_head() -> None:
    t1w, _ = head("LPS")
    figure = figures.suvr_figure(image_like(np.asanyarray(t1w.dataobj) / 100, t1w), t1w)
    assert len(figure.axes) == 29


def test_an_empty_mask_is_refused_in_words() -> None:
    t1w, mask = head("RAS")
    empty = image_like(np.zeros(mask.shape, np.uint8), mask)
    with pytest.raises(ImageError, match="mask is empty"):
        figures.brain_mask_figure(t1w, empty)


def test_images_on_two_grids_are_refused() -> None:
    (t1w, mask), (_, other) = head("RAS"), head("LAS")
    for draw in (
        lambda: figures.brain_mask_figure(t1w, other),
        lambda: figures.coregistration_figure(t1w, other, mask),
        lambda: figures.suvr_figure(other, t1w, mask=mask),
        lambda: figures.reference_region_figure(t1w, mask, "Pons", suvr=other),
        lambda: synthesis.synthetic_figure(t1w, t1w, mask, measured=other),
    ):
        with pytest.raises(GridMismatchError):
            draw()


def test_a_scale_that_runs_backwards_is_refused() -> None:
    t1w, mask = head("RAS")
    with pytest.raises(SettingError, match="from 3 to 3"):
        figures.suvr_figure(t1w, t1w, 3, 3, mask=mask)


def test_a_hostile_region_name_is_drawn_as_it_is() -> None:
    t1w, mask = head("RAS")
    pixels(figures.reference_region_figure(t1w, mask, r"$\frac{1}{$ <b>_^", suvr=t1w))


@pytest.mark.slow
def test_a_saved_figure_is_complete_and_the_same_each_time(drawn: dict[str, Drawing], tmp_path: Path) -> None:
    t1w, mask = head("RAS")
    made = (drawn["mask"](), figures.brain_mask_figure(t1w, mask))
    first, second = (
        sheet.save_figure(one, tmp_path / name) for one, name in zip(made, ("a.png", "b.png"), strict=True)
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_figure_that_cannot_be_saved_says_where(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        sheet.save_figure(Figure(figsize=(1, 1)), tmp_path / "taken" / "a.png")


@pytest.mark.slow
def test_importing_figures_is_light_and_drawing_leaves_pyplot_alone() -> None:
    code = """
import sys
import tau_pipeline.figures.participant
assert "matplotlib" not in sys.modules
import numpy as np
from tau_pipeline.imaging.volume import image_on
img = image_on(np.ones((20, 20, 20), np.float32), np.diag([4.0, 4, 4, 1]))
tau_pipeline.figures.participant.coregistration_figure(img, img, img)
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/heads_thick_slices")
def test_a_real_head_with_thick_slices_shows_its_brain_inside_the_panels() -> None:
    stem = DATA / "heads_thick_slices" / "patient04_study1_"
    t1w, mask = (load_volume(f"{stem}{name}.nii.gz") for name in ("T1W", "brainmask"))
    for plane, views in ((plane, spread_views(world_box(mask), plane, 5)) for plane in PLANES):
        for view in views:
            inside = sample(mask, view, outside=0) > 0.5
            assert inside.any(), plane
            assert not inside[[0, -1]].any(), plane
            assert not inside[:, [0, -1]].any(), plane
            assert np.nanmean(sample(t1w, view)[inside]) > 0
