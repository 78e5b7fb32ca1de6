"""Names of diagnoses: which stand for controls and for Alzheimer's disease, and their order by severity."""

from __future__ import annotations

import math
from collections.abc import Iterable

_CONTROLS = frozenset(
    (
        *("cn", "hc", "nc", "cu", "nl", "ctl", "ctrl", "con", "control", "controls", "normal", "healthy"),
        *("healthycontrol", "healthycontrols", "normalcontrol", "normalcontrols"),
        *("cognitivelynormal", "cognitivelyunimpaired", "cognitivelyhealthy"),
    )
)
#: Complaints without impairment.
_COMPLAINTS = frozenset(
    ("smc", "scd", "sci", "significantmemoryconcern", "subjectivecognitivedecline", "subjectivecognitiveimpairment")
)
_MILD = frozenset(("mci", "amci", "emci", "lmci", "mildcognitiveimpairment", "mciduetoad", "prodromalad"))
_ALZHEIMER = frozenset(
    (
        *("ad", "addementia", "dat", "probablead"),
        *("alzheimer", "alzheimers", "alzheimerdisease", "alzheimersdisease"),
        *("alzheimerdementia", "alzheimersdementia"),
    )
)


def is_control(diagnosis: object) -> bool:
    """Return whether a diagnosis is one of the names of people without complaints or impairment.

    Examples
    --------
    >>> is_control("Cognitively Normal"), is_control("SMC")
    (True, False)
    """
    return _word(diagnosis) in _CONTROLS


def is_alzheimer(diagnosis: object) -> bool:
    """Return whether a diagnosis is one of the names of dementia by Alzheimer's disease.

    Examples
    --------
    >>> is_alzheimer("Alzheimer’s disease"), is_alzheimer("dementia")
    (True, False)
    """
    return _word(diagnosis) in _ALZHEIMER


def severity(diagnosis: object) -> float:
    """Return 0 for people without impairment, 1 for mild impairment, 2 for dementia; NaN for other diagnoses.

    Examples
    --------
    >>> severity("CN"), severity("LMCI"), severity("dementia")
    (0.0, 1.0, 2.0)
    """
    word = _word(diagnosis)
    if word in _CONTROLS | _COMPLAINTS:
        return 0.0
    if word in _MILD:
        return 1.0
    return 2.0 if word in _ALZHEIMER or word == "dementia" else math.nan


def by_severity(diagnoses: Iterable[str], last: tuple[str, ...] = ()) -> list[str]:
    """Return different diagnoses in the order in which they are shown.

    Controls, complaints, mild impairment, and dementia come first, then other diagnoses in alphabetical order.

    Parameters
    ----------
    diagnoses
        Names as the dataset spells them.
    last
        What stands at the end, in this order, such as "not stated".

    Examples
    --------
    >>> by_severity(["AD", "PSP", "not stated", "CN", "FTD", "MCI"], last=("not stated",))
    ['CN', 'MCI', 'AD', 'FTD', 'PSP', 'not stated']
    """

    def place(name: str) -> tuple[float, float, bool, str, str]:
        stage = severity(name)
        return (
            last.index(name) + 1 if name in last else 0,
            3.0 if math.isnan(stage) else stage,
            not is_control(name),
            name.casefold(),
            name,
        )

    return sorted(set(diagnoses), key=place)


def _word(diagnosis: object) -> str:
    return "".join(filter(str.isalnum, str(diagnosis).casefold()))
