"""Inputs that are wrong in as many ways as we could think of, and what the program answers to each.

A valid small dataset is drawn first and then spoilt; each family spoils something else. The program has to answer
as it answers a person: it does the work, or ends with one of its own errors, a sentence or more, and never hangs, asks
for memory without bounds or shows a traceback. ``python tests/fuzz_inputs.py --examples 2500`` draws that many and
tells what was answered how often; ``test_fuzz_inputs.py`` draws fewer.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import io
import json
import math
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tau_pipeline import anat, pet, resolution
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.frames import plan_frames
from tau_pipeline.sidecars import mended_pet_metadata
from tau_pipeline.volume import load_volume, read_shape
from tau_workflows.cli import main as tau_pipeline

#: No answer may take more processor time, nor more memory than this beside what was in use before.
LONGEST_S = 20.0
#: Nor longer by the clock: what waits for something uses no processor, and what others keep waiting is no hang.
LONGEST_BY_THE_CLOCK_S = 300.0
MOST_MEMORY = 3 << 30

#: Relative path to content; None stands for a folder, and a string for the target of a symbolic link.
Tree = dict[str, bytes | str | None]


class NoAnswerError(BaseException):
    """No answer came in time. Not an `Exception`, so that nothing between takes it for one."""


class WrongAnswerError(AssertionError):
    """An answer that a person should not get."""


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


# --- what is answered ---


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """End what takes too long, and refuse memory to what takes too much."""

    def stop(signum: int, _: object) -> None:
        of_clock = signum == signal.SIGALRM
        limit, what = (LONGEST_BY_THE_CLOCK_S, "the clock") if of_clock else (LONGEST_S, "processor time")
        raise NoAnswerError(f"no answer within {limit:g} s of {what}")

    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    timers = (
        (signal.SIGALRM, signal.ITIMER_REAL, LONGEST_BY_THE_CLOCK_S),
        (signal.SIGPROF, signal.ITIMER_PROF, LONGEST_S),
    )
    before = [signal.signal(signum, stop) for signum, _, _ in timers]
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_MEMORY, hard))
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for (signum, _, _), handler in zip(timers, before, strict=True):
            signal.signal(signum, handler)


def answer_of_call(arguments: list[str]) -> str:
    """Call the program as a person would, and look at what it says; returns the exit code in words."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limited():
        try:
            code = tau_pipeline(arguments)
        except SystemExit as exc:
            code = exc.code
        out.flush()
    err.flush()
    said, complaint = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))
    if code not in (0, 1, 2, 3):
        raise WrongAnswerError(f"exit code {code!r}")
    if "Traceback" in said + complaint:
        raise WrongAnswerError(f"a traceback: {complaint[-2000:]}")
    if code and not any(len(line.split()) > 3 for line in complaint.splitlines()):
        raise WrongAnswerError(f"exit code {code} without a sentence: {complaint!r}")
    return f"exit code {code}"


def answer_of_function(function: Callable[[], object]) -> str:
    """Call a function of the library: it returns, or raises an error of ours with a sentence."""
    try:
        with limited():
            function()
    except TauPipelineError as exc:
        message = str(exc)
        if len(message.split()) < 4 or len(message) > 2000:
            raise WrongAnswerError(f"no sentence, but {message!r:.300}") from exc
        return type(exc).__name__
    return "done"


# --- families: each draws an input and returns the answer to it ---


def spoilt_dataset(draw: st.DrawFn, folder: Path) -> str:
    """A dataset with one to five things wrong, as the program meets it first."""
    tree = dataset()
    for _ in range(draw(st.integers(1, 5))):
        if tree:
            spoil_tree(draw, tree)
    write_tree(tree, folder / "bids")
    return answer_of_call([*_places(folder), "--dry-run", "--skip-bids-validation"])


def spoilt_sidecar(draw: st.DrawFn, folder: Path) -> str:
    """A PET's metadata with several values wrong, through everything that reads them."""
    keys = st.sampled_from([*sorted(SIDECAR), "ConvolutionKernel", "ImageVoxelSize"])
    metadata = {**SIDECAR, **draw(st.dictionaries(keys, ODD_VALUES, min_size=1, max_size=2))}
    for key in draw(st.lists(st.sampled_from(sorted(SIDECAR)), max_size=3)):
        metadata.pop(key, None)
    img = nib.Nifti1Image.from_bytes(image_bytes())
    shape = (6, 7, 5, draw(st.sampled_from([1, 4, 4, 4])))
    window = draw(st.sampled_from([None, None, (80.0, 100.0), (0.0, 1.0)]))

    def read() -> None:
        mended, _ = mended_pet_metadata(metadata, {"sub": "01", "trc": "AV1451"})
        plan_frames(shape, mended, window)
        resolution.image_resolution(mended, img)

    return answer_of_function(read)


def spoilt_volume(draw: st.DrawFn, folder: Path) -> str:
    """A damaged NIfTI image, through reading and the checks of the first steps."""
    frames = draw(st.sampled_from([1, 4]))
    content = spoilt_image(draw, frames)
    path = folder / draw(st.sampled_from(["x.nii", "x.nii", "x.nii", "x.NII", "x.img", "x.nii.gz", "x.mgz"]))
    if content[:2] == b"\x1f\x8b":
        path = folder / "x.nii.gz"
    path.write_bytes(content)

    def read() -> None:
        read_shape(path)
        img = load_volume(path)
        if img.ndim == 3:
            anat.is_skull_stripped(img)
            anat.require_brain(anat.stripped_mask(img))
        plan = plan_frames(img.shape, SIDECAR if img.ndim == 4 else {})
        motion = pet.correct_motion(img, plan, enabled=False)
        resolution.image_resolution(SIDECAR, pet.static_image(img, plan, motion))

    return answer_of_function(read)


def spoilt_freesurfer(draw: st.DrawFn, folder: Path) -> str:
    """FreeSurfer's folder with files damaged, as the program meets it, and through reading."""
    write_tree(dataset(), folder / "bids")
    names = ["aparc+aseg.mgz", "brain.mgz", "mask.mgz"]
    tree: Tree = {f"sub-02/mri/{name}": mgz() for name in names}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        how = draw(st.sampled_from(["bytes", "header", "packing", "content", "kind"]))
        plain = bytearray(gzip.decompress(mgz()))
        if how == "header":
            offset = draw(st.sampled_from([0, 4, 8, 12, 16, 20, 24, 28]))
            plain[offset : offset + 4] = struct.pack(">i", draw(st.sampled_from([0, -1, 1, 2, 30000, 2**31 - 1])))
        elif how == "bytes":
            for _ in range(draw(st.integers(1, 6))):
                plain[draw(st.integers(0, 95))] = draw(st.integers(0, 255))
        odd = draw(ODD_CONTENTS) if how == "content" else spoilt_packing(draw, bytes(plain))
        tree[f"sub-02/mri/{name}"] = draw(st.sampled_from([None, "nowhere", "."])) if how == "kind" else odd
    write_tree(tree, folder / "fs")
    labels = folder / "fs/sub-02/mri/aparc+aseg.mgz"
    first = answer_of_function(lambda: load_volume(labels, 3))
    second = answer_of_call(
        [*_places(folder), "--dry-run", "--skip-bids-validation", "-d", f"freesurfer={folder / 'fs'}"]
    )
    return f"{first}, {second}"


OPTIONS = (
    "--participant-label",
    "--session-label",
    "--tracer-label",
    "--rec-label",
    "--run-label",
    "--suvr-window",
    "--ref-region",
    "--smooth-fwhm",
    "--target-fwhm",
    "--random-seed",
    "--nprocs",
    "--omp-nthreads",
    "--mem-mb",
    "--skull-strip-t1w",
    "-d",
    "--use-plugin",
    "--worker",
    "--motion-correction",
    "-v",
    "--verbose",
)
WORDS = st.sampled_from(
    [
        "01",
        "sub-01",
        "a",
        "ses-a",
        "AV1451",
        "1",
        "-1",
        "0",
        "nan",
        "inf",
        "1e400",
        "80",
        "100",
        "",
        " ",
        "Pons",
        "8+47",
        "8+",
        "+",
        "9" * 30,
        "é",
        "\ud800",
        "freesurfer=.",
        "freesurfer=",
        "=",
        "/dev/null",
        "--",
        "*",
        "CerebellarGM",
        "cf",
        "auto",
        "x" * 5000,
        "freesurfer=/" + "x" * 5000,
    ]
)


def spoilt_call(draw: st.DrawFn, folder: Path) -> str:
    """Options, a settings file and a filter file, all of them odd."""
    write_tree(dataset(), folder / "bids")
    arguments = [*_places(folder), "--dry-run", "--skip-bids-validation"]
    for option in draw(st.lists(st.sampled_from(OPTIONS), max_size=3)):
        arguments += [option, *draw(st.lists(WORDS, max_size=3))]
    if draw(st.booleans()):
        (folder / "settings.toml").write_bytes(draw(st.one_of(_TOML, ODD_CONTENTS)))
        arguments += ["--config-file", str(folder / "settings.toml")]
    if draw(st.booleans()):
        (folder / "filter.json").write_bytes(draw(st.one_of(_FILTERS, ODD_CONTENTS)))
        arguments += ["--bids-filter-file", str(folder / "filter.json")]
    return answer_of_call(arguments)


_ENTITIES = st.sampled_from(
    ["session", "run", "tracer", "suffix", "extension", "datatype", "x", "scope", "subject", "regex_search"]
)
_FILTERS = st.dictionaries(
    st.sampled_from(["t1w", "pet", "bold", "PET", ""]),
    st.one_of(ODD_VALUES, st.dictionaries(_ENTITIES, st.one_of(ODD_VALUES, st.just("*"), st.just("(")), max_size=3)),
    max_size=3,
).map(as_json)


@st.composite
def _toml(draw: st.DrawFn) -> bytes:
    names = [
        "suvr_window",
        "ref_region",
        "smooth_fwhm",
        "random_seed",
        "nprocs",
        "work_dir",
        "participant_label",
        "x y",
        "mem_mb",
    ]
    values = [
        "1",
        "-1",
        "nan",
        "inf",
        "1e400",
        '"x"',
        "[]",
        "[80, 100]",
        '["Pons", 3]',
        "{}",
        "true",
        "1979-05-27",
        "0x10",
        "9" * 5000,
        '"\\u00e9"',
        '["a", ["b"]]',
        "''",
        '"""\nx"""',
        "[[1]]",
        '"\\ud800"',
        "[" * 3000,
    ]
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        sections = ["settings", "execution", "selection", "training", "group", "x", "[settings]", ""]
        lines.append(f"[{draw(st.sampled_from(sections))}]")
        for _ in range(draw(st.integers(0, 3))):
            lines.append(f"{draw(st.sampled_from(names))} = {draw(st.sampled_from(values))}")
    return "\n".join(lines).encode()


_TOML = _toml()


@functools.cache
def _cohort() -> dict[str, bytes]:
    """What the participant level leaves of six participants, without images; made once."""
    from participant_results import write_cohort

    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), 6, images=False)
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _with_odd_cell(draw: st.DrawFn, content: bytes) -> bytes:
    lines = content.split(b"\n")
    row = draw(st.integers(0, len(lines) - 1))
    cells = lines[row].split(b"\t")
    odd = draw(ODD_VALUES)
    text = odd if isinstance(odd, str) else json.dumps(odd)
    cells[draw(st.integers(0, len(cells) - 1))] = text.encode("utf-8", "replace")
    lines[row] = b"\t".join(cells)
    return b"\n".join(lines)


def _with_odd_value(draw: st.DrawFn, content: bytes) -> bytes:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return content
    return (
        as_json({**values, draw(st.sampled_from(sorted(values))): draw(ODD_VALUES)})
        if isinstance(values, dict) and values
        else content
    )


def spoilt_results(draw: st.DrawFn, folder: Path) -> str:
    """Results of the participant level with tables, sidecars and records damaged, as the group level meets them."""
    tree: Tree = dict(_cohort())
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(sorted(tree)))
        content = tree[path]
        how = draw(st.sampled_from(["content", "cell", "kind", "gone", "bytes", "value"]))
        if how == "content":
            tree[path] = draw(ODD_CONTENTS)
        elif how == "kind":
            tree[path] = draw(st.sampled_from([None, "nowhere", "."]))
        elif how == "gone" and len(tree) > 1:
            del tree[path]
        elif isinstance(content, bytes) and how == "cell":
            tree[path] = _with_odd_cell(draw, content)
        elif isinstance(content, bytes) and content and how == "bytes":
            changed = bytearray(content)
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
            tree[path] = bytes(changed)
        elif isinstance(content, bytes) and path.endswith(".json"):
            tree[path] = _with_odd_value(draw, content)
    write_tree(tree, folder)
    places = [str(folder / "bids"), str(folder / "out"), "group", "-w", str(folder / "work")]
    more = draw(st.sampled_from([["--unknown-manufacturer", "pooled"], ["--min-participants", "2"]]))
    return answer_of_call([*places, "--dry-run", *more])


def _places(folder: Path) -> list[str]:
    return [str(folder / "bids"), str(folder / "out"), "participant", "-w", str(folder / "work")]


FAMILIES: Mapping[str, Callable[[st.DrawFn, Path], str]] = {
    "dataset": spoilt_dataset,
    "sidecar": spoilt_sidecar,
    "image": spoilt_volume,
    "freesurfer": spoilt_freesurfer,
    "call": spoilt_call,
    "results": spoilt_results,
}


def fuzz(name: str, examples: int, *, seed: int = 0) -> Counter[str]:
    """Draw so many inputs of one family; returns how often each answer was given.

    Raises
    ------
    WrongAnswerError, NoAnswerError, or whatever the program let through
        With the smallest input that hypothesis finds.
    """
    answers: Counter[str] = Counter()
    family = FAMILIES[name]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed == 0,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(st.data())
    def one(data: st.DataObject) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        try:
            answers[family(data.draw, folder)] += 1
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    if seed:
        from hypothesis import seed as seeded

        one = seeded(seed)(one)
    one()
    return answers


def main() -> int:
    """Draw as many inputs as asked for, evenly over the families, and tell the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2500, help="how many inputs in all")
    parser.add_argument("--seed", type=int, default=0, help="0 always draws the same")
    parser.add_argument("--family", choices=list(FAMILIES), action="append", help="only these")
    asked = parser.parse_args()
    families = asked.family or list(FAMILIES)
    total, started = 0, time.monotonic()
    for name in families:
        begun = time.monotonic()
        answers = fuzz(name, math.ceil(asked.examples / len(families)), seed=asked.seed)
        total += sum(answers.values())
        told = ", ".join(f"{answer} {count}" for answer, count in answers.most_common())
        sys.stdout.write(f"{name}: {sum(answers.values())} inputs in {time.monotonic() - begun:.0f} s: {told}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{total} inputs in {time.monotonic() - started:.0f} s, no traceback, no hang\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
