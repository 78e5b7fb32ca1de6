"""The parser of the command line: its help, with examples and exit codes, and its answers to wrong calls."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Iterable
from typing import NoReturn

from tau_workflows.levels.call import WRONG_CALL

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


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong call with one line, which names what may have been meant."""

    def error(self, message: str) -> NoReturn:
        """End the program with code 2."""
        told = message.partition(" (choose from")[0] if (meant := self._meant(message)) else message
        hint = f"; did you mean {meant}?" if meant else ""
        self.exit(WRONG_CALL, f"{self.prog}: {told}{hint} ({self.prog} --help-all lists all options)\n")

    def _meant(self, message: str) -> str:
        """Return the option or the choice that is like the wrong one; empty if none is."""
        if choice := re.search(r"argument (\S+?)(?:/\S+)?: invalid choice: '(.*?)' \(choose from", message):
            flag, wrong = choice.groups()
            named = [action for action in self._actions if flag in (*action.option_strings, action.dest)]
            return _closest(wrong, map(str, named[0].choices or ()) if named else ())
        if not message.startswith("unrecognized arguments: "):
            return ""
        wrong = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
        shown = [flag for flag, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS]
        # An option of another level, spelled correctly, gets its own message, which names that level.
        alike = [*_with_words_of(wrong, shown), _closest(wrong, shown)]
        return " or ".join(dict.fromkeys(filter(None, alike))) or _closest(wrong, self._option_string_actions)


def _with_words_of(wrong: str, known: Iterable[str]) -> list[str]:
    """Return the options that have all words of a wrong one and more, as --compile-network of --compile; if few."""
    words = set(wrong.strip("-").replace("_", "-").split("-"))
    found = [flag for flag in known if words < set(flag.strip("-").split("-"))]
    return found if len(found) <= _FEW else []


def _closest(wrong: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(wrong, list(known), n=1)), "")
