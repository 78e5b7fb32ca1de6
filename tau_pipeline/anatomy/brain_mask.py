"""Brain mask of a T1w."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tau_pipeline.anatomy.orientation import head_orientation
from tau_pipeline.atlas import atlas_files
from tau_pipeline.errors import ImageError, memory_shortage
from tau_pipeline.imaging.foreground import largest_object
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import Mask
from tau_pipeline.imaging.transforms import Rotation3, quarter_turns
from tau_pipeline.imaging.volume import (
    Volume,
    finite,
    image_like,
    voxel_size_mm,
    voxel_volume_mm3,
)

if TYPE_CHECKING:
    import torch

#: Volumes that a whole human brain with its CSF can have, ml; a head with scalp and face has 2500 ml and more.
_BRAIN_ML = (500.0, 2300.0)


#: A whole brain ends within its image; its mask may touch the end of the image over at most this area.
_CUT_MM2 = 500.0


def _foreground(t1w: Volume) -> Mask:
    """Return the largest connected object of an image with its holes filled, ``(I, J, K)``.

    Above 2 % of the 99th percentile of what is positive, gaps of up to 6 mm closed.
    """
    from scipy import ndimage

    data = finite(np.asanyarray(t1w.dataobj))
    positive = data[data > 0]
    if not positive.size:
        return np.zeros(data.shape, dtype=bool)
    largest = largest_object(data, 0.02 * np.percentile(positive, 99))
    reach = np.maximum(1, np.round(3.0 / voxel_size_mm(t1w))).astype(int)
    padded = np.pad(largest, [(r, r) for r in reach])
    for axis, r in enumerate(reach):
        padded = _close_along(padded, axis, int(r))
    inside = tuple(slice(r, -r) for r in reach)
    return ndimage.binary_fill_holes(padded)[inside]


def _close_along(mask: Mask, axis: int, reach: int) -> Mask:
    from scipy import ndimage

    size = 2 * reach + 1
    wide = ndimage.maximum_filter1d(mask.view(np.uint8), size, axis=axis, mode="constant")
    return ndimage.minimum_filter1d(wide, size, axis=axis, mode="constant", cval=1).astype(bool)


def is_skull_stripped(t1w: Volume) -> bool:
    """Return whether skull and scalp have been removed from a T1w.

    True when the object in the image is as large as a brain can be, a head is not, and stands free in a background
    of one value: it may touch no more than a twentieth of the faces of the field of view.
    """
    data = finite(np.asanyarray(t1w.dataobj))
    values, counts = np.unique(data[::2, ::2, ::2], return_counts=True)
    if counts.max() < 0.2 * counts.sum() or values[counts.argmax()] > 0.02 * np.percentile(data, 99.9):
        return False
    coarse = t1w.slicer[tuple(slice(None, None, max(1, int(2.0 / size))) for size in voxel_size_mm(t1w))]
    head = _foreground(coarse)
    volume_ml = head.sum() * voxel_volume_mm3(coarse) / 1000
    faces = [np.take(head, end, axis=axis) for axis in range(3) for end in (0, -1)]
    touching = sum(int(face.sum()) for face in faces) / sum(face.size for face in faces)
    return bool(_BRAIN_ML[0] <= volume_ml <= _BRAIN_ML[1] and touching < 0.05)


def extract_brain(t1w: Volume, threads: int = 1) -> Volume:
    """Brain mask of a head, uint8 on the T1w grid, by deepbet (Fisch et al. 2023, arXiv 2308.07003).

    The network needs a head that is upright. It sees the orientation that the header gives; where what it finds lies
    another way than the template's brain, the header is wrong, and it sees the head turned so. It runs on the
    processor: its 6 s do not need an accelerator, and the result is the same everywhere. Its weights come with the
    package.

    Parameters
    ----------
    t1w
        3-D T1w, full head.
    threads
        Threads of the network's layers; the result does not depend on them.

    Raises
    ------
    ImageError
        The network finds no brain, whichever way the head is turned.
    """
    template = load_volume(atlas_files().template_brain, ndim=3)
    failure: ImageError | None = None
    try:
        as_stated = _network_mask(t1w, np.eye(3), threads)
        orientation = head_orientation(t1w, as_stated, template)
        if np.array_equal(orientation.frame[:3, :3], np.eye(3)):
            return as_stated
        turns = [orientation.frame[:3, :3]]
    except ImageError as exc:
        failure = exc
        # one axis keeps its direction or is reversed
        turns = [turn for turn in quarter_turns()[1:] if np.abs(np.diag(turn)).any()]
    for turn in turns:
        try:
            mask = _network_mask(t1w, turn, threads)
        except ImageError:
            continue
        if np.array_equal(head_orientation(t1w, mask, template).frame[:3, :3], turn):
            return mask
    if failure is not None:
        raise failure
    return as_stated


def _network_mask(t1w: Volume, turn: Rotation3, threads: int) -> Volume:
    """Brain mask that the network finds in a head whose world is turned first by ``(3, 3)``."""
    from deepbet.bet import BrainExtraction

    turned = np.eye(4)
    turned[:3, :3] = turn
    seen = Volume(np.asanyarray(t1w.dataobj), turned @ t1w.affine)
    network = BrainExtraction(no_gpu=True)
    network.model, network.bbox_model = (_in_threads(one, threads) for one in (network.model, network.bbox_model))
    try:
        probability = network.run_model(finite(np.asanyarray(nib.as_closest_canonical(seen).dataobj)))
        found = network.postprocess(probability > 0.5)
    except (AssertionError, ValueError, RuntimeError, MemoryError) as exc:
        if (shortage := memory_shortage(exc)) is not None:
            raise shortage from exc
        raise ImageError(
            f"no brain found in the T1w ({exc}); check that it is one, or provide a skull-stripped T1w"
        ) from exc
    mask = image_like(_to_orientation_of(seen, np.asarray(found) > 0), t1w)
    require_brain(mask)
    return mask


def _in_threads(model: torch.nn.Module, threads: int) -> torch.nn.Module:
    """Return a network that computes its layers in threads; all that is done around it keeps to one.

    Layers give the same values to the last bit with any number of threads; means over an image, by which deepbet scales
    it, do not.
    """
    import torch

    def before(*_: object) -> None:
        torch.set_num_threads(threads)

    def after(*_: object) -> None:
        torch.set_num_threads(1)

    after()
    # A network that was loaded as a script takes no hooks itself.
    around = torch.nn.Sequential(model)
    around.register_forward_pre_hook(before)
    around.register_forward_hook(after)
    return around


def stripped_mask(t1w: Volume) -> Volume:
    """Return the brain mask of a skull-stripped T1w, uint8: its object, closed and filled.

    Raises
    ------
    ImageError
        The object is too small or too large to be a brain.
    """
    mask = image_like(_foreground(t1w), t1w)
    require_brain(mask)
    return mask


def require_brain(mask: Volume) -> None:
    """Refuse a mask that cannot be a human brain.

    Raises
    ------
    ImageError
        The mask's volume is below 500 ml or above 2300 ml.
    """
    volume_ml = np.count_nonzero(np.asanyarray(mask.dataobj)) * voxel_volume_mm3(mask) / 1000
    if not _BRAIN_ML[0] <= volume_ml <= _BRAIN_ML[1]:
        raise ImageError(
            f"the brain mask has {volume_ml:.0f} ml, a human brain {_BRAIN_ML[0]:.0f} to {_BRAIN_ML[1]:.0f} ml; "
            "check the T1w, its voxel size, and the setting of --skull-strip-t1w"
        )


def _to_orientation_of(t1w: Volume, canonical: NDArray) -> NDArray:
    """Undo `nibabel.as_closest_canonical` for an array ``(I, J, K)``."""
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(t1w.affine))
    return np.ascontiguousarray(nib.orientations.apply_orientation(canonical, back))


def cut_note(area_mm2: float) -> list[str]:
    """Return a sentence if the brain of a full head ends with the image over more than `_CUT_MM2`.

    Parameters
    ----------
    area_mm2
        From `tau_pipeline.measures.quality_figures.cut_area`.
    """
    if area_mm2 < _CUT_MM2:
        return []
    return [
        f"The brain reaches the end of the T1w over {area_mm2 / 100:.0f} cm2: a part of it seems to be cut off, and "
        "regions there are incomplete. Look at the figure of the brain mask."
    ]
