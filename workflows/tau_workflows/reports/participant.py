"""One self-contained HTML report per participant.

The report is a query over files: figures, sidecars, tables and error records are found by their BIDS names under the
output folder, so that it can be written again at any time without computing anything. Images are embedded; the report
needs no network and no other file. The same files give the same report.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tau_pipeline.bids.sidecars import sentences
from tau_pipeline.derivatives.index import Output, find_outputs
from tau_pipeline.derivatives.names import SCAN_ENTITIES, report_path, scan_entities
from tau_pipeline.derivatives.quality_measures import IN_REPORT
from tau_pipeline.errors import MissingInputError, TauPipelineError
from tau_pipeline.files import name_parts, read_json, read_tsv, write_text
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import voxel_volume_mm3
from tau_workflows.reports import html
from tau_workflows.reports.failures import Failure, failures_of
from tau_workflows.reports.methods import found, methods_text
from tau_workflows.reports.quality import boxes
from tau_workflows.reports.regions import (
    AGREEMENT,
    COMPOSITES,
    MISSING,
    Comparison,
    Regions,
    agreement_rows,
    comparisons,
    region_tables,
)

if TYPE_CHECKING:
    import pandas as pd

#: The outputs that a report shows: of which kind of scan, and whether by the file or by its sidecar.
_SHOWN: dict[Output, tuple[Literal["T1w", "pet"], Literal["file", "sidecar"]]] = {
    "t1w": ("T1w", "sidecar"),
    "mask": ("T1w", "file"),
    "labels": ("T1w", "sidecar"),
    "t1w_figure": ("T1w", "file"),
    "suvr": ("pet", "sidecar"),
    "further_suvr": ("pet", "sidecar"),
    "synthetic_suvr": ("pet", "sidecar"),
    "rois": ("pet", "file"),
    "synthetic_rois": ("pet", "file"),
    "agreement": ("pet", "file"),
    "pet_figure": ("pet", "file"),
}

#: Figures in the order of the report, by the start of their ``desc``: heading, and what to look at.
_FIGURES = {
    "brainMask": (
        "Brain mask",
        "The outline should follow the brain, without skull inside or cortex or cerebellum outside.",
    ),
    "parcellation": ("Parcellation", "Borders should follow the folds; left and right should mirror each other."),
    "coregistration": (
        "PET on T1w",
        "Ventricles, brainstem, and the outline of the brain in the PET should match the edges of the T1w.",
    ),
    "suvr": ("SUVR", "One fixed scale for all participants."),
    "synthSUVR": (
        "Synthetic SUVR",
        "Predicted from the T1w by a model, not measured. Same slices and scale as measured SUVR, if available.",
    ),
    "headers": (
        "PET and T1w as the headers place them",
        "The raw images, before any registration. If they show different heads, or lie far apart, check the files.",
    ),
    "reference": (
        "Reference region",
        "The region should not touch neighboring regions or tissue outside the brain.",
    ),
}
#: The two figures that the slider blends.
_BLEND = ("blendT1w", "blendPET")

#: Fields of the SUVR sidecar that the report shows as numbers: heading and unit.
QUALITY = {
    "TracerName": ("Tracer", ""),
    "TracerRadionuclide": ("Radionuclide", ""),
    "Manufacturer": ("Manufacturer", ""),
    "ManufacturersModelName": ("Scanner", ""),
    "FrameIndices": ("Frames used, counted from 0", ""),
    "ReferenceRegion": ("Reference region", ""),
    **{one.key: (one.report_heading, one.report_unit) for one in IN_REPORT},
    "Labels": ("Labels", ""),
    "SettingsHash": ("Settings (hash)", ""),
}

#: Fields of a synthetic map's sidecar that are shown as well.
_SYNTHETIC = {
    "TrainingSplit": ("Part of the model's data that the participant was in", ""),
    "ModelHash": ("Model (hash)", ""),
    "EnsembleMembers": ("Predictions averaged", ""),
}


@dataclass(frozen=True)
class Figure:
    """An embedded picture: ``source`` is a data URI, or None with a ``problem``."""

    title: str
    hint: str
    name: str
    source: str | None
    problem: str = ""


@dataclass
class Scan:
    """Outputs of one T1w or PET scan."""

    title: str
    kind: str
    anchor: str
    figures: list[Figure] = field(default_factory=list)
    blend: list[Figure] = field(default_factory=list)
    maps: list[dict[str, Any]] = field(default_factory=list)
    regions: list[Regions] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    agreement: list[dict[str, str]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failure: Failure | None = None


def write_participant_report(output_dir: Path, participant: str) -> Path:
    """Write ``OUTPUT_DIR/sub-XX.html`` from what lies under the output folder; returns its path.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    participant
        Label, with or without ``sub-``.

    Raises
    ------
    MissingInputError
        There is neither a folder nor an error record of that participant.
    OutputError
        The report cannot be written.
    """
    output_dir = Path(output_dir)
    label = "sub-" + participant.removeprefix("sub-")
    errors = own_error_records(output_dir, label)
    if not (output_dir / label).is_dir() and not errors:
        raise MissingInputError(
            f"{output_dir} contains neither a folder {label} nor an error record; run the participant level first"
        )
    scans = find_scans(output_dir, label)
    failed = [scan for scan in scans if scan.failure]
    shown_elsewhere = {f"{scan.failure.scan}.json" for scan in failed if scan.failure}
    report = html.template("participant.html.jinja").render(
        label=label,
        t1ws=[scan for scan in scans if scan.kind == "T1w"],
        pets=[scan for scan in scans if scan.kind == "pet"],
        failed=failed,
        quality=boxes([scan for scan in scans if scan.kind == "pet"], output_dir),
        errors=[record for record in errors if record["file"] not in shown_elsewhere],
        records={Path(record["file"]).stem: record["details"] for record in errors},
        methods=_methods(output_dir, label),
        software=_software(scans),
        composite_names=COMPOSITES,
        agreement_columns={name: heading for name, (heading, _) in AGREEMENT.items()},
        side_by_side=side_by_side,
        missing=MISSING,
    )
    return write_text(report, report_path(output_dir, label.removeprefix("sub-")))


def _methods(output_dir: Path, label: str) -> list[tuple[str, list[str]]]:
    """Return the steps that ran for this participant; without sidecars, the steps that the run had planned."""
    facts = found(output_dir, label.removeprefix("sub-"))
    return html.blocks_of(methods_text(facts)) if facts else html.methods(output_dir)


def find_scans(output_dir: Path, label: str) -> list[Scan]:
    """Find every T1w and PET scan of a participant that has a figure, a sidecar or a table, or failed, T1w first.

    Files that cannot be read are named in ``problems`` of their scan; they never stop the report.
    """
    scans: dict[tuple[str, ...], Scan] = {}
    tables: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for path, output in _files(output_dir, label.removeprefix("sub-")):
        kind, entities = _SHOWN[output][0], scan_entities(path)
        key = (kind, *(entities.get(name, "") for name in SCAN_ENTITIES))
        scan = scans.setdefault(key, _new_scan(kind, entities))
        try:
            if output in ("rois", "synthetic_rois"):
                table = read_tsv(path)
                scan.regions.extend(region_tables(table, path.name))
                tables.setdefault(key, []).append(table)
            else:
                _add(scan, path, output)
        except TauPipelineError as exc:
            scan.problems.append(str(exc))
    for failure in failures_of(output_dir, label.removeprefix("sub-")):
        key = (failure.kind, *(failure.entities.get(name, "") for name in SCAN_ENTITIES))
        scans.setdefault(key, _new_scan(failure.kind, failure.entities)).failure = failure
    for key, scan in scans.items():
        scan.comparisons = comparisons(tables.get(key, []))
        if _is_synthetic(scan):
            scan.title = f"Synthetic {scan.title}"
        scan.maps.sort(key=lambda one: (one["synthetic"], not one["first"], one["file"]))
        scan.figures.sort(key=lambda figure: _rank(figure.name))
        scan.assumptions = list(dict.fromkeys(scan.assumptions))
    return [scans[key] for key in sorted(scans, key=lambda key: (key[0] != "T1w", key))]


def _files(output_dir: Path, participant: str) -> list[tuple[Path, Output]]:
    """Return the files that the report of a participant shows, sorted, and which outputs they are."""
    return sorted(
        (path, output)
        for output, (_, shown) in _SHOWN.items()
        for path in find_outputs(output_dir, output, participant, sidecars=shown == "sidecar")
    )


def _new_scan(kind: str, entities: Mapping[str, str]) -> Scan:
    words = {"ses": "session", "trc": "tracer", "rec": "reconstruction", "acq": "acquisition"}
    parts = [f"{words.get(name, name)} {entities[name]}" for name in SCAN_ENTITIES if name in entities]
    title = "PET" if kind == "pet" else "T1w"
    anchor = "-".join([kind, *(entities[name] for name in SCAN_ENTITIES if name in entities)])
    return Scan(title=", ".join([title, *parts]), kind=kind, anchor=re.sub(r"[^A-Za-z0-9-]", "", anchor))


def _add(scan: Scan, path: Path, output: Output) -> None:
    """Add the content of a file to its scan."""
    if output in ("t1w_figure", "pet_figure"):
        desc = _desc(path)
        (scan.blend if desc in _BLEND else scan.figures).append(embed(path, desc))
    elif output == "agreement":
        scan.agreement.extend(agreement_rows(read_tsv(path)))
    elif output == "mask":
        scan.facts.append(("Volume of the brain mask", f"{_mask_volume_ml(path):.0f} mL"))
    else:
        sidecar = read_json(path)
        scan.assumptions.extend(sentences(sidecar.get("Assumptions")))
        if _SHOWN[output][0] == "pet":
            scan.flags.extend(_flags(sidecar))
            which = {"file": path.name, "synthetic": output == "synthetic_suvr", "first": output == "suvr"}
            about = {"facts": _quality(sidecar), "description": _text(sidecar.get("Description", ""))}
            scan.maps.append({**which, **about, "sidecar": sidecar})
        elif output == "labels" and "Labels" in sidecar:
            scan.facts.append(("Labels", _text(sidecar["Labels"])))


def _desc(path: Path) -> str:
    return name_parts(path)[0].get("desc", "")


def _flags(sidecar: Mapping[str, Any]) -> list[str]:
    """Return reasons to doubt a synthetic map, in sentences."""
    found = sentences(sidecar.get("Flags"))
    if sidecar.get("ParticipantInTrainingSet") is True:
        found.insert(
            0, "The model was trained on this participant: the map does not show how well it performs on others."
        )
    if isinstance(sidecar.get("Uncertainty"), str):
        found.append(f"Uncertainty: {sidecar['Uncertainty']}")
    return found


def _is_synthetic(scan: Scan) -> bool:
    """Return whether all outputs of a PET scan were made by a model."""
    of_regions = [found.source == "synthetic" for found in scan.regions]
    of_maps = [bool(one["synthetic"]) for one in scan.maps]
    return bool(of_regions + of_maps) and all(of_regions + of_maps)


def embed(path: Path, desc: str) -> Figure:
    """Return a PNG figure as JPEG in a data URI: a third of the size, full color resolution keeps thin lines sharp."""
    from PIL import Image

    start = next((start for start in _FIGURES if desc.startswith(start)), "")
    title, hint = _FIGURES.get(start, (desc, ""))
    rest = desc.removeprefix(start)
    title = f"{title}: {rest}" if start and rest else title
    try:
        with Image.open(path) as picture, io.BytesIO() as jpeg:
            picture.convert("RGB").save(jpeg, "JPEG", quality=88, subsampling=0, optimize=True)
            content = base64.b64encode(jpeg.getvalue()).decode("ascii")
    except OSError as exc:
        return Figure(title, hint, path.name, None, f"{path.name} cannot be read as an image ({exc})")
    return Figure(title, hint, path.name, f"data:image/jpeg;base64,{content}")


def _rank(name: str) -> tuple[int, str]:
    desc = _desc(Path(name))
    order = [k for k, start in enumerate(_FIGURES) if desc.startswith(start)]
    return (order[0] if order else len(_FIGURES), name)


def _mask_volume_ml(path: Path) -> float:
    mask = load_volume(path, ndim=3)
    return float((mask.get_fdata(dtype="float32") > 0).sum() * voxel_volume_mm3(mask) / 1000)


def _quality(sidecar: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the window in minutes, and the fields of `QUALITY` in the sidecar, as text with units."""
    facts = [("Window after injection", window)] if (window := _window(sidecar)) else []
    for name, (heading, unit) in {**QUALITY, **_SYNTHETIC}.items():
        value = sidecar.get(name)
        if value == MISSING:
            facts.append((heading, MISSING))
        elif value not in (None, "", []):
            facts.append((heading, f"{_text(value)}\N{NO-BREAK SPACE}{unit}" if unit else _text(value)))
    return facts


def side_by_side(maps: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return facts of several maps in one table: a heading, and one value if all maps share it, else one per map."""
    by_map = [dict(one["facts"]) for one in maps]
    order = ["Window after injection", *(heading for heading, _ in (*QUALITY.values(), *_SYNTHETIC.values()))]
    rows = []
    for heading in (name for name in order if any(name in facts for facts in by_map)):
        values = [facts.get(heading, "") for facts in by_map]
        rows.append((heading, values[:1] if len(set(values)) == 1 else values))
    return rows


def _window(sidecar: Mapping[str, Any]) -> str:
    """Return the time window of the map: ``80 to 100 min``; empty if the sidecar has no numbers for it."""
    starts, durations = sidecar.get("FrameTimesStart"), sidecar.get("FrameDuration")
    try:
        return f"{min(starts) / 60:g} to {(max(starts) + durations[-1]) / 60:g} min"  # type: ignore[arg-type, index]
    except (TypeError, ValueError, IndexError):
        return ""


def _text(value: Any) -> str:
    """Format a JSON value as a short text: numbers with four digits, lists and objects separated by commas."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(one)}" for name, one in value.items())
    if isinstance(value, bool) or not isinstance(value, float | int | list):
        return str(value)
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def own_error_records(output_dir: Path, label: str) -> list[dict[str, str]]:
    """Return the error records of a participant: those whose name holds the whole label (``sub-1``, not ``sub-10``)."""
    own = re.compile(rf"(?<![A-Za-z0-9]){re.escape(label)}(?![A-Za-z0-9])")
    return [record for record in html.error_records(output_dir) if own.search(record["file"])]


def _software(scans: Iterable[Scan]) -> list[str]:
    """Name and version of what wrote the sidecars; more than one if they are from several runs."""
    named = [one["sidecar"] for scan in scans for one in scan.maps if "SoftwareName" in one["sidecar"]]
    return sorted({f"{sidecar['SoftwareName']} {sidecar.get('SoftwareVersion', '')}".strip() for sidecar in named})
