"""Thickness of the cortex of all participants, from the tables of the T1w images that have surfaces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tau_pipeline.cohort.demographics import Demographics
from tau_pipeline.derivatives.index import find_outputs
from tau_pipeline.derivatives.names import scan_entities
from tau_pipeline.errors import DamagedFileError
from tau_pipeline.files import read_tsv

if TYPE_CHECKING:
    import pandas as pd

THICKNESS_TABLE = "thickness_rois"
_KEYS = ("participant_id", "session_id", "region", "hemisphere")


def stack_thickness(
    output_dir: Path, bids_dir: str | os.PathLike[str], demographics: Demographics
) -> pd.DataFrame | None:
    """Return the tables of thickness of all T1w images below each other, with age, sex, and diagnosis.

    Whether the PET of a participant is included makes no difference. Participants whose folder is no longer in the
    dataset are left out; where none of them has one, it is not the dataset that the surfaces were made from, and all
    count.

    Parameters
    ----------
    output_dir, bids_dir
        Roots of the derivatives and of the raw dataset.
    demographics
        Of the participants and their sessions.

    Returns
    -------
    DataFrame or None
        None if no T1w has surfaces.

    Raises
    ------
    DamagedFileError
        A table cannot be read, or lacks a column.
    """
    import pandas as pd

    found = find_outputs(output_dir, "thickness")
    there = [path for path in found if (Path(bids_dir) / f"sub-{scan_entities(path)['sub']}").is_dir()]
    parts = []
    for path in there or found:
        table = read_tsv(path, _KEYS)
        missing = [name for name in (*_KEYS, "thickness_mean") if name not in table.columns]
        if missing:
            raise DamagedFileError(
                f"{path} has no column {', '.join(missing)}; run the participant level with --surfaces again"
            )
        parts.append(_with_demographics(table, demographics))
    return pd.concat(parts, ignore_index=True) if parts else None


def _with_demographics(table: pd.DataFrame, demographics: Demographics) -> pd.DataFrame:
    import pandas as pd

    session = table["session_id"].iloc[0]
    found = demographics.of(str(table["participant_id"].iloc[0]), None if pd.isna(session) else str(session))
    return table.assign(**found)
