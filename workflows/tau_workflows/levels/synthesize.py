"""The synthesize level: synthetic SUVR for T1w derivatives, its tables, and agreement with measured PET."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.provenance import refuse_mixtures
from tau_pipeline.derivatives.columns import agreement_columns
from tau_pipeline.derivatives.dataset import write_bidsignore
from tau_pipeline.derivatives.names import error_path, sidecar_path
from tau_pipeline.derivatives.status import ScanStatus, note_interrupted, update_status
from tau_pipeline.derivatives.withdraw import withdraw
from tau_pipeline.errors import SettingError, TauPipelineError
from tau_pipeline.files import write_json, write_tsv
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.execution import Execution
from tau_pipeline.words import counted
from tau_workflows.execution import nipype_engine as engine
from tau_workflows.levels.call import (
    DONE,
    NOTHING_TO_DO,
    SOME_FAILED,
    check_call,
    diagnoses_of,
    exclusive_run,
    is_selected,
    read_people,
    say,
)
from tau_workflows.levels.interruption import raise_again
from tau_workflows.levels.synthesis_scores import keep_scores, scores_folder, with_kept
from tau_workflows.reports.methods import write_methods
from tau_workflows.reports.participant import write_participant_report

if TYPE_CHECKING:
    from nipype.pipeline import engine as pe
    from tqdm import tqdm

    from tau_pipeline.synthesis.data.pairs import Pair
    from tau_pipeline.synthesis.data.targets import Target
    from tau_pipeline.synthesis.evaluation.outputs import SynthesisContext
    from tau_pipeline.synthesis.evaluation.scores import Report, ScanScores
    from tau_pipeline.synthesis.model.baselines import TrainingStatistics
    from tau_pipeline.synthesis.model.calibration import Calibration
    from tau_pipeline.synthesis.model.ensemble import Ensemble


def run_synthesis(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Make synthetic SUVR for all selected T1w; returns the exit code.

    Parameters
    ----------
    bids_dir
        The raw dataset: ``participants.tsv`` states the diagnosis, for the baseline of the same diagnosis.
    output_dir
        What the participant level wrote; the synthetic maps go there too.
    config
        Read here: ``synthesis``; ``device`` of ``training``; ``participant_label`` and ``session_label``;
        ``unknown_manufacturer``, ``diagnosis_column``; ``random_seed``; ``work_dir``, ``mem_mb``, ``omp_nthreads``,
        ``nprocs``, ``use_plugin``, ``stop_on_first_crash``, ``verbose`` and ``dry_run``.

    Raises
    ------
    TauPipelineError
        The call or the model is wrong; nothing was written.
    """
    started = time.monotonic()
    bids_dir, output_dir = Path(bids_dir).absolute(), Path(output_dir).absolute()
    check_call(bids_dir, output_dir)
    folders = _model_folders(config.synthesis.model, output_dir)
    # Only here, so that a wrong call is answered before torch is loaded.
    import torch

    from tau_pipeline.synthesis.data.covariates import unread_text, with_covariates
    from tau_pipeline.synthesis.data.targets import ModelTarget, find_targets, measured_scans, still_there
    from tau_pipeline.synthesis.evaluation.outputs import SynthesisContext
    from tau_pipeline.synthesis.model.ensemble import load_ensemble, members_of, namesakes

    threads = config.execution.omp_nthreads or config.execution.nprocs
    if threads:
        torch.set_num_threads(threads)
    folders = tuple(member for folder in folders for member in members_of(folder))
    config = replace(config, synthesis=replace(config.synthesis, model=folders))
    ensemble = load_ensemble(folders)
    card = ensemble.first.card
    model_target = ModelTarget(tracer=card.tracer, reference_region=card.reference_region)
    people = read_people(bids_dir, config)
    diagnoses = diagnoses_of(people)
    measured = measured_scans(output_dir, model_target, diagnoses, config.group, bids_dir)
    refuse_mixtures(measured.mixed, allowed=config.group.allow_mixed_settings)
    pairs = with_covariates(measured.pairs, people)
    found = find_targets(output_dir, pairs, model_target, config.synthesis.synthesize, diagnoses)
    found, gone = still_there(with_covariates(found, people), bids_dir)
    unclear = namesakes(ensemble, (one.participant_id for one in found), output_dir)
    for sentence in (*unread_text(ensemble.covariate_names, people), *unclear, *measured.mixed, *gone):
        say(sentence)
    targets = [one for one in found if is_selected(one.names.entities["sub"], one.session, config.selection)]
    if not targets:
        say("nothing to do: every selected T1w already has a PET; use --synthesize all to include those too")
        return NOTHING_TO_DO
    context = SynthesisContext(
        ensemble=ensemble,
        output_dir=output_dir,
        settings_hash=config.settings.hash(),
        synthesis=config.synthesis,
        unknown_manufacturer=config.group.unknown_manufacturer,
        device=config.training.device,
        mem_mb=config.execution.mem_mb,
    )
    _check_manufacturers(targets, context)
    if config.execution.dry_run:
        for target in targets:
            say(f"would create {target.names.suvr()}")
        return DONE
    advice = "wait for it; one run makes any number of scans"
    labels = config.selection.participant_label or None
    work = (config.execution.work_dir.absolute(), "give another folder with --work-dir")
    # Files of the cache and measures of the model are named by their content and written as a whole: any run may.
    with exclusive_run("synthesize", (output_dir, advice), work, participants=labels):
        write_bidsignore(output_dir)
        context = _with_measures(context, pairs, config.execution.work_dir.absolute() / "synthesis_cache")
        return _run(targets, found, context, config, started)


def _model_folders(given: Sequence[Path], output_dir: Path) -> tuple[Path, ...]:
    """Return the folders of the models; where none is given, that of the regional regression, if it was trained."""
    if given:
        return tuple(Path(folder).absolute() for folder in given)
    folder = output_dir / "models" / "regression"
    if not (folder / "model.json").is_file():
        raise SettingError(
            "model is not given; expected: a model folder that the level train wrote (--model DIR). The level train "
            f"without further options fits a regional regression, which is found in {folder} without --model"
        )
    say(f"model is not given: {folder} is applied")
    return (folder,)


def _check_manufacturers(targets: Sequence[Target], context: SynthesisContext) -> None:
    """Refuse a call with which no scan at all can be made: no manufacturer, or one that the model does not know."""
    from tau_pipeline.synthesis.evaluation.outputs import manufacturer_of

    problems: list[TauPipelineError] = []
    for target in targets:
        try:
            manufacturer_of(target, context)
        except TauPipelineError as exc:
            problems.append(exc)
    if len(problems) == len(targets):
        raise problems[0]


def _with_measures(context: SynthesisContext, pairs: Sequence[Pair], cache_dir: Path) -> SynthesisContext:
    """Add calibration and training statistics: of the model folder, or found on the measured scans."""
    from tau_pipeline.synthesis.model.baseline_scores import unbeaten

    calibration = _calibration(context, pairs, cache_dir)
    if calibration is None:
        say("the uncertainty is not calibrated: there is no measured scan of the model's validation split")
    else:
        say(calibration.describe())
    for sentence in unbeaten(context.ensemble):
        say(f"warning: {sentence}")
    return replace(
        context, calibration=calibration, training_statistics=_training_statistics(context.ensemble, pairs, cache_dir)
    )


def _calibration(context: SynthesisContext, pairs: Sequence[Pair], cache_dir: Path) -> Calibration | None:
    from tau_pipeline.synthesis.model.calibration import Calibration, calibrate

    ensemble = context.ensemble
    if len(ensemble.folders) == 1 and context.synthesis.test_time_flips:
        stored = Calibration.load(ensemble.folders[0])
        if stored is not None and stored.models == ensemble.hash:
            return stored
    return calibrate(ensemble, pairs, cache_dir, context.synthesis, context.device, context.mem_mb)


def _training_statistics(ensemble: Ensemble, pairs: Sequence[Pair], cache_dir: Path) -> TrainingStatistics | None:
    from tau_pipeline.synthesis.model.baselines import TrainingStatistics, fit_training_statistics

    stored = TrainingStatistics.load(ensemble.folders[0])
    if stored is not None:
        return stored
    train = set(ensemble.first.card.training_participants)
    if not any(pair.participant_id in train for pair in pairs):
        say("no baselines: neither the model folder nor these derivatives hold the model's training images")
        return None
    return fit_training_statistics(ensemble.first, pairs, cache_dir)


@dataclass
class _Nodes(engine.NodeTimes):
    """Record of finished nodes, by the name of their scan; moves a progress bar."""

    bar: tqdm | None = None
    done: dict[str, pe.Node] = field(default_factory=dict)

    def __call__(self, node: pe.Node, status: str) -> None:
        if status == "exception":
            # Nipype takes an interruption for an error of the node.
            raise_again()
        super().__call__(node, status)
        if status == "end":
            self.done[_key(node)] = node
        if status != "start" and self.bar is not None:
            self.bar.update()


def _key(node: pe.Node) -> str:
    return str(node.inputs.target.names.key)


def _run(
    targets: Sequence[Target],
    everybody: Sequence[Target],
    context: SynthesisContext,
    config: Configuration,
    started: float,
) -> int:
    """Make the scans of targets; the tables of agreement are those of everybody whose scan has been made."""
    output_dir = context.output_dir
    nodes = _Nodes()
    try:
        _before(targets, output_dir)
        _execute_all(targets, context, config.execution, nodes)
    except KeyboardInterrupt:
        _tell_states(targets, nodes, _failures(nodes, output_dir), output_dir)
        note_interrupted(output_dir, {target.names.entities["sub"] for target in targets})
        raise
    failed = _failures(nodes, output_dir)
    _tell_states(targets, nodes, failed, output_dir)
    done = [target for target in targets if target.names.key in nodes.done]
    own = {target.names.key: nodes.done[target.names.key].result.outputs.scores for target in done}
    folder = scores_folder(config.execution.work_dir.absolute(), context)
    keep_scores(folder, own)
    # Scans of this call that failed count no more, whatever an earlier call has made of them.
    scores = with_kept(folder, {target.names.key: list[Any]() for target in targets} | own, everybody)
    if scores:
        measured = [pair for target in everybody if target.names.key in scores for pair in target.measured]
        every = [score for of_scan in scores.values() for score in of_scan]
        _write_report(_evaluated(every, measured, context, config.settings.random_seed), context)
    failed |= _write_pages(targets, output_dir)
    write_methods(output_dir)
    say(f"{len(done)} of {counted(len(targets), 'synthetic scan')} made in {(time.monotonic() - started) / 60:.1f} min")
    for key, message in failed.items():
        say(f"FAILED {key}: {message} (logs/errors/{key}.json)")
    if done:
        say(f"tables: {output_dir}/sub-*/**/pet/*_desc-synthSUVR_rois.tsv; the group level joins them")
    return SOME_FAILED if failed else DONE


def _failures(nodes: _Nodes, output_dir: Path) -> dict[str, str]:
    """Write the records of the nodes that failed, and delete what there is of their results.

    Returns why they did, by the key of the scan.
    """
    for node in nodes.failed.values():
        withdraw(node.inputs.target.names)
    return {
        _key(node): _record(output_dir, _key(node), {"step": "synthesis", **engine.error_of(node)})
        for node in nodes.failed.values()
    }


def _before(targets: Sequence[Target], output_dir: Path) -> None:
    """Take the records of earlier failures away, and note that no scan is finished."""
    for target in targets:
        error_path(output_dir, target.names.key).unlink(missing_ok=True)
    update_status(output_dir, {target.names.key: _status_of(target) for target in targets})


def _status_of(target: Target) -> ScanStatus:
    return ScanStatus(
        target.names.key,
        stem=target.names.stem,
        session=target.session,
        tracer=target.tracer,
        manufacturer=target.manufacturer,
        source="synthetic",
    )


def _tell_states(targets: Sequence[Target], nodes: _Nodes, failed: Mapping[str, str], output_dir: Path) -> None:
    seconds = {_key(node): nodes.seconds.get(node.fullname) for node in nodes.done.values()}
    found = {}
    for target in targets:
        key, status = target.names.key, _status_of(target)
        if key in nodes.done:
            status = replace(status, state="done", reason="", minutes=round((seconds[key] or 0.0) / 60, 2))
        elif key in failed:
            status = replace(status, reason=failed[key])
        found[key] = status
    update_status(output_dir, found)


def _execute_all(targets: Sequence[Target], context: SynthesisContext, execution: Execution, nodes: _Nodes) -> None:
    """Run the participants' graphs; whatever fails in one scan, the others are made."""
    from tqdm import tqdm

    from tau_workflows.graphs.synthesis import init_synthetic_scans_wf

    measures_dir = execution.work_dir.absolute() / f"synthesis_{context.ensemble.hash}"
    _save_measures(context, measures_dir)
    wf = init_synthetic_scans_wf(targets, context, measures_dir, execution.omp_nthreads or execution.nprocs or 1)
    engine.set_verbosity(execution.verbose)
    engine.configure(wf, execution.work_dir, execution.stop_on_first_crash)
    with tqdm(total=len(targets), desc="synthetic scans", unit="scan", disable=not sys.stderr.isatty()) as bar:
        nodes.bar = bar
        _execute(wf, execution, nodes)


def _save_measures(context: SynthesisContext, folder: Path) -> None:
    """Put calibration and training statistics where the nodes find them."""
    from tau_pipeline.synthesis.model import baselines
    from tau_pipeline.synthesis.model import calibration as uncertainty

    measures = {uncertainty.FILE: context.calibration, baselines.FILE: context.training_statistics}
    for name, measure in measures.items():
        if measure is not None:
            measure.save(folder)
        else:
            (folder / name).unlink(missing_ok=True)


def _execute(wf: pe.Workflow, execution: Execution, nodes: _Nodes) -> None:
    """Run a configured workflow, one node after another unless ``use_plugin`` says otherwise.

    A network takes all threads, or the GPU, so that two at a time would only wait for each other; and in this process,
    since one that is forked after torch has computed may hang.
    """
    from nipype.pipeline.plugins import LinearPlugin

    if execution.use_plugin is not None:
        engine.execute(wf, execution, nodes)
        return
    try:
        wf.run(plugin=LinearPlugin(plugin_args={"status_callback": nodes}))
    except Exception:
        # Nipype raises the first node's error again when all is over; each has its own record by then.
        if not nodes.failed:
            raise


def _record(output_dir: Path, key: str, record: Mapping[str, Any]) -> str:
    write_json({"scan": key, **record}, error_path(output_dir, key))
    return str(record["message"])


def _write_pages(targets: Sequence[Target], output_dir: Path) -> dict[str, str]:
    """Write the participant reports again; returns what went wrong, by the key of its record."""
    failed = {}
    for label in dict.fromkeys(target.names.entities["sub"] for target in targets):
        key = f"sub-{label}_page"
        error_path(output_dir, key).unlink(missing_ok=True)
        try:
            write_participant_report(output_dir, label)
        except TauPipelineError as exc:
            failed[key] = _record(output_dir, key, {"step": "report", "error": type(exc).__name__, "message": str(exc)})
    return failed


def _evaluated(
    scores: Sequence[ScanScores], measured: Sequence[Pair], context: SynthesisContext, random_seed: int
) -> Report:
    import pandas as pd

    from tau_pipeline.synthesis.evaluation.scores import evaluate
    from tau_pipeline.synthesis.model.baselines import regional_values

    tables = [regional_values(pair) for pair in measured if pair.rois_file is not None]
    splits = {who: context.ensemble.used_for(who).split_of(who) for who in {one.participant_id for one in measured}}
    positivity: Mapping[str, float] = context.training_statistics.positivity if context.training_statistics else {}
    return evaluate(scores, pd.concat(tables, ignore_index=True), splits, positivity, context.synthesis, random_seed)


def _write_report(report: Report, context: SynthesisContext) -> None:
    from tau_pipeline.synthesis.model.baseline_scores import baseline_keys

    folder = context.output_dir / "group"
    for name in ("scans", "slices", "regions", "summary"):
        table, path = getattr(report, name), folder / f"synthSUVR_{name}.tsv"
        described = agreement_columns(map(str, table.columns))
        write_json({**described, **baseline_keys(context.ensemble)}, sidecar_path(path))
        write_tsv(table, path)
    if context.calibration is not None:
        write_json(context.calibration.as_dict(), folder / "synthSUVR_uncertainty.json")
    summary = report.summary
    for row in summary[summary["measure"].isin(["ssim", "psnr", "regional_mae"])].itertuples():
        known = f"{row.low:.3f} to {row.high:.3f}, " if math.isfinite(row.low) else ""
        of_whom = f"{known}{counted(row.n_participants, 'participant')}"
        say(f"{row.split} split, {row.predictor}: {row.measure} {row.estimate:.3f} ({of_whom})")
    say(f"agreement with measured PET: {folder}/synthSUVR_*.tsv")
