"""Column maps: TOML files that describe the columns of an input file; see docs/start/import.md."""

import math
import tomllib
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from config.channels import ChannelName
from config.clock.times import Instant, format_instant, parse_instant
from config.clock.zones import zone, zone_name
from config.errors import SegueError
from config.policy import CHANNELS
from config.text.invisible_characters import trimmed

MAPS = Path(__file__).parent / "maps"

Type = Literal["text", "integer", "number", "boolean", "date", "time"]


class NoZone(ValueError):
    """A time without a zone, with a column map that has no `timezone`."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Part):
    """A column and its type. In the map: `"name"` or `{ column = "name", type = ... }`."""

    column: str
    type: Type = "text"

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value


def _known_zone(text: str) -> str:
    name = zone_name(text)
    if name is None:
        raise ValueError(f"{text!r} is not a time zone; use an IANA name such as Europe/London")
    return name


def _folded(cell: str) -> str:
    return trimmed(cell).casefold()


def _consent_key(key: str) -> str:
    channel, _, topic = key.partition(".")
    if channel not in CHANNELS or not topic:
        raise ValueError(
            f'{key!r} is not "<channel>.<topic>" with a channel of {", ".join(CHANNELS)}; '
            'write for example "email.*" for all e-mail or "sms.promotions" for a topic'
        )
    return key


class _Map(_Part):
    timezone: Annotated[str, AfterValidator(_known_zone)] | None = None
    # Cells that count as empty, such as "NULL" and "n/a"; compared without case.
    empty: frozenset[Annotated[str, AfterValidator(_folded)]] = frozenset()

    def cell(self, text: str) -> str:
        """The cell without surrounding blanks; "" if it is in `empty`."""
        return "" if self.empty and _folded(text) in self.empty else trimmed(text)

    def instant(self, text: str) -> Instant:
        """The time in a cell: ISO 8601; without a zone, in the map's `timezone`."""
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is not a date and time; write it like 2026-03-02T04:30:00Z"
            ) from None
        if moment.tzinfo is None:
            if self.timezone is None:
                raise NoZone(
                    f"{text!r} has no time zone and the map has no `timezone`; "
                    'add for example timezone = "Europe/London" at its top'
                )
            moment = moment.replace(tzinfo=zone(self.timezone))
        return parse_instant(moment.isoformat())

    def value(self, column: Column, text: str) -> Any:
        """The cell as the type of its column. Raises ValueError."""
        if column.type == "time":
            return format_instant(self.instant(text))
        return _READ[column.type](text)


class PeopleColumns(_Part):
    user_id: str | None = None
    anonymous_id: str | None = None
    email: str | None = None
    phone: str | None = None
    push_token: str | None = None
    push_platform: str | None = None
    country: str | None = None
    timezone: str | None = None
    language: str | None = None
    seen_at: str | None = None

    @model_validator(mode="after")
    def _names_a_profile(self) -> "PeopleColumns":
        if not (self.user_id or self.anonymous_id or self.email or self.phone or self.push_token):
            raise ValueError(
                "no column identifies the customer; give the column of user_id, email, phone, "
                "anonymous_id or push_token"
            )
        return self


class PeopleMap(_Map):
    """The map of a file with one customer in each row."""

    columns: PeopleColumns
    attributes: dict[str, Column] = Field(default_factory=dict)
    consent: dict[Annotated[str, AfterValidator(_consent_key)], str] = Field(default_factory=dict)

    def topics(self) -> Iterator[tuple[tuple[ChannelName, str], str]]:
        """Each channel and topic with the column that states consent to it."""
        for key, column in self.consent.items():
            channel, _, topic = key.partition(".")
            yield (channel, topic), column

    def names(self) -> Iterator[str]:
        """All columns that the map names."""
        yield from (name for name in self.columns.model_dump().values() if name)
        yield from (column.column for column in self.attributes.values())
        yield from self.consent.values()


class EventColumns(_Part):
    user_id: str
    occurred_at: str
    id: str


class EventMap(_Map):
    """The map of a file with one event in each row."""

    columns: EventColumns
    properties: dict[str, Column] = Field(default_factory=dict)

    def names(self) -> Iterator[str]:
        """All columns that the map names."""
        yield from self.columns.model_dump().values()
        yield from (column.column for column in self.properties.values())


M = TypeVar("M", PeopleMap, EventMap)


def load_map(path: Path, kind: type[M]) -> M:
    """Read a map. Raises SegueError naming the file, the key and the fix."""
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SegueError(f"the column map {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SegueError(f"the column map {path} can't be read: {error}") from error
    except ValidationError as error:
        raise SegueError(f"the column map {path}: {_first(error, kind)}") from error


def _first(error: ValidationError, kind: type[PeopleMap] | type[EventMap]) -> str:
    """One error as text: its place in the map, and the allowed values.

    A misspelt key makes another one missing; the error names the misspelt one.
    """
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    place = [str(part) for part in fault["loc"] if part != "[key]"]
    where = ".".join(place)
    if fault["type"] == "extra_forbidden":
        columns = PeopleColumns if kind is PeopleMap else EventColumns
        part = kind if len(place) == 1 else columns if place[0] == "columns" else Column
        known = part.model_fields
        return f"{where} is unknown; allowed are {', '.join(known)}"
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}"


def yes_or_no(text: str) -> bool:
    """Parse common spellings of yes and no. Raises ValueError."""
    word = text.casefold()
    if word in ("true", "yes", "y", "t", "1", "on"):
        return True
    if word in ("false", "no", "n", "f", "0", "off"):
        return False
    raise ValueError(f"{text!r} is neither yes nor no; use true or false")


def _integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{text} does not fit into 64 bits")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; write it like 1234.5") from None
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is not a date; write it like 2026-03-02") from None


_READ: dict[Type, Callable[[str], Any]] = {
    "text": str,
    "integer": _integer,
    "number": _number,
    "boolean": yes_or_no,
    "date": _date,
}
