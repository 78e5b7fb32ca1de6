"""Plane of the cyclic loss in each epoch: pure functions of the epoch's number.

Axial, coronal and sagittal take turns. Each lasts ``first_cycle`` epochs in the first round; after a whole round the
length is multiplied by ``factor`` and rounded, and never falls below one epoch (Moon, Kim, Chung & Jang 2026, Human
Brain Mapping 47(5) e70508: 120 epochs, 2/3).
"""

from __future__ import annotations

from typing import Literal

from tau_pipeline.errors import SettingError
from tau_pipeline.settings.training import Training

Plane = Literal["axial", "coronal", "sagittal"]
#: The order in which the planes take turns.
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
#: Early stopping counts from the start of this round on, numbered from 0: the third.
_FIRST_STOPPING_ROUND = 2


def plane_at(epoch: int, first_cycle: int = Training.first_cycle, factor: float = Training.cycle_factor) -> Plane:
    """Return the plane of the slices that the loss compares in an epoch.

    Parameters
    ----------
    epoch
        Number of the epoch, from 0.
    first_cycle
        Epochs that each plane lasts in the first round.
    factor
        What the length is multiplied by after each whole round, above 0 and at most 1.

    Raises
    ------
    SettingError
        A number is not whole or lies outside its range.

    >>> [plane_at(epoch) for epoch in (0, 119, 120, 240, 360)]
    ['axial', 'axial', 'coronal', 'sagittal', 'axial']
    """
    return _position(epoch, first_cycle, factor)[1]


def round_at(epoch: int, first_cycle: int = Training.first_cycle, factor: float = Training.cycle_factor) -> int:
    """Return the number, from 0, of the round of three planes of an epoch. Parameters and errors as `plane_at`.

    >>> [round_at(epoch) for epoch in (0, 359, 360, 600)]
    [0, 0, 1, 2]
    """
    return _position(epoch, first_cycle, factor)[0]


def may_stop(epoch: int, first_cycle: int = Training.first_cycle, factor: float = Training.cycle_factor) -> bool:
    """Return whether early stopping counts this epoch: from the third round on. Otherwise as `plane_at`.

    >>> may_stop(599), may_stop(600)
    (False, True)
    """
    return round_at(epoch, first_cycle, factor) >= _FIRST_STOPPING_ROUND


def _position(epoch: int, first_cycle: int, factor: float) -> tuple[int, Plane, int]:
    """Round, plane, and epochs since the plane's turn began."""
    _check(epoch, first_cycle, factor)
    this_round, length, start = 0, first_cycle, 0
    while epoch >= start + len(PLANES) * length:
        shorter = max(1, round(length * factor))
        if shorter == length:
            # From here on all rounds are equally long (one epoch a plane, or factor 1): no need to walk through them.
            rounds = (epoch - start) // (len(PLANES) * length)
            this_round, start = this_round + rounds, start + rounds * len(PLANES) * length
            break
        this_round, start, length = this_round + 1, start + len(PLANES) * length, shorter
    turn, since = divmod(epoch - start, length)
    return this_round, PLANES[turn], since


def _check(epoch: int, first_cycle: int, factor: float) -> None:
    for name, value, lowest in (("epoch", epoch, 0), ("first_cycle", first_cycle, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise SettingError(f"{name} is {value!r}; expected: a whole number, {lowest} or more")
    # `not (...)` so that NaN is refused too.
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise SettingError(f"factor is {factor!r}; expected: a number above 0 and at most 1")
