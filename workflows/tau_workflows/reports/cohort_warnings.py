"""Warnings of the group report, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.outliers import FEWEST
from tau_pipeline.derivatives.index import find_outputs
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.figures.cohort import OUTLIER_Z
from tau_pipeline.files import JsonReader, read_json
from tau_pipeline.words import counted, form

if TYPE_CHECKING:
    import pandas as pd

#: Standardization by fewer participants than this is uncertain: the SD of 5 values has a standard error of a third.
_FEW_PARTICIPANTS = 5


def warnings_of(status: pd.DataFrame, standardization: pd.DataFrame | None) -> list[str]:
    """Return the warnings of the report, in sentences."""
    done = status[status["state"] == "done"]
    found = [
        _unfinished_warning(status),
        _failed_quality_warning(done),
        _doubtful_quality_warning(done),
        _standardization_warning(done, standardization),
        _few_participants_warning(standardization),
    ]
    found.append(_confounded_warning(done))
    for name, word in (("tracer", "tracer"), ("reference_region", "reference region")):
        several = options(done[name])
        if len(several) > 1:
            found.append(f"There is more than one {word} ({', '.join(several)}); their SUVR values are not comparable.")
    for name in ("manufacturer", "diagnosis"):
        unknown = int(done[name].isna().sum())
        if unknown:
            found.append(
                f"{unknown} of {counted(len(done), 'processed scan')} {form(unknown, 'has', 'have')} no {name}."
            )
    synthetic = int((done["source"] == "synthetic").sum())
    if synthetic:
        are = f"{counted(len(done), 'scan')} {form(synthetic, 'is', 'are')}"
        found.append(f"{synthetic} of {are} synthetic: predicted from the T1w, not measured.")
    found.append(_no_outliers_warning(done))
    outliers = int((done["largest_z"] > OUTLIER_Z).sum())
    if outliers:
        have = f"{counted(outliers, 'scan')} {form(outliers, 'has', 'have')}"
        found.append(f"{have} a quality measure with |z| > {OUTLIER_Z:g}; check their reports.")
    return [sentence for sentence in found if sentence]


def unbeaten_models(output_dir: Path, read: JsonReader = read_json) -> list[str]:
    """Return what sidecars of synthetic maps say of models that do not beat their baselines, each sentence once."""
    sidecars = []
    for path in find_outputs(output_dir, "synthetic_suvr", sidecars=True):
        try:
            sidecars.append(read(path))
        except TauPipelineError:
            # The page of the participant names a sidecar that cannot be read.
            continue
    return counted_unbeaten(sidecars)


def counted_unbeaten(sidecars: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what sidecars say of models that do not beat their baselines: each sentence once, with its number."""
    counts = Counter(sentence for sidecar in sidecars for sentence in unbeaten_sentences(sidecar))
    return [f"{counted(count, 'synthetic scan')}: {sentence}" for sentence, count in counts.items()]


def unbeaten_sentences(sidecar: Mapping[str, Any]) -> list[str]:
    """Return what a sidecar of a synthetic map says of models that do not beat their baselines, or may not."""
    stated = sidecar.get("Baselines")
    if sidecar.get("BeatsBaselines") not in (False, "n/a") or not isinstance(stated, list):
        return []
    models = [one for one in stated if isinstance(one, dict)]
    # Of several models, each is named.
    several = len(models) > 1
    found = [
        f"{one['model']}: {one.get('description')}" if several and "model" in one else str(one.get("description"))
        for one in models
        if one.get("beats_baselines") is not True
    ]
    return found or ["It is not known whether the models of this map beat simple predictors."]


def _no_outliers_warning(done: pd.DataFrame) -> str:
    compared = done[done["included"] != "no"]
    without = int(compared["largest_z"].isna().sum())
    if not without:
        return ""
    return (
        f"Nothing can be said about outliers among {without} of {counted(len(compared), 'scan')}: there are fewer than "
        f"{FEWEST} with the same tracer, reference region, and source."
    )


def _unfinished_warning(status: pd.DataFrame) -> str:
    missing = status[status["state"] == "failed"]
    if missing.empty:
        return ""
    have = form(len(missing), "has", "have")
    return (
        f"{len(missing)} of {counted(len(status), 'scan')} failed and {have} no values: {', '.join(missing['scan'])}."
    )


def _failed_quality_warning(done: pd.DataFrame) -> str:
    failed, out = done[done["quality"] == "fail"], done[done["included"] == "no"]
    if failed.empty:
        return ""
    left_out = f"{len(out)} {form(len(out), 'is', 'are')} left out of standardization, figures, and tests"
    what = left_out if len(out) else "they are included"
    names = _named(failed, "quality_failed")
    return f"The quality of {len(failed)} of {counted(len(done), 'processed scan')} is fail; {what}: {names}."


def _doubtful_quality_warning(done: pd.DataFrame) -> str:
    doubtful = done[(done["quality"] == "warn") & (done["included"] != "no")]
    if doubtful.empty:
        return ""
    are = form(len(doubtful), "it is", "they are")
    return (
        f"The quality of {len(doubtful)} of {counted(len(done), 'processed scan')} is warn; {are} included; look at "
        f"their reports: {_named(doubtful, 'quality_warned')}."
    )


def _named(scans: pd.DataFrame, column: str) -> str:
    """Return scans with the names of their checks."""
    return "; ".join(f"{row['scan']} ({str(row[column]).replace(',', ', ')})" for row in scans.to_dict("records"))


def _standardization_warning(done: pd.DataFrame, standardization: pd.DataFrame | None) -> str:
    if standardization is None or standardization.empty:
        return "SUVR is not standardized by manufacturer: values from different scanners are not comparable."
    without = int(done["cortex_p90_standardized"].isna().sum())
    if without:
        return (
            f"{without} of {counted(len(done), 'processed scan')} {form(without, 'has', 'have')} no standardized SUVR."
        )
    return ""


def _few_participants_warning(standardization: pd.DataFrame | None) -> str:
    import pandas as pd

    if standardization is None or not {"manufacturer", "n_participants"} <= set(standardization):
        return ""
    counts = pd.to_numeric(standardization["n_participants"], errors="coerce")
    few = standardization["manufacturer"][counts < _FEW_PARTICIPANTS].dropna()
    if few.empty:
        return ""
    names = ["all manufacturers together" if name == "pooled" else name for name in dict.fromkeys(few)]
    return f"The standardization of {', '.join(names)} uses fewer than {_FEW_PARTICIPANTS} participants."


def _confounded_warning(done: pd.DataFrame) -> str:
    """Warn if all scans of a manufacturer have one diagnosis: standardization then removes the disease effect too."""
    stated = done[done["manufacturer"].notna() & done["diagnosis"].notna()]
    if stated["diagnosis"].nunique() < 2 or stated["manufacturer"].nunique() < 2:
        return ""
    of_each = stated.groupby("manufacturer")["diagnosis"].agg(["nunique", "count"])
    alone = [str(name) for name in of_each.index[(of_each["nunique"] == 1) & (of_each["count"] > 1)]]
    if not alone:
        return ""
    return (
        f"All scans from {', '.join(alone)} have the same diagnosis: "
        "standardization by manufacturer also removes differences between diagnoses."
    )


def options(column: pd.Series) -> list[str]:
    """Return the different values of a column, sorted."""
    return sorted(map(str, column.dropna().unique()), key=str.casefold)
