"""Region tables in the report of a participant: as text, on the average cortex, and synthetic beside measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import DamagedFileError
from tau_pipeline.figures.cortex import cortex_figure
from tau_pipeline.figures.sheet import DIFFERENCE_MAP, UPTAKE_MAP
from tau_workflows.reports import html

if TYPE_CHECKING:
    import pandas as pd

MISSING = "n/a"
#: Ends of the color scale of SUVR, as in `tau_pipeline.figures.participant.suvr_figure`, and of differences of SUVR.
SUVR_SCALE, _DIFFERENCE_SCALE = (0.5, 2.5), (-1.0, 1.0)

COMPOSITES = {
    "braak1": "Braak I",
    "braak34": "Braak III–IV",
    "braak56": "Braak V–VI",
    "metatemporal": "Meta-temporal",
    "braak12": "Braak I–II (with the hippocampus: spill-in from the choroid plexus)",
    "braak3": "Braak III",
    "braak4": "Braak IV",
    "braak5": "Braak V",
    "braak6": "Braak VI",
    "metatemporal_jack2017": "Meta-temporal, medians (Jack 2017)",
    "cortex": "Cortex",
}
#: Composites in the first table of a participant's page, which must fit a sheet of paper; the others follow below.
IN_SUMMARY = ("braak1", "braak34", "braak56", "metatemporal")
#: Columns of a table of agreement: heading and format.
AGREEMENT = {
    "predictor": ("Predictor", ""),
    "ssim": ("SSIM", ".3f"),
    "psnr": ("PSNR (dB)", ".1f"),
    "mae": ("Mean absolute error (SUVR)", ".3f"),
    "regional_mae": ("Mean absolute error of regions (SUVR)", ".3f"),
    "data_range": ("Data range (SUVR)", ".3g"),
    "mask": ("Voxels", ""),
}
#: Columns of numbers that a region table must have, and those that it may have.
NUMBERS = ("index", "n_voxels", "volume_mm3", "suvr_mean")
_MORE_NUMBERS = ("suvr_sd", "suvr_mean_low", "suvr_mean_high")


@dataclass(frozen=True)
class Regions:
    """The region table of a scan for one reference region, as text."""

    reference: str
    source: str
    composites: list[dict[str, str]]
    cortical: list[dict[str, str]]
    others: list[dict[str, str]]
    file: str
    brain: str = ""


@dataclass(frozen=True)
class Comparison:
    """Measured and synthetic SUVR of one scan for one reference region: the composites as text, and a picture."""

    reference: str
    composites: list[dict[str, str]]
    brain: str


def region_tables(table: pd.DataFrame, file: str, scale: tuple[float, float] = SUVR_SCALE) -> list[Regions]:
    """Return a regional table as text, one for each reference region and source.

    Parameters
    ----------
    table
        Rows of a ``*_rois.tsv``.
    file
        Name of the file.
    scale
        Ends of the color scale.

    Raises
    ------
    DamagedFileError
        The table lacks a column that the report needs.
    """
    needed = {"reference_region", "source", "kind", "region", "hemisphere", *NUMBERS}
    if absent := sorted(needed - set(table.columns)):
        raise DamagedFileError(f"the table {file} has no column {', '.join(absent)}; run the participant level again")
    found = []
    for (reference, source), rows in _with_numbers(table).groupby(
        ["reference_region", "source"], sort=False, dropna=False
    ):
        of_kind = {kind: rows[rows["kind"] == kind] for kind in ("composite", "cortical", "subcortical", "reference")}
        found.append(
            Regions(
                reference=_cell(reference),
                source=_cell(source),
                composites=_by_hemisphere(of_kind["composite"]),
                cortical=_by_hemisphere(of_kind["cortical"]),
                others=_by_hemisphere(of_kind["subcortical"]) + _by_hemisphere(of_kind["reference"]),
                file=file,
                brain=_brain(rows, _cell(reference), _cell(source), scale),
            )
        )
    return found


def _with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Return columns of numbers as numbers; other values are missing."""
    import pandas as pd

    known = [name for name in (*NUMBERS, *_MORE_NUMBERS) if name in table]
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in known})


def comparisons(tables: Sequence[pd.DataFrame]) -> list[Comparison]:
    """Return measured beside synthetic SUVR for each reference region of a scan that has both."""
    import pandas as pd

    if not tables:
        return []
    together = pd.concat([_with_numbers(table) for table in tables], ignore_index=True)
    found = []
    for reference, rows in together.groupby("reference_region", sort=False):
        keyed = rows.set_index(["region", "hemisphere"])
        measured, synthetic = (keyed[keyed["source"] == source] for source in ("measured", "synthetic"))
        if measured.empty or synthetic.empty or not (measured.index.is_unique and synthetic.index.is_unique):
            continue
        both = measured.join(synthetic["suvr_mean"].rename("synthetic_mean"), how="inner").reset_index()
        both["difference"] = both["synthetic_mean"] - both["suvr_mean"]
        composite = both[(both["kind"] == "composite") & (both["hemisphere"] == "both")]
        lines = [
            {
                "region": COMPOSITES.get(row["region"], str(row["region"])),
                "measured": _cell(row["suvr_mean"], ".3f"),
                "synthetic": _cell(row["synthetic_mean"], ".3f"),
                "difference": _cell(row["difference"], "+.3f"),
            }
            for row in composite.to_dict("records")
        ]
        found.append(Comparison(str(reference), lines, _difference_brain(both, str(reference))))
    return found


def _brain(rows: pd.DataFrame, reference: str, source: str, scale: tuple[float, float]) -> str:
    """Draw region means on the average cortex as a data URI; empty if no cortical region has a value."""
    values = _cortical(rows, "suvr_mean")
    title = f"Mean regional {source} SUVR, fixed scale {scale[0]:g} to {scale[1]:g}"
    if not values:
        return ""
    return html.figure_uri(cortex_figure({"": values}, title, scale, f"SUVR (reference: {reference})", UPTAKE_MAP))


def _difference_brain(rows: pd.DataFrame, reference: str) -> str:
    values = _cortical(rows, "difference")
    title = "Mean regional SUVR, synthetic minus measured"
    if not values:
        return ""
    label = f"Difference of SUVR (reference: {reference})"
    return html.figure_uri(cortex_figure({"": values}, title, _DIFFERENCE_SCALE, label, DIFFERENCE_MAP))


def _cortical(rows: pd.DataFrame, column: str) -> dict[int, float]:
    """Return a column of the cortical regions by FreeSurfer number, without missing values."""
    cortical = rows[(rows["kind"] == "cortical") & rows["index"].notna() & rows[column].notna()]
    return {int(number): float(value) for number, value in zip(cortical["index"], cortical[column], strict=True)}


def _by_hemisphere(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Return one row per structure; its left, right and unpaired values side by side."""
    import pandas as pd

    found: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        name = re.sub(r"^(ctx-[lr]h-|Left-|Right-)", "", str(row["region"]))
        side = row["hemisphere"] if row["hemisphere"] in ("left", "right") else "both"
        line = found.setdefault(name, {"region": COMPOSITES.get(name, name)})
        line[f"{side}_suvr"] = _cell(row["suvr_mean"], ".3f")
        line[f"{side}_sd"] = _cell(row.get("suvr_sd"), ".3f")
        line[f"{side}_ml"] = _cell(row["volume_mm3"], ".2f", 1e-3)
        if not pd.isna(row.get("suvr_mean_low")):
            low, high = (_cell(row[f"suvr_mean_{end}"], ".3f") for end in ("low", "high"))
            line[f"{side}_interval"] = f"{low} to {high}"
    return list(found.values())


def _cell(value: Any, form: str = "", scale: float = 1.0) -> str:
    """Format a table cell as text; a missing value is ``n/a``."""
    import pandas as pd

    if pd.isna(value):
        return MISSING
    return format(float(value) * scale, form) if form else str(value)


def agreement_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return a table of agreement as text, with the columns of `AGREEMENT`."""
    return [
        {name: _cell(row.get(name), form) for name, (_, form) in AGREEMENT.items()} for row in table.to_dict("records")
    ]
