"""The parts of a participant's page that depend on the cohort: links, and the cohort's controls beside the scan.

They stand between comments, so that the group level can replace them without making the page again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tau_pipeline.atlas import label_table
from tau_pipeline.derivatives.columns import column_name
from tau_pipeline.derivatives.names import report_path
from tau_pipeline.diagnoses import is_control
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.figures.cortex import cortex_figure
from tau_pipeline.figures.sheet import UPTAKE_MAP
from tau_pipeline.files import write_changed
from tau_workflows.reports import html
from tau_workflows.reports.about import read_about, suvr_scale
from tau_workflows.reports.regions import COMPOSITES

if TYPE_CHECKING:
    import pandas as pd

_PARTS = ("links", "controls")
#: Pages of participants that are read and written again at every run of the group level.
_MOST_PAGES = 1000
_GROUP_PAGE, _WIDE = "group/report.html", "group/suvr_rois_wide.csv"
_KIND = ("tracer", "reference_region")


@dataclass(frozen=True)
class Controls:
    """Mean SUVR of the cohort's controls beside that of one scan: one row per composite region, and a picture."""

    scan: str
    tracer: str
    reference: str
    count: int
    rows: list[dict[str, str]] = field(default_factory=list)
    picture: str = ""


def cohort_parts(output_dir: Path, participant: str, labels: Sequence[str] = ()) -> dict[str, str]:
    """Return the parts of a participant's page that depend on the cohort, by name, as HTML.

    ``labels`` are those of `participants_of`, which are read if they are not given.
    """
    labels = labels or participants_of(output_dir)
    place = bisect_left(labels, participant)
    place = place if place < len(labels) and labels[place] == participant else -1
    near = {
        "previous": labels[place - 1] if place > 0 else "",
        "next": labels[place + 1] if 0 <= place < len(labels) - 1 else "",
    }
    pages = {name: quote(report_path(output_dir, label).name) if label else "" for name, label in near.items()}
    cohort = _GROUP_PAGE if (output_dir / _GROUP_PAGE).is_file() else ""
    controls = list(_controls(output_dir, participant))
    macros = html.template("cohort_parts.html.jinja").module
    return {"links": str(macros.links(cohort, pages, near)), "controls": str(macros.controls(controls))}


def participants_of(output_dir: Path) -> list[str]:
    """Return the labels of all participants who have, or will have, a page; sorted."""
    found = {path.stem for path in (output_dir / "logs" / "status").glob("sub-*.json")}
    found |= {path.stem for path in output_dir.glob("sub-*.html")}
    return sorted(name.removeprefix("sub-") for name in found)


def marked(parts: dict[str, str]) -> dict[str, str]:
    """Return the parts between the comments by which `refresh_pages` finds them."""
    return {name: f"<!--{name}-->{text}<!--/{name}-->" for name, text in parts.items()}


def refresh_pages(output_dir: Path, *, however_many: bool = False) -> int:
    """Replace the parts that depend on the cohort in the pages of all participants; returns how many pages there are.

    Pages have megabytes of pictures. More than `_MOST_PAGES` are left as they are, unless ``however_many``.

    Raises
    ------
    OutputError
        A page cannot be written.
    """
    _cohort.cache_clear()
    _grouped.cache_clear()
    _picture.cache_clear()
    pages, labels = sorted(output_dir.glob("sub-*.html")), participants_of(output_dir)
    for page in pages if however_many or len(pages) <= _MOST_PAGES else ():
        text = page.read_text(encoding="utf-8", errors="replace")
        for name, new in marked(cohort_parts(output_dir, page.stem.removeprefix("sub-"), labels)).items():
            before, start, rest = text.partition(f"<!--{name}-->")
            _, end, after = rest.partition(f"<!--/{name}-->")
            text = before + new + after if start and end else text
        write_changed(text, page)
    return len(pages)


def _controls(output_dir: Path, participant: str) -> Iterator[Controls]:
    """Yield the controls of each measured scan of a participant, for each reference region, where there are any."""
    path = output_dir / _WIDE
    table = _cohort(path, path.stat().st_mtime_ns) if path.is_file() else None
    if table is None:
        return
    by_participant, controls = _grouped(path, path.stat().st_mtime_ns)
    own = table.iloc[by_participant.get(f"sub-{participant}", [])]
    for row in own.to_dict("records"):
        kind = {name: row[name] for name in _KIND}
        same = controls.get(tuple(kind.values()))
        others = None if same is None else same[same["participant_id"] != f"sub-{participant}"]
        if others is None or others.empty:
            continue
        rows = _rows(row, others)
        scale = suvr_scale(read_about(output_dir, participant))
        picture = _picture(path, path.stat().st_mtime_ns, str(kind["tracer"]), str(kind["reference_region"]), scale)
        yield Controls(str(row["scan"]), str(kind["tracer"]), str(kind["reference_region"]), len(others), rows, picture)


@lru_cache(maxsize=2)
def _grouped(path: Path, changed: int) -> tuple[dict[str, list[int]], dict[Any, pd.DataFrame]]:
    """Return the rows of each participant in the table of the cohort, and the controls of each kind of scan."""
    import pandas as pd

    table = _cohort(path, changed)
    if table is None:
        return {}, {}
    rows: dict[str, list[int]] = {}
    for place, who in enumerate(table["participant_id"]):
        rows.setdefault(str(who), []).append(place)
    shown = table[table["control"]]
    values = shown[_composites(table)].apply(pd.to_numeric, errors="coerce")
    # Visits of one control count once, by their mean.
    people = values.groupby([shown[name] for name in (*_KIND, "participant_id")], sort=False).mean().reset_index()
    return rows, dict(list(people.groupby(list(_KIND), sort=False)))


def _composites(table: pd.DataFrame) -> list[str]:
    return [name for one in COMPOSITES if (name := column_name(one, "both", "composite")) in table]


@lru_cache(maxsize=2)
def _cohort(path: Path, _: int) -> pd.DataFrame | None:
    """Return the cohort's measured scans, one row each, with a column ``control``; None if the table is damaged."""
    import pandas as pd

    texts = ("participant_id", "scan", "source", "tracer", "reference_region", "diagnosis", "included")
    cortical = label_table().query("kind == 'cortical'").itertuples(index=False)
    wanted = {*texts, *(column_name(one, "both", "composite") for one in COMPOSITES)}
    wanted |= {column_name(row.region, row.hemisphere, "cortical") for row in cortical}
    with suppress(OSError, ValueError):
        table = pd.read_csv(
            path,
            na_values=["n/a"],
            keep_default_na=False,
            dtype=dict.fromkeys(texts, "string"),
            usecols=lambda name: name in wanted,
        )
        known = {name: table[name].fillna("").astype(str) if name in table else "" for name in texts}
        own = pd.DataFrame(known, index=table.index)
        own["control"] = own["diagnosis"].map(is_control).astype(bool) & (own["included"] != "no")
        table = pd.concat([table.drop(columns=list(texts), errors="ignore"), own], axis=1)
        return table[table["source"] == "measured"]
    return None


def _rows(own: dict[Any, Any], others: pd.DataFrame) -> list[dict[str, str]]:
    import pandas as pd

    rows = []
    for region, heading in COMPOSITES.items():
        name = column_name(region, "both", "composite")
        if name not in others:
            continue
        values = pd.to_numeric(others[name], errors="coerce").dropna()
        value = pd.to_numeric(own.get(name), errors="coerce")
        rows.append(
            {
                "region": heading,
                "scan": "n/a" if pd.isna(value) else f"{value:.3f}",
                "mean": f"{values.mean():.3f}" if len(values) else "n/a",
                "sd": f"{values.std():.3f}" if len(values) > 1 else "n/a",
                "n": str(len(values)),
            }
        )
    return rows


@lru_cache(maxsize=16)
def _picture(path: Path, changed: int, tracer: str, reference: str, scale: tuple[float, float]) -> str:
    """Return mean SUVR of all controls on the average cortex, as a data URI; empty without values."""
    import pandas as pd

    table = _cohort(path, changed)
    if table is None:
        return ""
    same = table[table["control"] & (table["tracer"] == tracer) & (table["reference_region"] == reference)]
    values = {}
    for region in label_table().query("kind == 'cortical'").itertuples(index=False):
        name = column_name(region.region, region.hemisphere, "cortical")
        if name in same and not pd.isna(mean := pd.to_numeric(same[name], errors="coerce").mean()):
            values[int(region.index)] = float(mean)
    if not values:
        return ""
    scans = "1 scan" if len(same) == 1 else f"{len(same)} scans"
    title = f"Controls: mean regional SUVR of {scans}, scale {scale[0]:g} to {scale[1]:g}"
    try:
        figure = cortex_figure({"": values}, title, scale, f"SUVR (reference: {reference})", UPTAKE_MAP)
    except TauPipelineError:
        return ""
    return html.figure_uri(figure)
