"""Results, models and weights with files damaged, as the levels that read them meet them."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from fuzz_answers import answer_of_call, answer_of_function
from fuzz_trees import ODD_CONTENTS, ODD_VALUES, Tree, as_json, write_tree
from hypothesis import strategies as st
from participant_results import write_cohort
from synthesis_cohort import Person
from toy_models import BY_MANUFACTURER, GRID, TRAIN, write_people

from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.derivatives.names import error_path
from tau_pipeline.files import write_json
from tau_pipeline.synthesis.losses.features import load_vgg16_features
from tau_pipeline.synthesis.model.card import CARD, ModelCard
from tau_pipeline.synthesis.model.ensemble import load_ensemble
from tau_pipeline.synthesis.model.folder import save_model
from tau_pipeline.synthesis.networks.systems import build_system
from tau_pipeline.synthesis.training.checkpoints import read_checkpoint, write_checkpoint
from tau_workflows.reports.participant import write_participant_report


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _spoilt(draw: st.DrawFn, contents: Mapping[str, bytes], most: int) -> Tree:
    """The same files with one to ``most`` damages."""
    tree: Tree = dict(contents)
    for _ in range(draw(st.integers(1, most))):
        _spoil(draw, tree)
    return tree


@functools.cache
def cohort() -> dict[str, bytes]:
    """Return the participant-level outputs of six participants, without images; made once."""
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), 6, images=False)
        return _contents(Path(folder))


def _with_odd_cell(draw: st.DrawFn, content: bytes) -> bytes:
    lines = content.split(b"\n")
    row = draw(st.integers(0, len(lines) - 1))
    cells = lines[row].split(b"\t")
    odd = draw(ODD_VALUES)
    text = odd if isinstance(odd, str) else json.dumps(odd)
    cells[draw(st.integers(0, len(cells) - 1))] = text.encode("utf-8", "replace")
    lines[row] = b"\t".join(cells)
    return b"\n".join(lines)


def _with_odd_value(draw: st.DrawFn, content: bytes) -> bytes:
    """Another value in a JSON object, or in an object or list inside it."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return content
    place = whole
    while isinstance(place, dict | list) and place:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
            place[key] = draw(ODD_VALUES)
            return as_json(whole)
        place = place[key]
    return content


def _spoil(draw: st.DrawFn, tree: Tree) -> None:
    """Damage one file, or put something else in its place."""
    path = draw(st.sampled_from(sorted(tree)))
    content = tree[path]
    how = draw(st.sampled_from(["content", "cell", "kind", "gone", "bytes", "value"]))
    if how == "content":
        tree[path] = draw(ODD_CONTENTS)
    elif how == "kind":
        tree[path] = draw(st.sampled_from([None, "nowhere", "."]))
    elif how == "gone" and len(tree) > 1:
        del tree[path]
    elif isinstance(content, bytes) and how == "cell" and path.endswith(".tsv"):
        tree[path] = _with_odd_cell(draw, content)
    elif isinstance(content, bytes) and content and how == "bytes":
        tree[path] = _with_odd_bytes(draw, content)
    elif isinstance(content, bytes) and path.endswith(".json"):
        tree[path] = _with_odd_value(draw, content)


def _with_odd_bytes(draw: st.DrawFn, content: bytes, most: int = 1) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def spoilt_results(draw: st.DrawFn, folder: Path) -> str:
    """Results of the participant level with tables, sidecars and records damaged, in a dry run of the group level."""
    return _group(draw, folder, 4, ["--dry-run"])


def spoilt_group(draw: st.DrawFn, folder: Path) -> str:
    """The same, and the group level does its work: standardisation, tables, page."""
    # One fault, since most are refused before any work is done.
    return _group(draw, folder, 1, [])


def _group(draw: st.DrawFn, folder: Path, most: int, more: list[str]) -> str:
    tree = _spoilt(draw, cohort(), most)
    write_tree(tree, folder)
    places = [str(folder / "bids"), str(folder / "out"), "group", "-w", str(folder / "work")]
    few = draw(st.sampled_from([["--unknown-manufacturer", "pooled"], ["--min-participants", "2"]]))
    return answer_of_call([*places, *more, *few])


@functools.cache
def _pages() -> dict[str, bytes]:
    """Return the outputs of the first two levels for three participants and a record of an error; made once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bids, out = write_cohort(folder, 3)
        write_json({"scan": "sub-00", "step": "n4", "message": "It did not work."}, error_path(out, "sub-00"))
        answer_of_call([str(bids), str(out), "group", "-w", str(folder / "work"), "--unknown-manufacturer", "pooled"])
        kept = ("out/sub-00/", "out/group/", "out/logs/", "out/dataset_description.json")
        return {
            name: content
            for name, content in _contents(folder).items()
            if name.startswith(kept) and not name.endswith(".html")
        }


def spoilt_pages(draw: st.DrawFn, folder: Path) -> str:
    """Everything that the pages of a participant and of the cohort show, damaged."""
    tree = _spoilt(draw, _pages(), 3)
    write_tree(tree, folder)
    (folder / "bids").mkdir(exist_ok=True)
    first = answer_of_function(lambda: write_participant_report(folder / "out", "00"))
    places = [str(folder / "bids"), str(folder / "out")]
    second = answer_of_call([*places, "group", "-w", str(folder / "work"), "--reports-only"])
    return f"participant {first}, cohort {second}"


@functools.cache
def model() -> dict[str, bytes]:
    """The folder of a small model; made once."""
    with tempfile.TemporaryDirectory() as folder:
        system = build_system("unet", "laptop", image_size=GRID.shape)
        splits = pd.DataFrame({"participant_id": [*TRAIN, "sub-03"], "split": ["train", "train", "test"]})
        splits = splits.assign(manufacturer="GE", diagnosis="CN")
        save_model(Path(folder), system, ModelCard("unet", "laptop", GRID, {}, seed=0), BY_MANUFACTURER, splits)
        return _contents(Path(folder))


def spoilt_model(draw: st.DrawFn, folder: Path) -> str:
    """A model folder with card, weights and tables damaged, where the card may have been made to fit them."""
    tree = _spoilt(draw, model(), 3)
    if draw(st.booleans()):
        _name_in_card(tree)
    write_tree(tree, folder / "model")
    return answer_of_function(lambda: load_ensemble([folder / "model"]))


def _name_in_card(tree: Tree) -> None:
    """Let the card hold the digests of the files that are there, so that what reads them is reached."""
    try:
        card = json.loads(tree[CARD])
        files = card["files"]
        for name in list(files):
            if isinstance(content := tree.get(name), bytes):
                files[name] = hashlib.sha256(content).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    tree[CARD] = as_json(card)


@functools.cache
def study() -> dict[str, bytes]:
    """Return the inputs of training and synthesis for six tiny participants; made once."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bids").mkdir()
        (Path(folder) / "bids/participants.tsv").write_text(
            "participant_id\tdiagnosis\n" + "".join(f"sub-{n:02d}\tCN\n" for n in range(1, 7)), encoding="utf-8"
        )
        write_dataset_files(Path(folder) / "out", Path(folder) / "bids")
        makers = ("SIEMENS", "GE")
        write_people(Path(folder) / "out", [Person(f"{n:02d}", manufacturer=makers[n % 2]) for n in range(1, 7)])
        return _contents(Path(folder))


def spoilt_study(draw: st.DrawFn, folder: Path) -> str:
    """Derivatives with files damaged, in dry runs of training and synthesis."""
    tree = _spoilt(draw, study(), 3)
    write_tree(tree, folder)
    write_tree(model(), folder / "model")
    places = [str(folder / "bids"), str(folder / "out")]
    more = ["-w", str(folder / "work"), "--dry-run"]
    first = answer_of_call([*places, "train", *more, "--model-dir", str(folder / "new"), "--min-participants", "2"])
    second = answer_of_call([*places, "synthesize", *more, "--model", str(folder / "model"), "--synthesize", "all"])
    return f"train {first}, synthesize {second}"


@functools.cache
def _weights() -> bytes:
    """A torch file of some tensors, and of what goes with them."""
    content = io.BytesIO()
    torch.save({"features.0.weight": torch.zeros(2, 3), "bias": torch.ones(4, dtype=torch.float16)}, content)
    return content.getvalue()


def spoilt_weights(draw: st.DrawFn, folder: Path) -> str:
    """Weights of a feature network, and a checkpoint whose digest fits, both damaged."""
    how = draw(st.sampled_from(["bytes", "cut", "content"]))
    if how == "content":
        content = draw(ODD_CONTENTS)
    elif how == "cut":
        content = _weights()[: draw(st.integers(0, len(_weights()) - 1))]
    else:
        content = _with_odd_bytes(draw, _weights(), most=8)
    (folder / "vgg16.pth").write_bytes(content)
    first = answer_of_function(lambda: load_vgg16_features(folder / "vgg16.pth"))
    path = write_checkpoint(folder / "checkpoints", {"step": 1}, 1, 1)
    begin = path.read_bytes().split(b"\n", 1)[0] + b"\n"
    path.write_bytes(begin + hashlib.sha256(content).hexdigest().encode() + content)
    second = answer_of_function(lambda: read_checkpoint(path))
    return f"{first}, {second}"
