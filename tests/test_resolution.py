from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tau_pipeline.errors import ImageError, SettingError, UnknownNameError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA, smooth
from tau_pipeline.imaging.volume import image_on
from tau_pipeline.pet.resolution import (
    SCANNERS,
    Resolution,
    estimate_fwhm,
    image_resolution,
    resolution_figures,
    scanner_fwhm,
    smoothing_kernel_mm,
    uniform_resolution_mm,
)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "ds-simtau"


def impulse(voxel_mm=(1.0, 2.0, 3.0), shape=(61, 41, 31)):
    data = np.zeros(shape, np.float32)
    data[tuple(n // 2 for n in shape)] = 1000.0
    return image_on(data, np.diag([*voxel_mm, 1.0]))


def test_an_impulse_gets_the_variance_of_the_kernel_along_every_axis_of_an_anisotropic_grid():
    out = np.asanyarray(smooth(impulse(), 9.0).dataobj, dtype=np.float64)
    assert out.sum() == pytest.approx(1000.0, rel=1e-5)
    for axis, size in enumerate((1.0, 2.0, 3.0)):
        profile = out.sum(axis=tuple(a for a in range(3) if a != axis))
        at = (np.arange(len(profile)) - len(profile) // 2) * size
        assert (profile * at**2).sum() / profile.sum() == pytest.approx((9.0 / FWHM_PER_SIGMA) ** 2, rel=0.01)


def test_smoothing_twice_is_smoothing_once_by_the_root_of_the_sum_of_squares():
    twice = smooth(smooth(impulse((2.0, 2.0, 2.0)), 6.0), 8.0)
    once = smooth(impulse((2.0, 2.0, 2.0)), 10.0)
    np.testing.assert_allclose(np.asanyarray(twice.dataobj), np.asanyarray(once.dataobj), atol=0.02)


def test_a_kernel_brings_the_native_resolution_to_the_target():
    assert smoothing_kernel_mm(8.0, 8.0) == 0.0
    assert np.hypot(smoothing_kernel_mm(8.0, 5.3), 5.3) == pytest.approx(8.0)


def test_a_scanner_coarser_than_the_target_is_an_error_with_both_figures():
    with pytest.raises(SettingError, match=r"6\.3 mm is coarser than the target of 6"):
        smoothing_kernel_mm(6.0, 6.3)
    with pytest.raises(SettingError, match="positive"):
        smoothing_kernel_mm(float("nan"), 6.3)


def test_a_constant_image_with_holes_stays_constant_and_keeps_its_holes():
    data = np.full((12, 12, 12), 3.0, np.float32)
    data[4:7, 5, 5] = np.nan
    out = np.asanyarray(smooth(image_on(data, np.eye(4)), 5.0).dataobj)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(data))
    np.testing.assert_allclose(out[np.isfinite(data)], 3.0, rtol=1e-5)


def test_time_is_not_smoothed():
    data = np.zeros((9, 9, 9, 2), np.float32)
    data[4, 4, 4, 0] = 1.0
    out = np.asanyarray(smooth(image_on(data, np.eye(4)), 3.0).dataobj)
    assert (out[..., 1] == 0).all()
    assert 0 < out[4, 4, 4, 0] < 1


def test_a_width_of_zero_copies_and_a_negative_one_is_refused():
    img = impulse()
    out = smooth(img, 0.0)
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), np.asanyarray(img.dataobj))
    with pytest.raises(SettingError, match="-1"):
        smooth(img, -1.0)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Biograph_mMR", "Biograph mMR"),
        ("Biograph 64_mCT", "Biograph mCT"),
        ("Biograph mCT Flow", "Biograph mCT Flow"),
        ("HRRT", "HRRT"),
        ("High-Resolution Research Tomograph (HRRT, CTI/Siemens)", "HRRT"),
        ("ECAT HR+", "ECAT EXACT HR+"),
        ("Biograph TruePoint 1093", "Biograph TruePoint (6, 16, 40, 64)"),
        ("SIEMENS Biograph 16", "Biograph HiRez (6, 16)"),
        ("Discovery 690", "Discovery 690 / 710"),
        ("Discovery STE", "Discovery STE / VCT"),
        ("Discovery ST", "Discovery ST"),
        ("Discovery RX", "Discovery RX"),
        ("Discovery MI", "Discovery MI"),
        ("SIGNA PET/MR", "Signa PET/MR"),
        ("GEMINI TF TOF 64", "Gemini TF"),
        ("Ingenuity TF PET/CT", "Ingenuity TF"),
        ("Guardian Body(C)", "Allegro / Guardian Allegro"),
        ("Vereos PET/CT", "Vereos"),
        ("Biograph128_Vision 600", "Biograph Vision"),
    ],
)
def test_spellings_found_in_headers_find_their_scanner(model, expected):
    assert scanner_fwhm("any", model).model == expected


def test_every_scanner_of_the_table_is_found_by_its_own_name_and_has_a_source():
    for scanner in SCANNERS:
        plain = scanner.model.split("(", maxsplit=1)[0].split("/", maxsplit=1)[0].strip()
        assert scanner_fwhm(scanner.manufacturer, scanner.model if "PET/MR" in scanner.model else plain) == scanner
        assert any(c.isdigit() for c in scanner.source)
        assert 2.0 < scanner.fwhm_mm < 7.0


def test_an_unknown_model_is_an_error_that_lists_the_known_ones():
    for model in ("Quantum 9000", "", None):
        with pytest.raises(UnknownNameError, match="Siemens Biograph mMR"):
            scanner_fwhm("ACME", model)


def folded(fwhm_mm, voxel_mm=(2.0, 2.0, 2.4), shape=(96, 96, 80), noise=0.0):
    """A random object whose power falls as k**-3, blurred by a Gaussian: exact by construction."""
    rng = np.random.default_rng(5)
    axes = [np.fft.fftfreq(n, d) for n, d in zip(shape, voxel_mm, strict=True)]
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    k[0, 0, 0] = np.inf
    blur = np.exp(-2 * (np.pi * np.where(np.isinf(k), 0, k) * fwhm_mm / FWHM_PER_SIGMA) ** 2)
    data = np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) / k**1.5 * blur).real
    return image_on(data + noise * data.std() * rng.normal(size=shape), np.diag([*voxel_mm, 1.0]))


@pytest.mark.parametrize("fwhm_mm", [4.0, 6.0, 8.0])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_known_blur_of_an_object_of_known_power_is_estimated_within_a_tenth(fwhm_mm, noise):
    assert estimate_fwhm(folded(fwhm_mm, noise=noise)) == pytest.approx(fwhm_mm, rel=0.1)


def test_an_image_that_is_cut_off_at_full_activity_has_no_sharp_edge_there():
    long = folded(8.0, shape=(96, 96, 160))
    assert estimate_fwhm(long.slicer[:, :, 40:120]) == pytest.approx(8.0, rel=0.1)


def test_an_estimate_grows_with_added_smoothing():
    image = folded(5.0)
    values = [estimate_fwhm(smooth(image, added)) for added in (0.0, 3.0, 6.0)]
    assert values == sorted(values)
    assert np.hypot(values[0], 6.0) == pytest.approx(values[2], rel=0.1)


def test_an_image_that_tells_nothing_of_its_resolution_is_an_error():
    with pytest.raises(ImageError, match="cannot be estimated"):
        estimate_fwhm(image_on(np.zeros((20, 20, 20)), np.eye(4)))
    with pytest.raises(ImageError, match="cannot be estimated"):
        estimate_fwhm(image_on(np.random.default_rng(0).normal(size=(64, 64, 64)), np.diag([2.0, 2.0, 2.0, 1.0])))


def test_a_known_scanner_is_looked_up_and_its_reconstruction_filter_added():
    image = impulse()
    plain = image_resolution({"Manufacturer": "Siemens", "ManufacturersModelName": "Biograph mMR"}, image)
    assert plain.fwhm_mm == pytest.approx(4.3)
    assert not plain.estimated
    filtered = image_resolution(
        {"ManufacturersModelName": "Biograph mMR", "ReconFilterType": "Gaussian", "ReconFilterSize": 4.0}, image
    )
    assert filtered.fwhm_mm == pytest.approx(np.hypot(4.3, 4.0))
    assert "filter of 4 mm" in filtered.source
    none = image_resolution(
        {"ManufacturersModelName": "Biograph mMR", "ReconFilterType": ["none"], "ReconFilterSize": [0]}, image
    )
    assert none.fwhm_mm == plain.fwhm_mm


def test_an_unknown_scanner_is_estimated_and_the_sidecar_can_say_so():
    found = image_resolution({"ManufacturersModelName": "Quantum 9000"}, folded(6.0))
    assert found.estimated
    assert "Quantum 9000" in found.source
    assert found.fwhm_mm == pytest.approx(6.0, rel=0.1)


def test_smoothing_agrees_with_an_obvious_convolution():
    data = np.random.default_rng(0).random((9, 8, 7)).astype(np.float32)
    out = np.asanyarray(smooth(image_on(data, np.diag([2.0, 2.0, 2.0, 1.0])), 4.0).dataobj)
    offsets = np.arange(-5, 6)
    kernel = np.exp(-0.5 * (offsets * 2.0 / (4.0 / FWHM_PER_SIGMA)) ** 2)
    kernel /= kernel.sum()
    expected = data.astype(float)
    for axis in range(3):
        expected = ndimage.convolve1d(expected, kernel, axis=axis, mode="nearest")
    np.testing.assert_allclose(out, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/ds-simtau")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_resolution_of_a_simulated_scan_and_of_a_brain_map_of_known_blur_is_estimated_to_about_a_millimetre(number):
    scan = json.loads((DATA / "truth" / "scans.json").read_text())[number]
    sub = scan["participant"]
    pet = load_volume(DATA / sub / "pet" / f"{sub}_trc-AV1451_pet.nii.gz")
    data = np.asanyarray(pet.dataobj)
    frame = image_on(data if data.ndim == 3 else data[..., 0], pet.affine)
    assert estimate_fwhm(frame) == pytest.approx(scan["fwhm"], abs=1.25)
    labels = load_volume(DATA / "truth" / f"{sub}_labels.nii.gz")
    uptake = np.zeros(70000)
    uptake[[int(k) for k in scan["uptake"]]] = list(scan["uptake"].values())
    brain = np.pad(uptake[np.asanyarray(labels.dataobj).astype(int)], 12)
    for fwhm_mm in (4.0, 6.0, 8.0):
        blurred = smooth(image_on(brain, labels.affine), fwhm_mm)
        assert estimate_fwhm(blurred) == pytest.approx(fwhm_mm, abs=1.25)


def test_found_and_stated_resolution_are_compared_only_in_voxels_that_can_show_it():
    stated = Resolution(5.0, "of a scanner", False)
    found = resolution_figures(stated, folded(7.0))
    assert found["FWHMDifference"] == pytest.approx(2.0, abs=0.7)
    coarse = (3.5, 3.5, 5.7)
    assert resolution_figures(stated, folded(7.0, voxel_mm=coarse)) == {}
    # What spans two coarse voxels is shown by them.
    assert resolution_figures(stated, folded(13.0, voxel_mm=coarse))["FWHMDifference"] == pytest.approx(8.0, abs=1.5)
    assert resolution_figures(Resolution(5.0, "estimated", True), folded(7.0)) == {}


@pytest.mark.parametrize(
    ("description", "expected_mm"),
    [
        ("AV1451 Coreg, Avg, Std Img and Vox Siz, Uniform 6mm Res", 6.0),
        ("AV1451 Coreg, Avg, Std Img and Vox Siz, Uniform Resolution", 8.0),
        ("Uniform Resolution 6 mm", 6.0),
        ("uniform resolution: 5.5 mm", 5.5),
        ("PET 3 mm uniformity correction", None),
        ("", None),
    ],
)
def test_a_resolution_that_images_were_smoothed_to_comes_before_the_scanners(description, expected_mm):
    metadata = {"SeriesDescription": description, "Manufacturer": "Siemens", "ManufacturersModelName": "Biograph mMR"}
    assert uniform_resolution_mm(metadata) == expected_mm
    assert image_resolution(metadata, impulse()).fwhm_mm == (expected_mm or 4.3)
