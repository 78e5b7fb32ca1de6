"""The examples in docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "tau_pipeline").rglob("*.py"), *(ROOT / "workflows/tau_workflows").rglob("*.py")])
WITH_EXAMPLES = [path for path in SOURCES if ">>>" in path.read_text(encoding="utf-8")]


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(part for part in parts if part not in ("workflows", "__init__"))


@pytest.mark.parametrize("name", [module_of(path) for path in WITH_EXAMPLES])
def test_examples_give_what_they_say(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
