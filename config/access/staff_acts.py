"""The log of the staff site: every look at a customer and every act, with who and when."""

from collections.abc import Collection, Iterator
from typing import ClassVar, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Integer,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlmodel import Field, SQLModel

from config.clock.times import Instant
from config.database.arrays import any_of
from config.database.engine import Tx, table_of

StaffActName = Literal[
    "added a user",
    "removed a user",
    "set a password",
    "changed a role",
    "set a time zone",
    "signed in",
    "signed out",
    "changed the password",
    "looked at a customer",
    "previewed a message",
    "sent a test",
    "launched",
    "tried a launch",
    "simulated",
    "scheduled",
    "removed a schedule",
    "cancelled a run",
    "promoted an arm",
    "paused",
    "resumed",
    "stopped",
    "approved",
    "rejected",
    "exported a customer",
    "erased a customer",
    "undid a join",
]
# Who acts by `segue staff` on the command line.
COMMAND_LINE = "command line"


class StaffActRow(SQLModel, table=True):
    """One act of a user of the staff site. Retention deletes old rows; an erasure
    removes the customer's number."""

    __tablename__: ClassVar[str] = "staff_act"

    id: int = Field(
        sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True)
    )
    at: Instant = Field(sa_type=BigInteger, index=True)
    name: str = Field(description="of the user")
    act: str = Field(description="StaffActName")
    profile_id: int | None = Field(
        default=None, sa_type=BigInteger, index=True, description="the customer, if it is about one"
    )
    about: str = Field(default="", description="the journey, launch or user that it is about")


_acts = table_of(StaffActRow)
_c = _acts.c
_INSERT = insert(_acts)
_LATEST = (
    select(_c.id, _c.at, _c.name, _c.act, _c.profile_id, _c.about)
    .where(_c.id < bindparam("before", type_=BigInteger))
    .order_by(_c.id.desc())
    .limit(bindparam("most", type_=BigInteger))
)
_AFTER_ALL = 2**62
_SINCE = (
    select(func.count())
    .select_from(_acts)
    .where(
        _c.at >= bindparam("since", type_=BigInteger),
        _c.name == bindparam("of_name"),
        _c.act == bindparam("of_act"),
    )
)
_UNLINK = update(_acts).where(any_of(_c.profile_id, "profiles")).values(profile_id=None)
_DELETE_OLD = delete(_acts).where(
    _c.id.in_(
        select(_c.id)
        .where(_c.at < bindparam("before", type_=BigInteger))
        .order_by(_c.at)
        .limit(bindparam("most", type_=BigInteger))
    )
)


class StaffAct(NamedTuple):
    """An act as the log shows it."""

    id: int
    at: Instant
    name: str
    act: str
    profile_id: int | None
    about: str


def record_act(
    tx: Tx, name: str, act: StaffActName, *, profile_id: int | None = None, about: str = ""
) -> None:
    """Record an act in the transaction that does it."""
    row = {"at": tx.now, "name": name, "act": act, "profile_id": profile_id, "about": about}
    tx.conn.execute(_INSERT, row)


def acts_since(tx: Tx, name: str, act: StaffActName, since: Instant) -> int:
    """How often a user has done something from a time on."""
    given = {"of_name": name, "of_act": act, "since": since}
    return tx.conn.execute(_SINCE, given).scalar_one()


def delete_acts(tx: Tx, before: Instant, most: int) -> int:
    """Delete at most `most` acts from before a time, the oldest first; returns how many."""
    return tx.conn.execute(_DELETE_OLD, {"before": before, "most": most}).rowcount


def unlink_acts(tx: Tx, profile_ids: Collection[int]) -> None:
    """Keep the acts about these customers without their numbers."""
    tx.conn.execute(_UNLINK, {"profiles": profile_ids})


def latest_acts(tx: Tx, most: int, before: int | None = None) -> Iterator[StaffAct]:
    """The latest acts, newest first. before: only those with a lower id."""
    given = {"most": most, "before": _AFTER_ALL if before is None else before}
    return map(StaffAct._make, tx.conn.execute(_LATEST, given))
