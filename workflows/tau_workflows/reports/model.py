"""Write the page of a trained model, from the files in its folder."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tau_pipeline
from tau_pipeline.figures.training import regional_figure
from tau_pipeline.files import read_json, write_text
from tau_workflows.reports import html

#: In the folder of the model.
PAGE = "report.html"
#: Pictures that the training leaves, and their headings.
_PICTURES = {"learning_curves.png": "Learning curves", "test_samples.png": "Held-out scans"}


def write_model_report(folder: Path) -> Path:
    """Write ``report.html`` into a model folder; returns its path.

    Parameters
    ----------
    folder
        Of the model, with its card, and with the tables of the held-out scans where somebody was held out.

    Raises
    ------
    DamagedFileError
        A file of the folder cannot be read.
    """
    # Only here: these load torch, which other pages do without.
    from tau_pipeline.synthesis.data.covariates import UNUSED
    from tau_pipeline.synthesis.model.baseline_scores import HeldOut
    from tau_pipeline.synthesis.model.calibration import Calibration
    from tau_pipeline.synthesis.model.card import CARD
    from tau_pipeline.synthesis.training.source import limits_of_source

    folder = Path(folder)
    card = read_json(folder / CARD)
    held_out, calibration = HeldOut.from_card(card["figures"]), Calibration.load(folder)
    text = html.render(
        "model.html.jinja",
        model=folder.name,
        card=card,
        facts=_facts(card),
        held_out=held_out,
        source_limits=limits_of_source(card["figures"].get("started_from")),
        unused=[sentence for sentence in card["limits"] if sentence.startswith(UNUSED)],
        rows=[] if held_out is None else _rows(held_out),
        pictures=_pictures(folder),
        calibration=calibration.describe()
        if calibration
        else "No validation split: the uncertainty is not calibrated.",
        settings=sorted((name, _plain(value)) for name, value in card["settings"].items()),
        version=tau_pipeline.__version__,
    )
    return write_text(text, folder / PAGE)


def _facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what the model is and what it was trained on."""
    figures = card["figures"]
    epochs = figures.get("epochs", "?")
    how = figures.get("choice") or f"{epochs} epoch{'' if epochs == 1 else 's'}"
    voxel = " × ".join(f"{side:g}" for side in card["grid"]["voxel_mm"])
    facts = [
        ("Network", f"{card['network']}, {card['n_parameters']:,} parameters"),
        ("Training", f"{how}, {len(card['training_participants'])} participants, seed {card['seed']}"),
        ("Grid", f"voxels of {voxel} mm"),
        ("Tracer, reference region", f"{card['tracer'] or 'n/a'}, {card['reference_region'] or 'n/a'}"),
        ("Manufacturers", ", ".join(card["manufacturers"]) or "n/a"),
        ("Created", f"{card['created'][:10]}, version {card['code_version']}, torch {card['torch_version']}"),
    ]
    if card["settings"].get("start_from") == "regression":
        share = f"{card['level_weight']:.0%} of its correction of regional means is used"
        facts.insert(1, ("Starts from", f"the map of the regional regression; {share}"))
    return facts


def _rows(held_out: Any) -> list[dict[str, Any]]:
    """Return one row per predictor, its figures as text, with the best of each column marked."""
    from tau_pipeline.synthesis.model.baseline_scores import MEASURES

    best = {}
    for key, (_, more) in MEASURES.items():
        known = [own[key] for own in held_out.figures.values() if own.get(key) is not None]
        best[key] = (max(known) if more else min(known)) if known else None
    return [
        {
            "name": name,
            "cells": [
                {"text": "n/a", "best": False}
                if own.get(key) is None
                else {"text": f"{own[key]:.3f}", "best": own[key] == best[key]}
                for key in MEASURES
            ],
        }
        for name, own in held_out.figures.items()
    ]


def _pictures(folder: Path) -> list[tuple[str, str]]:
    """Return headings and pictures, as data URIs."""
    from tau_pipeline.synthesis.model.baseline_scores import BASELINES, MODEL
    from tau_pipeline.synthesis.model.map_scores import HeldOutTables

    found, tables = [], HeldOutTables.load(folder)
    if tables is not None and tables.regions["measured"].notna().any():
        present = [name for name in BASELINES if (tables.scans["predictor"] == name).any()]
        figure = regional_figure(tables.scans, tables.regions, (MODEL, *present))
        found.append(("Regional SUVR", html.figure_uri(figure)))
    for name, heading in _PICTURES.items():
        path = folder / "figures" / name
        if path.is_file():
            content = base64.b64encode(path.read_bytes()).decode("ascii")
            found.append((heading, f"data:image/png;base64,{content}"))
    return found


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) or "n/a" if isinstance(value, list) else "n/a" if value is None else str(value)
