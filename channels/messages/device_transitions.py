"""All statements that write a push on a device: one function for each transition.

As in transitions.py, each function changes only rows in a state from which its transition is
allowed (`DEVICE_ALLOWED`), and returns the number of changed rows. The caller has locked the
messages. channels/outbox/devices.py derives the state of the message.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Literal, NamedTuple

from sqlalchemy import (
    Boolean,
    Executable,
    Text,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from channels.messages.states import DEVICE_ALLOWED, REPORTED, Reported, may_begin
from channels.messages.table import message_devices
from config.clock.times import Instant
from config.database.arrays import any_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.identity.mergers import Merger, move_rows, repoint

_c = message_devices.c


_before = partial(may_begin, _c.state, DEVICE_ALLOWED)


class DeviceClaim(NamedTuple):
    """The claim of a push on one device. attempts: of the message, including this one."""

    message_id: int
    token: str
    profile_id: int
    attempts: int
    not_after: Instant


class DeviceOutcome(NamedTuple):
    """The outcome of a hand-over to one device. retry_at: the earliest retry, with `later`."""

    message_id: int
    token: str
    state: Literal["sent", "failed", "unknown", "later"]
    reason: str | None
    attempts: int
    retry_at: Instant | None
    provider_id: str | None


class DeviceReport(NamedTuple):
    """A provider's report on a push on one device."""

    message_id: int
    token: str
    reason: str | None
    provider_id: str | None


class DevicesClaimed(NamedTuple):
    """number: of the devices. left: the messages of which several devices were `later` or one that
    is not claimed is.
    """

    number: int
    left: set[int]


_CLAIMED = ("message_id", "token", "profile_id", "bucket", "state", "attempts", "not_after")
_claims = rows_of("claims", *(_c[name] for name in _CLAIMED))


# As text, because SQLAlchemy leaves out the names of tables in RETURNING, in subqueries too.
_OTHERS_LEFT = literal_column(
    "EXISTS (SELECT 1 FROM message_device AS other"
    " WHERE other.message_id = message_device.message_id"
    " AND other.bucket = message_device.bucket"
    " AND other.token <> message_device.token AND other.state = 'later')",
    Boolean,
)


def _claiming(insert: sqlite.Insert | postgresql.Insert) -> Executable:
    # Without a WHERE, SQLite reads the ON of ON CONFLICT as that of a join.
    rows = select(_claims).where(true())
    inserting = insert.from_select(_CLAIMED, rows, include_defaults=False)
    new = insert.excluded
    return inserting.on_conflict_do_update(
        index_elements=list(message_devices.primary_key),
        set_={
            "profile_id": new.profile_id,
            "state": new.state,
            "reason": None,
            "attempts": new.attempts,
            "not_after": new.not_after,
            "retry_at": None,
        },
        where=_before("claim"),
    ).returning(_c.message_id, _OTHERS_LEFT)


_CLAIM = {
    "sqlite": _claiming(sqlite.insert(message_devices)),
    "postgresql": _claiming(postgresql.insert(message_devices)),
}
_DROP = (
    update(message_devices)
    .where(any_of(_c.message_id, "messages"), in_buckets(_c.bucket))
    .values(
        state="dropped",
        reason=func.coalesce(bindparam("why", type_=Text), _c.reason),
        not_after=None,
        retry_at=None,
    )
)
_DROP_WAITING = _DROP.where(_c.state == "later")
_DROP_ALL = _DROP.where(_before("drop"))
_one = and_(
    _c.message_id == bindparam("message"), _c.token == bindparam("device"), in_buckets(_c.bucket)
)
_RECORD = (
    update(message_devices)
    .where(_one, _before("record"))
    .values(
        **{name: bindparam(name) for name in DeviceOutcome._fields[2:]},
        not_after=None,
    )
)
_LOSE = (
    update(message_devices)
    .where(any_of(_c.message_id, "messages"), _before("lose"), _c.not_after < bindparam("before"))
    .values(state="unknown", reason=bindparam("why"), not_after=None)
)
_not_handed_over = or_(_c.state == "later", _c.state == "dropped")
_REPORT = {
    state: update(message_devices)
    .where(_one, _before("report", state), or_(~_not_handed_over, _c.attempts > 0))
    .values(
        state=state,
        reason=bindparam("why"),
        provider_id=func.coalesce(_c.provider_id, bindparam("named", type_=Text)),
        not_after=None,
        retry_at=None,
    )
    for state in REPORTED
}


def claim(tx: Tx, devices: Sequence[DeviceClaim]) -> DevicesClaimed:
    """Claim devices; a row of an earlier attempt is updated. One statement."""
    rows = [
        (
            *(one.message_id, one.token, one.profile_id),
            *(bucket_of(one.profile_id), "sending", one.attempts, one.not_after),
        )
        for one in devices
    ]
    claimed = tx.conn.execute(_CLAIM[tx.conn.dialect.name], {"claims": rows}).all() if rows else []
    return DevicesClaimed(len(claimed), {message_id for message_id, left in claimed if left})


def drop(
    tx: Tx, message_ids: Collection[int], reason: str | None = None, *, claimed: bool = False
) -> int:
    """Drop the devices of these messages that wait for a retry.

    Parameters
    ----------
    reason: None keeps the previous reason. claimed: also drop claimed devices.
    """
    given = {"messages": message_ids, "why": reason, "buckets": tx.buckets}
    return tx.write(_DROP_ALL if claimed else _DROP_WAITING, given)


def record(tx: Tx, outcomes: Sequence[DeviceOutcome]) -> int:
    """Write outcomes of claimed devices. A report that arrived earlier is not overwritten."""
    rows = [
        {
            "message": one.message_id,
            "device": one.token,
            "state": one.state,
            "reason": one.reason,
            "attempts": one.attempts,
            "retry_at": one.retry_at,
            "provider_id": one.provider_id,
            "buckets": tx.buckets,
        }
        for one in outcomes
    ]
    return tx.write(_RECORD, *rows)


def lose(tx: Tx, message_ids: Collection[int], before: Instant, reason: str) -> int:
    """Mark devices `unknown` whose claim ended before `before`: they may have been sent."""
    given = {"messages": message_ids, "before": before, "why": reason}
    return tx.write(_LOSE, given)


def report(tx: Tx, state: Reported, reports: Sequence[DeviceReport]) -> int:
    """Write provider reports; a state replaces only states that come before it in REPORTED."""
    rows = [
        {
            "message": one.message_id,
            "device": one.token,
            "why": one.reason,
            "named": one.provider_id,
        }
        for one in reports
    ]
    return tx.write(_REPORT[state], *rows)


def give_to(tx: Tx, mergers: Sequence[Merger]) -> dict[int, list[list[int | str]]]:
    """Move rows to the remaining profiles. Returns their keys by the merged profile."""
    return repoint(tx, message_devices, mergers)


def give_back(tx: Tx, message_ids: Collection[int], from_id: int, to: int) -> None:
    """Give rows of messages to the profile that an undone join separates."""
    move_rows(tx, message_devices, "message_id", message_ids, from_id, to)
