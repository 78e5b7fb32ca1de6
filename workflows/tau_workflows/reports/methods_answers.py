"""Sentences of the methods text on partial volume correction, and on thresholds and scores of a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_json, read_tsv

#: Methods of partial volume correction in words.
_PVC = {
    "sgtm": "the symmetric geometric transfer matrix",
    "gtm": "the geometric transfer matrix",
    "rbv": "region-based voxelwise correction",
    "iy": "the iterative Yang method",
    "mg": "the Müller-Gärtner method",
    "meltzer": "the method of Meltzer",
}
#: Papers by what they stand for; those of partial volume correction by the words for the method.
PAPERS = {
    _PVC["sgtm"]: "Sattarivand et al. 2012, Phys Med Biol 57:7101",
    _PVC["gtm"]: "Rousset, Ma and Evans 1998, J Nucl Med 39:904",
    _PVC["rbv"]: "Thomas et al. 2011, Eur J Nucl Med Mol Imaging 38:1104",
    _PVC["iy"]: "Erlandsson et al. 2012, Phys Med Biol 57:R119",
    _PVC["mg"]: "Müller-Gärtner et al. 1992, J Cereb Blood Flow Metab 12:571",
    _PVC["meltzer"]: "Meltzer et al. 1990, J Comput Assist Tomogr 14:561",
    "threshold of 2 SD": "Weigand et al. 2022, Alzheimers Dement 18:1447",
    "W-scores": "La Joie et al. 2012, J Neurosci 32:16265",
    "CenTauRz": "Villemagne et al. 2023, Alzheimers Dement (Amst) 15:e12454",
    "Deming line": "Linnet 1990, Stat Med 9:1463",
}
_THRESHOLDS = {
    "value": "as given",
    "2sd": "mean plus 2 standard deviations of the reference group",
    "gmm": "where two normal components are equally likely",
}
#: Sources of a point spread comes from, by the beginning of the sentence in the sidecar.
_SOURCES = {
    "The point spread was given": "given",
    "The point spread is that to which": "to which the images were smoothed in advance",
    "The point spread is the resolution": "the resolution of the scanner",
}


@dataclass(frozen=True)
class Answers:
    """Corrections, thresholds, and scores that were computed beyond SUVR.

    Attributes
    ----------
    pvc
        Methods of partial volume correction.
    point_spreads_mm, spread_sources
        Point spreads (FWHM) of the scans, sorted, and where they come from, in words.
    thresholds
        Regions with a threshold, by method.
    reference_group
        Filter of the reference group; None if there is none.
    zscores
        Whether there are z-scores.
    covariates
        Of the W-scores; empty if there are none.
    centaur, calibrated
        Whether there is a table of CenTauR, and whether values were calibrated.
    """

    pvc: tuple[str, ...] = ()
    point_spreads_mm: tuple[float, ...] = ()
    spread_sources: tuple[str, ...] = ()
    thresholds: Mapping[str, tuple[str, ...]] | None = None
    reference_group: str | None = None
    zscores: bool = False
    covariates: tuple[str, ...] = ()
    centaur: bool = False
    calibrated: bool = False


def found_answers(output_dir: Path, maps: Sequence[Mapping[str, Any]]) -> Answers:
    """Return what the sidecars of SUVR maps and the tables of the group level state."""
    corrected = [one for one in maps if one.get("PVCMethods")]
    methods = {str(name) for one in corrected for name in one["PVCMethods"]}
    spreads = {float(mm) for one in corrected for mm in one.get("PVCPointSpreadFWHM") or ()}
    folder = output_dir / "group"
    columns = _columns(folder / "suvr_rois.json")
    scores = columns.get("suvr_wscore", {})
    reference = scores.get("ReferenceGroup") or columns.get("suvr_zscore", {}).get("ReferenceGroup")
    further = {**_columns(folder / "suvr_rois_wide.json"), **_columns(folder / "centaur.json")}
    return Answers(
        pvc=tuple(name for name in _PVC if name in methods),
        point_spreads_mm=tuple(sorted(spreads)),
        spread_sources=tuple(sorted({_source(str(one.get("PVCPointSpreadSource", ""))) for one in corrected})),
        thresholds=_thresholds(folder / "thresholds.tsv"),
        reference_group=str(reference) if reference else None,
        zscores="suvr_zscore" in columns,
        covariates=tuple(map(str, scores.get("Covariates", ()))),
        centaur=(folder / "centaur.tsv").is_file(),
        calibrated=any(str(name).endswith("_calibrated") for name in further),
    )


def _columns(path: Path) -> dict[str, Any]:
    with suppress(TauPipelineError):
        return read_json(path)
    return {}


def _thresholds(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    with suppress(TauPipelineError, KeyError):
        table = read_tsv(path, ["region", "method"])
        for region, method in zip(table["region"], table["method"], strict=True):
            own = found.setdefault(str(method), [])
            own += [str(region)] * (str(region) not in own)
    return {method: tuple(regions) for method, regions in found.items()}


def _source(text: str) -> str:
    return next(
        (words for start, words in _SOURCES.items() if text.startswith(start)), "estimated from image and regions"
    )


def pvc_text(answers: Answers) -> tuple[str, list[str]]:
    """Return a sentence on partial volume correction and the papers that it cites; empty if there was none."""
    if not answers.pvc:
        return "", []
    names = [_PVC[name] for name in answers.pvc]
    spread = ""
    if answers.point_spreads_mm:
        low, high = answers.point_spreads_mm[0], answers.point_spreads_mm[-1]
        span = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
        spread = f", with a point spread of {span} mm FWHM ({'; '.join(answers.spread_sources)})"
    return f"Regional SUVR was corrected for partial volume effects by {_listed(names)}{spread}.", names


def cohort_text(answers: Answers) -> tuple[str, list[str]]:
    """Return sentences on thresholds and scores of a cohort, and the papers that they cite."""
    parts, papers = [], []
    group = f"the participants with {answers.reference_group}"
    if answers.zscores and answers.reference_group:
        parts.append(f"z-scores of regional SUVR are relative to {group}.")
    if answers.covariates:
        parts.append(
            f"W-scores are residuals of a linear regression of regional SUVR on {_listed(answers.covariates)} in "
            f"{group}, divided by their standard deviation."
        )
        papers.append("W-scores")
    if answers.thresholds:
        by_method = [f"{_listed(own)} ({_THRESHOLDS.get(how, how)})" for how, own in answers.thresholds.items()]
        parts.append(f"Scans were called tau-positive by thresholds of SUVR: {'; '.join(by_method)}.")
        papers += ["threshold of 2 SD"] * ("2sd" in answers.thresholds)
    if answers.centaur:
        parts.append(
            "SUVR in the masks of the CenTauR project, relative to its mask of cerebellar gray matter, was converted "
            "to CenTauRz by the published lines, which were not calibrated for this software."
        )
        papers.append("CenTauRz")
    if answers.calibrated:
        parts.append("Calibrated values are by a Deming line that was fitted to reference values.")
        papers.append("Deming line")
    return " ".join(parts), papers


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])}, and {names[-1]}"
