"""All statements that write messages: one function for each transition, in bulk.

Each function changes only messages in a state from which its transition is `ALLOWED`, and returns
the number of changed messages. The functions make no decisions. The caller holds the locks of the
profiles, and of the messages that it has read.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    Text,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from channels.messages.states import (
    ALLOWED,
    CLOSED,
    NOT_HANDED_OVER,
    REPORTED,
    MessageState,
    Reported,
    may_become,
    may_begin,
)
from channels.messages.table import messages
from config.clock.times import Instant
from config.database.arrays import InsertRows, any_of, encode_json
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import bucket_turns
from profiles.bucketing import bucket_of, narrowest
from profiles.bulk import text_bound
from profiles.identity.mergers import Merger, move_rows, repoint

_c = messages.c
# Whether a report is still expected for an `unknown` message.
is_open = or_(_c.reason.is_(None), ~_c.reason.startswith(CLOSED))
_unclaimed: dict[str, Any] = {"claimed_by": None, "not_after": None}


_before = partial(may_begin, _c.state, ALLOWED)

# Up to the claim ---------------------------------------------------------------------------------


class Decided(NamedTuple):
    """The columns that a decision sets.

    send_at: for a refused message, the wanted time.
    """

    state: Literal["planned", "skipped"]
    reason: str | None
    send_at: Instant
    decision: Mapping[str, Any]


class Member(NamedTuple):
    """The columns of a new message that are equal for everybody whose step is planned together.

    member: its name in the group. after: seconds after the anchor of its group.
    """

    journey: str
    version: str
    step: str
    member: str
    channel: str
    kind: str
    topic: str
    priority: int
    mode: str
    after: int
    on_cap: str
    wanted_at: Instant
    latest_anchor: Instant
    attempts: int = 0


class Addressee(NamedTuple):
    """A profile to send to, and the enrollment that wants it."""

    profile_id: int
    enrollment_id: int


class NewMessages(NamedTuple):
    """New rows of the outbox: the same messages for each of these profiles."""

    to: Sequence[Addressee]
    messages: Sequence[tuple[Member, Decided]]


class Redecided(NamedTuple):
    """A new decision for an existing message. message: its id."""

    message: int
    decided: Decided


_NEW = ("bucket", *Addressee._fields, "decision", *Member._fields, *Decided._fields[:-1])
_PLAN = InsertRows(*(_c[name] for name in _NEW))
# Messages that can be decided again: planned ones, and the members of a group with mode "first"
# that were not chosen.
is_undecided = and_(
    _before("replan"),
    or_(_c.state == "planned", and_(_c.mode == "first", _c.reason == "not_chosen")),
)
_REPLAN = (
    update(messages)
    .where(_c.id == bindparam("message"), in_buckets(_c.bucket), is_undecided)
    .values({name: bindparam(name) for name in Decided._fields})
)
_PUT_OFF_UNTIL = bindparam("until", type_=_c.send_at.type)
_expires = _c.latest_anchor + _c.after < _PUT_OFF_UNTIL
_PUT_OFF = (
    update(messages)
    .where(_c.id == bindparam("message"), in_buckets(_c.bucket), _before("put_off"))
    .values(
        state=case((_expires, "skipped"), else_="planned"),
        send_at=case((_expires, _c.send_at), else_=_PUT_OFF_UNTIL),
        reason=bindparam("why"),
    )
)
_WITHDRAW = {
    state: update(messages)
    .where(any_of(_c.id, "messages"), in_buckets(_c.bucket), _before(transition))
    .values(state=state, reason=bindparam("why"))
    for transition, state in (("skip", "skipped"), ("cancel", "cancelled"), ("fail", "failed"))
}
_CANCEL_OF = (
    update(messages)
    .where(any_of(_c.enrollment_id, "enrollments"), in_buckets(_c.bucket), _before("cancel_of"))
    .values(state="cancelled", reason=bindparam("why"))
)
_CANCEL_OF_STEP = _CANCEL_OF.where(_c.step == bindparam("of_step"))
_CLAIM = (
    update(messages)
    .where(any_of(_c.id, "messages"), in_buckets(_c.bucket), _before("claim"))
    .values(
        state="sending",
        send_at=bindparam("now"),
        not_after=bindparam("until"),
        claimed_by=bindparam("by"),
        address=text_bound(_c.id, "addresses"),
        attempts=_c.attempts + 1,
    )
)


def plan(tx: Tx, new: Sequence[NewMessages]) -> int:
    """Insert new messages, planned or refused; those of an older enrollment get the lower ids."""
    rows: list[tuple[Any, ...]] = []
    for to, same in new:
        columns = [
            (encode_json(tx.conn, decided.decision), *member, *decided[:-1])
            for member, decided in same
        ]
        rows += [
            (bucket_of(profile_id), profile_id, enrollment_id, *rest)
            for profile_id, enrollment_id in to
            for rest in columns
        ]
    # The sort is stable, so that the messages of one enrollment keep their order.
    rows.sort(key=itemgetter(_NEW.index("enrollment_id")))
    return _PLAN(tx.conn, rows, encoded=True)


def replan(tx: Tx, changes: Sequence[Redecided]) -> int:
    """Reschedule or refuse planned messages and write the new decisions."""
    given = [{"message": message, **decided._asdict()} for message, decided in changes]
    return tx.write(_REPLAN, *given)


def put_off(tx: Tx, message_id: int, until: Instant, reason: str) -> int:
    """Postpone a planned message; skip it if `until` is after its latest send time."""
    given = {"message": message_id, "until": until, "why": reason, "buckets": tx.buckets}
    return tx.write(_PUT_OFF, given)


def skip(tx: Tx, reasons: Mapping[int, str]) -> int:
    """Refuse planned messages. reasons: by message id."""
    return _withdraw(tx, "skipped", reasons)


def cancel(tx: Tx, reasons: Mapping[int, str]) -> int:
    """Cancel planned messages that are no longer wanted. reasons: by message id."""
    return _withdraw(tx, "cancelled", reasons)


def fail(tx: Tx, reasons: Mapping[int, str]) -> int:
    """Fail planned messages that have no device left. reasons: by message id."""
    return _withdraw(tx, "failed", reasons)


def _withdraw(tx: Tx, state: MessageState, reasons: Mapping[int, str]) -> int:
    """Execute one statement for each distinct reason."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for message_id, reason in reasons.items():
        by_reason[reason].append(message_id)
    return sum(
        tx.write(_WITHDRAW[state], {"messages": ids, "why": reason, "buckets": tx.buckets})
        for reason, ids in by_reason.items()
    )


def cancel_of(
    tx: Tx, enrollment_ids: Collection[int], reason: str, *, step: str | None = None
) -> int:
    """Cancel the planned messages of these enrollments; with `step`, only those of that step."""
    given = {"enrollments": enrollment_ids, "why": reason, "buckets": tx.buckets}
    if step is None:
        return tx.write(_CANCEL_OF, given)
    return tx.write(_CANCEL_OF_STEP, {**given, "of_step": step})


def claim(
    tx: Tx, addresses: Mapping[int, str | None], *, not_after: Instant, claimed_by: str
) -> int:
    """Claim messages for this process, which may hand them over until `not_after`.

    addresses: the address of each message, by id; None for a push (its devices have own rows).
    """
    given = {
        "messages": list(addresses),
        "addresses": addresses,
        "now": tx.now,
        "until": not_after,
        "by": claimed_by,
        "buckets": tx.buckets,
    }
    return tx.write(_CLAIM, given)


# After the claim ---------------------------------------------------------------------------------


RecordedState = Literal["planned", "sent", "failed", "unknown", "skipped"]


class Recorded(NamedTuple):
    """The outcome of a hand-over.

    state: `planned` if nothing was handed over and it is retried at `send_at`; `skipped` if there
    was nothing to hand over. segments: billed segments of an SMS.
    """

    message_id: int
    profile_id: int
    state: RecordedState
    reason: str | None
    send_at: Instant
    attempts: int
    provider_id: str | None
    segments: int | None


class Report(NamedTuple):
    """A provider's report on a message. at: its time; becomes `send_at` of a message that was not
    handed over according to our records.
    """

    message_id: int
    reason: str | None
    provider_id: str | None
    at: Instant


class Followed(NamedTuple):
    """The new state of a push, derived from its devices. was: its state when that was done."""

    message_id: int
    was: MessageState
    state: MessageState
    reason: str | None
    send_at: Instant
    attempts: int
    provider_id: str | None


_RECORD = (
    update(messages)
    .where(_c.id == bindparam("message_id"), in_buckets(_c.bucket), _before("record"))
    .values(
        **{name: bindparam(name) for name in Recorded._fields[2:]},
        **_unclaimed,
    )
)
# Locked rows are being recorded at this moment, so they are not lost.
_LOST = (
    select(_c.id)
    .where(_before("lose"), _c.not_after < bindparam("before"), in_buckets(_c.bucket))
    .with_for_update(skip_locked=True)
)
_LOSE = (
    update(messages)
    .where(_c.id.in_(_LOST), in_buckets(_c.bucket))
    .values(state="unknown", reason=bindparam("why"))
)
_not_handed_over = or_(*(_c.state == state for state in NOT_HANDED_OVER))
_REPORT = {
    state: update(messages)
    .where(
        _c.id == bindparam("message"),
        _before("report", state),
        or_(~_not_handed_over, _c.attempts > 0),
    )
    .values(
        state=state,
        reason=bindparam("why"),
        # The report may arrive before the outcome of the hand-over is recorded.
        provider_id=func.coalesce(_c.provider_id, bindparam("named", type_=Text)),
        send_at=case((_not_handed_over, bindparam("at")), else_=_c.send_at),
        **_unclaimed,
    )
    for state in REPORTED
}
_FOLLOW = (
    update(messages)
    .where(_c.id == bindparam("message_id"), in_buckets(_c.bucket), _c.state == bindparam("was"))
    .values(
        **{name: bindparam(name) for name in Followed._fields[2:]},
        **_unclaimed,
    )
)
_RESOLVE = (
    update(messages)
    .where(any_of(_c.id, "messages"), _before("resolve"))
    .values(state=bindparam("to"), reason=bindparam("why"))
)
_CLOSE = (
    update(messages)
    .where(_before("close"), _c.send_at < bindparam("before"), is_open)
    .values(
        reason=bindparam("why", type_=Text)
        + func.coalesce(_c.reason, "the provider did not answer")
    )
)


def record(tx: Tx, outcomes: Sequence[Recorded]) -> int:
    """Write outcomes of claimed messages. A report that arrived earlier is not overwritten."""
    rows = [one._asdict() for one in outcomes]
    for row in rows:
        # A parameter with the name of a column would be written to it.
        row["buckets"] = narrowest(row.pop("profile_id"), tx.buckets)
    return tx.write(_RECORD, *rows)


def lose(tx: Tx, before: Instant, reason: str) -> int:
    """Mark messages `unknown` whose claim ended before `before`: they may have been sent."""
    given = {"before": before, "why": reason}
    return sum(tx.write(_LOSE, {**given, "buckets": buckets}) for buckets in bucket_turns(tx))


def report(tx: Tx, state: Reported, reports: Sequence[Report]) -> int:
    """Write provider reports; a state replaces only states that come before it in REPORTED."""
    rows = [
        {"message": one.message_id, "why": one.reason, "named": one.provider_id, "at": one.at}
        for one in reports
    ]
    return tx.write(_REPORT[state], *rows)


def follow_devices(tx: Tx, changes: Sequence[Followed]) -> int:
    """Write states of pushes, derived from their devices. The caller has locked the messages."""
    rows = [
        {**one._asdict(), "buckets": tx.buckets}
        for one in changes
        if may_become("follow_devices", one.was, one.state)
    ]
    return tx.write(_FOLLOW, *rows)


def resolve(tx: Tx, message_ids: Collection[int], state: Literal["sent", "failed"]) -> int:
    """Write an operator's verdict on `unknown` messages."""
    given = {"messages": message_ids, "to": state, "why": "resolved by an operator"}
    return tx.write(_RESOLVE, given)


def close(tx: Tx, before: Instant, why: str) -> int:
    """Close `unknown` messages that were handed over before `before`. They stay `unknown`.

    why: begins with CLOSED; the previous reason is appended.
    """
    return tx.write(_CLOSE, {"before": before, "why": why})


_EXIST = select(_c.id).where(any_of(_c.id, "messages"))


def existing(tx: Tx, message_ids: Collection[int]) -> set[int]:
    """Those of the messages that were not erased."""
    return {row.id for row in tx.rows(_EXIST, {"messages": message_ids})}


# Merges of profiles -------------------------------------------------------------------------------


def give_to(tx: Tx, mergers: Sequence[Merger]) -> dict[int, list[int]]:
    """Move messages to the remaining profiles. Returns their ids by the merged profile."""
    return repoint(tx, messages, mergers)


def give_back(tx: Tx, message_ids: Collection[int], from_id: int, to: int) -> None:
    """Give rows of messages to the profile that an undone join separates."""
    move_rows(tx, messages, "id", message_ids, from_id, to)
