"""Import customers and events from files. A stopped import can be repeated."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from config.clock.times import Instant, format_instant
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
from profiles.imports.columns import MAPS, Column, EventMap, PeopleMap, load_map
from profiles.imports.rows import FileRow, RefusedRows, open_rows
from profiles.imports.styles import find_styles
from profiles.imports.values import Style, read_boolean
from profiles.rules import DEFAULT_RULES, InputRules

CHUNK = 500  # rows in a transaction; on SQLite it holds the write lock for about 50 ms

Progress = Callable[[int, int], None]  # rows done, rows in the file
Cells = Mapping[str, str]  # the cells of a row by column
T = TypeVar("T")


# Rows that a dry run shows, and cells that the report shows of each column.
_FIRST_ROWS = 5
_EXAMPLES = 3


@dataclass(slots=True)
class UnreadableCells:
    """The values of one column without which rows were accepted. examples: place and reason."""

    rows: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """Counts of rows: read = created + updated + unchanged + refused.

    In a dry run nothing is written, and the rows that are not refused are in no other count.
    """

    dry_run: bool = False
    read: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    # Accepted without an invalid value; also written to the file of refused rows.
    taken_in_part: int = 0
    refused_file: Path | None = None
    refused_noes: int = 0  # refused rows whose opt-out was recorded
    refused_examples: list[str] = field(default_factory=list)
    # How the file was understood, with what the map says, in words.
    dialect: str = ""
    styles: dict[str, str] = field(default_factory=dict)  # in words, by column
    first_rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # of a dry run
    # Accepted rows with warnings:
    profiles_created: int = 0  # for events of unknown customers
    unknown_countries: Counter[str] = field(default_factory=Counter)  # by spelling
    invalid_zones: Counter[str] = field(default_factory=Counter)  # by spelling
    consent_overruled: int = 0  # statements of consent that a later one or a no overrules
    left_out: Counter[str] = field(default_factory=Counter)  # ignored values, by reason
    unreadable: dict[str, UnreadableCells] = field(default_factory=dict)  # by column


class _Faults(NamedTuple):
    """The faults of one row, each with its column in front."""

    refusing: list[str]
    left_out: list[tuple[str, str]]  # column and message

    @property
    def all(self) -> list[str]:
        return [*self.refusing, *(message for _, message in self.left_out)]


def import_file(
    db: Database,
    path: Path,
    *,
    map_file: Path | None = None,
    as_event: str | None = None,
    rules: InputRules = DEFAULT_RULES,
    dry_run: bool = False,
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
    dry_run: read and check every row and write nothing, neither to the database nor to the file of
        refused rows. It does not see which rows belong to two customers.
    progress: called after each chunk.

    Raises SegueError if the file or the map is invalid as a whole.
    """
    map_file = map_file or MAPS / ("orders.toml" if as_event else "customers.toml")
    report = ImportReport(dry_run=dry_run)
    source = f"import {path.name}"
    mapping: PeopleMap | EventMap = (
        load_map(map_file, EventMap) if as_event else load_map(map_file, PeopleMap)
    )
    country = mapping.country if isinstance(mapping, PeopleMap) else None
    names = list(mapping.names())
    file = open_rows(path, names, encoding=mapping.encoding, delimiter=mapping.delimiter)
    for name in names:
        if name not in file.columns:
            raise SegueError(
                f"{path} has no column {name!r}, which the column map {map_file} names; its "
                f"columns are: {', '.join(file.columns)}. Correct the map or use another one with "
                "--map"
            )
    styles, report.styles = find_styles(mapping, file, path, map_file)
    report.dialect = ", ".join(
        [
            file.dialect.in_words if file.dialect else "Parquet",
            *([f"times without a zone in {mapping.timezone}"] if mapping.timezone else []),
            *([f"phone numbers without a country in {country}"] if country else []),
        ]
    )
    job: _People | _Events
    if isinstance(mapping, EventMap):
        job = _Events(
            mapping=mapping,
            styles=styles,
            report=report,
            source=source,
            rules=rules,
            name=as_event or "",
        )
    else:
        job = _People(mapping=mapping, styles=styles, report=report, source=source, rules=rules)
    refusals = None if dry_run else RefusedRows(path, file)
    rows = file.rows()
    while chunk := list(islice(rows, CHUNK)):
        things, refused, left_out = _parse(job, chunk, file.columns)
        if refusals is not None:
            refused |= _write(db, job, things)
            refused = _take_opt_outs(db, job, chunk, refused, file.columns)
        in_part = {place: faults for place, faults in left_out.items() if place not in refused}
        where = {place: f"{file.unit} {row.line}" for place, row in enumerate(chunk)}
        for place, faults in in_part.items():
            _count(report, where[place], faults)
        reasons = refused | {
            place: "; ".join([*(why for _, why in faults), "the rest of the row was imported"])
            for place, faults in in_part.items()
        }
        if refusals is not None:
            refusals.write([(chunk[place], reasons[place]) for place in sorted(reasons)])
        few = islice(sorted(refused), _EXAMPLES - len(report.refused_examples))
        report.refused_examples += [f"{where[place]}: {refused[place]}" for place in few]
        first = islice(things.items(), _FIRST_ROWS - len(report.first_rows) if dry_run else 0)
        report.first_rows += [(where[place], job.in_words(thing)) for place, thing in first]
        report.read += len(chunk)
        report.refused += len(refused)
        report.taken_in_part += len(in_part)
        progress(report.read, file.total)
    if refusals is not None and (report.refused or report.taken_in_part):
        report.refused_file = refusals.path
    return report


def _parse(
    job: "_People | _Events", chunk: Sequence[FileRow], columns: Sequence[str]
) -> tuple[dict[int, Any], dict[int, str], dict[int, list[tuple[str, str]]]]:
    """Parse rows. Returns persons or events, reasons of refusals, and values that are left out.

    Each is by the place in the chunk; a value is its column and the reason.
    """
    things: dict[int, Any] = {}
    refused: dict[int, str] = {}
    left_out: dict[int, list[tuple[str, str]]] = {}
    for place, row in enumerate(chunk):
        if row.fault:
            refused[place] = row.fault
            continue
        faults = _Faults([], [])
        thing = job.parse(_cells(job, row, columns), faults)
        if faults.refusing:
            refused[place] = "; ".join(faults.all)
            continue
        things[place] = thing
        if faults.left_out:
            left_out[place] = faults.left_out
    return things, refused, left_out


def _write(db: Database, job: "_People | _Events", things: Mapping[int, Any]) -> dict[int, str]:
    """Write persons or events; returns the reasons of refusals by place."""
    if not things:
        return {}
    with db.transaction() as tx:
        late = job.write(tx, list(things.values()))
    places = list(things)
    return {places[index]: reason for index, reason in late.items()}


def _take_opt_outs(
    db: Database,
    job: "_People | _Events",
    chunk: Sequence[FileRow],
    refused: dict[int, str],
    columns: Sequence[str],
) -> dict[int, str]:
    """Record the opt-outs of refused rows; returns the reasons, with what was recorded."""
    noes = {
        place: no
        for place in refused
        if len(chunk[place].cells) == len(columns)
        and (no := job.opt_out_in(_cells(job, chunk[place], columns)))
    }
    if not noes:
        return refused
    with db.transaction() as tx:
        recorded = take_opt_outs(tx, noes, job.source)
    job.report.refused_noes += len(recorded)
    return refused | {place: f"{refused[place]}; {no}" for place, no in recorded.items()}


def _count(report: ImportReport, where: str, faults: Sequence[tuple[str, str]]) -> None:
    for column, message in faults:
        left_out = report.unreadable.setdefault(column, UnreadableCells())
        left_out.rows += 1
        if len(left_out.examples) < _EXAMPLES:
            left_out.examples.append(f"{where}: {message.removeprefix(f'{column}: ')}")


def _cells(job: "_People | _Events", row: FileRow, columns: Sequence[str]) -> Cells:
    return {name: job.mapping.cell(text) for name, text in zip(columns, row.cells, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _People:
    """Imports rows of customers."""

    mapping: PeopleMap
    styles: Mapping[str, Style]
    report: ImportReport
    source: str
    rules: InputRules

    def parse(self, cells: Cells, faults: _Faults) -> Person:
        """Parse a row, without the values that are added to the faults."""
        columns = self.mapping.columns
        nothing = self._meaningless_in(cells)
        cells = {**cells, **dict.fromkeys(nothing, "")}
        take = partial(_take, cells, faults.left_out)
        country = take(columns.country, country_code)
        home = country or (None if _cell(cells, columns.country) else self.mapping.country)
        zone = take(columns.timezone, _name)
        token = take(columns.push_token, normalise_id)
        platform = take(columns.push_platform, _platform)
        email = partial(normalise_email, lenient_dots=self.rules.lenient_dots)
        person = Person(
            user_id=_must(cells, faults, columns.user_id, normalise_id),
            anonymous_id=take(columns.anonymous_id, normalise_id),
            email=take(columns.email, email),
            phone=take(columns.phone, partial(normalise_phone, country=home)),
            push_tokens={token: platform} if token else {},
            country=country,
            timezone=zone,
            language=take(columns.language, _name),
            attributes=_typed(cells, self.mapping.attributes, self.mapping, self.styles, faults),
            consent={
                topic: granted
                for topic, column in self.mapping.topics()
                if (granted := _must(cells, faults, column, read_boolean)) is not None
            },
            seen_at=_must(cells, faults, columns.seen_at, self._instant),
        )
        if not person.keys and not faults.refusing:
            self._refuse_nobody(faults, nothing)
        if faults.refusing:
            return person
        self.report.left_out.update(nothing.values())
        if country is None and (written := _cell(cells, columns.country)):
            self.report.unknown_countries[written] += 1
        if zone and zone_name(zone) is None:
            self.report.invalid_zones[zone] += 1
        return person

    def _instant(self, text: str) -> Instant:
        column = self.mapping.columns.seen_at
        assert column is not None
        return self.mapping.instant(text, self.styles.get(column, Style()))

    def _refuse_nobody(self, faults: _Faults, nothing: Mapping[str, str]) -> None:
        """Refuse a row without an identifier, with what was wrong with those it has."""
        names = self._identifiers()
        wrong = [*nothing.values(), *(why for column, why in faults.left_out if column in names)]
        if wrong:
            faults.left_out[:] = [one for one in faults.left_out if one[0] not in names]
            faults.refusing.append(f"{'; '.join(wrong)}; there is no other identifier")
        else:
            faults.refusing.append(
                f"the row identifies no customer: {', '.join(names)}: "
                f"{'the cell is' if len(names) == 1 else 'the cells are'} empty"
            )

    def _identifiers(self) -> list[str]:
        columns = self.mapping.columns
        names = (
            *(columns.user_id, columns.anonymous_id),
            *(columns.email, columns.phone, columns.push_token),
        )
        return [name for name in names if name]

    def in_words(self, person: Person) -> dict[str, Any]:
        """What a row states, by name."""
        phone, consent = person.phone, person.consent
        stated = {
            "user_id": person.user_id,
            "anonymous_id": person.anonymous_id,
            "email": person.email,
            "phone": phone and phone.value,
            "push_token": next(iter(person.push_tokens), None),
            "country": person.country,
            "timezone": person.timezone,
            "language": person.language,
            "seen_at": None if person.seen_at is None else format_instant(person.seen_at),
            **{f"attributes.{name}": value for name, value in person.attributes.items()},
            **{f"consent.{on}.{topic}": yes for (on, topic), yes in consent.items()},
        }
        return {name: value for name, value in stated.items() if value is not None}

    def _meaningless_in(self, cells: Cells) -> dict[str, str]:
        """The columns of identifiers that have a placeholder, each with a message."""
        return {
            name: f"{name}: {cells[name]!r} is a placeholder"
            for name in self._identifiers()
            if cells[name] and cells[name] in self.rules.meaningless
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
            if _readable(cells, column, read_boolean) is False
        ]
        country = _readable(cells, columns.country, country_code)
        token = _readable(cells, columns.push_token, normalise_id)
        person = Person(
            user_id=_readable(cells, columns.user_id, normalise_id),
            anonymous_id=_readable(cells, columns.anonymous_id, normalise_id),
            email=_readable(
                cells, columns.email, partial(normalise_email, lenient_dots=self.rules.lenient_dots)
            ),
            phone=_readable(
                cells,
                columns.phone,
                partial(normalise_phone, country=country or self.mapping.country),
            ),
            push_tokens={token: None} if token else {},
        )
        person = without_meaningless(person, self.rules.meaningless)
        if not refuses or not person.keys:
            return None
        return No(
            person=person,
            refuses=refuses,
            said_at=_readable(cells, columns.seen_at, self._instant),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Events:
    """Imports rows of events, each with the user id of its customer."""

    mapping: EventMap
    styles: Mapping[str, Style]
    report: ImportReport
    source: str
    rules: InputRules
    name: str

    def parse(self, cells: Cells, faults: _Faults) -> tuple[str, NewEvent] | None:
        """Parse a row, without the properties that are added to the faults; None: it is refused."""
        columns = self.mapping.columns
        instant = partial(self.mapping.instant, style=self.styles.get(columns.occurred_at, Style()))
        needed = (columns.user_id, columns.occurred_at, columns.id)
        faults.refusing.extend(f"{name}: the cell is empty" for name in needed if not cells[name])
        user_id = _must(cells, faults, columns.user_id, normalise_id)
        occurred_at = _must(cells, faults, columns.occurred_at, instant)
        key = _must(cells, faults, columns.id, normalise_id)
        properties = _typed(cells, self.mapping.properties, self.mapping, self.styles, faults)
        if user_id and user_id in self.rules.meaningless:
            faults.refusing.append(f"{columns.user_id}: {user_id!r} is a placeholder")
        if user_id is None or occurred_at is None or key is None or faults.refusing:
            return None
        event = NewEvent(
            profile_id=0,  # set after the customer is looked up
            name=self.name,
            occurred_at=occurred_at,
            dedupe_key=key,
            properties=properties,
        )
        return user_id, event

    def in_words(self, row: tuple[str, NewEvent]) -> dict[str, Any]:
        """What a row states, by name."""
        user_id, event = row
        return {
            "user_id": user_id,
            "occurred_at": format_instant(event.occurred_at),
            "id": event.dedupe_key,
            **{f"properties.{name}": value for name, value in event.properties.items()},
        }

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


def _cell(cells: Cells, column: str | None) -> str:
    """The cell; "" if the map has no such column."""
    return cells[column] if column else ""


def _readable(cells: Cells, column: str | None, parse: Callable[[str], T]) -> T | None:
    """The parsed cell; None if the map has no such column, or the cell is empty or invalid."""
    return _take(cells, [], column, parse)


def _take(
    cells: Cells,
    faults: list[tuple[str, str]],
    column: str | None,
    parse: Callable[[str], T],
) -> T | None:
    """As `_readable`; adds the column and the reason of an invalid cell to the faults."""
    text = _cell(cells, column)
    if not text or column is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        faults.append((column, f"{column}: {error}"))
        return None


def _must(cells: Cells, faults: _Faults, column: str | None, parse: Callable[[str], T]) -> T | None:
    """As `_take`, for a column whose invalid cells refuse the row."""
    found: list[tuple[str, str]] = []
    value = _take(cells, found, column, parse)
    faults.refusing.extend(message for _, message in found)
    return value


def _name(text: str) -> str:
    """The name of a zone or language, which is not checked further."""
    check_length(text, LONGEST_NAME)
    return text


def _typed(
    cells: Cells,
    columns: Mapping[str, Column],
    mapping: PeopleMap | EventMap,
    styles: Mapping[str, Style],
    faults: _Faults,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, (column, kind) in ((name, (one.column, one.type)) for name, one in columns.items()):
        style = styles.get(column, Style())
        value = _take(cells, faults.left_out, column, partial(mapping.value, kind, style=style))
        if value is not None:
            values[name] = value
    return values


def _platform(text: str) -> str:
    if text.casefold() not in ("ios", "android", "web"):
        raise ValueError(f"{text!r} is not a push platform; use ios, android or web")
    return text.casefold()
