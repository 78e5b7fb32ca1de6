"""Age, sex, diagnosis, APOE, plasma p-tau217, and thickness of the cortex as numbers that a model can take."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from tau_pipeline.cohort.demographics import Demographics
from tau_pipeline.diagnoses import severity
from tau_pipeline.errors import DamagedFileError
from tau_pipeline.files import read_tsv
from tau_pipeline.settings.training_inputs import Covariate
from tau_pipeline.synthesis.data.anatomy import thickness_name
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.targets import Target

_SEXES = {**dict.fromkeys(("f", "female", "w", "woman"), 1.0), **dict.fromkeys(("m", "male", "man"), 0.0)}
#: What `as_number` reads, in words.
_EXPECTED = {
    "age": "years",
    "sex": "F or M",
    "diagnosis": "a spelling of unimpaired (such as CN), MCI, or dementia (such as AD)",
    "apoe": "a genotype such as e3/e4, or the number of ε4 alleles",
    "p_tau217": "a number above 0",
}
#: Names of all covariates.
COVARIATES = get_args(Covariate)


#: Begin of the sentence of a model card on covariates that it has no use of.
UNUSED = "Not used, although the model has a place for it"

Scan = TypeVar("Scan", Pair, Target)


def as_number(name: str, value: Any) -> float:
    """Return a covariate as a number; NaN where it is missing or cannot be understood.

    Parameters
    ----------
    name
        ``age`` (years), ``sex`` (1 female, 0 male), ``diagnosis`` (0 unimpaired, 1 mild impairment, 2 dementia),
        ``apoe`` (number of ε4 alleles), or ``p_tau217`` (natural logarithm).
    value
        A cell of ``participants.tsv``, or None.

    Examples
    --------
    >>> as_number("age", "71.5"), as_number("sex", "F"), as_number("diagnosis", "MCI"), as_number("apoe", "E3/E4")
    (71.5, 1.0, 1.0, 1.0)
    """
    if value is None:
        return math.nan
    text = str(value).strip().lower()
    word = re.sub(r"[^a-z0-9]", "", text)
    if name == "sex":
        return _SEXES.get(word, math.nan)
    if name == "diagnosis":
        return severity(text)
    if name == "apoe":
        return _e4_alleles(text)
    number = _number(text)
    if name == "p_tau217":
        return math.log(number) if number > 0 else math.nan
    return number


def _number(text: str) -> float:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _e4_alleles(text: str) -> float:
    """Return the number of ε4 alleles from a genotype (``e3/e4``, ``34``) or from the number itself."""
    genotype = re.findall(r"[234]", text) if re.fullmatch(r"(apoe)?\W*[eε]?[234]\W*[eε]?[234]", text) else None
    if genotype is not None:
        return float(genotype.count("4"))
    number = _number(text)
    return number if number in (0.0, 1.0, 2.0) else math.nan


def with_covariates(scans: Sequence[Scan], demographics: Demographics) -> list[Scan]:
    """Return pairs or targets with the covariates of their participant or, where a table states them, of the session.

    The thickness of each cortical region is among them where the T1w has surfaces.

    Parameters
    ----------
    scans
        Pairs or targets.
    demographics
        Of the dataset, with further covariates.
    """
    found = []
    for scan in scans:
        stated = covariates_of(demographics, scan.participant_id, scan.session)
        found.append(replace(scan, covariates={**stated, **thickness_of(scan.anat.thickness_table)}))
    return found


def thickness_of(table_file: Path) -> dict[str, float]:
    """Return the thickness of each cortical region in mm, by `thickness_name`; nothing without a table.

    Raises
    ------
    DamagedFileError
        The table cannot be read, or lacks a column.
    """
    if not table_file.is_file():
        return {}
    table = read_tsv(table_file)
    if missing := [name for name in ("index", "thickness_mean") if name not in table.columns]:
        raise DamagedFileError(
            f"{table_file} has no column {missing[0]}; run the participant level with --surfaces again"
        )
    table = table.dropna(subset=["index", "thickness_mean"])
    return {thickness_name(int(n)): float(mm) for n, mm in zip(table["index"], table["thickness_mean"], strict=True)}


def covariates_of(demographics: Demographics, participant_id: str, session: str | None) -> dict[str, float]:
    """Return the covariates of a scan as numbers by name; those that are missing or not understood are left out.

    Parameters
    ----------
    demographics
        Of the dataset, with further covariates.
    participant_id
        With its prefix ``sub-``.
    session
        Label of the session without its prefix; None where there are none.
    """
    stated = demographics.of(participant_id, None if session is None else f"ses-{session}")
    numbers = {name: as_number(name, stated.get(name)) for name in COVARIATES}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


@dataclass(frozen=True)
class CovariateScale:
    """Means and SDs of covariates over the training participants.

    Attributes
    ----------
    names
        Of the covariates.
    means, sds
        Over the training participants for whom they are known, each counted once.
    known
        Number of those participants.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]
    known: tuple[int, ...]

    @classmethod
    def fit(cls, names: Sequence[str], people: Mapping[str, Mapping[str, float]]) -> CovariateScale:
        """Fit the scale.

        Parameters
        ----------
        names
            Of the covariates.
        people
            Covariates of each training participant.
        """
        means, sds, known = [], [], []
        for name in names:
            numbers = np.array([own[name] for own in people.values() if name in own], float)
            sd = float(numbers.std()) if len(numbers) else 0.0
            means.append(float(numbers.mean()) if len(numbers) else 0.0)
            sds.append(sd if sd > 0 else 1.0)
            known.append(len(numbers))
        return cls(tuple(names), tuple(means), tuple(sds), tuple(known))

    def values(self, covariates: Mapping[str, float]) -> list[float]:
        """Return, for each covariate, its standardized value and 1; or 0 and 0 where it is missing.

        One that no training participant had counts as missing: nothing was learned of it.
        """
        found = []
        for name, mean, sd, known in zip(self.names, self.means, self.sds, self.known, strict=True):
            found += [(covariates[name] - mean) / sd, 1.0] if name in covariates and known else [0.0, 0.0]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            name: {"mean": mean, "sd": sd, "known": known}
            for name, mean, sd, known in zip(self.names, self.means, self.sds, self.known, strict=True)
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str) -> CovariateScale:
        """Return the scale of a JSON form: the inverse of `as_dict`.

        Raises
        ------
        DamagedFileError
            A number is missing or is none.
        """
        try:
            columns = [tuple(kind(own[key]) for own in content.values()) for key, kind in _KEYS]
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise DamagedFileError(f"{source} holds no means and SDs of covariates ({exc})") from exc
        return cls(tuple(map(str, content)), *columns)


_KEYS: tuple[tuple[str, type], ...] = (("mean", float), ("sd", float), ("known", int))


def unused_text(names: Iterable[str], people: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Return a sentence on the covariates that no training participant has, for the model card; nothing without any."""
    unused = [name for name in names if not any(name in own for own in people.values())]
    if not unused:
        return ()
    return (
        f"{UNUSED}: {', '.join(unused)}; participants.tsv has no value of it "
        "that can be read for any training participant.",
    )


def unread_text(names: Iterable[str], demographics: Demographics) -> list[str]:
    """Return a sentence for each covariate whose value is stated for some participants and cannot be read.

    Parameters
    ----------
    names
        Of the covariates that are used; others, such as the thickness of regions, are passed over.
    demographics
        Of the dataset, with further covariates.
    """
    rows = [*demographics.of_participant.items()]
    rows += [(who, own) for (who, _), own in demographics.of_session.items()]
    said = []
    for name in (name for name in dict.fromkeys(names) if name in COVARIATES):
        odd = {who: own[name] for who, own in rows if name in own and not math.isfinite(as_number(name, own[name]))}
        if odd:
            shown_values = [f"{who} {value!r}" for who, value in sorted(odd.items())[:3]]
            more = ", …" if len(odd) > len(shown_values) else ""
            who = "1 participant" if len(odd) == 1 else f"{len(odd)} participants"
            said.append(
                f"participants.tsv: {name} of {who} cannot be read and counts as missing: "
                f"{', '.join(shown_values)}{more}; expected: {_EXPECTED[name]}"
            )
    return said


def missing_text(names: Iterable[str], people: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a sentence for each covariate that is missing for some participants, with their number."""
    said = []
    for name in names:
        without = [who for who, own in people.items() if name not in own]
        if without:
            said.append(
                f"{name} is missing for {len(without)} of {len(people)} training participants; a channel marks them"
            )
    return said
