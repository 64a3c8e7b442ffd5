"""Column maps: TOML files that describe the columns of an input file; see docs/start/import.md."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

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
from config.text.files import read_toml
from config.text.invisible_characters import trimmed
from config.text.strict import in_words
from profiles.attributes.countries import country_code
from profiles.imports.values import READ, DateOrder, DecimalMark, Style, Type, read_moment

MAPS = Path(__file__).parent / "maps"

_PLAIN = Style()


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


def _known_encoding(text: str) -> str:
    try:
        return codecs.lookup(text).name
    except LookupError:
        raise ValueError(f'{text!r} is no encoding; write for example "windows-1252"') from None


def _one_character(text: str) -> str:
    if len(text) != 1 or text.isalnum() or text in '"\r\n ':
        raise ValueError(f'{text!r} is no delimiter; use one character, such as ";" or "\\t"')
    return text


def _known_country(text: str) -> str:
    code = country_code(text)
    if code is None:
        raise ValueError(f"{text!r} is not a country; use a name or an ISO code such as DE")
    return code


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
    # How the file is written; what is None is found out.
    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = None
    delimiter: Annotated[str, AfterValidator(_one_character)] | None = None
    decimal: DecimalMark | None = None
    date_order: DateOrder | None = None
    # Cells that count as empty, such as "NULL" and "n/a"; compared without case.
    empty: frozenset[Annotated[str, AfterValidator(_folded)]] = frozenset()

    def cell(self, text: str) -> str:
        """The cell without surrounding blanks; "" if it is in `empty`."""
        return "" if self.empty and _folded(text) in self.empty else trimmed(text)

    def instant(self, text: str, style: Style = _PLAIN) -> Instant:
        """The time in a cell; without a zone, in the map's `timezone`. Raises ValueError."""
        moment = read_moment(text, style)
        if moment.tzinfo is None:
            if self.timezone is None:
                raise ValueError(
                    f"{text!r} has no time zone and the map has no `timezone`; "
                    'add for example timezone = "Europe/London" at its top'
                )
            moment = moment.replace(tzinfo=zone(self.timezone))
        return parse_instant(moment.isoformat())

    def value(self, kind: Type, text: str, style: Style = _PLAIN) -> Any:
        """The cell as a type. Raises ValueError."""
        if kind == "time":
            return format_instant(self.instant(text, style))
        return READ[kind](text, style)


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

    # Phone numbers without a country code are read in it, in rows without a country.
    country: Annotated[str, AfterValidator(_known_country)] | None = None
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

    def typed(self) -> Iterator[tuple[str, Type]]:
        """The columns with the types of their cells."""
        if self.columns.seen_at:
            yield self.columns.seen_at, "time"
        yield from ((column.column, column.type) for column in self.attributes.values())


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

    def typed(self) -> Iterator[tuple[str, Type]]:
        """The columns with the types of their cells."""
        yield self.columns.occurred_at, "time"
        yield from ((column.column, column.type) for column in self.properties.values())


M = TypeVar("M", PeopleMap, EventMap)


def load_map(path: Path, kind: type[M]) -> M:
    """Read a map. Raises SegueError naming the file, the key and the fix."""
    if not path.exists():
        raise SegueError(f"the column map {path} does not exist")
    try:
        return kind.model_validate(read_toml(path))
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
    return f"{where}: {in_words(fault)}"
