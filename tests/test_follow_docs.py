"""The script that follows the pages word for word changes no word, and its log names nothing of the machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from doc_blocks import ROOT, blocks
from follow_docs import LEFT_OUT, PAGES, script_of, scrubbed


def test_every_command_of_the_page_is_typed_as_it_stands(tmp_path: Path) -> None:
    script = script_of("tutorial", ROOT, tmp_path)
    for block in blocks(ROOT / PAGES["tutorial"]):
        if block.language == "bash":
            assert f"\n{block.text}" in script
        elif block.language in ("python", "r"):
            assert any(block.text == file.read_text(encoding="utf-8") for file in tmp_path.iterdir())


def test_of_the_readme_everything_is_typed_but_what_is_said_to_be_left_out(tmp_path: Path) -> None:
    typed = script_of("readme", ROOT, tmp_path).splitlines()
    lines = [
        line for block in blocks(ROOT / "README.md") if block.language == "bash" for line in block.text.splitlines()
    ]
    absent = [line for line in lines if line not in typed]
    assert len(absent) == len(LEFT_OUT)
    assert all(line.startswith(tuple(LEFT_OUT)) for line in absent)
    assert sum("Not followed, since" in line for line in typed) == len(LEFT_OUT)


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
