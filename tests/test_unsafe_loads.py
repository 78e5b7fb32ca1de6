"""Nothing that comes from outside is executed: no unsafe load in the sources, and a malicious file does nothing."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.synthesis.losses.features import load_vgg16_features
from tau_pipeline.synthesis.training.checkpoints import newest_checkpoint, read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "tau_pipeline").rglob("*.py"), *(ROOT / "workflows").rglob("*.py")])
#: Job files, which one process of the program writes for the next into its own work folder.
OWN_PICKLES = {"execution/participant.py", "execution/comparison_runs.py"}
FORBIDDEN = {"eval", "exec", "compile", "__import__"}


def dotted(node: ast.expr) -> str:
    """``torch.load`` of the expression that is called."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def is_set(call: ast.Call, name: str, value: object) -> bool:
    given = {word.arg: word.value for word in call.keywords}
    return isinstance(given.get(name), ast.Constant) and given[name].value is value


PICKLES = ("pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle", "joblib.load", "marshal.loads")


def is_unsafe(name: str, call: ast.Call, file: str) -> bool:
    """Return whether a call in ``file``, given with its folder, could execute code from another file."""
    if name == "torch.load":
        return not is_set(call, "weights_only", True)
    if name in ("np.load", "numpy.load"):
        return not is_set(call, "allow_pickle", False)
    if name in PICKLES:
        return file not in OWN_PICKLES
    return name in FORBIDDEN or (name.startswith("yaml.") and name != "yaml.safe_load")


def unsafe(path: Path) -> list[str]:
    return [name for name, call in calls(path) if is_unsafe(name, call, f"{path.parent.name}/{path.name}")]


@pytest.mark.slow
def test_no_source_loads_anything_that_could_be_executed() -> None:
    assert len(SOURCES) > 50
    assert {path.name: found for path in SOURCES if (found := unsafe(path))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(p)",
        "import torch; torch.load(p, weights_only=False)",
        "import numpy as np; np.load(p, allow_pickle=True)",
        "import pickle; pickle.loads(b)",
        "import yaml; yaml.load(t)",
        "eval(t)",
    ],
)
def test_the_search_finds_what_it_looks_for(tmp_path: Path, line: str) -> None:
    source = tmp_path / "source.py"
    source.write_text(line)
    assert unsafe(source)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def as_torch(bomb: Bomb, path: Path) -> None:
    torch.save({"features.0.weight": bomb}, path)


def as_old_torch(bomb: Bomb, path: Path) -> None:
    torch.save({"features.0.weight": bomb}, path, _use_new_zipfile_serialization=False)


def as_pickle(bomb: Bomb, path: Path) -> None:
    path.write_bytes(pickle.dumps(bomb))


@pytest.mark.parametrize("write", [as_torch, as_old_torch, as_pickle])
@pytest.mark.parametrize("read", [load_vgg16_features, read_checkpoint])
def test_a_malicious_file_of_weights_is_refused_and_not_executed(
    tmp_path: Path, write: Callable[[Bomb, Path], None], read: Callable[[Path], object]
) -> None:
    path, mark = tmp_path / "checkpoint-000000-000000.pt", tmp_path / "exploded"
    write(Bomb(mark), path)
    with pytest.raises(TauPipelineError, match=path.name):
        read(path)
    assert newest_checkpoint(tmp_path) is None
    assert not mark.exists()
    # The bomb is live: whoever unpickles it gets the file.
    pickle.loads(pickle.dumps(Bomb(mark))).close()
    assert mark.exists()
