"""Find the scans of a raw BIDS dataset, with their metadata, and pair each PET with a T1w.

A scan is one PET file; it goes through the pipeline with one T1w. What cannot be used becomes a `Problem` of its
participant, so that one broken file never hides the others. Decisions about what the input left open are in
words in ``assumptions``, and from there goes into the sidecars.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tau_pipeline.bids.entities import entities_of, stem
from tau_pipeline.bids.filters import read_filters
from tau_pipeline.bids.layout import (
    by_participant,
    find_files,
    meant_participant,
    participant_labels,
    without_ignored,
)
from tau_pipeline.bids.left_out import not_read, passed_over, why_derived, why_nothing, why_same
from tau_pipeline.bids.pairing import Looks, Nearest, choose_t1w, looks_of, nearest_session
from tau_pipeline.bids.pet_metadata import corrected_pet_metadata, why_left_out
from tau_pipeline.bids.sessions import Times
from tau_pipeline.bids.sidecars import SidecarIndex, bool_value, number_list, text_value
from tau_pipeline.errors import DamagedFileError, ImageError, MissingInputError, SettingError, TauPipelineError
from tau_pipeline.files import name_parts
from tau_pipeline.imaging.head_size import read_head_shape
from tau_pipeline.imaging.load import read_affine, read_shape
from tau_pipeline.settings.participant import Selection


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
    sentences. ``days_from_t1w`` is the time between both images, or None where nothing states it.
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
    days_from_t1w: float | None = None

    @property
    def key(self) -> str:
        """A name for logs and error records, one of a kind in the dataset: ``sub-01_ses-a_trc-AV1451_run-1``."""
        return "_".join(f"{name}-{label}" for name, label in self.entities.items())


@dataclass(frozen=True)
class Problem:
    """Reason why a scan or participant is not processed.

    ``key`` is the stem of the file's name, or ``sub-01``. ``left_out`` says that nothing is wrong with the dataset: the
    image is of a kind that this job does not use.
    """

    key: str
    message: str
    left_out: bool = False

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
        The dataset as a whole cannot be used; see `tau_pipeline.bids.layout.participant_labels`.
    InvalidDatasetError
        The name of a file or folder is not in UTF-8.
    SettingError
        A selected participant does not exist, or the filter file cannot be used.
    """
    bids_dir, selection = Path(bids_dir).absolute(), selection or Selection()
    known = participant_labels(bids_dir)
    there = frozenset(known)
    for label in selection.participant_label:
        if label not in there:
            raise SettingError(f"there is no participant {label!r} in {bids_dir}; {meant_participant(label, known)}")
    wanted = sorted(selection.participant_label) or list(known)
    filters = read_filters(selection.bids_filter_file)
    files = find_files(bids_dir, wanted, filters, everybody=len(wanted) == len(known))
    sidecars = SidecarIndex(bids_dir, map(Path, files.sidecars))
    counted = [without_ignored(bids_dir, own) for own in (files.t1w, files.pet, files.others)]
    t1w_files, pet_files, others = map(by_participant, counted)
    left_out = by_participant({*files.t1w, *files.pet}.difference(*counted))
    ignored = left_out.keys() - t1w_files.keys() - pet_files.keys()
    narrowed = bool(selection.tracer_label or selection.rec_label or selection.run_label or filters["pet"])
    whole = {label: Problem(f"sub-{label}", "left out: .bidsignore names all its images", True) for label in ignored}
    whole |= {label: Problem(f"sub-{label}", why) for label, why in files.closed.items()}
    passed = passed_over(bids_dir, files.misnamed, counted) if selection.takes_all_images else {}
    return [
        Participant(label, (), (), (whole[label],))
        if label in whole
        else _participant(
            bids_dir / f"sub-{label}",
            _Images(
                t1w_files.get(label, []),
                _selected(pet_files.get(label, []), selection),
                _selected(others.get(label, []), selection),
                _selected(left_out.get(label, []), selection),
                passed.get(label, {}),
            ),
            sidecars,
            session_label=selection.session_label,
            only_needed=narrowed,
            dated=files.dated is None or label in files.dated,
        )
        for label in wanted
    ]


def _selected(pet_files: list[Path], selection: Selection) -> list[Path]:
    def fits(path: Path) -> bool:
        entities = name_parts(path)[0]
        wanted = (("ses", selection.session_label), ("trc", selection.tracer_label), ("rec", selection.rec_label))
        runs = {run.lstrip("0") for run in selection.run_label}
        return all(not labels or entities.get(name) in labels for name, labels in wanted) and (
            not runs or entities.get("run", "-").lstrip("0") in runs
        )

    return [path for path in pet_files if fits(path)]


class _Images(NamedTuple):
    """Images of a participant that the selection leaves.

    ``others`` are in formats that are not read; ``ignored`` are those that ``.bidsignore`` names; ``passed_over`` has
    why further images and folders are not used, by their paths in the dataset.
    """

    t1w: Sequence[Path]
    pet: Sequence[Path]
    others: Sequence[Path]
    ignored: Sequence[Path]
    passed_over: Mapping[str, str]


@dataclass(frozen=True)
class _Session:
    """A session with T1w images: its ``label`` (None outside of any), and the T1w chosen or why it cannot be used."""

    label: str | None
    t1w: T1w | Problem


def _participant(
    folder: Path,
    images: _Images,
    sidecars: SidecarIndex,
    *,
    session_label: tuple[str, ...],
    only_needed: bool,
    dated: bool,
) -> Participant:
    """Pair the PET images of a participant with T1w images.

    Parameters
    ----------
    folder
        Of the participant.
    images
        Its images.
    sidecars
        Metadata of all files.
    session_label
        Sessions whose T1w is processed even if no PET needs it; empty for all.
    only_needed
        Whether a T1w is processed only if a PET needs it.
    dated
        Whether a ``scans.tsv`` may state when images were acquired.
    """

    def is_asked_for(session: _Session) -> bool:
        return not only_needed and (not session_label or session.label in (None, *session_label))

    sessions = _sessions(images.t1w, sidecars)
    problems = [each.t1w for each in sessions if isinstance(each.t1w, Problem) and is_asked_for(each)]
    scans: list[Scan] = []
    stated: dict[Path, Mapping[str, Any]] = {}
    for pet_file in images.pet:
        try:
            metadata = sidecars.metadata(pet_file)
            if why := why_derived(pet_file, images.pet) or why_left_out(metadata, name_parts(pet_file)[0]):
                problems.append(Problem(stem(pet_file), why, left_out=True))
            else:
                stated[pet_file] = metadata
        except TauPipelineError as exc:
            problems.append(Problem(stem(pet_file), str(exc)))
    chosen = {each.t1w.path: each.t1w.metadata for each in sessions if isinstance(each.t1w, T1w)}
    times = Times(folder, {**chosen, **stated}, dated=dated)
    for pet_file, values in stated.items():
        try:
            scans.append(_scan(pet_file, *_t1w_of(pet_file, sessions, times), values))
        except TauPipelineError as exc:
            problems.append(Problem(stem(pet_file), str(exc)))
    twins = why_same({scan.pet_file: scan.entities for scan in scans})
    scans = [scan for scan in scans if scan.pet_file not in twins]
    problems += [Problem(stem(path), why) for path, why in twins.items()]
    problems += [Problem(*why) for why in not_read(images.others, images.t1w, images.pet)]
    problems += [
        Problem(stem(path), "left out: .bidsignore names it", left_out=True)
        for path in images.ignored
        if stem(path).endswith("_pet") or not images.t1w
    ]
    problems += [Problem(path, why, left_out=True) for path, why in images.passed_over.items()]
    if not any(images[:4]) and not only_needed:
        problems.append(Problem(folder.name, why_nothing(folder)))
    in_use = {scan.t1w.path for scan in scans}
    t1ws = tuple(
        each.t1w for each in sessions if isinstance(each.t1w, T1w) and (each.t1w.path in in_use or is_asked_for(each))
    )
    return Participant(folder.name.removeprefix("sub-"), t1ws, tuple(scans), tuple(problems))


def _sessions(t1w_files: Sequence[Path], sidecars: SidecarIndex) -> list[_Session]:
    """Choose one T1w for each session that has any."""
    by_label: dict[str | None, list[Path]] = {}
    for path in t1w_files:
        by_label.setdefault(name_parts(path)[0].get("ses"), []).append(path)
    sessions = []
    for label, candidates in by_label.items():
        path, assumptions = choose_t1w(candidates, lambda candidate: _looks(candidate, sidecars))
        try:
            sessions.append(_Session(label, _t1w(path, assumptions, sidecars)))
        except TauPipelineError as exc:
            sessions.append(_Session(label, Problem(stem(path), str(exc))))
    return sessions


def _looks(path: Path, sidecars: SidecarIndex) -> Looks | None:
    """Return what header and sidecar say of a T1w; None if one of them cannot be read."""
    try:
        shape, voxel_mm = read_shape(path), np.linalg.norm(read_affine(path)[:3, :3], axis=0).tolist()
        metadata = sidecars.metadata(path)
    except TauPipelineError:
        return None
    extent = (count * edge for count, edge in zip(shape[:3], voxel_mm, strict=True))
    return looks_of(extent, voxel_mm, metadata)


def _t1w(path: Path, assumptions: tuple[str, ...], sidecars: SidecarIndex) -> T1w:
    shape = read_head_shape(path)
    entities = entities_of(path)
    metadata = sidecars.metadata(path)
    known = (*_if_simulated(metadata, "T1w"), *assumptions, *_first_echo(path, shape, metadata))
    t1w = T1w(entities["sub"], entities.get("ses"), path, metadata, entities, known, shape[:3])
    # Asked for here, so that a wrong type is found before anything is computed.
    _ = t1w.skull_stripped
    return t1w


def _first_echo(path: Path, shape: tuple[int, ...], metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence if a T1w has several volumes that its sidecar states to be echoes; the first is taken.

    Raises
    ------
    ImageError
        It has several volumes, and the sidecar does not state an echo time for each.
    """
    if len(shape) < 4:
        return ()
    stated = metadata.get("EchoTime")
    echoes = number_list(metadata, "EchoTime") if isinstance(stated, list) else None
    if echoes is None or len(echoes) != shape[3]:
        raise ImageError(
            f"{path} has {shape[3]} volumes, and a T1w of one volume is needed; if they are echoes, list their times "
            "in EchoTime of the sidecar, and the first is taken; otherwise keep only the T1w"
        )
    return (f"The T1w has {shape[3]} volumes, echoes by its sidecar (EchoTime); the first was taken.",)


def _if_simulated(metadata: Mapping[str, Any], what: str) -> tuple[str, ...]:
    """Return a sentence if the image's sidecar calls it simulated, so that every result says so too."""
    if metadata.get("Simulated") is not True:
        return ()
    return (f"The {what} is simulated, as its sidecar says; nothing in it was measured.",)


def _t1w_of(pet_file: Path, sessions: Sequence[_Session], times: Times) -> tuple[T1w, tuple[str, ...], float | None]:
    """Return the T1w that goes with a PET, a sentence if it is that of another session, and the days between them."""
    if not sessions:
        raise MissingInputError("there is no T1w in any session of this participant, and the PET needs one")
    t1ws = {session.label: session.t1w for session in sessions}
    own = name_parts(pet_file)[0].get("ses")
    nearest = Nearest(own) if own in t1ws else nearest_session(own, t1ws, times.order)
    t1w = t1ws[nearest.session]
    if isinstance(t1w, Problem):
        raise DamagedFileError(f"its T1w cannot be used: {t1w.message}")
    days = times.order.days_between_files(t1w.path, pet_file) if times.dated else None
    return t1w, nearest.sentences, nearest.days if days is None else days


def _scan(
    pet_file: Path, t1w: T1w, about_t1w: tuple[str, ...], days_from_t1w: float | None, stated: Mapping[str, Any]
) -> Scan:
    entities = entities_of(pet_file)
    # From the header: cheap, and it finds files that are empty, cut off or no images.
    n_frames = math.prod(read_head_shape(pet_file)[3:])
    metadata, corrections = corrected_pet_metadata(stated, entities)
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
        days_from_t1w=days_from_t1w,
    )
