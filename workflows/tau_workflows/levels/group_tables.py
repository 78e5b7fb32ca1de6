"""Make the tables of the group level, and say on the terminal what their readers have to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.adni import ADNI_PVC_TABLE, ADNI_TABLE, adni_dictionary, adni_table
from tau_pipeline.cohort.change import CHANGE_COLUMNS, change_table
from tau_pipeline.cohort.columns import dictionary
from tau_pipeline.cohort.demographics import Demographics
from tau_pipeline.cohort.harmonize import combat
from tau_pipeline.cohort.positivity import THRESHOLD_COLUMNS, parse_thresholds, regions_of, with_positivity
from tau_pipeline.cohort.reference_group import FEWEST, reference_participants, with_zscores
from tau_pipeline.cohort.standardize import Standardization
from tau_pipeline.cohort.tables import WIDE_KEYS, long_table, status_table, wide_table
from tau_pipeline.cohort.wscores import with_wscores
from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.derivatives.status import ScanStatus
from tau_pipeline.settings.cohort import Group
from tau_workflows.levels.call import say

if TYPE_CHECKING:
    import pandas as pd

#: Tables that are only there if they are asked for; one of an earlier run is removed.
OPTIONAL = (ADNI_TABLE, ADNI_PVC_TABLE, "thresholds", "change")


@dataclass(frozen=True)
class Cohort:
    """A cohort: all that its tables are made from."""

    bids_dir: Path
    scans: Sequence[DoneScan]
    statuses: Mapping[str, ScanStatus]
    fits: Sequence[Standardization]
    demographics: Demographics
    settings: Group


def cohort_tables(cohort: Cohort) -> dict[str, pd.DataFrame]:
    """Return the tables of a cohort by the names of their files.

    Raises
    ------
    SettingError
        A setting asks for what these scans cannot give.
    """
    settings, include_failed = cohort.settings, cohort.settings.include_failed_quality
    long = long_table(cohort.scans, cohort.fits, cohort.demographics, include_failed=include_failed)
    reference: frozenset[str] = frozenset()
    if settings.reference_group is not None:
        reference = reference_participants(cohort.bids_dir, settings.reference_group)
        long = _with_zscores(long, reference, settings.reference_group)
    fit_on = frozenset(f"sub-{label}" for label in settings.fit_participants)
    if settings.w_scores:
        long, sentences = with_wscores(long, reference & fit_on if fit_on else reference, settings.w_scores)
        for sentence in sentences:
            say(sentence)
    status = status_table(
        cohort.scans, cohort.statuses, cohort.fits, cohort.demographics, include_failed=include_failed
    )
    wide = wide_table(long)
    tables = {"suvr_rois": long, "suvr_rois_wide": wide, "status": status}
    if settings.harmonize == "combat":
        tables["suvr_rois_combat_wide"] = _harmonized(wide)
    if settings.threshold:
        tables |= _answers(wide, settings.threshold, reference, fit_on)
    change = change_table(long, cohort.bids_dir)
    if len(change):
        tables["change"] = change
        say(f"change between visits of {change['participant_id'].nunique()} participants: group/change.csv")
    if settings.columns == "adni":
        tables |= _adni_tables(long, cohort)
    return tables


def described(name: str, table: pd.DataFrame, left_out: str) -> dict[str, Any]:
    """Return the data dictionary of one of these tables; ``left_out`` says which scans do not count."""
    if name in (ADNI_TABLE, ADNI_PVC_TABLE):
        return adni_dictionary(table, left_out)
    tables = {"thresholds": (THRESHOLD_COLUMNS, "n_participants"), "change": (CHANGE_COLUMNS, "participant_id")}
    found, who = tables.get(name) or (dictionary(name, table), "included")
    return {**found, who: {**found[who], "LeftOut": left_out or "none"}}


def _answers(
    wide: pd.DataFrame, texts: Sequence[str], reference: frozenset[str], fit_on: frozenset[str]
) -> dict[str, pd.DataFrame]:
    """Add tau positivity to the wide table, and say what the thresholds are and how many scans reach them."""
    answered, thresholds, sentences = with_positivity(
        wide, parse_thresholds(texts, regions_of(wide)), reference, fit_on
    )
    for sentence in sentences:
        say(sentence)
    for row in thresholds.to_dict("records"):
        same = (wide["tracer"] == row["tracer"]) & (wide["reference_region"] == row["reference_region"])
        counts = answered.loc[same.fillna(False) & (wide["source"] == "measured"), f"{row['region']}_positive"]
        known = int(counts.notna().sum())
        say(
            f"tau positivity: {row['region']} from SUVR {row['threshold']:.3f} on ({row['method']}; {row['tracer']}, "
            f"{row['reference_region']}): {int((counts == 'yes').sum())} of {known} scans"
        )
    return {"suvr_rois_wide": answered, "thresholds": thresholds}


def _with_zscores(long: pd.DataFrame, participants: frozenset[str], expression: str) -> pd.DataFrame:
    """Add z-scores against a reference group, and say how many participants it has."""
    found = with_zscores(long, participants)
    for kind, own in found.groupby(["tracer", "reference_region"], dropna=False)["zscore_n"]:
        n = int(own.max())
        few = "" if n >= FEWEST else f"; at least {FEWEST} are needed, so there are no z-scores"
        say(f"z-scores against the {n} participants with {expression} ({', '.join(map(str, kind))}){few}")
    return found


def _adni_tables(long: pd.DataFrame, cohort: Cohort) -> dict[str, pd.DataFrame]:
    """Make the tables with ADNI's columns, and say what its readers have to know about the reference region."""
    found = {}
    for name, pvc in ((ADNI_TABLE, False), (ADNI_PVC_TABLE, True)):
        if not pvc or "suvr_pvc_mean" in long.columns:
            include_failed = cohort.settings.include_failed_quality
            found[name] = adni_table(long, cohort.scans, cohort.bids_dir, pvc=pvc, include_failed=include_failed)
    say(f"tables with ADNI's columns: {', '.join(found)}")
    references = found[ADNI_TABLE]["REFERENCE_REGION"]
    if others := sorted({name for name in references if "inferiorcerebell" not in name.lower()}):
        say(
            f"SUVR in the tables with ADNI's columns are by {', '.join(others)}, ADNI's by inferior cerebellar gray "
            "matter, whose columns are n/a; for these run participant with --ref-region InferiorCerebellarGM"
        )
    return found


def _harmonized(wide: pd.DataFrame) -> pd.DataFrame:
    """Apply ComBat to the included measured scans of each tracer and reference region; only ``suvr_mean`` columns."""
    import pandas as pd

    plain = [
        name
        for name in wide.columns
        if not name.endswith(("_standardized", "_zscore", "_wscore")) and "_pvc_" not in name
    ]
    table = wide[plain]
    regions = [name for name in table.columns if name not in (*WIDE_KEYS, "reference")]
    measured = table[(table["source"] == "measured") & (table["included"] == "yes")]
    parts = [combat(rows, regions) for _, rows in measured.groupby(["tracer", "reference_region"], dropna=False)]
    return pd.concat(parts, ignore_index=True)
