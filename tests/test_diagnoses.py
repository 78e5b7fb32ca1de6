from __future__ import annotations

import math

import pytest

from tau_pipeline.cohort.design import groups_of
from tau_pipeline.diagnoses import by_severity, is_alzheimer, is_control, severity


@pytest.mark.parametrize(
    ("name", "control", "alzheimer", "stage"),
    [
        ("CN", True, False, 0),
        ("Cognitively normal", True, False, 0),
        ("healthy control", True, False, 0),
        ("HC ", True, False, 0),
        ("SMC", False, False, 0),
        ("Subjective cognitive decline", False, False, 0),
        ("aMCI", False, False, 1),
        ("MCI due to AD", False, False, 1),
        ("AD", False, True, 2),
        ("ad dementia", False, True, 2),
        ("Alzheimer\u2019s disease", False, True, 2),
        ("Alzheimer's dementia", False, True, 2),
        ("dementia", False, False, 2),
        ("non-AD", False, False, math.nan),
        ("PSP", False, False, math.nan),
        ("not normal", False, False, math.nan),
        ("", False, False, math.nan),
        (None, False, False, math.nan),
    ],
)
def test_diagnoses_are_known_by_their_usual_names(
    name: str | None, control: bool, alzheimer: bool, stage: float
) -> None:
    assert (is_control(name), is_alzheimer(name)) == (control, alzheimer)
    assert severity(name) == pytest.approx(stage, nan_ok=True)


def test_diagnoses_are_shown_by_severity_and_others_by_the_alphabet() -> None:
    names = ["not stated", "PSP", "AD", "other", "SMC", "cognitively normal", "FTD", "MCI", "AD"]
    expected = ["cognitively normal", "SMC", "MCI", "AD", "FTD", "PSP", "other", "not stated"]
    assert by_severity(names, last=("other", "not stated")) == expected
    assert by_severity(["Siemens", "GE", "Philips"]) == ["GE", "Philips", "Siemens"]


@pytest.mark.parametrize("controls", ["cognitively normal", "Healthy Control", "nl", "CU"])
def test_patients_are_compared_with_controls_however_these_are_called(controls: str) -> None:
    import pandas as pd

    assert groups_of(pd.Series(["AD", controls, "AD"]))[0] == controls
