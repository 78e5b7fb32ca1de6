"""Partial volume correction against the true uptake of simulated scans: every method beside no correction.

    python benchmarks/partial_volume.py DS_SIMTAU [DERIVATIVES ...]
    python benchmarks/partial_volume.py DS_SIMTAU DERIVATIVES --step sgtm

For each scan: the labels of the truth, with the true and the estimated point spread; then those of the derivatives,
which the participant level wrote, with the estimated one. A noise-free image of the same head comes first. Errors are
those of the 68 cortical regions over the cerebellar cortex. With ``--step``, the step of the workflow is run instead,
on the labels of the derivatives, each scan in a new process that does nothing else: seconds and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from tau_pipeline.anatomy.parcellation import labels_to_t1w
from tau_pipeline.atlas import label_array, lobule_numbers, region_numbers, template_regions
from tau_pipeline.bids.scans import Scan, find_participants
from tau_pipeline.derivatives.names import AnatNames, PetNames
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.imaging.transforms import load_itk
from tau_pipeline.imaging.volume import Affine, Volume, image_like, image_on, save_volume, voxel_size_mm
from tau_pipeline.pet.frames import FramePlan, plan_frames
from tau_pipeline.pet.motion import correct_motion, static_image
from tau_pipeline.pvc.cerebellum import with_lobules
from tau_pipeline.pvc.correct import correct
from tau_pipeline.pvc.model import blur_regions
from tau_pipeline.pvc.psf import estimate_point_spread, given_point_spread
from tau_pipeline.pvc.regions import RegionModel, region_model
from tau_pipeline.settings.participant import Selection

METHODS = ("sgtm", "gtm", "rbv", "iy", "mg", "meltzer")
#: As labels, and in lobules.
CEREBELLAR_CORTEX = {8, 47, *lobule_numbers("inferior"), *lobule_numbers("superior")}


@dataclass(frozen=True)
class Case:
    """One image with labels."""

    name: str
    pet: Volume
    dseg: Volume
    mask: Volume
    pet2t1w: Affine
    truth: dict[str, Any]
    true_fwhm_mm: tuple[float, ...] | None = None


def main() -> None:
    """Print a table for each scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids", type=Path)
    parser.add_argument("derivatives", type=Path, nargs="*")
    parser.add_argument("--step", nargs="+", choices=METHODS, help="methods of the step alone")
    options = parser.parse_args()
    if options.step:
        for text in steps(options.bids, options.derivatives[0], options.step):
            print(text, flush=True)
        return
    for case in cases(options.bids, options.derivatives):
        for line in report(case):
            print(line, flush=True)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


def steps(bids: Path, derivatives: Path, methods: list[str]) -> Iterator[str]:
    """Yield the time (s) and peak memory (GB) of the correction of each scan, each run in a separate process."""
    for participant in find_participants(bids, Selection()):
        for scan in participant.scans:
            with tempfile.TemporaryDirectory() as folder:
                inputs = step_inputs(scan, derivatives, Path(folder))
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                    seconds, peak = alone.submit(run_step, inputs, methods, Path(folder)).result()
            yield f"sub-{scan.participant}, {', '.join(methods)}: {seconds:.1f} s, peak memory {peak:.2f} GB"


def step_inputs(scan: Scan, derivatives: Path, folder: Path) -> dict[str, Any]:
    """Write the files that the step takes, uncompressed as in the work folder of a run."""
    anat, names = AnatNames(derivatives, scan.t1w.entities), PetNames(derivatives, scan.entities)
    raw = load_volume(scan.pet_file)
    plan = plan_frames((1, 1, 1, scan.n_frames), scan.pet_metadata)
    suvr = load_volume(names.suvr(), ndim=3)
    lobules = labels_to_t1w(on_template(), load_volume(anat.t1w, ndim=3), (anat.from_template(),))
    images = {
        "static_file": static_image(raw, plan, correct_motion(raw, plan)),
        "dseg_file": load_volume(anat.dseg, ndim=3),
        "mask_file": load_volume(anat.mask, ndim=3),
        "template_regions_file": lobules,
        "activity_file": suvr,
        "reference": load_volume(anat.reference_mask("CerebellarGM"), ndim=3),
    }
    files: dict[str, Any] = {name: str(save_volume(one, folder / f"{name}.nii")) for name, one in images.items()}
    return {
        **{name: file for name, file in files.items() if name != "reference"},
        "reference_file": [files["reference"]],
        "reference": [{"ReferenceRegion": "CerebellarGM"}],
        "pet2t1w_xfm": str(names.to_t1w),
        "rois_file": str(names.rois),
        "quality": [{}],
        "smoothing_fwhm": 0.0,
    }


def run_step(inputs: dict[str, Any], methods: list[str], folder: Path) -> tuple[float, float]:
    """Run the step in this process; returns its seconds, and the peak memory of the process in GB."""
    from tau_workflows.interfaces.pvc import CorrectPartialVolume

    begin = time.perf_counter()
    CorrectPartialVolume(pvc=methods, **inputs).call(folder)
    seconds = time.perf_counter() - begin
    # Not from getrusage, which remembers the memory of the parent at the start of a child.
    status = dict(one.split(":", 1) for one in Path("/proc/self/status").read_text().splitlines())
    return seconds, int(status["VmHWM"].split()[0]) / 2**20


def cases(bids: Path, derivatives: list[Path]) -> Iterator[Case]:
    """Yield the noise-free image, and the scan with the labels of the truth and of each of the derivatives."""
    truths = {one["participant"]: one for one in json.loads((bids / "truth/scans.json").read_text())}
    for participant in find_participants(bids, Selection()):
        for scan in participant.scans:
            who = f"sub-{participant.label}"
            truth = truths[who]
            raw = load_volume(scan.pet_file)
            plan = plan_frames((1, 1, 1, scan.n_frames), scan.pet_metadata)
            motion = correct_motion(raw, plan)
            static = static_image(raw, plan, motion)
            dseg, mask = (load_volume(bids / f"truth/{who}_{what}.nii.gz", ndim=3) for what in ("labels", "mask"))
            moved = np.array(truth["frames"][motion.reference])
            fwhm = with_interpolation(truth["fwhm"], static, plan)
            true = Case(f"{who}, labels of the truth", static, dseg, mask, moved, truth, fwhm)
            yield replace(noise_free(true), name=f"{who}, noise-free, labels of the truth")
            yield true
            yield from of_derivatives(true, scan, who, derivatives)


def of_derivatives(true: Case, scan: Scan, who: str, derivatives: list[Path]) -> Iterator[Case]:
    """Yield the scan with the labels and the coregistration of each of the derivatives that has it."""
    for folder in derivatives:
        anat, names = AnatNames(folder, scan.t1w.entities), PetNames(folder, scan.entities)
        if not anat.dseg.is_file():
            continue
        dseg, mask = load_volume(anat.dseg, ndim=3), load_volume(anat.mask, ndim=3)
        lobules = labels_to_t1w(on_template(), load_volume(anat.t1w, ndim=3), (anat.from_template(),))
        own = replace(true, dseg=with_lobules(dseg, lobules), mask=mask, pet2t1w=load_itk(names.to_t1w))
        yield replace(own, name=f"{who}, labels of {folder}", true_fwhm_mm=None)


@cache
def on_template() -> Path:
    """Return a file with the lobules of the cerebellum on the template."""
    return save_volume(template_regions(), Path(tempfile.mkdtemp()) / "lobules.nii")


def with_interpolation(fwhm_mm: float, static: Volume, plan: FramePlan) -> tuple[float, ...]:
    """Add the blur of the frames that were interpolated onto the reference frame: h²/6 along each axis."""
    share = 1 - 1 / len(plan.indices)
    variance = (fwhm_mm / FWHM_PER_SIGMA) ** 2 + share * voxel_size_mm(static) ** 2 / 6
    return tuple((FWHM_PER_SIGMA * np.sqrt(variance)).tolist())


def noise_free(case: Case) -> Case:
    """Return the labels painted with their uptake, nothing around the brain, blurred on their own grid."""
    labels = label_array(case.dseg)
    value = np.zeros(int(labels.max()) + 1, np.float32)
    for label, uptake in case.truth["uptake"].items():
        if int(label) < len(value):
            value[int(label)] = uptake
    fwhm_mm, voxel_mm = case.truth["fwhm"], voxel_size_mm(case.dseg)
    # A voxel is a box, whose variance the discrete blur lacks.
    sigma = np.sqrt((fwhm_mm / FWHM_PER_SIGMA) ** 2 + voxel_mm**2 / 12) / voxel_mm
    blurred = ndimage.gaussian_filter(value[labels], sigma, mode="constant", truncate=5.0)
    to_t1w = np.linalg.inv(case.dseg.affine) @ case.pet2t1w @ case.pet.affine
    pet = ndimage.affine_transform(blurred, to_t1w[:3, :3], to_t1w[:3, 3], case.pet.shape[:3], order=3)
    mask = image_like(labels > 0, case.dseg)
    truth = {**case.truth, "uptake": {**case.truth["uptake"], "0": 0.0}}
    return replace(case, pet=image_on(pet, case.pet.affine), mask=mask, truth=truth, true_fwhm_mm=(fwhm_mm,))


def report(case: Case) -> Iterator[str]:
    """Yield the lines of a table: error without correction, and by each method."""
    begin = time.perf_counter()
    model = region_model(case.pet, case.dseg, case.mask, case.pet2t1w)
    pet = model.cut(np.asanyarray(case.pet.dataobj))
    found = estimate_point_spread(model, pet)
    quick = correct(model, pet, found, ["sgtm"])
    seconds = time.perf_counter() - begin
    spread = ", ".join(f"{one:.2f}" for one in found.fwhm_mm)
    yield f"\n{case.name}: {len(model.numbers)} regions, point spread estimated as {spread} mm"
    if case.true_fwhm_mm:
        yield f"  true point spread {', '.join(f'{one:.2f}' for one in case.true_fwhm_mm)} mm"
    yield f"  sgtm with search: {seconds:.1f} s, condition number {quick.condition:.1f}"
    yield f"  {'method':10} {'point spread':13} {'median':>8} {'p95':>7} {'slope':>6}"
    rows = blur_regions(model, pet, found.fwhm_mm)
    plain = rows.fractions.T @ rows.pet / np.maximum(np.asarray(rows.fractions.sum(axis=0)).ravel(), 1e-9)
    yield line("none", "", model, plain, case)
    spreads = {"estimated": found}
    if case.true_fwhm_mm:
        spreads["true"] = given_point_spread(case.true_fwhm_mm, "")
    for how, point_spread in spreads.items():
        for method, result in correct(model, pet, point_spread, METHODS).by_method.items():
            yield line(method, how, model, result.values, case)


def line(method: str, how: str, model: RegionModel, values: np.ndarray, case: Case) -> str:
    """Return one line of the table."""
    uptake = {int(label): value for label, value in case.truth["uptake"].items()}
    places = [place for place, number in enumerate(model.numbers) if number in CEREBELLAR_CORTEX]
    reference = np.average(values[places], weights=model.volumes_mm3[places])
    labels = [label for label in region_numbers("cortical") if label in uptake and model.column(label) is not None]
    true = np.array([uptake[label] for label in labels])
    found = np.array([values[model.column(label)] for label in labels]) / reference
    error = 100 * np.abs(found / true - 1)
    slope = np.polyfit(true, found, 1)[0]
    return f"  {method:10} {how:13} {np.median(error):7.2f}% {np.percentile(error, 95):6.1f}% {slope:6.3f}"


if __name__ == "__main__":
    main()
