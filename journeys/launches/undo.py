"""Undo a launch: cancel what is planned, end its enrollments, let nobody else enter by it.

What was handed over to a provider stays, and counts. Whoever was sent nothing may enter the journey
again, as if the launch had not been.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, bindparam, select, update

from channels.messages import messages, past_messages
from channels.messages.transitions import cancel_of
from config.channels import ChannelName, by_channel
from config.database.arrays import any_of, one_of
from config.database.buckets import in_buckets
from config.database.engine import Database, Tx
from config.database.locking import lock_rows
from config.errors import SegueError
from journeys.engine.chunks import Chunk, Chunks
from journeys.enrollments import enrollments, transitions
from journeys.enrollments.states import UNDONE, UNDONE_AFTER_SENDING
from journeys.launches.approvals import finish
from journeys.operations.counts import HANDED_OVER, counted_state
from journeys.tables import approvals, launches
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles

_e, _m, _p = enrollments.c, messages.c, past_messages.c
_LAUNCH = select(launches.c.journey, launches.c.audience).where(
    launches.c.id == bindparam("launch")
)
_LOCKED_LAUNCH = _LAUNCH.with_for_update()
_LET_NOBODY_IN = update(launches).where(launches.c.id == bindparam("launch")).values(people=0)
_WAITING = select(approvals.c.state).where(approvals.c.launch_id == bindparam("launch"))
_SOME = (
    select(_e.id, _e.profile_id, _e.ended_at, _e.end_reason)
    .where(
        _e.journey == bindparam("of_journey"),
        _e.launch_id == bindparam("launch"),
        _e.id > bindparam("after", type_=BigInteger),
    )
    .order_by(_e.id)
    .limit(bindparam("most", type_=BigInteger))
)
_LOCKED = (
    select(_e.id, _e.profile_id, _e.ended_at, _e.end_reason)
    .where(any_of(_e.id, "enrollments"), in_buckets(_e.bucket))
    .order_by(_e.id)
    .with_for_update()
)
_MESSAGES = select(_m.enrollment_id, _m.channel, counted_state().label("state"), _m.reason).where(
    any_of(_m.enrollment_id, "enrollments"), in_buckets(_m.bucket)
)
_PAST = select(_p.enrollment_id, _p.channel).where(
    any_of(_p.profile_id, "profiles"),
    any_of(_p.enrollment_id, "enrollments"),
    in_buckets(_p.bucket),
    # Of a failed one nobody can tell any more whether it had been accepted before.
    one_of(_p.state, (*HANDED_OVER, "failed")),
)
# What a process may be handing over now counts as sent.
_GONE = (*HANDED_OVER, "sending")


@dataclass(slots=True, kw_only=True)
class Undone:
    """What an undo did or, as a dry run, would do.

    people: enrollments of the launch. ended: those that it ends. never_entered: those of all that
    count as never entered, because nothing was sent to them. cancelled, gone: messages by channel.
    """

    launch: str
    journey: str
    audience: str
    applied: bool
    people: int = 0
    ended: int = 0
    never_entered: int = 0
    cancelled: Counter[ChannelName] = field(default_factory=Counter)
    gone: Counter[ChannelName] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "launch": self.launch,
            "journey": self.journey,
            "audience": self.audience,
            "applied": self.applied,
            "people": self.people,
            "ended": self.ended,
            "never_entered": self.never_entered,
            "cancelled": by_channel(self.cancelled),
            "gone": by_channel(self.gone),
        }


def undo_launch(db: Database, launch_id: str, *, apply: bool) -> Undone:
    """Undo a launch chunk by chunk; without `apply` only count. Can be repeated.

    The launch is closed first, so that a process that is entering its audience stops. Raises
    SegueError if there is no such launch.
    """
    with db.transaction(write=apply) as tx:
        undone = _found(tx, launch_id, apply=apply)
        if apply:
            tx.conn.execute(_LET_NOBODY_IN, {"launch": launch_id})
            finish(tx, launch_id)
    chunks = Chunks(db)
    after: int | None = 0
    while after is not None:
        if apply:
            with chunks.transaction("undo") as chunk:
                after = _undo_some(chunk, undone, after)
        else:
            with db.transaction(write=False) as tx:
                after = _undo_some(Chunk(tx, chunks.largest), undone, after)
    return undone


def _found(tx: Tx, launch_id: str, *, apply: bool) -> Undone:
    given = {"launch": launch_id}
    found = tx.conn.execute(_LOCKED_LAUNCH if apply else _LAUNCH, given).first()
    if found is not None:
        return Undone(
            launch=launch_id, journey=found.journey, audience=found.audience, applied=apply
        )
    state = tx.conn.execute(_WAITING, given).scalar()
    if state is not None:
        raise SegueError(
            f"the launch {launch_id!r} has not started, its approval is {state}; to keep it from "
            f"starting: segue reject {launch_id}"
        )
    raise SegueError(f"there is no launch {launch_id!r}; its id is in the output of `segue launch`")


def _undo_some(chunk: Chunk, undone: Undone, after: int) -> int | None:
    """Undo the next enrollments after an id. Returns the last id; None: there are no more.

    Locks in the common order: enrollments, profiles, messages. `cancel_of` waits for a claim that
    is being written; so what is read afterwards shows whether it was in time.
    """
    tx = chunk.tx
    given: dict[str, Any] = {
        "of_journey": undone.journey,
        "launch": undone.launch,
        "after": after,
        "most": chunk.size,
    }
    people = tx.conn.execute(_SOME, given).all()
    if not people:
        return None
    last, ids = people[-1].id, [one.id for one in people]
    tx.buckets = buckets_of(one.profile_id for one in people)
    if undone.applied:
        people = lock_rows(tx, _LOCKED, {"enrollments": ids})
        lock_profiles(tx, {one.profile_id for one in people})
        cancel_of(tx, ids, UNDONE_AFTER_SENDING)
    these = {
        "enrollments": ids,
        "profiles": [one.profile_id for one in people],
        "buckets": tx.buckets,
    }
    sent_to: set[int] = set()
    unfinished: set[int] = set()
    for row in tx.rows(_MESSAGES, these):
        if row.state in _GONE:
            undone.gone[row.channel] += 1
            sent_to.add(row.enrollment_id)
        if row.state == "planned" or row.reason == UNDONE_AFTER_SENDING:
            undone.cancelled[row.channel] += 1
        if row.state in ("planned", "sending") or row.reason == UNDONE_AFTER_SENDING:
            unfinished.add(row.enrollment_id)
    for row in tx.rows(_PAST, these):
        undone.gone[row.channel] += 1
        sent_to.add(row.enrollment_id)
    never = {one.id for one in people} - sent_to
    ending = {one.id for one in people if one.ended_at is None or one.id in unfinished} | never
    if undone.applied:
        _end(tx, never, ending - never)
    undone.people += len(people)
    undone.never_entered += len(never)
    undone.ended += sum(1 for one in people if one.ended_at is None)
    chunk.people = len(people)
    return int(last)


def _end(tx: Tx, never: Collection[int], sent_to: Collection[int]) -> None:
    """End enrollments, and give those that have ended the reason of the undo.

    A message that a process hands over now may come back as planned; the reason cancels it.
    """
    for ids, reason in ((never, UNDONE), (sent_to, UNDONE_AFTER_SENDING)):
        if ids:
            transitions.undo(tx, ids, reason)
