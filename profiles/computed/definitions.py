"""The computed traits that `traits.toml` defines, beside the policy file."""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from config.clock.times import Duration
from config.errors import SegueError
from config.text.files import read_toml
from config.text.strict import describe_errors
from config.text.suggestions import meant
from profiles.conditions.json_path import parse_path
from profiles.conditions.language import PropertyTest
from profiles.conditions.reading import read_tests

FILE = "traits.toml"
TraitMeasure = Literal[
    "count", "sum", "average", "first", "last", "most_frequent", "distinct", "days_since"
]
MEASURES: tuple[TraitMeasure, ...] = get_args(TraitMeasure)
# They need no property: they look at the events themselves.
_OF_EVENTS = ("count", "days_since")
# Their values are numbers, of which quantiles can be taken.
_NUMBERS = ("count", "sum", "average", "distinct", "days_since")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class _Trait(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = Field(min_length=1)

    @property
    def digest(self) -> str:
        """Names what decides its values."""
        packed = orjson.dumps(self.model_dump(exclude={"description"}, mode="json"))
        return hashlib.sha256(packed).hexdigest()[:12]


class EventTrait(_Trait):
    """A measure of the events of one name.

    property: the property that is measured; "" for `count` and `days_since`. within: seconds; only
    events of that time count. where: only events that pass these tests count.
    """

    measure: TraitMeasure
    event: str = Field(min_length=1)
    property: str = ""
    within: Duration | None = Field(default=None, gt=0)
    where: tuple[PropertyTest, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "EventTrait":
        if self.measure in _OF_EVENTS and self.property:
            raise ValueError(f"{self.measure} looks at the events; leave property out")
        if self.measure not in _OF_EVENTS and not self.property:
            raise ValueError(f'{self.measure} measures a property; add property = "total"')
        if "[]" in self.property:
            raise ValueError(f"{self.property!r} names several values; name one")
        parse_path(self.property)
        return self


class QuantileTrait(_Trait):
    """The group of a profile among all profiles, by another trait: 1 (lowest) to `groups`.

    lowest_is_best: the lowest values are in the highest group, as of days since the last order.
    """

    quantile: str
    groups: int = Field(default=5, ge=2, le=100)
    lowest_is_best: bool = False


class ComputedTraits:
    """The computed traits of an installation."""

    def __init__(
        self, of_events: Collection[EventTrait] = (), quantiles: Collection[QuantileTrait] = ()
    ) -> None:
        self.of_events = {one.name: one for one in of_events}
        self.quantiles = {one.name: one for one in quantiles}

    def __bool__(self) -> bool:
        return bool(self.of_events)

    @property
    def all(self) -> dict[str, EventTrait | QuantileTrait]:
        return {**self.of_events, **self.quantiles}

    def event_names(self) -> set[str]:
        """The events that they read."""
        return {one.event for one in self.of_events.values()}


def read_traits(file: Path) -> tuple[ComputedTraits, list[SegueError]]:
    """The valid traits of a file, and what is wrong with the others; none if there is no file."""
    try:
        content = read_toml(file) if file.exists() else {}
    except SegueError as error:
        return ComputedTraits(), [error]
    faults = [
        SegueError(f"{file}: there is no {key!r}; write each trait as [traits.NAME]")
        for key in content
        if key != "traits"
    ]
    tables = content.get("traits", {})
    of_events: list[EventTrait] = []
    quantiles: list[QuantileTrait] = []
    for name, table in tables.items() if isinstance(tables, Mapping) else ():
        try:
            found = _read(name, table, f"{file}, trait {name!r}")
        except SegueError as error:
            faults.append(error)
            continue
        if isinstance(found, EventTrait):
            of_events.append(found)
        else:
            quantiles.append(found)
    traits = ComputedTraits(of_events, quantiles)
    if not faults:
        faults = [SegueError(f"{file}, {one}") for one in _wrong_bases(traits)]
    return traits, faults


def _read(name: str, table: object, place: str) -> EventTrait | QuantileTrait:
    if not _NAME.fullmatch(name):
        raise SegueError(
            f"{place}: a name has lower-case letters, digits and _, such as orders_90d"
        )
    if not isinstance(table, Mapping):
        raise SegueError(f"{place}: write a table [traits.{name}]")
    kinds = [key for key in table if key in (*MEASURES, "quantile")]
    if len(kinds) != 1:
        strange = next((key for key in table if key not in _KEYS), "")
        raise SegueError(
            f"{place}: {meant(strange, MEASURES)}write one of {', '.join((*MEASURES, 'quantile'))}"
        )
    [kind] = kinds
    for key in table:
        if key not in (_KEYS if kind != "quantile" else _OF_QUANTILES):
            raise SegueError(f"{place}: it has no {key!r}; {meant(key, _KEYS)}check the spelling")
    try:
        if kind == "quantile":
            return QuantileTrait.model_validate({"name": name, **table})
        given: dict[str, Any] = {key: value for key, value in table.items() if key != kind}
        given["where"] = read_tests(table.get("where", []), place)
        return EventTrait.model_validate(
            {"name": name, "measure": kind, "event": table[kind], **given}
        )
    except ValidationError as error:
        raise SegueError(f"{place}: {describe_errors(error)}") from error


_KEYS = ("description", *MEASURES, "property", "within", "where")
_OF_QUANTILES = ("description", "quantile", "groups", "lowest_is_best")


def _wrong_bases(traits: ComputedTraits) -> Iterator[str]:
    numbers = [one.name for one in traits.of_events.values() if one.measure in _NUMBERS]
    for one in traits.quantiles.values():
        if one.quantile not in numbers:
            yield (
                f"trait {one.name!r}: there is no trait {one.quantile!r} with numbers; "
                f"{meant(one.quantile, numbers)}there are: {', '.join(numbers) or 'none'}"
            )
