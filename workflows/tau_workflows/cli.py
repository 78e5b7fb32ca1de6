"""The command line: options made from the documentation of the settings, and exit codes.

Exit codes: 0 everything asked for is done; 1 at least one scan failed, the others are complete; 2 the call or the
input is wrong and nothing was computed; 3 there was nothing to do.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from tau_pipeline import __version__
from tau_pipeline.errors import SettingError, TauPipelineError
from tau_pipeline.settings.configuration import (
    READ_BY,
    Configuration,
    FieldDoc,
    configuration,
    documentation,
    settings_of,
)
from tau_workflows.levels.call import DONE, SOME_FAILED, WRONG_CALL

#: Where libraries keep what they otherwise keep in the home folder, and the folder's name in the work folder.
_CACHES = {"MPLCONFIGDIR": "matplotlib", "NIPYPE_CONFIG_DIR": "nipype"}
#: What is wrong with a path that was given, rather than with us.
_WRONG_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP)


@dataclass(frozen=True)
class Level:
    """One level of the program: what it does, and the function that does it, loaded only when it is asked for."""

    about: str
    module: str
    function: str

    def run(self, bids_dir: Path, output_dir: Path, config: Configuration) -> int:
        """Do it; returns the exit code."""
        with _caches_in(config.execution.work_dir.absolute()):
            return int(getattr(import_module(self.module), self.function)(bids_dir, output_dir, config))


@contextmanager
def _caches_in(work_dir: Path) -> Iterator[None]:
    """Nothing is written outside of the output and work folders, unless the user has named places for `_CACHES`."""
    own = {name: str(work_dir / folder) for name, folder in _CACHES.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


LEVELS = {
    "participant": Level(
        "from raw BIDS to SUVR maps and region tables, each participant by itself",
        "tau_workflows.levels.participant",
        "run_participants",
    ),
    "group": Level(
        "standardize SUVR by manufacturer; group tables and group report", "tau_workflows.levels.group", "run_group"
    ),
    "train": Level(
        "a T1w to tau PET model, from the derivatives of paired scans", "tau_workflows.levels.train", "run_training"
    ),
    "synthesize": Level(
        "synthetic tau PET from T1w derivatives and a trained model", "tau_workflows.levels.synthesize", "run_synthesis"
    ),
}

#: What the level train does with ``--compare``.
_COMPARISON = Level(
    "systems, losses and normalisations beside each other", "tau_workflows.levels.compare", "run_comparison"
)


class _Parser(argparse.ArgumentParser):
    """A parser that answers a wrong option with one line, which names the option that may have been meant."""

    def error(self, message: str) -> NoReturn:
        """End the program with code 2."""
        wrong = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
        close = difflib.get_close_matches(wrong, list(self._option_string_actions), n=1)
        hint = f"; did you mean {close[0]}?" if message.startswith("unrecognized") and close else ""
        self.exit(WRONG_CALL, f"{self.prog}: {message}{hint} ({self.prog} --help lists all options)\n")


def build_parser(level: str | None = None) -> argparse.ArgumentParser:
    """Make the parser, with the options of one level or of all; every option but a few is a documented field."""
    parser = _Parser(
        prog="tau-pipeline",
        usage=f"tau-pipeline BIDS_DIR OUTPUT_DIR {level or '{' + ','.join(LEVELS) + '}'} [options]",
        description=(
            LEVELS[level].about[0].upper() + LEVELS[level].about[1:] + "."
            if level
            else "Tau PET quantification: from T1w MRI and tau PET in BIDS to Desikan-Killiany SUVR tables. "
            "Name a level before --help for its options alone."
        ),
        epilog="Hyphens and underscores in option names mean the same.",
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, help="the raw BIDS dataset")
    parser.add_argument("output_dir", type=Path, help="folder for the derivatives; made where it does not exist")
    parser.add_argument("level", choices=list(LEVELS), help="; ".join(f"{k}: {v.about}" for k, v in LEVELS.items()))
    parser.add_argument(
        "--config-file", "--config", type=Path, metavar="FILE", help="TOML file of settings; options win over it"
    )
    if level in (None, "train"):
        parser.add_argument(
            "--compare",
            type=Path,
            metavar="FILE",
            help="at the level train: TOML file, in the form of --config-file, of systems, losses and normalisations "
            "to train fold by fold and to compare (section comparison); options win over it",
        )
    parser.add_argument("--version", action="version", version=f"tau-pipeline {__version__}")
    # The help of the level train shows what a comparison reads too.
    read = settings_of("train --compare" if level == "train" else level) if level else None
    groups: dict[str, argparse._ArgumentGroup] = {}
    for doc in documentation():
        if read is None or doc.name in read:
            if doc.section not in groups:
                groups[doc.section] = parser.add_argument_group(doc.section)
            groups[doc.section].add_argument(*doc.flags, **_argument(doc))
    return parser


def _check_options(level: str, given: Collection[str]) -> None:
    """Refuse options that the level does not read.

    Raises
    ------
    SettingError
        The message names the option and the levels that read it.
    """
    read = settings_of(level)
    for doc in documentation():
        if doc.name in given and doc.name not in read:
            readers = [name for name in READ_BY if doc.name in settings_of(name)]
            raise SettingError(
                f"{doc.flags[0]} is not an option of the level {level}; it belongs to {' and '.join(readers)}"
            )


def _argument(doc: FieldDoc) -> dict[str, Any]:
    """Arguments of ``add_argument`` for one field; None always means "not given", so that a TOML value can stand."""
    unit = f" ({doc.unit})" if doc.unit else ""
    default = "" if doc.default in (None, (), False) else f" Default: {_in_words(doc.default)}."
    common: dict[str, Any] = {
        "dest": doc.name,
        "default": None,
        "help": f"{doc.help}{unit}{default}".replace("%", "%%"),
    }
    if doc.name == "verbose":
        return {**common, "action": "count"}
    if doc.kind is bool:
        return {**common, "action": argparse.BooleanOptionalAction if doc.default else "store_true"}
    metavar = {int: "N", float: "X"}.get(doc.kind, doc.name.rsplit("_", 1)[-1].upper())
    common |= {"type": doc.kind}
    if doc.choices:
        return {**common, "choices": doc.choices, **({"nargs": "+"} if doc.many else {})}
    if doc.pair:
        return {**common, "nargs": 2, "metavar": ("START", "END")}
    if doc.name == "derivatives":
        return {**common, "nargs": "+", "action": "extend", "metavar": "NAME=PATH"}
    return {**common, "metavar": metavar, **({"nargs": "+"} if doc.many else {})}


def _in_words(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _hyphenated(argument: str) -> str:
    """``--participant_label=01`` as ``--participant-label=01``; values are left alone."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _check_compare(level: str, config_file: Path | None) -> None:
    if level != "train":
        raise SettingError(f"compare is given at the level {level}; expected: the level train")
    if config_file is not None:
        raise SettingError("compare and config_file are both given; expected: one file, with all sections")


def _check_names(names: Sequence[str]) -> None:
    """Refuse names of folders and files that are no text, since results and records, which are UTF-8, name them.

    Raises
    ------
    SettingError
        A name holds bytes that are not UTF-8.
    """
    for name in names:
        found = name.encode("utf-8", "backslashreplace").decode("utf-8")
        if found != name:
            raise SettingError(f"the name {found} is not in UTF-8; rename that file or folder, or give another")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    arguments = [_hyphenated(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    named = [name for name in LEVELS if name in arguments]
    if len(named) == 1 and {"-h", "--help"} & set(arguments):
        build_parser(named[0]).print_help()
        return DONE
    options = vars(build_parser().parse_args(arguments))
    bids_dir, output_dir, config_file = (options.pop(name) for name in ("bids_dir", "output_dir", "config_file"))
    level, recipe = options.pop("level"), options.pop("compare")
    # Both ask the network for a newer version at import; a run must not depend on it.
    os.environ.setdefault("NO_ET", "1")
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    # What nibabel puts right in a header it tells without the file's name; what cannot be put right, we tell.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
    try:
        _check_names([*arguments, str(Path.cwd())])
        if recipe is not None:
            _check_compare(level, config_file)
        given = {name for name, value in options.items() if value is not None}
        _check_options(level if recipe is None else "train --compare", given)
        if recipe is not None:
            return _COMPARISON.run(bids_dir, output_dir, configuration(recipe, options))
        return LEVELS[level].run(bids_dir, output_dir, configuration(config_file, options))
    except TauPipelineError as exc:
        print(f"tau-pipeline: {exc}", file=sys.stderr)
        return WRONG_CALL
    except OSError as exc:
        if exc.errno not in _WRONG_PATH:
            raise
        print(f"tau-pipeline: {exc.filename} cannot be used ({exc.strerror}); give another path", file=sys.stderr)
        return WRONG_CALL
    except KeyboardInterrupt:
        print("tau-pipeline: interrupted; rerun the same command to continue", file=sys.stderr)
        return SOME_FAILED


if __name__ == "__main__":
    sys.exit(main())
