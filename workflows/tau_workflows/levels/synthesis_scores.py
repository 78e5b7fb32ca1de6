"""Scores of synthetic scans, kept in the work folder, so that tables of agreement describe the scans of all calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_tsv, write_text

if TYPE_CHECKING:
    from tau_pipeline.synthesis.data.targets import Target
    from tau_pipeline.synthesis.evaluation.outputs import SynthesisContext
    from tau_pipeline.synthesis.evaluation.scores import ScanScores


def scores_folder(work_dir: Path, context: SynthesisContext) -> Path:
    """Return the folder for the scores of these models and settings; others have another one."""
    made_by = repr([context.ensemble.hash, context.settings_hash, context.synthesis, context.unknown_manufacturer])
    return work_dir / f"synthesis_scores_{hashlib.sha256(made_by.encode()).hexdigest()[:16]}"


def keep_scores(folder: Path, scores: Mapping[str, list[ScanScores]]) -> None:
    """Write the scores of scans, by their keys; those of an earlier call are replaced.

    Raises
    ------
    OutputError
        The folder cannot be written to.
    """
    for key, own in scores.items():
        for number, one in enumerate(own):
            for item in fields(one):
                # With all digits: a correlation of values that hardly vary depends on the last ones.
                text = getattr(one, item.name).to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.17g")
                write_text(text, folder / f"{key}_{number}_{item.name}.tsv")


def with_kept(
    folder: Path, scores: Mapping[str, list[ScanScores]], targets: Iterable[Target]
) -> dict[str, list[ScanScores]]:
    """Return the scores of all scans, of which some are known and the others may have been kept by other calls.

    Parameters
    ----------
    folder
        As `scores_folder` gives it.
    scores
        Of this call.
    targets
        All scans, in the order of the answer. One whose scores are not there, damaged, or older than its map or a
        measured map is left out.
    """
    found = {}
    for target in targets:
        key = target.names.key
        own = scores[key] if key in scores else _kept(folder, target)
        if own:
            found[key] = own
    return found


def _kept(folder: Path, target: Target) -> list[ScanScores]:
    from tau_pipeline.synthesis.evaluation.scores import ScanScores

    found = []
    maps = [target.names.suvr(), *(pair.suvr_file for pair in target.measured)]
    for number in range(len(target.measured)):
        files = {item.name: folder / f"{target.names.key}_{number}_{item.name}.tsv" for item in fields(ScanScores)}
        try:
            last = min(path.stat().st_mtime_ns for path in files.values())
            if any(path.stat().st_mtime_ns > last for path in maps):
                return []
            found.append(ScanScores(**{name: read_tsv(path) for name, path in files.items()}))
        except (OSError, TauPipelineError):
            return []
    return found
