"""Binding of tracers to other things than tau, and what follows for a scan."""

from __future__ import annotations

from dataclasses import dataclass

from tau_pipeline.atlas import tables_dir
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.derivatives.quality_checks import BY_NAME
from tau_pipeline.files import read_tsv


@dataclass(frozen=True)
class OffTarget:
    """Structure that a tracer binds to without tau."""

    tracer: str
    """As `tau_pipeline.bids.tracers.tracer_name` gives it."""
    structure: str
    regions: str
    """Regions of the table that it affects."""
    remark: str
    source: str


def off_target() -> tuple[OffTarget, ...]:
    """Return all structures of all tracers, from ``atlases/off_target.tsv``."""
    table = read_tsv(tables_dir() / "off_target.tsv").fillna("")
    return tuple(OffTarget(**row) for row in table.to_dict("records"))


def meningeal_note(tracer: str | None, meninges_suvr: float | None) -> str:
    """Return a sentence if the meninges of a scan have high uptake and its tracer binds to them; else an empty text.

    Parameters
    ----------
    tracer
        In any spelling.
    meninges_suvr
        Mean SUVR 2 to 6 mm outside the brain mask; None if it is not known.
    """
    name = tracer_name(tracer)
    known = next((one for one in off_target() if one.tracer == name and one.structure == "meninges"), None)
    check = BY_NAME["meninges_suvr"]
    if known is None or check.judge(meninges_suvr) in ("pass", "n/a"):
        return ""
    return (
        f"The SUVR 2 to 6 mm outside the brain is {meninges_suvr:.2f} (above {check.warn_above:g}), and {name} binds "
        f"to the meninges ({known.source}): it may raise the cortex and the cerebellum beside them. Compare with a "
        "reference region away from them (ADNIErodedWM, Pons), and with --pvc sgtm --pvc-extracerebral."
    )
