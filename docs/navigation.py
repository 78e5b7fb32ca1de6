"""The order of the site's pages, made from the folders, so that a new page is in it without a list to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Folders in the order of the site, and what a reader knows them as. Pages within a folder go by their title.
FOLDERS = {
    "tutorial": "Tutorial",
    "how-to": "How to",
    "examples": "Examples",
    "explanation": "Explanation",
    "reference": "Reference",
    "decisions": "Decisions",
}


def title(page: Path) -> str:
    """The first heading of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))


def on_config(config: Any) -> Any:
    """Fill in the navigation; mkdocs calls this."""
    docs = Path(config["docs_dir"])
    sections = [
        {about: [path.relative_to(docs).as_posix() for path in sorted((docs / folder).glob("*.md"), key=title)]}
        for folder, about in FOLDERS.items()
    ]
    config["nav"] = [{"Start": "index.md"}, *sections]
    return config
