"""Conditions in TOML: each form, and what is said of wrong ones."""

import tomllib

import pytest

from config.errors import SegueError
from journeys.dsl import (
    attribute,
    consented,
    days,
    did,
    everyone,
    group,
    has_address,
    in_segment,
    prop,
    trait,
)
from profiles.conditions.language import AllOf, AnyOf, Condition
from profiles.conditions.reading import read_condition


def read(text: str) -> Condition:
    return read_condition(tomllib.loads(text), "segment 'x'")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ('attribute = "country"\nis = "DE"', attribute("country") == "DE"),
        ('attribute = "vip"\nis = true', attribute("vip") == True),  # noqa: E712
        ('attribute = "country"\nis_not = "DE"', attribute("country") != "DE"),
        ('attribute = "ltv"\nabove = 2.5', attribute("ltv") > 2.5),
        ('attribute = "tags"\ncontains = "a"', attribute("tags").contains("a")),
        ('attribute = "x"\none_of = ["a", 1]', attribute("x").one_of("a", 1)),
        ('attribute = "x"\nexists = true', attribute("x").exists()),
        ('group = "plan"\nis = "gold"', group("plan") == "gold"),
        (
            'attribute = "ltv"\nat_least = 5\nbelow = 10',
            (attribute("ltv") >= 5) & (attribute("ltv") < 10),
        ),
        ('event = "bought"', did("bought")),
        (
            'event = "bought"\nwithin = "90d"\nat_least = 2\n'
            'where = [{ property = "total", at_most = 50 }]',
            did("bought", prop("total") <= 50, within=days(90), at_least=2),
        ),
        ('consent = "sms"', consented("sms")),
        ('consent = "email"\ntopic = "news"', consented("email", "news")),
        ('reachable = "push"', has_address("push")),
        ('trait = "orders"\nat_least = 3', trait("orders") >= 3),
        ('segment = "lapsed"', in_segment("lapsed")),
        ("everyone = true", everyone()),
        ('not = { segment = "lapsed" }', ~in_segment("lapsed")),
        (
            'all = [{ event = "a" }, { any = [{ event = "b" }, { not = { event = "c" } }] }]',
            AllOf(conditions=(did("a"), AnyOf(conditions=(did("b"), ~did("c"))))),
        ),
    ],
)
def test_each_form(text: str, condition: Condition) -> None:
    assert read(text) == condition


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "says nothing that is a condition"),
        ('atribute = "x"\nis = 1', "did you mean 'attribute'?"),
        ('attribute = "x"', "'x' is compared with nothing; add one of is, is_not"),
        ('attribute = "x"\niss = 1', "it has no 'iss'; did you mean 'is'?"),
        ('attribute = "x"\nis = 2026-01-01', "value"),
        ('attribute = "x"\nis = ["a"]', "can't be compared by '=='"),
        ('attribute = "x"\none_of = "a"', "can't be compared by 'in'"),
        ("attribute = 3\nis = 1", "name: it must be text"),
        ('attribute = "x"\nexists = false', "for the opposite write not"),
        ('event = "a"\nsegment = "b"', "'event' and 'segment' are two conditions"),
        ('event = "a"\nwithin = "soon"', "not a duration"),
        ('event = "a"\nat_least = 0', "it must be at least 1"),
        ('event = "a"\nwhere = { property = "x", is = 1 }', "where is a list of tables"),
        ('event = "a"\nwhere = [{ attribute = "x", is = 1 }]', 'write { property = "total"'),
        ('consent = "pigeon"', "pigeon"),
        ("everyone = false", "write everyone = true"),
        ("all = []", "it is a list of conditions"),
        ('any = ["a"]', "any[0]: 'a' is no condition; write a table"),
        ('not = "a"', "is no condition"),
        ('all = [{ event = "a" }, { evnt = "b" }]', "segment 'x', all[1]: "),
    ],
)
def test_a_mistake_is_named(text: str, says: str) -> None:
    with pytest.raises(SegueError) as caught:
        read(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith("segment 'x'")
