"""Training of a synthesis model: one loop, from pairs of T1w and tau PET to a model folder.

The order of the scans, their augmentation, the learning rate, the plane of the perceptual term and the seed of each
step are pure functions of the settings, the seed, the epoch and the step. So whatever ends the process, even
``kill -9``, the same call goes on from the last checkpoint and comes to the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tau_pipeline.errors import DivergenceError, ImageError
from tau_pipeline.lock import exclusive_use
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.losses.schedule import plane_at
from tau_pipeline.synthesis.model.regression import REGRESSION
from tau_pipeline.synthesis.networks.systems import Options, build_system
from tau_pipeline.synthesis.training.checkpoints import find_checkpoints
from tau_pipeline.synthesis.training.data import require_validation, training_data
from tau_pipeline.synthesis.training.grid_baselines import fit_grid_baselines, log_columns, validation_text
from tau_pipeline.synthesis.training.interruption import interruption
from tau_pipeline.synthesis.training.log import Cell, Timer, TrainLog
from tau_pipeline.synthesis.training.optimization import (
    autocast,
    batches,
    in_pieces,
    learning_rate_at,
    prepare_network,
    seed_everything,
    set_learning_rate,
    sound_gradients,
    training_loss,
)
from tau_pipeline.synthesis.training.processes import Processes, processes
from tau_pipeline.synthesis.training.regression import train_regression
from tau_pipeline.synthesis.training.results import CHECKPOINTS, claim_folder, save_results
from tau_pipeline.synthesis.training.run import Piece, Run
from tau_pipeline.synthesis.training.source import require_source, start_from
from tau_pipeline.synthesis.training.state import Means, TrainingState, weighted_mean
from tau_pipeline.synthesis.training.validation import ScanScores, loss_voxels, mean_scores, score_scans
from tau_pipeline.synthesis.training.weight_average import averaged_weights

#: A loss this many times that of the very first step does not come down again.
_DIVERGED = 100.0


def train(
    settings: Training,
    pairs: Sequence[Pair],
    out_dir: Path,
    *,
    random_seed: int = 0,
    cohort: Group | None = None,
    left_out: Sequence[str] = (),
) -> Path:
    """Train a model, test it, and write its folder; or go on where an earlier call with the same arguments ended.

    Parameters
    ----------
    settings
        Of the training.
    pairs
        Of one tracer and reference region (`tau_pipeline.synthesis.data.pairs.find_pairs`).
    out_dir
        The model's folder.
    random_seed
        Of splits, weights, order, augmentation and dropout.
    cohort
        Read here: ``min_participants`` and ``unknown_manufacturer``. None takes the defaults.

    left_out
        Scans that are not among the pairs because of their quality; for the card of the model.

    Returns
    -------
    Path
        ``out_dir``, which `tau_pipeline.synthesis.model.folder.load_model` reads.

    Raises
    ------
    SettingError
        The folder holds a training with other settings, another seed or other scans.
    BusyError
        Another process trains in the folder.
    DivergenceError
        The loss or a gradient is not finite.
    TauPipelineError
        An image or the feature network cannot be used.
    """
    out_dir = Path(out_dir)
    settings = settings.resolved(len({pair.participant_id for pair in pairs}))
    with processes(settings.device) as group:
        if settings.network == REGRESSION:
            with _only_training(out_dir, group):
                claim_folder(out_dir, settings, pairs, random_seed, group)
                data = training_data(settings, pairs, out_dir, random_seed, cohort or Group(), group)
                with group.together():
                    if group.writes:
                        train_regression(settings, data, out_dir, random_seed, left_out)
            return out_dir
        # First, so that missing weights are reported before hours of reading, and the folder stays free.
        loss = training_loss(settings, group.device)
        require_source(settings)
        with _only_training(out_dir, group):
            claim_folder(out_dir, settings, pairs, random_seed, group)
            data = training_data(settings, pairs, out_dir, random_seed, cohort or Group(), group)
            require_validation(settings, data)
            seed_everything(random_seed)
            options = Options.of(asdict(settings))
            system = build_system(settings.network, settings.network_preset, data.train.grid.shape, options)
            system = system.to(group.device)
            with group.together():
                started_from = start_from(system, settings, data)
            group.same_as_first(system)
            prepare_network(system.generator, settings, group.device)
            run = Run(TrainingState(system, settings, group.device), data, loss, settings, random_seed, out_dir, group)
            with group.together():
                run = _with_baselines(replace(run, left_out=tuple(left_out), started_from=started_from))
            run.state.resume(out_dir / CHECKPOINTS)
            fit(run)
            run.state.use_best_weights()
            scores = validate(run, "test")
            with group.together():
                if group.writes:
                    save_results(run, scores)
    return out_dir


def _with_baselines(run: Run) -> Run:
    """Fit the baselines of the log, in the process that writes it."""
    if not run.group.writes:
        return run
    baselines = fit_grid_baselines(run.data, run.settings.covariates)
    columns = log_columns(baselines.scores(run.data, "validation"))
    return replace(run, baselines=baselines, baseline_columns=columns)


@contextmanager
def _only_training(folder: Path, group: Processes) -> Iterator[None]:
    """Refuse a second training in a model's folder while one is at work there."""
    with ExitStack() as locks:
        with group.together():
            if group.writes:
                folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(exclusive_use(folder, "train", "wait for it, or give another model_name"))
        yield


def fit(run: Run) -> None:
    """Train from where the state is (a checkpoint's place, or the beginning) to the last epoch or to early stopping.

    Raises
    ------
    DivergenceError
        A loss or gradient is not finite, or the loss is far above that of the first step.
    KeyboardInterrupt
        Somebody asked to stop; the step was finished and a checkpoint of it written.
    """
    state, settings, group, progress = run.state, run.settings, run.group, run.state.progress
    checkpoints = run.folder / CHECKPOINTS
    sound = sound_gradients(state.system, settings, group.device)
    with interruption() as asked, _log(run) as log, _progress_bar(run) as bar, sound:
        checkpoint_timer = Timer()
        while progress.epoch < settings.epochs and not progress.stopped:
            plane = plane_of(progress.epoch, settings)
            set_learning_rate(state.optimizers, progress.epoch, settings)
            state.system.train()
            epoch_timer = Timer()
            for scans, n_scans in _rest_of_epoch(run):
                seed_everything(run.random_seed, progress.epoch, progress.step, group.rank)
                means = _optimizer_step(run, scans, n_scans)
                progress.count_step(means, n_scans)
                progress.seconds += epoch_timer.lap()
                bar.set_postfix_str(_losses_text(progress.epoch, plane, progress.losses), refresh=False)
                bar.update()
                stop = any(group.gathered(asked.is_set()))
                with group.together():
                    if group.writes and (stop or checkpoint_timer.seconds >= 60 * settings.checkpoint_minutes):
                        state.save(checkpoints)
                        checkpoint_timer.lap()
                if stop:
                    raise KeyboardInterrupt(asked.number)

            scores = _validation_scores(run) if validates_after(progress.epoch, settings) else {}
            better = bool(scores) and progress.take_validation(scores, plane, settings)
            if better:
                state.keep_best()
            progress.seconds += epoch_timer.lap()
            row = _log_row(run, plane, scores, better)
            progress.next_epoch()
            if scores:
                bar.set_description_str(validation_text(scores, run.baseline_columns))
            with group.together():
                if log is not None:
                    log.add(row)
                    state.save(checkpoints)
                    checkpoint_timer.lap()


def _rest_of_epoch(run: Run) -> Iterator[tuple[list[Piece], int]]:
    """Return the rest of the epoch, by step: this process's scans, in pieces, and the number over all processes."""
    settings, progress = run.settings, run.state.progress
    left = batches(len(run.data.train), settings.batch_size, run.random_seed, progress.epoch)[progress.step :]
    own = [in_pieces(run.group.share(batch), settings.micro_batch_size) for batch in left]
    every = [piece for pieces in own for piece in pieces]
    loader = run.data.loader("train", every, progress.epoch, settings.loader_workers, run.pins_memory)
    for batch, pieces in zip(left, own, strict=True):
        with run.group.together():
            loaded = [next(loader) for _ in pieces]
        yield loaded, len(batch)


def _optimizer_step(run: Run, pieces: list[Piece], n_scans: int) -> list[Means]:
    """Run one step of each phase (generator; discriminator) on ``n_scans`` scans; returns losses over all processes."""
    state, settings, group = run.state, run.settings, run.group
    found: list[Means] = []
    for phase in state.system.phases:
        optimizer, parameters = state.optimizers[phase], state.system.parameters_of(phase)
        optimizer.zero_grad(set_to_none=True)
        with group.together():
            own = [_backward(run, phase, piece, n_scans) for piece in pieces]
        group.sum_gradients(parameters)
        state.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip_gradient_norm or math.inf)
        phase_means = [each for every in group.gathered(own) for each in every]
        _require_sane(run, phase, weighted_mean(phase_means)[phase], float(norm), pieces)
        state.scaler.step(optimizer)
        found += phase_means
    state.scaler.update()
    if state.average is not None:
        state.average.update(state.system.generator)
    return found


def _backward(run: Run, phase: str, piece: Piece, n_scans: int) -> Means:
    """Add the gradient of a piece of a batch of ``n_scans`` scans to the others; returns its losses."""
    state, settings, device = run.state, run.settings, run.group.device
    t1w, pet, mask = (piece[name].to(device, non_blocking=True) for name in ("t1w", "pet", "mask"))
    if settings.channels_last:
        t1w = t1w.to(memory_format=torch.channels_last_3d)
    content_loss = partial(_content_loss, run, mask, piece.get("labels"))
    with autocast(settings, device), _naming(run, piece):
        value, parts = state.system.step_loss(phase, t1w, pet, content_loss, mask)
    # A mean over this piece becomes its part of the mean over the batch.
    state.scaler.scale(value * (len(t1w) / n_scans)).backward()
    return {phase: float(value.detach()), **parts}, len(t1w)


@contextmanager
def _naming(run: Run, piece: Piece) -> Iterator[None]:
    """Say of an image that cannot be used whose it is, and when that was."""
    try:
        yield
    except ImageError as exc:
        names = ", ".join(f"sub-{name}" for name in _participants([piece]))
        progress = run.state.progress
        raise ImageError(f"epoch {progress.epoch}, batch {progress.step}, of participants {names}: {exc}") from exc


def _content_loss(
    run: Run, mask: Tensor, labels: Tensor | None, prediction: Tensor, target: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss; unless the settings say otherwise, with the target's background outside the mask."""
    if run.settings.loss_mask == "brain":
        prediction = torch.where(mask, prediction, target.to(prediction.dtype))
    return run.loss(prediction, target, run.state.progress.epoch, loss_voxels(mask, labels))


def _require_sane(run: Run, phase: str, value: float, norm: float, pieces: list[Piece]) -> None:
    """Stop a training whose loss or gradient is not finite, before it spoils the weights."""
    progress = run.state.progress
    # Half precision overflows now and then; its scaler then leaves the step out and scales less.
    fine_norm = math.isfinite(norm) or run.state.scaler.is_enabled()
    # On standardized SUVR a loss is about 1; one that began far below may well rise to that.
    limit = _DIVERGED * max(progress.first_losses.setdefault(phase, value), 1.0)
    if fine_norm and math.isfinite(value) and value <= limit:
        return
    names = [name for own in run.group.gathered(_participants(pieces)) for name in own]
    raise DivergenceError(
        f"training has diverged at epoch {progress.epoch}, batch {progress.step}, of participants "
        f"{', '.join(f'sub-{name}' for name in names)}: the loss of the {phase} is {value:.4g} and its gradient's norm "
        f"{norm:.4g}. Look at their images; else lower learning_rate or set clip_gradient_norm{_kept(run)}"
    )


def validates_after(epoch: int, settings: Training) -> bool:
    """Return whether an epoch ends with a validation: each ``validate_every``-th one and the last one do."""
    return (epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs


def _validation_scores(run: Run) -> dict[str, float]:
    """Return mean scores of the validation split, which are all finite; an empty dict without such a split."""
    validated = validate(run, "validation")
    _require_finite(run, validated)
    return mean_scores(validated)


def _require_finite(run: Run, scores: Sequence[ScanScores]) -> None:
    """Stop a training that gives held-out scans values that are no numbers: no later loss would be better or worse."""
    if names := [f"sub-{score.participant}" for score in scores if not math.isfinite(score.loss)]:
        raise DivergenceError(
            f"training has diverged at epoch {run.state.progress.epoch}: on the validation scans of {', '.join(names)} "
            f"the loss is not finite. Lower learning_rate or set clip_gradient_norm{_kept(run)}"
        )


def _kept(run: Run) -> str:
    """Say where the checkpoint before is; nothing where there is none."""
    folder = run.folder / CHECKPOINTS
    return f". The checkpoint before it is kept in {folder}" if find_checkpoints(folder) else ""


def _participants(pieces: list[Piece]) -> list[str]:
    return [str(name) for piece in pieces for name in piece["participant"]]


def validate(run: Run, split: str) -> list[ScanScores]:
    """Return scores of the scans of a split, in the split's order, with the averaged weights if there are any."""
    state, settings, group = run.state, run.settings, run.group
    group.same_as_first(state.system)
    own = group.share(range(len(getattr(run.data, split))))
    scans = run.data.loader(split, [[index] for index in own], pin_memory=run.pins_memory)
    epoch = min(state.progress.epoch, settings.epochs - 1)
    generator = state.system.generator
    with group.together(), averaged_weights(generator, state.average if state.best_weights is None else None):
        found = score_scans(
            generator,
            scans,
            lambda prediction, target, within: run.loss(prediction, target, epoch, within),
            run.data.target_scaling,
            autocast(settings, group.device),
            loss_everywhere=settings.loss_mask == "none",
        )
    parts = group.gathered(list(zip(own, found, strict=True)))
    return [scores for _, scores in sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])]


def plane_of(epoch: int, settings: Training) -> str:
    """Return the plane whose slices the loss compares in an epoch; ``n/a`` for a loss that has no cycle."""
    if settings.loss != "cyclic2.5d":
        return "n/a"
    return plane_at(epoch, settings.first_cycle, settings.cycle_factor)


def _log_row(run: Run, plane: str, scores: Mapping[str, float], better: bool) -> dict[str, Cell]:
    progress = run.state.progress
    losses = dict(progress.losses)
    return {
        "epoch": progress.epoch,
        "plane": plane,
        "learning_rate": learning_rate_at(progress.epoch, run.settings),
        "train_loss": losses.pop("generator"),
        **{f"train_{name}": value for name, value in losses.items()},
        **{f"validation_{name}": value for name, value in scores.items()},
        **(run.baseline_columns if scores else {}),
        "best": int(better),
        "seconds": round(progress.seconds, 2),
    }


@contextmanager
def _log(run: Run) -> Iterator[TrainLog | None]:
    """Open the log, in the process that writes; None in others."""
    if not run.group.writes:
        yield None
        return
    log = TrainLog(run.folder, run.state.progress.epoch)
    try:
        yield log
    finally:
        log.close()


def _progress_bar(run: Run) -> tqdm:
    """Open a bar over all steps of all epochs, from where training is; with the time left."""
    a_epoch = math.ceil(len(run.data.train) / run.settings.batch_size)
    done = run.state.progress.epoch * a_epoch + run.state.progress.step
    return tqdm(total=run.settings.epochs * a_epoch, initial=done, unit="step", disable=not run.group.writes)


def _losses_text(epoch: int, plane: str, losses: Mapping[str, float]) -> str:
    parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
    return f"epoch {epoch} {plane if plane != 'n/a' else ''} {parts}"
