"""The T1w and PET scans of a participant, as the report shows them: a query over files by their BIDS names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tau_pipeline.bids.sidecars import sentences
from tau_pipeline.derivatives.index import Output, find_outputs
from tau_pipeline.derivatives.names import SCAN_ENTITIES, PetNames, scan_entities, sidecar_path
from tau_pipeline.derivatives.quality_measures import IN_REPORT
from tau_pipeline.derivatives.quality_override import Decision
from tau_pipeline.derivatives.read import window_min
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_json, read_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import voxel_volume_mm3
from tau_workflows.reports.cohort_warnings import unbeaten_sentences
from tau_workflows.reports.failures import Failure, failures_of
from tau_workflows.reports.links import anchor_of, relative_link
from tau_workflows.reports.pictures import BLEND, THUMBNAIL, VOLUMES, Figure, desc_of, embed, rank, viewer
from tau_workflows.reports.regions import (
    MISSING,
    Comparison,
    Regions,
    agreement_rows,
    comparisons,
    region_tables,
)
from tau_workflows.reports.verdicts import Verdict, verdict_of, worst_of

if TYPE_CHECKING:
    import pandas as pd

#: The outputs that a report shows: of which kind of scan, and whether by the file or by its sidecar.
_SHOWN: dict[Output, tuple[Literal["T1w", "pet"], Literal["file", "sidecar"]]] = {
    "t1w": ("T1w", "sidecar"),
    "mask": ("T1w", "file"),
    "labels": ("T1w", "sidecar"),
    "thickness": ("T1w", "file"),
    "t1w_figure": ("T1w", "file"),
    "suvr": ("pet", "sidecar"),
    "further_suvr": ("pet", "sidecar"),
    "synthetic_suvr": ("pet", "sidecar"),
    "rois": ("pet", "file"),
    "synthetic_rois": ("pet", "file"),
    "agreement": ("pet", "file"),
    "pet_figure": ("pet", "file"),
}

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


@dataclass
class Scan:
    """Outputs of one T1w or PET scan."""

    title: str
    kind: str
    anchor: str
    key: str = ""
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
    volumes: list[Path] = field(default_factory=list)
    viewer: dict[str, Any] | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    motion: list[dict[str, Any]] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)

    @property
    def quality(self) -> str:
        """Return the worst verdict of the quality checks of its maps; empty if there are none."""
        return worst_of(self.verdicts)

    def quality_for(self, regions: Regions) -> str:
        """Return the verdict on the map that a regional table was taken from; ``n/a`` if it has no quality checks."""
        for one in self.maps:
            same_source = one["synthetic"] == (regions.source == "synthetic")
            if same_source and one["sidecar"].get("ReferenceRegion") == regions.reference and "quality" in one:
                return str(one["quality"].verdict)
        return MISSING


def find_scans(
    output_dir: Path,
    label: str,
    scale: tuple[float, float] = (0.5, 2.5),
    decisions: Sequence[Decision] = (),
) -> list[Scan]:
    """Find every T1w and PET scan of a participant that has a figure, a sidecar or a table, or failed, T1w first.

    Files that cannot be read are named in ``problems`` of their scan; they never stop the report.

    Parameters
    ----------
    output_dir, label
        Root of the derivatives, and the participant, ``sub-01``.
    scale
        Ends of the color scale of SUVR.
    decisions
        Of people, about the quality of scans.
    """
    scans: dict[tuple[str, ...], Scan] = {}
    tables: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for path, output in _files(output_dir, label.removeprefix("sub-")):
        kind, entities = _SHOWN[output][0], scan_entities(path)
        key = (kind, *(entities.get(name, "") for name in SCAN_ENTITIES))
        scan = scans.setdefault(key, _new_scan(kind, entities))
        scan.files.extend(_file_links(path, output, output_dir))
        try:
            if output in ("rois", "synthetic_rois"):
                table = read_tsv(path)
                scan.regions.extend(region_tables(table, path.name, scale))
                tables.setdefault(key, []).append(table)
            else:
                _add(scan, path, output, output_dir)
        except TauPipelineError as exc:
            scan.problems.append(str(exc))
    for failure in failures_of(output_dir, label.removeprefix("sub-")):
        key = (failure.kind, *(failure.entities.get(name, "") for name in SCAN_ENTITIES))
        scans.setdefault(key, _new_scan(failure.kind, failure.entities)).failure = failure
    for key, scan in scans.items():
        if scan.kind == "T1w" and [desc_of(Path(one.name)) for one in scan.figures] == ["halfway"]:
            scan.title = "T1w, all visits"
        scan.comparisons = comparisons(tables.get(key, []))
        if is_synthetic(scan):
            scan.title = f"Synthetic {scan.title}"
        scan.maps.sort(key=lambda one: (one["synthetic"], not one["first"], one["file"]))
        scan.figures.sort(key=lambda figure: rank(figure.name))
        scan.viewer = viewer(scan.volumes, scale)
        _judge(scan, decisions)
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
    key = "_".join(f"{name}-{entities[name]}" for name in ("sub", *SCAN_ENTITIES) if name in entities)
    return Scan(title=", ".join([title, *parts]), kind=kind, anchor=anchor_of(entities, kind), key=f"{key}_{kind}")


def _add(scan: Scan, path: Path, output: Output, output_dir: Path) -> None:
    """Add the content of a file to its scan."""
    if output in ("t1w_figure", "pet_figure"):
        desc = desc_of(path)
        if desc in VOLUMES:
            scan.volumes.append(path)
        elif desc != THUMBNAIL:
            (scan.blend if desc in BLEND else scan.figures).append(embed(path, output_dir))
    elif output == "agreement":
        scan.agreement.extend(agreement_rows(read_tsv(path)))
    elif output in _MEASURED:
        heading, measure = _MEASURED[output]
        scan.facts.append((heading, measure(path)))
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


def _flags(sidecar: Mapping[str, Any]) -> list[str]:
    """Return reasons to doubt a synthetic map, in sentences."""
    found = sentences(sidecar.get("Flags"))
    if sidecar.get("ParticipantInTrainingSet") is True:
        found.insert(
            0, "The model was trained on this participant: the map does not show how well it performs on others."
        )
    found += unbeaten_sentences(sidecar)
    if isinstance(sidecar.get("Uncertainty"), str):
        found.append(f"Uncertainty: {sidecar['Uncertainty']}")
    return found


def _file_links(path: Path, output: Output, output_dir: Path) -> list[tuple[str, str]]:
    """Return names of and links to a file that the report shows, and the image that its sidecar describes."""
    if output in ("t1w_figure", "pet_figure"):
        return []
    image = path.with_name(path.name.removesuffix(".json") + ".nii.gz") if path.suffix == ".json" else path
    files = [image, sidecar_path(path)] if path.suffix == ".json" else [path]
    if output == "suvr":
        files.append(PetNames(output_dir, scan_entities(path)).to_t1w)
    return [(one.name, relative_link(one, output_dir)) for one in files if one.is_file()]


def _judge(scan: Scan, decisions: Sequence[Decision]) -> None:
    """Fill in the quality of each measured map, and the motion of the frames."""
    for one in scan.maps:
        stem = scan.key.removesuffix("_pet")
        found = verdict_of(one["sidecar"], decisions, f"{stem}_desc-synthSUVR" if one["synthetic"] else stem)
        if found is not None:
            scan.verdicts.append(found)
            one["quality"] = found
        if one["first"] and not one["synthetic"]:
            scan.motion = motion_bars(one["sidecar"])


def motion_bars(sidecar: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the motion of each frame of a dynamic scan for the plot: frame, mm, and height in percent of the largest.

    The axis is at least 3 mm high, so that small motion looks small. A frame whose motion is no number has no height.
    """
    stated, frames = sidecar.get("FrameMotion"), sidecar.get("FrameIndices")
    if not isinstance(stated, list) or len(stated) < 2:
        return []
    moved = [float(mm) if isinstance(mm, int | float) and not isinstance(mm, bool) else None for mm in stated]
    top = max(3.0, *(mm for mm in moved if mm is not None), 0.0)
    names = frames if isinstance(frames, list) and len(frames) == len(moved) else range(len(moved))
    return [
        {"frame": name, "mm": MISSING if mm is None else f"{mm:.2f}", "height": 0.0 if mm is None else 100 * mm / top}
        for name, mm in zip(names, moved, strict=True)
    ]


def is_synthetic(scan: Scan) -> bool:
    """Return whether all outputs of a PET scan were made by a model."""
    of_regions = [found.source == "synthetic" for found in scan.regions]
    of_maps = [bool(one["synthetic"]) for one in scan.maps]
    return bool(of_regions + of_maps) and all(of_regions + of_maps)


def _mask_volume(path: Path) -> str:
    mask = load_volume(path, ndim=3)
    return f"{float((mask.get_fdata(dtype='float32') > 0).sum() * voxel_volume_mm3(mask) / 1000):.0f} mL"


def _mean_thickness(path: Path) -> str:
    table = read_tsv(path)
    of_all = table[(table["region"] == "cortex") & (table["hemisphere"] == "both")]
    known = of_all["thickness_mean"].dropna()
    return f"{float(known.iloc[0]):.2f} mm" if len(known) else MISSING


#: Outputs of which the report shows one measure: heading, and what measures it.
_MEASURED: dict[str, tuple[str, Callable[[Path], str]]] = {
    "mask": ("Volume of the brain mask", _mask_volume),
    "thickness": ("Mean thickness of the cortex", _mean_thickness),
}


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
    window = window_min(sidecar)
    return f"{window[0]:g} to {window[1]:g} min" if window else ""


def _text(value: Any) -> str:
    """Format a JSON value as a short text: numbers with four digits, lists and objects separated by commas."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(one)}" for name, one in value.items())
    if isinstance(value, bool) or not isinstance(value, float | int | list):
        return str(value)
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
