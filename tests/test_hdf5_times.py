"""Composite transforms have the same bytes whenever they are written, and ITK still reads them."""

from __future__ import annotations

import time

import ants
import numpy as np
import pytest

from tau_pipeline.imaging.hdf5_times import checksum, clear_times


def composite(seed: int = 0) -> ants.ANTsTransform:
    """A displacement field and an affine."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(7, 8, 9, 3)).astype(np.float32)
    field = ants.transform_from_displacement_field(ants.from_numpy(vectors, has_components=True))
    affine = ants.create_ants_transform("AffineTransform", precision="float", dimension=3)
    affine.set_parameters([*(np.eye(3) + rng.normal(0, 0.1, (3, 3))).ravel(), 1.0, -2.0, 3.0])
    return ants.compose_ants_transforms([field, affine])


def test_a_transform_that_is_written_later_has_the_same_bytes(tmp_path):
    files = [tmp_path / "first.h5", tmp_path / "second.h5"]
    for file in files:
        ants.write_transform(composite(), str(file))
        # the times in the file are in seconds
        time.sleep(1.1)
    assert files[0].read_bytes() != files[1].read_bytes()
    for file in files:
        clear_times(file)
    assert files[0].read_bytes() == files[1].read_bytes()
    point = (3.2, 4.1, 5.7)
    assert ants.read_transform(str(files[0])).apply_to_point(point) == composite().apply_to_point(point)


def test_clearing_again_changes_nothing_and_data_are_left_alone(tmp_path):
    file = tmp_path / "transform.h5"
    ants.write_transform(composite(), str(file))
    clear_times(file)
    once = file.read_bytes()
    clear_times(file)
    assert file.read_bytes() == once
    # bytes that only look like the beginning of a header with times
    data = b"OHDR\x02\x20" + bytes(range(40))
    for content in (data, data[:8], b"OHDR\x02", b""):
        file.write_bytes(content)
        clear_times(file)
        assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("data", "expected"),
    # driver5 of Jenkins's lookup3.c
    [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)],
)
def test_checksum_is_that_of_lookup3(data, expected):
    assert checksum(data) == expected
