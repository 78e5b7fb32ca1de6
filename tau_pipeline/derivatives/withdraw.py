"""Take the results of a failed scan away, so that no map or table of another run passes for its own."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tau_pipeline.derivatives.names import AnatNames, PetNames, SyntheticNames, sidecar_path
from tau_pipeline.files import name_parts

#: Starts of the labels of ``desc`` of maps and tables.
_RESULTS = {"measured": ("suvr", "std", "pvc"), "synthetic": ("synth",)}


def withdraw(names: PetNames | SyntheticNames) -> None:
    """Delete the maps and tables of a scan, with their sidecars; transforms and figures stay.

    What cannot be deleted is left. Its state is ``failed``, so that the tables of the cohort do not have it.

    Parameters
    ----------
    names
        Of the scan's files.
    """
    for path in sorted(names.rois.parent.glob(f"{names.stem}_*")):
        parts = name_parts(path)[0]
        if type(names).of(path).stem == names.stem and parts.get("desc", "").startswith(_RESULTS[names.source]):
            _delete(path)


def withdraw_surfaces(anat: AnatNames, scans: Iterable[PetNames]) -> None:
    """Delete the surfaces of a T1w, their table and figure, and the maps of its scans on average surfaces."""
    kinds = ("midthickness", "white", "pial", "sphere", "thickness", "labels")
    for kind in kinds:
        _delete(anat.surface("left", kind))
        _delete(anat.surface("right", kind))
    _delete(anat.thickness_table)
    _delete(anat.figure("surfaces"))
    for names in scans:
        for path in sorted(names.rois.parent.glob(f"{names.stem}_*")):
            if PetNames.of(path).stem == names.stem and path.name.endswith((".func.gii", ".dscalar.nii")):
                _delete(path)


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
        sidecar_path(path).unlink(missing_ok=True)
