"""Parts that all made-up participants share, whichever images and tables are written for them.

Made-up participants are of four kinds: tiny results of the participant level (`participant_results`), a head that is a
smooth function of world coordinates (`synthesis_cohort`, with region tables in `toy_models`), the tables of a group
without images (`made_up_cohort`), and results from the truth of a simulation (`truth_results`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tau_pipeline.atlas import label_table
from tau_pipeline.derivatives.names import PetNames
from tau_pipeline.derivatives.status import ScanStatus, update_status

TRACER = "AV1451"


def tiny_dataset(root: Path, labels: Sequence[str]) -> Path:
    """A BIDS dataset whose images have 4 x 4 x 4 voxels: enough for everything that happens before computing."""
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    sidecar = {"FrameTimesStart": [4800], "FrameDuration": [1200], "TracerName": TRACER, "Units": "Bq/mL"}
    for label in labels:
        for folder, name in (("anat", "T1w"), ("pet", f"trc-{TRACER}_pet")):
            path = root / f"sub-{label}" / folder / f"sub-{label}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(image, path)
        (root / f"sub-{label}/pet/sub-{label}_trc-{TRACER}_pet.json").write_text(json.dumps(sidecar))
    (root / "dataset_description.json").write_text(json.dumps({"Name": "tiny", "BIDSVersion": "1.10.0"}))
    return root


def identity(
    participant: str,
    manufacturer: str | None,
    *,
    session: str | None = None,
    tracer: str = TRACER,
    source: str = "measured",
) -> dict[str, str | None]:
    """Return the columns of a region table that say whose it is."""
    return {
        "participant_id": f"sub-{participant}",
        "session_id": f"ses-{session}" if session else None,
        "tracer": tracer,
        "manufacturer": manufacturer,
        "source": source,
    }


def label_numbers() -> np.ndarray:
    """Return the numbers of all cortical and subcortical labels."""
    return label_table().query("kind in ('cortical', 'subcortical')")["index"].to_numpy()


def record_done(
    out: Path,
    pet: PetNames,
    manufacturer: str | None,
    *,
    session: str | None = None,
    tracer: str = TRACER,
    **more: Any,
) -> None:
    """Record that a scan is done; ``more`` goes to `ScanStatus` (model, minutes)."""
    stem = pet.rois.name.removesuffix("_desc-suvr_rois.tsv")
    key = f"{stem}_pet"
    status = ScanStatus(key, "done", "", stem, session, tracer, manufacturer, **more)
    update_status(out, {key: status})
