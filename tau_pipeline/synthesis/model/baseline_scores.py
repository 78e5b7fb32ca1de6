"""Baselines: simple predictors that stand beside every figure of a model, and whether the model beats them.

A model is compared with the mean of its training images, with the mean of those with the participant's diagnosis, and
with the regional regression. All are compared with the measured SUVR on the grid of the T1w, in the brain where the PET
has a value, on participants of the test split (of the validation split where there is no other).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tau_pipeline.errors import DamagedFileError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Device, Training
from tau_pipeline.synthesis.data.anatomy import anatomy_of
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.placement import on_t1w_grid, place, to_grid
from tau_pipeline.synthesis.model.baselines import TrainingStatistics
from tau_pipeline.synthesis.model.correction import on_t1w
from tau_pipeline.synthesis.model.ensemble import Ensemble, known_or_pooled, to_suvr
from tau_pipeline.synthesis.model.folder import LoadedModel
from tau_pipeline.synthesis.model.map_scores import (
    LEAST_FOR_R,
    HeldOutTables,
    MapScores,
    figures_of,
    score_maps,
    tables_of,
)
from tau_pipeline.synthesis.model.predict import predict_pair
from tau_pipeline.synthesis.model.regression_fit import regression_grid

#: Names of what predicts, in the column ``predictor``.
MODEL, TRAINING_MEAN, DIAGNOSIS_MEAN, REGIONAL_REGRESSION = (
    "model",
    "training mean",
    "diagnosis mean",
    "regional regression",
)
BASELINES = (TRAINING_MEAN, DIAGNOSIS_MEAN, REGIONAL_REGRESSION)
#: Measures by which a model is judged: heading, and whether more is better.
MEASURES = {
    "ssim": ("SSIM", True),
    "mae": ("MAE", False),
    "regional_mae": ("regional MAE", False),
    "regional_r": ("r over participants", True),
}
#: In the figures of a model card.
KEY = "held_out"
#: Of a model whose card has no such figures.
NOT_KNOWN = (
    "It is not known how this model does beside simple predictors: its card has no scores of held-out participants."
)

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class HeldOut:
    """Figures of a model and its baselines on the grid of the T1w.

    Attributes
    ----------
    split
        ``test`` or ``validation``.
    n_participants
        Of that split.
    figures
        The `MEASURES` of each predictor; None where a measure is not defined. SSIM and MAE are means over scans;
        ``regional_mae`` is over the cortical and subcortical regions; ``regional_r`` is the mean over cortical regions
        of the correlation over scans.
    tables
        The scores behind the figures; None where they were read from a card.
    """

    split: str
    n_participants: int
    figures: Mapping[str, Figures]
    tables: HeldOutTables | None = field(default=None, repr=False, compare=False)

    @property
    def not_beaten(self) -> dict[str, list[str]]:
        """Return the measures in which the model is not better than a baseline, by baseline."""
        found = {}
        for name in BASELINES:
            worse = [key for key in MEASURES if name in self.figures and self._is_not_better(name, key)]
            if worse:
                found[name] = worse
        return found

    def _is_not_better(self, baseline: str, measure: str) -> bool:
        own, other = self.figures[MODEL].get(measure), self.figures[baseline].get(measure)
        if own is None or other is None:
            return False
        return own <= other if MEASURES[measure][1] else own >= other

    @property
    def unknown(self) -> list[str]:
        """Return the measures that are not defined for the model, such as a correlation over two participants."""
        return [key for key in MEASURES if self.figures[MODEL].get(key) is None]

    @property
    def beats(self) -> bool | str:
        """Return whether the model is better than every baseline in every measure; ``n/a`` where that is not known."""
        if self.not_beaten:
            return False
        return "n/a" if self.unknown else True

    @property
    def sentence(self) -> str:
        """Say which baselines the model does not beat, and in what this is not known; empty if it beats all."""
        parts = [f"the {name} in {_listed(MEASURES[key][0] for key in keys)}" for name, keys in self.not_beaten.items()]
        said = []
        if parts:
            said.append(
                f"This model does not beat {'; nor '.join(parts)} ({self._where}): in this respect, its maps say no "
                "more about a participant than these simple predictors do."
            )
        if self.unknown:
            why = [] if parts else [self._where]
            if "regional_r" in self.unknown:
                why.append(f"r needs {LEAST_FOR_R} scans or more whose values differ")
            verb, reason = "is" if len(self.unknown) == 1 else "are", f" ({'; '.join(why)})" if why else ""
            said.append(
                f"{_listed(MEASURES[key][0] for key in self.unknown)} {verb} not defined here{reason}, so that it is "
                "not known whether this model beats simple predictors in this respect."
            )
        return " ".join(said)

    @property
    def _where(self) -> str:
        people = f"{self.n_participants} participant{'s' * (self.n_participants != 1)}"
        return f"{people} of the {self.split} split, on the grid of the T1w"

    @property
    def description(self) -> str:
        """Say what the model beats and what it does not, and no more than was measured."""
        if self.sentence:
            return self.sentence
        names = _listed(f"the {name}" for name in BASELINES if name in self.figures)
        measures = _listed(heading for heading, _ in MEASURES.values())
        return f"This model beats {names} in {measures} ({self._where}; the differences were not tested for chance)."

    def lines(self, model: str = MODEL) -> list[str]:
        """Return one line of figures per predictor, as text; ``model`` is what the model is called."""
        rows = []
        for name, own in self.figures.items():
            cells = [f"{heading} {_number(own.get(key))}" for key, (heading, _) in MEASURES.items()]
            rows.append(f"{model if name == MODEL else name}: {', '.join(cells)}")
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, for model cards and sidecars."""
        return {
            "grid": "T1w",
            "split": self.split,
            "n_participants": self.n_participants,
            "figures": {name: dict(own) for name, own in self.figures.items()},
            "beats_baselines": self.beats,
            "not_beaten": self.not_beaten,
            "description": self.description,
        }

    @classmethod
    def from_card(cls, figures: Mapping[str, Any]) -> HeldOut | None:
        """Read the figures of a model card; None where it has none, as that of an older model.

        Raises
        ------
        DamagedFileError
            A value is missing or has another type.
        """
        stated = figures.get(KEY)
        if stated is None:
            return None
        try:
            own = {
                str(name): {key: None if one[key] is None else float(one[key]) for key in MEASURES}
                for name, one in stated["figures"].items()
            }
            return cls(str(stated["split"]), int(stated["n_participants"]), {MODEL: own.pop(MODEL), **own})
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise DamagedFileError(f"the model card's {KEY} is damaged ({exc}); copy the model folder again") from exc


def baseline_keys(ensemble: Ensemble) -> dict[str, Any]:
    """Return the keys of a sidecar that say how the models do beside the baselines.

    ``BeatsBaselines`` is true where every model beats every baseline, false where one does not, and else ``n/a``.
    """
    found = [HeldOut.from_card(model.card.figures) for model in ensemble.models]
    verdicts = {"n/a" if each is None else each.beats for each in found}
    return {
        "BeatsBaselines": next(verdict for verdict in (False, "n/a", True) if verdict in verdicts),
        "Baselines": [
            {"model": folder.name, **each.as_dict()}
            for folder, each in zip(ensemble.folders, found, strict=True)
            if each is not None
        ],
    }


def unbeaten(ensemble: Ensemble) -> list[str]:
    """Return the sentence of each model that does not beat its baselines, or of which this is not known.

    Of several models, each is named.
    """
    found = []
    for folder, model in zip(ensemble.folders, ensemble.models, strict=True):
        held_out = HeldOut.from_card(model.card.figures)
        sentence = NOT_KNOWN if held_out is None else held_out.sentence
        if sentence:
            found.append(f"{folder.name}: {sentence}" if len(ensemble.models) > 1 else sentence)
    return found


def _listed(words: Iterable[str]) -> str:
    """Join words as in a sentence: a, b, and c."""
    *first, last = words
    return f"{', '.join(first)}{',' * (len(first) > 1)} and {last}" if first else last


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def baseline_maps(
    training_statistics: TrainingStatistics,
    model: LoadedModel,
    mask_img: Volume,
    manufacturer: str | None,
    diagnosis: str,
    dseg_img: Volume | None = None,
    covariates: Mapping[str, float] | None = None,
) -> dict[str, Volume]:
    """Return the maps of the baselines as SUVR: mean images of the training split, and the regional regression.

    Parameters
    ----------
    training_statistics
        Mean images on the model's grid, scaled, and the regression.
    model
        Whose grid and target scaling they have.
    mask_img
        The participant's brain mask, on the T1w's grid.
    manufacturer
        Whose scale the SUVR gets; the model knows it too.
    diagnosis
        The participant's; without training participants who have it there is no mean of the same diagnosis.
    dseg_img, covariates
        The participant's labels on the T1w's grid, and age and sex; without labels there is no regression.

    Returns
    -------
    dict
        Maps on the T1w's grid by predictor.
    """
    placement = place(mask_img, model.grid, dseg_img=dseg_img)
    brain = to_grid(mask_img, placement, labels=True) > 0
    images = {
        TRAINING_MEAN: training_statistics.mean_image,
        DIAGNOSIS_MEAN: training_statistics.diagnosis_images.get(diagnosis),
    }
    maps = {
        name: on_t1w_grid(to_suvr(model, image, manufacturer), brain, placement, mask_img)
        for name, image in images.items()
        if image is not None
    }
    regression = training_statistics.regression
    if regression is not None and dseg_img is not None:
        fine = place(mask_img, regression_grid())
        inside = to_grid(mask_img, fine, labels=True) > 0
        anatomy = anatomy_of(dseg_img, mask_img, fine, covariates)
        z = regression.mean_map(anatomy, inside, fine.grid.voxel_mm)
        maps[REGIONAL_REGRESSION] = on_t1w_grid(to_suvr(model, z, manufacturer), inside, fine, mask_img)
    return maps


def score_held_out(
    ensemble: Ensemble,
    training_statistics: TrainingStatistics,
    pairs: Iterable[Pair],
    device: Device = Training.device,
) -> HeldOut | None:
    """Score a model and its baselines on the grid of the T1w.

    Parameters
    ----------
    ensemble
        The model, without test-time flips.
    training_statistics
        Of the model.
    pairs
        Any; used are those of the test split, or of the validation split where there are none of the other.
    device
        Where to predict.

    Returns
    -------
    HeldOut or None
        None without a held-out scan.
    """
    of = {split: [pair for pair in pairs if ensemble.split_of(pair.participant_id) == split] for split in _HELD_OUT}
    split = next((name for name in _HELD_OUT if of[name]), None)
    if split is None:
        return None
    rows: dict[str, list[MapScores]] = {}
    for pair in of[split]:
        manufacturer = known_or_pooled(ensemble, pair.manufacturer)
        mask, dseg = (load_volume(path, ndim=3) for path in (pair.mask_file, pair.dseg_file))
        found = predict_pair(ensemble, pair, manufacturer, Synthesis(test_time_flips=False), device)
        maps = {MODEL: on_t1w(ensemble, found, mask, pair.subject, manufacturer)}
        maps |= baseline_maps(
            training_statistics, ensemble.first, mask, manufacturer, pair.diagnosis, dseg, pair.covariates
        )
        if training_statistics.diagnosis_images:
            # Somebody whose diagnosis no training participant has counts, too: all predictors have the same scans.
            maps.setdefault(DIAGNOSIS_MEAN, maps[TRAINING_MEAN])
        for name, row in score_maps(pair, maps, mask, dseg).items():
            rows.setdefault(name, []).append(row)
    people = {pair.participant_id for pair in of[split]}
    figures = {name: figures_of(own) for name, own in rows.items()}
    return HeldOut(split, len(people), figures, tables_of(rows))


_HELD_OUT = ("test", "validation")
