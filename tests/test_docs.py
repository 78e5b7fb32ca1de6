"""Every command and snippet of the README and the documentation runs, and says something that is true."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import container_engine
import grid_engine
import pandas as pd
import pytest
from coarse_program import SEARCHED, write_programs
from doc_blocks import DATA, MARKS, ROOT, RUN, SHOWN, Block, blocks, environment, pages, run
from slurm import Slurm, missing
from truth_results import results_from_truth

TUTORIAL = ROOT / "docs" / "tutorial" / "first-hour.md"
OTHERS = [page for page in pages() if page != TUTORIAL and any(b.language in RUN for b in blocks(page))]
ALL = [block for page in pages() for block in blocks(page)]
ELSEWHERE = [block for block in ALL if block.mark("run by") is not None]
#: Pages beside which nothing else is shown: the cohort's tables need more than two participants, and registering a
#: dozen heads takes a quarter of an hour; so the results of the others come from the truth.
AFTER: dict[str, Callable[[Path], object]] = {
    "results_from_truth": lambda folder: results_from_truth(folder / "study/bids", folder / "study/derivatives"),
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_page(page: Path, folder: Path) -> list[str]:
    """Run a page's blocks in order, with coarse participants; what each printed."""
    printed, programs = [], write_programs(folder / ".program")
    for block in blocks(page):
        if block.mark("needs") == "slurm" and missing():
            printed.append("")
            continue
        with provided(block.mark("needs"), folder) as env:
            done = run(block, folder, {**env, "PATH": f"{programs}{os.pathsep}{env['PATH']}", "PYTHONPATH": SEARCHED})
        printed.append(done.stdout if done else "")
        if (after := block.mark("then")) is not None:
            AFTER[after](folder)
    return printed


@contextmanager
def provided(kind: str | None, folder: Path) -> Iterator[dict[str, str]]:
    """Start what a block needs; its variables, PATH among them."""
    path = environment()["PATH"]
    if kind in ("sge", "engine"):
        write = grid_engine.write_stand_ins if kind == "sge" else container_engine.write_stand_ins
        yield {"PATH": f"{write(folder / kind)}{os.pathsep}{path}"}
    elif kind == "slurm":
        slurm = Slurm(folder / "slurm")
        try:
            slurm.start()
            yield {**slurm.env, "PATH": f"{path}{os.pathsep}{slurm.env['PATH']}"}
        finally:
            slurm.stop()
    else:
        assert kind is None
        yield {"PATH": path}


def test_every_block_says_what_it_is() -> None:
    assert len(ALL) > 50
    for block in ALL:
        assert block.language in (*RUN, *DATA, *SHOWN), f"{block.name}: give the fence a language; text is only shown"
        assert {mark for mark, _ in block.marks} <= {*MARKS}, block.name
        assert block.mark("then") in (None, *AFTER), block.name
        assert block.language in RUN or block.mark("run by") is None, block.name


def test_no_comment_that_changes_a_run_stands_alone() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        marks = sum(text.count(f"<!-- {mark}: ") for mark in MARKS)
        assert marks == sum(len(block.marks) for block in blocks(page)), f"{name(page)} has a comment without a block"


@pytest.mark.parametrize("block", ELSEWHERE, ids=lambda block: block.name)
def test_what_is_run_elsewhere_stands_there_word_for_word(block: Block) -> None:
    script = (ROOT / (block.mark("run by") or "")).read_text(encoding="utf-8")
    there = [line.strip() for line in script.splitlines()]
    assert [command for command in block.commands if command not in there] == []


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder in which the tutorial was followed, and what its blocks printed."""
    folder = tmp_path_factory.mktemp("docs")
    return folder, run_page(TUTORIAL, folder)


@pytest.fixture
def study(tutorial: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder as the tutorial left it, in the same place, since cached steps know their paths."""
    folder, _ = tutorial
    kept = folder.with_name(f"{folder.name}-kept")
    if not kept.is_dir():
        shutil.copytree(folder, kept, symlinks=True)
    else:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder, symlinks=True)
    return folder


@pytest.mark.slow
def test_the_tutorial_runs_and_finds_the_disease(tutorial: tuple[Path, list[str]]) -> None:
    folder, printed = tutorial
    model = pd.read_csv(folder / "study/model_pandas.csv", index_col=0)
    # The simulation gives patients with dementia more tau than controls.
    assert model.loc["AD", "estimate"] > 0
    assert model.loc["AD", "p"] < 0.05
    assert "correlation of measured SUVR with the true uptake: 0.9" in printed[-1]


@pytest.mark.slow
def test_r_and_pandas_agree(tutorial: tuple[Path, list[str]]) -> None:
    if shutil.which("Rscript") is None:
        pytest.skip("Rscript is not installed, so the R blocks of the tutorial did not run")
    folder, _ = tutorial
    ours = pd.read_csv(folder / "study/model_pandas.csv", index_col=0)
    theirs = pd.read_csv(folder / "study/model_R.csv", index_col=0)
    rows = {
        "intercept": "(Intercept)",
        "MCI": "diagnosisMCI",
        "AD": "diagnosisAD",
        "age": "I(age - mean(age))",
        "male": "sexM",
    }
    for our_name, their_name in rows.items():
        estimate, _, t, p = theirs.loc[their_name]
        assert ours.loc[our_name].tolist() == pytest.approx([estimate, t, p], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS, ids=name)
def test_the_blocks_of_a_page_run(page: Path, study: Path) -> None:
    run_page(page, study)
    if missing() and any(block.mark("needs") == "slurm" for block in blocks(page)):
        pytest.skip(f"all of the page ran but what needs SLURM: {missing()}")


@pytest.mark.slow
def test_every_key_of_the_sidecars_is_in_the_reference(tutorial: tuple[Path, list[str]]) -> None:
    folder, _ = tutorial
    described = (ROOT / "docs/reference/sidecars.md").read_text(encoding="utf-8")
    sidecars = [
        path
        for path in (folder / "study/derivatives/sub-01").rglob("*.json")
        if path.name.endswith(("_pet.json", "_T1w.json", "_mask.json", "_dseg.json"))
    ]
    keys = {key for path in sidecars for key in json.loads(path.read_text(encoding="utf-8"))}
    assert len(sidecars) >= 5
    assert sorted(key for key in keys if f"`{key}`" not in described) == []
