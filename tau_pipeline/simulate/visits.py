"""Visits of one person over years: a known change of uptake and tissue, and the truth about it.

Tau grows in proportion to the uptake of the first visit, by the share of its group of regions in the annual change.
Cortex thins and ventricles widen with tau, as between people, and by an atrophy of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tau_pipeline.atlas import composites
from tau_pipeline.files import write_json, write_tsv
from tau_pipeline.imaging.volume import Affine
from tau_pipeline.simulate.heads import Head, HeadDraw, intensity
from tau_pipeline.simulate.pet import Pet

#: Share of the annual change in each group of regions: tau begins in the temporal lobe and reaches the rest later.
CHANGE_SHARE = {"metatemporal": 1.0, "other cortex": 0.5}
#: mm that the surface of the lateral ventricles moves out for each mm of cortex that atrophy takes. They take it from
#: the hippocampus and the amygdala too.
_VENTRICLES_PER_THINNING = 3.0
#: T1w at a later visit by another protocol: SD of the power of the contrast, SD of the logarithm of the coil's gain at
#: knots, range of the noise (white matter = 1), and the most blur by motion, SD in mm.
_POWER_SD, _COIL_SD, _NOISE, _BLUR_MM = 0.12, 0.16, (0.018, 0.05), 0.6
_FIRST_DAY = datetime(2020, 1, 15, 10)
_DAYS_OF_YEAR = 365.25


@cache
def groups_of_regions() -> dict[str, tuple[int, ...]]:
    """Return the labels of each group of `CHANGE_SHARE`; the hippocampus counts as temporal."""
    temporal = {17, 53, *composites()["metatemporal"]["both"]}
    cortex = {hemisphere + region for hemisphere in (1000, 2000) for region in range(1, 36) if region != 4}
    return {"metatemporal": tuple(sorted(temporal)), "other cortex": tuple(sorted(cortex - temporal))}


def grown_uptake(uptake: Mapping[int, float], percent_per_year: float, years: float) -> dict[int, float]:
    """Return uptake after some years: each group's has changed by its share of a percentage of the first per year."""
    factors = {
        code: 1 + CHANGE_SHARE[group] * percent_per_year / 100 * years
        for group, codes in groups_of_regions().items()
        for code in codes
    }
    return {code: value * factors.get(code, 1.0) for code, value in uptake.items()}


def with_years(head: HeadDraw, lost_mm: float) -> HeadDraw:
    """Return a head whose cortex has lost ``lost_mm`` of its thickness, with ventricles that have grown with it."""
    thinning = {code: lost + lost_mm for code, lost in head.thinning.items()}
    grown = min(head.ventricles_mm + _VENTRICLES_PER_THINNING * lost_mm, 6.0)
    return replace(head, thinning=thinning, ventricles_mm=grown)


def by_other_protocol(head: HeadDraw, rng: np.random.Generator) -> HeadDraw:
    """Return a head as another protocol, coil, and quiet lying would show it; the anatomy stays.

    Every intensity is raised to the same power, which moves gray matter against white matter and fluid; the noise, the
    coil's gain, and the blur by motion are new.
    """
    power = float(np.clip(rng.normal(1, _POWER_SD), 0.75, 1.25))
    shown = {code: (intensity(code) * own) ** power / intensity(code) for code, own in head.contrast.items()}
    return replace(
        head,
        contrast=shown,
        bias=rng.normal(0, _COIL_SD, head.bias.shape),
        noise=float(rng.uniform(*_NOISE)),
        gain=float(rng.uniform(350, 900)),
        blur_mm=float(rng.uniform(0, _BLUR_MM)),
    )


def visit_truth(head: Head, pet: Pet, years: float, percent_per_year: float, position: Affine | None) -> dict[str, Any]:
    """Return the truth about a visit of a simulated series, for its entry in scans.json.

    ``annual_change_percent`` is the change of the painted uptake, of that of the first visit. ``mean_suvr`` is the mean
    of the true map at the scanner's resolution over the true labels of the visit: what a scan without noise shows of
    it, which thinning of the cortex moves too.
    """
    labels, suvr = np.asanyarray(head.labels.dataobj), np.asanyarray(pet.suvr.dataobj)
    means = {group: float(suvr[np.isin(labels, codes)].mean()) for group, codes in _measured_groups().items()}
    return {
        "years": years,
        "annual_change_percent": {group: share * percent_per_year for group, share in CHANGE_SHARE.items()},
        "mean_suvr": means,
        "t1w2first": (np.eye(4) if position is None else position).tolist(),
    }


def _measured_groups() -> dict[str, tuple[int, ...]]:
    """Return the groups as tables have them: the meta-temporal composite is without the hippocampus."""
    return {**groups_of_regions(), "metatemporal": composites()["metatemporal"]["both"]}


def write_sessions(participant_dir: Path, sessions: tuple[str, ...]) -> None:
    """Write sessions.tsv of a participant: visits a year apart, with simulated dates."""
    import pandas as pd

    days = [_FIRST_DAY + timedelta(days=_DAYS_OF_YEAR * count) for count in range(len(sessions))]
    rows = {"session_id": [f"ses-{label}" for label in sessions], "acq_time": [day.isoformat() for day in days]}
    base = participant_dir / f"{participant_dir.name}_sessions"
    write_tsv(pd.DataFrame(rows), base.with_name(f"{base.name}.tsv"))
    about = {"acq_time": {"Description": "simulated date of the visit"}}
    write_json(about, base.with_name(f"{base.name}.json"))
