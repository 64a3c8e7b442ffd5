"""Mergers of profiles, and the statements on tables that all parts of a merge use."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Delete,
    Integer,
    Select,
    Table,
    Update,
    bindparam,
    column,
    delete,
    select,
    update,
)

from config.channels import ChannelName
from config.database.arrays import any_of, rows_of
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.identity.person import Key
from profiles.tables import profiles


@dataclass(frozen=True, slots=True)
class UsableParts:
    """The parts of a profile that become usable after an address joins it to another one.

    addresses: the addresses that were named; the others are retired.
    yes_on: the channels on which its opt-ins count. Opt-outs always count.
    verified: whether calls with its anonymous ids can change the other profile. If not, they only
    add events.
    """

    addresses: frozenset[Key]
    yes_on: frozenset[ChannelName]
    verified: bool

    def within(self, other: "UsableParts") -> "UsableParts":
        """The usable parts after an address joins the other profile to a third one."""
        return UsableParts(
            self.addresses & other.addresses,
            self.yes_on & other.yes_on,
            self.verified and other.verified,
        )

    def allows(self, granted: bool | None, channel: str) -> bool:
        """Whether a consent (None: unset) counts for the other profile."""
        return granted is not True or channel in self.yes_on


@dataclass(frozen=True, slots=True, kw_only=True)
class Merger:
    """A merge of one profile into another.

    why: what joined them. share: the usable parts if an address joined them; None: ids did, and all
    of it is usable. via: the two identifiers that linked them, of the profile that is removed
    first; None: they were joined as wholes. source: who joined them.
    """

    from_id: int
    into_id: int
    why: str
    share: UsableParts | None = None
    via: tuple[Key, Key] | None = field(default=None, compare=False)
    source: str = field(default="calls", compare=False)


Notes = Mapping[int, dict[str, Any]]  # by the id of the profile that is removed


def firsts(mergers: Sequence[Merger]) -> list[Merger]:
    """The first merger of each profile that stays."""
    return list({merger.into_id: merger for merger in reversed(mergers)}.values())


def repoint(tx: Tx, table: Table, mergers: Sequence[Merger]) -> dict[int, list[Any]]:
    """Move the rows of a table to the other profile. Returns their keys by the previous profile.

    The key of a row is its `id`, or else its primary key without the bucket.
    """
    moved: dict[int, list[Any]] = {merger.from_id: [] for merger in mergers}
    for whose, *key in tx.conn.execute(_keys_of(table), {"profiles": moved}):
        moved[whose].append(key[0] if len(key) == 1 else key)
    if any(moved.values()):
        pairs = [(merger.from_id, merger.into_id, bucket_of(merger.into_id)) for merger in mergers]
        tx.conn.execute(_repointing(table), {"mergers": pairs})
    return moved


def move_rows(
    tx: Tx, table: Table, column: str, values: Collection[int], from_id: int, to: int
) -> None:
    """Give rows of one profile to another one: those with these values in a column."""
    if values:
        given = {"from_id": from_id, "to_id": to, "to_bucket": bucket_of(to), "these": values}
        tx.conn.execute(_moving(table, column), given)


def rows_by_profile(
    tx: Tx, table: Table, mergers: Sequence[Merger]
) -> dict[int, list[dict[str, Any]]]:
    """The rows of the mergers' profiles in a table, by profile."""
    ids = {one for merger in mergers for one in (merger.from_id, merger.into_id)}
    found: dict[int, list[dict[str, Any]]] = {profile_id: [] for profile_id in ids}
    whose = _profile_of(table).name
    for row in tx.conn.execute(_rows(table), {"profiles": ids}).mappings():
        found[row[whose]].append(dict(row))
    return found


def delete_rows(tx: Tx, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Delete the rows with the primary keys of `rows`; missing ones are ignored."""
    if rows:
        keys = [one.name for one in _key_of(table)]
        deleted = [{f"of_{name}": row[name] for name in keys} for row in rows]
        tx.conn.execute(_deletion(table), deleted)


def _profile_of(table: Table) -> Column[Any]:
    return table.c.id if table is profiles else table.c.profile_id


def _key_of(table: Table) -> list[Column[Any]]:
    """The primary key without the bucket, which is derived from it."""
    return [one for one in table.primary_key if one.name != "bucket"]


@cache
def _rows(table: Table) -> Select[Any]:
    return select(table).where(any_of(_profile_of(table), "profiles"))


@cache
def _keys_of(table: Table) -> Select[Any]:
    keys = [table.c.id] if "id" in table.c else _key_of(table)
    return select(table.c.profile_id.label("whose"), *keys).where(
        any_of(table.c.profile_id, "profiles")
    )


@cache
def _repointing(table: Table) -> Update:
    pairs = rows_of(
        "mergers", column("from_id", Integer), column("into_id", Integer), column("bucket", Integer)
    )
    return (
        update(table)
        .where(table.c.profile_id == pairs.c.from_id)
        .values(profile_id=pairs.c.into_id, bucket=pairs.c.bucket)
    )


@cache
def _moving(table: Table, name: str) -> Update:
    return (
        update(table)
        .where(
            table.c.profile_id == bindparam("from_id", type_=BigInteger),
            any_of(table.c[name], "these"),
        )
        .values(profile_id=bindparam("to_id"), bucket=bindparam("to_bucket"))
    )


@cache
def _deletion(table: Table) -> Delete:
    return delete(table).where(*(one == bindparam(f"of_{one.name}") for one in _key_of(table)))
