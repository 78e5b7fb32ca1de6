"""Parts shared by the participant and cohort reports: template, pictures, methods text, error records."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tau_pipeline.figures.sheet import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Signs that nobody sees, which terminals and browsers obey: control characters, and those that turn text around.
_NOT_SHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")


def template(name: str) -> Any:
    """Return a jinja2 template of this package; every value is escaped, and a name that is not given is an error."""
    return _environment().get_template(name)


@cache
def _environment() -> Any:
    """Return the template environment, cached because reading a template takes longer than filling it."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render(name: str, **values: Any) -> str:
    """Return a page from a template, with a Content-Security-Policy that allows its own scripts and nothing else.

    The policy takes the place of the line ``<!--policy-->``. Scripts are allowed by their SHA-256, so that text from
    the data that should slip through the escaping is never run; nothing is loaded from a network.
    """
    text = _NOT_SHOWN.sub("?", template(name).render(**values))
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    hashes = [base64.b64encode(hashlib.sha256(one.encode("utf-8")).digest()).decode("ascii") for one in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    policy = (
        "default-src 'none'; img-src data: blob: 'self' file:; style-src 'unsafe-inline'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return text.replace("<!--policy-->", meta, 1)


@dataclass(frozen=True)
class Point:
    """A point of a figure that stands for a scan: its place from the left and the top, in percent of the picture."""

    scan: str
    left: float
    top: float


def points_of(figure: Figure) -> list[Point]:
    """Return the points of a saved figure whose artists are named after scans (their ``gid``, separated by tabs)."""
    found = []
    width, height = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        for points in axes.collections:
            scans = (points.get_gid() or "").split("\t")
            places = np.asarray(axes.transData.transform(points.get_offsets())).tolist()
            if len(scans) == len(places):
                found += [
                    Point(scan, round(100 * x / width, 2), round(100 - 100 * y / height, 2))
                    for scan, (x, y) in zip(scans, places, strict=True)
                ]
    return found


def figure_uri(figure: Figure) -> str:
    """Return a matplotlib figure as a data URI of PNG; the same figure gives the same text."""
    with io.BytesIO() as png, warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; the tables of the report have it right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        content = base64.b64encode(png.getvalue()).decode("ascii")
    return f"data:image/png;base64,{content}"


def methods(output_dir: Path) -> list[tuple[str, list[str]]]:
    """Read the methods text that the run left in ``logs/CITATION.md``, as `blocks_of`; empty if there is none."""
    path = output_dir / "logs" / "CITATION.md"
    return blocks_of(path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "")


def blocks_of(text: str) -> list[tuple[str, list[str]]]:
    """Split a text into blocks: each a ``heading``, a ``list`` with its items, or a ``paragraph``.

    Of Markdown only what `tau_workflows.reports.methods` uses is known.
    """
    blocks: list[tuple[str, list[str]]] = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = part.strip().splitlines()
        if lines and lines[0].startswith("#"):
            blocks.append(("heading", [lines.pop(0).lstrip("# ")]))
        if lines and all(line.startswith("- ") for line in lines):
            blocks.append(("list", [line.removeprefix("- ") for line in lines]))
        elif lines:
            blocks.append(("paragraph", [" ".join(lines)]))
    return blocks


def error_records(output_dir: Path) -> list[dict[str, str]]:
    """Read the records in ``logs/errors`` by name: ``file``, ``message`` (one sentence) and ``details`` (all)."""
    folder = output_dir / "logs" / "errors"
    return [error_record(path) for path in sorted(folder.glob("*")) if path.suffix in (".json", ".txt")]


def error_record(path: Path) -> dict[str, str]:
    """Read one error record, whatever is in it: ``file``, ``message`` and ``details``."""
    record: Any = None
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".json":
            record = json.loads(text)
    except OSError as exc:
        text = f"The record cannot be read ({exc.strerror or exc})."
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        first = next((line for line in text.splitlines() if line.strip()), "empty record")
        return {"file": path.name, "message": first, "details": text}
    message = next((str(record[name]) for name in ("message", "error", "reason") if record.get(name)), path.name)
    details = json.dumps(record, indent=2, ensure_ascii=False)
    return {"file": path.name, "message": message, "details": details}
