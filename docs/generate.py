"""Write the pages that are made from the code: the reference, and the graph in workflows/README.md.

``make docs`` runs this before it builds the site. ``tests/test_reference_pages.py`` compares the files with what comes
out here, so that they cannot grow old.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import graph as graphs  # noqa: E402

from tau_pipeline import atlas, errors  # noqa: E402
from tau_pipeline.bids import tracers  # noqa: E402
from tau_pipeline.bids.off_target import off_target  # noqa: E402
from tau_pipeline.cohort import centaur, change, positivity  # noqa: E402
from tau_pipeline.cohort import columns as group_columns  # noqa: E402
from tau_pipeline.cohort import tables as group  # noqa: E402
from tau_pipeline.cohort.bilateral import BILATERAL_COLUMNS  # noqa: E402
from tau_pipeline.cohort.visits import YEARS_COLUMN  # noqa: E402
from tau_pipeline.derivatives import columns  # noqa: E402
from tau_pipeline.derivatives.columns import PVC_COLUMNS, UNCERTAINTY_COLUMNS  # noqa: E402
from tau_pipeline.derivatives.quality_checks import CHECKS  # noqa: E402
from tau_pipeline.derivatives.quality_measures import MEASURES  # noqa: E402
from tau_pipeline.derivatives.sidecars import (  # noqa: E402
    RECONSTRUCTION,
    SuvrSidecar,
    SyntheticSidecar,
    image_sidecar,
    space_fields,
)
from tau_pipeline.measures.quality import map_quality  # noqa: E402
from tau_pipeline.pet import frames, resolution  # noqa: E402
from tau_pipeline.pet.reference_region import REGIONS  # noqa: E402
from tau_pipeline.pvc.correct import PVC_KEYS  # noqa: E402
from tau_pipeline.settings.configuration import SECTIONS, FieldDoc, documentation  # noqa: E402
from tau_pipeline.settings.spaces import parse_space  # noqa: E402
from tau_pipeline.surface import thickness  # noqa: E402
from tau_workflows import cli, simulate_cli  # noqa: E402
from tau_workflows.levels import call  # noqa: E402

ROOT = DOCS.parent
NOTE = "<!-- Made by docs/generate.py from the code: change it there, then run make docs. -->\n"
BEGIN, END = "<!-- begin of what docs/generate.py makes -->\n", "<!-- end of what docs/generate.py makes -->\n"

#: What the names are that scripts may rely on, by module.
PYTHON_NAMES: dict[str, tuple[str, ...]] = {
    "tau_pipeline.pet": ("suvr",),
    "tau_pipeline.standardize": ("fit_standardization", "Standardization"),
    "tau_pipeline.synthesis.schedule": ("plane_at",),
    "tau_pipeline.synthesis.losses": ("load_vgg16_features", "PlanePerceptualLoss", "CyclicPerceptualLoss"),
    "tau_pipeline.synthesis.networks": ("build_network",),
    "tau_workflows.subject": ("init_subject_wf",),
}
#: Methods of these classes that are part of the promise.
METHODS: dict[str, tuple[str, ...]] = {"Standardization": ("apply", "invert", "save", "load")}

#: Every key of a sidecar that this program writes, and what it means.
SIDECAR_KEYS: dict[str, str] = {
    "Assumptions": "Sentences: every value that was missing from the input and had to be assumed.",
    "BeatsBaselines": "Whether the models of a synthetic map predict held-out participants better than all "
    "[baselines](../explanation/synthesis.md#baselines), in every measure; `n/a` if a measure is not "
    "defined, such as a correlation over two participants, or if the model card does not say.",
    "Background": "Value outside the brain mask.",
    "Description": "Description of the map.",
    "ExtentThreshold": "SUVR above which a voxel counts for the column suvr_extent, from the setting extent_suvr.",
    "EnsembleMembers": "Number of predictions that were averaged.",
    "Flags": "Sentences: how the T1w differs from the training data of the model.",
    "FrameDuration": "Duration of the map, s: from the start of the first frame used to the end of the last.",
    "FrameIndices": "Frames of the raw PET that were used, counted from 0.",
    "FrameTimesStart": "Start of the map, s after injection.",
    "InjectionStart": "0: times are relative to the injection.",
    "Labels": "Software that made the parcellation.",
    "MadeBy": "Software that made the mask or the parcellation.",
    "Manual": "false: no labels were drawn by hand.",
    "Manufacturer": "Manufacturer of the PET scanner, from the raw sidecar; for synthetic SUVR, the manufacturer "
    "whose scale it has.",
    "ManufacturersModelName": "Model of the PET scanner.",
    "ModelHash": "Combined hash of the models.",
    "Models": "Models that predicted a synthetic map: folder, model card, hash, network; without those that were "
    "trained on this participant, if there are others.",
    "OutsideBrain": "Value outside the brain mask.",
    "PVCExtracerebralRegions": "Hot spots around the brain that are regions of their own (`--pvc-extracerebral`): "
    "volume in mm³, and SUVR by the first method.",
    "PVCMergedRegions": "Regions that are too small to be corrected on their own, and the regions they were "
    "merged with.",
    "PVCMethods": "Methods of partial volume correction; the first fills `suvr_pvc_mean` and `suvr_pvc_se`.",
    "PVCPointSpreadFWHM": "Point spread that was corrected for: FWHM along the axes of the PET, in mm.",
    "PVCPointSpreadSource": "Where the point spread comes from.",
    "PVCReferenceValue": "Corrected mean activity of the reference region, in the unit of the PET, by method.",
    "ParticipantInTrainingSet": "Whether one of the models was trained with this participant.",
    "ReconMethodName": "Method of the reconstruction of the PET, as in its sidecar; only if stated there.",
    "ReconMethodParameterValues": "Parameters of the reconstruction, as in the sidecar of the PET.",
    "ReconFilterType": "Filter of the reconstruction, as in the sidecar of the PET.",
    "ReconFilterSize": "Width of that filter, in mm, as in the sidecar of the PET.",
    "ReferenceRegion": "Reference region (mean SUVR of 1).",
    "ReferenceRegionDescription": "Description of the reference region and its limits on spill-in.",
    "ReferenceRegionIndices": "FreeSurfer label numbers of the reference region.",
    "Resolution": "Voxels of an image in a standard space.",
    "SettingsHash": "Hash (twelve digits) of all settings that affect results.",
    "SkullStripped": "Whether the image is skull-stripped.",
    "SoftwareName": "Name of the software: tau-pipeline.",
    "SoftwareVersion": "Version of the software.",
    "Sources": "BIDS URIs of the direct inputs.",
    "SpatialReference": "BIDS URI of the T1w that defines the grid of the map; the address of the template's image for "
    "a map in a standard space.",
    "StandardizationHash": "Hash of the standardization.",
    "StandardizationMean": "Mean SUVR that was subtracted.",
    "StandardizationParticipants": "Number of participants that the standardization was fitted on.",
    "StandardizationStandardDeviation": "Standard deviation of SUVR that the map was divided by.",
    "Synthetic": "true: predicted from the T1w by a model; not a measurement.",
    "TracerName": "Tracer, from the raw sidecar or the file name.",
    "TracerRadionuclide": "Radionuclide of the tracer.",
    "TrainingSplit": "Data split this participant belonged to when the models were trained; `none` if not in the "
    "training data.",
    "Type": "Kind of mask: Brain, or ROI for a reference region.",
    "Uncertainty": "Calibration of the standard deviation, or the reason why there is none.",
    "Baselines": "Metrics of each model and of its baselines on held-out participants, on the grid of the T1w, and "
    "the measures in which the model does not beat them.",
    "Units": "unitless for SUVR, arbitrary for standardized SUVR.",
    **{one.key: one.key_description or one.description for one in reversed(CHECKS)},
    **{one.key: one.key_description for one in reversed(MEASURES)},
    "Quality": "Worst verdict of `QualityChecks`.",
    "QualityChecks": "[Quality checks](quality-checks.md): name, value, limits, verdict, source of the limits, what to "
    "do, and the decision of a person if there is one.",
}


# --- Markdown -----------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; line breaks and bars in cells are escaped."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(re.sub(r"\s+", " ", str(cell)).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)]) + "\n"


def code(text: object) -> str:
    """Return text as code; an empty text stays empty."""
    return f"`{text}`" if str(text) else ""


def _default(doc: FieldDoc) -> str:
    if doc.default is None or doc.default == ():
        return ""
    if isinstance(doc.default, bool):
        return code(str(doc.default).lower())
    return code(" ".join(map(str, doc.default)) if isinstance(doc.default, tuple) else _number(doc.default))


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _values(doc: FieldDoc) -> str:
    """Describe the values that a setting accepts."""
    if doc.choices:
        return ", ".join(map(code, doc.choices))
    one = {int: "whole number", float: "number", str: "text", bool: "true, false", Path: "path"}[doc.kind]
    return f"two {one}s" if doc.pair else f"{one}s" if doc.many else one


def _meaning(doc: FieldDoc) -> str:
    source = f" ({doc.source})" if doc.source else ""
    return f"{doc.help}{source}"


# --- pages --------------------------------------------------------------------------------------------------------


def command_line() -> str:
    """Describe every option of the programs, and the exit codes."""
    parts = [
        "# Command line\n",
        NOTE,
        "```text\ntau-pipeline BIDS_DIR OUTPUT_DIR {" + ",".join(cli.LEVELS) + "} [options]\n```\n",
        table(["level", "description"], [(code(name), about) for name, about in cli.LEVELS.items()]),
        "Hyphens and underscores in option names are equivalent. Options on the command line override those in the "
        "file given with `--config-file` (see [Settings](settings.md)).\n",
        table(
            ["option", "meaning"],
            [
                (", ".join(map(code, action.option_strings)), action.help or "")
                for action in cli.build_parser()._actions
                if action.option_strings and action.dest not in {doc.name for doc in documentation()}
            ],
        ),
    ]
    for section, cls in SECTIONS.items():
        docs = [doc for doc in documentation() if doc.section == section]
        parts += [
            f"## {section}\n",
            _first_sentence(cls) + "\n",
            table(
                ["option", "values", "default", "meaning"],
                [(_flags(doc), "" if doc.kind is bool else _values(doc), _default(doc), doc.help) for doc in docs],
            ),
        ]
    parts += ["## Exit codes\n", table(["code", "meaning"], _exit_codes())]
    parts += ["## tau-simulate\n", "```text\ntau-simulate OUTPUT_DIR [options]\n```\n"]
    about = simulate_cli.parser().description or ""
    rows = [
        (", ".join(map(code, action.option_strings or [action.metavar])), (action.help or "").replace("%%", "%"))
        for action in simulate_cli.parser()._actions
    ]
    return "\n".join([*parts, about + "\n", table(["option", "meaning"], rows)])


def _flags(doc: FieldDoc) -> str:
    """Return the spellings on the command line; a flag that is on by default has a second one that turns it off."""
    off = ["--no-" + doc.flags[0].removeprefix("--")] if doc.kind is bool and doc.default else []
    return ", ".join(map(code, [*doc.flags, *off]))


def _exit_codes() -> list[tuple[str, str]]:
    """Read the exit codes from the module's docstring, which explains the constants."""
    text = re.sub(r"\s+", " ", cli.__doc__ or "").split("Exit codes: ", 1)[1].strip(" .")
    found = [tuple(part.strip().split(" ", 1)) for part in text.split(";")]
    codes = (call.DONE, call.SOME_FAILED, call.WRONG_CALL, call.NOTHING_TO_DO, call.INTERRUPTED, call.TERMINATED)
    known = {str(value) for value in codes}
    if {number for number, _ in found} != known:
        raise ValueError(f"the docstring of tau_workflows.cli names exit codes {found}, and there are {sorted(known)}")
    return [(code(number), meaning) for number, meaning in found]


def settings() -> str:
    """Describe every setting, by section, as written in a TOML file."""
    parts = [
        "# Settings\n",
        NOTE,
        "The file given with `--config-file` may contain these sections and names. All others have their default "
        "values. `[settings]` affects results, and its hash is saved in every sidecar; `[execution]` does not affect "
        "results.\n",
        '```toml\n[settings]\nref_region = ["InferiorCerebellarGM"]\nsuvr_window = [80, 100]\n\n[execution]\n'
        "nprocs = 4\n```\n",
    ]
    for section in SECTIONS:
        rows = [
            (code(doc.name), _values(doc), _default(doc), doc.range, doc.unit, _meaning(doc))
            for doc in documentation()
            if doc.section == section
        ]
        parts += [f"## [{section}]\n", table(["name", "values", "default", "range", "unit", "meaning"], rows)]
    return "\n".join(parts)


def _columns(described: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, about in described.items():
        levels = "; ".join(f"`{level}`: {text}" for level, text in about.get("Levels", {}).items())
        rows.append((code(name), about.get("Units", ""), " ".join(filter(None, (about["Description"], levels)))))
    return table(["column", "unit", "meaning"], rows)


def tables() -> str:
    """Describe the columns of the tables of a scan and of the cohort."""
    import pandas as pd

    def described(name: str, columns: Iterable[str]) -> dict[str, Any]:
        return group_columns.dictionary(name, pd.DataFrame(columns=list(columns)))

    composites = ", ".join(map(code, atlas.composites()))
    return "\n".join(
        [
            "# Tables\n",
            NOTE,
            "TSV files are tab-separated with `n/a` for missing values. CSV files of the group level are "
            "comma-separated with empty cells for missing values. All are UTF-8. Each TSV file has a JSON data "
            "dictionary with the descriptions on this page.\n",
            "## `sub-…/pet/*_desc-suvr_rois.tsv`\n",
            "One row per region and reference region: 68 cortical and 18 subcortical regions, the reference region, "
            f"and the composite regions {composites} (left, right, and both). Regions without voxels are kept as rows. "
            "See [Regions](regions.md).\n",
            _columns(columns.column_descriptions()),
            "These columns follow, the second with `--extent-suvr` only:\n",
            _columns(columns.STATISTICS_COLUMNS),
            "Tables of synthetic scans, `*_desc-synthSUVR_rois.tsv`, have three additional columns:\n",
            _columns(UNCERTAINTY_COLUMNS),
            "With partial volume correction (`--pvc`), tables have two additional columns for each method:\n",
            _columns(PVC_COLUMNS),
            "## `sub-…/anat/*_desc-thickness_rois.tsv`\n",
            "With `--surfaces`: the thickness of the cortex, one row per region and composite.\n",
            _columns(thickness.COLUMNS),
            "## `group/suvr_rois.tsv`, `group/suvr_rois.csv`\n",
            "The concatenated tables of all scans, with `suvr_z`, and with these columns:\n",
            _columns({name: about for name, about in group_columns.PERSON_COLUMNS.items() if name != "manufacturer"}),
            "If there are synthetic scans, the three columns of their uncertainty are included, with `n/a` for "
            "measured scans; the same holds for the columns of partial volume correction. The last column is for "
            "models of change:\n",
            _columns({"years_from_first": YEARS_COLUMN}),
            "## `group/suvr_rois_wide.csv`\n",
            "One row per scan and reference region: the columns "
            + ", ".join(map(code, group.WIDE_KEYS))
            + ", then the mean SUVR of each region (`ctx_lh_entorhinal`, `Left_Hippocampus`, `metatemporal`, "
            "`metatemporal_left`, …), then the same standardized by manufacturer, with the suffix `_standardized`, "
            "and corrected for partial volume effects, with the suffixes `_pvc_mean` and `_pvc_se`. "
            "`suvr_rois_combat_wide.csv` (`--harmonize combat`) has the same columns without `_standardized`. "
            "With `--reference-group`, there are z-scores against that group, with the suffix `_zscore`; with "
            "`--w-scores`, W-scores, with the suffix `_wscore`; with `--threshold`, the columns "
            + ", ".join(map(code, group_columns.ANSWER_COLUMNS))
            + " (see [Tau positivity](../how-to/tau-positivity.md)).\n",
            "## `group/thresholds.tsv`, `group/thresholds.csv`\n",
            "Written with `--threshold`: one row per region, tracer, and reference region.\n",
            _columns(positivity.THRESHOLD_COLUMNS),
            "## `group/change.tsv`, `group/change.csv`\n",
            "Written if a participant has several visits: one row per region and later visit.\n",
            _columns(change.CHANGE_COLUMNS),
            "## `group/thickness_rois.tsv`, `group/thickness_rois.csv`\n",
            "Written if a T1w has surfaces: the concatenated tables of thickness, whether PET scans are included or "
            "not, with `age`, `sex`, and `diagnosis`.\n",
            "## `group/centaur.tsv`, `group/centaur.csv`\n",
            "Written with `--centaur-masks`: one row per measured scan.\n",
            _columns(centaur.centaur_columns()),
            "## `group/UCBERKELEY_TAU_6MM.csv`, `group/UCBERKELEY_TAUPVC_6MM.csv`\n",
            "Written with `--columns adni`: one row per measured scan, with the columns of ADNI's tables. See "
            "[Make an ADNI table](../how-to/make-an-adni-table.md).\n",
            "## `group/suvr_bilateral.tsv`, `group/suvr_bilateral.csv`\n",
            "One row per scan, reference region, and structure with two sides.\n",
            _columns(described("suvr_bilateral", BILATERAL_COLUMNS)),
            "## `group/status.tsv`\n",
            "One row per requested scan, with its processing status.\n",
            _columns(described("status", group.STATUS_COLUMNS)),
            "## `group/standardization.tsv`\n",
            "One row per tracer, reference region, and manufacturer.\n",
            _columns(group_columns.STANDARDIZATION_COLUMNS),
        ]
    )


def sidecar_keys() -> dict[str, list[str]]:
    """Return the keys of each kind of sidecar, as the code writes them."""
    import numpy as np

    from tau_pipeline.cohort import maps as standard_maps

    nothing: dict[str, Any] = {"sources": (), "reference_image": "", "settings_hash": "", "reference_region": ""}
    measured = SuvrSidecar(
        **nothing,
        reference_region_indices=(),
        reference_region_volume_mm3=0.0,
        reference_value=0.0,
        frame_start_s=0.0,
        frame_duration_s=0.0,
        frame_indices=(),
        **dict.fromkeys(
            ("tracer", "radionuclide", "manufacturer", "model", "smoothing_fwhm_mm", "effective_fwhm_mm"), None
        ),
        registration_metric=None,
        labels="",
    ).content()
    one = np.ones((1, 1, 1))
    quality = map_quality(one, one, one.astype(np.int16), one, 1.0)
    synthetic = SyntheticSidecar(
        **nothing,
        tracer=None,
        manufacturer=None,
        models=(),
        model_hash="",
        training_split="none",
        members=1,
        flags=(),
        uncertainty="",
    ).content("")
    every = image_sidecar((), "", skull_stripped=False)
    judged = {"Quality", "QualityChecks"}
    standard = set(re.findall(r'^\s+"([A-Z]\w+)":', inspect.getsource(standard_maps._plan), re.MULTILINE))
    return {
        "every image": sorted(every),
        "SUVR": sorted(
            {*measured, *quality, *judged, *_check_keys("measured"), "ExtentThreshold", "FrameMotion", *RECONSTRUCTION}
            - set(every)
        ),
        "SUVR with partial volume correction, in addition": list(PVC_KEYS),
        "synthetic SUVR": sorted({*synthetic, *quality, *judged, *_check_keys("synthetic")} - set(every)),
        "SUVR standardized by manufacturer": sorted(standard - set(every)),
        "images in standard spaces, in addition": sorted(space_fields(parse_space("MNI152NLin6Asym"))),
        "brain mask and labels": ["MadeBy", "Manual", "Type"],
        "reference region": [
            "ReferenceRegion",
            "ReferenceRegionDescription",
            "ReferenceRegionIndices",
            "ReferenceRegionVolume",
        ],
    }


def _check_keys(source: str) -> set[str]:
    return {one.key for one in CHECKS if one.applies_to == source}


def quality_checks() -> str:
    """Describe the quality checks with their limits."""
    parts = [
        "# Quality checks\n",
        NOTE,
        "Each scan is judged by these checks. Their values, limits, and verdicts are in `QualityChecks` of the sidecar "
        "of the SUVR map. The worst verdict is the quality of the scan: in `quality` of each table of regions, and "
        "with the names of the checks in `group/status.tsv`. A check whose value is not known is `n/a` and does not "
        "count. [Decide about a scan](../how-to/decide-about-a-scan.md) explains what to do.\n",
        table(
            ["check", "unit", "warn", "fail", "meaning"],
            [
                (code(one.name), one.unit.replace("1", ""), *map(_range, _limits(one)), one.description)
                for one in CHECKS
            ],
        ),
        "## Limits and what to do\n",
    ]
    for one in CHECKS:
        parts.append(f"### `{one.name}`\n\n{one.action}\n\nLimits: {one.limit_source}.\n")
    return "\n".join(parts)


def _limits(check: Any) -> tuple[tuple[float | None, float | None], tuple[float | None, float | None]]:
    return (check.warn_below, check.warn_above), (check.fail_below, check.fail_above)


def _range(limits: tuple[float | None, float | None]) -> str:
    low, high = limits
    return " or ".join(
        [*([f"below {low:g}"] if low is not None else []), *([f"above {high:g}"] if high is not None else [])]
    )


def sidecars() -> str:
    """Describe the keys of the sidecars."""
    found = sidecar_keys()
    known = {key for keys in found.values() for key in keys}
    if known != set(SIDECAR_KEYS):
        raise ValueError(f"docs/generate.py and the code differ in sidecar keys: {sorted(known ^ set(SIDECAR_KEYS))}")
    parts = [
        "# Sidecars\n",
        NOTE,
        "Every image has a JSON sidecar. Unknown values are `n/a`. `Sources` and other file references are BIDS URIs: "
        "`bids:raw:…` is the input dataset, `bids::…` the derivatives.\n",
    ]
    where = {
        "every image": "The sections below omit these keys.",
        "SUVR": "`*_space-T1w_desc-suvr_pet.json`; other reference regions have `desc-suvrPons` and so on.",
        "SUVR with partial volume correction, in addition": "With `--pvc`, in the same sidecars.",
        "synthetic SUVR": "`*_desc-synthSUVR_pet.json`, and `*_desc-synthSUVRsd_pet.json` for the standard deviation.",
        "SUVR standardized by manufacturer": "`*_desc-std_pet.json`, written by the group level. It also contains "
        "the keys of the SUVR map on tracer, scanner, and reference region.",
        "images in standard spaces, in addition": "With `--output-spaces`: `*_space-MNI152…_res-…`.",
        "brain mask and labels": "`*_desc-brain_mask.json`, `*_dseg.json`.",
        "reference region": "`*_label-…_mask.json`, in addition to `Type`.",
    }
    for name, keys in found.items():
        rows = [(code(key), SIDECAR_KEYS[key]) for key in keys]
        parts += [f"## {name[0].upper()}{name[1:]}\n", where[name] + "\n", table(["key", "meaning"], rows)]
    return "\n".join(parts)


def error_classes() -> str:
    """Describe the errors that a user can meet, and the exit codes."""
    classes = [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.TauPipelineError) and cls.__module__ == errors.__name__
    ]
    rows = [
        (code(cls.__name__), ", ".join(code(base.__name__) for base in cls.__bases__), _first_sentence(cls))
        for cls in classes
    ]
    return "\n".join(
        [
            "# Errors and exit codes\n",
            NOTE,
            "All exceptions are in `tau_pipeline.errors` and derive from `TauPipelineError` and from the closest "
            "built-in exception, so that scripts can catch either. The message states what was found, what was "
            "expected, and what to do.\n",
            table(["exception", "base classes", "meaning"], rows),
            "If the command line or the dataset as a whole is invalid, the program exits before anything is computed. "
            "Errors in a single scan are recorded in `logs/errors/`, and processing continues with the other scans.\n",
            table(["exit code", "meaning"], _exit_codes()),
        ]
    )


def python_names() -> str:
    """Describe the Python names that scripts may rely on."""
    parts = [
        "# Python API\n",
        NOTE,
        "These names are stable. All others may change without notice.\n",
    ]
    for module_name, names in PYTHON_NAMES.items():
        module = import_module(module_name)
        parts.append(f"## {module_name}\n")
        for name in names:
            thing = getattr(module, name)
            parts.append(_documented(name, thing))
            parts += [_documented(f"{name}.{method}", getattr(thing, method)) for method in METHODS.get(name, ())]
    return "\n".join(parts)


def _documented(name: str, thing: Any) -> str:
    """Return heading, signature, and docstring."""
    return f"### `{name}`\n\n```text\n{name}{_signature(thing)}\n\n{inspect.getdoc(thing) or ''}\n```\n"


def _signature(thing: Any) -> str:
    """Return the signature as in the source; a long one with one parameter per line."""
    signature = inspect.signature(thing)
    parts, keywords_only = [], False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords_only:
            parts.append("*")
            keywords_only = True
        hint = "" if parameter.annotation is parameter.empty else f": {_hint(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parts.append(f"{parameter.name}{hint}{default}")
    result = signature.return_annotation
    arrow = "" if result in (signature.empty, None, "None") else f" -> {_hint(result)}"
    line = f"({', '.join(parts)}){arrow}"
    return line if len(line) < 90 else "(\n    " + ",\n    ".join(parts) + f",\n){arrow}"


def _hint(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _first_sentence(thing: Any) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return re.sub(r"\s+", " ", (inspect.getdoc(thing) or "").split("\n\n", 1)[0]).replace("``", "`")


def regions() -> str:
    """Describe labels, composites and reference regions."""
    labels = atlas.label_table()
    rows = [
        (row["index"], code(row["region"]), row["hemisphere"], row["kind"])
        for _, row in labels.iterrows()
        if row["kind"] in ("cortical", "subcortical")
    ]
    names = dict(zip(labels["index"], labels["region"], strict=True))
    how = {"pooled": "mean over the voxels of all members", "medians": "mean of the members' medians, by volume"}
    rules = atlas.composite_rules()
    members = [
        (
            code(name),
            ", ".join(names[number].removeprefix("ctx-lh-").removeprefix("Left-") for number in sides["left"]),
            how[rules[name].rule],
            rules[name].note,
            rules[name].source,
        )
        for name, sides in atlas.composites().items()
    ]
    references = [
        (code(region.name), "+".join(map(str, region.labels)), region.description, f"{region.minimum_mm3 / 1000:g} mL")
        for region in REGIONS.values()
    ]
    return "\n".join(
        [
            "# Regions\n",
            NOTE,
            "See `atlases/README.md` in the source for the origin of the definitions.\n",
            "## Reference regions\n",
            "For `--ref-region`. Regions whose names begin with ADNI follow the rules of UC Berkeley's processing for "
            "ADNI; all others leave out voxels with spill-in ([details](../decisions/reference-guard.md)). To define "
            "your own, join label numbers with `+` "
            "([details](../how-to/own-reference-region.md)).\n",
            table(["name", "labels", "description", "minimum volume"], references),
            "## Composites\n",
            "Members in each hemisphere, and the rule of `suvr_mean`. All other statistics pool the voxels of the "
            "members. Corrected means weight the members by volume.\n",
            table(["name", "members", "rule", "meaning", "source"], members),
            "## Rows of a regional table\n",
            "Label numbers and names are those of FreeSurfer.\n",
            table(["index", "region", "hemisphere", "kind"], rows),
        ]
    )


def scanners() -> str:
    """Describe tracers with their windows, scanners with their resolution, and spellings of manufacturers."""
    spellings: dict[str, list[str]] = {}
    for alias, name in atlas.manufacturer_aliases().items():
        spellings.setdefault(name, []).append(alias)
    tracer_spellings: dict[str, list[str]] = {}
    for alias, name in tracers.ALIASES.items():
        tracer_spellings.setdefault(name, []).append(alias)
    return "\n".join(
        [
            "# Tracers and scanners\n",
            NOTE,
            "## Tracers\n",
            "Case, punctuation, and [18F] before or after the name are ignored. For other tracers, the window is 80 to "
            "100 min, and this is recorded in `Assumptions`.\n",
            table(
                ["tracer", "window, min", "spellings", "source"],
                [
                    (
                        name,
                        f"{w.start_min:g} to {w.end_min:g}",
                        ", ".join(map(code, tracer_spellings[name])),
                        w.source,
                    )
                    for name, w in frames.WINDOWS.items()
                ],
            ),
            "Other windows are in use. One of them is taken if the frames cover it and do not cover the usual one, and "
            "this is recorded in `Assumptions`. SUVR differs between windows.\n",
            table(
                ["tracer", "window, min", "source"],
                [
                    (name, f"{w.start_min:g} to {w.end_min:g}", w.source)
                    for name, others in frames.ALSO_USED.items()
                    for w in others
                ],
            ),
            "## Binding without tau\n",
            "What tracers bind to besides tau, and the regions that it affects. From abstracts and reviews; the papers "
            "were not checked word by word.\n",
            table(
                ["tracer", "structure", "regions affected", "remark", "source"],
                [(one.tracer, one.structure, one.regions, one.remark, one.source) for one in off_target()],
            ),
            "## Manufacturers\n",
            "Case and punctuation are ignored. Other names are used as given in the sidecar.\n",
            table(["name", "spellings"], [(name, ", ".join(map(code, found))) for name, found in spellings.items()]),
            "## Scanner resolution\n",
            "Used for `--target-fwhm`, matched by `ManufacturersModelName`. For other models, the resolution is "
            "estimated from the image, and this is recorded in `Assumptions`.\n",
            table(
                ["manufacturer", "model", "FWHM, mm", "source"],
                [(s.manufacturer, s.model, f"{s.fwhm_mm:.1f}", s.source) for s in resolution.SCANNERS],
            ),
        ]
    )


# --- the graph ----------------------------------------------------------------------------------------------------


def graph_files() -> dict[Path, str]:
    """Return the picture of the graph, and workflows/README.md with the table of its steps between two comments."""
    with tempfile.TemporaryDirectory() as folder:
        graph = graphs.graph_of(Path(folder))
    rows = [
        (
            code(step.name),
            f"`{step.module}.{step.interface}`",
            "; ".join(f"{source}: {', '.join(map(code, fields))}" for source, fields in step.inputs.items()),
            ", ".join(map(code, step.outputs)) or "files",
            f"{step.mem_gb:g}",
        )
        for step in graphs.steps(graph)
    ]
    made = (
        "![Steps of one participant: the T1w on the left, a PET scan on the right](../docs/explanation/graph.svg)\n\n"
        + table(["step", "interface", "inputs, by source", "outputs", "memory, GB"], rows)
    )
    readme = ROOT / "workflows" / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return {DOCS / "explanation" / "graph.svg": graphs.svg(graph), readme: f"{before}{BEGIN}\n{made}\n{END}{after}"}


def pages() -> dict[Path, str]:
    """Return every file that is made from the code, with its content."""
    made = {
        "command-line": command_line(),
        "settings": settings(),
        "tables": tables(),
        "sidecars": sidecars(),
        "quality-checks": quality_checks(),
        "errors": error_classes(),
        "python": python_names(),
        "regions": regions(),
        "scanners": scanners(),
    }
    return {DOCS / "reference" / f"{name}.md": text for name, text in made.items()} | graph_files()


def main() -> int:
    """Write the pages; with ``--check`` say which differ, and write none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which pages differ from the code")
    check = parser.parse_args().check
    made = pages()
    differ = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in differ:
        sys.stderr.write(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}\n")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
    return int(check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
