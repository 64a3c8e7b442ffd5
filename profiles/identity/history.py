"""The history of joined profiles: what each was before, their joins, and what was said since.

A profile has a history from its first join on. `replay` computes from it what each customer would
be without some of the joins. docs/decisions/0039-joins-have-limits-and-are-undone.md
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import select, update

from config.clock.times import Instant
from config.database.arrays import InsertRows, any_of, rows_of
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.identity.mergers import Merger, UsableParts, repoint
from profiles.identity.person import Email, Key, Person
from profiles.identity.phones import Phone
from profiles.tables import identity_records

RecordKind = Literal["start", "join", "said"]

_r = identity_records.c
_WRITTEN = (
    *(_r.profile_id, _r.bucket, _r.kind, _r.at, _r.origin_id, _r.from_id, _r.into_id),
    *(_r.from_origin, _r.into_origin, _r.why, _r.source, _r.data),
)
_INSERT = InsertRows(*_WRITTEN)
_READ = (*(_r.id, _r.undone_at), *_WRITTEN)
_HISTORY = select(*_READ).where(any_of(_r.profile_id, "profiles")).order_by(_r.id)
_MOVED = rows_of("moved", _r.id, _r.profile_id, _r.bucket)
_MOVE = (
    update(identity_records)
    .where(_r.id == _MOVED.c.id)
    .values(profile_id=_MOVED.c.profile_id, bucket=_MOVED.c.bucket)
)
_DATA = rows_of("changed", _r.id, _r.data)
_CHANGE = update(identity_records).where(_r.id == _DATA.c.id).values(data=_DATA.c.data)


class HistoryRecord(NamedTuple):
    """A row of `identity_record`. The meaning of `data` depends on the kind.

    start: what a profile was before its first join: `profile`, `identifiers` and `in_use`,
    `consents` and `withdrawn`.
    join: `moved`, as in profiles/identity/merge.py, and `share`, the usable parts.
    said: a `Person`.
    """

    id: int
    undone_at: Instant | None
    profile_id: int
    bucket: int
    kind: RecordKind
    at: Instant
    origin_id: int | None
    from_id: int | None
    into_id: int | None
    from_origin: int | None
    into_origin: int | None
    why: str | None
    source: str | None
    data: dict[str, Any]

    @property
    def edge(self) -> tuple[int, int]:
        """The two origins that a join links."""
        assert self.from_origin is not None
        assert self.into_origin is not None
        return self.from_origin, self.into_origin


def history_of(tx: Tx, profile_id: int) -> list[HistoryRecord]:
    """The history of a profile and of those that joined it, oldest first."""
    found = tx.conn.execute(_HISTORY, {"profiles": [profile_id]})
    return [HistoryRecord._make(row) for row in found]


def write_starts(tx: Tx, starts: Mapping[int, tuple[int, Mapping[str, Any]]]) -> None:
    """Record what profiles were before their first join: by their id, its holder now and the
    data."""
    _INSERT(
        tx.conn,
        [
            (
                *(holder, bucket_of(holder), "start", tx.now, origin),
                *[None] * 6,
                data,
            )
            for origin, (holder, data) in starts.items()
        ],
    )


def write_joins(
    tx: Tx,
    mergers: Sequence[Merger],
    edges: Mapping[int, tuple[int, int]],
    moved: Mapping[int, Mapping[str, Any]],
) -> None:
    """Record joins, and give the histories of the merged profiles to those that stay.

    edges, moved: by the id of the profile that is removed.
    """
    repoint(tx, identity_records, mergers)
    _INSERT(
        tx.conn,
        [
            (
                *(one.into_id, bucket_of(one.into_id), "join", tx.now, None),
                *(one.from_id, one.into_id, *edges[one.from_id], one.why, one.source),
                {"moved": moved[one.from_id], "share": pack_share(one.share)},
            )
            for one in mergers
        ],
    )


def write_statements(tx: Tx, said: Sequence[tuple[int, int, Person]]) -> None:
    """Record statements about joined profiles: the profile, the origin, and what was said."""
    _INSERT(
        tx.conn,
        [
            (
                *(profile_id, bucket_of(profile_id), "said", tx.now, origin),
                *[None] * 6,
                pack_person(person),
            )
            for profile_id, origin, person in said
        ],
    )


def move_records(tx: Tx, ids: Collection[int], profile_id: int) -> None:
    """Give records to another profile."""
    if ids:
        rows = [(one, profile_id, bucket_of(profile_id)) for one in ids]
        tx.conn.execute(_MOVE, {"moved": rows})


def change_data(tx: Tx, changed: Mapping[int, Mapping[str, Any]]) -> None:
    """Replace the data of records, by their id."""
    if changed:
        tx.conn.execute(_CHANGE, {"changed": list(changed.items())})


# JSON -----------------------------------------------------------------------------------------

_PLAIN = ("user_id", "anonymous_id", "email", "country", "timezone", "language", "seen_at")


def pack_person(person: Person) -> dict[str, Any]:
    """A person as JSON."""
    packed: dict[str, Any] = {
        name: value for name in _PLAIN if (value := getattr(person, name)) is not None
    }
    if person.phone is not None:
        packed["phone"] = [person.phone.value, person.phone.country]
    packed["push_tokens"] = dict(person.push_tokens)
    packed["attributes"] = dict(person.attributes)
    packed["consent"] = [[*what, granted] for what, granted in person.consent.items()]
    packed["removed"] = sorted(person.removed)
    packed["removed_tokens"] = sorted(person.removed_tokens)
    return packed


def read_stored_person(packed: Mapping[str, Any]) -> Person:
    """The person that `pack_person` packed."""
    phone = packed.get("phone")
    email = packed.get("email")
    return Person(
        user_id=packed.get("user_id"),
        anonymous_id=packed.get("anonymous_id"),
        email=None if email is None else Email(email),
        phone=None if phone is None else Phone(*phone),
        push_tokens=packed["push_tokens"],
        country=packed.get("country"),
        timezone=packed.get("timezone"),
        language=packed.get("language"),
        attributes=packed["attributes"],
        consent={(channel, topic): granted for channel, topic, granted in packed["consent"]},
        removed=frozenset(packed["removed"]),
        removed_tokens=frozenset(packed["removed_tokens"]),
        seen_at=packed.get("seen_at"),
    )


def pack_share(share: UsableParts | None) -> dict[str, Any] | None:
    """The usable parts of a join by address as JSON."""
    if share is None:
        return None
    return {
        "addresses": sorted(share.addresses),
        "yes_on": sorted(share.yes_on),
        "verified": share.verified,
    }


def read_share(packed: Mapping[str, Any] | None) -> UsableParts | None:
    """The usable parts that `pack_share` packed."""
    if packed is None:
        return None
    return UsableParts(
        frozenset((kind, value) for kind, value in packed["addresses"]),
        frozenset(packed["yes_on"]),
        packed["verified"],
    )


def key_rows(rows: Sequence[Mapping[str, Any]]) -> dict[Key, dict[str, Any]]:
    """Rows of identifiers by key."""
    return {(row["kind"], row["value"]): dict(row) for row in rows}
