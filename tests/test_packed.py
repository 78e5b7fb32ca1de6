"""Gzip files are unpacked to their end, and no further than the header of their image asks for."""

import gzip
import io

import pytest

from tau_pipeline.errors import DamagedFileError
from tau_pipeline.imaging import packed
from tau_pipeline.imaging.plain_header import glance

CONTENT = bytes(range(256)) * 8


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(CONTENT))
    return path


@pytest.mark.parametrize(
    ("name", "expected"), [("a.nii.gz", True), ("a.MGZ", True), ("a.nii", False), ("a.mgh", False)]
)
def test_the_name_says_whether_a_file_is_packed(tmp_path, name, expected):
    assert packed.is_compressed(tmp_path / name) is expected


def test_a_file_states_the_length_of_its_content(file):
    found = glance(file)
    assert found is not None
    assert found.stated_length == len(CONTENT)


def test_a_whole_file_is_unpacked_unchanged(file):
    into = io.BytesIO()
    packed.decompress(file, len(CONTENT), into)
    assert into.getvalue() == CONTENT


def test_content_shorter_than_the_header_says_is_refused_with_both_lengths(file):
    with pytest.raises(DamagedFileError, match=f"{len(CONTENT)} bytes, but {len(CONTENT) + 1}"):
        packed.decompress(file, len(CONTENT) + 1)


def test_content_that_goes_on_long_after_the_last_voxel_is_refused_without_being_kept(file, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", 64)
    monkeypatch.setattr(packed, "MOST_AFTER_VOXELS", 128)
    into = io.BytesIO()
    with pytest.raises(DamagedFileError, match="last voxel"):
        packed.decompress(file, 64, into)
    assert len(into.getvalue()) == 64


def test_a_wrong_checksum_is_found_although_all_content_was_read(file):
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)
    with pytest.raises(gzip.BadGzipFile):
        packed.decompress(file, len(CONTENT))
