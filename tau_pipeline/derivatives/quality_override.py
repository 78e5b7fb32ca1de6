"""Decisions of people about scans: ``quality_override.tsv`` in the output folder, and the file of ``--exclude``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.derivatives.quality_checks import BY_NAME, VERDICTS
from tau_pipeline.errors import DamagedFileError, shown
from tau_pipeline.files import read_tsv

FILE = "quality_override.tsv"
#: Stands for the scan as a whole in the column ``check``.
WHOLE_SCAN = "all"
#: Name of the check that holds a decision about the scan as a whole.
REVIEWER = "reviewer"
#: Number of scans that a sentence names.
_NAMED = 3
_TEXTS = ("scan", "participant_id", "session_id", "check", "verdict", "who", "why")


@dataclass(frozen=True)
class Decision:
    """One row: what somebody decided about the scans that it names.

    Attributes
    ----------
    scan
        Stem of a scan's files, with or without the ending ``_pet``; empty for all scans of the participant.
    participant_id, session_id
        With prefix; empty for any.
    check
        Name of a check, or ``all``.
    verdict
        ``pass``, ``warn`` or ``fail``.
    who, why
        As stated; ``n/a`` if not.
    excluded
        Whether it is from the file of ``--exclude``: such a scan is never included.
    """

    scan: str
    participant_id: str
    session_id: str
    check: str
    verdict: str
    who: str
    why: str
    excluded: bool = False

    def concerns(self, stem: str) -> bool:
        """Return whether a scan is meant.

        Parameters
        ----------
        stem
            Start of the names of its files: ``sub-01_ses-a_trc-AV1451``.
        """
        parts = stem.split("_")
        if self.scan:
            return self.scan.removesuffix("_pet") == stem
        return self.participant_id == parts[0] and (not self.session_id or self.session_id in parts)


def read_decisions(output_dir: Path, exclude: Path | None = None) -> list[Decision]:
    """Read the decisions about the scans of an output folder.

    Parameters
    ----------
    output_dir
        Root of the derivatives; ``quality_override.tsv`` there is read if it exists. Columns: ``scan``, or
        ``participant_id`` and perhaps ``session_id``; ``check`` (the whole scan if absent or ``all``), ``verdict``;
        ``who`` and ``why``.
    exclude
        A further TSV file of scans, named likewise, whose verdict is ``fail``.

    Raises
    ------
    MissingInputError, DamagedFileError
        A file cannot be read, a row names no scan, or a check or verdict is not known.
    """
    found: list[Decision] = []
    own = Path(output_dir) / FILE
    if own.is_file():
        found += _rows(own, "")
    if exclude is not None:
        found += _rows(Path(exclude), "fail")
    return found


def _rows(path: Path, verdict: str) -> list[Decision]:
    """Return the rows of a file; ``verdict`` is that of all rows where it is given."""
    table = read_tsv(path, _TEXTS).dropna(axis=0, how="all")
    columns = {name: table[name].fillna("").astype(str).str.strip() for name in _TEXTS if name in table.columns}
    rows = [{name: str(columns[name].iloc[k]) for name in columns} for k in range(len(table))]
    return [_decision(row, path, k + 2, verdict) for k, row in enumerate(rows)]


def _decision(row: Mapping[str, str], path: Path, line: int, verdict: str) -> Decision:
    said = {name: "" if row.get(name, "") == "n/a" else row.get(name, "") for name in _TEXTS}
    where = f"line {line} of {path}"
    if not said["scan"] and not said["participant_id"]:
        raise DamagedFileError(f"{where} names no scan; expected: a value in the column scan or participant_id")
    check = WHOLE_SCAN if verdict else said["check"] or WHOLE_SCAN
    if check not in (WHOLE_SCAN, REVIEWER, *BY_NAME):
        raise DamagedFileError(f"{where} has the check {shown(check)}; expected: all, {', '.join(BY_NAME)}")
    stated = verdict or said["verdict"]
    if stated not in VERDICTS[1:]:
        raise DamagedFileError(f"{where} has the verdict {shown(stated)}; expected: {', '.join(VERDICTS[1:])}")
    return Decision(
        scan=said["scan"],
        participant_id=_with_prefix(said["participant_id"], "sub-"),
        session_id=_with_prefix(said["session_id"], "ses-"),
        check=WHOLE_SCAN if check == REVIEWER else check,
        verdict=stated,
        excluded=bool(verdict),
        who=said["who"] or "n/a",
        why=said["why"] or (f"listed in {path.name}" if verdict else "n/a"),
    )


def without_scan(decisions: Iterable[Decision], stems: Iterable[str]) -> list[str]:
    """Return a sentence on decisions that concern none of these scans, such as one whose name is misspelled.

    Parameters
    ----------
    decisions
        As `read_decisions` gives them.
    stems
        Starts of the names of the files of all scans, also of those that failed.
    """
    known = sorted(set(stems))
    lost = [one for one in decisions if not any(map(one.concerns, known))]
    names = sorted({one.scan or " ".join(filter(None, (one.participant_id, one.session_id))) for one in lost})
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [
        f"{FILE} or the file of --exclude names no scan that is there by {', '.join(names[:_NAMED])}{more}; "
        "expected: the names of scans as in group/status.tsv, or participant_id"
    ]


def _with_prefix(label: str, prefix: str) -> str:
    return f"{prefix}{label.removeprefix(prefix)}" if label else ""


def decided(checks: Iterable[Mapping[str, Any]], decisions: Sequence[Decision], stem: str) -> list[dict[str, Any]]:
    """Return the checks of a scan with the decisions about it; the later decision wins.

    Parameters
    ----------
    checks
        ``QualityChecks`` of the sidecar. Decisions that they hold already are undone first, so that one that was taken
        back counts no more.
    decisions
        As `read_decisions` gives them.
    stem
        Start of the names of the scan's files.
    """
    found = [_computed(one) for one in checks if one.get("Check") != REVIEWER]
    for decision in decisions:
        if not decision.concerns(stem):
            continue
        stamp = {"DecidedBy": decision.who, "Why": decision.why}
        for place, one in enumerate(found):
            worse = VERDICTS.index(str(one["Verdict"])) > VERDICTS.index(decision.verdict)
            if decision.check == one["Check"] or (decision.check == WHOLE_SCAN and worse):
                before = {"ComputedVerdict": one.get("ComputedVerdict", one["Verdict"])}
                found[place] = {**one, "Verdict": decision.verdict, **before, **stamp}
        if decision.check == WHOLE_SCAN:
            found = [one for one in found if one["Check"] != REVIEWER]
            own = {"Excluded": True} if decision.excluded else {}
            found.append({"Check": REVIEWER, "Value": "n/a", "Unit": "1", "Verdict": decision.verdict, **own, **stamp})
    return found


#: What a check holds of a decision about it.
_OF_DECISION = frozenset({"ComputedVerdict", "DecidedBy", "Why"})


def _computed(check: Mapping[str, Any]) -> dict[str, Any]:
    """Return a check as it was computed; the check itself where nobody decided otherwise."""
    plain = isinstance(check.get("Check"), str) and check.get("Verdict") in VERDICTS
    if plain and isinstance(check, dict) and _OF_DECISION.isdisjoint(check):
        return check
    own = {name: value for name, value in check.items() if name not in _OF_DECISION}
    verdict = check.get("ComputedVerdict", check.get("Verdict"))
    return {**own, "Check": str(check.get("Check")), "Verdict": verdict if verdict in VERDICTS else "n/a"}
