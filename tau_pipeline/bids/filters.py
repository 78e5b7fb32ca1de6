"""Filters of a dataset's files, as ``--bids-filter-file`` gives them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import SettingError
from tau_pipeline.files import name_parts, read_json
from tau_pipeline.settings.configuration import unknown_name

if TYPE_CHECKING:
    from tau_pipeline.bids.scans import Participant
    from tau_pipeline.settings.participant import Selection


#: Names that fMRIPrep and PETPrep know in a filter file; only t1w and pet mean something here.
_FILTER_NAMES = ("t1w", "pet", "bold", "sbref", "fmap", "flair", "t2w", "roi", "dwi", "asl", "anat", "xfm")


def read_filters(bids_filter_file: Path | None) -> dict[str, dict[str, Any]]:
    """Read the pybids filters of a ``--bids-filter-file``, for ``t1w`` and ``pet``.

    As in fMRIPrep, ``null`` means that the entity is absent, ``"*"`` that it is there whatever its value, and the
    texts ``"Query.NONE"``, ``"Query.ANY"`` and ``"Query.OPTIONAL"`` are pybids' own.
    """
    filters: dict[str, dict[str, Any]] = {"t1w": {}, "pet": {}}
    if bids_filter_file is None:
        return filters
    from bids.layout import Query

    special = {None: Query.NONE, "*": Query.ANY} | {f"Query.{q.name}": q for q in Query}
    for name, wanted in read_json(bids_filter_file).items():
        if name not in _FILTER_NAMES:
            raise SettingError(f"{bids_filter_file}: {unknown_name('filter', name, filters)}")
        if not isinstance(wanted, dict):
            raise SettingError(
                f"{bids_filter_file}: the filter {name!r} is {wanted!r}; expected: a JSON object {{...}}"
            )
        if name in filters:
            filters[name] = {
                key: special.get(value, value) if isinstance(value, str | None) else value
                for key, value in wanted.items()
            }
    return filters


def without_match(participants: Iterable[Participant], selection: Selection) -> list[str]:
    """Say which labels of a selection no image of the participants has.

    Parameters
    ----------
    participants
        As `tau_pipeline.bids.scans.find_participants` gives them for the selection.
    selection
        Labels of participants are not looked at: `find_participants` refuses those that do not exist.
    """
    asked = {
        "ses": selection.session_label,
        "trc": selection.tracer_label,
        "rec": selection.rec_label,
        "run": selection.run_label,
    }
    if not any(asked.values()):
        return []
    there: dict[str, set[str]] = {name: set() for name in asked}
    for participant in participants:
        keys = [name_parts(Path(problem.key))[0] for problem in participant.problems]
        t1ws = [{"ses": t1w.session} for t1w in participant.t1ws if t1w.session is not None]
        for entities in (*(scan.entities for scan in participant.scans), *keys, *t1ws):
            for name, found in there.items():
                found.add(_plain(name, entities.get(name, "")))
    lost = [f"{name}-{one}" for name, own in asked.items() for one in own if _plain(name, one) not in there[name]]
    return [f"no scan of the selected participants has {', '.join(lost)}"] if lost else []


def _plain(name: str, label: str) -> str:
    return label.lstrip("0") if name == "run" else label
