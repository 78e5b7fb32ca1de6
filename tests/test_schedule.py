from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tau_pipeline.errors import SettingError
from tau_pipeline.synthesis.losses.schedule import PLANES, may_stop, plane_at, round_at


def walked(n_epochs: int, first_cycle: int, factor: float) -> list[tuple[int, str, int]]:
    """Round, plane and epoch within the turn, by walking from epoch to epoch."""
    out, length, number = [], first_cycle, 0
    while len(out) < n_epochs:
        for plane in PLANES:
            out += [(number, plane, i) for i in range(length)]
        length, number = max(1, round(length * factor)), number + 1
    return out[:n_epochs]


def test_the_authors_thousand_epochs_have_their_rounds_starts_and_epochs_a_plane():
    planes = [plane_at(epoch) for epoch in range(1000)]
    starts = [0, *(e for e in range(1, 1000) if planes[e] != planes[e - 1])]
    assert [e for e in starts if planes[e] == "axial"] == [0, 360, 600, 759, 864, 933, 978]
    assert [b - a for a, b in pairwise(starts)][::3] == [120, 80, 53, 35, 23, 15, 10]
    assert [planes.count(plane) for plane in ("axial", "coronal", "sagittal")] == [336, 336, 328]


@pytest.mark.parametrize(("first_cycle", "factor"), [(120, 2 / 3), (1, 1.0), (7, 0.5), (4, 1.0), (9, 0.01), (3, 0.99)])
def test_every_epoch_is_where_walking_from_the_start_puts_it(first_cycle, factor):
    for epoch, (number, plane, _) in enumerate(walked(400, first_cycle, factor)):
        assert plane_at(epoch, first_cycle, factor) == plane
        assert round_at(epoch, first_cycle, factor) == number


def test_early_stopping_counts_from_the_start_of_the_third_round():
    assert [may_stop(e) for e in (0, 359, 360, 599, 600, 999)] == [False] * 4 + [True] * 2
    assert next(e for e in range(20) if may_stop(e, first_cycle=2, factor=0.5)) == 6 + 3


def test_an_epoch_far_away_is_found_without_walking_there():
    assert plane_at(3 * 10**15 + 1, first_cycle=1) == "coronal"


def test_the_same_epoch_has_the_same_plane_in_any_order_of_asking():
    rng = np.random.default_rng(0)
    expected = [plane_at(epoch) for epoch in range(300)]
    for epoch in rng.permutation(300).tolist():
        assert plane_at(epoch) == expected[epoch]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"epoch": -1}, "epoch is -1; expected: a whole number, 0 or more"),
        ({"epoch": 1.0}, r"epoch is 1\.0"),
        ({"epoch": True}, "epoch is True"),
        ({"epoch": 0, "first_cycle": 0}, "first_cycle is 0; expected: a whole number, 1 or more"),
        ({"epoch": 0, "factor": 0}, "factor is 0; expected: a number above 0 and at most 1"),
        ({"epoch": 0, "factor": 1.5}, r"factor is 1\.5"),
        ({"epoch": 0, "factor": float("nan")}, "factor is nan"),
        ({"epoch": 0, "factor": "2/3"}, "factor is '2/3'"),
    ],
)
def test_a_number_out_of_range_is_refused_in_one_sentence(call, message):
    with pytest.raises(SettingError, match=message):
        plane_at(**call)
