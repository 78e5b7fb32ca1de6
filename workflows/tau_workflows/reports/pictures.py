"""Embedded pictures of the reports: figures of a participant, thumbnails, and the volumes of the viewer."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tau_pipeline.figures.sheet import UPTAKE_MAP
from tau_pipeline.figures.small import about_volume
from tau_pipeline.files import name_parts
from tau_workflows.reports.links import relative_link

#: Figures in the order of the report, by the start of their ``desc``: heading, and what to look at.
FIGURES = {
    "headers": (
        "PET and T1w as the headers place them",
        "The raw images, before any registration. If they show different heads, or lie far apart, check the files.",
    ),
    "halfway": (
        "All visits: median T1w and the brain at each",
        "Folds and ventricles of the median should be sharp, and the outlines should coincide. A visit whose outline "
        "is shifted or turned was not registered to the others.",
    ),
    "brainMask": (
        "Brain mask",
        "The outline should follow the brain, without skull inside or cortex or cerebellum outside.",
    ),
    "template": (
        "Registration to the template",
        "Edges of the T1w (white) should match ventricles, brainstem, and outline of the template.",
    ),
    "tissue": (
        "Tissue",
        "The outer line should follow the gray matter without dura or skull, the inner line the white matter.",
    ),
    "surfaces": (
        "Surfaces of the cortex",
        "Both lines should follow the folds without cutting gyri or dura; look at the temporal poles above all.",
    ),
    "parcellation": ("Parcellation", "Borders should follow the folds; left and right should mirror each other."),
    "coregistration": (
        "PET on T1w",
        "Ventricles, brainstem, and the outline of the brain in the PET should match the edges of the T1w.",
    ),
    "suvr": ("SUVR", "One fixed scale for all participants."),
    "pvc": (
        "SUVR corrected for partial volume effects",
        "Same slices and scale as SUVR. Cortex with tau should gain, and no bright rim should appear at the surface.",
    ),
    "synthSUVR": (
        "Synthetic SUVR",
        "Predicted from the T1w by a model, not measured. Same slices and scale as measured SUVR, if available.",
    ),
    "reference": (
        "Reference region",
        "The region should not touch neighboring regions or tissue outside the brain.",
    ),
}
#: The two figures that the slider blends, and the two volumes of the viewer.
BLEND = ("blendT1w", "blendPET")
VOLUMES = ("viewT1w", "viewPET")
#: Figures are embedded at this width, in pixels; the link under each opens the file, which is larger.
_WIDTH = 1200
#: ``desc`` of the small picture in the mosaic of the cohort.
THUMBNAIL = "thumbnail"


@dataclass(frozen=True)
class Figure:
    """An embedded picture: ``source`` is a data URI, or None with a ``problem``; ``link`` leads to its file."""

    title: str
    hint: str
    name: str
    source: str | None
    problem: str = ""
    link: str = ""


def embed(path: Path, output_dir: Path) -> Figure:
    """Return a PNG figure as JPEG in a data URI: a third of the size, full color resolution keeps thin lines sharp."""
    desc = desc_of(path)
    start = next((start for start in FIGURES if desc.startswith(start)), "")
    title, hint = FIGURES.get(start, (desc, ""))
    rest = desc.removeprefix(start)
    title = f"{title}: {rest}" if start and rest else title
    try:
        source = jpeg_uri(path, quality=75, width=_WIDTH)
    except OSError as exc:
        return Figure(title, hint, path.name, None, f"{path.name} cannot be read as an image ({exc})")
    return Figure(title, hint, path.name, source, link=relative_link(path, output_dir))


def jpeg_uri(path: Path, quality: int, width: int = 0) -> str:
    """Return a picture as a data URI of JPEG, made as narrow as ``width`` pixels if it is wider and that is not 0.

    Raises
    ------
    OSError
        The file is no picture.
    """
    from PIL import Image

    with Image.open(path) as picture, io.BytesIO() as jpeg:
        shown = picture.convert("RGB")
        if width and shown.width > width:
            shown = shown.resize((width, max(1, round(shown.height * width / shown.width))), Image.Resampling.LANCZOS)
        shown.save(jpeg, "JPEG", quality=quality, subsampling=0, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode('ascii')}"


def desc_of(path: Path) -> str:
    """Return the label ``desc`` of a file's name; empty if there is none."""
    return name_parts(path)[0].get("desc", "")


def rank(name: str) -> tuple[int, str]:
    """Return the place of a figure in the order of the report."""
    desc = desc_of(Path(name))
    order = [k for k, start in enumerate(FIGURES) if desc.startswith(start)]
    return (order[0] if order else len(FIGURES), name)


def viewer(volumes: Sequence[Path], scale: tuple[float, float]) -> dict[str, Any] | None:
    """Return what the viewer of slices shows: pictures of T1w and PET as data URIs, grid, values, and colors.

    Parameters
    ----------
    volumes
        Files of `tau_pipeline.figures.small.volume_pictures`.
    scale
        Ends of the color scale.

    Returns
    -------
    dict or None
        None unless both volumes are there, whole, and on one grid.
    """
    from PIL import Image

    by_desc = {desc_of(path): path for path in volumes}
    about = {}
    for desc in VOLUMES:
        try:
            with Image.open(by_desc[desc]) as picture:
                about[desc] = about_volume(picture)
        except (KeyError, OSError):
            return None
    of_t1w, of_pet = (about[desc] for desc in VOLUMES)
    if of_t1w is None or of_pet is None or of_t1w["shape"] != of_pet["shape"]:
        return None
    pictures = [base64.b64encode(by_desc[desc].read_bytes()).decode("ascii") for desc in VOLUMES]
    grid = {name: of_pet[name] for name in ("shape", "columns", "origin", "step")}
    values = {name: [one["low"], one["high"]] for name, one in (("t1w", of_t1w), ("pet", of_pet))}
    shown = {**grid, **values, "unit": of_pet.get("unit", ""), "scale": list(scale), "colors": _colors()}
    return {
        "about": json.dumps(shown),
        "t1w": f"data:image/png;base64,{pictures[0]}",
        "pet": f"data:image/png;base64,{pictures[1]}",
        "shape": of_pet["shape"],
        "unit": of_pet.get("unit", ""),
        "scale": scale,
    }


@cache
def _colors() -> str:
    """Return 256 colors of the scale of uptake as hexadecimal digits, six for each."""
    import numpy as np
    from matplotlib import colormaps

    table = np.asarray(colormaps[UPTAKE_MAP](np.linspace(0, 1, 256)))[:, :3]
    return bytes((table * 255).round().astype(np.uint8).ravel()).hex()
