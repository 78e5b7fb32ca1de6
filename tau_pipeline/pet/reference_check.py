"""Checks of a reference region on the PET: what was measured of it, and activity that cannot be right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ReferenceRegionError
from tau_pipeline.settings.participant import Settings


def measured_part(activity: NDArray, reference: NDArray) -> NDArray[np.bool_]:
    """Return the voxels of a mask ``(I, J, K)`` that the PET measured, so that a cut FOV does not lower the mean.

    A voxel that is not finite, or exactly 0 as earlier versions left it outside the field of view, was not measured.
    """
    return reference.astype(bool) & _measured(activity)


def _measured(values: NDArray) -> NDArray[np.bool_]:
    return np.isfinite(values) & (values != 0)


def check_reference(
    activity: NDArray,
    reference: NDArray,
    brain: NDArray,
    name: str,
    min_measured_fraction: float = Settings.min_measured_fraction,
) -> tuple[str, ...]:
    """Refuse a reference region whose activity cannot be right, and say what looks odd.

    Parameters
    ----------
    activity
        PET ``(I, J, K)``, any unit proportional to activity.
    reference
        Boolean mask ``(I, J, K)``, or the number of the part of each voxel, 0 outside; each part must be measured.
    brain
        Boolean mask on the same grid.
    name
        The region's name, for the messages.
    min_measured_fraction
        Of the region, which is refused with less.

    Returns
    -------
    tuple of str
        Sentences to put into the sidecar and the report: a coefficient of variation over 25 %, or more than 5 %
        of the region without a measurement. Empty when nothing is odd.

    Raises
    ------
    ReferenceRegionError
        The region is empty, too little of it or of one of its parts was measured, its mean is not positive, or its
        mean is not within 0.3 to 2 times the brain's: in tau PET the cerebellum has 0.5 to 1.1 times the brain's
        activity, white matter little more.
    """
    parts, reference, brain = reference, reference.astype(bool), brain.astype(bool)
    values = activity[reference].astype(np.float64)
    if values.size == 0:
        raise ReferenceRegionError(f"reference region {name} is empty; check the parcellation")
    measured = _measured(values)
    share = float(measured.mean())
    lacking = 100 * (1 - share)
    numbers = parts[reference]
    by_part = [float(measured[numbers == number].mean()) for number in np.unique(numbers)]
    if not measured.any() or min(by_part) < min_measured_fraction:
        which = f"one of the parts of reference region {name}" if len(by_part) > 1 else f"reference region {name}"
        raise ReferenceRegionError(
            f"the PET measured {min(by_part):.0%} of {which}, and at least {min_measured_fraction:.0%} "
            "(--min-measured-fraction) are needed: check the field of view of the PET and the coregistration, or take "
            "another reference region (--ref-region)"
        )
    mean = float(values[measured].mean())
    whole = activity[brain]
    whole_mean = float(whole[np.isfinite(whole)].mean(dtype=np.float64)) if np.isfinite(whole).any() else 0.0
    if mean <= 0 or whole_mean <= 0:
        raise ReferenceRegionError(
            f"the mean activity is {mean:.4g} in reference region {name} and {whole_mean:.4g} in the brain; both must "
            "be above 0: check the PET image and its coregistration"
        )
    if not 0.3 <= mean / whole_mean <= 2:
        raise ReferenceRegionError(
            f"the mean activity in reference region {name} is {mean / whole_mean:.2f} times the brain's; 0.3 to 2 is "
            "expected: check the coregistration and the parcellation"
        )
    return _oddities(values[measured], lacking, name)


def _oddities(values: NDArray, lacking: float, name: str) -> tuple[str, ...]:
    found = []
    if lacking > 5:
        found.append(
            f"{lacking:.0f} % of reference region {name} has no PET activity: it is partly outside the field of view."
        )
    variation = 100 * float(values.std() / values.mean())
    if variation > 25:
        found.append(
            f"The activity in reference region {name} varies by {variation:.0f} % (coefficient of variation; under "
            "25 % is expected): a noisy scan, or a misplaced region."
        )
    return tuple(found)
