"""Tables and report of a comparison, from what its runs have left; can be made again at any time.

``runs.tsv`` (written by the comparison), then ``summary``, ``tests``, ``regions`` and ``settings`` as TSV and CSV, and
``report.html``, one file with everything in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tau_pipeline
from tau_pipeline.errors import MissingInputError, TauPipelineError
from tau_pipeline.files import read_json, read_tsv, write_changed, write_text
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.synthesis.comparison import figures
from tau_pipeline.synthesis.comparison.runs import BASELINES, CYCLIC, NO_LOSS
from tau_pipeline.synthesis.comparison.tables import (
    KEYS,
    REGIONAL,
    is_baseline,
    measures_of,
    more_is_better,
    not_beaten,
    paired_test_table,
    region_table,
    settings_in,
    summary_table,
    wide_table,
)
from tau_pipeline.table_text import table_text
from tau_workflows.reports import html

if TYPE_CHECKING:
    import pandas as pd

MISSING = "n/a"
#: Measures that the report's table has; the files have all.
IN_REPORT = ("ssim", "psnr", "ssim_axial", "psnr_axial", "mae", "regional_mae")
#: Digits of a measure in the report.
_DIGITS = {"psnr": 1, "psnr_axial": 1}
#: Significance level of the report, after Holm's correction.
_ALPHA = 0.05
#: Settings of the trainings that the report names first.
_TOLD = ("network_preset", "grid_voxel", "epochs", "batch_size", "learning_rate", "first_cycle", "augmentation")


def write_comparison_report(folder: Path, output_dir: Path) -> Path:
    """Write the tables and the report of a comparison; returns the report's path.

    Parameters
    ----------
    folder
        Of the comparison.
    output_dir
        The derivatives, where the drawn scans' images are.

    Raises
    ------
    MissingInputError
        There is no comparison, or none of its runs is done.
    DamagedFileError
        A table cannot be read.
    """
    folder = Path(folder)
    if not (folder / "comparison.json").is_file() or not (folder / "runs.tsv").is_file():
        raise MissingInputError(f"no comparison found in {folder}; run the comparison first")
    record, runs = read_json(folder / "comparison.json"), read_tsv(folder / "runs.tsv")
    done = runs[runs["state"] == "done"]
    if done.empty:
        reasons = [str(reason) for reason in runs["reason"].dropna()]
        raise MissingInputError(f"no run in {folder} is complete: {reasons[0] if reasons else 'none was started'}")
    scans, regions = (_stacked(folder, done["run"], name) for name in ("scans.tsv", "regions.tsv"))
    tables = {
        "runs": runs,
        "summary": summary_table(scans, regions),
        "tests": paired_test_table(scans),
        "regions": region_table(regions),
    }
    tables["settings"] = wide_table(tables["summary"], tables["tests"])
    for name, table in tables.items():
        for ending, separator, missing in (("tsv", "\t", MISSING), ("csv", ",", "")):
            text = table_text(table, separator, missing)
            write_changed(text, folder / f"{name}.{ending}")
    report = html.render(
        "comparison.html.jinja",
        record=record,
        facts=_facts(record, runs),
        warnings=_warnings(record, runs, scans, tables["settings"]),
        measures={name: heading for name, heading in measures_of(scans).items() if name in IN_REPORT} | REGIONAL,
        rows=_table_rows(tables["settings"], tables["tests"]),
        alpha=_ALPHA,
        figures=_figures(folder, output_dir, record, tables, scans=scans, regions=regions),
        runs=[{key: _text(value) for key, value in row.items()} for row in runs.to_dict("records")],
        failed=[row for row in runs.to_dict("records") if row["state"] != "done"],
        settings=sorted((name, _plain(value)) for name, value in record["training"].items()),
        version=tau_pipeline.__version__,
    )
    return write_text(report, folder / "report.html")


def _stacked(folder: Path, runs: Sequence[str], name: str) -> pd.DataFrame:
    import pandas as pd

    texts = ("participant_id", "session_id", "scan", "loss", "system", "diagnosis", "manufacturer")
    tables = [read_tsv(folder / "runs" / run / name, texts) for run in runs]
    table = pd.concat(tables, ignore_index=True)
    table["loss"] = table["loss"].fillna(NO_LOSS)
    return table.astype({text: "object" for text in texts if text in table})


def _text(value: Any, form: str = "") -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if form:
        return format(float(value), form)
    return f"{value:.4g}" if isinstance(value, float) and value != int(value) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _facts(record: Mapping[str, Any], runs: pd.DataFrame) -> list[tuple[str, str]]:
    """List what was compared, on whom, and how long it took."""
    trained = runs[runs["loss"].notna()]
    processor = trained[["training_processor_seconds", "scoring_processor_seconds"]].sum().sum()
    training = record["training"]
    names = {"systems": "Systems", "losses": "Losses", "target_scalings": "Scalings"}
    kept = "one fold for validation" if record["validation_fold"] else "no validation fold"
    facts = [(heading, ", ".join(map(figures.in_print, record[key]))) for key, heading in names.items()]
    facts.append(("Participants", f"{record['n_participants']}, {record['n_scans']} scans, {record['tracer']}"))
    facts.append(("Reference region", str(record["reference_region"])))
    facts.append(("Folds", f"{record['folds']}, {kept}; each participant is tested once"))
    facts.append(("Seed", f"{record['seed']} (folds, weights, order, augmentation)"))
    facts.append(("Training", "; ".join(f"{name} {_plain(training[name])}" for name in _TOLD if name in training)))
    facts.append(("Runs", f"{int((trained['state'] == 'done').sum())} of {len(trained)} done"))
    # A run that was interrupted counts from its last start on.
    facts.append(("CPU time", f"{processor / 60:.0f} CPU minutes, since the last start of each run"))
    return facts


def _baselines_text(settings: pd.DataFrame) -> list[str]:
    """Say for each baseline how many settings do not beat it."""
    unbeaten = list(not_beaten(settings).values())
    trained = int((settings["loss"] != NO_LOSS).sum())
    counts = {name: sum(name in names for names in unbeaten) for name in BASELINES}
    return [
        f"{count} of {trained} settings do not beat the {name} in SSIM, mean absolute error, regional error, and "
        "correlation over participants: they say no more about a participant than this simple predictor."
        for name, count in counts.items()
        if count
    ]


def _warnings(record: Mapping[str, Any], runs: pd.DataFrame, scans: pd.DataFrame, settings: pd.DataFrame) -> list[str]:
    """List what a reader should know before the figures are used, in sentences."""
    said = _baselines_text(settings)
    if record["simulated"]:
        said.append("The participants are simulated: the results do not show how a method performs on real data.")
    if "3d" in record["losses"] and record["volume_features"] == "random":
        said.append(
            "The feature network of the loss + 3D has random weights: it is not the 3-D loss of the paper, and the "
            "results do not apply to that loss."
        )
    if record["training"].get("perceptual_features") == "random":
        said.append("The feature network of the losses + 2.5D and + cyclic 2.5D has random weights, not VGG-16's.")
    failed = int((runs["state"] != "done").sum())
    if failed:
        said.append(
            f"{failed} of {len(runs)} runs failed; their settings are based on fewer participants or are missing."
        )
    n_people = int(scans["participant_id"].nunique())
    said.append(
        f"Tests are over {n_people} held-out participants. Participants of one fold share a model, and every training "
        "was done with one seed: these p values do not include the variance between trainings."
    )
    return said


def _table_rows(settings: pd.DataFrame, tests: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per setting: mean and SD of each measure, and how it compares with the cyclic loss."""
    against = tests[tests["contrast"] == "loss"].set_index(["measure", *KEYS])
    rows = []
    for row in settings.to_dict("records"):
        key = tuple(row[name] for name in KEYS)
        cells: dict[str, dict[str, str]] = {}
        for measure in (*IN_REPORT, *REGIONAL):
            if f"{measure}_mean" not in row:
                continue
            digits = _DIGITS.get(measure, 3)
            mean, sd = (_text(row[f"{measure}_{part}"], f".{digits}f") for part in ("mean", "sd"))
            found = against.loc[(measure, *key)] if (measure, *key) in against.index else None
            cells[measure] = {"value": f"{mean} ± {sd}", **_verdict(measure, found)}
        rows.append(
            {
                **{name: figures.in_print(str(row[name])) for name in KEYS},
                "loss": "" if row["loss"] == NO_LOSS else figures.in_print(str(row["loss"])),
                "cells": cells,
                "n": row["n_participants"],
                "baseline": is_baseline(str(row["system"])),
                "cyclic": row["loss"] == CYCLIC,
            }
        )
    return rows


def _verdict(measure: str, found: pd.Series | None) -> dict[str, str]:
    """Describe the p-value of a test, and say whether the setting is better or worse than the cyclic loss."""
    if found is None or not math.isfinite(found["p_holm"]):
        return {"p": "", "verdict": ""}
    p = float(found["p_holm"])
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    if p >= _ALPHA:
        return {"p": text, "verdict": ""}
    better = (found["mean_difference"] > 0) == more_is_better(measure)
    return {"p": text, "verdict": "better" if better else "worse"}


def _figures(
    folder: Path,
    output_dir: Path,
    record: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    *,
    scans: pd.DataFrame,
    regions: pd.DataFrame,
) -> list[dict[str, str]]:
    """Draw all figures of the report, in order."""
    loss = CYCLIC if CYCLIC in record["losses"] else record["losses"][0]
    found = [_figure("Scores", _SCORES_HINT, figures.scores_figure(tables["summary"]), "scores")]
    for target_scaling in record["target_scalings"]:
        for scan in record["drawn"]:
            found.append(_panels(folder, output_dir, record, scans, scan=scan, target_scaling=target_scaling))
    present = {key[1:] for key in settings_in(scans)}
    for target_scaling in record["target_scalings"]:
        if (loss, target_scaling) not in present:
            continue
        title = f"Percentiles of cortical SUVR, {figures.in_print(loss)}, {target_scaling}"
        drawn = figures.percentiles_figure(scans, loss, target_scaling)
        found.append(_figure(title, _PERCENTILES_HINT, drawn, "percentiles"))
    for target_scaling in record["target_scalings"][:1]:
        own = regions[(regions["loss"] == loss) & (regions["target_scaling"] == target_scaling)]
        agreement = tables["regions"]
        agreement = agreement[(agreement["loss"] == loss) & (agreement["target_scaling"] == target_scaling)]
        if own.empty:
            continue
        for value, what, scale in _PAINTED:
            title = f"{what}, {figures.in_print(loss)}, {target_scaling}"
            drawn = figures.regions_figure(own, agreement, value, what, scale)
            found.append(_figure(title, _REGIONS_HINT, drawn, "regions"))
    return found


_SCORES_HINT = (
    "Mean and standard deviation over held-out participants (correlations: over cortical regions). Lines: baselines, "
    "which are the mean image of the training split, that of those with the same diagnosis, and the regional "
    "regression."
)
_PANELS_HINT = "A held-out scan: T1w, measured SUVR, and the prediction of each system and loss with its error."
_PERCENTILES_HINT = (
    "One point per held-out scan. Systems that miss regions of high SUVR are low at the 99th percentile."
)
_REGIONS_HINT = "Left: all cortical regions of all held-out participants. Right: each region across participants."
#: What is painted on the cortex: column, label, scale.
_PAINTED = (
    ("regional_r", "Correlation over participants (r)", (-1.0, 1.0)),
    ("bias", "Mean of synthetic minus measured SUVR", (-0.5, 0.5)),
)


def _figure(title: str, hint: str, figure: Any, kind: str) -> dict[str, str]:
    return {"title": title, "hint": hint, "kind": kind, "source": _webp_uri(figure), "problem": ""}


def _webp_uri(figure: Any) -> str:
    """Return a figure as a data URI of lossless WebP: half of the size of PNG, and there are many pictures here."""
    import base64
    import io

    from PIL import Image

    png = base64.b64decode(html.figure_uri(figure).partition(",")[2])
    with Image.open(io.BytesIO(png)) as full, io.BytesIO() as small:
        full.convert("RGB").save(small, "WEBP", lossless=True, quality=80, method=4)
        return "data:image/webp;base64," + base64.b64encode(small.getvalue()).decode("ascii")


def _panels(
    folder: Path,
    output_dir: Path,
    record: Mapping[str, Any],
    scans: pd.DataFrame,
    *,
    scan: str,
    target_scaling: str,
) -> dict[str, str]:
    """Draw T1w, measured and synthetic of one scan; say so where an image is missing."""
    about = record["drawn"][scan]
    title = f"{scan} ({about['diagnosis']}, {about['manufacturer']}), {target_scaling}"
    own = scans[(scans["scan"] == scan) & (scans["target_scaling"] == target_scaling) & (scans["loss"] != NO_LOSS)]
    synthetic, scores = {}, {}
    try:
        for row in own.itertuples():
            run = f"{row.system}_{row.loss}_{target_scaling}_fold{row.fold}"
            synthetic[row.system, row.loss] = load_volume(folder / "runs" / run / "maps" / f"{scan}.nii.gz", ndim=3)
            scores[row.system, row.loss] = float(row.ssim), float(row.psnr)
        images = {name: load_volume(output_dir / about[name], ndim=3) for name in ("t1w", "mask", "suvr")}
        drawn = figures.DrawnScan(title, images["t1w"], images["mask"], images["suvr"], synthetic, scores)
        what = f"SSIM and PSNR on the volume in the brain, data range {record['data_range']:g} SUVR"
        figure = figures.panels_figure(drawn, record["systems"], record["losses"], what)
    except TauPipelineError as exc:
        return {"title": title, "hint": "", "kind": "panels", "source": "", "problem": str(exc)}
    return _figure(title, f"{_PANELS_HINT} {_baselines_of_scan(scans, scan, target_scaling)}", figure, "panels")


def _baselines_of_scan(scans: pd.DataFrame, scan: str, target_scaling: str) -> str:
    """Return the scores of the baselines on a scan, in a sentence, for beside those of the models in the picture."""
    own = scans[(scans["scan"] == scan) & (scans["target_scaling"] == target_scaling)]
    own = own[own["system"].map(is_baseline)]
    scores = [f"{row.system} {row.ssim:.3f}, {row.psnr:.1f} dB" for row in own.itertuples()]
    return f"SSIM and PSNR of the baselines on this scan: {'; '.join(scores)}." if scores else ""
