"""Every setting: its name, default, meaning, unit and source, in one place.

Frozen dataclasses. `Settings` contains what changes results, and its hash is in every sidecar; `Execution` what
only changes how the work is run; `Selection` which files go in; `Group` what is done with the scans of a cohort;
`Training` how a model is trained; `Comparison` which trainings are compared; `Calibration` how values are related to a
reference. A field's metadata is the only text about
it: the command line's help and the reference page are generated from `documentation`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.files import require_file
from tau_pipeline.settings.calibration import Calibration
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.comparison import Comparison
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.fields import bounds_text, without_none
from tau_pipeline.settings.participant import Selection, Settings
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Training


@dataclass(frozen=True)
class FieldDoc:
    """Documentation of one setting.

    ``flags`` are the command line's spellings, the first one being the main one; ``range`` states
    the allowed numbers in words and is empty where there is no bound; ``choices`` is empty where any value
    of the type goes; ``many`` says that the flag takes several values, ``pair`` that it takes exactly two.
    """

    section: str
    name: str
    default: Any
    help: str
    unit: str
    range: str
    source: str
    flags: tuple[str, ...]
    choices: tuple[str, ...]
    kind: type
    many: bool
    pair: bool


@dataclass(frozen=True)
class Configuration:
    """All sections together."""

    settings: Settings = field(default_factory=Settings)
    execution: Execution = field(default_factory=Execution)
    selection: Selection = field(default_factory=Selection)
    group: Group = field(default_factory=Group)
    training: Training = field(default_factory=Training)
    synthesis: Synthesis = field(default_factory=Synthesis)
    comparison: Comparison = field(default_factory=Comparison)
    calibration: Calibration = field(default_factory=Calibration)


SECTIONS: dict[str, type] = {
    "settings": Settings,
    "execution": Execution,
    "selection": Selection,
    "group": Group,
    "training": Training,
    "synthesis": Synthesis,
    "comparison": Comparison,
    "calibration": Calibration,
}


#: Settings of execution that the levels without tasks of their own take: resources, folders, and what is only shown or
#: written again. A BIDS App is called with the same resources at every level.
_IN_ONE_PROCESS = (
    *("nprocs", "omp_nthreads", "mem_mb", "work_dir", "verbose", "skip_bids_validation"),
    *("dry_run", "boilerplate_only", "reports_only"),
)
#: What selects and fits training pairs beside the sections of the training.
_OF_PAIRS = ("ref_region", "random_seed", "participant_label", "session_label", "tracer_label")
#: Which sections, and which single settings, each level of the command line reads.
READ_BY: dict[str, tuple[str, ...]] = {
    "participant": ("settings", "execution", "selection"),
    "group": ("group", *_IN_ONE_PROCESS),
    "train": ("group", "training", *_OF_PAIRS, *_IN_ONE_PROCESS),
    "train --compare": (
        *("execution", "group", "training", "comparison", *_OF_PAIRS),
        *("suvr_range", "hot_suvr", "lesion_volume"),
    ),
    "synthesize": ("settings", "execution", "selection", "group", "synthesis", "device"),
    "calibrate": ("calibration", "work_dir", "verbose", "dry_run"),
}


def settings_of(level: str) -> set[str]:
    """Return the names of the settings that a level reads; a key of `READ_BY`."""
    read = READ_BY[level]
    return {doc.name for doc in documentation() if doc.section in read or doc.name in read}


def configuration(toml_file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Configuration:
    """Combine defaults, the TOML file, and the overrides (of the command line); the later one wins.

    Parameters
    ----------
    toml_file
        A file with the sections ``[settings]``, ``[execution]``, ``[selection]`` and ``[training]``, each of which may
        be absent.
    overrides
        Values by field name, of any section; None means "not given".

    Raises
    ------
    SettingError
        A section or name does not exist (the nearest one is suggested), or a value cannot be used.
    MissingInputError, DamagedFileError
        The file is not there or is not TOML.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    where = {name: section for section in SECTIONS for name in _names(section)}
    if toml_file is not None:
        values |= read_toml(toml_file)
    for name, value in (overrides or {}).items():
        if name not in where:
            raise SettingError(unknown_name("setting", name, where))
        if value is not None:
            values[where[name]] = {**values[where[name]], name: value}
    made = {section: cls(**values[section]) for section, cls in SECTIONS.items()}
    return Configuration(**made)


def read_toml(path: Path) -> dict[str, dict[str, Any]]:
    """Read the sections of a TOML file; every section and name is checked, values are returned as written."""
    path = Path(path)
    require_file(path, "configuration file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as exc:
        raise DamagedFileError(f"{path} is not usable TOML (nested too deeply); correct the file") from exc
    except (OSError, ValueError) as exc:
        raise DamagedFileError(f"{path} is not valid TOML ({exc}); correct the file") from exc
    for section, table in content.items():
        if section not in SECTIONS or not isinstance(table, dict):
            raise SettingError(f"{path}: {unknown_name('section', section, SECTIONS)}")
        for name in table:
            if name not in _names(section):
                raise SettingError(f"{path}, [{section}]: {unknown_name('setting', name, _names(section))}")
    return content


def unknown_name(what: str, name: str, known: Any) -> str:
    """Return a sentence that says that a name is unknown, and suggests the nearest one or lists them all."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"there is no {what} {name!r}; {hint}"


def documentation() -> tuple[FieldDoc, ...]:
    """Return all settings with their documentation, in the order in which they are defined."""
    return tuple(_field_doc(section, item) for section, cls in SECTIONS.items() for item in dataclasses.fields(cls))


def _field_doc(section: str, item: dataclasses.Field[Any]) -> FieldDoc:
    hint, _ = without_none(_hints(section)[item.name])
    args = get_args(hint)
    is_tuple = get_origin(hint) is tuple
    of_item = args[0] if is_tuple else hint
    is_literal = get_origin(of_item) is Literal
    return FieldDoc(
        section=section,
        name=item.name,
        default=item.default,
        help=item.metadata["help"],
        unit=item.metadata["unit"],
        range=bounds_text(item.metadata["bounds"]),
        source=item.metadata["source"],
        flags=item.metadata["flags"] or ("--" + item.name.replace("_", "-"),),
        choices=get_args(of_item) if is_literal else (),
        kind=str if is_literal else of_item,
        many=is_tuple,
        pair=is_tuple and Ellipsis not in args,
    )


@functools.cache
def _hints(section: str) -> dict[str, Any]:
    """Return the types of a section's fields, cached because this is the slowest part of the command line."""
    return get_type_hints(SECTIONS[section])


def _names(section: str) -> list[str]:
    return [item.name for item in dataclasses.fields(SECTIONS[section])]
