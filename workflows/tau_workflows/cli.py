"""The command line: options made from the documentation of the settings, and exit codes.

Exit codes: 0 all requested scans are done; 1 at least one scan failed, the others are complete; 2 the call or the
input is wrong and nothing was computed; 3 there was nothing to do; 130 interrupted by Ctrl-C (SIGINT); 143 ended by
SIGTERM.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tau_pipeline import __version__
from tau_pipeline.errors import SettingError, TauPipelineError
from tau_pipeline.settings.configuration import (
    READ_BY,
    SECTIONS,
    Configuration,
    FieldDoc,
    configuration,
    documentation,
    settings_of,
)
from tau_workflows.completion import SHELLS, completion
from tau_workflows.levels.call import DONE, WRONG_CALL, current_folder, note_command, say
from tau_workflows.levels.interruption import SENTENCE, exit_code, interruptible
from tau_workflows.usage import HelpFormatter, Last, Once, Parser, Switch, epilog

#: Where libraries keep what they otherwise keep in the home folder, and the folder's name in the work folder.
_CACHES = {"MPLCONFIGDIR": "matplotlib", "NIPYPE_CONFIG_DIR": "nipype", "PYDRA_HASH_CACHE": "pydra"}
#: What is wrong with a path that was given, rather than with us.
_WRONG_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP)


@contextmanager
def _caches_in(work_dir: Path) -> Iterator[None]:
    """Keep caches inside the output and work folders, unless the user has named places for `_CACHES`."""
    own = {name: str(work_dir / folder) for name, folder in _CACHES.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def _participant(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    from tau_workflows.levels.participant import run_participants

    return run_participants(bids_dir, output_dir, config)


def _group(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    from tau_workflows.levels.group import run_group

    return run_group(bids_dir, output_dir, config)


def _train(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    from tau_workflows.levels.train import run_training

    return run_training(bids_dir, output_dir, config)


def _compare(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    from tau_workflows.levels.compare import run_comparison

    return run_comparison(bids_dir, output_dir, config)


def _synthesize(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    from tau_workflows.levels.synthesize import run_synthesis

    return run_synthesis(bids_dir, output_dir, config)


def _calibrate(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    from tau_workflows.levels.calibrate import run_calibration

    return run_calibration(bids_dir, output_dir, config)


#: What runs, by the names in `READ_BY`. A level is loaded only when it runs, so that the help is fast.
_RUN = {
    "participant": _participant,
    "group": _group,
    "train": _train,
    "train --compare": _compare,
    "synthesize": _synthesize,
    "calibrate": _calibrate,
}
#: The levels and what each of them does.
LEVELS = {
    "participant": "compute SUVR maps and regional tables of each participant, from raw BIDS",
    "group": "standardize SUVR by manufacturer; group tables and group report",
    "train": "train a model that predicts tau PET from T1w, on the derivatives of participants with both",
    "synthesize": "apply a trained model to T1w derivatives to get synthetic tau PET",
    "calibrate": "fit a line of regional values to reference values, such as those of another pipeline",
}
_EVERYWHERE = ("work_dir", "nprocs", "omp_nthreads", "mem_mb", "dry_run", "participant_label", "session_label")
#: Settings that ``--help`` shows, by level; ``--help-all`` shows all that the level reads.
_COMMON: dict[str, tuple[str, ...]] = {
    "participant": (
        *("skull_strip_t1w", "suvr_window", "ref_region", "smooth_fwhm", "target_fwhm", "extent_suvr"),
        *("pvc", "psf", "output_spaces", "surfaces", "longitudinal", "tracer_label"),
        *("derivatives", "worker", "worker_args", "skip_bids_validation", "stop_on_first_crash", "reports_only"),
        *_EVERYWHERE,
    ),
    "group": (
        *("min_participants", "unknown_manufacturer", "fit_participants", "standardization", "diagnosis_column"),
        *(
            "harmonize",
            "reference_group",
            "threshold",
            "w_scores",
            "columns",
            "centaur_masks",
            "voxelwise",
            "contrast",
            "nprocs",
            "dry_run",
            "reports_only",
        ),
    ),
    "train": (
        *("network", "network_preset", "loss", "epochs", "batch_size", "target_scaling", "folds", "fold"),
        *("model_name", "device", "tracer_label", "systems", "losses", "target_scalings", *_EVERYWHERE),
    ),
    "synthesize": (
        *("model", "synthesize", "as_manufacturer", "unlike_training", "prediction_memory", "unknown_manufacturer"),
        *("device", *_EVERYWHERE),
    ),
    "calibrate": ("reference_table", "reference_column", "measured_column", "error_ratio", "dry_run"),
}


def build_parser(level: str | None = None, common_only: bool = False) -> argparse.ArgumentParser:
    """Make the parser of a level; every option but a few is a documented setting.

    Parameters
    ----------
    level
        Options that this level does not read are accepted, so that they can be refused by name, but not shown in its
        help. Without a level, the options of all levels are shown.
    common_only
        Show only the options that are used most, each with one sentence.
    """
    parser = Parser(
        prog="tau-pipeline",
        usage=f"tau-pipeline BIDS_DIR OUTPUT_DIR {level or '{' + ','.join(LEVELS) + '}'} [options]",
        description=_description(level),
        epilog=epilog(level, common_only),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    about = "; ".join(f"{name}: {text}" for name, text in LEVELS.items()) if level is None else argparse.SUPPRESS
    parser.add_argument("bids_dir", type=Path, help="the raw BIDS dataset")
    parser.add_argument("output_dir", type=Path, help="folder for the derivatives; created if it does not exist")
    parser.add_argument("level", choices=list(LEVELS), help=about)
    parser.add_argument("-h", "--help", action="store_true", help="show the most common options of a level and exit")
    parser.add_argument("--help-all", action="store_true", help="show all options of a level and exit")
    parser.add_argument(
        "--completion",
        choices=SHELLS,
        help=argparse.SUPPRESS if level and common_only else "print a script for completion in a shell and exit",
    )
    parser.add_argument("--version", action="version", version=f"tau-pipeline {__version__}")
    parser.add_argument(
        "--config-file",
        "--config",
        type=Path,
        metavar="FILE",
        action=Once,
        help="TOML file of settings; options on the command line override it",
    )
    about_compare = "at the level train: such a file with a section [comparison] of what to compare in cross-validation"
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help=about_compare if level in (None, "train") else argparse.SUPPRESS
    )
    groups = {section: parser.add_argument_group(section) for section in SECTIONS}
    shown = _shown(level, common_only)
    for doc in documentation():
        groups[doc.section].add_argument(*doc.flags, **_argument(doc, _help_of(doc, common_only, doc.name in shown)))
    return parser


def _description(level: str | None) -> str:
    if level:
        return f"{LEVELS[level][0].upper()}{LEVELS[level][1:]}."
    return (
        "Tau PET quantification: from T1w MRI and tau PET in BIDS to Desikan-Killiany SUVR tables. "
        "Name a level before --help for its options alone."
    )


def _shown(level: str | None, common_only: bool) -> frozenset[str]:
    """Return the names of the settings that the help of a level lists."""
    if level is None:
        return frozenset() if common_only else frozenset(doc.name for doc in documentation())
    # The help of the level train shows what a comparison reads too.
    read = settings_of("train --compare" if level == "train" else level)
    return frozenset(read.intersection(_COMMON[level]) if common_only else read)


def _help_of(doc: FieldDoc, short: bool, shown: bool) -> str:
    if not shown:
        return argparse.SUPPRESS
    unit = f" ({doc.unit})" if doc.unit else ""
    stated = " ".join(map(str, doc.default)) if isinstance(doc.default, tuple) else doc.default
    default = "" if doc.default in (None, (), False) else f" Default: {stated}."
    text = re.split(r"\. |[:;] ", doc.help)[0].rstrip(".") + unit if short else f"{doc.help}{unit}{default}"
    return text.replace("%", "%%")


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


def _argument(doc: FieldDoc, help_text: str) -> dict[str, Any]:
    """Make the arguments of ``add_argument``; None always means "not given", so that a TOML value can stand."""
    common: dict[str, Any] = {"dest": doc.name, "default": None, "help": help_text}
    if doc.name == "verbose":
        return {**common, "action": "count"}
    if doc.kind is bool:
        return {**common, "action": Switch if doc.default else "store_true"}
    metavar = {int: "N", float: "X"}.get(doc.kind, doc.name.rsplit("_", 1)[-1].upper())
    common |= {"type": doc.kind}
    # An option of many values that is given twice has the values of both.
    many = {"nargs": "+", "action": "extend"} if doc.many else {"action": Last}
    if doc.choices:
        alone = {"nargs": "?", "const": "own-tissue"} if doc.name == "longitudinal" else {}
        return {**common, "choices": doc.choices, **many, **alone}
    if doc.pair:
        return {**common, "nargs": 2, "metavar": ("START", "END"), "action": Once}
    if doc.name == "derivatives":
        return {**common, **many, "metavar": "NAME=PATH"}
    return {**common, "metavar": metavar, **many}


def _hyphenated(argument: str) -> str:
    """Return ``--participant_label=01`` as ``--participant-label=01``; values are left alone."""
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
        A name holds bytes that are not UTF-8, or is empty: a path would be the current folder.
    """
    for name in names:
        if not name:
            raise SettingError("an argument of the call is empty (a variable of the shell that is not set?)")
        found = name.encode("utf-8", "backslashreplace").decode("utf-8")
        if found != name:
            raise SettingError(f"the name {found} is not in UTF-8; rename that file or folder, or give another")


def _level_in(arguments: Sequence[str]) -> str | None:
    """Find the level without parsing: the third argument, or the only argument that names one."""
    if len(arguments) > 2 and arguments[2] in LEVELS:
        return arguments[2]
    named = [name for name in LEVELS if name in arguments]
    return named[0] if len(named) == 1 else None


def _shell_in(arguments: Sequence[str]) -> str | None:
    """Return the shell that ``--completion`` names, without parsing: the dataset and the level are not needed then."""
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        stated = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
        if name == "--completion" and stated in SHELLS:
            return stated
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    arguments = [_hyphenated(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    level = _level_in(arguments)
    if {"-h", "--help", "--help-all"} & set(arguments):
        build_parser(level, common_only="--help-all" not in arguments).print_help()
        return DONE
    if (shell := _shell_in(arguments)) is not None:
        sys.stdout.write(completion(shell, tuple(LEVELS), build_parser))
        return DONE
    options = vars(build_parser(level).parse_args(arguments))
    # Both ask the network for a newer version at import; a run must not depend on it.
    os.environ.setdefault("NO_ET", "1")
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    # nibabel logs what it corrects in a header without the file's name; what cannot be corrected, we report ourselves.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
    with interruptible():
        return _in_sentences(arguments, options)


def _in_sentences(arguments: Sequence[str], options: dict[str, Any]) -> int:
    """Run the level; errors in the call and interruptions are reported in one sentence."""
    try:
        _check_names([*arguments, current_folder()])
        note_command(arguments)
        return _run(options)
    except TauPipelineError as exc:
        say(str(exc))
        return WRONG_CALL
    except OSError as exc:
        if exc.errno not in _WRONG_PATH:
            raise
        say(f"{exc.filename} cannot be used ({exc.strerror}); give another path")
        return WRONG_CALL
    except KeyboardInterrupt as exc:
        print(SENTENCE, file=sys.stderr)
        return exit_code(exc)


def _run(options: dict[str, Any]) -> int:
    """Run the level that the parsed options name; returns the exit code."""
    bids_dir, output_dir, config_file, level, recipe = (
        options.pop(name) for name in ("bids_dir", "output_dir", "config_file", "level", "compare")
    )
    if recipe is not None:
        _check_compare(level, config_file)
    what = level if recipe is None else "train --compare"
    settings = {name: value for name, value in options.items() if name not in ("help", "help_all", "completion")}
    _check_options(what, {name for name, value in settings.items() if value is not None})
    config = configuration(config_file if recipe is None else recipe, settings)
    with ExitStack() as caches:
        own = config.execution.work_dir.absolute()
        # A dry run leaves nothing behind.
        folder = Path(caches.enter_context(TemporaryDirectory())) if config.execution.dry_run else own
        caches.enter_context(_caches_in(folder))
        for path in (bids_dir, output_dir, own):
            # Loops of links and paths without permission are errors here; missing paths are reported later.
            with suppress(FileNotFoundError, NotADirectoryError):
                path.stat()
        return _RUN[what](bids_dir, output_dir, config)


if __name__ == "__main__":
    sys.exit(main())
