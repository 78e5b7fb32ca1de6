"""Every setting: its name, default, meaning, unit and source, in one place.

Frozen dataclasses. `Settings` holds what changes results, and its hash stands in every sidecar; `Execution` what
only changes how the work is run; `Selection` which files go in; `Group` what is done with the scans of a cohort;
`Training` how a model is trained; `Comparison` which trainings are compared. A field's metadata is the only text about
it: the command line's help and the reference page are generated from `documentation`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tau_pipeline.errors import DamagedFileError, MissingInputError, SettingError
from tau_pipeline.settings.comparison import Comparison
from tau_pipeline.settings.fields import Checked, documented, require, without_none
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Training

SkullStrip = Literal["auto", "skip", "force"]
Worker = Literal["cf", "slurm", "sge"]
UnknownManufacturer = Literal["error", "pooled", "exclude"]
Harmonize = Literal["none", "combat"]


@dataclass(frozen=True)
class FieldDoc:
    """What is known about one setting.

    ``flags`` are the command line's spellings, the first one being the main one; ``choices`` is empty where any value
    of the type goes; ``many`` says that the flag takes several values, ``pair`` that it takes exactly two.
    """

    section: str
    name: str
    default: Any
    help: str
    unit: str
    source: str
    flags: tuple[str, ...]
    choices: tuple[str, ...]
    kind: type
    many: bool
    pair: bool


@dataclass(frozen=True)
class Settings(Checked):
    """What changes results. Two runs with equal settings and equal inputs give equal outputs.

    Raises
    ------
    SettingError
        A value has the wrong type or lies outside its range; the message names the setting and the value.
    """

    skull_strip_t1w: SkullStrip = field(
        default="auto",
        metadata=documented(
            "Brain extraction of the T1w: auto skips it where the head is already stripped (SkullStripped in the "
            "sidecar, or no signal around the brain), skip never does it, force always does it.",
            source="spelling and values of fMRIPrep",
        ),
    )
    suvr_window: tuple[float, float] | None = field(
        default=None,
        metadata=documented(
            "Start and end of the SUVR window after injection. Frames count by the time they overlap it. Default: the "
            "tracer's own window.",
            unit="min",
        ),
    )
    ref_region: tuple[str, ...] = field(
        default=("CerebellarGM",),
        metadata=documented(
            "Reference regions, by name or as FreeSurfer label numbers joined by + (8+47). Several give one SUVR map "
            "and one set of table rows each."
        ),
    )
    smooth_fwhm: float = field(
        default=0.0,
        metadata=documented("FWHM of a Gaussian filter applied to the PET; 0 for none.", unit="mm"),
    )
    target_fwhm: float | None = field(
        default=None,
        metadata=documented(
            "Effective resolution to which every scanner's PET is smoothed, from the scanner's own resolution. "
            "Default: leave the resolution as it is.",
            unit="mm",
            source="Joshi, Koeppe and Fessler 2009, NeuroImage 46:154",
        ),
    )
    motion_correction: bool = field(
        default=True,
        metadata=documented("Register the frames of a dynamic PET to each other before they are averaged."),
    )
    random_seed: int = field(
        default=0,
        metadata=documented("Seed of everything that draws random numbers; the same seed gives the same result."),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.suvr_window is not None:
            start, end = self.suvr_window
            require(0 <= start < end, "suvr_window", [start, end], "two times in minutes, 0 <= start < end")
            require(end <= 24 * 60, "suvr_window", [start, end], "minutes after injection; these look like seconds")
        require(bool(self.ref_region), "ref_region", [], "at least one reference region")
        require(len(set(self.ref_region)) == len(self.ref_region), "ref_region", list(self.ref_region), "each once")
        require(self.smooth_fwhm >= 0, "smooth_fwhm", self.smooth_fwhm, "a width in mm, 0 or more")
        if self.target_fwhm is not None:
            require(self.target_fwhm > 0, "target_fwhm", self.target_fwhm, "a width in mm above 0")
            require(self.smooth_fwhm == 0, "smooth_fwhm", self.smooth_fwhm, "0 where target_fwhm is given")
        require(0 <= self.random_seed < 2**32, "random_seed", self.random_seed, "a whole number from 0 to 2**32 - 1")

    def hash(self) -> str:
        """Twelve hexadecimal digits that are equal exactly for equal settings, on every machine and Python."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]


@dataclass(frozen=True)
class Execution(Checked):
    """What changes only how the work is run: never the results."""

    nprocs: int | None = field(
        default=None,
        metadata=documented("Processes at a time. Default: one for each processor.", flags=("--nprocs", "--n-cpus")),
    )
    omp_nthreads: int | None = field(
        default=None,
        metadata=documented("Threads of one process. Default: 1, with which registrations repeat to the last bit."),
    )
    mem_mb: int | None = field(
        default=None,
        metadata=documented("Memory that all processes together may use.", unit="MB", flags=("--mem-mb", "--mem")),
    )
    work_dir: Path = field(
        default=Path("work"),
        metadata=documented(
            "Folder for intermediate results; a second run with the same folder computes only what has changed.",
            flags=("--work-dir", "-w"),
        ),
    )
    use_plugin: Path | None = field(
        default=None,
        metadata=documented("JSON file with the Nipype plugin and its arguments.", source="form of fMRIPrep"),
    )
    worker: Worker = field(
        default="cf", metadata=documented("Where participants run: on this machine (cf), or on a slurm or sge cluster.")
    )
    worker_args: str = field(
        default="",
        metadata=documented(
            "More arguments for the cluster's sbatch or qsub, as one text: '--partition=long --time=8:00:00'."
        ),
    )
    stop_on_first_crash: bool = field(
        default=False, metadata=documented("Stop at the first failed scan instead of finishing the others.")
    )
    skip_bids_validation: bool = field(
        default=False, metadata=documented("Do not run the BIDS validator on the input.")
    )
    dry_run: bool = field(default=False, metadata=documented("Show what would be done, and do nothing."))
    boilerplate_only: bool = field(default=False, metadata=documented("Write the methods paragraph, and nothing else."))
    reports_only: bool = field(
        default=False, metadata=documented("Make the pages again from what an earlier run wrote, and compute nothing.")
    )
    verbose: int = field(
        default=0, metadata=documented("More messages; twice for still more.", flags=("--verbose", "-v"))
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("nprocs", "omp_nthreads", "mem_mb"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "a whole number above 0")
        require(self.verbose >= 0, "verbose", self.verbose, "a whole number, 0 or more")


@dataclass(frozen=True)
class Selection(Checked):
    """Which files of the dataset go in. Empty means all. Labels are kept without their ``sub-``, ``ses-``, … prefix."""

    participant_label: tuple[str, ...] = field(
        default=(), metadata=documented("Participants to process, with or without sub-. Default: all.")
    )
    session_label: tuple[str, ...] = field(
        default=(),
        metadata=documented(
            "Sessions whose PET to process, with or without ses-. A T1w may still come from another session. "
            "Default: all."
        ),
    )
    tracer_label: tuple[str, ...] = field(
        default=(), metadata=documented("Tracers to process: the trc- label of the file names. Default: all.")
    )
    rec_label: tuple[str, ...] = field(
        default=(), metadata=documented("PET reconstructions to process: the rec- label. Default: all.")
    )
    run_label: tuple[str, ...] = field(
        default=(),
        metadata=documented("PET runs to process: the run- label, with or without zeros in front. Default: all."),
    )
    bids_filter_file: Path | None = field(
        default=None,
        metadata=documented('JSON file of pybids filters: {"t1w": {...}, "pet": {...}}.', source="form of fMRIPrep"),
    )
    derivatives: tuple[str, ...] = field(
        default=(),
        metadata=documented(
            "Folder of results to use instead of computing them, as NAME=PATH; freesurfer takes FreeSurfer's or "
            "FastSurfer's subjects folder.",
            flags=("--derivatives", "-d"),
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        prefixes = {"participant": "sub-", "session": "ses-", "tracer": "trc-", "rec": "rec-", "run": "run-"}
        for name, prefix in prefixes.items():
            labels = tuple(label.removeprefix(prefix) for label in getattr(self, f"{name}_label"))
            for label in labels:
                require(label.isalnum() or "+" in label, f"{name}_label", label, "a BIDS label: letters and digits")
            object.__setattr__(self, f"{name}_label", tuple(dict.fromkeys(labels)))


@dataclass(frozen=True)
class Group(Checked):
    """What the group level does with the scans of a cohort."""

    min_participants: int = field(
        default=5,
        metadata=documented("A manufacturer with fewer participants is not standardised by itself."),
    )
    unknown_manufacturer: UnknownManufacturer = field(
        default="error",
        metadata=documented(
            "Scans of manufacturers that are unknown or have too few participants: error stops before anything is "
            "written, pooled standardises them by all participants together, exclude leaves them without standardised "
            "values."
        ),
    )
    fit_participants: tuple[str, ...] = field(
        default=(),
        metadata=documented(
            "Participants on whom the standardisation is fitted, with or without sub-: a training split. Default: all."
        ),
    )
    standardization: Path | None = field(
        default=None,
        metadata=documented("standardization.tsv of an earlier fit to use instead of fitting one; of a model, say."),
    )
    diagnosis_column: str | None = field(
        default=None,
        metadata=documented(
            "Column of participants.tsv or sessions.tsv that holds the diagnosis. Default: diagnosis, dx, group or the "
            "like, whichever is there."
        ),
    )
    harmonize: Harmonize = field(
        default="none",
        metadata=documented(
            "Also write regional SUVR harmonised between manufacturers by ComBat, with diagnosis, age and sex kept.",
            source="Johnson, Li and Rabinovic 2007, Biostatistics 8:118; Fortin et al. 2018, NeuroImage 167:104",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_participants > 0, "min_participants", self.min_participants, "a whole number above 0")
        labels = tuple(label.removeprefix("sub-") for label in self.fit_participants)
        object.__setattr__(self, "fit_participants", tuple(dict.fromkeys(labels)))
        both = self.standardization is not None and bool(self.fit_participants)
        require(not both, "fit_participants", list(labels), "none where standardization gives a fit")


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


SECTIONS: dict[str, type] = {
    "settings": Settings,
    "execution": Execution,
    "selection": Selection,
    "group": Group,
    "training": Training,
    "synthesis": Synthesis,
    "comparison": Comparison,
}


def configuration(toml_file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Configuration:
    """Defaults, then the TOML file, then the overrides (of the command line); the later one wins.

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
    """The sections of a TOML file, with every section and name checked, and the values as they stand there."""
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"there is no configuration file {path}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError as exc:
        raise DamagedFileError(f"{path} is not usable TOML (it is nested too deeply); mend the file") from exc
    except (OSError, ValueError) as exc:
        raise DamagedFileError(f"{path} is not valid TOML ({exc}); mend the file") from exc
    for section, table in content.items():
        if section not in SECTIONS or not isinstance(table, dict):
            raise SettingError(f"{path}: {unknown_name('section', section, SECTIONS)}")
        for name in table:
            if name not in _names(section):
                raise SettingError(f"{path}, [{section}]: {unknown_name('setting', name, _names(section))}")
    return content


def unknown_name(what: str, name: str, known: Any) -> str:
    """One sentence that says that a name is not known, and suggests the nearest one or lists them all."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"there is no {what} {name!r}; {hint}"


def documentation() -> tuple[FieldDoc, ...]:
    """All settings with their documentation, in the order in which they are defined."""
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
        source=item.metadata["source"],
        flags=item.metadata["flags"] or ("--" + item.name.replace("_", "-"),),
        choices=get_args(of_item) if is_literal else (),
        kind=str if is_literal else of_item,
        many=is_tuple,
        pair=is_tuple and Ellipsis not in args,
    )


@functools.cache
def _hints(section: str) -> dict[str, Any]:
    """The types of a section's fields; finding them takes longer than all else that makes the command line."""
    return get_type_hints(SECTIONS[section])


def _names(section: str) -> list[str]:
    return [item.name for item in dataclasses.fields(SECTIONS[section])]
