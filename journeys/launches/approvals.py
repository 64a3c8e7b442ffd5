"""Launches that wait until somebody approves them: docs/decisions/0036-approvals-are-rows.md.

The policy says which launches do. Such a launch is stored with a summary of what it would do; it
starts after the approval, with the version that the summary is of.
"""

from typing import Any, NamedTuple

from sqlalchemy import bindparam, exists, select, update

from config.clock.times import MINUTE, Instant, format_instant
from config.database.arrays import InsertRows
from config.database.engine import Tx
from config.errors import SegueError
from config.policy import ApprovalRule
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Journey, Version
from journeys.operations.control import STOPPED, held
from journeys.tables import approvals, launches

WAITING = "waiting"
APPROVED = "approved"
REJECTED = "rejected"
OUTDATED = "outdated"
LAPSED = "lapsed"  # not stored: waiting, or approved and not started, when its time is over
# An audience whose size changed by a larger share since the summary needs a new summary.
MOST_CHANGE = 0.2
# Whoever approves a launch starts it. After this time a worker does: the process was killed.
_STARTED_WITHIN = MINUTE

_c = approvals.c


class LaunchRequest(NamedTuple):
    """A launch that somebody wants. people: the most profiles that may enter; None: no limit."""

    id: str
    journey: str
    audience: str
    people: int | None


class ApprovalRow(NamedTuple):
    """A row of the table `approval`."""

    launch_id: str
    journey: str
    version: str
    audience: str
    people: int | None
    why: str
    size: int
    summary: dict[str, Any]
    asked_at: Instant
    lapses_at: Instant
    state: str
    decided_at: Instant | None
    decided_by: str | None
    note: str | None
    finished_at: Instant | None
    started: bool = False  # whether the launch is on record

    @property
    def request(self) -> LaunchRequest:
        return LaunchRequest(
            id=self.launch_id, journey=self.journey, audience=self.audience, people=self.people
        )

    def standing(self, now: Instant) -> str:
        """The state; `lapsed` for a launch that waited or did not start until its time was over."""
        over = self.lapses_at <= now and not self.started
        return LAPSED if over and self.state in (WAITING, APPROVED) else self.state

    def as_json(self, now: Instant) -> dict[str, Any]:
        """The row as commands print it."""
        return {
            "launch": self.launch_id,
            "journey": self.journey,
            "audience": self.audience,
            "limit": self.people,
            "people": self.size,
            "state": self.standing(now),
            "why": self.why,
            "asked_at": format_instant(self.asked_at),
            "lapses_at": format_instant(self.lapses_at),
            "decided_at": self.decided_at and format_instant(self.decided_at),
            "decided_by": self.decided_by,
            "note": self.note,
            "launched": self.finished_at is not None,
            "version": self.version,
            "summary": self.summary,
        }


class ApprovalResult(NamedTuple):
    """A launch after an approval or rejection. changed: whether this one changed it."""

    row: ApprovalRow
    changed: bool
    text: str


class ApprovalNeeded(SegueError):
    """The launch has to wait. why: the rule. row: its stored request; None: none is stored."""

    def __init__(self, request: LaunchRequest, why: str, row: ApprovalRow | None) -> None:
        super().__init__(f"the launch {request.id!r} waits for approval: {why}")
        self.request = request
        self.why = why
        self.row = row


class NotApproved(SegueError):
    """The launch was rejected, is outdated or has lapsed, so it never starts."""


_STORED = [_c[name] for name in ApprovalRow._fields[:-1]]
_COLUMNS = [*_STORED, exists().where(launches.c.id == _c.launch_id).label("started")]
_OF_LAUNCH = select(*_COLUMNS).where(_c.launch_id == bindparam("launch"))
_LOCKED = _OF_LAUNCH.with_for_update(of=approvals)
_ALL = select(*_COLUMNS).order_by(_c.asked_at, _c.launch_id)
_STARTED = select(launches.c.id).where(launches.c.id == bindparam("launch"))
_LEFT = (
    select(*_COLUMNS)
    .where(
        _c.state == APPROVED,
        _c.finished_at.is_(None),
        _c.decided_at < bindparam("before"),
        (_c.lapses_at > bindparam("now")) | _c.launch_id.in_(select(launches.c.id)),
    )
    .order_by(_c.decided_at)
)
_ASK = InsertRows(*_STORED, on_conflict="DO NOTHING")
_DECIDE = (
    update(approvals)
    .where(_c.launch_id == bindparam("launch"), _c.state == WAITING)
    .values(
        state=bindparam("new_state"),
        decided_at=bindparam("now"),
        decided_by=bindparam("by"),
        note=bindparam("new_note"),
    )
)
_FINISH = (
    update(approvals)
    .where(_c.launch_id == bindparam("launch"), _c.state == APPROVED, _c.finished_at.is_(None))
    .values(finished_at=bindparam("now"))
)


def why_needed(rule: ApprovalRule, journey: Journey, size: int | None) -> str | None:
    """The rule by which a launch needs an approval; None: it needs none.

    size: the number of profiles that it may enter; None if `rule.people` is.
    """
    if rule.people is not None and size is not None and size > rule.people:
        return f"it is for {size:,} profiles, which is more than {rule.people:,}"
    topics = {send.topic or journey.topic for send in journey.sends()}
    if about := sorted(topics.intersection(rule.topics)):
        return f"it is about {' and '.join(about)}"
    return None


def check_approval(
    tx: Tx, rule: ApprovalRule, version: Version, request: LaunchRequest, size: int | None
) -> str | None:
    """Refuse a launch that needs an approval and has none.

    Returns the digest of the version that was approved; None: it needs no approval, or has started.

    size: see `why_needed`. Raises ApprovalNeeded, NotApproved, SegueError if the id belongs to
    another launch.
    """
    given = {"launch": request.id}
    if tx.conn.execute(_STARTED, given).first() is not None:
        return None
    row = approval_of(tx, request.id)
    if row is None:
        if why := why_needed(rule, version.journey, size):
            raise ApprovalNeeded(request, why, None)
        return None
    if row.request != request:
        raise SegueError(f"the launch {request.id!r} waits with other values; use another id")
    standing = row.standing(tx.now)
    if standing == APPROVED:
        return row.version
    if standing == WAITING:
        raise ApprovalNeeded(request, row.why, row)
    raise NotApproved(_refusal(row, standing))


def ask(
    tx: Tx,
    rule: ApprovalRule,
    version: Version,
    needed: ApprovalNeeded,
    *,
    size: int,
    summary: dict[str, Any],
) -> ApprovalRow:
    """Store a launch that waits, unless it is stored already; returns it."""
    row = ApprovalRow(
        launch_id=needed.request.id,
        journey=needed.request.journey,
        version=version.digest,
        audience=needed.request.audience,
        people=needed.request.people,
        why=needed.why,
        size=size,
        summary=summary,
        asked_at=tx.now,
        lapses_at=tx.now + rule.lapses_after,
        state=WAITING,
        decided_at=None,
        decided_by=None,
        note=None,
        finished_at=None,
    )
    _ASK(tx.conn, [tuple(row)[: len(_STORED)]])
    found = approval_of(tx, row.launch_id)
    assert found is not None
    return found


def approval_of(tx: Tx, launch_id: str) -> ApprovalRow | None:
    """The request of a launch; None: it asked for no approval."""
    found = tx.conn.execute(_OF_LAUNCH, {"launch": launch_id}).first()
    return None if found is None else ApprovalRow._make(found)


def all_approvals(tx: Tx) -> list[ApprovalRow]:
    """Every launch that asked for an approval, the oldest first."""
    return [ApprovalRow._make(row) for row in tx.conn.execute(_ALL)]


def left_approvals(tx: Tx) -> list[ApprovalRow]:
    """The approved launches whose audience should have entered by now, and has not."""
    given = {"before": tx.now - _STARTED_WITHIN, "now": tx.now}
    return [ApprovalRow._make(row) for row in tx.conn.execute(_LEFT, given)]


def finish(tx: Tx, launch_id: str) -> None:
    """Record that the whole audience of a launch has entered."""
    tx.conn.execute(_FINISH, {"launch": launch_id, "now": tx.now})


def approve(tx: Tx, catalog: Catalog, launch_id: str, by: str, size: int) -> ApprovalResult:
    """Approve a launch, once: whoever comes second changes nothing.

    If the journey or the audience has changed much since the summary, the launch is outdated and
    never starts.

    size: of the audience now. Raises SegueError if no such launch asked for an approval or if its
    journey is stopped, NotApproved if it was rejected, is outdated or has lapsed.
    """
    row = _locked(tx, launch_id)
    if row.state == APPROVED:
        return ApprovalResult(row, changed=False, text=_already(row))
    _check_waiting(tx, row)
    if held(tx).get(row.journey) == STOPPED:
        raise SegueError(f"the journey {row.journey!r} is stopped; resume it first")
    if change := _change(row, catalog.journey(row.journey).digest, size):
        note = f"{change} since the summary of {format_instant(row.asked_at)}"
        row = _decide(tx, row, OUTDATED, by, note)
        text = f"Not approved, as {note}. Launch it again for a new summary."
        return ApprovalResult(row, changed=False, text=text)
    row = _decide(tx, row, APPROVED, by, None)
    return ApprovalResult(row, changed=True, text=f"{by} approved the launch {launch_id}.")


def reject(tx: Tx, launch_id: str, by: str, reason: str) -> ApprovalResult:
    """Reject a launch: it never starts.

    Raises SegueError if no such launch asked for an approval, NotApproved if it was rejected, is
    outdated or has lapsed.
    """
    row = _locked(tx, launch_id)
    if row.state == APPROVED:
        stop = f"To end what it started: segue stop {row.journey}."
        return ApprovalResult(row, changed=False, text=f"{_already(row)} {stop}")
    _check_waiting(tx, row)
    row = _decide(tx, row, REJECTED, by, reason)
    return ApprovalResult(row, changed=True, text=f"{by} rejected the launch {launch_id}: {reason}")


def _locked(tx: Tx, launch_id: str) -> ApprovalRow:
    found = tx.conn.execute(_LOCKED, {"launch": launch_id}).first()
    if found is None:
        waiting = [row.launch_id for row in all_approvals(tx) if row.standing(tx.now) == WAITING]
        known = f"there are: {', '.join(waiting)}" if waiting else "none does"
        raise SegueError(f"no launch {launch_id!r} waits for approval; {known}")
    return ApprovalRow._make(found)


def _check_waiting(tx: Tx, row: ApprovalRow) -> None:
    standing = row.standing(tx.now)
    if standing != WAITING:
        raise NotApproved(_refusal(row, standing))


def _already(row: ApprovalRow) -> str:
    assert row.decided_at is not None
    return (
        f"{row.decided_by} approved the launch {row.launch_id} already, on "
        f"{format_instant(row.decided_at)}."
    )


def _refusal(row: ApprovalRow, standing: str) -> str:
    launch = f"the launch {row.launch_id!r}"
    if standing == LAPSED:
        return f"{launch} lapsed on {format_instant(row.lapses_at)}; launch it again"
    if standing == REJECTED:
        return f"{launch} was rejected by {row.decided_by}: {row.note}"
    return f"{launch} is outdated, as {row.note}; launch it again"


def _change(row: ApprovalRow, digest: str, size: int) -> str | None:
    """What has changed much since the summary."""
    if digest != row.version:
        return "the journey has changed"
    if abs(size - row.size) > MOST_CHANGE * row.size:
        return f"the audience has changed from {row.size:,} to {size:,} profiles"
    return None


def _decide(tx: Tx, row: ApprovalRow, state: str, by: str, note: str | None) -> ApprovalRow:
    given = {
        "launch": row.launch_id,
        "new_state": state,
        "now": tx.now,
        "by": by,
        "new_note": note,
    }
    tx.conn.execute(_DECIDE, given)
    return row._replace(state=state, decided_at=tx.now, decided_by=by, note=note)
