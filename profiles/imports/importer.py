"""Import customers and events from files. A stopped import can be repeated."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from config.clock.zones import zone_name
from config.database.engine import Database, Tx
from config.errors import SegueError
from profiles.attributes.countries import country_code
from profiles.consent.opt_outs import No, take_opt_outs
from profiles.events import NewEvent, record_events
from profiles.identity.person import (
    LONGEST_NAME,
    Person,
    check_length,
    normalise_email,
    normalise_id,
)
from profiles.identity.phones import normalise_phone
from profiles.identity.placeholders import without_meaningless
from profiles.identity.upsert import upsert_people
from profiles.imports.columns import MAPS, Column, EventMap, NoZone, PeopleMap, load_map, yes_or_no
from profiles.imports.rows import FileRow, RefusedRows, open_rows
from profiles.rules import DEFAULT_RULES, InputRules

CHUNK = 500  # rows in a transaction; on SQLite it holds the write lock for about 50 ms

Progress = Callable[[int, int], None]  # rows done, rows in the file
Cells = Mapping[str, str]  # the cells of a row by column
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """Counts of rows: read = created + updated + unchanged + refused."""

    read: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    # Accepted without an invalid value; also written to the file of refused rows.
    taken_in_part: int = 0
    refused_file: Path | None = None
    refused_noes: int = 0  # refused rows whose opt-out was recorded
    # Accepted rows with warnings:
    profiles_created: int = 0  # for events of unknown customers
    unknown_countries: Counter[str] = field(default_factory=Counter)  # by spelling
    invalid_zones: Counter[str] = field(default_factory=Counter)  # by spelling
    consent_overruled: int = 0  # statements of consent that a later one or a no overrules
    left_out: Counter[str] = field(default_factory=Counter)  # ignored values, by reason


def import_file(
    db: Database,
    path: Path,
    *,
    map_file: Path | None = None,
    as_event: str | None = None,
    rules: InputRules = DEFAULT_RULES,
    progress: Progress = lambda _done, _all: None,
) -> ImportReport:
    """Import customers, or with `as_event` the events of that name, from a CSV or Parquet file.

    Invalid rows are written with the reason to `<path>.refused.csv`; an opt-out in them is recorded
    nevertheless. Events are history, which starts no journey.

    Parameters
    ----------
    map_file: the column map; None: customers.toml or orders.toml in profiles/imports/maps/.
    rules: identifiers that are placeholders by these rules are ignored. A row without another
        identifier is refused.
    progress: called after each chunk.

    Raises SegueError if the file or the map is invalid as a whole.
    """
    map_file = map_file or MAPS / ("orders.toml" if as_event else "customers.toml")
    report = ImportReport()
    source = f"import {path.name}"
    job: _People | _Events
    if as_event:
        job = _Events(
            mapping=load_map(map_file, EventMap),
            report=report,
            source=source,
            rules=rules,
            name=as_event,
        )
    else:
        mapping = load_map(map_file, PeopleMap)
        job = _People(mapping=mapping, report=report, source=source, rules=rules)
    file = open_rows(path)
    for name in job.mapping.names():
        if name not in file.columns:
            raise SegueError(
                f"{path} has no column {name!r}, which the column map {map_file} names; its "
                f"columns are: {', '.join(file.columns)}. Correct the map or use another one with "
                "--map"
            )
    refusals = RefusedRows(path, file)
    rows = file.rows()
    while chunk := list(islice(rows, CHUNK)):
        things, refused, left_out = _parse(job, chunk, file.columns)
        zoneless = [fault for fault in refused.values() if isinstance(fault, NoZone)]
        if zoneless and not things and not report.read:
            raise SegueError(f"{path}: {zoneless[0]}. The map is {map_file}")
        if things:
            with db.transaction() as tx:
                late = job.write(tx, list(things.values()))
            places = list(things)
            refused |= {places[index]: reason for index, reason in late.items()}
        noes = {
            place: no
            for place in refused
            if len(chunk[place].cells) == len(file.columns)
            and (no := job.opt_out_in(_cells(job, chunk[place], file.columns)))
        }
        if noes:
            with db.transaction() as tx:
                noes = take_opt_outs(tx, noes, source)
            refused |= {place: f"{refused[place]}; {no}" for place, no in noes.items()}
            report.refused_noes += len(noes)
        in_part = {
            place: f"{reason}; the rest of the row was imported"
            for place, reason in left_out.items()
            if place not in refused
        }
        reasons = {place: str(reason) for place, reason in refused.items()} | in_part
        refusals.write([(chunk[place], reasons[place]) for place in sorted(reasons)])
        report.read += len(chunk)
        report.refused += len(refused)
        report.taken_in_part += len(in_part)
        progress(report.read, file.total)
    report.refused_file = refusals.path if report.refused or report.taken_in_part else None
    return report


def _parse(
    job: "_People | _Events", chunk: Sequence[FileRow], columns: Sequence[str]
) -> tuple[dict[int, Any], dict[int, ValueError | str], dict[int, str]]:
    """Parse rows. Returns persons or events, reasons of refusals, and reasons of ignored values.

    Each is by the place in the chunk.
    """
    things: dict[int, Any] = {}
    refused: dict[int, ValueError | str] = {}
    left_out: dict[int, str] = {}
    for place, row in enumerate(chunk):
        if row.fault:
            refused[place] = row.fault
            continue
        try:
            things[place], fault = job.parse(_cells(job, row, columns))
        except ValueError as error:
            refused[place] = error
        else:
            if fault:
                left_out[place] = fault
    return things, refused, left_out


def _cells(job: "_People | _Events", row: FileRow, columns: Sequence[str]) -> Cells:
    return {name: job.mapping.cell(text) for name, text in zip(columns, row.cells, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _People:
    """Imports rows of customers."""

    mapping: PeopleMap
    report: ImportReport
    source: str
    rules: InputRules

    def parse(self, cells: Cells) -> tuple[Person, str]:
        """Parse a row. Returns the person, and why its phone number is ignored ("" if it is not).

        Raises ValueError if the row is refused.
        """
        columns = self.mapping.columns
        nothing = self._meaningless_in(cells)
        cells = {**cells, **dict.fromkeys(nothing, "")}
        country = _read(cells, columns.country, country_code)
        zone = _read(cells, columns.timezone, _name)
        phone, left_out = None, ""
        try:
            phone = _read(cells, columns.phone, partial(normalise_phone, country=country))
        except ValueError as error:
            left_out = str(error)
        token = _read(cells, columns.push_token, normalise_id)
        platform = _read(cells, columns.push_platform, _platform)
        person = Person(
            user_id=_read(cells, columns.user_id, normalise_id),
            anonymous_id=_read(cells, columns.anonymous_id, normalise_id),
            email=_read(
                cells,
                columns.email,
                partial(normalise_email, lenient_dots=self.rules.lenient_dots),
            ),
            phone=phone,
            push_tokens={token: platform} if token else {},
            country=country,
            timezone=zone,
            language=_read(cells, columns.language, _name),
            attributes=_typed(cells, self.mapping.attributes, self.mapping),
            consent={
                topic: granted
                for topic, column in self.mapping.topics()
                if (granted := _read(cells, column, yes_or_no)) is not None
            },
            seen_at=_read(cells, columns.seen_at, self.mapping.instant),
        )
        # A row needs a user id if the map has its column, unless the cell has a placeholder.
        if columns.user_id and person.user_id is None and columns.user_id not in nothing:
            raise ValueError(f"{columns.user_id}: the cell is empty")
        if not person.keys and (why := left_out or next(iter(nothing.values()), "")):
            raise ValueError(f"{why}; there is no other identifier")
        self.report.left_out.update(nothing.values())
        if columns.country and cells[columns.country] and country is None:
            self.report.unknown_countries[cells[columns.country]] += 1
        if zone and zone_name(zone) is None:
            self.report.invalid_zones[zone] += 1
        return person, left_out

    def _meaningless_in(self, cells: Cells) -> dict[str, str]:
        """The columns of identifiers that have a placeholder, each with a message."""
        columns = self.mapping.columns
        names = (
            *(columns.user_id, columns.anonymous_id),
            *(columns.email, columns.phone, columns.push_token),
        )
        return {
            name: f"{name}: {cells[name]!r} is a placeholder"
            for name in names
            if name and cells[name] and cells[name] in self.rules.meaningless
        }

    def write(self, tx: Tx, people: Sequence[Person]) -> Mapping[int, str]:
        outcome = upsert_people(tx, people, self.source, rules=self.rules)
        self.report.left_out.update(one for some in outcome.left_out.values() for one in some)
        self.report.created += outcome.created
        self.report.updated += outcome.updated
        self.report.unchanged += outcome.unchanged
        self.report.consent_overruled += outcome.consent_overruled
        return outcome.refused

    def opt_out_in(self, cells: Cells) -> No | None:
        """The opt-out in a row that may have errors; None: none, or no valid identifier."""
        columns = self.mapping.columns
        refuses = [
            topic
            for topic, column in self.mapping.topics()
            if _readable(cells, column, yes_or_no) is False
        ]
        country = _readable(cells, columns.country, country_code)
        token = _readable(cells, columns.push_token, normalise_id)
        person = Person(
            user_id=_readable(cells, columns.user_id, normalise_id),
            anonymous_id=_readable(cells, columns.anonymous_id, normalise_id),
            email=_readable(
                cells, columns.email, partial(normalise_email, lenient_dots=self.rules.lenient_dots)
            ),
            phone=_readable(cells, columns.phone, lambda text: normalise_phone(text, country)),
            push_tokens={token: None} if token else {},
        )
        person = without_meaningless(person, self.rules.meaningless)
        if not refuses or not person.keys:
            return None
        return No(
            person=person,
            refuses=refuses,
            said_at=_readable(cells, columns.seen_at, self.mapping.instant),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Events:
    """Imports rows of events, each with the user id of its customer."""

    mapping: EventMap
    report: ImportReport
    source: str
    rules: InputRules
    name: str

    def parse(self, cells: Cells) -> tuple[tuple[str, NewEvent], str]:
        columns = self.mapping.columns
        event = NewEvent(
            profile_id=0,  # set after the customer is looked up
            name=self.name,
            occurred_at=_required(cells, columns.occurred_at, self.mapping.instant),
            dedupe_key=_required(cells, columns.id, normalise_id),
            properties=_typed(cells, self.mapping.properties, self.mapping),
        )
        user_id = _required(cells, columns.user_id, normalise_id)
        if user_id in self.rules.meaningless:
            raise ValueError(f"{columns.user_id}: {user_id!r} is a placeholder")
        return (user_id, event), ""

    def write(self, tx: Tx, rows: Sequence[tuple[str, NewEvent]]) -> Mapping[int, str]:
        users = list(dict.fromkeys(user_id for user_id, _ in rows))
        outcome = upsert_people(tx, [Person(user_id=user_id) for user_id in users], self.source)
        ids = dict(zip(users, outcome.profile_ids, strict=True))
        events = [
            event._replace(profile_id=profile_id, identifier=("user_id", user_id))
            for user_id, event in rows
            if (profile_id := ids[user_id]) is not None
        ]
        inserted = record_events(tx, events, worked=True)
        self.report.created += inserted
        self.report.unchanged += len(rows) - inserted
        self.report.profiles_created += outcome.created
        return {}

    def opt_out_in(self, _cells: Cells) -> None:
        """None: rows of events state no consent."""


def _readable(cells: Cells, column: str | None, parse: Callable[[str], T]) -> T | None:
    """As `_read`, but None for an invalid cell."""
    try:
        return _read(cells, column, parse)
    except ValueError:
        return None


def _read(cells: Cells, column: str | None, parse: Callable[[str], T]) -> T | None:
    """The parsed cell; None if the map has no such column or the cell is empty."""
    text = cells[column] if column else ""
    if not text:
        return None
    try:
        return parse(text)
    except ValueError as error:
        kind = NoZone if isinstance(error, NoZone) else ValueError
        raise kind(f"{column}: {error}") from None


def _required(cells: Cells, column: str, parse: Callable[[str], T]) -> T:
    value = _read(cells, column, parse)
    if value is None:
        raise ValueError(f"{column}: the cell is empty")
    return value


def _name(text: str) -> str:
    """The name of a zone or language, which is not checked further."""
    check_length(text, LONGEST_NAME)
    return text


def _typed(
    cells: Cells, columns: Mapping[str, Column], mapping: PeopleMap | EventMap
) -> dict[str, Any]:
    values = {
        name: _read(cells, column.column, partial(mapping.value, column))
        for name, column in columns.items()
    }
    return {name: value for name, value in values.items() if value is not None}


def _platform(text: str) -> str:
    if text.casefold() not in ("ios", "android", "web"):
        raise ValueError(f"{text!r} is not a push platform; use ios, android or web")
    return text.casefold()
