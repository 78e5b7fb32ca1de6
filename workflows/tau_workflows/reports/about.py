"""Record of how the outputs of a participant were made: command, settings, versions, date, and minutes."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import tau_pipeline
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_json, write_json
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Settings
from tau_workflows.reports.methods import PACKAGES, package_version

#: Of the section ``[execution]``: settings that change what the pages show.
_SHOWN = ("suvr_scale",)


def about_path(output_dir: Path, participant: str) -> Path:
    """Return the file that says how the outputs of a participant were made."""
    return output_dir / "logs" / "about" / f"sub-{participant}.json"


def write_about(
    output_dir: Path, participant: str, command: str, settings: Settings, execution: Execution, minutes: float | None
) -> None:
    """Write how the outputs of a participant were made. The date stays if everything but the minutes is as before.

    Parameters
    ----------
    output_dir, participant
        Where, and for whom.
    command
        The command line.
    settings, execution
        Those of the run.
    minutes
        Duration of the run, all scans of the participant together; None if nothing was computed.
    """
    shown = {name: getattr(execution, name) for name in _SHOWN}
    content = {
        "CommandLine": command,
        "SettingsHash": settings.hash(),
        "Settings": _plain({**dataclasses.asdict(settings), **shown}),
        "SoftwareVersions": {
            "tau-pipeline": tau_pipeline.__version__,
            "Python": platform.python_version(),
            **{name: package_version(name) for name in PACKAGES},
        },
    }
    before = read_about(output_dir, participant)
    if minutes is None and {name: before.get(name) for name in content} == content:
        return
    date = datetime.now().astimezone().isoformat(timespec="minutes")
    write_json({**content, "Date": date, "Minutes": minutes}, about_path(output_dir, participant))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def read_about(output_dir: Path, participant: str) -> dict[str, Any]:
    """Return how the outputs of a participant were made; empty if that is not known."""
    with suppress(TauPipelineError):
        return read_json(about_path(output_dir, participant))
    return {}


def suvr_scale(about: Mapping[str, Any]) -> tuple[float, float]:
    """Return the ends of the color scale of SUVR; the default where they are not stated."""
    stated = about.get("Settings", {}).get("suvr_scale") if isinstance(about.get("Settings"), Mapping) else None
    try:
        low, high = (float(end) for end in stated or ())
    except (TypeError, ValueError):
        return Execution().suvr_scale
    return (low, high) if low < high else Execution().suvr_scale


def about_rows(about: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return what the page shows: facts of the run, settings, and versions, as text."""
    minutes = about.get("Minutes")
    facts = [
        ("Command", str(about.get("CommandLine") or "not recorded")),
        ("Date", str(about.get("Date", "not recorded"))),
        ("Time", f"{minutes:.1f} minutes" if isinstance(minutes, int | float) else "not recorded"),
        ("Settings (hash)", str(about.get("SettingsHash", "not recorded"))),
    ]
    own = {"Settings": about.get("Settings"), "Versions": about.get("SoftwareVersions")}
    tables = {
        name: [(str(key), _text(one)) for key, one in values.items()] if isinstance(values, Mapping) else []
        for name, values in own.items()
    }
    return {"Run": facts, **tables} if about else {}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "default" if value is None else str(value)
