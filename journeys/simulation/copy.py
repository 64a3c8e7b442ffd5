"""Copy what a simulation needs from a database into an embedded one in memory.

The source is only read, in one transaction, so the copy is the state of one moment. Ids stay the
same, so that draws by profile (experiment arms, the holdout) do too. Of the tables that grow with
time it copies only what decisions can still depend on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    and_,
    cast,
    false,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

from channels.messages import message_devices, messages
from channels.rules.caps import reach
from config.channels import channels
from config.clock.times import DAY, Instant
from config.database.arrays import any_of, one_of
from config.database.engine import Database, Tx
from config.policy import Policy
from config.timing import Timing
from journeys.definition.catalog import Catalog
from journeys.definition.journey import After, EventEntry, Version
from journeys.definition.steps import ExperimentStep
from journeys.engine.events import wakes
from journeys.enrollments import enrollments
from journeys.tables import (
    experiment_arms,
    journey_controls,
    journey_versions,
    passages,
    promotions,
    segment_members,
)
from profiles.bulk import in_slices
from profiles.identity.addresses import address_rows
from profiles.tables import (
    companies,
    consent_records,
    consents,
    events,
    held_out,
    held_out_addresses,
    preferences,
    profiles,
    trait_states,
)

# A customer's own weekly cap reaches this far.
_OWN_CAP = 9 * DAY
# Enrollments that entered so long ago explain no purchase that a simulation repeats.
_EXPLAINS = 90 * DAY
# Rows in one round trip, on PostgreSQL.
_ROUND_TRIP = 5000
# No other process reads the copy: claims never wait, so they need not be checked again.
TIMING = Timing(claim_is_fresh=float("inf"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyScope:
    """What a simulation may depend on.

    people: the ids of the profiles; None: all. now: the moment of the copy.
    """

    catalog: Catalog
    policy: Policy
    now: Instant
    people: Sequence[int] | None = None


@contextmanager
def snapshot(db: Database) -> Iterator[Tx]:
    """A transaction that sees the state of one moment and can't write."""
    with db.transaction(write=False, keep=False) as tx:
        if not tx.is_sqlite:
            tx.conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield tx


def copy(tx: Tx, scope: CopyScope) -> Database:
    """A database in memory with what the scope needs of the transaction's database.

    It belongs to the calling thread: another thread would see an empty one.
    """
    target = Database("sqlite://", now=scope.now, timing=TIMING, sole_user=True)
    with target.transaction() as copied:
        for table in SQLModel.metadata.sorted_tables:
            copied.conn.execute(CreateTable(table))
        for table, wanted in copied_tables(scope).items():
            for reading, given in _reading(table, wanted, scope.people):
                _write(copied.conn, table, tx.conn, reading, given)
        # Indexes are faster to create than to maintain while rows are inserted.
        for table in SQLModel.metadata.sorted_tables:
            for index in table.indexes:
                copied.conn.execute(CreateIndex(index))
        copied.conn.exec_driver_sql("ANALYZE")
    return target


def copy_again(source: Database) -> Database:
    """A second copy of a copy, for another run."""
    target = Database("sqlite://", now=source.now, timing=TIMING, sole_user=True)
    with source.transaction(write=False) as before, target.engine.connect() as conn:
        to = conn.connection.driver_connection
        assert to is not None
        from_ = before.conn.connection.driver_connection
        assert from_ is not None
        from_.backup(to)
    return target


def events_read(catalog: Catalog) -> set[str]:
    """The names of the events that entries, conditions and Send steps of any version, and computed
    traits, read."""
    versions = [one for name in catalog.journeys() for one in catalog.versions(name)]
    conditions = [one.condition for one in catalog.segments.values()]
    conditions += [one for version in versions for one in version.journey.conditions()]
    names = {name for condition in conditions for name in condition.event_names()}
    names |= catalog.traits.event_names()
    for version in versions:
        entry = version.journey.entry
        if isinstance(entry, EventEntry):
            names.add(entry.event)
        for node in version.journey.graph.values():
            names.update(wakes(version.journey, node.step))
        for step in version.journey.sends():
            for message in step.messages:
                if channels()[message.channel].session is not None:
                    names.update(f"{message.channel}_{one}" for one in ("replied", "started"))
    return names


def copied_tables(scope: CopyScope) -> dict[Table, ColumnElement[bool]]:
    """The rows to copy, by table. Tables that are not named stay empty."""
    reached = max(reach(scope.policy.caps), _OWN_CAP)
    current = enrollments.c.ended_at.is_(None)
    of_current = select(enrollments.c.id).where(current)
    counting = or_(
        messages.c.send_at > scope.now - reached,
        one_of(messages.c.state, ("planned", "sending")),
        messages.c.enrollment_id.in_(of_current),
    )
    stops = [name for name, channel in channels().items() if channel.has_stop]
    return {
        profiles: true(),
        **address_rows(),
        consents: true(),
        # What a START restores.
        consent_records: and_(
            consent_records.c.topic == "*", one_of(consent_records.c.channel, stops)
        ),
        preferences: true(),
        companies: true(),
        trait_states: true(),
        events: or_(
            one_of(events.c.name, sorted(events_read(scope.catalog))), events.c.worked_at.is_(None)
        ),
        enrollments: or_(current, _ended(scope)),
        messages: counting,
        message_devices: message_devices.c.message_id.in_(select(messages.c.id).where(counting)),
        passages: _arms(scope),
        experiment_arms: true(),
        promotions: true(),
        held_out: true(),
        held_out_addresses: true(),
        segment_members: true(),
        journey_versions: true(),
        journey_controls: true(),
    }


def _ended(scope: CopyScope) -> ColumnElement[bool]:
    """The ended enrollments that a re-entry rule asks for, and those that may explain purchases of
    the last weeks (stream.py).
    """
    c = enrollments.c
    found: list[ColumnElement[bool]] = [c.entered_at > scope.now - _EXPLAINS]
    for name, version in scope.catalog.current.items():
        again = version.journey.entry.again
        if again == "once":
            found.append(c.journey == name)
        elif isinstance(again, After):
            found.append(and_(c.journey == name, c.entered_at > scope.now - again.after))
    return or_(*found)


def _arms(scope: CopyScope) -> ColumnElement[bool]:
    """The passages through experiments, which keep the arms of profiles."""
    steps = {
        (name, step)
        for name in scope.catalog.journeys()
        for version in scope.catalog.versions(name)
        for step in _experiments(version)
    }
    if not steps:
        return false()
    return tuple_(passages.c.journey, passages.c.step).in_(sorted(steps))


def _experiments(version: Version) -> Iterator[str]:
    for name, node in version.journey.graph.items():
        if isinstance(node.step, ExperimentStep):
            yield name


def _reading(
    table: Table, wanted: ColumnElement[bool], people: Sequence[int] | None
) -> Iterator[tuple[Select[Any], dict[str, Any]]]:
    """Statements that read the rows, with JSON as text, and their parameters."""
    columns = [
        cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column
        for column in table.columns
    ]
    reading = select(*columns).where(wanted)
    owner = table.c.id if table is profiles else table.c.get("profile_id")
    if people is None or owner is None:
        yield reading, {}
        return
    for some in in_slices(people):
        yield reading.where(any_of(owner, "people")), {"people": some}


def _write(
    target: Connection, table: Table, source: Connection, reading: Select[Any], given: Any
) -> None:
    """Copy rows; on SQLite from cursor to cursor, since SQLAlchemy's rows would take most of the
    time.
    """
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    marks = ", ".join("?" * len(table.columns))
    writing = f'INSERT INTO "{table.name}" ({names}) VALUES ({marks})'  # noqa: S608  our own names
    driver: Any = target.connection.driver_connection
    if source.dialect.name == "sqlite":
        with source.execute(reading, given) as found:
            driver.executemany(writing, found.cursor)
        return
    # Of the statement: options of a connection stay, and a SAVEPOINT can't be streamed.
    with source.execute(reading, given, execution_options={"yield_per": _ROUND_TRIP}) as found:
        for some in found.partitions():
            driver.executemany(writing, some)
