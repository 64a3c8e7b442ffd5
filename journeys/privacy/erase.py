"""Erase a person: one transaction after which no table leads to them.

Enrollments, messages, passages and what reports read of events are replaced by rows of nobody, so
that journeys' counts stay. All else is deleted. A keyed hash of each address stays, so that nothing
is sent to it until a newer opt-in. Locks in the common order: identities, events, enrollments,
profiles, messages.

docs/decisions/0038-erasure.md has the reasons.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Delete,
    Select,
    Table,
    Text,
    bindparam,
    delete,
    func,
    literal,
    not_,
    or_,
    select,
)

from channels.messages import nameless as message_rows
from channels.messages import transitions as message_transitions
from config.access.staff_acts import unlink_acts
from config.channels import channels
from config.database.arrays import InsertRows, any_of, one_of
from config.database.engine import Tx
from config.settings import Settings
from journeys.definition.catalog import Catalog
from journeys.engine.exits import end, goal_reached
from journeys.enrollments import nameless as enrollment_rows
from journeys.enrollments.states import ERASED_REASON
from journeys.privacy.conditions import THEIRS, condition_of, parameters_of
from journeys.privacy.nameless import (
    Renumbered,
    ReportedProperties,
    nameless_consent_record,
    nameless_enrollment,
    nameless_event,
    nameless_message,
    nameless_passage,
    nameless_past_message,
    new_number,
    personal_texts,
)
from journeys.privacy.people import DataSubject
from journeys.privacy.registry import PERSONAL
from journeys.privacy.requests import record_request
from journeys.tables import experiment_arms, passages
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles, new_row_ids
from profiles.conditions.json_path import Place
from profiles.identity.erased import ErasedAddresses, remember
from profiles.identity.holdout import is_address
from profiles.identity.merge import lock_events
from profiles.identity.owners import lock_identities
from profiles.tables import (
    consent_records,
    events,
    profiles,
)

_PASSAGE_TABLES: tuple[Table, ...] = (passages, experiment_arms)
# channels/messages/ and journeys/enrollments/ alone write these.
_LIFECYCLES = {"message", "past_message", "message_device", "enrollment"}


_COUNT: Mapping[str, Select[tuple[int]]] = {
    name: select(func.count()).select_from(table).where(condition_of(table))
    for name, table in THEIRS.items()
}
_DELETE: Mapping[str, Delete] = {
    name: delete(table).where(condition_of(table))
    for name, table in THEIRS.items()
    if name not in _LIFECYCLES and PERSONAL[name].erasure != "unlinked"
}
_v, _n = events.c, consent_records.c
_REPORTED_EVENTS = (
    select(events)
    .where(any_of(_v.profile_id, "profiles"), any_of(_v.name, "names"))
    .order_by(_v.id)
)
_TEXTS = select(profiles.c.attributes).where(any_of(profiles.c.id, "profiles"))
_NOES = (
    select(consent_records)
    .where(any_of(_n.profile_id, "profiles"), _n.granted.is_(False))
    .order_by(_n.id)
)
_PASSAGES = [
    (table, select(table).where(any_of(table.c.profile_id, "profiles")), InsertRows(*table.c))
    for table in _PASSAGE_TABLES
]
_INSERT_EVENTS = InsertRows(*_v)
_NOES_COLUMNS = [column for column in _n if column.name != "id"]
_INSERT_NOES = InsertRows(*_NOES_COLUMNS)
_CLICKS = [f"{channel}_clicked" for channel in channels()]


@lru_cache
def _shared(sqlite: bool) -> Select[tuple[int]]:
    """Whether somebody else clicked a URL, whatever its query."""
    url = Place(sqlite=sqlite, document=_v.properties, members=("url",)).value("")
    of = bindparam("url", type_=Text)
    return (
        select(literal(1))
        .where(
            one_of(_v.name, _CLICKS),
            not_(any_of(_v.profile_id, "profiles")),
            or_(url == of, func.substr(url, 1, func.length(of) + 1).in_([of + "?", of + "#"])),
        )
        .limit(1)
    )


class Erased(NamedTuple):
    """What an erasure removes, or would remove: rows by table, without tables that have none."""

    profile_id: int
    counts: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """As `segue erase --json` prints it."""
        return {"customer": self.profile_id, "rows": dict(self.counts)}


def count_rows(tx: Tx, person: DataSubject) -> dict[str, int]:
    """The rows about a person, by table; tables without any are left out."""
    given = parameters_of(person)
    counts = {name: tx.conn.execute(one, given).scalar_one() for name, one in _COUNT.items()}
    return {name: number for name, number in counts.items() if number}


def erase(
    tx: Tx,
    find: Callable[[Tx], DataSubject],
    *,
    catalog: Catalog,
    settings: Settings,
    erased: ErasedAddresses,
    asked_by: str,
) -> Erased:
    """Erase the person whom `find` names, in this transaction, which has done nothing before.

    Enrollments that are in progress end, planned messages are cancelled. A message that is being
    handed over may still arrive.
    """
    if tx.is_sqlite:
        # Freed pages keep their content otherwise.
        tx.conn.exec_driver_sql("PRAGMA secure_delete = ON")
    lock_identities(tx)
    person = find(tx)
    profile_ids = person.every
    catalog.catch_up(tx)
    lock_events(tx, profile_ids)
    enrollment_rows.lock_enrollments(tx, profile_ids)
    lock_profiles(tx, profile_ids)
    message_rows.lock_messages(tx, profile_ids)
    tx.buckets = buckets_of(profile_ids)
    counts = count_rows(tx, person)
    _end_all(tx, catalog, profile_ids)
    _keep_nameless(tx, person, settings)
    given = parameters_of(person)
    for statement in _DELETE.values():
        tx.conn.execute(statement, given)
    message_rows.remove_messages(tx, profile_ids)
    enrollment_rows.remove_enrollments(tx, profile_ids)
    unlink_acts(tx, profile_ids)
    remember(tx, erased, [key for key in person.identifiers if is_address(key)])
    record_request(
        tx, erased, "erase", asked_by=asked_by, identifiers=person.identifiers, counts=counts
    )
    return Erased(person.profile_id, counts)


def _end_all(tx: Tx, catalog: Catalog, profile_ids: Collection[int]) -> None:
    """Count goals that were reached, end enrollments, and cancel planned messages."""
    for journey in catalog.journeys():
        for version in catalog.versions(journey):
            goal_reached(tx, version, profile_ids)
    current = [
        row["id"]
        for row in enrollment_rows.lock_enrollments(tx, profile_ids)
        if row["ended_at"] is None
    ]
    end(tx, current, ERASED_REASON)
    planned = [
        row["id"]
        for row in message_rows.lock_messages(tx, profile_ids)
        if row["state"] == "planned"
    ]
    message_transitions.cancel(tx, dict.fromkeys(planned, ERASED_REASON))


def _keep_nameless(tx: Tx, person: DataSubject, settings: Settings) -> None:
    """Insert the rows that reports count."""
    theirs = {"profiles": person.every}
    reported = ReportedProperties.of(settings)
    people = enrollment_rows.lock_enrollments(tx, person.every)
    sent = message_rows.lock_messages(tx, person.every)
    past = message_rows.past_messages_of(tx, person.every)
    named = {**theirs, "names": list(reported.paths)}
    happened = _rows(tx, _REPORTED_EVENTS, named)
    new = Renumbered(
        profile_id=new_number(),
        enrollments=_numbered(people, enrollment_rows.new_ids(tx, len(people))),
        # Past messages get numbers that no message ever has.
        messages={
            **_numbered(sent, message_rows.new_ids(tx, len(sent))),
            **_numbered(past, sorted(new_number() for _ in past)),
        },
        events=_numbered(happened, new_row_ids(tx, events, len(happened))),
    )
    attributes = tx.conn.execute(_TEXTS, theirs).scalars().all()
    texts = personal_texts([*attributes, [value for _, value in person.identifiers]])
    enrollment_rows.insert_nameless(tx, [nameless_enrollment(row, new, texts) for row in people])
    message_rows.insert_nameless(
        tx,
        [nameless_message(row, new, texts) for row in sent],
        [nameless_past_message(row, new) for row in past],
    )
    for table, found, insert in _PASSAGES:
        rows = [nameless_passage(row, new) for row in _rows(tx, found, theirs)]
        _insert(tx, insert, table.c, rows)
    is_shared = _sharing(tx, person)
    rows = [nameless_event(row, new, reported, is_shared) for row in happened]
    _insert(tx, _INSERT_EVENTS, _v, rows)
    noes = [nameless_consent_record(row, new) for row in _rows(tx, _NOES, theirs)]
    _insert(tx, _INSERT_NOES, _NOES_COLUMNS, noes)


def _rows(tx: Tx, found: Select[Any], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in tx.conn.execute(found, given).mappings()]


def _numbered(rows: Sequence[Mapping[str, Any]], ids: Sequence[int]) -> dict[int, int]:
    """The new ids by the old ones."""
    return dict(zip((row["id"] for row in rows), ids, strict=True))


def _insert(
    tx: Tx, insert: InsertRows, columns: Iterable[Column[Any]], rows: Sequence[Mapping[str, Any]]
) -> None:
    insert(tx.conn, [tuple(row[column.name] for column in columns) for row in rows])


def _sharing(tx: Tx, person: DataSubject) -> Callable[[str], bool]:
    """A function that says whether somebody else clicked a URL without its query."""
    known: dict[str, bool] = {}

    def is_shared(url: str) -> bool:
        if url not in known:
            found = tx.conn.execute(
                _shared(tx.is_sqlite), {"url": url, "profiles": person.every}
            ).first()
            known[url] = found is not None
        return known[url]

    return is_shared
