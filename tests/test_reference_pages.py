"""The pages that are made from the code are those of the code as it is now, and the site has no dead link."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import generate

        yield generate
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.fixture(scope="module")
def graphs(generate: ModuleType) -> ModuleType:
    import graph

    return graph


def test_the_pages_on_disk_are_those_of_the_code(generate: ModuleType) -> None:
    old = [
        str(path.relative_to(ROOT))
        for path, text in generate.pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert old == [], "run make docs, look at what has changed, and commit these pages"


def test_every_setting_stands_on_both_pages(generate: ModuleType) -> None:
    from tau_pipeline.settings.configuration import documentation

    options, settings = generate.command_line(), generate.settings()
    for doc in documentation():
        assert all(f"`{flag}`" in options for flag in doc.flags)
        assert f"| `{doc.name}` |" in settings


def test_every_option_of_the_parser_stands_on_the_page(generate: ModuleType) -> None:
    from tau_workflows.cli import build_parser

    page = generate.command_line()
    for action in build_parser()._actions:
        assert all(f"`{flag}`" in page for flag in action.option_strings if not flag.startswith("--no-"))


def test_a_sidecar_key_without_a_meaning_is_an_error(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "sidecar_keys", lambda: {"SUVR": [*generate.SIDECAR_KEYS, "NewKey"]})
    with pytest.raises(ValueError, match="NewKey"):
        generate.sidecars()


def test_a_bar_in_a_cell_does_not_break_the_table(generate: ModuleType) -> None:
    lines = generate.table(["a", "b"], [("x|y", "two\nlines")]).splitlines()
    assert lines == ["| a | b |", "|---|---|", "| x\\|y | two lines |"]


def test_the_picture_has_every_step_of_the_workflow(graphs: ModuleType) -> None:
    from nipype.interfaces.utility import IdentityInterface, Merge

    from tau_workflows.graphs.subject import init_subject_wf

    with tempfile.TemporaryDirectory() as folder:
        job = graphs.stub_job(Path(folder))
        drawn = graphs.graph_of(Path(folder))
        nodes = init_subject_wf(job)._create_flat_graph().nodes()
    computing = {graphs.short_name(n) for n in nodes if not isinstance(n.interface, IdentityInterface | Merge)}
    assert computing == set(drawn.nodes()) - {"T1w", "PET"}
    picture = graphs.svg(drawn)
    assert all(f">{step}</text>" in picture for step in computing)


def test_an_edge_through_a_passing_node_is_drawn_from_its_origin(graphs: ModuleType) -> None:
    with tempfile.TemporaryDirectory() as folder:
        drawn = graphs.graph_of(Path(folder))
    assert drawn.edges["read_t1w", "brain"]["fields"] == ("t1w_file",)
    assert drawn.edges["motion", "on_t1w"]["fields"] == ("frame_xfms", "frames", "static_file")
    assert "assumptions" in drawn.edges["coregister", "save"]["fields"]


def test_no_arrow_passes_behind_a_box(graphs: ModuleType) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert graphs.hidden_arrows(graphs.graph_of(Path(folder))) == []


@pytest.mark.slow
def test_the_site_builds_without_a_dead_link(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link rel="stylesheet")[^>]* (?:src|href)="([^"]+)"', text)
        # A page that lies in docs as the program wrote it holds all that it needs.
        assert bool(loaded) is not (ROOT / "docs" / page.relative_to(tmp_path / "site")).is_file()
        assert not any("//" in address for address in loaded), "a page needs the network"
