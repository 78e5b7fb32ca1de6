"""Ask the official BIDS validator, and put its answer into plain sentences."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from tau_pipeline.errors import MissingInputError, TauPipelineError
from tau_pipeline.files import is_folder

PROGRAM = "bids-validator-deno"

#: How many of the missing keys a sentence names.
_SHOWN_KEYS = 6

#: The validator's codes in words; a code that is not here is printed as it is.
_IN_WORDS = {
    "EMPTY_FILE": "a file is empty",
    "FILE_READ": "a file cannot be read",
    "GZIP_HEADER_DATA_MISSING_OR_MISMATCHED": "a compressed file's header is not complete",
    "JSON_INVALID": "a file is not valid JSON",
    "JSON_KEY_REQUIRED": "a JSON file lacks the key {key}",
    "JSON_SCHEMA_VALIDATION_ERROR": "the value of {key} in a JSON file has the wrong type or form",
    "MISSING_DATASET_DESCRIPTION": "there is no dataset_description.json",
    "NIFTI_HEADER_UNREADABLE": "the header of an image cannot be read",
    "NOT_INCLUDED": "a file or folder has a name that BIDS does not know",
    "PARTICIPANT_ID_MISMATCH": "participants.tsv does not list the participants that have a folder",
    "PET_FRAME_CONSISTENCY": "FrameTimesStart and FrameDuration differ in length",
    "PET_FRAME_CONSISTENCY_FRAME_DURATION": "FrameDuration has not one value for each frame of the image",
    "PET_FRAME_CONSISTENCY_FRAME_TIMES_START": "FrameTimesStart has not one value for each frame of the image",
    "SIDECAR_KEY_REQUIRED": "a sidecar lacks the key {key}",
    "T1W_FILE_WITH_TOO_MANY_DIMENSIONS": "a T1w has more than three dimensions",
}


class ValidatorError(TauPipelineError, RuntimeError):
    """The validator is not installed, did not finish, or gave no answer that can be read."""


@dataclass(frozen=True)
class ValidationReport:
    """Findings of the validator: one sentence per kind of finding, with the number of files and one example.

    ``errors`` concern the dataset as a whole. ``participant_errors`` lie in the folder of one participant, by label:
    they are no reason to stop the others. ``warnings`` come from anywhere.
    """

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    participant_errors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """True if there are no errors of either kind."""
        return not self.errors and not self.participant_errors


def validate(dataset_dir: Path, participants: Collection[str] = (), *, timeout_s: float = 600.0) -> ValidationReport:
    """Run the official validator on a raw or derivative dataset; the dataset's own description says which it is.

    Keys that BIDS requires of a PET's sidecar count as warnings where they are missing: `tau_pipeline.bids.scans`
    asks for those that the job needs, scan by scan, and the others change nothing.

    Parameters
    ----------
    dataset_dir
        Root of the dataset.
    participants
        Labels, without ``sub-``: only their folders and the files at the root are validated, so that a run on a few
        participants of a large dataset does not read them all. Everything is validated if there are none.
    timeout_s
        How long the validator may take, in seconds.

    Raises
    ------
    MissingInputError
        The dataset is not a folder.
    ValidatorError
        The validator is missing, took longer than ``timeout_s``, or failed.
    """
    dataset_dir = Path(dataset_dir)
    if not dataset_dir.is_dir():
        raise MissingInputError(f"{dataset_dir} is not a folder; give the root of a BIDS dataset")
    program = validator_program()
    if (loop := _loop_in(dataset_dir)) is not None:
        raise ValidatorError(
            f"{loop} is a link to a folder that it lies in, which {PROGRAM} would follow without end; the dataset is "
            "not validated until the link is removed"
        )
    try:
        return summarize(_issues(program, dataset_dir, participants, timeout_s))
    except ValidatorError:
        # The validator ends at the first folder that it cannot read.
        closed = _closed_in(dataset_dir, participants)
        if not closed:
            raise
    there = participants or [path.name.removeprefix("sub-") for path in dataset_dir.glob("sub-*") if path.is_dir()]
    open_ones = set(there) - closed.keys()
    rest = summarize(_issues(program, dataset_dir, open_ones, timeout_s)) if open_ones else ValidationReport()
    told = {label: (f"a folder cannot be read ({folder})",) for label, folder in closed.items() if label}
    return replace(rest, participant_errors={**rest.participant_errors, **told})


def _issues(program: Path, dataset_dir: Path, participants: Collection[str], timeout_s: float) -> list[dict[str, Any]]:
    """Return what the validator says of participants and the files at the root; of everything if none is given."""
    if not participants:
        return _run(program, dataset_dir, dataset_dir, timeout_s)
    with tempfile.TemporaryDirectory(prefix="tau-pipeline-dataset-") as folder:
        _link_part(dataset_dir.resolve(), Path(folder), participants)
        return _run(program, Path(folder), dataset_dir, timeout_s)


def _loop_in(dataset_dir: Path) -> str | None:
    """Return a link to a folder that holds it, beside the folders of participants or sessions, or in one; or None."""
    folders = [str(dataset_dir)]
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and is_folder(entry):
                    target = os.path.realpath(entry.path)
                    if f"{os.path.realpath(folder)}/".startswith(f"{target}/"):
                        return entry.path
                elif entry.name.startswith(("sub-", "ses-")) and is_folder(entry):
                    folders.append(entry.path)
    return None


def _closed_in(dataset_dir: Path, participants: Collection[str]) -> dict[str, str]:
    """Return the folders of participants that cannot be read, one each, by label; and one of all others, by ``""``.

    Only those of ``participants`` are looked at, if there are any.
    """
    closed: dict[str, str] = {}

    def note(error: OSError) -> None:
        folder = Path(error.filename).relative_to(dataset_dir)
        found = re.match(r"sub-([^/]+)", folder.as_posix())
        closed.setdefault(found.group(1) if found else "", folder.as_posix())

    roots = [dataset_dir / f"sub-{label}" for label in participants] or [dataset_dir]
    for root in roots:
        for folder, _, _ in os.walk(root, onerror=note):
            try:
                Path(folder, "..").stat()
            except OSError as exc:
                note(exc)
    return closed


def _link_part(dataset_dir: Path, folder: Path, participants: Collection[str]) -> None:
    """Link the files at the root of a dataset and the folders of some participants into a folder."""
    roots = [path for path in dataset_dir.iterdir() if path.is_file() and not path.name.startswith(".tau-pipeline")]
    for path in (*roots, *(dataset_dir / f"sub-{label}" for label in participants)):
        if path.exists():
            (folder / path.name).symlink_to(path)


def validator_program() -> Path:
    """Return the validator's executable: beside the running Python, else on the PATH."""
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise ValidatorError(
            f"{PROGRAM} is not installed; install it with pip install {PROGRAM}, or pass --skip-bids-validation"
        )
    return Path(found)


@cache
def _cache_folder() -> str:
    """Return a folder for the cache of the validator's runtime, which is removed when this process ends.

    By default it is in the home folder, where this program writes nothing. A process that validates its input and its
    output compiles the validator once.
    """
    folder = tempfile.mkdtemp(prefix="tau-pipeline-validator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _run(program: Path, folder: Path, dataset_dir: Path, timeout_s: float) -> list[dict[str, Any]]:
    """Return what the validator says of a folder; messages name the dataset that it stands for."""
    # Without a number the validator reads 1,000 rows of a table, and takes participants after them for not listed.
    command = [str(program), str(folder), "--format", "json", "--max-rows=-1"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1", "DENO_DIR": _cache_folder()},
        )
    except subprocess.TimeoutExpired:
        raise ValidatorError(
            f"{PROGRAM} did not finish within {timeout_s:g} s on {dataset_dir}; pass --skip-bids-validation to continue"
        ) from None
    except OSError as exc:
        raise ValidatorError(f"{program} cannot be run ({exc}); pass --skip-bids-validation to continue") from exc
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError) as exc:
        said = done.stderr.strip().splitlines() or ["no message"]
        told = next((line for line in said if line.startswith("error: ")), said[-1])
        raise ValidatorError(
            f"{PROGRAM} failed on {dataset_dir} ({told}); pass --skip-bids-validation to continue"
        ) from exc
    return list(issues)


def summarize(issues: Iterable[Mapping[str, Any]]) -> ValidationReport:
    """Group the validator's issues: missing keys that nothing depends on into one sentence each, the rest by kind."""
    required: list[Mapping[str, Any]] = []
    recommended: list[Mapping[str, Any]] = []
    groups: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = {}
    for issue in issues:
        code, severity = str(issue.get("code", "")), str(issue.get("severity", ""))
        if code == "SIDECAR_KEY_REQUIRED" and str(issue.get("rule", "")).startswith("rules.sidecars.pet."):
            required.append(issue)
        elif code.endswith("_KEY_RECOMMENDED"):
            recommended.append(issue)
        elif severity in ("error", "warning"):
            label = _participant(issue) if severity == "error" else ""
            groups.setdefault((severity, label, code, str(issue.get("subCode", ""))), []).append(issue)
    errors: dict[str, list[str]] = {}
    warnings = _about_keys(
        "PET sidecars lack required keys, of which only a dynamic PET's frame times matter", required
    )
    warnings += _about_keys("JSON files lack recommended keys", recommended)
    for (severity, label, code, key), group in sorted(groups.items()):
        words = _IN_WORDS.get(code, f"{code} {{key}}".strip()).format(key=key).strip()
        about = warnings if severity == "warning" else errors.setdefault(label, [])
        about.append(f"{words} ({_where(group)})")
    of_dataset = tuple(errors.pop("", []))
    return ValidationReport(of_dataset, tuple(warnings), {label: tuple(found) for label, found in errors.items()})


def _participant(issue: Mapping[str, Any]) -> str:
    found = re.match(r"/sub-([^/]+)/", str(issue.get("location", "")))
    return found.group(1) if found else ""


def _about_keys(start: str, issues: list[Mapping[str, Any]]) -> list[str]:
    if not issues:
        return []
    keys = sorted({str(issue.get("subCode", "")) for issue in issues})
    further = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
    return [f"{start}: {', '.join(keys[:_SHOWN_KEYS])}{further} ({_where(issues)})"]


def _where(issues: list[Mapping[str, Any]]) -> str:
    files = list(dict.fromkeys(str(issue.get("location", "")).lstrip("/") for issue in issues))
    first = files[0] or "the dataset itself"
    return first if len(files) == 1 else f"{len(files)} files, for example {first}"
