"""The check of the final state, from the rows and the provider's records.

It shares no counting code with the product, which is what it tests.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Row, select

from channels.messages import message_devices, messages
from config.clock.times import Instant
from config.database.engine import Database, Tx
from config.policy import Cap, Policy
from journeys.enrollments import enrollments
from journeys.tables import passages
from profiles.tables import events, profiles
from tests.chaos.provider import Heard
from tests.chaos.shop import ENTRIES, Event
from tests.chaos.worker import Posted

# Longer due than this is stuck: it is only asked when nothing goes on any more.
_AT_ONCE = 5
# Seconds; a whole one is lost where times are whole seconds.
_PACE = 3
_WENT = ("sent", "delivered", "unknown")
# After these nobody can say whether the message was taken.
_SILENT = ("cut before", "cut after", "silent", "500")
_SENDS = {"receipt", "nudge", "offer", "letter", "reply", "news"}


class Fate(NamedTuple):
    """What happened to whom.

    heard: the provider's memory. posts: what workers began to hand over. killed: process ids.
    troubles: from when to when the database was in some.
    """

    heard: Sequence[Heard]
    posts: Sequence[Posted]
    killed: Collection[int]
    troubles: Sequence[tuple[float, float]]
    claim_lasts: int


@dataclass(slots=True)
class Verdict:
    """The amount of work done, and all errors as text."""

    events: int = 0
    _: KW_ONLY
    accepted: int = 0
    faults: int = 0
    unknown: Counter[str] = field(default_factory=Counter)  # by what explains it
    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    caps: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)

    def wrong(self) -> list[str]:
        """All that is wrong."""
        groups = ("duplicates", "lost", "stuck", "caps", "unexplained", "untrue")
        return [f"{group}: {one}" for group in groups for one in getattr(self, group)]


def judge(db: Database, policy: Policy, taken: Mapping[str, Event], fate: Fate) -> Verdict:
    """Recount a run.

    Parameters
    ----------
    taken: the events that were answered 200, by message id.
    """
    verdict = Verdict(len(taken), faults=sum(one.fault is not None for one in fate.heard))
    accepted: dict[int, list[float]] = defaultdict(list)
    posts: Counter[tuple[int, str]] = Counter()
    for one in fate.heard:
        if one.accepted:
            accepted[one.message_id].append(one.at)
            posts[one.message_id, one.device] += 1
    verdict.accepted = len(accepted)
    with db.transaction(write=False) as tx:
        rows = {row.id: row for row in tx.conn.execute(select(messages))}
        devices = {
            (row.message_id, row.token): row.state
            for row in tx.conn.execute(select(message_devices))
        }
        people = list(tx.conn.execute(select(enrollments)))
        zones = {row.id: row.timezone for row in tx.conn.execute(select(profiles))}
        passed = list(tx.conn.execute(select(passages.c.enrollment_id, passages.c.step)))
        verdict.lost += _lost(tx, taken, people)
        now = tx.now
    verdict.duplicates += [
        f"message {one} was accepted {times} times{device and f' for {device}'}"
        for (one, device), times in posts.items()
        if times > 1
    ]
    entered = Counter(
        (one.journey, one.profile_id if one.launch_id else one.entry_key) for one in people
    )
    verdict.duplicates += [f"{one} entered {n} times" for one, n in entered.items() if n > 1]
    verdict.stuck += _stuck(people, rows.values(), now)
    verdict.lost += _not_sent(people, rows.values())
    verdict.lost += _not_launched(people, zones)
    verdict.lost += _not_planned(passed, rows.values())
    went = [row for row in rows.values() if row.state in _WENT]
    verdict.caps += _over(policy, went, zones)
    silent = {one.message_id for one in fate.heard if one.fault in _SILENT}
    for row in rows.values():
        if row.state == "unknown":
            why = _explanation(row, fate, silent)
            verdict.unknown[why or "nothing"] += 1
            if why is None:
                told = f"message {row.id} is unknown: {row.reason} ({row.claimed_by})"
                verdict.unexplained.append(told)
    verdict.untrue += _untrue(rows, accepted)
    verdict.untrue += _untrue_of_devices(rows, devices, {one for one in posts if one[1]})
    verdict.untrue += _late(fate)
    return verdict


def _lost(tx: Tx, taken: Mapping[str, Event], people: Sequence[Row[Any]]) -> Iterator[str]:
    """Events that were accepted and had no effect."""
    found = tx.conn.execute(select(events.c.dedupe_key, events.c.name, events.c.worked_at))
    known = {row.dedupe_key: row for row in found}
    entered = {one.entry_key for one in people}
    for message_id, event in taken.items():
        if message_id not in known:
            yield f"event {message_id}"
        elif known[message_id].worked_at is None:
            yield f"event {message_id} was never worked"
        elif event.name in ENTRIES and message_id not in entered:
            yield f"event {message_id} entered nobody"


def _stuck(people: Sequence[Row[Any]], rows: Iterable[Row[Any]], now: Instant) -> Iterator[str]:
    for one in people:
        if one.ended_at is None and one.due_at < now - _AT_ONCE:
            yield f"enrollment {one.id} at {one.journey}/{one.step}, due {now - one.due_at} s ago"
    for row in rows:
        if row.state in ("planned", "sending") and row.send_at < now - _AT_ONCE:
            yield f"message {row.id} is {row.state}, for {now - row.send_at} s"


def _not_sent(people: Sequence[Row[Any]], rows: Iterable[Row[Any]]) -> Iterator[str]:
    """A receipt is free of windows and caps: nothing but the provider's fate keeps it back."""
    receipts = {row.enrollment_id: row for row in rows if row.journey == "receipts"}
    for one in people:
        if one.journey == "receipts" and one.ended_at is not None:
            row = receipts.get(one.id)
            if row is None or row.state not in _WENT:
                yield f"receipt of enrollment {one.id}: {row and (row.state, row.reason)}"


def _not_launched(people: Sequence[Row[Any]], everybody: Collection[int]) -> Iterator[str]:
    """A launch that was killed and begun again has entered all, or was never begun."""
    launched = {one.profile_id for one in people if one.launch_id is not None}
    if launched:
        yield from (f"profile {one} was not entered" for one in set(everybody) - launched)


def _not_planned(passed: Sequence[Row[Any]], rows: Iterable[Row[Any]]) -> Iterator[str]:
    """Enrollments that passed a send without a row with the outcome."""
    wanted = {(row.enrollment_id, row.step) for row in rows}
    for enrollment_id, step in passed:
        if step in _SENDS and (enrollment_id, step) not in wanted:
            yield f"what enrollment {enrollment_id} was to get at {step}"


def _over(policy: Policy, rows: Sequence[Row[Any]], zones: Mapping[int, str]) -> Iterator[str]:
    """Periods with more in them than their cap allows."""
    theirs: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        if row.kind == "marketing":
            theirs[row.profile_id].append(row)
    for person, some in theirs.items():
        for cap in policy.caps:
            counted = sorted(
                row.send_at
                for row in some
                if row.channel in cap.channels and cap.topic in (None, row.topic)
            )
            if at := _too_many(cap, counted, ZoneInfo(zones[person])):
                yield f"{cap}: profile {person}, from {at}"


def _too_many(cap: Cap, times: Sequence[Instant], zone: ZoneInfo) -> str | None:
    if cap.within is not None:
        for first, last in zip(times, times[cap.limit :], strict=False):
            if last - first < cap.within:
                return str(first)
        return None
    periods = Counter(_period(cap, datetime.fromtimestamp(at, zone).date()) for at in times)
    return next((str(start) for start, number in periods.items() if number > cap.limit), None)


def _period(cap: Cap, day: date) -> date:
    match cap.per:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case _:
            return day


def _explanation(row: Row[Any], fate: Fate, silent: Collection[int]) -> str | None:
    """No response, a late one or an unclear one; or the process was killed or lost the database
    before the request."""
    if row.claimed_by is None:
        slow = (row.reason or "").startswith("ReadTimeout")
        return "no answer" if slow or row.id in silent else None
    if int(row.claimed_by.rpartition(":")[2]) in fate.killed:
        return "killed"
    lost = any(
        began - fate.claim_lasts <= row.send_at <= ended + 1 for began, ended in fate.troubles
    )
    return "database" if lost else None


def _untrue(rows: Mapping[int, Row[Any]], accepted: Mapping[int, Sequence[float]]) -> Iterator[str]:
    """Rows that contradict the provider."""
    for one, times in accepted.items():
        row = rows.get(one)
        if row is None or row.state not in _WENT:
            yield f"message {one} was accepted and is {row and row.state}"
        elif times[0] < row.send_at:
            yield f"message {one} went {row.send_at - times[0]:.1f} s before its claim"
    for row in rows.values():
        if row.state == "sent" and row.id not in accepted:
            yield f"message {row.id} is sent and was never accepted"


def _untrue_of_devices(
    rows: Mapping[int, Row[Any]],
    devices: Mapping[tuple[int, str], str],
    accepted: Collection[tuple[int, str]],
) -> Iterator[str]:
    """Devices that contradict the provider or their message."""
    for one in accepted:
        if devices.get(one) not in _WENT:
            yield f"message {one[0]} was accepted for {one[1]}, which is {devices.get(one)}"
    states: dict[int, set[str]] = defaultdict(set)
    for one, state in devices.items():
        states[one[0]].add(state)
        if state == "sent" and one not in accepted:
            yield f"message {one[0]} is sent to {one[1]} and was never accepted for it"
        if state in ("sending", "later") and rows[one[0]].state in (*_WENT, "failed"):
            yield f"message {one[0]} is {rows[one[0]].state}, and for {one[1]} it is {state}"
    for message_id, found in states.items():
        became = next((one for one in ("sent", "unknown") if one in found), None)
        if became is not None and rows[message_id].state != became:
            yield f"message {message_id} is {rows[message_id].state}, its devices are {found}"


def _late(fate: Fate) -> Iterator[str]:
    """What was not posted within its claim is given back. Between the look at the clock and the
    post there is nothing but the machine's own pace.
    """
    for one in fate.posts:
        if one.at - one.claimed_at > fate.claim_lasts + _PACE:
            yield f"message {one.message_id} went {one.at - one.claimed_at:.1f} s after its claim"
