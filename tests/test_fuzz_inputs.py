"""A bounded number of the wrong inputs of ``fuzz_inputs.py``, the same ones at every run."""

from __future__ import annotations

import pytest
from fuzz_inputs import FAMILIES, fuzz

#: So many that all of them together take about a minute.
EXAMPLES = {"dataset": 80, "sidecar": 100, "image": 100, "freesurfer": 15, "call": 30, "results": 30}


def test_every_family_has_its_number() -> None:
    assert set(EXAMPLES) == set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("family", EXAMPLES)
def test_a_wrong_input_is_answered_with_a_sentence_and_without_a_traceback(family: str) -> None:
    answers = fuzz(family, EXAMPLES[family])
    assert sum(answers.values()) >= EXAMPLES[family]
    # Answers of one kind alone would mean that the inputs do not go deep.
    assert len(answers) > 1
