"""The script that follows the pages word for word changes no word, and its log names nothing of the machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from doc_blocks import ROOT, blocks
from follow_docs import PAGES, script_of, scrubbed


def test_every_command_of_the_page_is_typed_as_it_stands(tmp_path: Path) -> None:
    script = script_of("tutorial", ROOT, tmp_path)
    for block in blocks(ROOT / PAGES["tutorial"]):
        if block.language == "bash":
            assert f"\n{block.text}" in script
        elif block.language in ("python", "r"):
            assert any(block.text == file.read_text(encoding="utf-8") for file in tmp_path.iterdir())


def test_of_the_readme_only_the_demo_is_typed(tmp_path: Path) -> None:
    typed = [line for line in script_of("demo", ROOT, tmp_path).splitlines() if line.startswith("make ")]
    assert [line.split("#")[0].strip() for line in typed] == ["make demo"]


def test_the_log_names_no_folder_and_no_host(tmp_path: Path) -> None:
    text = f"a\r10 %\r100 %\nwrote {tmp_path}/x\nfrom https://example.org/y and {ROOT}/z\nLooking in indexes: here\n"
    text += f"stored in {tempfile.gettempdir()}/pip-1/x\n"
    assert scrubbed(text, tmp_path) == "100 %\nwrote FOLDER/x\nfrom URL and SOURCE/z\nstored in TEMPORARY\n"


def test_of_the_containers_only_engines_that_are_there_are_followed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "podman").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "podman").chmod(0o755)
    script = script_of("container", ROOT, tmp_path, str(tmp_path / "bin"))
    typed = [
        line.split()[0] for line in script.splitlines() if line.split()[:1] in (["docker"], ["podman"], ["apptainer"])
    ]
    assert set(typed) == {"podman"}
    assert "there is no docker here" in script
    assert "there is no apptainer here" in script
