"""Templates as output spaces: their grids, and the transforms that lead from their voxels to those of a T1w.

The T1w is registered to one template, MNI152NLin6Asym (FSL's). MNI152NLin2009cAsym is another brain, and the two differ
by several mm: its maps go through a second transform, between the two templates, which is computed once and kept.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tau_pipeline.anatomy.template import register_to_template
from tau_pipeline.atlas import atlas_files
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, image_like, image_on
from tau_pipeline.settings.spaces import OutputSpace


@dataclass(frozen=True)
class _Grid:
    """First voxel center, mm, RAS+, and shape of a template's grid, by the edge of a voxel in mm."""

    origin: tuple[float, float, float]
    shape: tuple[int, int, int]


#: Grids of the templates as TemplateFlow has them: those of the original files, with the axes RAS+.
_GRIDS = {
    ("MNI152NLin6Asym", "1"): _Grid((-91, -126, -72), (182, 218, 182)),
    ("MNI152NLin6Asym", "2"): _Grid((-90, -126, -72), (91, 109, 91)),
    ("MNI152NLin2009cAsym", "1"): _Grid((-96, -132, -78), (193, 229, 193)),
    ("MNI152NLin2009cAsym", "2"): _Grid((-96, -132, -78), (97, 115, 97)),
}
#: The template that T1w images are registered to.
_REGISTERED = "MNI152NLin6Asym"


def template_grid(space: OutputSpace) -> Volume:
    """Return an empty image, uint8, on the grid of a template.

    Parameters
    ----------
    space
        One of kind ``volume``.
    """
    grid = _GRIDS[space.name, space.value]
    affine = np.diag([*([float(space.value)] * 3), 1.0])
    affine[:3, 3] = grid.origin
    return image_on(np.zeros(grid.shape, np.uint8), affine)


def transforms_to(space: OutputSpace, template_from_t1w: Path, folder: Path) -> tuple[Path, ...]:
    """Return the ITK transforms that resample the T1w to a template, in the order of ``ants.apply_transforms``.

    Parameters
    ----------
    space
        One of kind ``volume``.
    template_from_t1w
        `tau_pipeline.anatomy.template.TemplateRegistration.template_from_t1w`.
    folder
        Where the transform between the templates is kept; it is computed if it is not there (under a minute).
    """
    if space.name == _REGISTERED:
        return (Path(template_from_t1w),)
    return Path(template_from_t1w), between_templates(folder)


def between_templates(folder: Path) -> Path:
    """Return the ITK transform that resamples images in MNI152NLin6Asym to MNI152NLin2009cAsym, computed once.

    Several processes may compute it at the same time: they find the same, and each writes a complete file.

    Parameters
    ----------
    folder
        Where it is kept.
    """
    kept = Path(folder) / f"from-{_REGISTERED}_to-MNI152NLin2009cAsym_mode-image_xfm.h5"
    if kept.is_file():
        return kept
    files = atlas_files()
    brain = load_volume(files.template_brain_2009c, ndim=3)
    mask = image_like((np.asanyarray(brain.dataobj) > 0).astype(np.uint8), brain)
    with tempfile.TemporaryDirectory() as place:
        found = register_to_template(brain, mask, files.template_brain, Path(place))
        with complete_file(kept) as partial:
            partial.write_bytes(found.t1w_from_template[0].read_bytes())
    return kept
