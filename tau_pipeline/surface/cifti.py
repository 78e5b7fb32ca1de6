"""CIFTI-2 files of values on both hemispheres."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import cifti2

from tau_pipeline.files import complete_file
from tau_pipeline.surface.mesh import SIDES, Side, Values


def save_dscalar(values: Mapping[Side, Values], path: Path, name: str) -> Path:
    """Write one map of both hemispheres as ``.dscalar.nii``, float32.

    Parameters
    ----------
    values
        By side ``(V,)``; NaN is no cortex, or not measured.
    path
        Of the file.
    name
        Of the map.
    """
    models = [
        cifti2.BrainModelAxis.from_mask(np.ones(len(values[side]), dtype=bool), name=f"cortex_{side}") for side in SIDES
    ]
    axes = (cifti2.ScalarAxis([name]), models[0] + models[1])
    data = np.concatenate([values[side] for side in SIDES]).astype(np.float32)[None]
    image = cifti2.Cifti2Image(data, header=axes)
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
    with complete_file(path) as partial:
        nib.save(image, partial)
    return Path(path)
