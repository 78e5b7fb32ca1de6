"""Names of folders and images that are nearly those of BIDS, so that what they hold would be missed without a word."""

from __future__ import annotations

import re

#: ``Sub-01``, ``sub_02``, ``sub03``, ``subject-4``, ``sub-01_old``; but not ``subjects``.
_PARTICIPANT = re.compile(r"\W*sub(j|ject)?([-_ .].*|\d.*)", re.IGNORECASE)
#: ``Ses-1``, ``ses_1``, ``session1``.
_SESSION = re.compile(r"\W*ses(s|sion)?([-_ .].*|\d.*)", re.IGNORECASE)
#: ``PET``, ``Anat``, ``anat_old``, ``MRI``; but not ``mrs``, which BIDS has.
_DATATYPE = re.compile(r"\W*(anat|anatomy|anatomical|pets?|mri?|t1w?|mprage)([^a-z].*)?", re.IGNORECASE)
#: What stands in the place of ``T1w`` or ``pet`` at the end of a name.
_SUFFIX = re.compile(r"t1w?|t1weighted|(t1)?-?mprage|pet", re.IGNORECASE)


def participant_like(folder: str) -> bool:
    """Return whether a folder beside those of participants looks like one of them.

    Examples
    --------
    >>> [participant_like(name) for name in ("Sub-01", "sub_02", "subject3", "sub-01_old", "subjects", "sourcedata")]
    [True, True, True, True, False, False]
    """
    return _PARTICIPANT.fullmatch(folder) is not None


def folder_like(folder: str) -> bool:
    """Return whether a folder of a participant or session looks like one of a session, of anatomy, or of PET.

    Examples
    --------
    >>> [folder_like(name) for name in ("PET", "Anat", "ses_1", "mri", "perf", "mrs", "func")]
    [True, True, True, True, False, False, False]
    """
    return (_SESSION.fullmatch(folder) or _DATATYPE.fullmatch(folder)) is not None


def image_like(suffix: str) -> bool:
    """Return whether the end of an image's name looks like ``T1w`` or ``pet``.

    Examples
    --------
    >>> [image_like(suffix) for suffix in ("t1w", "T1", "MPRAGE", "PET", "T2w", "T1map")]
    [True, True, True, True, False, False]
    """
    return _SUFFIX.fullmatch(suffix) is not None
