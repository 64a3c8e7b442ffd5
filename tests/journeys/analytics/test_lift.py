"""The cases of `segue lift`: what has no value is null, with the reason."""

from typing import Any

import pytest

from journeys.analytics.lift import lift
from tests.support.shared_data import experiments, needs_experiments

_KEYS = ["absolute_fixed", "absolute_sequential", "relative_fixed", "relative_sequential"]


def proportions(control: list[Any], arm: list[Any]) -> dict[str, Any]:
    return lift({"kind": "proportion", "control": control, "arm": arm})


def means(control: list[Any], arm: list[Any]) -> dict[str, Any]:
    return lift({"kind": "mean", "control": control, "arm": arm})


@needs_experiments
def test_an_answer_has_the_figures_of_gbstats() -> None:
    for case in experiments():
        answer = lift(case)
        assert list(answer) == _KEYS
        for key in _KEYS:
            difference, interval, p = answer[key]
            given = case[key]
            assert [difference, *interval, p] == pytest.approx(
                [given[0], *given[1], given[2]], abs=1.01e-5 / 2
            ), case


def test_without_conversions_in_the_control_nothing_is_relative() -> None:
    answer = proportions([1000, 0], [1000, 9])
    assert answer["absolute_fixed"][0] == 0.009
    assert answer["relative_fixed"] is None
    assert answer["relative_sequential"] is None
    assert answer["undefined"] == ["relative figures: the control's mean is 0"]


def test_without_conversions_in_the_arm_it_lost_everything() -> None:
    answer = proportions([1000, 9], [1000, 0])
    assert answer["absolute_fixed"][1] is not None
    assert answer["relative_fixed"] == [-1.0, None, None]
    assert answer["undefined"] == ["relative intervals: all values of the arm are 0"]


def test_without_conversions_at_all() -> None:
    answer = proportions([1000, 0], [1000, 0])
    assert answer["absolute_sequential"] == [0.0, None, None]
    assert answer["relative_fixed"] is None
    assert len(answer["undefined"]) == 2


def test_a_group_of_nobody_has_no_figures() -> None:
    answer = means([0, 0, 0], [10, 5, 25])
    assert [answer[key] for key in _KEYS] == [None] * 4
    assert answer["undefined"] == ["every figure: the control has no people"]


def test_a_group_of_one_has_no_interval() -> None:
    answer = means([10, 5, 25], [1, 2, 4])
    assert answer["absolute_fixed"] == [1.5, None, None]
    assert answer["undefined"] == ["intervals: the arm has one person, and no variance"]


def test_values_that_do_not_vary_have_no_interval() -> None:
    answer = means([3, 0.3, 0.03], [4, 0.8, 0.16])
    assert answer["absolute_fixed"] == [pytest.approx(0.1), None, None]
    assert answer["undefined"] == ["intervals: all values of a group are equal"]


def test_negative_sums_and_huge_groups_have_all_figures() -> None:
    huge = proportions([10**15, 10**12], [10**15, 10**12 + 10**9])
    for answer in (means([100, -200, 900], [100, -100, 700]), huge):
        assert list(answer) == _KEYS
        assert all(None not in (*answer[key], *answer[key][1]) for key in _KEYS)


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ({}, "kind: None is not one of proportion, mean"),
        ({"kind": ["mean"]}, "kind"),
        ({"kind": "mean", "control": [1, 2]}, "control: it must be a list"),
        ({"kind": "mean", "control": [1, 2, 4], "arm": "x"}, "arm: it must be a list"),
        ({"kind": "proportion", "control": [1, True]}, "conversions must be a number"),
        ({"kind": "proportion", "control": [1, None]}, "conversions must be a number"),
        ({"kind": "proportion", "control": [1, 2]}, "conversions must be from 0 to"),
        ({"kind": "proportion", "control": [1.5, 1]}, "whole number"),
        ({"kind": "proportion", "control": [-1, 0]}, "whole number"),
        ({"kind": "mean", "control": [0, 1, 1]}, "without people"),
        ({"kind": "mean", "control": [10, 100, 999]}, "control: the sum of squares"),
    ],
)
def test_an_invalid_case_is_refused_with_its_fault(case: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        lift({"arm": [1, 0] if case.get("kind") == "proportion" else [1, 0, 0], **case})
