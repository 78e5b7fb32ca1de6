"""Compare what two versions of the program write from the same input.

A change of structure must not change results. Run ``make`` with the Python of each version, then ``compare``::

    python tests/compare_outputs.py make before --shared-data ../shared/data     # with the old version installed
    python tests/compare_outputs.py make after --shared-data ../shared/data      # with the new one
    python tests/compare_outputs.py compare before after

``make`` simulates static, dynamic and multi-session datasets, runs the levels participant, group, train and synthesize
on them, and the participant level on one real head of ``--shared-data`` where it is given. ``compare`` wants images,
tables and arrays equal to the last bit, and sidecars equal but for versions and dates. Sentences may be worded anew: of
them, and of pages, the numbers must be equal. Pictures and logs are only counted.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

#: Keys of sidecars and model cards that hold versions, dates, places or durations; a model's hash covers its dates.
CHANGING = re.compile(
    r"version|date|time_?stamp|created|started|seconds|minutes|hostname|codeurl|generatedby|sourcedatasets|datasetlinks"
    r"|^models$|^(model)?hash$",
    re.IGNORECASE,
)
#: Keys whose values are sentences.
PROSE = (
    "Labels",
    "MadeBy",
    "ReferenceRegionDescription",
    "Assumptions",
    "Description",
    "LongName",
    "Limits",
    "IntendedUse",
    "limits",
    "intended_use",
    "Levels",
    "description",
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
#: Files that tell of one run: when, where, by what version.
LOGS = ("logs/", "work/")
SMALL_TRAINING = (
    *("--epochs", "2", "--first-cycle", "1", "--warmup-epochs", "0", "--grid-voxel", "10", "--device", "cpu"),
    *(
        "--perceptual-features",
        "random",
        "--min-participants",
        "1",
        "--model-name",
        "small",
        "--unknown-manufacturer",
        "pooled",
    ),
)


def run(*words: str | Path) -> None:
    """Run one command of the version that this Python has installed."""
    sys.stdout.write(f"+ {' '.join(map(str, words))}\n")
    sys.stdout.flush()
    environment = os.environ | {"NO_ET": "1", "NIPYPE_NO_ET": "1"}
    program = Path(sys.executable).parent / str(words[0])
    subprocess.run([program, *map(str, words[1:])], check=True, env=environment)


def make(folder: Path, shared_data: Path | None) -> None:
    """Write everything that is compared under ``folder``."""
    static, dynamic, sessions = (folder / name for name in ("static", "dynamic", "sessions"))
    head = ("--voxel-size", "3")
    run("tau-simulate", static / "bids", "--participants", "4", "--seed", "1", "--pet", "static", *head)
    run("tau-simulate", dynamic / "bids", "--participants", "1", "--seed", "2", "--pet", "dynamic", *head)
    run("tau-simulate", sessions / "bids", "--participants", "3", "--seed", "3", "--sessions", *head)
    for dataset, options in ((static, ()), (dynamic, ()), (sessions, ("--participant-label", "03"))):
        run("tau-pipeline", dataset / "bids", dataset / "out", "participant", "-w", dataset / "work", *options)
    levels = (static / "bids", static / "out")
    run("tau-pipeline", *levels, "group", "--unknown-manufacturer", "pooled", "-w", static / "work")
    run("tau-pipeline", *levels, "train", *SMALL_TRAINING, "-w", static / "work")
    model = static / "out" / "models" / "small"
    everyone = ("--synthesize", "all", "--as-manufacturer", "pooled")
    run("tau-pipeline", *levels, "synthesize", "--model", model, *everyone, "-w", static / "work")
    run("tau-pipeline", *levels, "group", "--unknown-manufacturer", "pooled", "-w", static / "work")
    if shared_data is not None:
        real = ("participant", "--participant-label", "01", "-w", folder / "real/work")
        run("tau-pipeline", shared_data / "ds-simtau", folder / "real/out", *real)


def differences(before: Path, after: Path) -> Iterator[str]:
    """Say, one line each, what is not equal in two folders that `make` has written."""
    old, new = (sorted(files_of(root)) for root in (before, after))
    yield from (f"{name}: only before" for name in old if name not in set(new))
    yield from (f"{name}: only after" for name in new if name not in set(old))
    for name in old:
        if name in set(new) and (reason := difference(before / name, after / name)):
            yield f"{name}: {reason}"


def files_of(root: Path) -> Iterator[str]:
    """Paths, from ``root`` on, of all results: what stands in an output folder and is no log."""
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        inside = name.partition("/out/")[2]
        if path.is_file() and inside and not inside.startswith(LOGS) and "tfevents" not in name:
            yield name


def difference(old: Path, new: Path) -> str | None:
    """Say how two files differ in what must be equal; None if they do not."""
    for endings, compared in COMPARED.items():
        if old.name.endswith(endings):
            return compared(old, new) if compared else None
    return None if old.read_bytes() == new.read_bytes() else "not the same bytes"


def page_difference(old: Path, new: Path) -> str | None:
    """Compare the numbers that two pages state."""
    return prose_difference(page_text(old.read_text()), page_text(new.read_text()))


def sidecar_difference(old: Path, new: Path) -> str | None:
    """Compare two JSON files."""
    return json_difference(json.loads(old.read_text()), json.loads(new.read_text()), "")


def image_difference(old: Path, new: Path) -> str | None:
    """Compare voxels, affine and type of two images."""
    a, b = nib.load(old), nib.load(new)
    if not np.array_equal(a.affine, b.affine) or a.get_data_dtype() != b.get_data_dtype() or a.shape != b.shape:
        return "another grid or type"
    one, other = np.asanyarray(a.dataobj), np.asanyarray(b.dataobj)
    if one.tobytes() == other.tobytes():
        return None
    return f"voxels differ, by up to {np.nanmax(np.abs(one.astype(float) - other.astype(float))):.3g}"


def transform_difference(old: Path, new: Path) -> str | None:
    """Compare where two transforms put points of the world; the files hold times too."""
    import ants

    points = pd.DataFrame(np.random.default_rng(0).uniform(-60, 60, (1000, 3)), columns=["x", "y", "z"])
    one, other = (ants.apply_transforms_to_points(3, points, [str(path)]).to_numpy() for path in (old, new))
    return None if np.array_equal(one, other) else f"points differ, by up to {np.abs(one - other).max():.3g} mm"


def json_difference(old: Any, new: Any, where: str) -> str | None:
    """Compare two JSON values, but for what belongs to one run and for how sentences are worded."""
    key = where.rpartition("/")[2]
    if CHANGING.search(key):
        return None
    if key in PROSE:
        return prose_difference(json.dumps(old), json.dumps(new), where)
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() != new.keys():
            return f"keys of {where or 'the file'}: {sorted(old.keys() ^ new.keys())}"
        return next(filter(None, (json_difference(old[k], new[k], f"{where}/{k}") for k in old)), None)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return next(filter(None, (json_difference(a, b, where) for a, b in zip(old, new, strict=True))), None)
    return None if old == new else f"{where}: {old!r} before, {new!r} after"


def prose_difference(old: str, new: str, where: str = "") -> str | None:
    """Compare the numbers of two texts, in whatever order the sentences stand."""
    one, other = (sorted(NUMBER.findall(text)) for text in (old, new))
    if one == other:
        return None
    return f"numbers in its text {where}: {sorted(set(one) ^ set(other))[:12]}"


def page_text(page: str) -> str:
    """Return what a page says, without pictures, styles, scripts, versions, dates, durations, and hashes."""
    page = re.sub(r"<(style|script|svg|head)\b.*?</\1>", "", page, flags=re.S)
    # The cohort's page gives minutes of work in a table; its other numbers there have two or more decimals.
    page = re.sub(r"<td[^>]*>\d+\.\d</td>", "", page)
    page = html.unescape(re.sub(r"<[^>]*>", " ", page))
    return re.sub(r"\d{4}-\d\d-\d\d(T[\d:.+]+)?|version \S+|\d+\.\d+\.\d+\S*|\b[0-9a-f]{12}\b|[\d.]+ min\w*", "", page)


def table_difference(old: Path, new: Path) -> str | None:
    """Compare the columns of a table that are no durations or dates; sentences count by their numbers."""
    one, other = (pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False) for path in (old, new))
    if list(one.columns) != list(other.columns) or len(one) != len(other):
        return "other columns or another number of rows"
    for name in one.columns:
        if name == "reason":
            if found := prose_difference(" ".join(one[name]), " ".join(other[name]), name):
                return found
        elif not CHANGING.search(name) and not one[name].equals(other[name]):
            return f"column {name}"
    return None


#: How files are compared, by how their names end; the first that fits. All others must have the same bytes.
COMPARED: dict[tuple[str, ...], Callable[[Path, Path], str | None] | None] = {
    (".nii.gz", ".nii"): image_difference,
    (".json",): sidecar_difference,
    ("_xfm.h5",): transform_difference,
    ("status.tsv", "log.tsv", "_dseg.tsv"): table_difference,
    (".html", ".md", "README"): page_difference,
    (".svg", ".png", ".webp", ".jpg", ".log"): None,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of this script; return 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("make", help="run the installed version")
    making.add_argument("folder", type=Path)
    making.add_argument("--shared-data", type=Path)
    comparing = actions.add_parser("compare", help="list what differs")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args(argv)
    if options.action == "make":
        make(options.folder, options.shared_data)
        return 0
    found = list(differences(options.before, options.after))
    count = f"{len(list(files_of(options.before)))} files compared, {len(found)} differ"
    sys.stdout.write("\n".join([*found, count, ""]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
