"""Models whose predictions are known by construction, and made-up people with everything that synthesis reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from phantom import identity
from synthesis_cohort import Person, write_person
from torch import Tensor, nn

from tau_pipeline.cohort.standardize import ManufacturerFit, Standardization
from tau_pipeline.files import write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_like, save_volume
from tau_pipeline.measures.regions import regional_table
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.scaling import ByManufacturer, TargetScaling
from tau_pipeline.synthesis.model.card import ModelCard
from tau_pipeline.synthesis.model.ensemble import Ensemble
from tau_pipeline.synthesis.model.folder import LoadedModel

GRID = Grid((32, 32, 32), (2, 2, 2))
TRAIN = ("sub-01", "sub-02")
#: Mean and SD of SUVR by manufacturer.
SCALES = {"GE": (1.0, 0.5), "Siemens": (2.0, 0.25)}
POOLED = (1.5, 1.0)
BY_MANUFACTURER = ByManufacturer(
    Standardization(
        {name: ManufacturerFit(*scale, TRAIN) for name, scale in SCALES.items()},
        ManufacturerFit(*POOLED, TRAIN),
        "error",
        "flortaucipir",
        "CerebellarGM",
    )
)


class Toy(nn.Module):
    """A system that applies a function to the T1w ``(1, 1, I, J, K)``."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, t1w: Tensor) -> Tensor:
        return self.function(t1w)


def toy_model(
    function: Callable[[Tensor], Tensor],
    splits: dict[str, str] | None = None,
    target_scaling: TargetScaling = BY_MANUFACTURER,
    **changes: object,
) -> LoadedModel:
    """A loaded model around a function; ``splits`` by participant."""
    rows = splits or {"sub-01": "train", "sub-02": "train", "sub-03": "validation", "sub-04": "test"}
    table = pd.DataFrame({"participant_id": list(rows), "split": list(rows.values())})
    trained = tuple(who for who, split in rows.items() if split == "train")
    values = {"tracer": "flortaucipir", "reference_region": "CerebellarGM", "training_participants": trained, **changes}
    grid = values.pop("grid", GRID)
    return LoadedModel(Toy(function), ModelCard("unet", "laptop", grid, {}, 0, **values), target_scaling, table)


def toy_ensemble(*models: LoadedModel) -> Ensemble:
    """Models together, in folders that do not exist."""
    names = [f"model{n}" for n in range(len(models))]
    return Ensemble(tuple(models), tuple(Path(name) for name in names), tuple(names))


def write_reference(root: Path, person: Person) -> None:
    """The reference region: the lowest third of the brain; and the region table of the measured scan."""
    anat, pet = person.anat(root), person.pet(root)
    mask, dseg, suvr = (load_volume(path) for path in (anat.mask, anat.dseg, pet.suvr()))
    inside = np.argwhere(np.asarray(mask.dataobj) > 0)
    height = inside @ mask.affine[2, :3]
    reference = np.zeros(mask.shape, np.uint8)
    reference[tuple(inside[height <= np.quantile(height, 1 / 3)].T)] = 1
    save_volume(image_like(reference, mask), anat.reference_mask("CerebellarGM"))
    whose = identity(person.label, person.manufacturer, session=person.session, tracer=person.tracer)
    table = regional_table(suvr, dseg, image_like(reference, mask), "CerebellarGM", whose)
    write_tsv(table, pet.rois)


def write_people(root: Path, people: Sequence[Person]) -> Path:
    """Write people with reference regions and region tables; returns the folder."""
    for person in people:
        write_person(root, person)
        write_reference(root, person)
    return root
