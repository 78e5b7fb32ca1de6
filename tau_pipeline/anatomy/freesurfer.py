"""Find the FreeSurfer or FastSurfer results of a participant, given with ``-d freesurfer=PATH``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.settings.configuration import unknown_name

#: What ``-d NAME=PATH`` may name; both mean a subjects folder in FreeSurfer's layout.
DERIVATIVE_NAMES = ("freesurfer", "fastsurfer")

#: Label files, the best one first. The first has all 34 Desikan-Killiany regions a side, the others the 31 of DKT.
LABEL_FILES = (
    "aparc+aseg.mgz",
    "aparc.DKTatlas+aseg.mapped.mgz",
    "aparc.DKTatlas+aseg.mgz",
    "aparc.DKTatlas+aseg.deep.mgz",
)
#: Images of the brain on the grid of the labels, the best one for a registration first.
BRAIN_FILES = ("brain.mgz", "norm.mgz", "brainmask.mgz", "orig_nu.mgz", "T1.mgz", "orig.mgz")
#: Those of them that are zero outside the brain, and FastSurfer's own mask before them.
MASK_FILES = ("mask.mgz", "brainmask.mgz", "brain.mgz", "norm.mgz")

DKT_SENTENCE = (
    "The labels of {name} follow the DKT protocol, which has no bankssts, frontalpole and temporalpole "
    "(Klein and Tourville 2012, Front Neurosci 6:171); these rows are empty."
)


@dataclass(frozen=True)
class FreeSurferFiles:
    """What is used of one subject folder. All three are on one grid; ``mask_file`` is above 0 inside the brain."""

    subject_dir: Path
    labels_file: Path
    brain_file: Path
    mask_file: Path
    assumptions: tuple[str, ...] = ()


def parse_derivatives(texts: Iterable[str]) -> dict[str, Path]:
    """The folders of ``-d NAME=PATH``, by name.

    Raises
    ------
    SettingError
        There is no ``=``, the name is not known, or a name comes twice.
    MissingInputError
        The path is not a folder.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise SettingError(f"derivatives is {text!r}; expected: NAME=PATH, for example freesurfer=/data/freesurfer")
        if name not in DERIVATIVE_NAMES:
            raise SettingError(unknown_name("kind of derivatives", name, DERIVATIVE_NAMES))
        if name in found:
            raise SettingError(f"derivatives has {name!r} twice; give each name once")
        if not Path(folder).is_dir():
            raise MissingInputError(f"{folder}, given for {name}, is not a folder")
        found[name] = Path(folder).absolute()
    return found


def find_freesurfer(subjects_dir: Path, participant: str, session: str | None = None) -> FreeSurferFiles | None:
    """The FreeSurfer or FastSurfer results of a participant, or None if the folder has none.

    Looked for are ``sub-01_ses-a``, ``sub-01_ses-a.long.*``, ``sub-01/ses-a``, ``sub-01`` and ``01``, in this order.

    Raises
    ------
    MissingInputError
        There is a subject folder, but it lacks the labels or a brain image: the run did not finish.
    """
    subject_dir = _subject_dir(Path(subjects_dir), participant, session)
    if subject_dir is None:
        return None
    labels = _first(subject_dir, LABEL_FILES, "labels")
    assumptions: tuple[str, ...] = ()
    if labels.name != LABEL_FILES[0]:
        assumptions += (DKT_SENTENCE.format(name=labels.name),)
    if session is not None and f"ses-{session}" not in str(subject_dir.relative_to(subjects_dir)):
        assumptions += (f"The labels of {subject_dir.name}, which names no session, were used for session {session}.",)
    brain, mask = _first(subject_dir, BRAIN_FILES, "brain image"), _first(subject_dir, MASK_FILES, "brain mask")
    return FreeSurferFiles(subject_dir, labels, brain, mask, assumptions)


def _subject_dir(subjects_dir: Path, participant: str, session: str | None) -> Path | None:
    candidates = [subjects_dir / f"sub-{participant}", subjects_dir / participant]
    if session is not None:
        own = f"sub-{participant}_ses-{session}"
        longitudinal = sorted(subjects_dir.glob(f"{own}.long.*"))
        candidates = [subjects_dir / own, *longitudinal, candidates[0] / f"ses-{session}", *candidates]
    return next((folder for folder in candidates if (folder / "mri").is_dir()), None)


def _first(subject_dir: Path, names: tuple[str, ...], what: str) -> Path:
    for name in names:
        if (subject_dir / "mri" / name).is_file():
            return subject_dir / "mri" / name
    raise MissingInputError(
        f"{subject_dir}/mri has no {what} ({', '.join(names)}); let FreeSurfer or FastSurfer finish, or leave it out"
    )
