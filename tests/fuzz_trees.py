"""Small datasets that are valid, and what is odd in as many ways as we could think of."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import math
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import strategies as st

#: Relative path to content; None stands for a folder, and a string for the target of a symbolic link.
Tree = dict[str, bytes | str | None]

# --- what is valid ---

SIDECAR = {
    "TracerName": "AV1451",
    "TracerRadionuclide": "F18",
    "Units": "Bq/mL",
    "Manufacturer": "GE",
    "ManufacturersModelName": "Discovery 690",
    "InjectionStart": 0,
    "ScanStart": 4800,
    "FrameTimesStart": [4800, 5100, 5400, 5700],
    "FrameDuration": [300, 300, 300, 300],
    "ReconFilterType": "none",
    "ReconFilterSize": 0,
}


@functools.cache
def image_bytes(frames: int = 1) -> bytes:
    """A small image, uncompressed."""
    shape = (6, 7, 5) if frames == 1 else (6, 7, 5, frames)
    data = np.random.default_rng(0).integers(1, 900, shape).astype(np.int16)
    return nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1])).to_bytes()


@functools.cache
def packed(frames: int = 1) -> bytes:
    """The same image, compressed."""
    return gzip.compress(image_bytes(frames), mtime=0)


@functools.cache
def mgz() -> bytes:
    """Labels as FreeSurfer stores them."""
    data = np.resize(np.array([0, 2, 8, 47, 1001, 2035], np.int32), (6, 7, 5))
    return gzip.compress(nib.MGHImage(data, np.diag([2.0, 2, 2, 1])).to_bytes(), mtime=0)


def dataset() -> Tree:
    """A valid dataset: one participant with two sessions, and one without."""
    tree: Tree = {
        "dataset_description.json": as_json({"Name": "fuzz", "BIDSVersion": "1.10.0"}),
        "participants.tsv": b"participant_id\tage\tsex\tdiagnosis\nsub-01\t70\tF\tCN\nsub-02\t71\tM\tAD\n",
        "sub-01/sub-01_sessions.tsv": b"session_id\tacq_time\nses-a\t2020-01-01T10:00:00\nses-b\t2021-01-01\n",
        "sub-01/ses-a/sub-01_ses-a_scans.tsv": b"filename\tacq_time\npet/x.nii.gz\t2020-01-01T10:00:00\n",
    }
    for place, stem in (("sub-01/ses-a", "sub-01_ses-a"), ("sub-01/ses-b", "sub-01_ses-b"), ("sub-02", "sub-02")):
        tree[f"{place}/anat/{stem}_T1w.nii.gz"] = packed()
        tree[f"{place}/anat/{stem}_T1w.json"] = as_json({"SkullStripped": False})
        tree[f"{place}/pet/{stem}_trc-AV1451_pet.nii.gz"] = packed(4)
        tree[f"{place}/pet/{stem}_trc-AV1451_pet.json"] = as_json(SIDECAR)
    return tree


def as_json(content: object) -> bytes:
    """JSON as Python writes it: with NaN and Infinity, and lone surrogates escaped."""
    return json.dumps(content).encode()


# --- what is odd ---

ODD_NUMBERS = st.sampled_from(
    [0, -1, 1, -0.0, 1e-300, 1e300, 1e308 * 10, -math.inf, math.nan, 2**31, 2**63, 10**30, 10**400, 0.1, 4800000, True]
)
ODD_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "n/a",
            "N/A",
            "nan",
            "4800",
            "1e3",
            "4800 s",
            "[18F]AV-1451",
            "\x00",
            "\ud800",
            "﻿x",
            "é",
            "日本語",
            "\u202eabc",
            "a\nb\tc",
            "../..",
            "{}",
            "%s{0}{x}",
            "x" * 5000,
            "SIEMENS",
            "Bq/ml",
            "null",
        ]
    ),
    st.text(max_size=12),
)
ODD_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), ODD_NUMBERS, ODD_TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(ODD_TEXTS, inner, max_size=3)),
    max_leaves=6,
)
ODD_CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"",
            b"\x00",
            b"{",
            b"[]",
            b"null",
            b"{}",
            b"1e999",
            b'{"a": 1e999}',
            b"\xff\xfe{}",
            b"\xef\xbb\xbf{}",
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"9" * 10_000,
            b'{"FrameTimesStart": ' + b"9" * 6000 + b"}",
            b"\x1f\x8b",
            b'{"a": 1, "a": 2}',
            "{'a': 1}".encode("utf-16"),
            b"a\tb\n1\n2\t3\t4\n",
            b'a\tb\n"1\t2\n',
            b"\r\r\n\n",
            b"NaN",
        ]
    ),
)
ODD_NAMES = st.one_of(
    st.sampled_from(
        [
            "sub-01_ses-a_T1w.NII.GZ",
            "sub-01_ses-a_trc-AV1451_PET.nii.gz",
            "sub-01_pet.nii.gz",
            "pet.nii.gz",
            "_.nii",
            "sub-01_ses-a_run-1_run-2_pet.nii.gz",
            "sub-01_ses-a_trc-_pet.nii.gz",
            "sub-_pet.nii.gz",
            "sub-01_ses-a__pet.nii",
            "sub-01_ses-a_trc-AV 1451_pet.nii.gz",
            "sub-01_ses-a_trc-é_pet.nii.gz",
            "sub-01_ses-a_trc-AV1451_pet.nii",
            "sub-01_ses-a_run-01_pet.nii.gz",
            "sub-01_ses-a_run-²_T1w.nii.gz",
            "sub-01_ses-a_T1w.nii.gz.bak",
            "-_-_pet.nii",
            "sub-02_ses-a_trc-AV1451_pet.nii.gz",
            "sub-01_ses-a_foo-bar_pet.nii.gz",
            "sub-01_ses-a_trc-A\udcffB_pet.nii.gz",
            "sub-01_ses-a_trc-" + "x" * 200 + "_pet.nii.gz",
            ".sub-01_ses-a_pet.nii.gz",
            "sub-01_ses-a_trc-AV1451_pet.nii.nii.gz",
            "sub-01_ses-a_rec-..._pet.nii.gz",
            "sub-01_ses-a_part-mag_T1w.nii",
            "sub-01_ses-a_run-9" + "9" * 90 + "_T1w.nii",
            "sub-01_ses-a_task-rest_pet.json",
            "pet.json",
            "T1w.json",
            "sub-01_ses-a_pet.json",
            "sub-01_ses-a_T1w.json",
        ]
    ),
    st.text(st.characters(exclude_characters="/\x00", exclude_categories=("Cs",)), min_size=1, max_size=20),
)
FOLDERS = st.sampled_from(
    [
        "",
        "sub-01/",
        "sub-01/ses-a/",
        "sub-01/ses-a/pet/",
        "sub-01/ses-a/anat/",
        "sub-02/pet/",
        "sub-02/anat/",
        "sub-03/pet/",
        "sub-/pet/",
        "sub-é/anat/",
        "sub-01/ses-/pet/",
        "sub-01/ses-a/ses-b/pet/",
        "sub-02/ses-/anat/",
        "sub-04/ses-x/anat/",
        "derivatives/sub-01/pet/",
        "sub-01/ses-a/pet/pet/",
        "sub-01/" + "a/" * 60,
    ]
)


def spoilt_image(draw: st.DrawFn, frames: int = 1, *, compressed: bool | None = None) -> bytes:
    """An image whose header or data or packing is damaged."""
    content = bytearray(image_bytes(frames))
    for _ in range(draw(st.integers(0, 2))):
        _spoil_header(draw, content)
    if draw(st.integers(0, 2)) == 2:
        for _ in range(draw(st.integers(1, 3))):
            content[draw(st.integers(0, 347))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 5)) == 5:
        content = content[: draw(st.integers(0, len(content)))]
    if compressed is None:
        compressed = draw(st.booleans())
    return spoilt_packing(draw, bytes(content)) if compressed else bytes(content)


def spoilt_packing(draw: st.DrawFn, content: bytes) -> bytes:
    """A gzip file of ``content``, whole or damaged."""
    how = draw(st.sampled_from(["whole", "cut", "flipped", "garbage after", "twice", "zeros after", "plain", "bomb"]))
    whole = bytearray(gzip.compress(content, mtime=0))
    if how == "cut":
        return bytes(whole[: draw(st.integers(0, len(whole) - 1))])
    if how == "flipped":
        for _ in range(draw(st.integers(1, 4))):
            whole[draw(st.integers(0, len(whole) - 1))] ^= 1 << draw(st.integers(0, 7))
    ends = {
        "garbage after": b"garbage",
        "twice": bytes(whole),
        "zeros after": bytes(512),
        "bomb": _bomb() if how == "bomb" else b"",
    }
    return content if how == "plain" else bytes(whole) + ends.get(how, b"")


@functools.cache
def _bomb() -> bytes:
    """A member of 8 GB of zeros in 8 MB."""
    one = gzip.compress(bytes(256 << 20), mtime=0)
    return one * 32


def _spoil_dims(draw: st.DrawFn, content: bytearray) -> None:
    """Set one length of the axes, or all of them."""
    if draw(st.booleans()):
        struct.pack_into("<h", content, 40 + 2 * draw(st.integers(0, 7)), draw(st.integers(-32768, 32767)))
    else:
        side = draw(st.sampled_from([0, 1, 2, 3000, 30000, 32767, -1]))
        struct.pack_into("<8h", content, 40, draw(st.integers(0, 8)), *[side] * 3, 1, 1, 1, 1)


def _spoil_header(draw: st.DrawFn, content: bytearray) -> None:
    """Set one field of a NIfTI-1 header (little-endian) to something that it should not hold."""
    numbers = [0.0, math.nan, math.inf, -math.inf, -1.0, 1e38, 1e-38]
    how = draw(
        st.sampled_from(["dim", "all dims", "pixdim", "slope", "datatype", "sform", "codes", "vox_offset", "magic"])
    )
    if how in ("dim", "all dims"):
        _spoil_dims(draw, content)
    elif how == "pixdim":
        struct.pack_into("<f", content, 76 + 4 * draw(st.integers(0, 7)), draw(st.sampled_from(numbers)))
    elif how == "slope":
        struct.pack_into("<2f", content, 112, draw(st.sampled_from(numbers)), draw(st.sampled_from(numbers)))
    elif how == "datatype":
        kinds = [(32, 64), (128, 24), (2304, 32), (1792, 128), (0, 0), (1, 1), (16, 32), (64, 64), (2, 8), (9999, 7)]
        struct.pack_into("<2h", content, 70, *draw(st.sampled_from(kinds)))
    elif how == "sform":
        struct.pack_into("<f", content, 280 + 4 * draw(st.integers(0, 11)), draw(st.sampled_from(numbers)))
    elif how == "codes":
        struct.pack_into("<2h", content, 252, draw(st.integers(-1, 6)), draw(st.integers(-1, 6)))
    elif how == "vox_offset":
        struct.pack_into("<f", content, 108, draw(st.sampled_from([*numbers, 16.0, 348.0, 353.0, 1e9, -352.0])))
    else:
        content[344:348] = draw(st.sampled_from([b"ni1\x00", b"n+2\x00", b"\x00" * 4, b"xxxx"]))


def _spoil_metadata(draw: st.DrawFn, tree: Tree, path: str, *, further: bool) -> None:
    """Put odd values into a sidecar that is there, or into a further one somewhere in the tree."""
    if further:
        keys = st.sampled_from([*sorted(SIDECAR), "SkullStripped"])
        names = st.sampled_from(["pet.json", "trc-AV1451_pet.json", "T1w.json", "sub-01_pet.json"])
        tree[draw(FOLDERS) + draw(names)] = as_json(draw(st.dictionaries(keys, ODD_VALUES, max_size=4)))
        return
    sidecars = [name for name in sorted(tree) if name.endswith("_pet.json")] or [path]
    values = {**SIDECAR, draw(st.sampled_from(sorted(SIDECAR))): draw(ODD_VALUES)}
    tree[draw(st.sampled_from(sidecars))] = as_json(values)


def spoil_tree(draw: st.DrawFn, tree: Tree) -> None:
    """Do one thing to a tree that nobody should do."""
    how = draw(
        st.sampled_from(
            ["value", "value", "sidecar", "content", "image", "image", "kind", "gone", "name", "add", "link"]
        )
    )
    path = draw(st.sampled_from(sorted(tree)))
    images = sorted(name for name in tree if name.endswith((".nii.gz", ".nii")))
    if how in ("value", "sidecar"):
        _spoil_metadata(draw, tree, path, further=how == "sidecar")
    elif how == "content":
        tree[path] = draw(ODD_CONTENTS)
    elif how == "image" and images:
        name = draw(st.sampled_from(images))
        tree[name] = spoilt_image(draw, draw(st.sampled_from([1, 4])), compressed=name.endswith(".gz"))
    elif how == "kind":
        tree[path] = draw(st.sampled_from([None, b""]))
    elif how == "gone":
        del tree[path]
    elif how == "name":
        tree[path.rpartition("/")[0] + "/" + draw(ODD_NAMES)] = tree.pop(path)
    elif how == "add":
        tree[draw(FOLDERS) + draw(ODD_NAMES)] = draw(st.one_of(st.just(packed(4)), st.just(packed()), ODD_CONTENTS))
    else:
        tree[path] = draw(
            st.sampled_from(["nowhere", ".", "..", path.rpartition("/")[2], "/dev/null", "/dev/zero", "fifo:"])
        )


def write_tree(tree: Tree, root: Path) -> None:
    """Write a tree as far as the file system takes it."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name.lstrip("/")
        with contextlib.suppress(OSError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif content == "fifo:":
                os.mkfifo(path)
            elif isinstance(content, str):
                path.symlink_to(content)
            else:
                path.write_bytes(content)
