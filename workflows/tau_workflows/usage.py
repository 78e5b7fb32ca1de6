"""The parser of the command line: its help, with examples and exit codes, and its answers to wrong calls."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

from tau_workflows.levels.call import WRONG_CALL, say

#: One or two calls of each level; the first shows how it is called at least.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "participant": ("--participant-label 01 02 --nprocs 4", "--suvr-window 80 100 --ref-region InferiorCerebellarGM"),
    "group": ("--unknown-manufacturer pooled", '--reference-group "diagnosis == CN" --threshold metatemporal=2sd'),
    "train": ("--config-file workflows/recipes/laptop.toml", "--system regression --model-name small"),
    "synthesize": ("--model OUTPUT_DIR/models/small",),
    "calibrate": ("--reference-table spm8.tsv --reference-column suvr --measured-column metatemporal",),
}
_EXIT_CODES = "exit codes: 0 all scans done, 1 a scan failed, 2 wrong call or input, 3 nothing to do, 130 interrupted"


def epilog(level: str | None, common_only: bool) -> str:
    """Return what stands below the options in the help of a level, or of all of them."""
    calls = [(name, call) for name, found in EXAMPLES.items() for call in found if level in (None, name)]
    if level is None:
        calls = [(name, found[0]) for name, found in EXAMPLES.items()]
    shown = [f"  tau-pipeline BIDS_DIR OUTPUT_DIR {name} {call}" for name, call in calls]
    rest = " --help-all lists the options that are missing here." if common_only else ""
    names = f"Hyphens and underscores in option names mean the same.{rest}"
    return "\n".join(["examples:", *shown, _EXIT_CODES, names])


class HelpFormatter(argparse.HelpFormatter):
    """Help in which an option takes one line where it can, and in which lines of the epilog stay lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=110)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Name the values of an option once, after all of its spellings."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {values}"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """Write several values as ``LABEL ...``."""
        if action.nargs == argparse.ONE_OR_MORE:
            return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..."
        return super()._format_args(action, default_metavar)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = (
            textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
            for line in text.splitlines()
        )
        return "\n".join(filled)


#: Options that are named as what may have been meant, at most.
_FEW = 2


#: Options by the names that other programs have for them, without the hyphens in front.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("amp", "fp16", "bf16", "half", "autocast", "precision"), ("--mixed-precision",)),
    **dict.fromkeys(("gpu", "gpus", "cuda", "use-gpu"), ("--device",)),
    "cpu": ("--device", "--nprocs"),
    **dict.fromkeys(("threads", "n-threads", "nthreads", "num-threads"), ("--omp-nthreads", "--nprocs")),
    **dict.fromkeys(("cpus", "ncpus", "num-cpus", "cores", "n-cores", "parallel", "procs"), ("--nprocs",)),
    **dict.fromkeys(("j", "jobs", "n-jobs", "njobs"), ("--nprocs",)),
    "num-workers": ("--loader-workers", "--nprocs"),
    **dict.fromkeys(("memory", "mem-gb", "memory-gb", "memory-mb", "ram"), ("--mem-mb",)),
    **dict.fromkeys(("participant", "participants", "participant-id", "subject", "subjects"), ("--participant-label",)),
    **dict.fromkeys(("sub", "subject-label", "subject-id", "patient"), ("--participant-label",)),
    **dict.fromkeys(("session", "sessions", "ses", "session-id", "visit"), ("--session-label",)),
    "lr": ("--learning-rate",),
    "wd": ("--weight-decay",),
    **dict.fromkeys(("bs", "batch"), ("--batch-size",)),
    **dict.fromkeys(("max-epochs", "n-epochs", "num-epochs", "steps", "iterations"), ("--epochs",)),
    "seed": ("--random-seed",),
    **dict.fromkeys(("debug", "log-level", "loglevel"), ("--verbose",)),
    **dict.fromkeys(("freesurfer", "fs-dir", "fs-subjects-dir", "subjects-dir", "fastsurfer"), ("--derivatives",)),
    **dict.fromkeys(("space", "spaces", "output-space", "template"), ("--output-spaces",)),
    **dict.fromkeys(("reference", "ref", "ref-regions", "reference-region"), ("--ref-region",)),
    **dict.fromkeys(("architecture", "arch"), ("--network",)),
}
_AGAIN = (
    "results are used again where nothing has changed, and computed again where inputs or settings have; a new "
    "--work-dir computes everything"
)
#: What to say of options of other programs that have no counterpart.
NOT_NEEDED = {
    **dict.fromkeys(("overwrite", "force", "clobber", "rerun", "resume", "continue", "clean-workdir"), _AGAIN),
    **dict.fromkeys(("quiet", "q", "silent"), "messages go to standard error, which 2> FILE keeps off the terminal"),
    "fs-license-file": "no FreeSurfer license is needed",
}


#: Begin of argparse's message on unknown options and arguments.
_UNRECOGNIZED = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong call with one line, which names what may have been meant."""

    def error(self, message: str) -> NoReturn:
        """End the program with code 2."""
        if message.startswith(_UNRECOGNIZED) and not message.removeprefix(_UNRECOGNIZED).strip():
            message = "an argument is empty (''); leave it out, or check whether a variable of the shell is not set"
        told = message.partition(" (choose from")[0] if (meant := self._meant(message)) else message
        hint = f"; did you mean {meant}?" if meant else ""
        hint = hint or ("; " + why if (why := NOT_NEEDED.get(_plain(_unknown(message)))) else "")
        self.exit(WRONG_CALL, f"{self.prog}: {told}{hint} ({self.prog} --help-all lists all options)\n")

    def _meant(self, message: str) -> str:
        """Return the option or the choice that is like the wrong one; empty if none is."""
        if choice := re.search(r"argument (\S+?)(?:/\S+)?: invalid choice: '(.*?)' \(choose from", message):
            flag, wrong = choice.groups()
            named = [action for action in self._actions if flag in (*action.option_strings, action.dest)]
            return _closest(wrong, map(str, named[0].choices or ()) if named else ())
        wrong = _unknown(message)
        if not wrong or _plain(wrong) in NOT_NEEDED:
            return ""
        shown = [flag for flag, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS]
        others = OTHER_NAMES.get(_plain(wrong), ())
        if others:
            return " or ".join([flag for flag in others if flag in shown] or others[:1])
        # An option of another level, spelled correctly, gets its own message, which names that level.
        alike = [*_with_words_of(wrong, shown), _closest(wrong, shown)]
        return " or ".join(dict.fromkeys(filter(None, alike))) or _closest(wrong, self._option_string_actions)


def _unknown(message: str) -> str:
    """Return the unknown option of a message, without its value; empty if the message is about something else."""
    found = message.removeprefix(_UNRECOGNIZED).split()
    return found[0].partition("=")[0] if found and message.startswith(_UNRECOGNIZED) else ""


def _plain(flag: str) -> str:
    return flag.lstrip("-").lower()


def _with_words_of(wrong: str, known: Iterable[str]) -> list[str]:
    """Return the options that have all words of a wrong one and more, as --compile-network of --compile; if few."""
    words = set(wrong.strip("-").replace("_", "-").split("-"))
    found = [flag for flag in known if words < set(flag.strip("-").split("-"))]
    return found if len(found) <= _FEW else []


def _closest(wrong: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(wrong, list(known), n=1)), "")


class Last(argparse.Action):
    """One value; of an option that is given again the last one counts, and a message says so."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Take the value, and say so if it replaces another one."""
        _say_if_changed(option_string, getattr(namespace, self.dest), values)
        setattr(namespace, self.dest, values)


class Switch(argparse.BooleanOptionalAction):
    """As `Last`, for an option with a form that begins with ``--no-``."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Turn on or off, and say so if it was the other way."""
        before = getattr(namespace, self.dest)
        super().__call__(parser, namespace, values, option_string)
        _say_if_changed(option_string, before, getattr(namespace, self.dest))


def _say_if_changed(option: str | None, before: Any, value: Any) -> None:
    if before not in (None, value):
        say(f"{option} is given twice, as {before} and {value}; the last counts")


class Once(argparse.Action):
    """Values that cannot be joined with those of the same option given again."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Take the value; end the program if it differs from the one given before."""
        before = getattr(namespace, self.dest)
        if before not in (None, values):
            told = " and ".join(
                " ".join(map("{:g}".format, one)) if self.nargs else str(one) for one in (before, values)
            )
            parser.error(f"{option_string} is given twice, as {told}; expected: once")
        setattr(namespace, self.dest, values)
