"""Partial volume correction, against a head whose truth is known and against slow plain computations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pvc_phantom import HOT, UPTAKE, PetPhantom, phantom
from scipy import ndimage

from tau_pipeline.atlas import label_array
from tau_pipeline.cohort.columns import dictionary
from tau_pipeline.cohort.tables import WIDE_KEYS, wide_table
from tau_pipeline.derivatives.read import read_regions
from tau_pipeline.errors import ImageError, ReferenceRegionError
from tau_pipeline.files import write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.imaging.transforms import rotation, save_itk
from tau_pipeline.imaging.volume import image_like, image_on, save_volume
from tau_pipeline.measures.regions import regional_table
from tau_pipeline.pvc import maps
from tau_pipeline.pvc.cerebellum import with_lobules
from tau_pipeline.pvc.correct import (
    PVC_KEYS,
    add_columns,
    correct,
    map_values,
    reference_shares,
    reference_value,
    sidecar,
)
from tau_pipeline.pvc.hot_spots import with_hot_spots
from tau_pipeline.pvc.maps import CorrectedMaps, blur_on_t1w
from tau_pipeline.pvc.methods import estimate
from tau_pipeline.pvc.model import Blurred, blur_regions
from tau_pipeline.pvc.psf import PointSpread, estimate_point_spread, given_point_spread, resolution_by_regions
from tau_pipeline.pvc.regions import HOT_SPOTS, SHELLS_MM, SULCAL_CSF, RegionModel, region_model
from tau_workflows.interfaces.pvc import CorrectPartialVolume

FWHM = (6.0, 6.0, 6.0)
BRAIN = [label for label in UPTAKE if label not in (0, SULCAL_CSF)]


@pytest.fixture(scope="module")
def head() -> PetPhantom:
    return phantom(FWHM)


@pytest.fixture(scope="module")
def model(head: PetPhantom) -> RegionModel:
    return region_model(head.pet, head.dseg, head.mask, head.pet2t1w)


@pytest.fixture(scope="module")
def blurred(head: PetPhantom, model: RegionModel) -> Blurred:
    return blur_regions(model, model.cut(head.pet.get_fdata()), FWHM)


def values_of(model: RegionModel, values: np.ndarray) -> np.ndarray:
    return np.array([values[model.numbers.index(label)] for label in BRAIN])


TRUE = np.array([UPTAKE[label] for label in BRAIN])


@pytest.mark.parametrize("method", ["sgtm", "gtm", "rbv"])
@pytest.mark.slow
def test_what_was_blurred_comes_back(blurred: Blurred, method: str) -> None:
    found = values_of(blurred.model, estimate(method, blurred).values)
    assert np.abs(found / TRUE - 1).max() < 1e-3


def test_ten_iterations_of_yang_come_near(blurred: Blurred) -> None:
    assert np.abs(values_of(blurred.model, estimate("iy", blurred).values) / TRUE - 1).max() < 2e-3


def test_without_correction_the_cortex_is_far_off(blurred: Blurred) -> None:
    """The phantom is a hard one: the test of what comes back would fail without a correction."""
    means = blurred.fractions.T @ blurred.pet / np.asarray(blurred.fractions.sum(axis=0)).ravel()
    assert np.abs(values_of(blurred.model, means) / TRUE - 1).max() > 0.15


def test_the_regions_explain_every_voxel_of_the_brain(blurred: Blurred) -> None:
    inside = blurred.model.distance_mm[blurred.rows] == 0
    share = np.asarray(blurred.columns.sum(axis=1)).ravel()[inside]
    assert np.abs(share - 1).max() < 0.01
    assert abs(share.mean() - 1) < 2e-4


def test_gaps_between_regions_belong_to_what_surrounds_the_brain(head: PetPhantom) -> None:
    """A gap half as wide as a voxel, in labels and mask, must not leave voxels without an explanation."""
    labels, inside = label_array(head.dseg).copy(), head.mask.get_fdata() > 0
    gap = np.zeros(labels.shape, bool)
    gap[:, :, labels.shape[2] // 2 + 6] = True
    labels[gap], inside[gap] = 0, False
    model = region_model(head.pet, image_like(labels, head.dseg), image_like(inside, head.dseg), head.pet2t1w)
    blurred = blur_regions(model, model.cut(head.pet.get_fdata()), FWHM)
    assert blurred.rows[model.distance_mm == 0].all()


def test_each_region_keeps_its_volume(head: PetPhantom, model: RegionModel) -> None:
    labels = label_array(head.dseg)
    for label in BRAIN:
        volume = model.volumes_mm3[model.numbers.index(label)]
        assert volume == pytest.approx((labels == label).sum(), rel=1e-5)


@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (1.0, 1.2, 4.0), (4.0, 4.0, 4.0)])
def test_the_blur_in_the_fractions_is_what_the_model_says(voxel_mm: tuple[float, float, float]) -> None:
    """A block of labels: the variance of its fractions is that of the block, and the blur's beside it."""
    shape = np.round(64 / np.array(voxel_mm)).astype(int)
    inner = tuple(slice(size // 4, size - size // 4) for size in shape)
    labels = np.zeros(shape, np.int16)
    labels[inner] = 2
    dseg = image_on(labels, np.diag([*voxel_mm, 1.0]))
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = rotation(np.radians([7.0, -9.0, 13.0])), (3.1, -2.3, 1.7)
    pet = image_on(np.zeros((40, 40, 40), np.float32), np.diag([2.2, 2.5, 3.0, 1.0]))
    model = region_model(pet, dseg, image_like(labels > 0, dseg), turned)
    fraction = model.fractions[model.numbers.index(2)].astype(float)
    edges = np.array([one.stop - one.start for one in inner]) * voxel_mm
    of_block = np.linalg.inv(turned)[:3, :3] ** 2 @ (edges**2 / 12)
    for axis, found in enumerate(model.voxel_mm):
        at = (np.indices(fraction.shape)[axis] + 0.5) * found
        mean = np.average(at, weights=fraction)
        variance = np.average((at - mean) ** 2, weights=fraction)
        assert variance - of_block[axis] == pytest.approx(model.variance_mm2[axis], abs=0.03)


def test_the_unit_of_the_pet_does_not_matter(blurred: Blurred) -> None:
    for method in ("sgtm", "gtm", "rbv", "iy", "mg", "meltzer"):
        once, scaled = estimate(method, blurred), estimate(method, replace(blurred, pet=blurred.pet * 4321.0))
        assert np.allclose(scaled.values, once.values * 4321.0, rtol=1e-6, equal_nan=True)


def test_the_numbers_of_the_regions_do_not_matter(head: PetPhantom, blurred: Blurred) -> None:
    """Numbers decide the order of the columns; here the cortex comes in another order."""
    labels = label_array(head.dseg).copy()
    swapped = labels.copy()
    swapped[labels == 1001], swapped[labels == 2006] = 2006, 1001
    other = region_model(head.pet, image_like(swapped, head.dseg), head.mask, head.pet2t1w)
    found = estimate("sgtm", blur_regions(other, other.cut(head.pet.get_fdata()), FWHM)).values
    once = estimate("sgtm", blurred).values
    at = {label: blurred.model.numbers.index(label) for label in (1001, 1002, 2006)}
    assert found[at[2006]] == pytest.approx(once[at[1001]], rel=1e-5)
    assert found[at[1001]] == pytest.approx(once[at[2006]], rel=1e-5)
    assert found[at[1002]] == pytest.approx(once[at[1002]], rel=1e-5)


@pytest.mark.slow
def test_the_point_spread_is_found() -> None:
    made = phantom((5.0, 5.0, 7.5))
    model = region_model(made.pet, made.dseg, made.mask, made.pet2t1w)
    found = estimate_point_spread(model, model.cut(made.pet.get_fdata()))
    assert np.allclose(found.fwhm_mm, (5.0, 5.0, 7.5), atol=0.06)
    assert not found.at_bound


def test_a_point_spread_beyond_the_range_of_search_is_said(head: PetPhantom, model: RegionModel) -> None:
    wide = ndimage.gaussian_filter(head.pet.get_fdata(), 16 / FWHM_PER_SIGMA / 2.5)
    found = estimate_point_spread(model, model.cut(wide))
    assert found.at_bound
    assert "state --psf" in found.source


@pytest.mark.slow
def test_hot_spots_around_the_brain_become_regions_and_no_longer_raise_the_cortex() -> None:
    """A patch of meninges with seven times the uptake of what surrounds it; the true cortex below has 2.0 and 1.2."""
    made = phantom(FWHM, uptake={**UPTAKE, HOT: 3.0}, hot=True)
    model = region_model(made.pet, made.dseg, made.mask, made.pet2t1w)
    pet, spread = model.cut(made.pet.get_fdata()), given_point_spread(FWHM, "")
    with_spots = with_hot_spots(model, pet, FWHM)
    spots = [number for number in with_spots.numbers if number >= HOT_SPOTS]
    assert spots == [HOT_SPOTS]
    assert sum(with_spots.volumes_mm3) == pytest.approx(sum(model.volumes_mm3), rel=1e-6)
    errors = []
    for one in (model, with_spots):
        found = correct(one, pet, spread, ["sgtm"]).by_method["sgtm"].values
        errors.append(np.abs(values_of(one, found) / TRUE - 1).max())
    assert errors[1] < 0.5 * errors[0]
    assert 1.5 < found[with_spots.numbers.index(HOT_SPOTS)] < 4.5
    shares = reference_shares(with_spots, np.array([8]), np.array([True]))
    (told,) = sidecar(correct(with_spots, pet, spread, ["sgtm"]), shares)["PVCExtracerebralRegions"]
    assert told["SUVR"] == pytest.approx(found[with_spots.numbers.index(HOT_SPOTS)] / found[with_spots.column(8)], 0.01)


def test_without_hot_spots_the_regions_stay_as_they_are(head: PetPhantom, model: RegionModel) -> None:
    """Strong uptake in cortex spills outside, but the brain explains it."""
    assert with_hot_spots(model, model.cut(head.pet.get_fdata()), FWHM) is model


def test_what_is_far_from_the_brain_does_not_matter(head: PetPhantom, model: RegionModel) -> None:
    """Uptake that the shells cannot have, beyond the reach of the brain's signal."""
    pet, spread = model.cut(head.pet.get_fdata()), given_point_spread(FWHM, "")
    changed = np.where(model.distance_mm > 9, np.float32(20.0) * pet, pet)
    for method in ("sgtm", "gtm"):
        once, again = (correct(model, one, spread, [method]).by_method[method].values for one in (pet, changed))
        brain = np.array(model.numbers) < min(SHELLS_MM)
        assert np.allclose(again[brain], once[brain], rtol=1e-5)


def test_the_resolution_by_regions_is_that_of_the_blur(head: PetPhantom) -> None:
    assert resolution_by_regions(head.pet, head.dseg, head.mask, head.pet2t1w) == pytest.approx(6.0, abs=0.06)
    wide = image_like(ndimage.gaussian_filter(head.pet.get_fdata(), 16 / FWHM_PER_SIGMA / 2.5), head.pet)
    assert resolution_by_regions(wide, head.dseg, head.mask, head.pet2t1w) is None


def test_what_is_not_measured_is_left_out(head: PetPhantom, model: RegionModel) -> None:
    """Half of the right side is outside of the field of view: the rest keeps its values, what is lost is n/a."""
    pet = model.cut(head.pet.get_fdata())
    whole = correct(model, pet, given_point_spread(FWHM, ""), ["sgtm"]).by_method["sgtm"].values
    cut = pet.copy()
    side = model.boxes[model.numbers.index(2001)]
    cut[(side[0].start + side[0].stop) // 2 - 4 :] = np.nan
    found = correct(model, cut, given_point_spread(FWHM, ""), ["sgtm"]).by_method["sgtm"].values
    lost = np.isnan(found) & ~np.isnan(whole)
    assert {41, 47, 2001, 2002, 2003, 2006} >= {model.numbers[one] for one in np.flatnonzero(lost)} >= {2001}
    left = [model.numbers.index(label) for label in (1001, 1002, 1003, 1006, 2, 8)]
    assert np.allclose(found[left], whole[left], rtol=5e-3)


def test_a_pet_without_values_is_refused(model: RegionModel) -> None:
    with pytest.raises(ImageError, match="no voxel of the head has a PET value"):
        blur_regions(model, np.full(model.shape, np.nan, np.float32), FWHM)


def test_regions_too_small_are_merged_with_a_neighbor_of_their_kind(head: PetPhantom) -> None:
    labels = label_array(head.dseg).copy()
    spot = np.argwhere(labels == 1006)[1000]
    small = tuple(slice(one - 2, one + 3) for one in spot)
    labels[small] = np.where(labels[small] == 1006, 1032, labels[small])
    found = region_model(head.pet, image_like(labels, head.dseg), head.mask, head.pet2t1w)
    assert found.merged == {1032: 1006}
    assert found.column(1032) == found.column(1006)


@pytest.mark.slow
def test_standard_errors_are_as_large_as_the_errors(head: PetPhantom, model: RegionModel) -> None:
    """Correlated noise drawn 20 times: values differ by as much as their standard errors say."""
    rng = np.random.default_rng(1)
    pet = model.cut(head.pet.get_fdata())
    deviations = []
    for _ in range(20):
        noise = ndimage.gaussian_filter(rng.standard_normal(model.shape), 1.2)
        noisy = pet + np.float32(0.1) * (noise / noise.std()).astype(np.float32)
        found = correct(model, noisy, given_point_spread(FWHM, ""), ["gtm"]).by_method["gtm"]
        error = values_of(model, found.values) - TRUE
        deviations.append(error / values_of(model, np.sqrt(np.diag(found.covariance))))
    # The square of a standard normal deviate has the mean 1; 20 x 14 of them, correlated, are within 0.3 of it.
    assert np.mean(np.square(deviations)) == pytest.approx(1.0, abs=0.3)


class Plain:
    """The formulas of the papers on whole images, one region after another, with nothing sparse, boxed, or shared."""

    def __init__(self, blurred: Blurred) -> None:
        model = blurred.model
        self.blurred, self.numbers = blurred, model.numbers
        self.fractions = []
        for box, fraction in zip(model.boxes, model.fractions, strict=True):
            image = np.zeros(model.shape)
            image[box] = fraction
            self.fractions.append(image)
        variance = (np.array(blurred.fwhm_mm) / FWHM_PER_SIGMA) ** 2 - model.variance_mm2
        self.sigma = np.sqrt(variance) / model.voxel_mm
        self.spread = [self.blur(one) for one in self.fractions]
        self.pet = np.zeros(model.shape)
        self.pet[blurred.rows] = blurred.pet

    def blur(self, image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, self.sigma, mode="constant", truncate=4.0)

    def total(self, one: np.ndarray, other: np.ndarray) -> float:
        return float((one * other)[self.blurred.rows].sum())

    def solve(self, weights: list[np.ndarray], images: list[np.ndarray], target: np.ndarray) -> np.ndarray:
        matrix = np.array([[self.total(one, other) for other in images] for one in weights])
        return np.linalg.lstsq(matrix, np.array([self.total(one, target) for one in weights]), rcond=1e-12)[0]

    def gtm(self) -> np.ndarray:
        transfer, means, sizes = [], [], [one[self.blurred.rows].sum() for one in self.fractions]
        seen = [place for place, size in enumerate(sizes) if size > 0]  # the outermost shell is too far away
        for place in seen:
            one, size = self.fractions[place], sizes[place]
            transfer.append([self.total(one, self.spread[other]) / size for other in seen])
            means.append(self.total(one, self.pet) / size)
        values = np.zeros(len(sizes))
        values[seen] = np.linalg.solve(transfer, means)
        return values

    def yang(self, values: np.ndarray) -> np.ndarray:
        """One correction: each voxel times the ratio of the regions' image before and after the blur, unmixed."""
        before = sum(value * one for value, one in zip(np.maximum(values, 0), self.fractions, strict=True))
        after = self.blur(before)
        image = np.divide(self.pet * before, after, out=np.zeros_like(after), where=after > 1e-6)
        return self.solve(self.fractions, self.fractions, image)

    def iterative_yang(self) -> np.ndarray:
        values = self.solve(self.fractions, self.fractions, self.pet)
        for _ in range(10):
            values = self.yang(values)
        return values

    def mueller_gaertner(self) -> np.ndarray:
        gray = [label not in (2, 41, 16, 4, SULCAL_CSF) and label < 9000 for label in self.numbers]
        fitted = self.solve(self.spread, self.spread, self.pet)
        white = sum(
            value * one
            for value, one, label in zip(fitted, self.spread, self.numbers, strict=True)
            if label in (2, 41, 16)
        )
        share = sum(one for one, own in zip(self.spread, gray, strict=True) if own)
        enough = (share > 0.5) & self.blurred.rows
        image = np.where(enough, (self.pet - white) / np.maximum(share, 0.5), 0)
        return np.array(
            [
                (image * one)[enough].sum() / one[enough].sum() if own else np.nan
                for one, own in zip(self.fractions, gray, strict=True)
            ]
        )


@pytest.fixture(scope="module")
def small() -> Blurred:
    """A coarse grid with noise, small enough for the plain computation."""
    made = phantom((7.0, 7.0, 8.0), voxel_mm=(4.0, 4.0, 4.0), size=30)
    model = region_model(made.pet, made.dseg, made.mask, made.pet2t1w)
    pet = model.cut(made.pet.get_fdata())
    pet += np.random.default_rng(0).normal(0, 0.1, pet.shape).astype(np.float32)
    pet[:, :8] = np.nan
    return blur_regions(model, pet, (7.0, 7.0, 8.0))


@pytest.mark.parametrize("method", ["sgtm", "gtm", "rbv", "iy", "mg"])
@pytest.mark.slow
def test_methods_agree_with_the_plain_computation(small: Blurred, method: str) -> None:
    plain = Plain(small)
    expected = {
        "sgtm": lambda: plain.solve(plain.spread, plain.spread, plain.pet),
        "gtm": plain.gtm,
        "rbv": lambda: plain.yang(plain.gtm()),
        "iy": plain.iterative_yang,
        "mg": plain.mueller_gaertner,
    }[method]()
    found = estimate(method, small).values
    gray = np.array([1000 < label < 3000 or label in (8, 47) for label in small.model.numbers])
    assert np.isfinite(found[gray]).all()
    assert np.allclose(found[gray], expected[gray], rtol=2e-4)


def test_meltzer_divides_by_the_share_of_tissue(small: Blurred) -> None:
    """The activity comes back if all tissue has the same and what surrounds it has none."""
    tissue = [label < 3000 and label not in (4, SULCAL_CSF) for label in small.model.numbers]
    only = np.asarray(small.columns[:, np.flatnonzero(tissue)].sum(axis=1)).ravel() * 3.0
    found = estimate("meltzer", replace(small, pet=only)).values
    assert np.allclose(found[np.array(tissue) & small.known], 3.0, rtol=1e-6)


@pytest.fixture(scope="module")
def table(head: PetPhantom) -> pd.DataFrame:
    labels = label_array(head.dseg)
    suvr = image_like(np.ones(labels.shape, np.float32), head.dseg)
    mask = image_like(np.isin(labels, (8, 47)).astype(np.uint8), head.dseg)
    return regional_table(suvr, head.dseg, mask, "CerebellarGM", {"participant_id": "sub-01"})


def test_the_table_gets_values_over_the_corrected_reference_region(
    head: PetPhantom, model: RegionModel, table: pd.DataFrame
) -> None:
    labels = label_array(head.dseg)
    reference = np.isin(labels, (8, 47))
    found = correct(model, model.cut(head.pet.get_fdata()), given_point_spread(FWHM, ""), ["sgtm", "mg"])
    result = add_columns(table, found, labels, {"CerebellarGM": reference})
    below = np.mean([UPTAKE[label] for label in labels[reference].tolist()])
    rows = result.set_index("index")
    for label in (1001, 1006, 2006):
        assert rows.loc[label, "suvr_pvc_mean"] == pytest.approx(UPTAKE[label] / below, rel=1e-3)
        assert 0 < rows.loc[label, "suvr_pvc_se"] < 0.2
    assert pd.isna(rows.loc[1035, "suvr_pvc_mean"])
    own = result[result["kind"] == "reference"].iloc[0]
    assert own["suvr_pvc_mean"] == pytest.approx(1.0)
    assert own["suvr_pvc_se"] == pytest.approx(0.0, abs=1e-9)
    assert result["suvr_pvc_mg_mean"].notna().any()
    # Only one member of the composite is there on either side: it is that member, both sides by volume.
    both = result[(result["region"] == "braak1") & (result["hemisphere"] == "both")].iloc[0]
    sizes = [(labels == label).sum() for label in (1006, 2006)]
    expected = np.average([UPTAKE[1006], UPTAKE[2006]], weights=sizes) / below
    assert both["suvr_pvc_mean"] == pytest.approx(expected, rel=1e-3)


def test_what_was_not_measured_of_a_reference_region_does_not_lower_its_value(
    head: PetPhantom, model: RegionModel, table: pd.DataFrame
) -> None:
    labels = label_array(head.dseg)
    mask = np.where(labels == 8, 1, 0) + np.where(labels == 47, 2, 0)
    found = correct(model, model.cut(head.pet.get_fdata()), given_point_spread(FWHM, ""), ["sgtm"])
    lost = found.by_method["sgtm"].values.copy()
    lost[model.column(47)] = np.nan
    cut = replace(found, by_method={"sgtm": replace(found.by_method["sgtm"], values=lost)})
    one_part = {"CerebellarGM": mask > 0}
    assert reference_value(cut, "sgtm", reference_shares(model, labels, mask > 0)) == pytest.approx(UPTAKE[8], rel=1e-3)
    rows = add_columns(table, cut, labels, one_part).set_index("index")
    assert rows.loc[1006, "suvr_pvc_mean"] == pytest.approx(UPTAKE[1006] / UPTAKE[8], rel=1e-3)
    # A part that counts as much as the others cannot be left out.
    assert np.isnan(reference_value(cut, "sgtm", reference_shares(model, labels, mask)))
    with pytest.raises(ReferenceRegionError, match="expected: above 0"):
        add_columns(table, cut, labels, {"CerebellarGM": mask})


def test_a_reference_region_without_activity_is_refused(
    head: PetPhantom, model: RegionModel, table: pd.DataFrame
) -> None:
    labels = label_array(head.dseg)
    found = correct(model, -model.cut(head.pet.get_fdata()), given_point_spread(FWHM, ""), ["sgtm"])
    with pytest.raises(ReferenceRegionError, match="expected: above 0"):
        add_columns(table, found, labels, {"CerebellarGM": np.isin(labels, (8, 47))})


def test_one_value_of_a_point_spread_holds_for_all_axes() -> None:
    assert given_point_spread((5.0,), "given") == PointSpread((5.0, 5.0, 5.0), "given")
    assert given_point_spread((5.0, 5.5, 6.0), "given").fwhm_mm == (5.0, 5.5, 6.0)


@pytest.fixture
def inputs(tmp_path: Path, head: PetPhantom, table: pd.DataFrame) -> dict[str, Any]:
    """Inputs of the step, as files."""
    mask = image_like(np.isin(label_array(head.dseg), (8, 47)).astype(np.uint8), head.dseg)
    images = {"static_file": head.pet, "dseg_file": head.dseg, "mask_file": head.mask, "reference": mask}
    files = {name: str(save_volume(img, tmp_path / f"{name}.nii")) for name, img in images.items()}
    return {
        **{name: path for name, path in files.items() if name != "reference"},
        "reference_file": [files["reference"]],
        "reference": [{"ReferenceRegion": "CerebellarGM"}],
        "pet2t1w_xfm": str(save_itk(head.pet2t1w, tmp_path / "xfm.txt")),
        "rois_file": str(write_tsv(table, tmp_path / "rois.tsv")),
        "quality": [{"Noise": 0.1}],
        "activity_file": str(save_volume(resample(head.pet, head.dseg, head.pet2t1w), tmp_path / "activity.nii")),
        "smoothing_fwhm": 0.0,
    }


@pytest.mark.parametrize(("given", "expected"), [({}, [8.0, 8.0, 8.0]), ({"psf": [6.0, 6.0, 7.0]}, [6.0, 6.0, 7.0])])
def test_the_resolution_of_an_image_smoothed_in_advance_is_its_point_spread(
    tmp_path: Path, inputs: dict[str, Any], given: dict[str, Any], expected: list[float]
) -> None:
    metadata = {"SeriesDescription": "Coreg, Avg, Std Img and Vox Siz, Uniform Resolution"}
    step = CorrectPartialVolume(pvc=["sgtm"], pet_metadata=metadata, **given, **inputs)
    (sidecar,) = step.call(tmp_path)["quality"]
    assert sidecar["PVCPointSpreadFWHM"] == expected


def test_the_point_spread_of_the_scanner_is_taken_on_request(tmp_path: Path, inputs: dict[str, Any]) -> None:
    scanner = {"Manufacturer": "Siemens", "ManufacturersModelName": "Biograph mMR"}
    metadata = {**scanner, "ReconFilterType": "gaussian", "ReconFilterSize": 3.0}
    step = CorrectPartialVolume(pvc=["sgtm"], pet_metadata=metadata, psf_source="scanner", **inputs)
    found = step.call(tmp_path)
    # That of the table, 4.3 mm, and the filter.
    assert found["quality"][0]["PVCPointSpreadFWHM"] == pytest.approx([np.hypot(4.3, 3.0)] * 3, abs=1e-3)
    assert "scanner model" in found["assumptions"][0]


def test_the_step_writes_table_map_and_sidecar(tmp_path: Path, head: PetPhantom, inputs: dict[str, Any]) -> None:
    step = CorrectPartialVolume(pvc=["gtm", "iy"], psf=[6.0], **inputs)
    found = step.call(tmp_path)
    (sidecar,) = found["quality"]
    assert set(PVC_KEYS) | {"Noise"} == set(sidecar)
    assert sidecar["PVCMethods"] == ["gtm", "iy"]
    assert sidecar["PVCPointSpreadFWHM"] == [6.0, 6.0, 6.0]
    assert sidecar["PVCReferenceValue"]["gtm"] == pytest.approx(1.01, abs=0.01)
    rows = read_regions(Path(found["rois_file"])).set_index("index")
    assert rows.loc[1006, "suvr_pvc_mean"] == pytest.approx(2.4 / sidecar["PVCReferenceValue"]["gtm"], rel=2e-3)
    assert set(rows.columns) >= {"suvr_pvc_iy_mean", "suvr_pvc_iy_se"}
    made = load_volume(found["corrected_files"]["iy"])
    np.testing.assert_array_equal(made.affine, head.dseg.affine)
    deep = ndimage.binary_erosion(label_array(head.dseg) == 2, iterations=3)
    expected = UPTAKE[2] / sidecar["PVCReferenceValue"]["iy"]
    np.testing.assert_allclose(made.get_fdata()[deep], expected, rtol=0.03)
    assert found["corrected_files"].keys() == {"iy"}
    assert found["assumptions"] == ["The point spread was given: 6 mm."]


def test_the_cerebellum_in_lobules_takes_the_number_of_the_nearest_of_its_side(head: PetPhantom) -> None:
    """Each voxel against a search through all voxels of lobules."""
    labels = np.zeros((12, 10, 8), np.int16)
    labels[1:6, 2:8, 1:7], labels[6:11, 2:8, 1:7] = 8, 47
    labels[3, 3:5, 2:4] = 7
    lobules = np.zeros_like(labels)
    lobules[2, 3, 2], lobules[4, 6, 5], lobules[5, 4, 6] = 9011, 9041, 9110
    lobules[8, 3, 2], lobules[9, 7, 5] = 9012, 9042
    affine = np.diag([2.0, 2.5, 3.0, 1.0])
    found = label_array(with_lobules(image_on(labels, affine), image_on(lobules, affine)))
    sides = {8: (9011, 9041, 9110), 47: (9012, 9042, 9110)}
    for place in np.argwhere(labels):
        label = int(labels[tuple(place)])
        if label not in sides:
            assert found[tuple(place)] == label
            continue
        away = {
            int(lobules[tuple(one)]): np.linalg.norm((one - place) * (2.0, 2.5, 3.0))
            for one in np.argwhere(np.isin(lobules, sides[label]))
        }
        nearest = min(away.values())
        assert found[tuple(place)] in ([one for one in away if away[one] == nearest] if nearest <= 10 else [label])
    assert (found[labels == 0] == 0).all()


@pytest.mark.slow
def test_lobules_of_one_uptake_give_the_values_of_the_whole_cortex(
    tmp_path: Path, inputs: dict[str, Any], head: PetPhantom
) -> None:
    """Maps are painted with the lobules, too."""
    labels = label_array(head.dseg)
    lobules = np.where(np.isin(labels, (8, 47)), np.where(labels == 8, 9041, 9042), 0).astype(np.int16)
    lobules[:, :, :38] = np.where(lobules[:, :, :38] > 0, lobules[:, :, :38] + 20, 0)
    file = save_volume(image_like(lobules, head.dseg), tmp_path / "lobules.nii")
    tables = []
    for more in ({}, {"template_regions_file": str(file)}):
        found = CorrectPartialVolume(pvc=["gtm", "iy"], psf=[6.0], **inputs, **more).call(tmp_path)
        tables.append(read_regions(Path(found["rois_file"])).set_index("index"))
    for label in (8, 47, 1001, 1006, 2006):
        once, again = (table.loc[label, "suvr_pvc_mean"] for table in tables)
        assert again == pytest.approx(once, rel=2e-3)
    assert tables[1].loc[8, "suvr_pvc_se"] > 0
    made = load_volume(found["corrected_files"]["iy"]).get_fdata()
    assert made[labels == 8].mean() == pytest.approx(1.0 / found["quality"][0]["PVCReferenceValue"]["iy"], rel=0.05)


@pytest.mark.parametrize("method", ["rbv", "iy"])
def test_a_map_has_the_uptake_where_regions_are_thick(head: PetPhantom, model: RegionModel, method: str) -> None:
    """White matter, its border with cortex included, gets the value that it was painted with."""
    found = correct(model, model.cut(head.pet.get_fdata()), given_point_spread(FWHM, ""), [method])
    activity = resample(head.pet, head.dseg, head.pet2t1w)
    blur = blur_on_t1w(FWHM, head.pet, head.pet2t1w)
    made = CorrectedMaps(activity, head.dseg, head.mask, blur).make(method, map_values(found, method), 1.0).get_fdata()
    labels, inside = label_array(head.dseg), head.mask.get_fdata() > 0
    assert np.isnan(made[~inside]).all()
    assert np.isfinite(made[labels > 0]).all()
    for label in (2, 41, 1001, 2006):
        region = labels == label
        assert made[region].mean() == pytest.approx(UPTAKE[label], rel=0.02)
        assert abs(made[region].mean() / UPTAKE[label] - 1) < abs(
            activity.get_fdata()[region].mean() / UPTAKE[label] - 1
        )


def test_maps_of_gray_matter_alone_have_no_other_voxels(head: PetPhantom, model: RegionModel) -> None:
    found = correct(model, model.cut(head.pet.get_fdata()), given_point_spread(FWHM, ""), ["mg"])
    activity = resample(head.pet, head.dseg, head.pet2t1w)
    made_by = CorrectedMaps(activity, head.dseg, head.mask, blur_on_t1w(FWHM, head.pet, head.pet2t1w))
    made = made_by.make("mg", map_values(found, "mg"), 2.0).get_fdata()
    labels = label_array(head.dseg)
    assert np.isnan(made[np.isin(labels, (0, 2, 4, 16, 41))]).all()
    share = np.isfinite(made[labels == 1001]).mean()
    assert share > 0.5
    assert np.nanmean(made[labels == 1001]) == pytest.approx(UPTAKE[1001] / 2.0, rel=0.1)


def test_shells_in_slabs_are_those_of_distances_in_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.zeros((40, 30, 50), np.int16)
    numbers[15:25, 12:20, 20:26] = 2
    voxel_mm = np.array([1.0, 1.5, 0.8])
    distance = ndimage.distance_transform_edt(numbers == 0, sampling=voxel_mm)
    expected = np.select([numbers == 2, distance <= 4, distance <= 12], [2, 9301, 9302], 9303)
    monkeypatch.setattr(maps, "_SLAB", 7)
    np.testing.assert_array_equal(maps._with_shells(numbers, voxel_mm), expected)


@pytest.mark.parametrize("method", ["iy", "mg", "meltzer"])
def test_a_map_is_linear_in_the_activity(head: PetPhantom, model: RegionModel, method: str) -> None:
    """Offset and slope, by which maps in other spaces are made, give the map on the grid of the T1w."""
    found = correct(model, model.cut(head.pet.get_fdata()), given_point_spread(FWHM, ""), [method])
    activity = resample(head.pet, head.dseg, head.pet2t1w)
    made_by = CorrectedMaps(activity, head.dseg, head.mask, blur_on_t1w(FWHM, head.pet, head.pet2t1w))
    made = made_by.make(method, map_values(found, method), 2.0).get_fdata()
    offset, slope = made_by.weights(method, map_values(found, method), 2.0)
    again = offset.get_fdata() + slope.get_fdata() * activity.get_fdata()
    assert np.isfinite(made).any()
    np.testing.assert_allclose(again, made, rtol=1e-3, atol=1e-4)


def test_linear_interpolation_and_smoothing_add_their_variance(head: PetPhantom) -> None:
    blur = blur_on_t1w((5.0, 5.0, 5.0), head.pet, np.eye(4), smoothing_fwhm_mm=4.0)
    voxel = np.array([2.5, 2.5, 3.0])
    assert np.allclose(np.diag(blur) * FWHM_PER_SIGMA**2, 25 + 16 + voxel**2 / 6 * FWHM_PER_SIGMA**2)


def test_the_wide_table_has_the_corrected_values(head: PetPhantom, model: RegionModel, table: pd.DataFrame) -> None:
    labels = label_array(head.dseg)
    found = correct(model, model.cut(head.pet.get_fdata()), given_point_spread(FWHM, ""), ["gtm", "iy"])
    rows = add_columns(table, found, labels, {"CerebellarGM": np.isin(labels, (8, 47))})
    own = {name: "n/a" for name in WIDE_KEYS if name not in rows.columns}
    wide = wide_table(rows.assign(**own))
    for ending in ("_pvc_mean", "_pvc_se", "_pvc_iy_mean"):
        expected = rows.set_index("region").loc["ctx-lh-entorhinal", f"suvr{ending}"]
        assert wide[f"ctx_lh_entorhinal{ending}"].tolist() == [expected]
    described = dictionary("suvr_rois_wide", wide)
    assert described["ctx_lh_entorhinal_pvc_iy_se"]["Description"] == "suvr_pvc_iy_se of ctx_lh_entorhinal."
