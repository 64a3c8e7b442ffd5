"""Conditions in words, for staff."""

from collections.abc import Sequence
from typing import assert_never

from config.channels import channel_of
from config.clock.times import format_duration
from profiles.conditions.language import (
    PROFILE_COLUMNS,
    AllOf,
    AnyOf,
    Condition,
    Consented,
    Did,
    Everyone,
    HasAddress,
    InSegment,
    Not,
    Scalar,
    Test,
)

_OF = {"computed": "trait", "trait": "attribute", "group": "company", "property": "property"}


def in_words(condition: Condition) -> str:
    """A condition as text, such as `did order_completed within 90d`."""
    match condition:
        case Test():
            return _test(condition)
        case Did():
            return _did(condition)
        case Consented():
            about = "" if condition.topic == "*" else f" about {condition.topic}"
            return f"agreed to {channel_of(condition.channel).plural}{about}"
        case HasAddress():
            channel = channel_of(condition.channel)
            return f"has a usable {channel.address} for {channel.plural}"
        case Everyone():
            return "everyone"
        case InSegment():
            return f"in segment {condition.segment}"
        case AllOf():
            return _joined(condition.conditions, " and ") or "everyone"
        case AnyOf():
            return _joined(condition.conditions, " or ") or "nobody"
        case Not():
            return f"not ({in_words(condition.condition)})"
        case _:
            assert_never(condition)


def _joined(parts: Sequence[Condition], word: str) -> str:
    return word.join(
        f"({in_words(part)})" if isinstance(part, AllOf | AnyOf) else in_words(part)
        for part in parts
    )


def _did(condition: Did) -> str:
    words = [f"did {condition.event}"]
    if condition.where:
        words.append(f"with {' and '.join(map(_test, condition.where))}")
    if condition.same is not None:
        words.append(f"with the {condition.same} of the entry")
    if condition.at_least > 1:
        words.append(f"at least {condition.at_least} times")
    if condition.within is not None:
        words.append(f"within {format_duration(condition.within)}")
    return " ".join(words)


def _test(test: Test) -> str:
    is_column = test.of == "trait" and test.name in PROFILE_COLUMNS
    what = test.name if is_column else f"{_OF[test.of]} {test.name}"
    if test.op == "exists":
        return f"{what} exists"
    if isinstance(test.value, tuple):
        return f"{what} is one of {', '.join(map(_value, test.value))}"
    return f"{what} {test.op} {_value(test.value)}"


def _value(value: Scalar | None) -> str:
    return repr(value) if isinstance(value, str) else str(value)
