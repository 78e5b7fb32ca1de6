"""From pairs to tensors: one grid, one scale of the T1w, PET standardized, a cache, a dataset.

What a model sees of a T1w is fixed by three things that its card repeats: the common grid, the percentiles that become
-1 and 1, and the background. What it learns of SUVR is a `TargetScaling` that was fitted on training participants only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tau_pipeline.settings.training import Augmentation
from tau_pipeline.synthesis.data.augment import apply_augmentation, draw_augmentation
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.prepare import T1W_BACKGROUND, Prepared, prepare
from tau_pipeline.synthesis.data.scaling import TargetScaling


@dataclass(frozen=True)
class Inputs:
    """Network inputs of pairs.

    Attributes
    ----------
    of
        From a pair and its prepared arrays to ``(C, I, J, K)``, the T1w first.
    backgrounds
        Value of each channel outside the brain.
    """

    of: Callable[[Pair, Prepared], NDArray[np.float32]]
    backgrounds: tuple[float, ...]


#: The T1w alone.
T1W_ONLY = Inputs(lambda _pair, found: found.t1w[None], (T1W_BACKGROUND,))


class PairDataset(Dataset):
    """Pairs as tensors, for a `torch.utils.data.DataLoader` with or without workers.

    An item is a dictionary: ``t1w`` ``(C, I, J, K)`` float32, the T1w from -1 to 1 and further channels; ``pet``
    ``(1, I, J, K)`` float32, scaled, with the target scaling's background outside the mask; ``mask`` ``(1, I, J, K)``
    boolean, where the PET is known in the brain; ``labels`` ``(1, I, J, K)`` int32 if requested; ``index``,
    ``participant``, ``scan`` and ``manufacturer``.

    Parameters
    ----------
    pairs
        In the order of the items.
    grid
        The common grid.
    target_scaling
        Fitted on the training split.
    cache_dir
        As in `prepare`.
    augmentation
        Of the training split; ``off`` for validation and test.
    random_seed
        With the epoch and the index it fixes the augmentation of an item: neither workers nor the order of the items
        make a difference, and a run that is resumed draws what it would have drawn.
    labels
        Whether items have ``labels``.

    Attributes
    ----------
    inputs : Inputs
        Channels of ``t1w``; the T1w alone unless they are set.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        grid: Grid,
        target_scaling: TargetScaling,
        cache_dir: Path | None = None,
        augmentation: Augmentation = "off",
        random_seed: int = 0,
        labels: bool = False,
    ) -> None:
        self.pairs = tuple(pairs)
        self.grid = grid
        self.target_scaling = target_scaling
        self.cache_dir = cache_dir
        self.augmentation = augmentation
        self.random_seed = random_seed
        self.labels = labels
        self.inputs = T1W_ONLY
        # Shared memory: workers that outlive an epoch see the new number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.pairs)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch it is, before its loop starts; the augmentation follows."""
        self._epoch.fill_(epoch)

    def prepared(self, index: int) -> Prepared:
        """Return a pair on the grid, with its placement; without augmentation."""
        return prepare(self.pairs[index], self.grid, self.cache_dir)

    def drawn(self, index: int) -> dict[str, Any] | None:
        """Return the augmentation drawn for an item in the present epoch; None without augmentation."""
        rng = np.random.default_rng([self.random_seed, int(self._epoch), index])
        return draw_augmentation(rng, self.augmentation)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair, found = self.pairs[index], self.prepared(index)
        z = self.target_scaling.apply(found.suvr, pair.manufacturer, found.known)
        t1w = torch.from_numpy(self.inputs.of(pair, found))
        pet, mask, brain, labels = (
            torch.from_numpy(array)[None]
            for array in (z.astype(np.float32), found.known, found.brain, found.labels.astype(np.int32))
        )
        if (drawn := self.drawn(index)) is not None:
            t1w, pet, mask, moved = apply_augmentation(
                drawn,
                t1w,
                pet,
                mask,
                labels if self.labels else None,
                brain,
                (self.inputs.backgrounds, self.target_scaling.background),
            )
            labels = labels if moved is None else moved
        item = {"t1w": t1w, "pet": pet, "mask": mask}
        if self.labels:
            item["labels"] = labels
        names = {"participant": pair.participant, "scan": pair.scan, "manufacturer": pair.manufacturer}
        return {**item, "index": index, **names}
