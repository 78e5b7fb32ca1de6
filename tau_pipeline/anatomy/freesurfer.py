"""Find the FreeSurfer or FastSurfer results of a participant, given with ``-d freesurfer=PATH``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import ImageError, MissingInputError, RegistrationError, SettingError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.rigid import Rigid, register_rigid
from tau_pipeline.imaging.transforms import displacement_mm
from tau_pipeline.imaging.volume import Volume, image_like, image_on, require_same_grid, same_grid, voxel_size_mm
from tau_pipeline.settings.configuration import unknown_name

#: What ``-d NAME=PATH`` may name; both mean a subjects folder in FreeSurfer's layout.
_DERIVATIVE_NAMES = ("freesurfer", "fastsurfer")

#: Label files, the best one first. The first has all 34 Desikan-Killiany regions a side, the others the 31 of DKT.
_LABEL_FILES = (
    "aparc+aseg.mgz",
    "aparc.DKTatlas+aseg.mapped.mgz",
    "aparc.DKTatlas+aseg.mgz",
    "aparc.DKTatlas+aseg.deep.mgz",
)
#: Images of the brain on the grid of the labels, the best one for a registration first.
_BRAIN_FILES = ("brain.mgz", "norm.mgz", "brainmask.mgz", "orig_nu.mgz", "T1.mgz", "orig.mgz")
#: Those of them that are zero outside the brain, and FastSurfer's own mask before them.
_MASK_FILES = ("mask.mgz", "brainmask.mgz", "brain.mgz", "norm.mgz")

_DKT_SENTENCE = (
    "The labels of {name} follow the DKT protocol, which has no bankssts, frontalpole and temporalpole "
    "(Klein and Tourville 2012, Front Neurosci 6:171); these rows are empty."
)


@dataclass(frozen=True)
class FreeSurferFiles:
    """Files used of one subject folder. All three are on one grid; ``mask_file`` is above 0 inside the brain."""

    subject_dir: Path
    labels_file: Path
    brain_file: Path
    mask_file: Path
    assumptions: tuple[str, ...] = ()


def parse_derivatives(derivatives: Iterable[str]) -> dict[str, Path]:
    """Return the folders of ``-d NAME=PATH``, by name.

    Raises
    ------
    SettingError
        There is no ``=``, the name is not known, or a name comes twice.
    MissingInputError
        The path is not a folder.
    """
    found: dict[str, Path] = {}
    for text in derivatives:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise SettingError(f"derivatives is {text!r}; expected: NAME=PATH, for example freesurfer=/data/freesurfer")
        if name not in _DERIVATIVE_NAMES:
            raise SettingError(unknown_name("kind of derivatives", name, _DERIVATIVE_NAMES))
        if name in found:
            raise SettingError(f"derivatives has {name!r} twice; give each name once")
        if not Path(folder).is_dir():
            raise MissingInputError(f"{folder}, given for {name}, is not a folder")
        try:
            Path(folder, "..").stat()
        except OSError as exc:
            raise MissingInputError(f"cannot read {folder}, given for {name}: {exc.strerror or exc}") from exc
        found[name] = Path(folder).absolute()
    return found


def find_freesurfer(subjects_dir: Path, participant: str, session: str | None = None) -> FreeSurferFiles | None:
    """Find the FreeSurfer or FastSurfer results of a participant; return None if the folder has none.

    Looked for are ``sub-01_ses-a``, ``sub-01_ses-a.long.*``, ``sub-01/ses-a``, ``sub-01`` and ``01``, in this order.

    Raises
    ------
    MissingInputError
        There is a subject folder, but it lacks the labels or a brain image, or FreeSurfer has not ended: the run did
        not finish.
    """
    found = _subject_dirs(Path(subjects_dir), participant, session)
    if not found:
        return None
    subject_dir, *others = found
    labels = _first(subject_dir, _LABEL_FILES, "labels")
    assumptions = _state_of(subject_dir)
    if labels.name != _LABEL_FILES[0]:
        assumptions += (_DKT_SENTENCE.format(name=labels.name),)
    if session is not None and f"ses-{session}" not in str(subject_dir.relative_to(subjects_dir)):
        assumptions += (f"The labels of {subject_dir.name}, which names no session, were used for session {session}.",)
    if others:
        names = ", ".join(path.relative_to(subjects_dir).as_posix() for path in others)
        assumptions += (
            f"The labels of {subject_dir.relative_to(subjects_dir).as_posix()} were used, and not those of {names}.",
        )
    brain, mask = _first(subject_dir, _BRAIN_FILES, "brain image"), _first(subject_dir, _MASK_FILES, "brain mask")
    return FreeSurferFiles(subject_dir, labels, brain, mask, assumptions)


def _state_of(subject_dir: Path) -> tuple[str, ...]:
    """Return a sentence if FreeSurfer ended with an error.

    Raises
    ------
    MissingInputError
        It has not ended, so that labels may be of an earlier run, or may still change.
    """
    running = sorted((subject_dir / "scripts").glob("IsRunning*"))
    if running:
        raise MissingInputError(
            f"FreeSurfer is still running in {subject_dir}, or was killed there: {running[0]} exists. Wait for it or "
            "run it again; if the results are complete, remove that file"
        )
    if (subject_dir / "scripts" / "recon-all.error").exists():
        what = f"FreeSurfer ended with an error in {subject_dir.name} (scripts/recon-all.error)"
        return (f"{what}; its labels were used all the same: look at them.",)
    return ()


def why_not_found(subjects_dir: Path, participant: str, session: str | None = None) -> str:
    """Say that a subjects folder has no results of a participant, and what it has instead."""
    places = _places(subjects_dir, participant, session)
    start = "No FreeSurfer results of this T1w were found, and labels were made by tau-pipeline"
    if links := [path for path in places if path.is_symlink() and not path.exists()]:
        return f"{start}: {links[0]} is a broken link; fetch its content, or correct the link."
    if empty := [path for path in places if path.is_dir() and not any(path.glob("ses-*"))]:
        return f"{start}: {empty[0]} has no folder mri with results in it; run FreeSurfer or FastSurfer again."
    there = sorted(path.name for path in Path(subjects_dir).iterdir() if path.is_dir())
    similar = [name for name in there if participant.lower() in re.sub(r"[^a-z0-9]", "", name.lower())]
    shown = similar or there
    looked_for = ", ".join(path.relative_to(subjects_dir).as_posix() for path in places)
    has = ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "") or "no folder"
    return (
        f"{start}: {subjects_dir} has {has}, and none of {looked_for}. Rename or link the folder if it is that of this "
        "participant."
    )


def _places(subjects_dir: Path, participant: str, session: str | None) -> list[Path]:
    """Return where a participant's results may lie, the best place first.

    Raises
    ------
    MissingInputError
        There are several longitudinal results. Each has a separate template, so that the user must choose.
    """
    candidates = [subjects_dir / f"sub-{participant}", subjects_dir / participant]
    if session is None:
        return candidates
    own = f"sub-{participant}_ses-{session}"
    longitudinal = sorted(path for path in subjects_dir.glob(f"{own}.long.*") if (path / "mri").is_dir())
    if len(longitudinal) > 1 and not (subjects_dir / own / "mri").is_dir():
        names = ", ".join(path.name for path in longitudinal)
        raise MissingInputError(
            f"{subjects_dir} has several longitudinal results of {own}: {names}; keep one of them there"
        )
    return [subjects_dir / own, *longitudinal, candidates[0] / f"ses-{session}", *candidates]


def _subject_dirs(subjects_dir: Path, participant: str, session: str | None) -> list[Path]:
    return [folder for folder in _places(subjects_dir, participant, session) if (folder / "mri").is_dir()]


def _first(subject_dir: Path, names: tuple[str, ...], what: str) -> Path:
    for name in names:
        if (subject_dir / "mri" / name).is_file():
            return subject_dir / "mri" / name
    raise MissingInputError(
        f"{subject_dir}/mri has no {what} ({', '.join(names)}); rerun FreeSurfer or FastSurfer, or omit it"
    )


@dataclass(frozen=True)
class OnT1w:
    """FreeSurfer's labels and brain mask on the T1w grid, and the move that brought them there."""

    dseg: Volume
    mask: Volume
    rigid: Rigid


def labels_from_freesurfer(
    labels_file: str | os.PathLike[str],
    brain_file: str | os.PathLike[str] | None,
    t1w: Volume,
    t1w_mask: Volume | None = None,
    *,
    mask_file: str | os.PathLike[str] | None = None,
) -> OnT1w:
    """Bring FreeSurfer's or FastSurfer's labels of a head onto the grid of its T1w.

    FreeSurfer keeps scanner coordinates, so that the headers alone usually place them; a registration checks that, and
    replaces it where it is wrong.

    Parameters
    ----------
    labels_file
        ``aparc+aseg`` or alike, ``.mgz`` or NIfTI.
    brain_file
        ``brain.mgz``: skull-stripped T1w on the grid of the labels. Without it an image is made from the labels.
        An image with skull will do where ``mask_file`` is given.
    t1w
        3-D, full head or stripped.
    t1w_mask
        Brain mask on the T1w grid, where there is one; the labels must overlap it.
    mask_file
        Above 0 inside the brain, on the grid of ``brain_file``: FastSurfer's ``mask.mgz``.

    Raises
    ------
    RegistrationError
        The labels do not fit this T1w: another head, or a failed registration.
    GridMismatchError
        ``mask_file`` is not on the grid of ``brain_file``.
    """
    labels = load_volume(labels_file, 3)
    numbers = np.asanyarray(labels.dataobj)
    if not (numbers > 0).any():
        raise ImageError(f"{labels_file} holds no labels")
    brain = load_volume(brain_file, 3) if brain_file is not None else _brain_from_labels(labels)
    if mask_file is not None:
        brain = _stripped(brain, load_volume(mask_file, 3))
    rigid = _labels_to_t1w(brain, t1w)
    if not rigid.plausible:
        raise RegistrationError(f"{labels_file} does not fit the T1w: {rigid.reason}; check the participant")
    as_int = image_on(np.rint(numbers).astype(np.int32), labels.affine)
    dseg = as_int if same_grid(labels, t1w) and _is_still(rigid) else resample(as_int, t1w, rigid.matrix, "nearest")
    inside = image_on((np.asanyarray(brain.dataobj) > 0).astype(np.uint8), brain.affine)
    covered = np.asanyarray(resample(inside, t1w, rigid.matrix, "nearest").dataobj) > 0
    mask = _filled(covered | (np.asanyarray(dseg.dataobj) > 0), voxel_size_mm(t1w))
    _require_overlap(mask, t1w_mask, labels_file)
    return OnT1w(image_like(np.asanyarray(dseg.dataobj), t1w), image_like(mask.astype(np.uint8), t1w), rigid)


def _stripped(brain: Volume, mask: Volume) -> Volume:
    require_same_grid(brain=brain, mask=mask)
    return image_like(np.where(np.asanyarray(mask.dataobj) > 0, np.asanyarray(brain.dataobj), 0), brain)


def _is_still(rigid: Rigid) -> bool:
    return np.array_equal(rigid.matrix, np.eye(4))


def _brain_from_labels(labels: Volume) -> Volume:
    """Make a crude T1w from FreeSurfer numbers: white matter bright, gray matter darker, ventricles dark."""
    numbers = np.asanyarray(labels.dataobj)
    image = np.where(numbers > 0, 70, 0).astype(np.uint8)
    image[np.isin(numbers, (2, 41, 7, 46, 16, 77, 85, 28, 60)) | ((numbers >= 251) & (numbers <= 255))] = 110
    image[np.isin(numbers, (4, 43, 5, 44, 14, 15, 24, 31, 63))] = 30
    return image_on(image, labels.affine)


def _labels_to_t1w(brain: Volume, t1w: Volume) -> Rigid:
    """Move from the labels' world to the T1w's; the identity where a registration finds nothing better."""
    mask = image_on((np.asanyarray(brain.dataobj) > 0).astype(np.uint8), brain.affine)
    voxels = np.argwhere(np.asanyarray(mask.dataobj) > 0)[::997]
    points = voxels @ brain.affine[:3, :3].T + brain.affine[:3, 3]
    # the stripped image is the fixed one: its mask is known, and the T1w may have a skull
    found = register_rigid(t1w, brain, mask, search="near", contrast="same, refined")
    if not found.plausible or found.metric < _SAME_HEAD_NMI:
        found = register_rigid(t1w, brain, mask, contrast="same, refined")
    matrix = np.linalg.inv(found.matrix).astype(np.float64)
    if displacement_mm(matrix, np.eye(4), points).mean() < 0.5 * float(voxel_size_mm(brain).min()):
        matrix = np.eye(4)
    reason = found.reason
    if not reason and found.metric < _SAME_HEAD_NMI:
        reason = f"the normalized mutual information is {found.metric:.3f}, and one head gives {_SAME_HEAD_NMI} or more"
    return Rigid(matrix, found.metric, found.starts, not reason, reason)


#: Two T1w-like images of one head share more than this, those of two heads less: in our trials 1.20 and more, with the
#: crude image made from labels too, and 1.064 and 1.095.
_SAME_HEAD_NMI = 1.15


def _filled(mask: NDArray[np.bool_], voxel_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask without holes and without clefts narrower than about 4 mm."""
    steps = max(1, round(2.0 / float(voxel_mm.min())))
    padded = np.pad(mask, steps)
    closed = ndimage.binary_closing(padded, iterations=steps)
    inner = tuple(slice(steps, -steps) for _ in range(3))
    return ndimage.binary_fill_holes(closed)[inner]


def _require_overlap(mask: NDArray[np.bool_], t1w_mask: Volume | None, labels_file: str | os.PathLike[str]) -> None:
    if t1w_mask is None:
        return
    own = np.asanyarray(t1w_mask.dataobj) > 0
    dice = 2 * float((mask & own).sum()) / max(1, int(mask.sum() + own.sum()))
    if dice < 0.8:
        raise RegistrationError(
            f"the brain of {labels_file} and that of the T1w overlap with a Dice of {dice:.2f} only; 0.8 is needed: "
            "are both from the same participant?"
        )
