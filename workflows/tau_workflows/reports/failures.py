"""Scans that failed: at which step, why, what to do, and the picture of their raw images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.derivatives.names import PetNames, error_path
from tau_pipeline.derivatives.status import ScanStatus, read_status
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import name_parts, read_json
from tau_pipeline.imaging.load import load_volume, read_shape
from tau_pipeline.imaging.volume import Volume
from tau_workflows.reports import html

#: ``desc`` of the picture.
HEADERS = "headers"
#: Steps by the last word of their name in an error record, as the page calls them.
_STEPS = {
    "input": "reading the input",
    "read_t1w": "reading of the T1w",
    "brain": "brain extraction of the T1w",
    "bias": "bias correction of the T1w",
    "template": "registration of the T1w to the template",
    "tissue": "tissue segmentation of the T1w",
    "labels": "parcellation of the T1w",
    "regions": "transfer of the template's regions to the T1w",
    "reference": "reference region",
    "motion": "motion correction of the PET frames",
    "coregister": "coregistration of PET to T1w",
    "on_t1w": "resampling of the PET to the T1w",
    "quantify": "SUVR and regional table",
    "early_figures": "figures of brain mask and tissue",
    "anat_figures": "figures of the T1w",
    "activity_figures": "figures of the PET on the T1w",
    "save_anat": "writing the outputs of the T1w",
    "graph": "start of the processing",
    "report": "report",
}
#: Images with more voxels than this are not drawn: the picture must not need more memory than the scan had.
_MOST_VOXELS = 2.0e8
_AGAIN = (
    "Correct the cause and run the same command again: steps that are done are not computed again. "
    "The scan is in no table and no mean until then."
)


@dataclass(frozen=True)
class Failure:
    """A scan that is not done.

    Attributes
    ----------
    scan
        Stem of the raw file's name, ``sub-01_trc-AV1451_pet``.
    kind
        ``pet`` or ``T1w``.
    state
        ``failed`` or ``interrupted``.
    step, reason, advice
        Where and why, and what to do; the step is empty where it is not known.
    """

    scan: str
    kind: str
    state: str
    step: str
    reason: str
    advice: str = _AGAIN

    @property
    def entities(self) -> dict[str, str]:
        """Return the entities of the raw file's name."""
        return name_parts(Path(self.scan))[0]


def failures_of(output_dir: Path, participant: str) -> list[Failure]:
    """Return the scans of a participant that failed or were interrupted, from its status and its error records.

    A scan whose record of states cannot be read is known from its error record.
    """
    states: Mapping[str, ScanStatus] = {}
    with suppress(TauPipelineError):
        states = read_status(output_dir, participant)
    found = {key: one for key, one in states.items() if one.state in ("failed", "interrupted")}
    failures = []
    for key, status in found.items():
        failures.append(_failure(output_dir, key, status.state, status.reason))
    for path in sorted(error_path(output_dir, "x").parent.glob(f"sub-{participant}_*.json")):
        if path.stem not in states:
            failures.append(_failure(output_dir, path.stem, "failed", ""))
    return [one for one in failures if one.kind in ("pet", "T1w")]


def _failure(output_dir: Path, key: str, state: str, reason: str) -> Failure:
    record, path = dict[str, Any](), error_path(output_dir, key)
    with suppress(TauPipelineError):
        record = read_json(path)
    said = (html.error_record(path)["message"] if path.is_file() else reason) or "no reason recorded"
    return Failure(key, name_parts(Path(key))[1], state, step_name(str(record.get("step", ""))), str(said))


def step_name(step: str) -> str:
    """Return a step of an error record in words.

    Examples
    --------
    >>> step_name("pet_sub_01_trc_AV1451 coregister")
    'coregistration of PET to T1w'
    >>> step_name("something new")
    'something new'
    """
    last = step.rsplit(" ", maxsplit=1)[-1]
    if last.startswith(("figures_", "save_")):
        return "figures of the PET" if last.startswith("figures_") else "writing the outputs of the PET"
    return _STEPS.get(last, step)


def draw_headers(bids_dir: Path, output_dir: Path, keys: Iterable[str]) -> None:
    """Draw the raw T1w and PET of each failed PET scan, as far as they can be read and are not drawn yet.

    Parameters
    ----------
    bids_dir, output_dir
        Roots of the raw dataset and of the derivatives.
    keys
        Stems of the raw files' names; those that are no PET are passed over.
    """
    for key in keys:
        entities, suffix = name_parts(Path(key))
        if suffix != "pet" or "sub" not in entities or "desc" in entities:
            continue
        target = PetNames(output_dir, entities).figure(HEADERS)
        with suppress(TauPipelineError, ValueError):
            _draw(_raw(bids_dir, entities, "anat/*_T1w"), _raw(bids_dir, entities, f"pet/{key}"), target)


def _draw(t1w_file: Path | None, pet_file: Path | None, target: Path) -> None:
    pet, t1w = _loaded(pet_file), _loaded(t1w_file)
    if pet is None and t1w is None:
        return
    from tau_pipeline.figures.headers import headers_figure
    from tau_pipeline.figures.sheet import save_figure

    save_figure(headers_figure(t1w, pet), target)


def _raw(bids_dir: Path, entities: Mapping[str, str], pattern: str) -> Path | None:
    """Return the first raw file of that pattern: of the scan's session, else of any session of the participant."""
    participant = bids_dir / f"sub-{entities['sub']}"
    sessions = [participant / f"ses-{entities['ses']}"] if "ses" in entities else []
    for folder in (*sessions, participant, *sorted(participant.glob("ses-*"))):
        found = [*sorted(folder.glob(f"{pattern}.nii.gz")), *sorted(folder.glob(f"{pattern}.nii"))]
        if found:
            return found[0]
    return None


def _loaded(path: Path | None) -> Volume | None:
    """Return an image; None if it cannot be read, or is too large."""
    if path is None:
        return None
    with suppress(TauPipelineError):
        if math.prod(read_shape(path)) <= _MOST_VOXELS:
            return load_volume(path)
    return None


def forget_headers(output_dir: Path, keys: Iterable[str]) -> None:
    """Remove the pictures that an earlier run made of scans, which may succeed now."""
    for key in keys:
        entities, suffix = name_parts(Path(key))
        if suffix == "pet" and "sub" in entities:
            with suppress(ValueError):
                PetNames(output_dir, entities).figure(HEADERS).unlink(missing_ok=True)
