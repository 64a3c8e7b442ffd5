"""What came of a simulation, read from the rows of its copy."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, Text, and_, bindparam, cast, func, or_, select

from channels.messages import messages
from channels.providers.registry import ConnectedProviders
from channels.rules.loaders import load_recipients
from channels.rules.planner import Planner
from channels.rules.recipient import Kind
from channels.rules.windows import OpeningHours
from config.channels import ChannelName
from config.clock.times import DAY, Instant, Seconds
from config.clock.zones import zone
from config.database.arrays import any_of, one_of
from config.database.engine import Tx
from config.policy import Cap
from journeys.enrollments import enrollments
from journeys.operations.counts import AHEAD, HANDED_OVER, counted_reason, counted_state
from journeys.simulation.rates import AnswerKind, Delay, Rate
from profiles.tables import profiles

_m, _e = messages.c, enrollments.c
_PERIODS: Mapping[str, Seconds] = {"day": DAY, "week": 7 * DAY, "month": 31 * DAY}


class _Row(NamedTuple):
    """One message of the simulated time."""

    id: int
    profile_id: int
    enrollment_id: int
    journey: str
    step: str
    member: str
    channel: ChannelName
    kind: Kind
    topic: str
    after: Seconds
    wanted_at: Instant
    send_at: Instant
    state: str
    reason: str | None

    @property
    def is_sent(self) -> bool:
        return self.state in HANDED_OVER

    @property
    def why_not(self) -> str:
        """The code of the reason: "missing_data: event.url" -> missing_data."""
        return (counted_reason(self.state, self.reason) or self.state).split(":")[0]


class HeldBack(NamedTuple):
    """Sent messages of a step that left later than wanted, and the part of their delay.

    by: "window": until their channel's window opens; "group": from then until the windows of the
    other messages of their step are open too; "cap": the rest, until the caps allow them. median,
    p95, longest: seconds of this part.
    """

    journey: str
    step: str
    channel: ChannelName
    by: str
    messages: int
    median: Seconds
    p95: Seconds
    longest: Seconds


class Collision(NamedTuple):
    """Messages of one journey that another one kept from being sent, or replaced.

    what: "capped": the other's messages had filled the cap; "preempted": the other's took the place
    of planned ones.
    """

    journey: str
    step: str
    by_journey: str
    by_step: str
    what: str
    messages: int


class Load(NamedTuple):
    """What one provider gets. rate: messages a second; None: no limit.

    most_in_a_second: messages due in the same second. most_in_an_hour: of the busiest hour, which
    starts at `busiest`. waits: the longest time, in seconds, that a message waits for the rate.
    """

    provider: str
    messages: int
    rate: int | None
    most_in_a_second: int
    most_in_an_hour: int
    busiest: Instant
    waits: Seconds


@dataclass(slots=True, kw_only=True)
class StepResult:
    """The messages of a step on one channel."""

    sent: int = 0
    not_sent: Counter[str] = field(default_factory=Counter)
    planned: int = 0


@dataclass(slots=True, kw_only=True)
class Results:
    """Counts of one simulation. Days and hours are in the brand's time zone.

    people: profiles in the copy. entered: by journey, during the simulation. converted: likewise.
    planned: messages that are still to be sent at its end. by_day, by_hour: (sent, not sent).
    a_person: messages of each profile that got any, in order. why: by journey, why people did not
    enter or move, and how many. answers, rates: by journey, channel and kind. delays: by kind, and
    channel of opens or journey of purchases. replayed: of a replay the messages that were answered
    as they were then, and those that were answered by rates.
    """

    start: Instant
    end: Instant
    people: int
    entered: Counter[str]
    converted: Counter[str]
    sent: Counter[ChannelName] = field(default_factory=Counter)
    not_sent: Counter[str] = field(default_factory=Counter)
    planned: Counter[ChannelName] = field(default_factory=Counter)
    by_day: dict[str, tuple[int, int]] = field(default_factory=dict)
    by_hour: dict[int, tuple[int, int]] = field(default_factory=dict)
    by_step: dict[tuple[str, str, ChannelName], StepResult] = field(default_factory=dict)
    held_back: list[HeldBack] = field(default_factory=list)
    collisions: list[Collision] = field(default_factory=list)
    load: list[Load] = field(default_factory=list)
    a_person: list[int] = field(default_factory=list)
    why: dict[str, Counter[str]] = field(default_factory=dict)
    answers: Counter[tuple[str, ChannelName, AnswerKind]] = field(default_factory=Counter)
    rates: dict[tuple[str, ChannelName, AnswerKind], Rate] = field(default_factory=dict)
    delays: dict[tuple[AnswerKind, str], Delay] = field(default_factory=dict)
    replayed: tuple[int, int] | None = None


def under_way(tx: Tx) -> Sequence[int]:
    """The ids of the messages that are still to be sent."""
    return tx.conn.execute(select(_m.id).where(one_of(_m.state, AHEAD))).scalars().all()


def read_results(
    tx: Tx,
    planner: Planner,
    providers: ConnectedProviders,
    journeys: Collection[str],
    start: Instant,
    before: Collection[int],
    *,
    of_launch: bool = False,
) -> Results:
    """Count what was decided and sent from `start` to the copy's time. Entries and conversions are
    those of `journeys`.

    before: the messages that were under way at the start. of_launch: count only the messages to
    those who entered from then on.
    """
    rows = [_Row._make(row) for row in tx.conn.execute(_rows(), {"start": start, "before": before})]
    if of_launch:
        entered = set(tx.conn.execute(select(_e.id).where(_e.entered_at >= start)).scalars())
        rows = [row for row in rows if row.enrollment_id in entered]
    asked = one_of(_e.journey, sorted(journeys))
    results = Results(
        start=start,
        end=tx.now,
        people=tx.conn.execute(select(func.count()).select_from(profiles)).scalar_one(),
        entered=_count(tx, and_(_e.entered_at >= start, asked)),
        converted=_count(tx, and_(_e.converted_at >= start, asked)),
    )
    brand = zone(planner.policy.timezone)
    days: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    hours: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        of_step = results.by_step.setdefault((row.journey, row.step, row.channel), StepResult())
        if row.state in AHEAD:
            results.planned[row.channel] += 1
            of_step.planned += 1
            continue
        at = datetime.fromtimestamp(row.send_at, brand)
        refused = not row.is_sent
        days[at.date().isoformat()][refused] += 1
        hours[at.hour][refused] += 1
        if refused:
            results.not_sent[row.why_not] += 1
            of_step.not_sent[row.why_not] += 1
        else:
            results.sent[row.channel] += 1
            of_step.sent += 1
    results.by_day = {day: (sent, not_sent) for day, (sent, not_sent) in sorted(days.items())}
    results.by_hour = {hour: (sent, not_sent) for hour, (sent, not_sent) in sorted(hours.items())}
    sent = [row for row in rows if row.is_sent]
    results.a_person = sorted(Counter(row.profile_id for row in sent).values())
    results.held_back = _held_back(tx, planner, sent)
    results.collisions = _collisions(tx, planner, rows)
    results.load = list(_load(providers, sent))
    return results


def _count(tx: Tx, which: Any) -> Counter[str]:
    counted = select(_e.journey, func.count()).where(which).group_by(_e.journey)
    return Counter(dict(tx.conn.execute(counted).tuples().all()))


def _rows() -> Select[Any]:
    state = counted_state()
    columns = [state.label("state") if name == "state" else _m[name] for name in _Row._fields]
    in_time = or_(_m.wanted_at >= bindparam("start"), any_of(_m.id, "before"))
    return select(*columns).where(in_time).order_by(_m.id)


# Delays -------------------------------------------------------------------------------------------


def _held_back(tx: Tx, planner: Planner, sent: Sequence[_Row]) -> list[HeldBack]:
    groups: dict[tuple[int, str, Instant, Instant], list[_Row]] = defaultdict(list)
    late = [row for row in sent if row.send_at > row.wanted_at + row.after]
    for row in late:
        groups[row.enrollment_id, row.step, row.wanted_at, row.send_at - row.after].append(row)
    recipients = load_recipients(tx, planner.policy, {row.profile_id for row in late})
    delays: dict[tuple[str, str, ChannelName, str], list[Seconds]] = defaultdict(list)
    for (_, _, wanted, anchor), group in groups.items():
        situation = recipients[group[0].profile_id].situation
        hours = [(planner.hours(row.channel, situation), row.after) for row in group]
        common = _open_together(hours, wanted, anchor)
        for row, alone in zip(group, hours, strict=True):
            opens = _open_together([alone], wanted, anchor)
            for by, part in (
                ("window", opens - wanted),
                ("group", common - opens),
                ("cap", anchor - common),
            ):
                if part:
                    delays[row.journey, row.step, row.channel, by].append(part)
    return [
        HeldBack(
            *key,
            messages=len(some),
            median=share(some, 0.5),
            p95=share(some, 0.95),
            longest=some[-1],
        )
        for key, some in ((key, sorted(some)) for key, some in sorted(delays.items()))
    ]


def _open_together(
    members: Sequence[tuple[OpeningHours, Seconds]], wanted: Instant, latest: Instant
) -> Instant:
    """The earliest anchor from `wanted` on at which each member's window is open at its offset;
    at most `latest`.
    """
    anchor = wanted
    while True:
        opens = max(
            (hours.next_open(anchor + after, latest + after) or latest + after) - after
            for hours, after in members
        )
        if opens == anchor:
            return anchor
        anchor = opens


def share(ordered: Sequence[int], part: float) -> int:
    """The value below which this part of the ordered values lies; 0 without values."""
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0


# Collisions ---------------------------------------------------------------------------------------


def _collisions(tx: Tx, planner: Planner, rows: Sequence[_Row]) -> list[Collision]:
    found: Counter[tuple[str, str, str, str, str]] = Counter()
    told = select(_m.journey, _m.step, _m.decision["took_place_of"]).where(
        cast(_m.decision, Text).contains("took_place_of")
    )
    for journey, step, victims in tx.conn.execute(told):
        for victim in victims or ():
            of_journey, of_step = victim.split(" / ")[:2]
            found[of_journey, of_step, journey, step, "preempted"] += 1
    gave_way = select(_m.id).where(cast(_m.decision, Text).contains("gave_way_to"))
    counted = set(tx.conn.execute(gave_way).scalars())
    found.update(_capped(planner, [row for row in rows if row.id not in counted]))
    return [Collision(*key, number) for key, number in found.most_common()]


def _capped(planner: Planner, rows: Sequence[_Row]) -> Counter[tuple[str, str, str, str, str]]:
    """Who had filled the caps that refused messages: the nearest message that counts."""
    counting: dict[int, list[_Row]] = defaultdict(list)
    refused = [row for row in rows if row.state == "skipped" and row.why_not == "capped"]
    concerned = {row.profile_id for row in refused}
    for row in rows:
        if row.profile_id in concerned and (row.is_sent or row.state in AHEAD):
            counting[row.profile_id].append(row)
    found: Counter[tuple[str, str, str, str, str]] = Counter()
    for row in refused:
        near = [
            one
            for one in counting[row.profile_id]
            if any(_share_a_cap(cap, row, one) for cap in planner.policy.caps)
        ]
        if near:
            one = min(near, key=lambda one: abs(one.send_at - row.send_at))
            found[row.journey, row.step, one.journey, one.step, "capped"] += 1
    return found


def _share_a_cap(cap: Cap, refused: _Row, other: _Row) -> bool:
    length = cap.within or _PERIODS[cap.per or "day"]
    return (
        refused.channel in cap.channels
        and other.channel in cap.channels
        and cap.topic in (None, refused.topic)
        and cap.topic in (None, other.topic)
        and (other.kind == "marketing" or cap.counts == "all")
        and abs(other.send_at - refused.send_at) < length
    )


# Load ---------------------------------------------------------------------------------------------


def _load(providers: ConnectedProviders, sent: Sequence[_Row]) -> Iterator[Load]:
    by_provider: dict[str, list[Instant]] = defaultdict(list)
    for row in sent:
        name = providers.routes[row.channel].provider(row.kind, row.topic)
        by_provider[name].append(row.send_at)
    for name, moments in sorted(by_provider.items()):
        moments.sort()
        seconds = Counter(moments)
        hours = Counter(at // 3600 * 3600 for at in moments)
        busiest, most = max(hours.items(), key=lambda item: item[1])
        rate = providers.by_name[name].rate
        yield Load(
            provider=name,
            messages=len(moments),
            rate=rate,
            most_in_a_second=max(seconds.values()),
            most_in_an_hour=most,
            busiest=busiest,
            waits=0 if rate is None else _waits(sorted(seconds.items()), rate),
        )


def _waits(seconds: Sequence[tuple[Instant, int]], rate: int) -> Seconds:
    """The longest wait in seconds if a provider takes `rate` messages a second."""
    longest = free_at = 0.0
    for at, number in seconds:
        free_at = max(free_at, at) + number / rate
        longest = max(longest, free_at - at)
    return int(longest)
