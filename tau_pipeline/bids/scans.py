"""Find the scans of a raw BIDS dataset, with their metadata, and pair each PET with a T1w.

A scan is one PET file; it goes through the pipeline with one T1w. What cannot be used becomes a `Problem` of its
participant, so that one broken file never hides the others. Decisions about what the input left open are in
words in ``assumptions``, and from there goes into the sidecars.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.bids.entities import entities_of, folder_labels, stem
from tau_pipeline.bids.filters import read_filters
from tau_pipeline.bids.pairing import Timeline, choose_t1w, nearest_session, timeline
from tau_pipeline.bids.sidecars import SidecarIndex, bool_value, corrected_pet_metadata, text_value
from tau_pipeline.errors import (
    DamagedFileError,
    ImageError,
    InvalidDatasetError,
    MissingInputError,
    SettingError,
    TauPipelineError,
)
from tau_pipeline.files import name_parts, read_json
from tau_pipeline.imaging.load import read_shape
from tau_pipeline.settings.participant import Selection

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

_IMAGE_ENDINGS = [".nii.gz", ".nii"]

#: Folders with other names (sub-01_old) are no participants', and the validator says so.
_PARTICIPANT_FOLDER = re.compile(r"sub-[0-9A-Za-z+]+")


@dataclass(frozen=True)
class T1w:
    """One T1w image.

    ``entities`` are those of its name, in their order (``{"sub": "01", "ses": "a"}``); ``shape`` is that of the header,
    empty where it was not looked at.
    """

    participant: str
    session: str | None
    path: Path
    metadata: Mapping[str, Any] = field(default_factory=dict)
    entities: Mapping[str, str] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    shape: tuple[int, ...] = field(default=(), compare=False)

    @property
    def key(self) -> str:
        """The name without suffix and ending: ``sub-01_ses-a``."""
        return "_".join(f"{name}-{label}" for name, label in self.entities.items())

    @property
    def skull_stripped(self) -> bool | None:
        """``SkullStripped`` of the sidecar; None if it is absent."""
        return bool_value(self.metadata, "SkullStripped")


@dataclass(frozen=True)
class Scan:
    """One PET image, its inherited metadata, and the T1w it goes with.

    ``pet_metadata`` are the inherited values with known errors corrected
    (`tau_pipeline.bids.sidecars.corrected_pet_metadata`). ``tracer``, ``manufacturer``, ``model`` and ``radionuclide``
    are taken from them as spelled there, or None. ``n_frames`` counts the frames in the image. ``assumptions`` are
    sentences.
    """

    participant: str
    session: str | None
    tracer: str | None
    rec: str | None
    run: str | None
    pet_file: Path
    pet_metadata: Mapping[str, Any]
    t1w: T1w
    entities: Mapping[str, str]
    n_frames: int
    manufacturer: str | None = None
    model: str | None = None
    radionuclide: str | None = None
    assumptions: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A name for logs and error records, one of a kind in the dataset: ``sub-01_ses-a_trc-AV1451_run-1``."""
        return "_".join(f"{name}-{label}" for name, label in self.entities.items())


@dataclass(frozen=True)
class Problem:
    """Reason why a scan or participant cannot be processed: ``key`` is the stem of the file's name, or ``sub-01``."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


@dataclass(frozen=True)
class Participant:
    """Images and problems of one participant.

    ``t1ws`` are the T1w images to process: one for each chosen session, and those that a scan of another session
    needs. If only certain tracers, reconstructions or runs are selected, only those that the scans need.
    """

    label: str
    t1ws: tuple[T1w, ...]
    scans: tuple[Scan, ...]
    problems: tuple[Problem, ...] = ()


def participant_labels(bids_dir: Path) -> tuple[str, ...]:
    """Return the labels of all participants, sorted.

    Raises
    ------
    MissingInputError
        There is no such folder, no ``dataset_description.json`` in it, or no participant.
    DamagedFileError
        ``dataset_description.json`` is not a JSON object.
    """
    bids_dir = Path(bids_dir)
    if not bids_dir.is_dir():
        raise MissingInputError(f"{bids_dir} is not a folder; give the root of a BIDS dataset")
    if not (bids_dir / "dataset_description.json").is_file():
        raise MissingInputError(f"{bids_dir} has no dataset_description.json; give the root of a BIDS dataset")
    read_json(bids_dir / "dataset_description.json")
    folders = (path for path in bids_dir.glob("sub-*") if path.is_dir())
    labels = sorted(path.name[4:] for path in folders if _PARTICIPANT_FOLDER.fullmatch(path.name))
    if not labels:
        raise MissingInputError(f"{bids_dir} has no sub-… folder, so there are no participants")
    return tuple(labels)


def find_participants(bids_dir: Path, selection: Selection | None = None) -> list[Participant]:
    """Find all selected participants, with their T1w images, scans and problems, sorted by label.

    Parameters
    ----------
    bids_dir
        Root of a raw BIDS dataset. ``derivatives``, ``sourcedata`` and every other folder beside ``sub-…`` are left
        alone.
    selection
        Which files to take; None takes all.

    Raises
    ------
    MissingInputError, DamagedFileError
        The dataset as a whole cannot be used; see `participant_labels`.
    InvalidDatasetError
        The name of a file or folder is not in UTF-8.
    SettingError
        A selected participant does not exist, or the filter file cannot be used.
    """
    bids_dir, selection = Path(bids_dir).absolute(), selection or Selection()
    known = participant_labels(bids_dir)
    for label in selection.participant_label:
        if label not in known:
            raise SettingError(f"there is no participant {label!r} in {bids_dir}; known: {', '.join(known)}")
    wanted = sorted(selection.participant_label) or list(known)
    filters = read_filters(selection.bids_filter_file)
    layout = _index(bids_dir, wanted, everybody=len(wanted) == len(known))
    sidecars = SidecarIndex(bids_dir, [Path(p) for p in _query(layout, ["T1w", "pet"], [".json"], {})])
    t1w_files = _by_participant(_query(layout, "T1w", _IMAGE_ENDINGS, filters["t1w"]))
    pet_files = _by_participant(_query(layout, "pet", _IMAGE_ENDINGS, filters["pet"]))
    narrowed = bool(selection.tracer_label or selection.rec_label or selection.run_label or filters["pet"])
    return [
        _participant(
            label,
            bids_dir / f"sub-{label}",
            t1w_files.get(label, []),
            _selected(pet_files.get(label, []), selection),
            sidecars,
            session_label=selection.session_label,
            only_needed=narrowed,
        )
        for label in wanted
    ]


def _index(bids_dir: Path, labels: list[str], *, everybody: bool) -> BIDSLayout:
    """Return a pybids layout of the anat and pet folders only; metadata are read later, file by file.

    Reading them here would create one damaged JSON file stop the whole dataset.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    folders = [path.name for path in bids_dir.iterdir() if path.is_dir()]
    others = [name for name in folders if not _PARTICIPANT_FOLDER.fullmatch(name)]
    ignore = [
        re.compile(r"/\."),
        re.compile(r"^/sub-[^/]+(/ses-[^/]+)?/(?!(anat|pet|ses-[^/]+)(/|$))[^/.]+(/|$)"),
    ]
    if others:
        ignore.append(re.compile(rf"^/({'|'.join(map(re.escape, others))})(/|$)"))
    if not everybody:
        ignore.append(re.compile(rf"^/sub-(?!({'|'.join(map(re.escape, labels))})(/|$))"))
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
    try:
        return BIDSLayout(bids_dir, validate=False, indexer=indexer)
    except UnicodeEncodeError as exc:
        # Its database holds texts: bytes of a name that are no UTF-8 are shown as \xff.
        found = os.fsencode(exc.object).decode("utf-8", "backslashreplace")
        raise InvalidDatasetError(
            f"the path {found} is not in UTF-8, as every name in a BIDS dataset must be; rename that file or folder"
        ) from exc


def _query(layout: BIDSLayout, suffix: str | list[str], endings: list[str], filters: Mapping[str, Any]) -> list[str]:
    asked = {"suffix": suffix, "extension": endings, **filters}
    try:
        return sorted(layout.get(return_type="filename", **asked))
    except (ValueError, TypeError, re.error) as exc:
        raise SettingError(f"the filter {dict(filters)} cannot be used: {exc}") from exc


def _by_participant(files: list[str]) -> dict[str, list[Path]]:
    """Return image files by participant; of ``x.nii.gz`` and ``x.nii`` only the first."""
    found: dict[str, dict[str, Path]] = {}
    for path in map(Path, files):
        label = folder_labels(path).get("sub")
        if label is None:
            continue  # beside the participants' folders, where BIDS has no images
        own = found.setdefault(label, {})
        stem = path.name.split(".", 1)[0]
        if stem not in own or path.name.endswith(".gz"):
            own[stem] = path
    return {label: list(own.values()) for label, own in found.items()}


def _selected(pet_files: list[Path], selection: Selection) -> list[Path]:
    def fits(path: Path) -> bool:
        entities = name_parts(path)[0]
        wanted = (("ses", selection.session_label), ("trc", selection.tracer_label), ("rec", selection.rec_label))
        runs = {run.lstrip("0") for run in selection.run_label}
        return all(not labels or entities.get(name) in labels for name, labels in wanted) and (
            not runs or entities.get("run", "-").lstrip("0") in runs
        )

    return [path for path in pet_files if fits(path)]


@dataclass(frozen=True)
class _Session:
    """A session with T1w images: its ``label`` (None outside of any), and the T1w chosen or why it cannot be used."""

    label: str | None
    t1w: T1w | Problem


def _participant(
    label: str,
    folder: Path,
    t1w_files: Sequence[Path],
    pet_files: Sequence[Path],
    sidecars: SidecarIndex,
    *,
    session_label: tuple[str, ...],
    only_needed: bool,
) -> Participant:
    """Pair the PET images of a participant with T1w images.

    Parameters
    ----------
    label, folder
        Of the participant.
    t1w_files, pet_files
        Its images that the selection leaves.
    sidecars
        Metadata of all files.
    session_label
        Sessions whose T1w is processed even if no PET needs it; empty for all.
    only_needed
        Whether a T1w is processed only if a PET needs it.
    """

    def is_asked_for(session: _Session) -> bool:
        return not only_needed and (not session_label or session.label in (None, *session_label))

    sessions = _sessions(t1w_files, sidecars)
    problems = [each.t1w for each in sessions if isinstance(each.t1w, Problem) and is_asked_for(each)]
    order = timeline(folder) if pet_files else Timeline()
    scans: list[Scan] = []
    for pet_file in pet_files:
        try:
            scans.append(_scan(pet_file, *_t1w_of(pet_file, sessions, order), sidecars))
        except TauPipelineError as exc:
            problems.append(Problem(stem(pet_file), str(exc)))
    if not t1w_files and not pet_files and not only_needed:
        problems.append(Problem(f"sub-{label}", "no T1w or PET image found"))
    in_use = {scan.t1w.path for scan in scans}
    t1ws = tuple(
        each.t1w for each in sessions if isinstance(each.t1w, T1w) and (each.t1w.path in in_use or is_asked_for(each))
    )
    return Participant(label, t1ws, tuple(scans), tuple(problems))


def _sessions(t1w_files: Sequence[Path], sidecars: SidecarIndex) -> list[_Session]:
    """Choose one T1w for each session that has any."""
    by_label: dict[str | None, list[Path]] = {}
    for path in t1w_files:
        by_label.setdefault(name_parts(path)[0].get("ses"), []).append(path)
    sessions = []
    for label, candidates in by_label.items():
        path, assumptions = choose_t1w(candidates)
        try:
            sessions.append(_Session(label, _t1w(path, assumptions, sidecars)))
        except TauPipelineError as exc:
            sessions.append(_Session(label, Problem(stem(path), str(exc))))
    return sessions


def _t1w(path: Path, assumptions: tuple[str, ...], sidecars: SidecarIndex) -> T1w:
    shape = read_shape(path)
    if len(shape) > 3:
        raise ImageError(f"{path} has more than three dimensions; a T1w of one volume is needed")
    entities = entities_of(path)
    metadata = sidecars.metadata(path)
    known = (*_if_simulated(metadata, "T1w"), *assumptions)
    t1w = T1w(entities["sub"], entities.get("ses"), path, metadata, entities, known, shape)
    # Asked for here, so that a wrong type is found before anything is computed.
    _ = t1w.skull_stripped
    return t1w


def _if_simulated(metadata: Mapping[str, Any], what: str) -> tuple[str, ...]:
    """Return a sentence if the image's sidecar calls it simulated, so that every result says so too."""
    if metadata.get("Simulated") is not True:
        return ()
    return (f"The {what} is simulated, as its sidecar says; nothing in it was measured.",)


def _t1w_of(pet_file: Path, sessions: Sequence[_Session], order: Timeline) -> tuple[T1w, tuple[str, ...]]:
    """Return the T1w that goes with a PET, and a sentence if it is that of another session."""
    if not sessions:
        raise MissingInputError("there is no T1w in any session of this participant, and the PET needs one")
    t1ws = {session.label: session.t1w for session in sessions}
    chosen, assumptions = nearest_session(name_parts(pet_file)[0].get("ses"), t1ws, order)
    t1w = t1ws[chosen]
    if isinstance(t1w, Problem):
        raise DamagedFileError(f"its T1w cannot be used: {t1w.message}")
    return t1w, assumptions


def _scan(pet_file: Path, t1w: T1w, about_t1w: tuple[str, ...], sidecars: SidecarIndex) -> Scan:
    entities = entities_of(pet_file)
    # From the header: cheap, and it finds files that are empty, cut off or no images.
    n_frames = math.prod(read_shape(pet_file)[3:])
    metadata, corrections = corrected_pet_metadata(sidecars.metadata(pet_file), entities)
    return Scan(
        participant=entities["sub"],
        session=entities.get("ses"),
        tracer=text_value(metadata, "TracerName"),
        rec=entities.get("rec"),
        run=entities.get("run"),
        pet_file=pet_file,
        pet_metadata=metadata,
        t1w=t1w,
        entities=entities,
        n_frames=n_frames,
        manufacturer=text_value(metadata, "Manufacturer"),
        model=text_value(metadata, "ManufacturersModelName"),
        radionuclide=text_value(metadata, "TracerRadionuclide"),
        assumptions=(*_if_simulated(metadata, "PET"), *about_t1w, *t1w.assumptions, *corrections),
    )
