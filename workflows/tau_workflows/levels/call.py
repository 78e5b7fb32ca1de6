"""Parts shared by the levels: exit codes, messages, checks of the call, and the locks of folders."""

from __future__ import annotations

import os
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from tau_pipeline.derivatives.dataset import check_output_dir
from tau_pipeline.errors import MissingInputError
from tau_pipeline.lock import exclusive_use
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.participant import Selection

if TYPE_CHECKING:
    from tau_pipeline.cohort.demographics import Demographics

#: Exit codes: all scans are done; at least one failed; the call or the input is wrong; nothing to do.
DONE, SOME_FAILED, WRONG_CALL, NOTHING_TO_DO = 0, 1, 2, 3
#: Exit codes after SIGINT (Ctrl-C) and SIGTERM.
INTERRUPTED, TERMINATED = 130, 143


_command: ContextVar[str] = ContextVar("command", default="")


def note_command(arguments: Sequence[str]) -> None:
    """Keep the command line, which reports state."""
    _command.set(shlex.join(["tau-pipeline", *arguments]))


def command_line() -> str:
    """Return the command line of this run; empty if a level was called from Python."""
    return _command.get()


def say(text: str) -> None:
    """Write one line to the terminal; of several processes of one training, only the first one writes."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"tau-pipeline: {printable(text)}\n")
        sys.stderr.flush()


def printable(text: str) -> str:
    """Return a text without control characters: names in a dataset may hold sequences that a terminal obeys.

    Examples
    --------
    >>> printable("sub-01" + chr(27) + "[2J")
    'sub-01?[2J'
    """
    return "".join(one if one in "\n\t" or unicodedata.category(one)[0] != "C" else "?" for one in text)


def current_folder() -> str:
    """Return the current folder.

    Raises
    ------
    MissingInputError
        It was removed, or cannot be read.
    """
    try:
        return str(Path.cwd())
    except OSError as exc:
        raise MissingInputError(f"the current folder cannot be used ({exc.strerror}); change to another one") from exc


def check_call(bids_dir: Path, output_dir: Path) -> None:
    """Refuse a call without a BIDS dataset, or without results of the participant level.

    Raises
    ------
    MissingInputError, OutputError
        The message says which.
    """
    if not bids_dir.is_dir():
        raise MissingInputError(f"{bids_dir} is not a folder; give the root of a BIDS dataset")
    if not (output_dir / "dataset_description.json").is_file():
        raise MissingInputError(f"{output_dir} holds no results of tau-pipeline yet; run the participant level first")
    check_output_dir(output_dir, bids_dir)


@contextmanager
def exclusive_run(level: str, *folders: tuple[Path, str], participants: Iterable[str] | None = None) -> Iterator[None]:
    """Hold the locks of folders, or of participants of them, while the block runs.

    Parameters
    ----------
    level
        What this run does, for the message that another run gets.
    folders
        Folders, made where they do not exist, each with what to do where another run holds it. A folder given twice
        counts once.
    participants
        Labels, without ``sub-``, of the only participants that this run writes for; None for all.

    Raises
    ------
    BusyError, OutputError
        Another run holds a folder, or it cannot be written to.
    """
    with ExitStack() as locks:
        held: set[Path] = set()
        for folder, advice in folders:
            if folder.resolve() not in held:
                folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(exclusive_use(folder, level, advice, participants))
                held.add(folder.resolve())
        yield


def is_selected(participant: str, session: str | None, selection: Selection) -> bool:
    """Say whether the selection leaves a participant's session in; an empty selection leaves all in."""
    by_participant = not selection.participant_label or participant in selection.participant_label
    return by_participant and (not selection.session_label or session in selection.session_label)


def read_people(bids_dir: Path, config: Configuration) -> Demographics:
    """Return covariates and diagnosis as ``participants.tsv`` or ``sessions.tsv`` state them, and say what is odd."""
    # Only here, since the command line needs the exit codes before pandas is loaded.
    from tau_pipeline.cohort.demographics import read_demographics

    demographics = read_demographics(bids_dir, config.group.diagnosis_column, further=True)
    for sentence in demographics.notes:
        say(sentence)
    return demographics


def diagnoses_of(demographics: Demographics) -> dict[str, str]:
    """Return the diagnosis of each participant who has one."""
    return {who: str(own["diagnosis"]) for who, own in demographics.of_participant.items() if "diagnosis" in own}
