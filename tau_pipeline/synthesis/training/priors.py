"""Prior maps of the scans of a training: the regional regression, painted on each participant's labels.

The regression knows the participants that it was fitted on too well. So that the network learns to correct maps as good
as those that it will get for others, training participants get the map of a regression that was fitted without them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import SettingError
from tau_pipeline.synthesis.data.dataset import PairDataset
from tau_pipeline.synthesis.model.channels import painted_prior
from tau_pipeline.synthesis.model.regression import RegionalRegression
from tau_pipeline.synthesis.model.regression_fit import LEAST_PARTICIPANTS, fit_regression
from tau_pipeline.synthesis.training.processes import Processes

#: Parts of the training participants; each gets the map of a regression that was fitted on the others. Fewer
#: participants are left out one by one.
_PARTS = 5

Maps = dict[str, NDArray[np.float32]]


def fit_priors(
    train: PairDataset, held_out: Sequence[PairDataset], group: Processes, covariates: Sequence[str] = ()
) -> tuple[RegionalRegression, Maps]:
    """Fit the regression on the training split, and paint its map for every scan.

    Parameters
    ----------
    train
        Training split; its target scaling is applied.
    held_out
        Validation and test split.
    group
        The processes share the painting.
    covariates
        Of the training, which the regression gets too.

    Returns
    -------
    RegionalRegression, dict
        The regression of the whole training split, and the map of each scan on the network's scale, ``(I, J, K)``.

    Raises
    ------
    SettingError
        There are too few training participants for a regression.
    """
    people = sorted({pair.participant_id for pair in train.pairs})
    # Each of them gets the map of a regression of the others.
    if len(people) <= LEAST_PARTICIPANTS:
        raise SettingError(
            f"the training split has {len(people)} participants, and a network that starts from the regional "
            f"regression needs {LEAST_PARTICIPANTS + 1} or more; add participants, make the training split larger "
            "(split_fractions, folds, split_file), or train without it (--start-from nothing)"
        )
    n_parts = _PARTS if len(people) - math.ceil(len(people) / _PARTS) >= LEAST_PARTICIPANTS else len(people)
    whole = _fitted(train, frozenset(), covariates)
    work = [(dataset, index, whole) for dataset in held_out for index in range(len(dataset))]
    for part in range(n_parts):
        out = frozenset(people[part::n_parts])
        without = _fitted(train, out, covariates)
        work += [(train, index, without) for index, pair in enumerate(train.pairs) if pair.participant_id in out]
    painted = {
        dataset.pairs[index].scan: painted_prior(regression, dataset.prepared(index).placed_t1w)
        for dataset, index, regression in group.share(work)
    }
    return whole, {scan: found for maps in group.gathered(painted) for scan, found in maps.items()}


def _fitted(train: PairDataset, left_out: frozenset[str], covariates: Sequence[str]) -> RegionalRegression:
    pairs = [pair for pair in train.pairs if pair.participant_id not in left_out]
    return fit_regression(pairs, train.target_scaling, train.grid, train.cache_dir, covariates).system
