"""Figures and figures of reliability of the change between visits, for the page of the cohort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.change import RETEST_DAYS, retest_variability
from tau_pipeline.figures.change import annual_map_figure, lines_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_NUMBERS = ("years", "suvr_first", "suvr", "slope")
_LINES_HINT = (
    "Check participants whose lines jump: a change of scanner, reconstruction, window, or resolution (columns same_… "
    "of change.tsv) also changes SUVR."
)
_MAP_HINT = (
    "Mean over participants of the slope of all visits, in percent of the first visit. Orange: more; purple: less. "
    "Participants whose scanner changed are included."
)


def change_figures(change: pd.DataFrame | None, wide: pd.DataFrame | None) -> list[tuple[str, str, str, Figure]]:
    """Return the figures of change of each tracer and reference region: title, what it shows, hint, and figure.

    Parameters
    ----------
    change, wide
        ``change.tsv`` and ``suvr_rois_wide.csv`` as text; None if they are not there.
    """
    import pandas as pd

    if change is None or change.empty or not {"participant_id", "region", *_NUMBERS} <= set(change.columns):
        return []
    numbers = change.assign(**{name: pd.to_numeric(change[name], errors="coerce") for name in _NUMBERS})
    diagnoses = _diagnoses(wide)
    found = []
    for (tracer, reference), own in numbers.groupby(["tracer", "reference_region"], dropna=False, sort=True):
        kind = f"tracer {_text(tracer)}, reference {_text(reference)}"
        what = f"Measured SUVR, {kind}, participants with several visits: {own['participant_id'].nunique()}"
        lines = lines_figure(own, diagnoses, f"SUVR of each visit ({kind})")
        if lines is not None:
            found.append(("Change between visits", what, " ".join([_LINES_HINT, *_retest_sentences(own)]), lines))
        cortex = annual_map_figure(own, f"Mean annual change of regional SUVR ({kind})")
        if cortex is not None:
            found.append(("Mean annual change", what, _MAP_HINT, cortex))
    return found


def _diagnoses(wide: pd.DataFrame | None) -> Mapping[str, str]:
    """Return the diagnosis of each participant at its first row that states one."""
    if wide is None or not {"participant_id", "diagnosis"} <= set(wide.columns):
        return {}
    stated = wide.dropna(subset=["diagnosis"]).drop_duplicates("participant_id")
    return dict(zip(stated["participant_id"], stated["diagnosis"], strict=True))


def _retest_sentences(change: pd.DataFrame) -> list[str]:
    """Return a sentence on test-retest variability where visits are near each other in time."""
    rows: list[dict[Any, Any]] = retest_variability(change)
    if not rows:
        return []
    parts = [
        f"{row['region']} median {row['median']:.1f}% (quartiles {row['low']:.1f} to {row['high']:.1f}%, "
        f"{row['n']} pairs)"
        for row in rows
    ]
    return [f"Test-retest, absolute difference over the mean, of visits within {RETEST_DAYS} days: {'; '.join(parts)}."]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "not stated"
