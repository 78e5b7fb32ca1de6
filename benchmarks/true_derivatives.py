"""Participant-level outputs of a simulated cohort, as if without any error, at about one second per participant.

    python benchmarks/true_derivatives.py SIMULATED_BIDS OUT

T1w as it is; mask and labels from the truth; the PET, with its noise and resolution, moved by the true move and divided
by its mean in the true cerebellar cortex. For benchmarks of what a model learns, which are not about the participant
level: its errors are measured by `participant.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tau_pipeline.bids.scans import find_participants
from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.derivatives.sidecars import bids_uri
from tau_pipeline.files import write_json, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.volume import image_like, save_volume
from tau_pipeline.measures.regions import regional_table
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.pet.quantification import pet_on_t1w, suvr
from tau_pipeline.settings.participant import Selection

#: FreeSurfer's numbers of the cerebellar cortex.
CEREBELLAR_CORTEX = (8, 47)


def main() -> None:
    """Write T1w, mask, labels and SUVR map of every participant with PET."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    truth = options.bids / "truth"
    moves = {scan["participant"]: scan["frames"] for scan in json.loads((truth / "scans.json").read_text())}
    write_dataset_files(options.out, options.bids)
    for participant in find_participants(options.bids, Selection()):
        for scan in participant.scans:
            t1w = load_volume(scan.t1w.path, ndim=3)
            anat, pet = AnatNames(options.out, scan.t1w.entities), PetNames(options.out, scan.entities)
            who = f"sub-{participant.label}"
            labels, mask = (
                resample(load_volume(truth / f"{who}_{what}.nii.gz"), t1w, np.eye(4), "nearest")
                for what in ("labels", "mask")
            )
            plan = plan_frames((1, 1, 1, scan.n_frames), scan.pet_metadata)
            frames = [np.array(moves[who][index]) for index in plan.indices]
            activity = pet_on_t1w(load_volume(scan.pet_file), plan, frames, np.eye(4), t1w)
            reference = np.isin(np.asanyarray(labels.dataobj), CEREBELLAR_CORTEX)
            save_volume(t1w, anat.t1w)
            save_volume(image_like(np.asanyarray(mask.dataobj) > 0, t1w), anat.mask)
            save_volume(image_like(np.asanyarray(labels.dataobj).astype(np.int16), t1w), anat.dseg)
            save_volume(image_like(reference.astype(np.uint8), t1w), anat.reference_mask("CerebellarGM"))
            map_img = image_like(suvr(np.asanyarray(activity.dataobj), reference), t1w)
            save_volume(map_img, pet.suvr(""))
            identity = {"participant_id": who, "tracer": scan.tracer, "manufacturer": scan.manufacturer}
            identity |= {"session_id": scan.session and f"ses-{scan.session}", "source": "measured"}
            write_tsv(regional_table(map_img, labels, image_like(reference, t1w), "CerebellarGM", identity), pet.rois)
            sidecar = {
                "Description": "Simulated; on the T1w by the true move",
                "SpatialReference": bids_uri(anat.t1w, options.out, ""),
                "TracerName": scan.tracer,
                "ReferenceRegion": "CerebellarGM",
                "Manufacturer": scan.manufacturer,
            }
            write_json(sidecar, sidecar_path(pet.suvr("")))


if __name__ == "__main__":
    main()
