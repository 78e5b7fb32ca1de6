"""The comparison of systems, losses and scales: its runs, what it refuses, and what failed and killed runs leave."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from synthesis_cohort import Person
from toy_models import write_people

from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.errors import DivergenceError, SettingError, TauPipelineError
from tau_pipeline.files import read_tsv
from tau_pipeline.settings.comparison import Comparison
from tau_pipeline.settings.configuration import Configuration, configuration
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.comparison import one_run
from tau_pipeline.synthesis.comparison.preparation import with_grid_shape
from tau_pipeline.synthesis.comparison.runs import Run, check_comparison, runs_of, settings_of
from tau_workflows.cli import main
from tau_workflows.execution import comparison_runs as comparison_job
from tau_workflows.levels import compare as comparison
from tau_workflows.levels.compare import _done_text, run_comparison

RECIPES = Path(__file__).parents[1] / "workflows" / "recipes"
#: Two losses, two scales, three folds of six made-up people: twelve trainings of one epoch.
RECIPE = """
[settings]
random_seed = 3
[group]
min_participants = 1
[comparison]
comparison_name = "tiny"
systems = ["unet"]
losses = ["mse_ssim", "cyclic2.5d"]
validation_fold = false
runs_per_process = 6
[training]
folds = 3
epochs = 1
batch_size = 2
first_cycle = 1
grid_shape = [16, 24, 16]
perceptual_features = "random"
device = "cpu"
augmentation = "off"
early_stopping_patience = 0
"""
PEOPLE = tuple(
    Person(f"{n:02}", "LAS" if n % 3 else "RAS", "SIEMENS" if n % 2 else "GE", 1.0 + 0.05 * n) for n in range(1, 7)
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A BIDS folder, derivatives, and a recipe."""
    return write_study(tmp_path)


def write_study(root: Path) -> tuple[Path, Path, Path]:
    bids, out, recipe = root / "bids", root / "out", root / "recipe.toml"
    bids.mkdir()
    rows = [f"sub-{person.label}\t{'AD' if n < 3 else 'CN'}" for n, person in enumerate(PEOPLE)]
    (bids / "participants.tsv").write_text("participant_id\tdiagnosis\n" + "\n".join(rows) + "\n")
    write_dataset_files(out, bids)
    write_people(out, PEOPLE)
    recipe.write_text(RECIPE)
    return bids, out, recipe


def configured(study: tuple[Path, Path, Path], **changes: Any) -> tuple[Path, Path, Configuration]:
    bids, out, recipe = study
    return bids, out, configuration(recipe, {"work_dir": out.parent / "work", "nprocs": 1, **changes})


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tasks are done here, without the start of a process each; gives the names of the tasks that were done."""
    return work_here(monkeypatch)


def work_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []

    def spread(tasks: Sequence[Any], *_: Any) -> None:
        for task in tasks:
            done.append(task.name)
            comparison_job.main(str(task.job_file))

    monkeypatch.setattr(comparison, "spread", spread)
    return done


def trained(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path], bool] = lambda _: False) -> list[str]:
    """Names of the runs that are trained from now on; those that ``fails`` names diverge instead."""
    original, names = one_run.train, []

    def train(settings: Training, pairs: Any, out_dir: Path, **rest: Any) -> Path:
        names.append(out_dir.parent.name)
        if fails(out_dir):
            raise DivergenceError("training has diverged at epoch 0")
        return original(settings, pairs, out_dir, **rest)

    monkeypatch.setattr(one_run, "train", train)
    return names


def rows_of(out: Path) -> dict[str, float]:
    """Return the time at which each row was written, by the run's name."""
    found = (out / "comparisons" / "tiny" / "runs").glob("*/row.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def test_there_is_a_run_for_each_system_loss_scale_and_fold_and_only_these_differ():
    chosen = Comparison(systems=("unet", "pix2pix"), losses=("mse_ssim", "3d"), volume_features="random")
    runs = runs_of(chosen, 3)
    assert len(runs) == len(set(runs)) == len({run.name for run in runs}) == 2 * 2 * 2 * 3
    base = Training(folds=3, perceptual_weights_file=Path("vgg.pth"))
    mine = {run: settings_of(run, base, chosen, Path("fold.tsv")) for run in runs}
    for run, settings in mine.items():
        assert (settings.network, settings.loss, settings.target_scaling) == (run.system, run.loss, run.target_scaling)
        assert settings.split_file == Path("fold.tsv")
        random = run.loss == "3d"
        assert settings.perceptual_features == ("random" if random else "pretrained")
        assert settings.perceptual_weights_file == (None if random else Path("vgg.pth"))
    same = [
        name for name in base.resume_fields() if len({str(one.resume_fields()[name]) for one in mine.values()}) == 1
    ]
    assert {"epochs", "learning_rate", "batch_size", "grid_voxel", "seed"} - set(same) <= {"epochs", "seed"}


def test_both_shipped_recipes_name_the_whole_grid_of_the_paper():
    for name, folds in (("small", 3), ("paper", 5)):
        config = configuration(RECIPES / f"comparison-{name}.toml")
        assert len(runs_of(config.comparison, config.training.folds)) == 5 * 4 * 2 * folds


@pytest.mark.parametrize("system", ["unet", "unetr", "swinunetr", "pix2pix", "cyclegan"])
def test_every_system_gets_the_smallest_grid_that_it_takes_and_that_covers_the_head(system: str) -> None:
    shape = with_grid_shape(Training(network=system, grid_voxel=10.0)).grid_shape  # type: ignore[arg-type]
    assert all(side * 10.0 >= mm for side, mm in zip(shape, (160, 192, 160), strict=True))
    assert shape == ((32, 64, 32) if system == "swinunetr" else (16, 32, 16) if system == "unetr" else (16, 24, 16))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('[comparison]\nsystems = ["unett"]', "systems is 'unett'; expected: one of unet, unetr"),
        ('[comparison]\nlosses = ["2d"]', "losses is '2d'; expected: one of mse_ssim, 2.5d, 3d, cyclic2.5d"),
        ('[comparison]\nsystems = "unet"', "systems is 'unet'; expected: a list of some of unet"),
        ("[comparison]\nsystems = []", "systems is []; expected: at least one"),
        ('[comparison]\nlosses = ["3d", "3d"]', "each once"),
        ("[comparison]\nsystem = 3", "there is no setting 'system'; did you mean 'systems'?"),
        ('[comparison]\ncomparison_name = "a/b"', "without slashes"),
        ("[comparison]\nruns_per_process = 0", "runs_per_process is 0"),
    ],
)
def test_an_unknown_name_in_a_recipe_is_one_clear_sentence(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(SettingError) as caught:
        configuration(tmp_path / "recipe.toml")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("comparison_of", "training", "part"),
    [
        ({}, {}, "folds is 0; expected: 3 or more"),
        ({}, {"folds": 3}, "volume_weights_file is None; expected: a file for the loss 3d"),
        ({"losses": ("mse_ssim",)}, {"folds": 3, "fold": 1}, "fold is '1'; expected: none"),
        ({"losses": ("mse_ssim",)}, {"folds": 3, "model_name": "m"}, "model_name is 'm'"),
        ({"losses": ("mse_ssim",), "validation_fold": False}, {"folds": 3}, "early_stopping_patience is 30"),
    ],
)
def test_sections_that_do_not_fit_together_are_refused(comparison_of: Any, training: Any, part: str) -> None:
    with pytest.raises(SettingError, match=re.escape(part)):
        check_comparison(Comparison(**comparison_of), Training(**training))


def test_the_option_belongs_to_the_level_train_and_stands_alone(study, capsys: pytest.CaptureFixture[str]) -> None:
    bids, out, recipe = study
    assert main([str(bids), str(out), "group", "--compare", str(recipe)]) == 2
    assert "expected: the level train" in capsys.readouterr().err
    assert main([str(bids), str(out), "train", "--compare", str(recipe), "--config", str(recipe)]) == 2
    assert "expected: one file" in capsys.readouterr().err


def test_too_few_people_of_a_scanner_and_missing_weights_are_told_before_anything_is_trained(study) -> None:
    with pytest.raises(SettingError, match=r"fold \d has \d participants of .* needs 4; lower min_participants"):
        run_comparison(*configured(study, min_participants=4))
    with pytest.raises(TauPipelineError, match=r"nowhere\.pth"):
        run_comparison(
            *configured(study, perceptual_features="pretrained", perceptual_weights_file=Path("nowhere.pth"))
        )
    assert not (study[1] / "comparisons").exists()


def test_a_dry_run_lists_the_runs_and_makes_nothing(study, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_comparison(*configured(study, dry_run=True)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 12
    assert all(line.endswith("to do") for line in lines[1:])
    assert not (study[1] / "comparisons").exists()


@dataclass(frozen=True)
class Interrupted:
    """Outcome of one comparison that was killed, and whose next call had a run that failed."""

    study: tuple[Path, Path, Path]
    killed: dict[str, float]
    bad: str
    trained: list[str]
    exit_code: int

    @property
    def folder(self) -> Path:
        """The folder of the comparison."""
        return self.study[1] / "comparisons" / "tiny"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """A comparison whose program is killed after two runs or more, then goes on and has one run that diverges."""
    root = tmp_path_factory.mktemp("interrupted")
    study = write_study(root)
    killed = rows_after_kill(study, root / "log.txt")
    call = configured(study)
    bad = [run.name for run in runs_of(call[2].comparison, 3) if run.name not in killed][-1]
    with pytest.MonkeyPatch.context() as patch:
        work_here(patch)
        names = trained(patch, lambda out_dir: out_dir.parent.name == bad)
        exit_code = run_comparison(*call)
    return Interrupted(study, killed, bad, names, exit_code)


def rows_after_kill(study: tuple[Path, Path, Path], log_file: Path) -> dict[str, float]:
    """Kill the program of a comparison after two runs; the rows that it leaves."""
    bids, out, recipe = study
    command = [sys.executable, "-m", "tau_workflows.cli", str(bids), str(out), "train", "--compare", str(recipe)]
    command += ["--work-dir", str(out.parent / "work"), "--nprocs", "1"]
    with log_file.open("w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={**os.environ}
        )
        try:
            until = time.monotonic() + 240
            while len(rows_of(out)) < 2 and process.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)
    # Tasks end with the program that spread them.
    time.sleep(2.5)
    rows = rows_of(out)
    assert 2 <= len(rows) < 12, log_file.read_text()[-2000:]
    return rows


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on_where_it_was_and_trains_nothing_twice(interrupted: Interrupted) -> None:
    runs = [run.name for run in runs_of(configured(interrupted.study)[2].comparison, 3)]
    assert sorted([*interrupted.trained, *interrupted.killed]) == sorted(runs)
    after = rows_of(interrupted.study[1])
    assert {name: after[name] for name in interrupted.killed} == interrupted.killed


@pytest.mark.slow
def test_a_failed_run_has_a_row_with_the_reason_and_the_same_command_makes_it_good(
    interrupted: Interrupted, in_this_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, bad, folder = interrupted.study, interrupted.bad, interrupted.folder
    assert interrupted.exit_code == 1
    runs = read_tsv(folder / "runs.tsv").set_index("run")
    assert len(runs) == 12 + 6, "one row per run, and one for the trivial predictors of each fold and scale"
    assert runs.loc[bad, "state"] == "failed"
    assert "diverged" in runs.loc[bad, "reason"]
    assert (runs.drop(bad)["state"] == "done").all()
    page = (folder / "report.html").read_text()
    assert "training has diverged at epoch 0" in page
    before = rows_of(study[1])

    names = trained(monkeypatch)
    assert run_comparison(*configured(study)) == 0
    assert names == [bad], "what is done is not done again"
    after = rows_of(study[1])
    assert {name: after[name] for name in before} == before
    assert run_comparison(*configured(study)) == 3
    with pytest.raises(SettingError, match=r"another learning_rate.*--comparison-name"):
        run_comparison(*configured(study, learning_rate=0.1))
    check_tables(folder)


def check_tables(folder: Path) -> None:
    """The tables of a whole comparison agree with each other, and every person is held out once."""
    runs, summary = read_tsv(folder / "runs.tsv"), read_tsv(folder / "summary.tsv")
    tests, settings = read_tsv(folder / "tests.tsv"), read_tsv(folder / "settings.tsv")
    assert (runs["state"] == "done").all()
    assert len(settings) == 4 + 2 * 2, "four settings, and two trivial predictors on two scales"
    scans = pd.concat([read_tsv(path) for path in sorted(folder.glob("runs/unet_*/scans.tsv"))])
    assert (scans.groupby(["loss", "target_scaling"])["participant_id"].nunique() == len(PEOPLE)).all()
    assert len(scans) == 4 * len(PEOPLE)
    own = scans[(scans["loss"] == "cyclic2.5d") & (scans["target_scaling"] == "min-max")]["ssim"]
    told = summary[
        (summary["loss"] == "cyclic2.5d") & (summary["target_scaling"] == "min-max") & (summary["measure"] == "ssim")
    ].iloc[0]
    assert told["mean"] == pytest.approx(own.mean(), abs=1e-6)
    assert told["sd"] == pytest.approx(own.std(ddof=1), abs=1e-6)
    assert set(tests["contrast"]) == {"loss", "target_scaling", "baseline"}
    assert (tests["n_participants"] <= len(PEOPLE)).all()
    for name in ("runs", "summary", "tests", "regions", "settings"):
        assert (folder / f"{name}.csv").is_file()
    page = (folder / "report.html").read_text()
    assert "random weights" in page
    assert "1 system × 2 losses × 2 ways to scale SUVR × 3 folds" in page
    # Each picture with scores of models has those of the baselines beside it.
    said = "SSIM and PSNR of the baselines on this scan: training mean"
    assert page.count(said) == page.count("A held-out scan: T1w, measured SUVR") > 0
    assert page.count("data:image/webp;base64,") >= 1 + 4 + 2 + 2
    assert str(folder) not in page, "no place of this machine"


def test_the_progress_of_a_comparison_has_no_scores_since_those_of_the_baselines_come_last() -> None:
    row = {"means": {"ssim": 0.7, "psnr": 24.0}, "training": {"seconds": 8.0}, "scoring": {"seconds": 2.0}}
    assert _done_text(row) == "done in 10 s"
    assert _done_text({"means": {}}) == "scored"


def test_a_run_says_what_it_is():
    run = Run("unet", "2.5d", "min-max", 2)
    assert run.name == "unet_2.5d_min-max_fold2"
    assert json.loads(json.dumps(run.description)) == "unet, 2.5d, min-max, fold 2"
