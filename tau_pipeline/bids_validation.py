"""Ask the official BIDS validator, and put its answer into plain sentences."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.errors import MissingInputError, TauPipelineError

PROGRAM = "bids-validator-deno"

#: Keys without which the validator calls a PET invalid, and which no step of the pipeline reads.
NEEDED_PET_KEYS = ("FrameTimesStart", "FrameDuration")


class ValidatorError(TauPipelineError, RuntimeError):
    """The validator is not installed, did not finish, or gave no answer that can be read."""


@dataclass(frozen=True)
class ValidationReport:
    """What the validator found, one sentence for each kind of finding. ``errors`` empty means a valid dataset."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether there are no errors."""
        return not self.errors


def validate(dataset_dir: Path, *, timeout_s: float = 600.0) -> ValidationReport:
    """Run the official validator on a raw or derivative dataset; the dataset's own description says which it is.

    Missing or empty keys of a PET's sidecar that the job does not need are counted as warnings.

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
    return summarise(_run(validator_program(), dataset_dir, timeout_s))


def validator_program() -> Path:
    """The validator's executable: beside the running Python, else on the PATH."""
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise ValidatorError(
            f"{PROGRAM} is not installed; install it with pip install {PROGRAM}, or pass --skip-bids-validation"
        )
    return Path(found)


def _run(program: Path, dataset_dir: Path, timeout_s: float) -> list[dict[str, Any]]:
    command = [str(program), str(dataset_dir), "--format", "json"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ValidatorError(
            f"{PROGRAM} did not finish within {timeout_s:g} s on {dataset_dir}; pass --skip-bids-validation to go on"
        ) from None
    except OSError as exc:
        raise ValidatorError(f"{program} cannot be run ({exc}); pass --skip-bids-validation to go on") from exc
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError) as exc:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValidatorError(
            f"{PROGRAM} failed on {dataset_dir} ({last}); pass --skip-bids-validation to go on"
        ) from exc
    return list(issues)


def summarise(issues: Iterable[dict[str, Any]]) -> ValidationReport:
    """Group the validator's issues by kind: one sentence for each, with the number of files and one example."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for issue in issues:
        severity = _severity(issue)
        if severity in ("error", "warning"):
            kind = (severity, str(issue.get("code", "")), str(issue.get("subCode", "")))
            groups.setdefault(kind, []).append(issue)
    sentences: dict[str, list[str]] = {"error": [], "warning": []}
    for (severity, code, sub_code), group in groups.items():
        sentences[severity].append(_sentence(code, sub_code, group))
    return ValidationReport(tuple(sorted(sentences["error"])), tuple(sorted(sentences["warning"])))


def _severity(issue: dict[str, Any]) -> str:
    about_pet = str(issue.get("rule", "")).startswith("rules.sidecars.pet.")
    if about_pet and issue.get("code") == "SIDECAR_KEY_REQUIRED" and issue.get("subCode") not in NEEDED_PET_KEYS:
        return "warning"
    return str(issue.get("severity", ""))


def _sentence(code: str, sub_code: str, group: list[dict[str, Any]]) -> str:
    example = str(group[0].get("location", "")).lstrip("/") or "the dataset"
    count = "1 file" if len(group) == 1 else f"{len(group)} files"
    about = f" {sub_code}" if sub_code else ""
    return f"{code}{about}: {count}, for example {example}"
