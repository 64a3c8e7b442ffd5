"""The value of a trait, from a profile's events in groups of equal values. Pure."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from config.clock.times import DAY, Instant
from profiles.computed.definitions import EventTrait

# The value of a property, or of a trait. Lists and objects are not measured.
TraitValue = bool | int | float | str
_LARGEST = 2**53  # above it, a whole number is a float in JSON


class EqualEvents(NamedTuple):
    """Events of a profile with the same value of the property: how many, and their first and last
    time. value: None if nothing is measured, or the event has no such value.
    """

    value: TraitValue | None
    number: int
    first_at: Instant
    last_at: Instant


def value_of(trait: EventTrait, groups: Iterable[EqualEvents], now: Instant) -> TraitValue | None:
    """The value; None: there is none.

    Events of the same second are in the order of their values as text. Of values that are equally
    frequent, the one that came last is the most frequent.
    """
    all_ = list(groups)
    if trait.measure == "count":
        return sum(one.number for one in all_)
    if trait.measure == "days_since":
        return (now - max(one.last_at for one in all_)) // DAY if all_ else None
    stated = [one for one in all_ if one.value is not None]
    numbers = [one for one in stated if isinstance(one.value, int | float | Decimal)]
    numbers = [one for one in numbers if not isinstance(one.value, bool)]
    match trait.measure:
        case "sum":
            return _plain(_total(numbers))
        case "average":
            count = sum(one.number for one in numbers)
            return _plain(_total(numbers) / count) if count else None
        case "distinct":
            return len(stated)
        case "first":
            return min(stated, key=lambda one: (one.first_at, _text(one))).value if stated else None
        case "last":
            return max(stated, key=lambda one: (one.last_at, _text(one))).value if stated else None
        case "most_frequent":
            order = sorted(stated, key=lambda one: (one.number, one.last_at, _text(one)))
            return order[-1].value if order else None


def score(value: float, cuts: Sequence[float], *, lowest_is_best: bool) -> int:
    """The group of a value: 1 and one more for each cut below it; counted from the other end if the
    lowest values are best.
    """
    above = sum(1 for cut in cuts if cut < value)
    return len(cuts) + 1 - above if lowest_is_best else 1 + above


def cuts_of(values: Sequence[float], groups: int) -> list[float]:
    """The values that separate the groups: of each share k / groups, the highest value in it.

    values: in ascending order. Without values there is no cut.
    """
    last = len(values)
    return [values[-(-k * last // groups) - 1] for k in range(1, groups)] if last else []


def plain_number(number: Decimal | float) -> int | float:
    """A number of a database as one of JSON: whole numbers are ints."""
    return _plain(Fraction(repr(number) if isinstance(number, float) else number))


def _total(groups: Iterable[EqualEvents]) -> Fraction:
    """The exact sum, so that it does not depend on the order of the events."""
    found = Fraction(0)
    for one in groups:
        assert one.value is not None
        found += Fraction(str(one.value)) * one.number
    return found


def _plain(number: Fraction) -> int | float:
    if number.denominator == 1 and abs(number) <= _LARGEST:
        return int(number)
    return float(number)


def _text(group: EqualEvents) -> str:
    return f"{type(group.value).__name__} {group.value}"
