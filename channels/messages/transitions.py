"""Every statement that writes a message: one function a transition, many messages at a time.

Each changes only messages in a state that the transition may begin from (`ALLOWED`), and returns
how many it changed. An illegal transition therefore changes none. The functions decide nothing;
whoever calls them holds the profiles, and the messages where it has read them.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict, cast

from sqlalchemy import (
    Text,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from channels.messages.states import (
    ALLOWED,
    CLOSED,
    REPORTED,
    TAKEN_BACK,
    MessageState,
    Reported,
    may_become,
    may_begin,
)
from channels.messages.table import messages
from config.clock.times import Instant
from config.database.arrays import any_of
from config.database.engine import Tx
from profiles.bulk import text_bound
from profiles.identity.merge import Merger, repoint

_c = messages.c
# Of an `unknown` message: whether somebody may still say what became of it.
is_open = or_(_c.reason.is_(None), ~_c.reason.startswith(CLOSED))
_unclaimed: dict[str, Any] = {"claimed_by": None, "not_after": None}


_before = partial(may_begin, _c.state, ALLOWED)

# Up to the claim ---------------------------------------------------------------------------------


class Decided(TypedDict):
    """The columns that a decision sets. send_at: of a refused message, when it was wanted."""

    state: Literal["planned", "skipped"]
    reason: str | None
    send_at: Instant
    decision: dict[str, Any]


class NewMessage(Decided):
    """A row of the outbox. after: seconds after the anchor of its group."""

    profile_id: int
    enrollment_id: int
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
    attempts: int


class Redecided(Decided):
    """A decision that was made again. message: its id."""

    message: int


_PLAN = insert(messages)
# What may be decided again: what is planned; and of a group of which the first that can be sent
# goes, those after it.
is_undecided = and_(
    _before("replan"),
    or_(_c.state == "planned", and_(_c.mode == "first", _c.reason == "not_chosen")),
)
_REPLAN = (
    update(messages)
    .where(_c.id == bindparam("message"), is_undecided)
    .values({name: bindparam(name) for name in Decided.__annotations__})
)
_PUT_OFF_UNTIL = bindparam("until", type_=_c.send_at.type)
_expires = _c.latest_anchor + _c.after < _PUT_OFF_UNTIL
_PUT_OFF = (
    update(messages)
    .where(_c.id == bindparam("message"), _before("put_off"))
    .values(
        state=case((_expires, "skipped"), else_="planned"),
        send_at=case((_expires, _c.send_at), else_=_PUT_OFF_UNTIL),
        reason=bindparam("why"),
    )
)
_WITHDRAW = {
    state: update(messages)
    .where(any_of(_c.id, "messages"), _before(transition))
    .values(state=state, reason=bindparam("why"))
    for transition, state in (("skip", "skipped"), ("cancel", "cancelled"), ("fail", "failed"))
}
_CANCEL_OF = (
    update(messages)
    .where(any_of(_c.enrollment_id, "enrollments"), _before("cancel_of"))
    .values(state="cancelled", reason=bindparam("why"))
)
_CANCEL_OF_STEP = _CANCEL_OF.where(_c.step == bindparam("of_step"))
_CLAIM = (
    update(messages)
    .where(any_of(_c.id, "messages"), _before("claim"))
    .values(
        state="sending",
        send_at=bindparam("now"),
        not_after=bindparam("until"),
        claimed_by=bindparam("by"),
        address=text_bound(_c.id, "addresses"),
        attempts=_c.attempts + 1,
    )
)


def plan(tx: Tx, rows: Sequence[NewMessage]) -> int:
    """Write new messages, planned or refused at once."""
    if rows:
        tx.conn.execute(_PLAN, cast(Sequence[dict[str, Any]], rows))
    return len(rows)


def replan(tx: Tx, changes: Sequence[Redecided]) -> int:
    """Move planned messages, or refuse them; write the decision."""
    if not changes:
        return 0
    return tx.conn.execute(_REPLAN, cast(Sequence[dict[str, Any]], changes)).rowcount


def put_off(tx: Tx, message_id: int, until: Instant, reason: str) -> int:
    """Plan a message for later; skip it if that is after the last moment at which it may go."""
    given = {"message": message_id, "until": until, "why": reason}
    return tx.conn.execute(_PUT_OFF, given).rowcount


def skip(tx: Tx, reasons: Mapping[int, str]) -> int:
    """Refuse planned messages, by id."""
    return _withdraw(tx, "skipped", reasons)


def cancel(tx: Tx, reasons: Mapping[int, str]) -> int:
    """Cancel planned messages that are no longer wanted, by id."""
    return _withdraw(tx, "cancelled", reasons)


def fail(tx: Tx, reasons: Mapping[int, str]) -> int:
    """Fail planned messages for which no device is left, by id."""
    return _withdraw(tx, "failed", reasons)


def _withdraw(tx: Tx, state: MessageState, reasons: Mapping[int, str]) -> int:
    """One statement a reason: most have the same."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for message_id, reason in reasons.items():
        by_reason[reason].append(message_id)
    return sum(
        tx.conn.execute(_WITHDRAW[state], {"messages": ids, "why": reason}).rowcount
        for reason, ids in by_reason.items()
    )


def cancel_of(
    tx: Tx, enrollment_ids: Collection[int], reason: str, *, step: str | None = None
) -> int:
    """Cancel what is planned for these enrollments; with `step`, at that step alone."""
    given = {"enrollments": enrollment_ids, "why": reason}
    if step is None:
        return tx.conn.execute(_CANCEL_OF, given).rowcount
    return tx.conn.execute(_CANCEL_OF_STEP, {**given, "of_step": step}).rowcount


def claim(
    tx: Tx, addresses: Mapping[int, str | None], *, not_after: Instant, claimed_by: str
) -> int:
    """Claim messages for this process, which may hand them over until `not_after`.

    addresses: where each message goes, by its id; None of a push, whose devices have rows.
    """
    given = {
        "messages": list(addresses),
        "addresses": addresses,
        "now": tx.now,
        "until": not_after,
        "by": claimed_by,
    }
    return tx.conn.execute(_CLAIM, given).rowcount


# After the claim ---------------------------------------------------------------------------------


RecordedState = Literal["planned", "sent", "failed", "unknown", "skipped"]


class Recorded(NamedTuple):
    """What came of a hand-over.

    state: `planned` when nothing was handed over and it is tried again, at `send_at`; `skipped`
    when there was nothing to hand over. provider_id: the provider's id of it. segments: of a text.
    """

    message_id: int
    state: RecordedState
    reason: str | None
    send_at: Instant
    attempts: int
    provider_id: str | None
    segments: int | None


class Report(NamedTuple):
    """What a provider reports of a message. at: when, for a message that we had taken back."""

    message_id: int
    reason: str | None
    provider_id: str | None
    at: Instant


class Followed(NamedTuple):
    """What a push is by its devices; `was`: the state that this was derived from."""

    message_id: int
    was: MessageState
    state: MessageState
    reason: str | None
    send_at: Instant
    attempts: int
    provider_id: str | None


_RECORD = (
    update(messages)
    .where(_c.id == bindparam("message_id"), _before("record"))
    .values(
        **{name: bindparam(name) for name in Recorded._fields[1:]},
        **_unclaimed,
    )
)
# Rows that somebody holds are just being recorded, so they are not lost.
_LOST = (
    select(_c.id)
    .where(_before("lose"), _c.not_after < bindparam("before"))
    .with_for_update(skip_locked=True)
)
_LOSE = update(messages).where(_c.id.in_(_LOST)).values(state="unknown", reason=bindparam("why"))
_taken_back = or_(*(_c.state == state for state in TAKEN_BACK))
_REPORT = {
    state: update(messages)
    .where(
        _c.id == bindparam("message"),
        _before("report", state),
        or_(~_taken_back, _c.attempts > 0),
    )
    .values(
        state=state,
        reason=bindparam("why"),
        # The report may come before our own record of the hand-over.
        provider_id=func.coalesce(_c.provider_id, bindparam("named", type_=Text)),
        send_at=case((_taken_back, bindparam("at")), else_=_c.send_at),
        **_unclaimed,
    )
    for state in REPORTED
}
_FOLLOW = (
    update(messages)
    .where(_c.id == bindparam("message_id"), _c.state == bindparam("was"))
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
    """Write what came of claimed messages. A report that came before it has the last word."""
    rows = [one._asdict() for one in outcomes]
    return tx.conn.execute(_RECORD, rows).rowcount if rows else 0


def lose(tx: Tx, before: Instant, reason: str) -> int:
    """Mark claims that ended before then `unknown`: they may have been handed over."""
    return tx.conn.execute(_LOSE, {"before": before, "why": reason}).rowcount


def report(tx: Tx, state: Reported, reports: Sequence[Report]) -> int:
    """Write what providers report of messages; a state only replaces those that rank below it."""
    rows = [
        {"message": one.message_id, "why": one.reason, "named": one.provider_id, "at": one.at}
        for one in reports
    ]
    return tx.conn.execute(_REPORT[state], rows).rowcount if rows else 0


def follow_devices(tx: Tx, changes: Sequence[Followed]) -> int:
    """Write the state of pushes, derived from their devices. The caller holds the messages."""
    rows = [one._asdict() for one in changes if may_become("follow_devices", one.was, one.state)]
    return tx.conn.execute(_FOLLOW, rows).rowcount if rows else 0


def resolve(tx: Tx, message_ids: Collection[int], state: Literal["sent", "failed"]) -> int:
    """Write an operator's verdict on `unknown` messages."""
    given = {"messages": message_ids, "to": state, "why": "settled by an operator"}
    return tx.conn.execute(_RESOLVE, given).rowcount


def close(tx: Tx, before: Instant, why: str) -> int:
    """Close messages of unknown fate that were handed over before then. They stay `unknown`.

    why: begins with CLOSED; what was known before is added to it.
    """
    return tx.conn.execute(_CLOSE, {"before": before, "why": why}).rowcount


# Merges of profiles -------------------------------------------------------------------------------


def give_to(tx: Tx, mergers: Sequence[Merger]) -> dict[int, list[int]]:
    """Move messages to the profiles that stay. Returns their ids, by the profile that goes."""
    return repoint(tx, messages, mergers)
