"""Conditions in words."""

import pytest

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
from profiles.conditions.words import in_words


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (attribute("ltv") > 200, "attribute ltv > 200"),
        (attribute("tags").contains("vip"), "attribute tags contains 'vip'"),
        (attribute("birthday").exists(), "attribute birthday exists"),
        (attribute("country").one_of("DE", "GB"), "country is one of 'DE', 'GB'"),
        (group("plan") == "premium", "company plan == 'premium'"),
        (consented("sms"), "agreed to text messages"),
        (consented("email", "news"), "agreed to e-mail about news"),
        (has_address("sms"), "has a usable phone number for text messages"),
        (trait("orders") >= 3, "trait orders >= 3"),
        (everyone(), "everyone"),
        (~in_segment("lapsed"), "not (in segment lapsed)"),
        (AllOf(conditions=()), "everyone"),
        (AnyOf(conditions=()), "nobody"),
        (
            did("cart", prop("total") >= 50, prop("size") != "M", at_least=2, within=days(90)),
            "did cart with property total >= 50 and property size != 'M' at least 2 times "
            "within 90d",
        ),
        (did("bought", same="cart_id"), "did bought with the cart_id of the entry"),
        (~did("a") & (did("b") | did("c")), "not (did a) and (did b or did c)"),
    ],
)
def test_each_condition_has_words(condition: Condition, words: str) -> None:
    assert in_words(condition) == words
