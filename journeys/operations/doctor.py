"""Checks for stuck work: overdue enrollments, overdue messages, claims without an owner."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, func, literal, select

from channels.messages import messages
from channels.messages.transitions import is_open
from channels.outbox.unknown import REPORT_EXPECTED_FOR
from config.clock.times import MINUTE, Seconds
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.launches.approvals import WAITING
from journeys.operations.control import held
from journeys.operations.heartbeat import last_seen
from journeys.tables import approvals
from profiles.tables import events

# Work that is overdue by more than this means that no worker runs, or that something blocks it.
LATE: Seconds = 2 * MINUTE
WAIT_FOR_APPROVAL = "launches that wait for approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem: how many rows have it, for how many seconds, and the fix (`mend`)."""

    what: str
    where: str
    number: int
    for_seconds: Seconds
    mend: str


def diagnose(tx: Tx) -> list[Finding]:
    """All current problems, the oldest first; empty if there are none."""
    found = [
        Finding(what=what, where=where, number=number, for_seconds=tx.now - since, mend=mend)
        for what, mend, grouped in _questions(tx)
        for where, number, since in tx.conn.execute(grouped)
    ]
    return sorted(found, key=lambda one: (-one.for_seconds, one.what, one.where))


def _questions(tx: Tx) -> Iterator[tuple[str, str, Select[Any]]]:
    """The checks: the problem, the fix, and a statement for (where, how many, since when)."""
    holding = list(held(tx))
    people, rows = enrollments.c, messages.c
    in_it = people.ended_at.is_(None) & people.journey.notin_(holding)
    yield (
        "overdue enrollments",
        "start a worker: segue work",
        select(people.journey, func.count(), func.min(people.due_at))
        .where(in_it, people.due_at < tx.now - LATE)
        .group_by(people.journey),
    )
    place = people.journey + literal(" / ") + people.step
    seen = last_seen(tx)
    if seen is None or seen < tx.now - LATE:
        since = func.min(people.entered_at) if seen is None else literal(seen, BigInteger)
        yield (
            "no worker is running",
            "start a worker: segue work",
            select(people.journey, func.count(), since).where(in_it).group_by(people.journey),
        )
    yield (
        "failing steps",
        "see the worker's log; after the last attempt the enrollments continue without the step",
        select(place, func.count(), func.min(people.arrived_at))
        .where(in_it, people.attempts > 0)
        .group_by(place),
    )
    yield (
        WAIT_FOR_APPROVAL,
        "see segue approvals; segue approve or segue reject decides",
        select(approvals.c.journey, func.count(), func.min(approvals.c.asked_at))
        .where(approvals.c.state == WAITING, approvals.c.lapses_at > tx.now)
        .group_by(approvals.c.journey),
    )
    yield (
        "unprocessed events",
        "start a worker (segue work), or see its log",
        select(events.c.name, func.count(), func.min(events.c.received_at))
        .where(events.c.worked_at.is_(None), events.c.received_at < tx.now - LATE)
        .group_by(events.c.name),
    )

    def of_messages(since: ColumnElement[Any], *which: ColumnElement[bool]) -> Select[Any]:
        return (
            select(rows.channel, func.count(), func.min(since)).where(*which).group_by(rows.channel)
        )

    yield (
        "overdue messages",
        "start a worker, or see its log: the channel may be stopped",
        of_messages(
            rows.send_at,
            rows.state == "planned",
            rows.send_at < tx.now - LATE,
            rows.journey.notin_(holding),
        ),
    )
    yield (
        "claims without an owner",
        "segue doctor --mend marks them as unknown, as a worker would",
        of_messages(
            rows.not_after, rows.state == "sending", rows.not_after < tx.now - tx.timing.lost_after
        ),
    )
    yield (
        "unknown messages",
        "no delivery report arrived: decide with segue resolve",
        of_messages(
            rows.send_at,
            rows.state == "unknown",
            rows.send_at < tx.now - REPORT_EXPECTED_FOR,
            is_open,
        ),
    )
