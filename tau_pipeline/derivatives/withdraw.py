"""Take the results of a failed scan away, so that no map or table of another run passes for its own."""

from __future__ import annotations

from contextlib import suppress

from tau_pipeline.derivatives.names import PetNames, SyntheticNames, sidecar_path
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
            with suppress(OSError):
                path.unlink()
                sidecar_path(path).unlink(missing_ok=True)
