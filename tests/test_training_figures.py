"""Figures of a training: what they show, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tau_pipeline.errors import ImageError
from tau_pipeline.figures.sheet import save_figure
from tau_pipeline.figures.training import PLANE_TINTS, Sample, learning_curves_figure, regional_figure, samples_figure


def rows(n: int = 6) -> list[dict[str, float | int | str]]:
    planes = ["axial", "axial", "coronal", "coronal", "sagittal", "sagittal"]
    return [
        {
            "epoch": epoch,
            "plane": planes[epoch],
            "learning_rate": 1e-3,
            "train_loss": 2.0 / (1 + epoch),
            "train_mse": 1.0 / (1 + epoch),
            "train_ssim": 0.5 / (1 + epoch),
            "validation_loss": 2.5 / (1 + epoch),
            "validation_ssim": 0.1 * epoch,
        }
        for epoch in range(n)
    ]


def test_each_curve_holds_the_numbers_of_the_log_and_the_background_shows_the_plane() -> None:
    figure = learning_curves_figure(rows())
    by_title = {axes.get_title(): axes for axes in figure.axes}
    curves = {line.get_label(): line.get_ydata() for line in by_title["loss"].lines}
    np.testing.assert_allclose(curves["train loss"], [2.0 / (1 + epoch) for epoch in range(6)])
    np.testing.assert_allclose(curves["validation loss"], [2.5 / (1 + epoch) for epoch in range(6)])
    parts = {line.get_label() for line in by_title["parts of the training loss"].lines}
    assert len(parts) == 2
    assert len(by_title["loss"].patches) == len(PLANE_TINTS)
    assert [patch.get_x() for patch in by_title["loss"].patches] == [-0.5, 1.5, 3.5]


def test_epochs_without_validation_leave_no_gap_in_the_curves() -> None:
    log = rows()
    for epoch in (0, 2, 4):
        log[epoch] |= {"validation_ssim": float("nan"), "validation_loss": float("nan")}
    by_title = {axes.get_title(): axes for axes in learning_curves_figure(log).axes}
    (curve,) = by_title["SSIM, on the model's grid"].lines
    np.testing.assert_allclose(curve.get_xydata(), [(1, 0.1), (3, 0.3), (5, 0.5)])
    # A single validation is no line: its point is drawn.
    (point,) = {axes.get_title(): axes for axes in learning_curves_figure(log[:2]).axes}[
        "SSIM, on the model's grid"
    ].lines
    assert (len(point.get_xydata()), point.get_marker()) == (1, "o")


def test_regional_values_are_drawn_per_predictor_and_ssim_scan_by_scan() -> None:
    names = ("model", "training mean")
    scans = pd.DataFrame(
        [
            {"predictor": name, "scan": f"s{n}", "ssim": 0.5 + 0.1 * k + 0.01 * n}
            for k, name in enumerate(names)
            for n in (0, 1)
        ]
    )
    regions = pd.DataFrame(
        [
            {"predictor": name, "kind": kind, "measured": m, "synthetic": m * (2 - k)}
            for k, name in enumerate(names)
            for kind, m in (("cortical", 1.0), ("cortical", 1.5), ("subcortical", 9.0))
        ]
    )
    first, second, last = regional_figure(scans, regions, names).axes
    np.testing.assert_allclose(first.collections[0].get_offsets(), [(1.0, 2.0), (1.5, 3.0)])
    np.testing.assert_allclose(second.collections[0].get_offsets(), [(1.0, 1.0), (1.5, 1.5)])
    np.testing.assert_allclose(last.collections[0].get_offsets(), [(0.6, 0.5), (0.61, 0.51)])
    assert last.get_title().replace("\n", " ") == "SSIM: model better in 0 of 2 scans"
    with pytest.raises(ImageError, match="nothing to draw"):
        regional_figure(scans, regions.assign(measured=np.nan), names)


def test_a_log_without_validation_or_plane_is_drawn_all_the_same(tmp_path: Path) -> None:
    bare = [{"epoch": 0, "plane": "n/a", "learning_rate": 1e-3, "train_loss": 1.0}]
    assert save_figure(learning_curves_figure(bare), tmp_path / "a.png").stat().st_size > 0


def test_samples_show_t1w_measured_and_synthetic_in_one_scale_and_say_synthetic() -> None:
    rng = np.random.default_rng(0)
    arrays = [np.abs(rng.normal(size=(6, 8, 10))) for _ in range(3)]
    figure = samples_figure([Sample(*arrays, title="sub-01 (GE)"), Sample(*arrays, title="sub-02")])
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 2 * 9
    assert {axes.get_title(loc="left") for axes in pictures} - {""} == {"T1w", "measured", "synthetic"}
    synthetic = [axes for axes in pictures if axes.get_title(loc="left") == "synthetic"]
    np.testing.assert_allclose(synthetic[0].images[0].get_array(), arrays[2][:, :, 5].T)
    suvr = [axes.images[0].get_clim() for axes in pictures if axes.images[0].get_cmap().name == "inferno"]
    assert len(set(suvr)) == 1
    assert "synthetic" in figure.texts[0].get_text()
    assert any("on the model's grid" in text.get_text() for text in figure.texts)


def test_nothing_to_draw_is_one_sentence() -> None:
    with pytest.raises(ImageError, match="no epoch yet"):
        learning_curves_figure([])
    with pytest.raises(ImageError, match="no scan"):
        samples_figure([])
    one, other = np.ones((3, 3, 3)), np.ones((3, 3, 4))
    with pytest.raises(ImageError, match="differ in shape"):
        samples_figure([Sample(one, one, other, "sub-01")])
