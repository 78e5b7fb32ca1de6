"""Fit of PET and T1w on simulated heads of 4 mm, and the choice between readings of a header."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from tau_pipeline.derivatives.quality_checks import judge
from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.header_orientation import Readings, mirror
from tau_pipeline.imaging.volume import Affine, Volume, image_like, image_on
from tau_pipeline.measures.quality_figures import move
from tau_pipeline.pet.coregister import SURE_MIRROR, coregister_scan
from tau_pipeline.pet.fit import assess_fit
from tau_pipeline.simulate.dataset import Simulation, draw_visits, plan_participant
from tau_pipeline.simulate.heads import make_head
from tau_pipeline.simulate.pet import make_pet
from tau_pipeline.simulate.template import load_template


@dataclass(frozen=True)
class Scan:
    pet: Volume
    t1w: Volume
    mask: Volume
    true: Affine

    @property
    def center(self) -> np.ndarray:
        voxels = np.argwhere(np.asanyarray(self.mask.dataobj) > 0)
        return self.mask.affine[:3, :3] @ voxels.mean(axis=0) + self.mask.affine[:3, 3]


def simulated(number: int) -> Scan:
    settings = Simulation(3, seed=4, voxel_mm=4.0, pet="static")
    visit = draw_visits(number, plan_participant(number, settings), settings.seed)[0]
    head = make_head(visit.head, load_template(), 4.0)
    pet = make_pet(visit.pet, head)
    mask = image_like(np.asanyarray(head.labels.dataobj) > 0, head.t1w)
    return Scan(pet.pet, head.t1w, mask, pet.frames[0])


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    return [simulated(1), simulated(3)]


def scaled(pet: Volume, factor: tuple[float, float, float]) -> Volume:
    """PET whose voxel sizes are wrong by a factor along each axis, about the middle of the image."""
    middle = (pet.affine @ [*((np.array(pet.shape) - 1) / 2), 1])[:3]
    wrong = np.diag([*factor, 1.0])
    wrong[:3, 3] = middle - wrong[:3, :3] @ middle
    return image_on(np.asanyarray(pet.dataobj), wrong @ pet.affine)


@pytest.mark.slow
def test_the_pet_of_the_head_belongs_and_that_of_another_does_not(scans):
    for own, other in (scans, scans[::-1]):
        good = assess_fit(own.pet, own.t1w, own.mask, own.true)
        shift = np.eye(4)
        shift[:3, 3] = own.center - other.center
        bad = assess_fit(other.pet, own.t1w, own.mask, shift @ other.true)
        assert good.explained > 0.75
        assert good.belongs > bad.belongs + 0.1
        assert good.mirror > SURE_MIRROR


@pytest.mark.slow
def test_a_mirrored_pet_fits_worse_than_its_mirror_image(scans):
    own = scans[0]
    reflection = np.diag([-1.0, 1, 1, 1])
    reflection[0, 3] = 2 * own.center[0]
    found = assess_fit(own.pet, own.t1w, own.mask, reflection @ own.true)
    assert found.mirror < -SURE_MIRROR


@pytest.mark.slow
@pytest.mark.parametrize("factor", [(1.0, 1.0, 1.25), (1.25, 1.25, 1.25), (0.8, 0.8, 0.8)])
def test_wrong_voxel_sizes_are_found(scans, factor):
    own = scans[0]
    found = assess_fit(scaled(own.pet, factor), own.t1w, own.mask, own.true)
    np.testing.assert_allclose(np.array(found.scale) * factor, 1, atol=0.1)


@pytest.mark.slow
def test_what_was_not_measured_does_not_count(scans):
    own = scans[0]
    whole = assess_fit(own.pet, own.t1w, own.mask, own.true)
    data = np.asanyarray(own.pet.dataobj).astype(np.float32)
    data[:, :, data.shape[2] * 2 // 3 :] = np.nan
    cut = assess_fit(image_like(data, own.pet), own.t1w, own.mask, own.true)
    assert cut.explained == pytest.approx(whole.explained, abs=0.08)
    assert cut.belongs == pytest.approx(whole.belongs, abs=0.3)
    assert cut.mirror == pytest.approx(whole.mirror, abs=0.2)
    nothing = assess_fit(image_like(np.full_like(data, np.nan), own.pet), own.t1w, own.mask, own.true)
    assert math.isnan(nothing.explained)


def test_an_empty_mask_is_refused():
    img = image_on(np.ones((8, 8, 8), np.float32), np.diag([4.0, 4.0, 4.0, 1.0]))
    with pytest.raises(ImageError, match="empty"):
        assess_fit(img, img, image_like(np.zeros(img.shape, np.uint8), img), np.eye(4))


@pytest.mark.slow
def test_of_two_readings_the_head_tells_the_right_one_and_the_transform_holds_it(scans):
    own = scans[0]
    wrong = mirror(own.pet.affine, own.pet.shape)
    read = image_on(np.asanyarray(own.pet.dataobj), wrong)
    contradiction = Readings(wrong, own.pet.affine, True, "its sform and qform differ in left and right")
    found = coregister_scan(read, own.t1w, own.mask, contradiction)
    inside = np.argwhere(np.asanyarray(own.mask.dataobj) > 0)[::50]
    points = inside @ own.mask.affine[:3, :3].T + own.mask.affine[:3, 3]
    voxels = np.linalg.inv(own.true @ own.pet.affine) @ np.c_[points, np.ones(len(points))].T
    again = (found.rigid.matrix @ wrong @ voxels)[:3].T
    assert np.linalg.norm(again - points, axis=1).mean() < 2
    assert "mirrored against the first reading" in found.notes[0]
    verdicts = {one["Check"]: one["Verdict"] for one in judge(found.figures)}
    assert (verdicts["orientation"], verdicts["coreg_mirror"]) == ("warn", "pass")


@pytest.mark.slow
@pytest.mark.parametrize("first_is_right", [True, False])
def test_of_two_sizes_of_voxels_the_head_tells_the_right_one(scans, first_is_right):
    own = scans[0]
    wrong = scaled(own.pet, (0.8, 0.8, 0.8)).affine
    first, other = (own.pet.affine, wrong) if first_is_right else (wrong, own.pet.affine)
    read = image_on(np.asanyarray(own.pet.dataobj), first)
    found = coregister_scan(read, own.t1w, own.mask, Readings(first, other, False, "its sform and qform differ"))
    assert f"{'the sform' if first_is_right else 'the other reading'} was taken" in found.notes[0]
    assert found.figures["RegistrationScale"] < 1.1
    assert found.figures["RegistrationExplained"] > 0.75
    np.testing.assert_allclose(np.cbrt(np.linalg.det(found.move[:3, :3])), 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "fill"), [(1, 0.0), (2, -1.0)])
def test_a_cut_field_of_view_is_no_other_head_and_hides_none(scans, axis, fill):
    own = scans[0]
    whole = assess_fit(own.pet, own.t1w, own.mask, own.true)
    data = np.asanyarray(own.pet.dataobj).astype(np.float32)
    inside = np.c_[np.argwhere(np.asanyarray(own.mask.dataobj) > 0), np.ones(np.asanyarray(own.mask.dataobj).sum())]
    at = inside @ (np.linalg.inv(own.true @ own.pet.affine) @ own.mask.affine).T
    np.moveaxis(data, axis, 0)[int(np.percentile(at[:, axis], 93)) :] = fill
    cut = image_on(data, own.pet.affine)
    found = coregister_scan(cut, own.t1w, own.mask, Readings(cut.affine))
    assert found.figures["RegistrationBelongs"] > whole.belongs - 0.2
    assert found.figures["RegistrationScale"] < 1.1
    verdicts = {one["Check"]: one["Verdict"] for one in judge(found.figures)}
    assert verdicts["coreg_fit"] == "pass"
    wrong = mirror(cut.affine, cut.shape)
    found = coregister_scan(image_on(data, wrong), own.t1w, own.mask, Readings(wrong))
    verdicts = {one["Check"]: one["Verdict"] for one in judge(found.figures)}
    assert verdicts["coreg_mirror"] == "fail"


@pytest.mark.slow
def test_a_mirrored_scan_without_contradiction_fails(scans):
    own = scans[0]
    wrong = mirror(own.pet.affine, own.pet.shape)
    found = coregister_scan(image_on(np.asanyarray(own.pet.dataobj), wrong), own.t1w, own.mask, Readings(wrong))
    verdicts = {one["Check"]: one["Verdict"] for one in judge(found.figures)}
    assert (verdicts["orientation"], verdicts["coreg_mirror"]) == ("pass", "fail")
    assert found.notes == ()


@pytest.mark.slow
def test_a_move_of_60_mm_is_told_and_template_space_too(scans):
    own = scans[0]
    moved = np.eye(4)
    moved[:3, 3] = [35, -35, 34]
    pet = image_on(np.asanyarray(own.pet.dataobj), moved @ own.true @ own.pet.affine)
    found = coregister_scan(pet, own.t1w, own.mask, Readings(pet.affine), template_space="its grid is MNI's")
    figures = {**found.figures, **move(found.move, own.mask)}
    assert figures["RegistrationShift"] == pytest.approx(60, abs=3)
    verdicts = {one["Check"]: one["Verdict"] for one in judge(figures)}
    assert (verdicts["coreg_shift_mm"], verdicts["pet_template_space"]) == ("warn", "warn")
    assert "template space" in found.notes[0]


@pytest.mark.slow
def test_a_pet_whose_size_is_not_known_is_refused_if_it_does_not_fit(scans):
    """The affine is the identity, so that voxels of 4 mm were read as of another size."""
    own = scans[0]
    lost = Readings(scaled(own.pet, (0.7, 0.7, 0.7)).affine, None, reason="its affine is the identity", lost=True)
    with pytest.raises(ImageError, match=r"does not fit the T1w: its affine is the identity\. .* convert it again"):
        coregister_scan(own.pet, own.t1w, own.mask, lost)
