"""Filters of a dataset's files, as ``--bids-filter-file`` gives them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import (
    SettingError,
)
from tau_pipeline.files import read_json
from tau_pipeline.settings.configuration import unknown_name

if TYPE_CHECKING:
    pass


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
