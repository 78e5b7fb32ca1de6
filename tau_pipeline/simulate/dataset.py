"""A BIDS dataset of simulated heads and tau PET, with the truth beside it.

`simulate_dataset` plans each participant from the seed and the participant's number alone, so that a participant is
the same in a cohort of any size; draws a person and a scan for each visit; and writes them as a scanner would.
Cortex thins and ventricles widen with tau, so that a T1w image predicts the PET in part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tau_pipeline import __version__
from tau_pipeline.errors import OutputError
from tau_pipeline.files import write_json, write_text, write_tsv
from tau_pipeline.imaging.volume import Volume, image_on, save_volume
from tau_pipeline.simulate.heads import Head, HeadDraw, draw_head, make_head
from tau_pipeline.simulate.metadata import PARTICIPANTS, README, TRACER, dataset_description, pet_sidecar, t1w_sidecar
from tau_pipeline.simulate.pet import (
    BURDEN,
    SCANNERS,
    Pet,
    draw_motion,
    draw_pet,
    draw_uptake,
    make_pet,
    rigid_about,
    tau_load,
)
from tau_pipeline.simulate.plan import Plan, Simulation, Visit, plan_participant
from tau_pipeline.simulate.template import Array, load_template
from tau_pipeline.simulate.visits import by_other_protocol, grown_uptake, visit_truth, with_years, write_sessions

#: mm of cortex lost where tau adds 1 to the uptake, and mm of ventricular growth where it does so everywhere. Larger
#: than in patients, so that small cohorts show it.
_THINNING_PER_TAU = 0.8
_VENTRICLES_PER_TAU = 2.5
#: Plasma p-tau217 in pg/mL without tau, growth of its logarithm from no tau to the most, and SD of its logarithm among
#: people with the same tau: five times as high with the most tau.
_P_TAU_LEAST, _P_TAU_PER_BURDEN, _P_TAU_NOISE = 0.2, 1.6, 0.12


def draw_visits(number: int, plan: Plan, seed: int, settings: Simulation | None = None) -> list[Visit]:
    """Draw a participant: one person, and for each session its tau, atrophy and scan.

    ``settings`` are needed where visits are a year apart, for the changes of a year.
    """
    yearly = settings if plan.yearly and settings else None
    rng = np.random.default_rng([seed, number])
    person = draw_head(rng)
    sensitivity = float(rng.lognormal(0, 0.15))
    burden = float(rng.uniform(*BURDEN[plan.group]))
    uptake_seed = int(rng.integers(2**31))
    visits: list[Visit] = []
    for count, session in enumerate(plan.sessions):
        now = burden if yearly else min(1.0, burden + 0.1 * count)
        uptake = draw_uptake(np.random.default_rng(uptake_seed), now)
        head = _in_scanner(person, rng, count)
        if yearly:
            uptake = grown_uptake(uptake, yearly.annual_change, count)
            head = with_years(head, yearly.annual_atrophy * count)
            if yearly.t1w_differs and count:
                head = by_other_protocol(head, np.random.default_rng([seed, number, 3, count]))
        head = with_atrophy(head, uptake, sensitivity)
        has_t1w = session in plan.t1w_sessions
        motion = draw_motion(rng, max(1, plan.frames), plan.moves)
        pet = draw_pet(rng, uptake, SCANNERS[plan.scanner], motion)
        years = float(count) if yearly else 0.0
        visits.append(Visit(session, has_t1w, now, head if has_t1w else visits[0].head, uptake, pet, years))
    return visits if plan.frames else [replace(v, pet=None) for v in visits]


def _in_scanner(person: HeadDraw, rng: np.random.Generator, count: int) -> HeadDraw:
    """Place the same person in the MRI at a later visit: moved as a whole, other noise."""
    position = rigid_about(np.zeros(3), rng.normal(0, 3, 3).clip(-6, 6), np.deg2rad(rng.normal(0, 3, 3).clip(-6, 6)))
    noise_seed = int(rng.integers(2**31))
    if count == 0:
        return person
    return replace(person, position=position, noise_seed=noise_seed)


def with_atrophy(head: HeadDraw, uptake: dict[int, float], sensitivity: float) -> HeadDraw:
    """Apply atrophy by the tau load: thin the cortex and widen the ventricles of a person."""
    tau = tau_load(uptake)
    lost = {code: head.thinning[code] + _THINNING_PER_TAU * sensitivity * tau[code] for code in tau}
    grown = head.ventricles_mm + _VENTRICLES_PER_TAU * sensitivity * float(np.mean(list(tau.values())))
    return replace(head, thinning=lost, ventricles_mm=min(grown, 4.0))


def age_and_sex(number: int, seed: int) -> tuple[int, str]:
    """Return age in years and sex of a participant; neither changes the images."""
    rng = np.random.default_rng([seed, number, 1])
    return int(rng.integers(58, 86)), str(rng.choice(["F", "M"]))


def plasma_p_tau217(number: int, plan: Plan, seed: int) -> float:
    """Return plasma p-tau217 of a participant in pg/mL: log-normal around an exponential of the amount of tau.

    The images do not depend on it. It tells of the amount of tau what atrophy, which differs between people with the
    same tau, leaves open.
    """
    burden = draw_visits(number, plan, seed)[0].burden
    noise = np.random.default_rng([seed, number, 2]).normal(0, _P_TAU_NOISE)
    return float(round(_P_TAU_LEAST * np.exp(_P_TAU_PER_BURDEN * burden + noise), 3))


def simulate_dataset(
    out_dir: str | os.PathLike[str], settings: Simulation, progress: Callable[[str], None] = lambda line: None
) -> Path:
    """Write a simulated BIDS dataset, and its truth under ``truth/``; returns its folder.

    Parameters
    ----------
    out_dir
        A folder that does not exist or is empty.
    settings
        What to make.
    progress
        Called with one line after each participant.

    Raises
    ------
    OutputError
        The folder is not empty, or cannot be written to.
    """
    out = Path(out_dir)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out} exists and is not an empty folder; choose another folder or remove this one")
    plans = [plan_participant(number, settings) for number in range(1, settings.participants + 1)]
    write_dataset_files(out, plans, settings)
    scans: list[dict[str, Any]] = []
    regions: list[dict[str, Any]] = []
    for number, plan in enumerate(plans, start=1):
        for scan, rows in simulate_participant(out, number, plan, settings):
            scans += [scan] if scan else []
            regions += rows
        what = {0: "no PET", 1: "static PET"}.get(plan.frames, f"PET of {plan.frames} frames")
        manufacturer = SCANNERS[plan.scanner].manufacturer if plan.frames else "no scanner"
        progress(f"{plan.label}: {number} of {len(plans)}, {plan.group}, {what}, {manufacturer}")
    write_truth_tables(out, scans, regions)
    return out


def simulate_participant(
    out: Path, number: int, plan: Plan, settings: Simulation
) -> Iterator[tuple[dict[str, Any] | None, list[dict[str, Any]]]]:
    """Write the images of one participant; gives the truth of each visit: its entry in scans.json, region rows."""
    head: Head | None = None
    visits = draw_visits(number, plan, settings.seed, settings)
    if plan.yearly:
        write_sessions(out / plan.label, tuple(str(session) for session in plan.sessions))
    for visit in visits:
        if visit.has_t1w or head is None:
            head = make_head(visit.head, load_template(), settings.voxel_mm)
            write_t1w(out, plan, visit, head)
        write_labels(out, plan, visit, head)
        scan = None
        if visit.pet is not None:
            pet = make_pet(replace(visit.pet, bias=settings.scanner_bias), head)
            write_pet(out, plan, visit, pet)
            write_scaled(crop_to_brain(pet.suvr, head), truth_file(out, plan, visit, "suvr"), 0.001)
            scan = scan_truth(plan, visit, pet, settings)
            if plan.yearly:
                scan |= visit_truth(head, pet, visit.years, settings.annual_change, visit.head.position)
        yield scan, region_rows(plan, visit, head)


def stem(plan: Plan, visit: Visit) -> str:
    """Return the beginning of the file names of a visit."""
    return plan.label if visit.session is None else f"{plan.label}_ses-{visit.session}"


def visit_folder(out: Path, plan: Plan, visit: Visit, datatype: str) -> Path:
    """Return the folder of the images of a visit."""
    return out / plan.label / (f"ses-{visit.session}" if visit.session else "") / datatype


def truth_file(out: Path, plan: Plan, visit: Visit, what: str) -> Path:
    """Return the path of a truth image of a visit."""
    return out / "truth" / f"{stem(plan, visit)}_{what}.nii.gz"


def write_scaled(img: Volume, path: Path, slope: float) -> Path:
    """Write an image as int16 with a scale factor and no intercept."""
    data = np.asanyarray(img.dataobj)
    stored = image_on((data / slope).round().clip(-32768, 32767).astype(np.int16), img.affine)
    stored.header.set_slope_inter(slope, 0)
    if data.ndim == 4:
        stored.header.set_zooms((*stored.header.get_zooms()[:3], 1200.0 / data.shape[3]))
    return save_volume(stored, path)


def crop_to_brain(img: Volume, head: Head, margin_mm: float = 10) -> Volume:
    """Cut an image down to the brain and a margin; the world stays."""
    inside = np.argwhere(np.asanyarray(head.labels.dataobj) > 0)
    margin = int(np.ceil(margin_mm / head.labels.affine[0, 0]))
    low, high = np.maximum(inside.min(axis=0) - margin, 0), inside.max(axis=0) + margin + 1
    data = np.asanyarray(img.dataobj)[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    affine = img.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    return image_on(np.ascontiguousarray(data), affine)


def write_t1w(out: Path, plan: Plan, visit: Visit, head: Head) -> None:
    """Write the T1w image in the participant's own axis order, and its sidecar."""
    base = visit_folder(out, plan, visit, "anat") / f"{stem(plan, visit)}_T1w"
    img = image_on(np.asanyarray(head.t1w.dataobj).round().astype(np.int16), head.t1w.affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(img.affine), nib.orientations.axcodes2ornt(plan.stored))
    turned: Any = img.as_reoriented(turn)
    save_volume(image_on(np.asanyarray(turned.dataobj), turned.affine), base.with_name(base.name + ".nii.gz"))
    write_json(t1w_sidecar(), base.with_name(base.name + ".json"))


def write_labels(out: Path, plan: Plan, visit: Visit, head: Head) -> None:
    """Write the true labels and brain mask of a visit."""
    labels = crop_to_brain(head.labels, head)
    save_volume(labels, truth_file(out, plan, visit, "labels"))
    mask = image_on(np.asanyarray(labels.dataobj) > 0, labels.affine)
    save_volume(mask, truth_file(out, plan, visit, "mask"))


def write_pet(out: Path, plan: Plan, visit: Visit, pet: Pet) -> None:
    """Write the PET image as int16 with a scale factor that fits its maximum, and its sidecar."""
    base = visit_folder(out, plan, visit, "pet") / f"{stem(plan, visit)}_trc-{TRACER}_pet"
    slope = float(np.asanyarray(pet.pet.dataobj).max()) / 32000
    write_scaled(pet.pet, base.with_name(base.name + ".nii.gz"), slope)
    write_json(pet_sidecar(SCANNERS[plan.scanner], plan.frames), base.with_name(base.name + ".json"))


def scan_truth(plan: Plan, visit: Visit, pet: Pet, settings: Simulation) -> dict[str, Any]:
    """Return the ground truth of a scan: an entry of truth/scans.json."""
    draw = visit.pet
    assert draw is not None
    session = {} if visit.session is None else {"session": f"ses-{visit.session}"}
    return {
        "participant": plan.label,
        **session,
        "pet2t1": pet.frames[0].tolist(),
        "frames": [frame.tolist() for frame in pet.frames],
        "ref_bqml": draw.ref_bqml,
        "uptake": {str(code): value for code, value in sorted(draw.uptake.items()) if code < 3000},
        "fwhm": draw.scanner.fwhm_mm,
        "manufacturer": draw.scanner.manufacturer,
        "fossa_gain": 1 + draw.scanner.fossa * settings.scanner_bias,
    }


def region_rows(plan: Plan, visit: Visit, head: Head) -> list[dict[str, Any]]:
    """Return the ground truth of each cortical region of a visit: rows of truth/regions.tsv."""
    labels: Array = np.asanyarray(head.labels.dataobj)
    counts = np.bincount(labels.ravel(), minlength=2036)
    voxel_mm3 = float(head.labels.affine[0, 0] ** 3)
    identity = {"participant_id": plan.label, "session_id": f"ses-{visit.session}" if visit.session else "n/a"}
    return [
        identity
        | {"index": code, "uptake": visit.uptake[code], "thinning_mm": lost, "volume_mm3": counts[code] * voxel_mm3}
        for code, lost in sorted(visit.head.thinning.items())
    ]


def write_truth_tables(out: Path, scans: list[dict[str, Any]], regions: list[dict[str, Any]]) -> None:
    """Write truth/scans.json and truth/regions.tsv."""
    import json

    import pandas as pd

    write_text(json.dumps(scans, indent=1) + "\n", out / "truth" / "scans.json")
    write_tsv(pd.DataFrame(regions), out / "truth" / "regions.tsv")


def write_dataset_files(out: Path, plans: list[Plan], settings: Simulation) -> None:
    """Write what describes the dataset as a whole."""
    import pandas as pd

    write_json(dataset_description(), out / "dataset_description.json")
    options = f"--participants {settings.participants} --seed {settings.seed} --voxel-size {settings.voxel_mm:g}"
    options += f" --pet {settings.pet}" + (" --sessions" if settings.sessions else "")
    if settings.visits > 1:
        options += f" --sessions {settings.visits} --annual-change {settings.annual_change:g}"
        options += f" --annual-atrophy {settings.annual_atrophy:g}"
        options += " --t1w-differs" if settings.t1w_differs else ""
    options += f" --scanner-bias {settings.scanner_bias:g}" if settings.scanner_bias else ""
    options += " --p-tau217" if settings.p_tau217 else ""
    write_text(README.format(version=__version__, options=options), out / "README")
    write_text("truth\n", out / ".bidsignore")
    rows = [
        dict(zip(("participant_id", "age", "sex"), (plan.label, *age_and_sex(i, settings.seed)), strict=True))
        | {"group": plan.group}
        | ({"p_tau217": plasma_p_tau217(i, plan, settings.seed)} if settings.p_tau217 else {})
        for i, plan in enumerate(plans, start=1)
    ]
    write_tsv(pd.DataFrame(rows), out / "participants.tsv")
    described = {name: about for name, about in PARTICIPANTS.items() if name in rows[0]}
    write_json(described, out / "participants.json")
