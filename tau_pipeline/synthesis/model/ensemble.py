"""Several models that predict together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tau_pipeline.bids.manufacturers import canonical_manufacturer
from tau_pipeline.cohort.standardize import POOLED
from tau_pipeline.errors import DamagedFileError, SettingError, UnknownNameError, shown
from tau_pipeline.files import read_json, write_json
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.scaling import ByManufacturer
from tau_pipeline.synthesis.model.card import CARD
from tau_pipeline.synthesis.model.folder import LoadedModel, load_model

#: In a folder of several models: their subfolders, with the hashes of their cards.
FILE = "ensemble.json"


@dataclass(frozen=True)
class Ensemble:
    """Models on one grid, with the folders they come from."""

    models: tuple[LoadedModel, ...]
    folders: tuple[Path, ...]
    hashes: tuple[str, ...]

    @property
    def first(self) -> LoadedModel:
        """The first model, whose card speaks for what all have in common."""
        return self.models[0]

    @property
    def grid(self) -> Grid:
        """The common grid of all."""
        return self.first.grid

    @property
    def hash(self) -> str:
        """Of the only model, or of all together."""
        return self.hashes[0] if len(self.hashes) == 1 else _digest("".join(self.hashes).encode())

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """Names of the covariates that any of the models uses."""
        return tuple(dict.fromkeys(name for model in self.models for name in model.covariate_names))

    def split_of(self, participant_id: str) -> str:
        """Return ``train`` if any model was trained on the participant, else ``validation``, ``test`` or ``none``."""
        splits = {split for model in self.models for split in _splits_of(model, participant_id)}
        return next((split for split in ("train", "validation", "test") if split in splits), "none")

    def models_not_trained_on(self, participant_id: str) -> Ensemble:
        """Return the ensemble of those models that were not trained on the participant; it may be empty."""
        kept = [n for n, model in enumerate(self.models) if "train" not in _splits_of(model, participant_id)]
        return Ensemble(
            tuple(self.models[n] for n in kept),
            tuple(self.folders[n] for n in kept),
            tuple(self.hashes[n] for n in kept),
        )

    def used_for(self, participant_id: str) -> Ensemble:
        """Return the models that predict a participant: those not trained on the participant, if there are any."""
        strict = self.models_not_trained_on(participant_id)
        return strict if strict.models else self


def namesakes(ensemble: Ensemble, participants: Iterable[str], output_dir: Path) -> list[str]:
    """Say which participants have names from the data of a model that was not trained in this output folder.

    Labels such as ``sub-01`` are used in many studies, and nothing tells whether they are the same people.

    Parameters
    ----------
    ensemble
        The models.
    participants
        With the prefix ``sub-``.
    output_dir
        Root of the derivatives.
    """
    if all(folder.is_relative_to(output_dir) for folder in ensemble.folders):
        return []
    same = sorted(who for who in set(participants) if ensemble.split_of(who) != "none")
    if not same:
        return []
    names = ", ".join(same[:3]) + (", …" if len(same) > 3 else "")
    are = "1 participant has a name" if len(same) == 1 else f"{len(same)} participants have names"
    return [
        f"{are} that are among the model's data ({names}), and the model is not from this output folder: they count as "
        "the same people. If they are different people, ignore what the outputs state about their training, "
        "validation, or test split"
    ]


def _splits_of(model: LoadedModel, participant_id: str) -> set[str]:
    table = model.splits
    found = set(table.loc[table["participant_id"] == participant_id, "split"])
    return found | ({"train"} if participant_id in model.card.training_participants else set())


def save_ensemble(folder: Path, members: Sequence[Path]) -> Path:
    """Make a folder an ensemble of the models in some of its subfolders: write `FILE`.

    Parameters
    ----------
    folder
        Of the ensemble.
    members
        Model folders directly in it.
    """
    content = {"members": {path.name: _digest((path / CARD).read_bytes()) for path in members}}
    write_json(content, Path(folder) / FILE)
    return Path(folder)


def members_of(folder: Path) -> list[Path]:
    """Return the model folders that a folder stands for: those of an ensemble, or itself.

    Raises
    ------
    DamagedFileError
        The list of the ensemble cannot be read, names something else than subfolders, or a subfolder holds another
        model than the one that the ensemble was made of.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        return [folder]
    members = read_json(folder / FILE).get("members")
    if not isinstance(members, dict) or not members or any(Path(name).name != name for name in members):
        raise DamagedFileError(f"{folder / FILE} names no models in its folder; copy the ensemble again")
    for name, digest in members.items():
        card = folder / name / CARD
        # A folder that is missing is named when its model is loaded.
        if card.is_file() and _digest(card.read_bytes()) != digest:
            raise DamagedFileError(
                f"{folder / name} does not hold the model that the ensemble was made of ({FILE} has another hash of "
                f"its {CARD}); copy the ensemble again, or run the training with --folds again"
            )
    return [folder / name for name in members]


def load_ensemble(folders: Sequence[Path]) -> Ensemble:
    """Load one or several folders of models or ensembles.

    Raises
    ------
    MissingInputError, DamagedFileError, UnknownNameError
        A folder is no model, or is damaged (`tau_pipeline.synthesis.model.folder.load_model`).
    SettingError
        The models differ in grid, tracer or reference region, or two are the same.
    """
    folders = [member for folder in folders for member in members_of(folder)]
    models = tuple(load_model(folder) for folder in folders)
    first = models[0].card
    for folder, model in zip(folders, models, strict=True):
        for name in ("grid", "tracer", "reference_region", "t1w_percentiles"):
            found, wanted = getattr(model.card, name), getattr(first, name)
            if found != wanted:
                raise SettingError(
                    f"{folder} has the {name.replace('_', ' ')} {_text(found)}, and {folders[0]} has "
                    f"{_text(wanted)}; models that predict together must agree"
                )
    hashes = tuple(_digest((Path(folder) / CARD).read_bytes()) for folder in folders)
    for n, digest in enumerate(hashes):
        if digest in hashes[:n]:
            raise SettingError(
                f"{folders[n]} and {folders[hashes.index(digest)]} hold the same model, which would count twice; give "
                "each model once"
            )
    return Ensemble(models, tuple(Path(folder) for folder in folders), hashes)


def _text(value: Any) -> str:
    return value.describe() if isinstance(value, Grid) else repr(value)


def _digest(content: bytes) -> str:
    """Return twelve digits; those of a card identify the model, since the card holds the hash of each of its files."""
    return hashlib.sha256(content).hexdigest()[:12]


def require_manufacturer(ensemble: Ensemble, manufacturer: str | None) -> str | None:
    """Return the manufacturer whose scale the synthetic SUVR gets, by its canonical name in the models.

    Parameters
    ----------
    ensemble
        The models.
    manufacturer
        In any spelling; ``pooled`` for all manufacturers of the training together.

    Returns
    -------
    str or None
        None where the models have one scale for all (min-max) and no manufacturer was given.

    Raises
    ------
    UnknownNameError
        It is not stated, or a model was not trained on it; the message lists those that can be taken.
    """
    given = POOLED if (manufacturer or "").lower() == POOLED else manufacturer
    try:
        name = given if given in (None, POOLED) else canonical_manufacturer(given)
    except UnknownNameError:
        name = given
    fits = [m.target_scaling.standardization for m in ensemble.models if isinstance(m.target_scaling, ByManufacturer)]
    if name == POOLED or all(name in fit.known for fit in fits):
        return name
    common = [manufacturer for manufacturer in fits[0].known if all(manufacturer in fit.known for fit in fits)]
    known = ", ".join(common) or "none"
    nobody = "there is no PET of this participant whose scanner's scale could be taken"
    found = nobody if name is None else f"the model knows no scanner of {shown(name)}"
    raise UnknownNameError(
        f"{found}; give --as-manufacturer with one that the model was trained on ({known}), or pooled for all "
        "manufacturers together"
    )


def known_or_pooled(ensemble: Ensemble, manufacturer: str | None) -> str | None:
    """Return the manufacturer as `require_manufacturer`; an unknown one becomes all manufacturers pooled."""
    try:
        return require_manufacturer(ensemble, manufacturer)
    except UnknownNameError:
        return POOLED


def to_suvr(model: LoadedModel, z: NDArray, manufacturer: str | None) -> NDArray:
    """Invert the model's target scaling.

    Parameters
    ----------
    model
        Whose.
    z
        Scaled values, of any shape.
    manufacturer
        As `require_manufacturer` returns it.
    """
    if isinstance(model.target_scaling, ByManufacturer) and manufacturer == POOLED:
        return model.target_scaling.standardization.with_unknown("pooled").invert(z, None)
    return model.target_scaling.invert(z, manufacturer)
