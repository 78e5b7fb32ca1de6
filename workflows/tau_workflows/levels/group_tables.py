"""Make the tables of the group level, and say on the terminal what their readers have to know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.adni import ADNI_PVC_TABLE, ADNI_TABLE, adni_dictionary, adni_table
from tau_pipeline.cohort.bilateral import bilateral_table
from tau_pipeline.cohort.calibrated import read_line, with_calibrated
from tau_pipeline.cohort.centaur import LINES, centaur_columns, centaur_table, find_masks
from tau_pipeline.cohort.change import CHANGE_COLUMNS, change_table
from tau_pipeline.cohort.columns import CALIBRATED_COLUMN, PERSON_COLUMNS, dictionary
from tau_pipeline.cohort.demographics import Demographics
from tau_pipeline.cohort.harmonize import combat
from tau_pipeline.cohort.long_files import LongTable, parts_of
from tau_pipeline.cohort.positivity import THRESHOLD_COLUMNS, parse_thresholds, regions_of, with_positivity
from tau_pipeline.cohort.reference_group import (
    FEWEST,
    joined_rows,
    reference_participants,
    reference_rows,
    with_zscores,
    zscore_statistics,
)
from tau_pipeline.cohort.scans import kind_of
from tau_pipeline.cohort.standardize import Standardization
from tau_pipeline.cohort.tables import WIDE_KEYS, long_table, status_table, wide_table
from tau_pipeline.cohort.thickness import THICKNESS_TABLE, stack_thickness
from tau_pipeline.cohort.visits import with_years
from tau_pipeline.cohort.wscores import WScores, fit_wscores
from tau_pipeline.derivatives.index import DoneScan, give_back_rows
from tau_pipeline.derivatives.status import ScanStatus
from tau_pipeline.settings.cohort import Group
from tau_pipeline.surface import thickness
from tau_pipeline.words import counted
from tau_workflows.levels.call import say

if TYPE_CHECKING:
    import pandas as pd

#: Tables that are only there if they are asked for; one of an earlier run is removed.
#: Columns that depend on the reference group, which their description names.
_BY_GROUP = ("suvr_zscore", "suvr_wscore")
OPTIONAL = (ADNI_TABLE, ADNI_PVC_TABLE, "thresholds", "change", "centaur", THICKNESS_TABLE)


@dataclass(frozen=True)
class Cohort:
    """A cohort: all that its tables are made from."""

    bids_dir: Path
    scans: Sequence[DoneScan]
    statuses: Mapping[str, ScanStatus]
    fits: Sequence[Standardization]
    demographics: Demographics
    settings: Group
    processes: int = 1
    """Scans whose images are read at a time."""
    dry_run: bool = False
    """Whether to leave out tables that need images."""
    parts: Path | None = None
    """Folder for the parts of long tables; None if they are not to be written."""


def cohort_tables(cohort: Cohort) -> dict[str, Any]:
    """Return the tables of a cohort by the names of their files: data frames, and the long ones as `LongTable`.

    Raises
    ------
    SettingError
        A setting asks for what these scans cannot give.
    """
    settings, include_failed = cohort.settings, cohort.settings.include_failed_quality
    joined, reference = _joined_parts(cohort)
    status = status_table(
        cohort.scans, cohort.statuses, cohort.fits, cohort.demographics, include_failed=include_failed
    )
    wide = joined["suvr_rois_wide"]
    tables: dict[str, Any] = {**joined, "status": status, **_thickness(cohort)}
    if settings.harmonize == "combat":
        tables["suvr_rois_combat_wide"] = _harmonized(wide)
    if settings.threshold:
        tables |= _answers(wide, settings, reference)
    if "change" in tables:
        people = counted(tables["change"]["participant_id"].nunique(), "participant")
        say(f"change between visits of {people}: group/change.csv")
    if settings.centaur_masks is not None:
        find_masks(settings.centaur_masks)
        if not cohort.dry_run:
            tables["centaur"] = _centaur(cohort, settings.centaur_masks)
    if settings.calibration_line is not None and not cohort.dry_run:
        tables |= _calibrated(tables, settings.calibration_line)
    if settings.columns == "adni":
        _tell_adni(tables)
    return tables


def _joined_parts(cohort: Cohort) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the tables that are made from the long table, part by part, and who is in the reference group."""
    import pandas as pd

    settings, scores = cohort.settings, _scores(cohort)
    long_tables = {name: LongTable(name, cohort.parts) for name in ("suvr_rois", "suvr_bilateral")}
    found: dict[str, list[pd.DataFrame]] = {}
    for scans in parts_of(cohort.scans):
        long = scores.apply(_long(scans, cohort))
        long_tables["suvr_rois"].add(with_years(long, cohort.bids_dir))
        long_tables["suvr_bilateral"].add(bilateral_table(long))
        parts = {"suvr_rois_wide": wide_table(long), "change": change_table(long, cohort.bids_dir, scans)}
        if settings.columns == "adni":
            parts |= _adni_tables(long, scans, cohort)
        for name, part in parts.items():
            if name != "change" or len(part):
                found.setdefault(name, []).append(part)
    for table in long_tables.values():
        table.close()
    # No later table is made from the rows, and joining the parts takes as much memory as they do.
    give_back_rows(cohort.scans)
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    return {**long_tables, **joined}, scores.reference


def _long(scans: Sequence[DoneScan], cohort: Cohort) -> pd.DataFrame:
    include_failed = cohort.settings.include_failed_quality
    return long_table(scans, cohort.fits, cohort.demographics, include_failed=include_failed)


def _thickness(cohort: Cohort) -> dict[str, pd.DataFrame]:
    """Return the table of thickness, if a T1w has surfaces."""
    roots = [scan.names.output_dir for scan in cohort.scans[:1]]
    found = stack_thickness(roots[0], cohort.bids_dir, cohort.demographics) if roots else None
    return {} if found is None else {THICKNESS_TABLE: found}


@dataclass(frozen=True)
class Remarks:
    """Remarks of data dictionaries on scans: those left out, and those of models that do not beat the baselines."""

    left_out: str = ""
    unbeaten: tuple[str, ...] = ()


def described(name: str, table: pd.DataFrame, remarks: Remarks, settings: Group) -> dict[str, Any]:
    """Return the data dictionary of one of these tables, with remarks on the scans."""
    left_out = remarks.left_out
    if name in (ADNI_TABLE, ADNI_PVC_TABLE):
        return adni_dictionary(table, left_out)
    if name == THICKNESS_TABLE:
        return {column: {**PERSON_COLUMNS, **thickness.COLUMNS}[column] for column in table.columns}
    tables = {
        "thresholds": (THRESHOLD_COLUMNS, "n_participants"),
        "change": (CHANGE_COLUMNS, "participant_id"),
        "centaur": (centaur_columns(), "included"),
    }
    found, who = tables.get(name) or (dictionary(name, table), "included")
    own = {column: found.get(column) or CALIBRATED_COLUMN for column in table.columns}
    for column in own.keys() & _BY_GROUP:
        own[column] = {**own[column], "ReferenceGroup": settings.reference_group}
    if "suvr_wscore" in own:
        own["suvr_wscore"] = {**own["suvr_wscore"], "Covariates": list(settings.w_scores)}
    if "source" in own and remarks.unbeaten:
        own["source"] = {**own["source"], "UnbeatenModels": list(remarks.unbeaten)}
    return {**own, who: {**own[who], "LeftOut": left_out or "none"}}


def _fit_on(settings: Group) -> frozenset[str]:
    return frozenset(f"sub-{label}" for label in settings.fit_participants)


def _fitted(reference: frozenset[str], settings: Group) -> frozenset[str]:
    """Return those participants of the reference group that scores may be fitted on."""
    fit_on = _fit_on(settings)
    return reference & fit_on if fit_on else reference


@dataclass(frozen=True)
class _Scores:
    """Scores against a reference group, which has the participants ``reference``; None where they are not asked for."""

    reference: frozenset[str] = frozenset()
    z_scores: pd.DataFrame | None = None
    w_scores: WScores | None = None

    def apply(self, long: pd.DataFrame) -> pd.DataFrame:
        """Add the scores to rows of the long table."""
        if self.z_scores is not None:
            long = with_zscores(long, self.z_scores)
        return long if self.w_scores is None else self.w_scores.apply(long)


def _scores(cohort: Cohort) -> _Scores:
    """Make what scores against the reference group need, of its rows alone, and say how many participants it has."""
    import pandas as pd

    settings, expression = cohort.settings, cohort.settings.reference_group
    if expression is None and not settings.w_scores:
        return _Scores()
    reference = frozenset[str]() if expression is None else reference_participants(cohort.bids_dir, expression)
    fitted = _fitted(reference, settings)
    own = [scan for scan in cohort.scans if scan.participant_id in fitted]
    # Without a scan of the group, the columns are those of any other.
    parts = [reference_rows(_long(scans, cohort), fitted) for scans in (parts_of(own) if own else [cohort.scans[:1]])]
    group = joined_rows(parts)
    del parts
    kinds = pd.DataFrame({kind_of(scan) for scan in cohort.scans}, columns=["tracer", "reference_region"])
    kinds["tracer"] = kinds["tracer"].replace("", None)
    statistics = None if expression is None else zscore_statistics(group)
    if expression is not None and statistics is not None:
        _tell_zscores(statistics, kinds, expression)
    w_scores = fit_wscores(group, kinds, settings.w_scores) if settings.w_scores else None
    for sentence in () if w_scores is None else w_scores.sentences:
        say(sentence)
    return _Scores(reference, statistics, w_scores)


def _answers(wide: pd.DataFrame, settings: Group, reference: frozenset[str]) -> dict[str, pd.DataFrame]:
    """Add tau positivity to the wide table, and say what the thresholds are and how many scans reach them."""
    requests = parse_thresholds(settings.threshold, regions_of(wide))
    answered, thresholds, sentences = with_positivity(wide, requests, reference, _fit_on(settings))
    for sentence in sentences:
        say(sentence)
    for row in thresholds.to_dict("records"):
        same = (wide["tracer"] == row["tracer"]) & (wide["reference_region"] == row["reference_region"])
        counts = answered.loc[same.fillna(False) & (wide["source"] == "measured"), f"{row['region']}_positive"]
        known = int(counts.notna().sum())
        say(
            f"tau positivity: {row['region']} from SUVR {row['threshold']:.3f} on ({row['method']}; {row['tracer']}, "
            f"{row['reference_region']}): {int((counts == 'yes').sum())} of {counted(known, 'scan')}"
        )
    return {"suvr_rois_wide": answered, "thresholds": thresholds}


def _tell_zscores(statistics: pd.DataFrame, kinds: pd.DataFrame, expression: str) -> None:
    """Say how many participants z-scores are against, for each kind of scan."""
    kind = list(kinds.columns)
    largest = statistics.groupby(kind, dropna=False)["count"].max().rename("n").reset_index()
    for row in kinds.merge(largest, on=kind, how="left").sort_values(kind).to_dict("records"):
        n, what = 0 if math.isnan(row["n"]) else int(row["n"]), f"{row['tracer']}, {row['reference_region']}"
        few = "" if n >= FEWEST else f"; at least {FEWEST} are needed, so there are no z-scores"
        say(f"z-scores against the {counted(n, 'participant')} with {expression} ({what}){few}")


def _centaur(cohort: Cohort, folder: Path) -> pd.DataFrame:
    """Make the table of CenTauR, and say what could not be computed and that the values are uncalibrated."""
    include_failed = cohort.settings.include_failed_quality
    table, failed = centaur_table(cohort.scans, folder, include_failed=include_failed, processes=cohort.processes)
    for scan, reason in failed.items():
        say(f"{scan} has no CenTauR values: {reason}")
    if unknown := sorted({str(name) for name in table["tracer"] if name not in LINES}):
        say(f"there is no published line of CenTauRz for {', '.join(unknown)}; only SUVR in the masks are given")
    say("CenTauRz are uncalibrated: the published lines are for images processed by SPM8")
    return table


def _calibrated(tables: Mapping[str, pd.DataFrame], path: Path) -> dict[str, pd.DataFrame]:
    """Add calibrated values to a table, and say how many are extrapolated."""
    line = read_line(path)
    found, outside = with_calibrated(tables, line, path.name)
    beyond = f"; {outside} values lie outside the range of its {line.get('N', 'n/a')} scans" if outside else ""
    say(f"{line['MeasuredColumn']} calibrated by {path}{beyond}")
    return found


def _adni_tables(long: pd.DataFrame, scans: Sequence[DoneScan], cohort: Cohort) -> dict[str, pd.DataFrame]:
    """Make the tables with ADNI's columns; a cohort of which some scans are corrected has both for all."""
    include_failed = cohort.settings.include_failed_quality
    found = {}
    for name, pvc in ((ADNI_TABLE, False), (ADNI_PVC_TABLE, True)):
        if not pvc or "suvr_pvc_mean" in long.columns:
            found[name] = adni_table(long, scans, cohort.bids_dir, pvc=pvc, include_failed=include_failed)
    return found


def _tell_adni(tables: Mapping[str, Any]) -> None:
    """Say which tables have ADNI's columns, and what their readers have to know about the reference region."""
    say(f"tables with ADNI's columns: {', '.join(name for name in (ADNI_TABLE, ADNI_PVC_TABLE) if name in tables)}")
    references = set(tables[ADNI_TABLE]["REFERENCE_REGION"])
    if others := sorted({name for name in references if "inferiorcerebell" not in name.lower()}):
        say(
            f"SUVR in the tables with ADNI's columns are by {', '.join(others)}, ADNI's by inferior cerebellar gray "
            "matter, whose columns are n/a; for these run participant with --ref-region ADNIInferiorCerebellarGM"
        )


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
