"""Every quality measure of an SUVR map, in one table from which all that shows or reads them is made.

A new measure needs a row here, and its value under `Measure.key` where it is computed
(`tau_pipeline.measures.quality.map_quality`). The status table, its data dictionary, the check of sidecars, both
reports, the cohort figure, and the reference of sidecars follow. See docs/decisions/quality-measures.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One quality measure. A text that is empty leaves the measure out of the place that it is for.

    Attributes
    ----------
    key
        In the sidecar of the SUVR map.
    kind
        What the sidecar holds: a number, a list of numbers of which the table has the largest, or one number for each
        percentile; ``text`` for what is shown as it is and not checked.
    percent
        Which percentile.
    key_text
        Meaning of the key in the reference of sidecars, where that of the column does not hold for it.
    worse
        The direction in which a value is doubtful, for the reference too; ``neither`` for what describes the scan.
    column, description, unit
        In ``group/status.tsv`` and its data dictionary.
    factor
        By which the value of the sidecar is multiplied for the column.
    standardized
        Whether a column with the suffix ``_standardized`` has the value standardized by manufacturer.
    outlier
        Column of the outlier score within the cohort (`tau_pipeline.cohort.outliers`).
    report_heading, report_unit, report_place
        In the participant report; rows are sorted by place, then in the order of the table.
    short_heading, short_unit, digits, core
        In the table of scans of the cohort report: ``digits`` is a format, and a core column is shown without values.
    plot_title, plot_axis, plot_place
        In the cohort figure of quality, sorted likewise.
    """

    key: str
    kind: Literal["number", "numbers", "percentiles", "text"] = "number"
    percent: int = 0
    key_text: str = ""
    worse: Literal["high", "low", "both", "neither"] = "neither"
    column: str = ""
    description: str = ""
    unit: str = ""
    factor: float | None = None
    standardized: bool = False
    outlier: str = ""
    report_heading: str = ""
    report_unit: str = ""
    report_place: int = 99
    short_heading: str = ""
    short_unit: str = ""
    digits: str = ""
    core: bool = False
    plot_title: str = ""
    plot_axis: str = ""
    plot_place: int = 99

    def value(self, sidecar: Mapping[str, Any]) -> Any:
        """Return the value of the column from a checked sidecar, or None.

        Examples
        --------
        >>> next(one for one in MEASURES if one.column == "mask_volume_ml").value({"BrainVolume": 1500000})
        1500.0
        """
        stated = sidecar.get(self.key)
        if self.kind == "percentiles":
            return (stated or {}).get(str(self.percent))
        if self.kind == "numbers":
            return max(stated) if isinstance(stated, list) and stated else None
        if self.factor is not None:
            return float(stated) * self.factor if isinstance(stated, int | float) else None
        return None if stated in (None, "", "n/a") else stated

    @property
    def key_description(self) -> str:
        """Meaning of the key of the sidecar, and which values are doubtful.

        Examples
        --------
        >>> next(one for one in MEASURES if one.key == "Noise").key_description
        'Standard deviation over the mean in the reference region. Higher is worse.'
        """
        return f"{self.key_text or self.description} {_DOUBTFUL[self.worse]}".strip()

    @property
    def outlier_description(self) -> str:
        """Description of the column `outlier`."""
        side = {"high": "High values are bad. ", "low": "Low values are bad. "}.get(self.worse, "")
        return (
            f"Outlier score of {self.column} among processed scans with the same tracer, reference region, and source, "
            "and the same manufacturer if there are 8 of it: distance from the core of these scans in standard "
            "deviations, relative to the distance that chance explains for this number of scans. "
            f"{side}Beyond 2.5 or -2.5 a scan is an outlier; n/a if there are fewer than 5 scans."
        )

    @property
    def z_column(self) -> str:
        """Column of the standardized value; empty if there is none."""
        return f"{self.column}_standardized" if self.standardized else ""


_DOUBTFUL = {
    "high": "Higher is worse.",
    "low": "Lower is worse.",
    "both": "Values far from those of other scans are doubtful.",
    "neither": "",
}
#: In the order of the columns of ``group/status.tsv``.
MEASURES = (
    Measure(
        key="BrainVolume",
        key_text="Volume of the brain mask, in mm³.",
        worse="both",
        column="mask_volume_ml",
        description="Volume of the brain mask.",
        unit="mL",
        factor=1e-3,
        outlier="mask_volume_outlier",
        short_heading="Brain mask",
        short_unit="mL",
        digits=".0f",
        core=True,
        plot_title="Brain mask",
        plot_axis="Volume (mL)",
        plot_place=4,
    ),
    Measure(
        key="RegistrationMetric",
        worse="low",
        column="registration_nmi",
        description="Normalized mutual information of PET and T1w after coregistration.",
        outlier="registration_outlier",
        report_heading="Fit of PET to T1w (normalized mutual information)",
        report_place=3,
        short_heading="Registra\N{SOFT HYPHEN}tion",
        short_unit="NMI",
        digits=".3f",
        core=True,
        plot_title="Fit of PET to T1w",
        plot_axis="Normalized mutual information",
        plot_place=2,
    ),
    Measure(
        key="FrameMotion",
        key_text="Mean displacement of the brain in each of the frames that were used, in mm; `n/a` for a single frame "
        "and without motion correction.",
        kind="numbers",
        worse="high",
        column="motion_mm",
        description="Largest mean displacement of the brain over the frames; n/a for a single frame and without motion "
        "correction.",
        unit="mm",
        short_heading="Motion",
        short_unit="mm",
        digits=".1f",
    ),
    Measure(
        key="ReferenceValue",
        worse="both",
        column="reference_value",
        description="Mean activity of the reference region, in the units of the PET.",
        outlier="reference_value_outlier",
        report_heading="Mean of the reference region, in the unit of the PET",
        report_place=1,
        short_heading="Ref. value",
        short_unit="PET unit",
        digits=".4g",
        core=True,
        plot_title="Mean of the reference region",
        plot_axis="Activity (unit of the PET)",
        plot_place=1,
    ),
    Measure(
        key="ReferenceRegionVolume",
        key_text="Volume of the reference region after limiting spill-in, in mm³.",
        worse="low",
        column="reference_volume_ml",
        description="Volume of the reference region.",
        unit="mL",
        factor=1e-3,
        report_heading="Volume of the reference region",
        report_unit="mm³",
        report_place=2,
        short_heading="Ref. volume",
        short_unit="mL",
        digits=".0f",
    ),
    Measure(
        key="Noise",
        worse="high",
        column="noise",
        description="Standard deviation over the mean in the reference region.",
        unit="1",
        outlier="noise_outlier",
        report_heading="Noise (SD), SUVR",
        report_place=7,
        short_heading="Noise",
        short_unit="SUVR",
        digits=".3f",
        core=True,
        plot_title="Noise",
        plot_axis="SD (SUVR)",
        plot_place=3,
    ),
    Measure(
        key="SmoothingFWHM",
        key_text="FWHM of the smoothing kernel, in mm.",
        kind="text",
        report_heading="Smoothing applied, FWHM",
        report_unit="mm",
        report_place=8,
    ),
    Measure(
        key="EffectiveFWHM",
        key_text="Effective resolution of the SUVR map, FWHM in mm.",
        worse="high",
        column="effective_fwhm_mm",
        description="Effective resolution of the SUVR map.",
        unit="mm",
        report_heading="Effective resolution, FWHM",
        report_unit="mm",
        report_place=9,
        short_heading="FWHM",
        short_unit="mm",
        digits=".1f",
    ),
    Measure(
        key="BrainMean",
        key_text="Mean SUVR over the voxels of the brain mask that have a value.",
        column="brain_mean",
        description="Mean SUVR over the brain mask.",
        unit="1",
        report_heading="Mean SUVR of the brain",
        report_place=4,
    ),
    Measure(
        key="BrainStandardDeviation",
        key_text="Standard deviation of SUVR over the same voxels (ddof 0).",
        column="brain_sd",
        description="Standard deviation of SUVR over the voxels of the brain mask.",
        unit="1",
        report_heading="Standard deviation of SUVR over the brain",
        report_place=5,
    ),
    Measure(key="BrainVoxels", key_text="Number of voxels of the brain mask that have a value."),
    Measure(
        key="CorticalPercentiles",
        key_text="Percentiles of SUVR over the 68 cortical regions, by percent.",
        kind="percentiles",
        percent=75,
        column="cortex_p75",
        description="75th percentile of SUVR over cortical voxels.",
        unit="1",
        standardized=True,
        report_heading="SUVR of cortex at percentiles",
        report_place=6,
        short_heading="Cortex p75",
        short_unit="SUVR",
        digits=".2f",
    ),
    Measure(
        key="CorticalPercentiles",
        kind="percentiles",
        percent=90,
        column="cortex_p90",
        description="90th percentile of SUVR over cortical voxels.",
        unit="1",
        standardized=True,
        outlier="cortex_p90_outlier",
        short_heading="Cortex p90",
        short_unit="SUVR",
        digits=".2f",
    ),
    Measure(
        key="CorticalPercentiles",
        kind="percentiles",
        percent=99,
        column="cortex_p99",
        description="99th percentile of SUVR over cortical voxels.",
        unit="1",
        standardized=True,
        short_heading="Cortex p99",
        short_unit="SUVR",
        digits=".2f",
    ),
)
#: Measures that have a column in ``group/status.tsv``.
IN_TABLE = tuple(one for one in MEASURES if one.column)
#: Rows of the participant report, and panels of the cohort figure, in their order.
IN_REPORT = tuple(sorted((one for one in MEASURES if one.report_heading), key=lambda one: one.report_place))
IN_FIGURE = tuple(sorted((one for one in MEASURES if one.plot_title), key=lambda one: one.plot_place))
