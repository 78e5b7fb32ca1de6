"""Build the navigation of the site from the folders, so that new pages are included automatically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Folders in the order of the site, and their headings. Pages within a folder are sorted by title. Design decisions are
#: not in the navigation: `docs/decisions/index.md` lists them.
FOLDERS = {
    "tutorial": "Tutorial",
    "how-to": "How-to guides",
    "examples": "Examples",
    "explanation": "Explanation",
    "reference": "Reference",
}


def title(page: Path) -> str:
    """Return the first heading of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))


def on_config(config: Any) -> Any:
    """Fill in the navigation; called by MkDocs."""
    docs = Path(config["docs_dir"])
    sections = [
        {heading: [path.relative_to(docs).as_posix() for path in sorted((docs / folder).glob("*.md"), key=title)]}
        for folder, heading in FOLDERS.items()
    ]
    config["nav"] = [{"Home": "index.md"}, *sections]
    return config
