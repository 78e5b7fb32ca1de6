"""A bounded number of the wrong inputs of ``fuzz_inputs.py``, the same ones at every run."""

from __future__ import annotations

import itertools
import time

import fuzz_answers
import pytest
from fuzz_answers import NoAnswerError, limited
from fuzz_inputs import FAMILIES, fuzz

#: So many that all of them together take about a minute.
EXAMPLES = {
    **{"dataset": 80, "sidecar": 100, "image": 100, "freesurfer": 15, "call": 30, "settings": 40},
    # Drawn from a known truth, in milliseconds each.
    **{"sessions": 700, "tracers": 700, "units": 600, "clocks": 700, "participants": 400},
    **{"results": 30, "group": 8, "pages": 4, "study": 40, "model": 80, "weights": 80},
}


def test_every_family_has_its_number() -> None:
    assert set(EXAMPLES) == set(FAMILIES)


def test_no_answer_is_what_computes_too_long_or_waits_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_answers, "LONGEST_S", 0.1)
    monkeypatch.setattr(fuzz_answers, "LONGEST_BY_THE_CLOCK_S", 60.0)
    with pytest.raises(NoAnswerError, match="processor time"), limited():
        sum(1 for _ in itertools.count())
    # Longer by the clock than the processor may be used, as on a machine that is busy with other things.
    with limited():
        time.sleep(0.3)
    monkeypatch.setattr(fuzz_answers, "LONGEST_BY_THE_CLOCK_S", 0.2)
    with pytest.raises(NoAnswerError, match="the clock"), limited():
        time.sleep(60)


@pytest.mark.slow
@pytest.mark.parametrize("family", EXAMPLES)
def test_a_wrong_input_is_answered_with_a_sentence_and_without_a_traceback(family: str) -> None:
    answers = fuzz(family, EXAMPLES[family])
    assert sum(answers.values()) >= EXAMPLES[family]
    # Answers of one kind alone would mean that the inputs do not go deep.
    assert len(answers) > 1
