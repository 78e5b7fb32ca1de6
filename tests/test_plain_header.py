"""Headers are read without nibabel's checks where these would find nothing, and with them everywhere else."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.imaging.load import load_volume, read_shape
from tau_pipeline.imaging.plain_header import glance, plain_header

#: Bytes of a header that are not as they should be: where they are, and in which form and with which value.
ODD = {
    "nothing": (76, "f", 1.0),
    "bits of another type": (72, "h", 64),
    "a type that does not exist": (70, "h", 11),
    "no handedness": (76, "f", 0.0),
    "a voxel without extent": (84, "f", 0.0),
    "a voxel of negative extent": (80, "f", -2.0),
    "voxels inside the header": (108, "f", 340.0),
    "voxels at an odd place": (108, "f", 353.0),
    "a form that does not exist": (252, "h", 77),
    "another form that does not exist": (254, "h", -1),
}


def image(order: str = "<") -> bytearray:
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.int16)
    return bytearray(nib.Nifti1Image(np.ones((3, 4, 5), np.int16), np.diag([2, 2, 2, 1]), header).to_bytes())


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("odd", ODD)
def test_a_header_is_what_nibabel_makes_of_it(tmp_path: Path, odd: str, order: str) -> None:
    content, (place, form, value) = image(order), ODD[odd]
    struct.pack_into(f"{order}{form}", content, place, value)
    path = tmp_path / "x.nii"
    path.write_bytes(content)
    try:
        expected = nib.Nifti1Header(bytes(content[:348]))
    except nib.spatialimages.HeaderDataError:
        assert plain_header(path, bytes(content)) is None
        return
    found = plain_header(path, bytes(content))
    assert found is not None
    assert found.binaryblock == expected.binaryblock
    assert found.endianness == order


def test_an_image_is_opened_once_for_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(image()))
    opened = []
    before = os.open
    monkeypatch.setattr(os, "open", lambda name, *rest, **more: (opened.append(name), before(name, *rest, **more))[1])
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("opened once more"))
    assert read_shape(path) == (3, 4, 5)
    assert opened == [path]


def test_what_is_no_file_is_not_looked_at(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    for name in ("pipe.nii", "absent.nii", "."):
        assert glance(tmp_path / name) is None


@pytest.mark.parametrize("factor", [0.0, 1e-5, 1e4, np.nan, np.inf])
def test_shape_and_volume_refuse_the_same_affines(tmp_path: Path, factor: float) -> None:
    content = image()
    struct.pack_into("<4f", content, 280, 2 * factor, 0, 0, 0)
    path = tmp_path / "x.nii"
    path.write_bytes(content)
    said = []
    for read in (read_shape, load_volume):
        with pytest.raises(TauPipelineError) as caught:
            read(path)
        said.append(str(caught.value))
    assert said[0] == said[1]
