"""Inputs that are wrong in as many ways as we could think of, and what the program answers to each.

A valid small dataset is drawn first and then spoilt; each family spoils something else. The program has to answer
as it answers a person: it does the work, or ends with one of its own errors, a sentence or more, and never hangs, asks
for memory without bounds or shows a traceback. ``python tests/fuzz_inputs.py --examples 2500`` draws that many and
tells what was answered how often; ``test_fuzz_inputs.py`` draws fewer.
"""

from __future__ import annotations

import argparse
import gzip
import math
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
from fuzz_answers import answer_of_call, answer_of_function
from fuzz_calls import places, spoilt_call, spoilt_settings
from fuzz_derived import spoilt_group, spoilt_model, spoilt_pages, spoilt_results, spoilt_study, spoilt_weights
from fuzz_field import clocked_frames, labelled_sessions, named_tracers, spelt_units, tabled_participants
from fuzz_trees import (
    ODD_CONTENTS,
    ODD_VALUES,
    SIDECAR,
    Tree,
    dataset,
    image_bytes,
    mgz,
    spoil_tree,
    spoilt_image,
    spoilt_packing,
    write_tree,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tau_pipeline.anatomy import brain_mask
from tau_pipeline.bids.pet_metadata import corrected_pet_metadata
from tau_pipeline.imaging.load import load_volume, read_shape
from tau_pipeline.pet import motion, resolution
from tau_pipeline.pet.frames import plan_frames

# --- families: each draws an input and returns the answer to it ---


def spoilt_dataset(draw: st.DrawFn, folder: Path) -> str:
    """A dataset with one to five things wrong, as the program meets it first."""
    tree = dataset()
    for _ in range(draw(st.integers(1, 5))):
        if tree:
            spoil_tree(draw, tree)
    write_tree(tree, folder / "bids")
    return answer_of_call([*places(folder), "--dry-run", "--skip-bids-validation"])


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
        corrected, _ = corrected_pet_metadata(metadata, {"sub": "01", "trc": "AV1451"})
        plan_frames(shape, corrected, window)
        resolution.image_resolution(corrected, img)

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
            brain_mask.is_skull_stripped(img)
            brain_mask.require_brain(brain_mask.stripped_mask(img))
        plan = plan_frames(img.shape, SIDECAR if img.ndim == 4 else {})
        moved = motion.correct_motion(img, plan, enabled=False)
        resolution.image_resolution(SIDECAR, motion.static_image(img, plan, moved))

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
        [*places(folder), "--dry-run", "--skip-bids-validation", "-d", f"freesurfer={folder / 'fs'}"]
    )
    return f"{first}, {second}"


FAMILIES: Mapping[str, Callable[[st.DrawFn, Path], str]] = {
    "dataset": spoilt_dataset,
    "sidecar": spoilt_sidecar,
    "image": spoilt_volume,
    "freesurfer": spoilt_freesurfer,
    "call": spoilt_call,
    "settings": spoilt_settings,
    "results": spoilt_results,
    "group": spoilt_group,
    "pages": spoilt_pages,
    "study": spoilt_study,
    "model": spoilt_model,
    "weights": spoilt_weights,
    "sessions": labelled_sessions,
    "tracers": named_tracers,
    "units": spelt_units,
    "clocks": clocked_frames,
    "participants": tabled_participants,
}


#: These families compute for a second or two; for each input of theirs the others draw four.
SLOW = ("group", "pages")


def shares(families: Sequence[str], examples: int) -> dict[str, int]:
    """Return the number of inputs that each family draws; their sum is at least the number given."""
    parts = {name: 1 if name in SLOW else 4 for name in families}
    return {name: math.ceil(examples * part / sum(parts.values())) for name, part in parts.items()}


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
    """Draw as many inputs as asked for and tell the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2500, help="how many inputs in all")
    parser.add_argument("--seed", type=int, default=0, help="0 always draws the same")
    parser.add_argument("--family", choices=list(FAMILIES), action="append", help="only these")
    asked = parser.parse_args()
    families = asked.family or list(FAMILIES)
    total, started = 0, time.monotonic()
    for name, examples in shares(families, asked.examples).items():
        begun = time.monotonic()
        answers = fuzz(name, examples, seed=asked.seed)
        total += sum(answers.values())
        told = ", ".join(f"{answer} {count}" for answer, count in answers.most_common())
        sys.stdout.write(f"{name}: {sum(answers.values())} inputs in {time.monotonic() - begun:.0f} s: {told}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{total} inputs in {time.monotonic() - started:.0f} s, no traceback, no hang\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
