"""Validate the input beside the work, and say what the official validator finds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from tau_pipeline.bids.validator import ValidationReport, ValidatorError, validate
from tau_pipeline.errors import InvalidDatasetError
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.words import counted
from tau_workflows.levels.call import DONE, SOME_FAILED, say

#: From this number of participants on, the dataset is validated while scans are processed instead of before.
_MANY = 2000


class Validation:
    """Validation of the input, by a separate program, beside the search for images.

    For ten thousand participants, validation takes minutes and 2 GB, so processing of large datasets starts meanwhile.
    """

    def __init__(self, bids_dir: Path, config: Configuration) -> None:
        execution = config.execution
        others = (execution.dry_run, execution.boilerplate_only, execution.reports_only, execution.write_array)
        self._bids_dir, self._computes, self._late = bids_dir, not any(others), False
        self._found: Future[ValidationReport] | None = None
        if not execution.skip_bids_validation:
            thread = ThreadPoolExecutor(1)
            self._found = thread.submit(validate, bids_dir, config.selection.participant_label)
            thread.shutdown(wait=False)

    def check(self, n_participants: int) -> None:
        """Wait for the validator, and refuse a dataset that is wrong as a whole; of a large one begin without it.

        Raises
        ------
        InvalidDatasetError
            As `_check_validity`.
        """
        self._late = self._found is not None and self._computes and n_participants >= _MANY
        if self._late:
            say(f"{n_participants} participants: the dataset is validated while the scans are processed")
        elif self._found is not None:
            if self._computes:
                # It takes a second to load, and the validator is another process.
                import_module("tau_workflows.execution.spread")
            _check_validity(self._bids_dir, validated(self._found.result))

    def tell(self) -> int:
        """Say at the end of a run what was not known at its beginning; returns the exit code."""
        if not self._late or self._found is None:
            return DONE
        found = validated(self._found.result)
        say_validity(found, "the input")
        return SOME_FAILED if found is not None and found.errors else DONE


def _check_validity(bids_dir: Path, found: ValidationReport | None) -> None:
    """Refuse a dataset that is not valid as a whole; errors of one participant are reported and stop only that one.

    Raises
    ------
    InvalidDatasetError
        The official validator finds errors outside of the participants' folders.
    """
    if found is not None and found.errors:
        raise InvalidDatasetError(
            f"{bids_dir} is not valid BIDS: {'; '.join(found.errors)}. Correct it, or pass --skip-bids-validation"
        )
    say_validity(found, "the input")


def validated(validation: Callable[[], ValidationReport]) -> ValidationReport | None:
    """Return what a validation finds; if it cannot be done, report why."""
    try:
        return validation()
    except ValidatorError as exc:
        say(str(exc))
        return None


def say_validity(found: ValidationReport | None, what: str) -> None:
    """Say in sentences what a validation has found; nothing where there was none."""
    if found is None:
        return
    own = [sentence for sentences in found.participant_errors.values() for sentence in sentences]
    for sentence in (*found.errors, *own):
        say(f"the BIDS validator calls {what} invalid: {sentence}")
    if found.valid:
        say(f"{what} is valid BIDS ({counted(len(found.warnings), 'kind')} of warnings)")
