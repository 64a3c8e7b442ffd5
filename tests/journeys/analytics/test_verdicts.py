"""A verdict says what the figures show, and no more."""

from journeys.analytics.statistics import compare, mean, proportion
from journeys.analytics.verdicts import Measure, verdict

CONVERSIONS = Measure("conversions", unit="points", scale=100)
REVENUE = Measure("revenue a person", unit="GBP", scale=1)
# Hillstrom's e-mail experiment: no mail, men's mail, women's mail
NONE, MENS, WOMENS = proportion(21306, 122), proportion(21307, 267), proportion(21387, 189)


def test_a_difference_that_looking_often_confirms() -> None:
    assert verdict(CONVERSIONS, "mens", "none", compare(NONE, MENS)) == [
        "conversions, mens against none: between 0.38 points and 0.98 points more, however often "
        "one looks."
    ]
    [worse] = verdict(CONVERSIONS, "none", "mens", compare(MENS, NONE))
    assert worse.startswith("conversions, none against mens: between 0.38 points and 0.98 points")
    assert worse.endswith(" less, however often one looks.")


def test_a_relative_difference_that_only_one_look_confirms() -> None:
    absolute, relative = verdict(CONVERSIONS, "womens", "none", compare(NONE, WOMENS))
    assert absolute.endswith(" more, however often one looks.")
    assert relative == (
        "conversions, womens against none: the relative difference (+54.3%) is significant at one "
        "look (p = 0.0024), and not yet if one looks repeatedly (p = 0.087)."
    )


def test_a_difference_that_only_one_look_finds() -> None:
    control, arm = mean(3407, 1396.87, 52377.9767), mean(3461, 2422.7, 134698.29)
    assert verdict(REVENUE, "b", "a", compare(control, arm)) == [
        "revenue a person, b against a: not yet. One look, at a size chosen before, would find a "
        "difference (p = 0.02), but looking repeatedly finds such differences by chance too. At "
        "this size a difference below 0.38 GBP can't be told from chance."
    ]


def test_no_difference_names_what_could_be_told_from_chance() -> None:
    found = compare(proportion(28, 14), proportion(30, 16))
    assert verdict(CONVERSIONS, "b", "a", found) == [
        "conversions, b against a: not yet. At this size a difference below 111.46 points can't be "
        "told from chance."
    ]


def test_too_few_people_show_nothing() -> None:
    found = compare(proportion(0, 0), proportion(1, 1))
    assert verdict(CONVERSIONS, "b", "a", found) == [
        "conversions, b against a: nothing can be said yet; there are too few people, or their "
        "figures do not vary."
    ]
