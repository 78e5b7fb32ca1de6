"""A made-up cohort's output folder: the files that the group level leaves, without any image of a brain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from phantom import identity, label_numbers
from PIL import Image

from tau_pipeline.atlas import composites, label_table
from tau_pipeline.derivatives.columns import column_name
from tau_pipeline.derivatives.names import AnatNames, PetNames, error_path, sidecar_path
from tau_pipeline.files import write_json, write_text, write_tsv
from tau_pipeline.imaging.volume import image_like, image_on
from tau_pipeline.measures.regions import regional_table

MANUFACTURERS = {"Siemens": (1.0, 0.06), "GE": (1.12, 0.08), "Philips": (0.9, 0.05)}
DIAGNOSES = {"CN": 0.0, "MCI": 0.12, "AD": 0.45}
NUMBERS = (
    *("mask_volume_ml", "registration_nmi", "motion_mm", "reference_value", "reference_volume_ml", "noise"),
    *("effective_fwhm_mm", "brain_mean", "brain_sd", "cortex_p75", "cortex_p90", "cortex_p99"),
    *("cortex_p75_standardized", "cortex_p90_standardized", "cortex_p99_standardized"),
)
OUTLIERS = {
    "mask_volume_outlier": "mask_volume_ml",
    "registration_outlier": "registration_nmi",
    "reference_value_outlier": "reference_value",
    "noise_outlier": "noise",
    "cortex_p90_outlier": "cortex_p90",
}
COLUMNS = (
    *("scan", "participant_id", "session_id", "tracer", "manufacturer", "model", "source", "reference_region", "age"),
    *("sex", "diagnosis", "state", "reason", *NUMBERS, "n_assumptions", "minutes", *OUTLIERS),
)
FAILURES = (
    (
        "failed",
        "the PET of sub-{label} has frames up to 75 min, and the window asked for starts at 80 min; pass --suvr-window",
    ),
    ("skipped", "sub-{label} has no T1w image, so its PET cannot be placed; add one or leave the participant out"),
)
CITATION = (
    "# Methods\n\nPET was divided by the mean of the reference region.\n\n## Papers\n\n- N4: Tustison et al. 2010\n"
)
SIDECAR = {
    "TracerName": "AV1451",
    "FrameTimesStart": [4800],
    "FrameDuration": [1200],
    "ReferenceRegion": "CerebellarGM",
    "ReferenceValue": 3512.4,
    "ReferenceRegionVolume": 93412.0,
    "RegistrationMetric": 1.1823,
    "SmoothingFWHM": 0.0,
    "EffectiveFWHM": 6.0,
    "SoftwareName": "tau-pipeline",
    "SoftwareVersion": "0.1.0",
    "BrainMean": 1.187,
    "BrainStandardDeviation": 0.281,
    "CorticalPercentiles": {"75": 1.31, "90": 1.52, "99": 2.02},
    "Noise": 0.071,
}


def status_table(count: int, seed: int = 0, bad_every: int = 8) -> pd.DataFrame:
    """As many scans as asked for, manufacturers and diagnoses in turn; each ``bad_every``-th failed or was skipped."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        label = f"{k + 1:0{len(str(count))}d}"
        manufacturer = list(MANUFACTURERS)[k % 3]
        diagnosis = list(DIAGNOSES)[(k // 3) % 3]
        rows.append(
            _row(
                rng,
                label,
                manufacturer,
                diagnosis,
                FAILURES[k // bad_every % 2] if k % bad_every == bad_every - 1 else None,
            )
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for place, percentile in enumerate((75, 90, 99)):
        own = table.groupby("manufacturer")[f"cortex_p{percentile}"]
        table[f"cortex_p{percentile}_standardized"] = (
            table[f"cortex_p{percentile}"] - own.transform("mean")
        ) / own.transform("std")
        table[f"cortex_p{percentile}_standardized"] += 0.7 + place
    for name, of in OUTLIERS.items():
        table[name] = (table[of] - table[of].mean()) / table[of].std()
    return table


def _row(rng: np.random.Generator, label: str, manufacturer: str, diagnosis: str, bad: tuple[str, str] | None) -> dict:
    row = {
        "scan": f"sub-{label}_trc-AV1451_pet",
        "participant_id": f"sub-{label}",
        "tracer": "AV1451",
        "manufacturer": manufacturer,
        "model": {"Siemens": "Biograph mMR", "GE": "Discovery MI", "Philips": "Ingenuity TF"}[manufacturer],
        "source": "measured",
        "reference_region": "CerebellarGM",
        "age": float(rng.integers(55, 90)),
        "sex": "FM"[int(rng.integers(2))],
        "diagnosis": diagnosis,
        "state": "done",
        "n_assumptions": int(rng.integers(0, 4)),
        "minutes": rng.normal(14, 2),
    }
    if bad:
        return row | {"state": bad[0], "reason": bad[1].format(label=label), "n_assumptions": None, "minutes": None}
    gain, noise = MANUFACTURERS[manufacturer]
    level = DIAGNOSES[diagnosis] * rng.normal(1, 0.3)
    values = {
        "mask_volume_ml": rng.normal(1430, 110),
        "registration_nmi": rng.normal(1.17, 0.012),
        "motion_mm": abs(rng.normal(0, 1.1)),
        "reference_value": rng.normal(4200, 900) * gain,
        "reference_volume_ml": rng.normal(96, 8),
        "noise": noise * rng.normal(1, 0.15),
        "effective_fwhm_mm": {"Siemens": 4.9, "GE": 5.5, "Philips": 6.3}[manufacturer],
        "brain_mean": gain * (1.1 + 0.3 * level),
        "brain_sd": gain * (0.24 + 0.2 * level),
    }
    for percentile, at_rest, by_disease in ((75, 1.18, 0.6), (90, 1.32, 1.2), (99, 1.6, 2.2)):
        values[f"cortex_p{percentile}"] = gain * (at_rest + by_disease * level + rng.normal(0, 0.05))
    return row | values


def wide_table(status: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A row for each scan that is done: mean SUVR of each cortical region, higher in temporal ones with disease."""
    rng = np.random.default_rng(seed)
    done = status[status["state"] == "done"]
    names = ["participant_id", "session_id", "scan", "tracer", "manufacturer", "source", "reference_region"]
    columns = {name: done[name].to_numpy() for name in (*names, "age", "sex", "diagnosis")}
    level = done["diagnosis"].map(DIAGNOSES).fillna(0.1).to_numpy(float)
    for region in label_table().query("kind == 'cortical'")["region"]:
        name = column_name(region, "", "cortical")
        temporal = any(
            word in region for word in ("temporal", "entorhinal", "fusiform", "parahippo", "inferiorparietal")
        )
        mean = 1.05 + rng.normal(0, 0.05) + level * (1.6 if temporal else 0.5) + rng.normal(0, 0.03, len(done))
        columns[name] = mean
        columns[f"{name}_standardized"] = mean - 1
    return pd.DataFrame(columns)


def write_group_files(folder: Path, status: pd.DataFrame, standardized: bool = True) -> None:
    """The group level's tables, and what the runs left under ``logs``."""
    group = folder / "group"
    write_tsv(status, group / "status.tsv")
    wide = wide_table(status)
    write_text(wide.to_csv(index=False, na_rep="n/a"), group / "suvr_rois_wide.csv")
    if standardized:
        done = status[status["state"] == "done"]
        rows = [
            [
                *("AV1451", "CerebellarGM", name, len(own), own["brain_mean"].mean(), own["brain_sd"].mean()),
                *(",".join(own["participant_id"]), "0123456789ab"),
            ]
            for name, own in [*done.groupby("manufacturer"), ("pooled", done)]
        ]
        names = ["tracer", "reference_region", "manufacturer", "n_participants", "mean", "sd", "participants"]
        write_tsv(pd.DataFrame(rows, columns=[*names, "participants_hash"]), group / "standardization.tsv")
    write_text(CITATION, folder / "logs" / "CITATION.md")
    for row in status[status["state"] == "failed"].itertuples():
        write_json({"scan": row.scan, "step": "frames", "message": row.reason}, error_path(folder, row.scan))


def write_participant(folder: Path, label: str, manufacturer: str = "Siemens", level: float = 0.3) -> None:
    """Small figures, a mask, a sidecar and a region table of one participant."""
    anat, pet = AnatNames(folder, {"sub": label}), PetNames(folder, {"sub": label, "trc": "AV1451"})
    for desc in ("brainMask", "parcellation"):
        picture(anat.figure(desc))
    for desc in ("coregistration", "suvr", "referenceCerebellarGM", "blendT1w", "blendPET"):
        picture(pet.figure(desc))
    said = [f"The resolution was taken as 6 mm, from the scanner of {manufacturer}."]
    write_json(SIDECAR | {"Manufacturer": manufacturer, "Assumptions": said}, sidecar_path(pet.suvr()))
    write_tsv(region_table(label, manufacturer, level), pet.rois)


def region_table(
    label: str, manufacturer: str = "Siemens", level: float = 0.3, source: str = "measured"
) -> pd.DataFrame:
    """Region table of a box with a few voxels of each label."""
    labels = np.resize(np.repeat(label_numbers(), 6), (10, 10, 10)).astype(np.int16)
    dseg = image_on(labels, np.eye(4))
    braak34 = np.isin(labels, composites()["braak34"]["both"])
    ramp = np.linspace(-0.1, 0.1, 1000, dtype=np.float32).reshape(labels.shape)
    suvr = image_like((1.1 + level * braak34 + ramp).astype(np.float32), dseg)
    whose = identity(label, manufacturer, source=source)
    return regional_table(suvr, dseg, image_like((labels == 8).astype(np.uint8), dseg), "CerebellarGM", whose)


def picture(path: Path, color: tuple[int, int, int] = (200, 30, 90)) -> Path:
    """A small PNG of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), color).save(path)
    return path
