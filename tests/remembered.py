"""Keep what takes seconds and is the same every time for all processes of one run of the tests.

`tests/conftest.py` makes the folder, before pytest-xdist starts its processes, and names it in the environment.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: Variable of the environment that names the folder. Without it, nothing is kept.
FOLDER = "TAU_TESTS_REMEMBERED"


def remembered(name: str, make: Callable[[], T]) -> T:
    """Return what ``make`` returns, from the process of this run of the tests that made it first."""
    if not (folder := os.environ.get(FOLDER)):
        return make()
    path = Path(folder) / f"{name}.pickle"
    if not path.is_file():
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(pickle.dumps(make()))
        partial.replace(path)
    made: T = pickle.loads(path.read_bytes())
    return made


def remember_template() -> None:
    """Make simulations take the average head, which takes 8 s, from the first process that made it."""
    from tau_pipeline.simulate import template

    make = template.load_template
    template.load_template = functools.cache(lambda: remembered("template", make))


def remember_validation() -> None:
    """Make levels take the validator's answer on a dataset that has not changed from the first process that asked."""
    from tau_pipeline.bids import validator

    ask = validator._run

    def answer(program: Path, folder: Path, *options: Any) -> list[dict[str, Any]]:
        files = sorted(Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
        about = repr([(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files])
        key = hashlib.sha256(about.encode()).hexdigest()
        return remembered(f"validation-{key}", lambda: ask(program, folder, *options))

    validator._run = answer
