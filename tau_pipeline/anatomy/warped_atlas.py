"""Labels of the template and of its mirror image on the working grid of a head."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.anatomy.grid import working_grid
from tau_pipeline.anatomy.template import TemplateRegistration, warp_labels
from tau_pipeline.atlas import label_table
from tau_pipeline.imaging.volume import Volume, image_like


def warped_atlas(mask: Volume, labels_path: Path, registration: TemplateRegistration) -> Volume:
    """Return the labels of the template where a registration puts them, int32, on the working grid of a head.

    Labels that come by the mirror image of the template are given the numbers of the side on which they arrive.

    Parameters
    ----------
    mask
        Brain mask of the head.
    labels_path
        aparc+aseg of the template.
    registration
        Of the head to the template or to its mirror image.
    """
    grid = working_grid(mask, upright=registration.upright)
    labels = warp_labels(labels_path, grid, registration.t1w_from_template)
    return image_like(exchange_sides(labels) if registration.mirrored else labels, grid)


def exchange_sides(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return labels of any shape with the number of each left structure exchanged for that of its right partner.

    Numbers without a partner, and those that the label table does not have, stay.
    """
    partners = _partners()
    numbers = np.arange(max(int(labels.max(initial=0)), *partners) + 1, dtype=np.int32)
    numbers[list(partners)] = list(partners.values())
    exchanged: NDArray[np.int32] = numbers[labels]
    return exchanged


@cache
def _partners() -> dict[int, int]:
    table = label_table()
    by_name: dict[str, int] = dict(zip(table["region"], table["index"].astype(int), strict=True))
    pairs: dict[int, int] = {}
    for name, number in by_name.items():
        other = by_name.get(name.replace("Left-", "Right-").replace("ctx-lh-", "ctx-rh-"), number)
        if other != number:
            pairs |= {number: other, other: number}
    return pairs
