"""Completion of the command line in bash and zsh, made from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

SHELLS = ("bash", "zsh")

_BASH = """\
# Completion of tau-pipeline for bash: tau-pipeline --completion bash > FILE, then source FILE, e.g. in ~/.bashrc.
_tau_pipeline() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" level="" word
    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:$((COMP_CWORD - 1))}"; do
        case "$word" in %(levels_pattern)s) level="$word" ;; esac
    done
    case "$previous" in
%(values)s
    esac
    if [[ "$current" == -* ]]; then
        case "$level" in
%(options)s
            *) COMPREPLY=($(compgen -W "%(common)s" -- "$current")) ;;
        esac
    elif [[ -z "$level" && $COMP_CWORD -ge 3 ]]; then
        COMPREPLY=($(compgen -W "%(levels)s" -- "$current"))
    else
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}
complete -o filenames -F _tau_pipeline tau-pipeline
"""
#: zsh runs the function of bash.
_ZSH = """\
# Completion of tau-pipeline for zsh, by its emulation of bash, which needs zsh's own completion.
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
autoload -Uz bashcompinit && bashcompinit
"""


def completion(shell: str, levels: Sequence[str], parser_of: Callable[[str], argparse.ArgumentParser]) -> str:
    """Return a script that completes levels, options of each level, and values of options that have choices.

    Parameters
    ----------
    shell
        One of `SHELLS`.
    levels
        Names of the levels.
    parser_of
        Returns the parser of a level, in which options of other levels have no help.

    Raises
    ------
    ValueError
        The shell is not known.
    """
    if shell not in SHELLS:
        raise ValueError(f"no completion for {shell}; expected: {' or '.join(SHELLS)}")
    options: dict[str, list[str]] = {}
    choices: dict[str, Sequence[str]] = {}
    for level in levels:
        shown = [one for one in parser_of(level)._actions if one.option_strings and one.help != argparse.SUPPRESS]
        options[level] = [name for one in shown for name in one.option_strings if name.startswith("--")]
        choices |= {name: list(map(str, one.choices)) for one in shown if one.choices for name in one.option_strings}
    script = _BASH % {
        "levels": " ".join(levels),
        "levels_pattern": "|".join(levels),
        "common": " ".join(sorted(set.intersection(*map(set, options.values())))),
        "values": _cases({name: " ".join(values) for name, values in choices.items()}, 8, "; return 0"),
        "options": _cases({level: " ".join(names) for level, names in options.items()}, 12),
    }
    return (_ZSH if shell == "zsh" else "") + script


def _cases(words: Mapping[str, str], indent: int, then: str = "") -> str:
    answer = '%s%s) COMPREPLY=($(compgen -W "%s" -- "$current"))%s ;;'
    return "\n".join(answer % (" " * indent, name, text, then) for name, text in words.items())
