"""Made-up participant-level outputs: tables, sidecars, records and, if wanted, tiny images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from phantom import identity, label_numbers, record_done

from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.derivatives.sidecars import bids_uri
from tau_pipeline.files import write_json, write_tsv
from tau_pipeline.imaging.volume import image_on, save_volume, voxel_volume_mm3
from tau_pipeline.measures.quality import map_quality
from tau_pipeline.measures.regions import regional_table

MAKERS = ("SIEMENS", "GE MEDICAL SYSTEMS", "Philips")
GROUPS = ("CN", "MCI", "AD")
AFFINE = np.array([[-2.0, 0, 0, 9], [0, 2, 0, -8], [0, 0, 2, -7], [0, 0, 0, 1]])
SHAPE = (9, 10, 8)
SCALE = {"SIEMENS": 1.0, "GE MEDICAL SYSTEMS": 0.7, "Philips": 1.4}


def labels() -> np.ndarray:
    """Every label of the table in a few voxels each, and a margin without any."""
    numbers = label_numbers()
    dseg = np.zeros(SHAPE, np.int32)
    inner = dseg[1:-1, 1:-1, 1:-1]
    inner[:] = np.resize(numbers, inner.shape)
    return dseg


@cache
def _made_up(
    participant: str, manufacturer: str | None, seed: int, session: str | None, tau: float, regions: tuple[str, ...]
) -> tuple[np.ndarray, pd.DataFrame, Mapping[str, float]]:
    """Return map, table and quality of the last of some reference regions; many tests write the same scans."""
    dseg, rng, rank = labels(), np.random.default_rng(seed), len(regions) - 1
    brain, reference = dseg > 0, np.isin(dseg, (8, 47))
    base = np.where(dseg >= 1000, 1.2 + tau, 1.0) * SCALE.get(manufacturer or "", 1.0)
    noise = [rng.normal(1, 0.05, SHAPE) for _ in regions][rank]
    suvr = np.where(brain, base * noise * (1 + 0.1 * rank), 0.1).astype(np.float32)
    image, whose = image_on(suvr, AFFINE), identity(participant, manufacturer, session=session)
    table = regional_table(image, image_on(dseg, AFFINE), image_on(reference, AFFINE), regions[rank], whose)
    return suvr, table, map_quality(suvr, brain, dseg, reference, voxel_volume_mm3(image))


def write_scan(
    out: Path,
    participant: str,
    manufacturer: str | None,
    seed: int,
    *,
    session: str | None = None,
    tau: float = 0.0,
    regions: tuple[str, ...] = ("CerebellarGM",),
    images: bool = True,
    changes: Mapping[str, object] | None = None,
) -> PetNames:
    """Write the outputs of one scan; cortical SUVR is 1.2 + ``tau`` times the scale of its manufacturer."""
    entities = {"sub": participant, **({"ses": session} if session else {}), "trc": "AV1451"}
    t1w_entities = {name: entities[name] for name in entities if name != "trc"}
    anat, pet = AnatNames(out, t1w_entities), PetNames(out, entities)
    tables = []
    for rank, region in enumerate(regions):
        suvr, table, quality = _made_up(participant, manufacturer, seed, session, tau, regions[: rank + 1])
        tables.append(table)
        target = pet.suvr(region if rank else "")
        sidecar = {
            "Units": "unitless",
            "SkullStripped": False,
            "SpatialReference": bids_uri(anat.t1w, out, ""),
            "ReferenceRegion": region,
            "ReferenceRegionVolume": 90000.0 + seed,
            "ReferenceValue": 4000.0 + seed,
            "TracerName": "AV1451",
            "Manufacturer": manufacturer or "n/a",
            "ManufacturersModelName": "n/a",
            "EffectiveFWHM": 6.0,
            "RegistrationMetric": 1.2 + seed / 1000,
            "FrameMotion": [0.0, 1.5],
            "Assumptions": ["one"],
            **quality,
            **(changes or {}),
        }
        write_json(sidecar, sidecar_path(target))
        if images:
            save_volume(image_on(suvr, AFFINE), target)
            save_volume(image_on(labels() > 0, AFFINE), anat.mask)
    write_tsv(pd.concat(tables, ignore_index=True), pet.rois)
    record_done(out, pet, manufacturer, session=session, minutes=2.5)
    return pet


def write_cohort(root: Path, n: int = 18, *, images: bool = True) -> tuple[Path, Path]:
    """A raw dataset (its participants.tsv) and results of ``n`` participants, makers and diagnoses crossed in nine."""
    bids, out = root / "bids", root / "out"
    bids.mkdir(parents=True)
    write_json({"Name": "made up", "BIDSVersion": "1.10.0"}, bids / "dataset_description.json")
    write_dataset_files(out, bids)
    rows = []
    for k in range(n):
        maker, group = MAKERS[k % 3], GROUPS[(k // 3) % 3]
        write_scan(out, f"{k:02d}", maker, k, tau=0.3 * GROUPS.index(group), images=images)
        rows.append({"participant_id": f"sub-{k:02d}", "age": 60 + k, "sex": "FM"[k % 2], "group": group})
    write_tsv(pd.DataFrame(rows), bids / "participants.tsv")
    return bids, out
