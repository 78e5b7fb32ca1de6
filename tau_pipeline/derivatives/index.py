"""The only reader of our own outputs: which files an output folder holds, and what is in them.

The patterns here are made from the names of `tau_pipeline.derivatives.names`, so a new entity of an output is stated
there alone. The states of scans are read by `tau_pipeline.derivatives.status`. See docs/decisions/one-reader.md.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.derivatives.compact import Compact
from tau_pipeline.derivatives.kept import Kept, mark_of, read_kept, write_kept
from tau_pipeline.derivatives.names import (
    AnatNames,
    PetNames,
    Source,
    SyntheticNames,
    derivative_folder,
    scan_entities,
    sidecar_path,
)
from tau_pipeline.derivatives.quality_check import Verdict
from tau_pipeline.derivatives.quality_checks import Quality, judge
from tau_pipeline.derivatives.quality_override import Decision, decided, read_decisions
from tau_pipeline.derivatives.read import read_regions, read_suvr_sidecar
from tau_pipeline.derivatives.stack import Stack, stack_tables
from tau_pipeline.errors import DamagedFileError, shown
from tau_pipeline.files import name_parts, read_json

if TYPE_CHECKING:
    import pandas as pd

Output = Literal[
    "t1w", "mask", "labels", "t1w_figure", "pet_figure",
    "thickness", "suvr", "further_suvr", "rois", "synthetic_suvr", "synthetic_rois", "agreement",
]  # fmt: skip
#: A label that stands for any label, and the names of a scan that has it.
_ANY = "ANY"
_ANAT = AnatNames(Path(), {"sub": _ANY})
_PET = PetNames(Path(), {"sub": _ANY})
_SYNTHETIC = SyntheticNames(Path(), {"sub": _ANY})
#: The outputs that are read again.
_PATHS: dict[Output, Path] = {
    "t1w": _ANAT.t1w,
    "mask": _ANAT.mask,
    "labels": _ANAT.dseg,
    "thickness": _ANAT.thickness_table,
    "t1w_figure": _ANAT.figure(_ANY),
    "pet_figure": _PET.figure(_ANY),
    "suvr": _PET.suvr(),
    "further_suvr": _PET.suvr(_ANY),
    "rois": _PET.rois,
    "synthetic_suvr": _SYNTHETIC.suvr(),
    "synthetic_rois": _SYNTHETIC.rois,
    "agreement": _SYNTHETIC.agreement,
}
#: A name of which every label is one that an output can have, without its ending.
_NAME = re.compile(r"sub-[0-9A-Za-z+]+(_[a-z]+-[0-9A-Za-z+]+)*_[0-9A-Za-z]+")


def find_outputs(output_dir: Path, output: Output, participant: str = "", *, sidecars: bool = False) -> list[Path]:
    """Return the files of one kind in an output folder, sorted.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    output
        Which output. ``suvr`` is the map of a scan's first reference region; maps of the others are ``further_suvr``.
    participant
        Label without ``sub-``; all participants if empty.
    sidecars
        Whether to return JSON sidecars in place of the files; either may exist without the other.
    """
    path = sidecar_path(_PATHS[output]) if sidecars else _PATHS[output]
    pattern = path.name.replace(_ANY, "?*")
    datatype, made = path.parent.name, name_parts(path)[0].keys() - scan_entities(path).keys()

    def is_output(found: Path) -> bool:
        """Return whether a file is where it belongs, and has no further entity, such as another ``space``."""
        if not _NAME.fullmatch(found.name.split(".", 1)[0]):
            return False
        own = scan_entities(found)
        return name_parts(found)[0].keys() - own.keys() == made and found.parent == derivative_folder(
            output_dir, own, datatype
        )

    expected = re.compile(fnmatch.translate(pattern))
    found = []
    for folder in _folders(Path(output_dir), participant, datatype):
        # Many participants have no folder of a datatype, and asking for each would take as long as listing it.
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            found += [Path(entry) for entry in entries if expected.match(entry.name)]
    return sorted(filter(is_output, found))


def _folders(output_dir: Path, participant: str, datatype: str) -> list[str]:
    """Return the folders of a datatype, of participants and of their sessions; all participants if none is given."""
    if not output_dir.is_dir():
        return []
    with os.scandir(output_dir) as entries:
        people = [one.path for one in entries if one.name.startswith("sub-") and (not participant or one.is_dir())]
    found = []
    for person in people:
        if participant and Path(person).name != f"sub-{participant}":
            continue
        with suppress(NotADirectoryError), os.scandir(person) as entries:
            for entry in entries:
                if entry.name == datatype:
                    found.append(entry.path)
                elif entry.name.startswith("ses-"):
                    found.append(f"{entry.path}/{datatype}")
    return found


class Place(NamedTuple):
    """Rows of a scan by one reference region in a stack of tables; the stack is None when it has been given back."""

    stack: Stack | None
    rows: NDArray[np.integer]
    region: str


@dataclass(eq=False)
class DoneScan:
    """A scan by one reference region: its SUVR map, the sidecar, and its rows of the table; each is read when needed.

    Attributes
    ----------
    names
        Of all files of the scan.
    further_region
        The reference region, if it is not the first of the scan.
    decisions
        Of people, about any scans.
    place
        Its rows in a stack of the tables of many scans; None if its own table is read.
    """

    names: PetNames | SyntheticNames
    further_region: str = ""
    decisions: list[Decision] = field(default_factory=list)
    place: Place | None = None

    @property
    def stem(self) -> str:
        """Start of the names of its files: ``sub-01_ses-a_trc-AV1451``."""
        return self.names.stem

    @property
    def key(self) -> str:
        """The name of the scan in the tables of the cohort, another for a synthetic scan than for the PET."""
        return f"{self.stem}_pet" if self.source == "measured" else f"{self.stem}_desc-synthSUVR"

    @property
    def source(self) -> Source:
        """Source of the SUVR: measured or synthetic."""
        return self.names.source

    @property
    def participant_id(self) -> str:
        """The label with ``sub-``."""
        return f"sub-{self.names.entities['sub']}"

    @cached_property
    def suvr_file(self) -> Path:
        """The SUVR map."""
        return self.names.suvr(self.further_region)

    @property
    def standardized_file(self) -> Path:
        """The map standardized by manufacturer."""
        return self.names.standardized(self.further_region)

    @cached_property
    def sidecar(self) -> Mapping[str, Any]:
        """The sidecar of the SUVR map, as it is; `find_scans` has it checked.

        Raises
        ------
        MissingInputError, DamagedFileError
            It does not exist or is not a JSON object.
        """
        return read_json(sidecar_path(self.suvr_file))

    def stated(self, key: str) -> Any:
        """Return a value of the sidecar; None for ``n/a``, an empty text, and a key that is not there."""
        value = self.sidecar.get(key)
        return None if value in (None, "", "n/a") else value

    @property
    def quality(self) -> Quality:
        """The quality checks of the sidecar, with the decisions of people. Checks that it lacks are not measured.

        They are made anew each time: those of a large cohort would take much memory.
        """
        stated = self.sidecar.get("QualityChecks")
        checks = [one for one in stated if isinstance(one, dict)] if isinstance(stated, list) else []
        # A decision about a scan is about the measured one; that from the T1w has its own name.
        name = self.key.removesuffix("_pet")
        return Quality(tuple(decided(checks or judge({}, self.source), self.decisions, name)))

    @cached_property
    def _judged(self) -> tuple[Verdict, bool]:
        quality = self.quality
        return quality.verdict, quality.excluded

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the quality checks; ``n/a`` if nothing was measured."""
        return self._judged[0]

    @property
    def excluded(self) -> bool:
        """True if a person excluded the scan by ``--exclude``."""
        return self._judged[1]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table of regions of the scan, with the rows of all reference regions (`read_regions`)."""
        return read_regions(self.names.rois)

    @property
    def reference_region(self) -> str:
        """The reference region by its name in the table."""
        if self.place is not None:
            return self.place.region
        return self.further_region or str(self.table["reference_region"].iloc[0])

    @property
    def session_id(self) -> str | None:
        """The session with ``ses-``; None for a scan outside of any."""
        return f"ses-{self.names.entities['ses']}" if "ses" in self.names.entities else None

    @property
    def rows(self) -> pd.DataFrame:
        """The rows of the table that are by its reference region."""
        if self.place is not None and self.place.stack is not None:
            return self.place.stack.take(self.place.rows)
        return self.table[self.table["reference_region"] == self.reference_region]

    @property
    def anat(self) -> AnatNames:
        """The names of the T1w on whose grid the map is, which the sidecar states; it may be of another session.

        Raises
        ------
        DamagedFileError
            The sidecar does not state a T1w of this participant in these derivatives.
        """
        stated, root = str(self.sidecar.get("SpatialReference")), self.names.output_dir
        path = root / stated.removeprefix("bids::")
        if stated.startswith(f"bids::{self.participant_id}/") and _NAME.fullmatch(path.name.split(".", 1)[0]):
            anat = AnatNames(root, scan_entities(path))
            if anat.t1w == path:
                return anat
        raise DamagedFileError(
            f"SpatialReference in {sidecar_path(self.suvr_file)} is {shown(self.sidecar.get('SpatialReference'))}; "
            f"expected: the T1w of these derivatives, bids::{self.participant_id}/…_desc-preproc_T1w.nii.gz; run the "
            "participant level again"
        )


def find_maps(output_dir: Path, exclude: Path | None = None) -> list[DoneScan]:
    """Return every measured SUVR map, sorted by name; nothing but the decisions about their quality is read.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    exclude
        As in `tau_pipeline.derivatives.quality_override.read_decisions`.
    """
    found, decisions = [], read_decisions(output_dir, exclude)
    for path in sorted(find_outputs(output_dir, "suvr") + find_outputs(output_dir, "further_suvr")):
        scan = DoneScan(PetNames.of(path), name_parts(path)[0]["desc"].removeprefix("suvr"), decisions)
        if scan.suvr_file == path:
            found.append(scan)
    return found


def rows_of(scans: Sequence[DoneScan]) -> tuple[pd.DataFrame, list[int]]:
    """Return the rows of scans one below the other, and how many each has."""
    import pandas as pd

    places = [scan.place for scan in scans if scan.place is not None]
    stacks = {id(place.stack): place.stack for place in places}
    stack = next(iter(stacks.values()), None)
    if len(places) == len(scans) and len(stacks) == 1 and stack is not None:
        return stack.take(np.concatenate([one.rows for one in places])), [len(one.rows) for one in places]
    parts = [scan.rows for scan in scans]
    return pd.concat(parts, ignore_index=True), list(map(len, parts))


def give_back_rows(scans: Iterable[DoneScan]) -> None:
    """Let go of the stack of tables, of which a large cohort has hundreds of megabytes.

    Rows of these scans are read from their own tables afterwards.
    """
    for scan in scans:
        if scan.place is not None:
            scan.place = Place(None, np.empty(0, np.int32), scan.place.region)


def find_scans(
    output_dir: Path, exclude: Path | None = None, kept_file: Path | None = None, new_file: Path | None = None
) -> list[DoneScan]:
    """Return every scan that has a table of regions, by each reference region of it, sorted by name and source.

    Tables and sidecars are read, and what the tables of the cohort take from them is checked.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    exclude
        As in `tau_pipeline.derivatives.quality_override.read_decisions`.
    kept_file
        Archive of `tau_pipeline.derivatives.kept`: files that have not changed since it was written are not read again.
    new_file
        Where the archive is written if anything has changed; in the place of ``kept_file`` if it is not given.

    Raises
    ------
    DamagedFileError
        A table or sidecar cannot be read, lacks a column, holds what the tables of the cohort cannot take, or is that
        of another participant.
    MissingInputError
        A table has no sidecar of its map beside it.
    """
    names_of: dict[Path, PetNames | SyntheticNames] = {
        **{path: PetNames.of(path) for path in find_outputs(output_dir, "rois")},
        **{path: SyntheticNames.of(path) for path in find_outputs(output_dir, "synthetic_rois")},
    }
    tables = {_inside(path, output_dir): path for path, names in sorted(names_of.items()) if names.rois == path}
    kept = read_kept(kept_file) if kept_file is not None else Kept()
    marks = {name: mark_of(path) for name, path in tables.items()}
    before = kept.marks
    kept = kept.without_changed(marks | {name: mark_of(Path(output_dir, name)) for name in kept.sidecars})
    stack = stack_tables(tables, kept.stack)
    found, decisions = [], read_decisions(output_dir, exclude)
    for name, path in tables.items():
        _check_owner(stack, name, path, names_of[path])
        for rank, (region, rows) in enumerate(stack.blocks(name)):
            scan = DoneScan(names_of[path], region if rank else "", decisions, Place(stack, rows, region))
            file = sidecar_path(scan.suvr_file)
            own = _inside(file, output_dir)
            known = kept.sidecar(own)
            marks[own] = kept.marks[own] if known is not None else mark_of(file)
            scan.sidecar = Compact(read_suvr_sidecar(file) if known is None else known, values=rank == 0)
            if kept_file is not None and known is None:
                kept.sidecars.add(own, json.dumps(dict(scan.sidecar)).encode())
            found.append(scan)
    if kept_file is not None and marks != before:
        kept.sidecars.keep(marks)
        write_kept(Kept(marks, stack, kept.sidecars), new_file or kept_file)
    return found


def _check_owner(stack: Stack, name: str, path: Path, names: PetNames | SyntheticNames) -> None:
    """Refuse a table whose rows are of another participant or session than its name, as in outputs merged by hand."""
    for entity, column in (("sub", "participant_id"), ("ses", "session_id")):
        own = {f"{entity}-{names.entities[entity]}"} if entity in names.entities else set()
        found = stack.texts(name, column)
        if found - own:
            raise DamagedFileError(
                f"{path} has rows with the {column} {', '.join(sorted(found - own))}, which is not that of its name; "
                f"run the participant level again for sub-{names.entities['sub']}"
            )


def _inside(path: Path, output_dir: Path) -> str:
    return path.relative_to(output_dir).as_posix()
