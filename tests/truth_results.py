"""Participant-level outputs made from the truth of a simulation in a second.

For tests that need a cohort with images and not the computing of it: anatomy, labels and SUVR are those that
``tau-simulate`` wrote under ``truth/``, on the truth's grid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from phantom import identity, record_done

from tau_pipeline.bids.scans import Scan, find_participants
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.derivatives.sidecars import SuvrSidecar, bids_uri, image_sidecar
from tau_pipeline.files import write_json, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample_onto
from tau_pipeline.imaging.volume import Volume, image_like, save_volume, voxel_volume_mm3
from tau_pipeline.measures.quality import map_quality
from tau_pipeline.measures.regions import regional_table
from tau_pipeline.settings.participant import Settings

SAID = "Made from the truth of a simulation, not computed."


def results_from_truth(bids: Path, out: Path) -> list[str]:
    """Write results for every scan that has none; returns their participants."""
    made = []
    for participant in find_participants(bids):
        for scan in participant.scans:
            if not PetNames(out, scan.entities).rois.is_file():
                _write(bids, out, scan)
                made.append(participant.label)
    return made


def _write(bids: Path, out: Path, scan: Scan) -> None:
    truth = {
        what: load_volume(bids / "truth" / f"sub-{scan.participant}_{what}.nii.gz", ndim=3)
        for what in ("labels", "mask", "suvr")
    }
    anat, pet = AnatNames(out, scan.t1w.entities), PetNames(out, scan.entities)
    labels = np.asanyarray(truth["labels"].dataobj)
    suvr = image_like(np.asanyarray(truth["suvr"].dataobj).astype(np.float32), truth["labels"])
    reference = image_like(np.isin(labels, (8, 47)).astype(np.uint8), truth["labels"])
    images: dict[Path, Volume] = {
        anat.t1w: resample_onto(load_volume(scan.t1w.path, ndim=3), truth["labels"]),
        anat.mask: truth["mask"],
        anat.dseg: image_like(labels.astype(np.int32), truth["labels"]),
        anat.reference_mask("CerebellarGM"): reference,
    }
    raw_t1w, raw_pet = bids_uri(scan.t1w.path, bids), bids_uri(scan.pet_file, bids)
    for path, image in images.items():
        save_volume(image, path)
        write_json(
            image_sidecar([raw_t1w], Settings().hash(), skull_stripped=False, assumptions=[SAID]), sidecar_path(path)
        )
    whose = identity(scan.participant, scan.manufacturer, session=scan.session, tracer=scan.tracer)
    write_tsv(regional_table(suvr, truth["labels"], reference, "CerebellarGM", whose), pet.rois)
    values = np.asanyarray(suvr.dataobj)
    inside, voxel = np.asanyarray(truth["mask"].dataobj), voxel_volume_mm3(suvr)
    quality = map_quality(values, inside, labels, np.asanyarray(reference.dataobj), voxel)
    write_json({**_sidecar(scan, raw_pet, bids_uri(anat.t1w, out, "")).content(), **quality}, sidecar_path(pet.suvr()))
    save_volume(suvr, pet.suvr())
    record_done(out, pet, scan.manufacturer, session=scan.session, tracer=scan.tracer, model=scan.model)


def _sidecar(scan: Scan, raw: str, t1w: str) -> SuvrSidecar:
    return SuvrSidecar(
        sources=(raw,),
        reference_image=t1w,
        settings_hash=Settings().hash(),
        reference_region="CerebellarGM",
        reference_region_indices=(8, 47),
        reference_region_volume_mm3=1e5,
        reference_value=1.0,
        frame_start_s=4800.0,
        frame_duration_s=1200.0,
        frame_indices=(0,),
        tracer=scan.tracer,
        radionuclide=scan.radionuclide,
        manufacturer=scan.manufacturer,
        model=scan.model,
        smoothing_fwhm_mm=0.0,
        effective_fwhm_mm=6.0,
        registration_metric=1.1,
        labels="truth",
        assumptions=(SAID,),
    )
