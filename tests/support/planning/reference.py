"""A slow reference of the planning rules: it steps through time and checks each instant.

It is written from the specification only, to test the planner. It is simple rather than fast, and
shares only the zone database and the parsing of times with the planner. It takes the same case and
gives the same answer, without the text of `rule`. Cases must be well-formed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any

from config.clock.times import DAY, HOUR, MINUTE, format_instant, parse_duration, parse_instant
from config.clock.zones import zone, zone_names, zones_of_country

WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS_IN_FULL = [
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
]  # fmt: skip
COUNTING = {"planned", "sending", "sent", "delivered", "unknown"}
# Only those that the tests use.
SPELLINGS = {"EIRE": "IE", "RSA": "ZA", "USA": "US", "UK": "GB", "Germany": "DE"}
DIALLED = {
    "+49": "DE", "+44": "GB", "+34": "ES", "+64": "NZ", "+353": "IE",
    "+351": "PT", "+977": "NP", "+1650": "US", "+1416": "CA", "+685": "WS",
}  # fmt: skip


# --- local time ---------------------------------------------------------------------------------


def local(instant: int, zone_name: str) -> datetime:
    """The local wall-clock time."""
    return datetime.fromtimestamp(instant, zone(zone_name)).replace(tzinfo=None)


def offset(instant: int, zone_name: str) -> int:
    """Seconds by which local time is ahead of UTC."""
    ahead = datetime.fromtimestamp(instant, zone(zone_name)).utcoffset()
    assert ahead is not None
    return int(ahead.total_seconds())


@cache
def edge(zone_name: str, wall: datetime, *, closing: bool) -> int:
    """The instant of a window's edge.

    A local time that occurs twice opens at the first and closes at the second. One that does not
    occur is the first instant after the gap.
    """
    near = int(wall.replace(tzinfo=UTC).timestamp())
    around = range(near - 26 * HOUR, near + 27 * HOUR, 2 * HOUR)
    # every offset in force near that time; none lasts less than two hours
    offsets = {offset(t, zone_name) for t in around}
    shown = sorted(near - ahead for ahead in offsets if local(near - ahead, zone_name) == wall)
    if shown:
        return shown[-1] if closing else shown[0]
    return next(
        t for t in range(near - 26 * HOUR, near + 26 * HOUR, MINUTE) if local(t, zone_name) > wall
    )


def wall_time(day: date, clock: str) -> datetime:
    """Parse a time of day; `24:00` is 00:00 of the next day."""
    hours, minutes = clock.split(":")
    return datetime.combine(day, time()) + timedelta(hours=int(hours), minutes=int(minutes))


def weekdays(text: str) -> set[int]:
    """Parse days: names, ranges that may wrap, and comma lists of both."""
    found: set[int] = set()
    for part in text.replace(" ", "").lower().split(","):
        first, _, last = part.partition("-")
        day = WEEKDAYS.index(first)
        found.add(day)
        while last and day != WEEKDAYS.index(last):
            day = (day + 1) % 7
            found.add(day)
    return found


def openings(
    windows: Sequence[dict[str, str]], zone_name: str, start: int, end: int
) -> list[tuple[int, int]]:
    """Every [opens, closes) of these windows in this zone that may overlap [start, end]."""
    found = []
    day = local(start, zone_name).date() - timedelta(days=3)
    while day <= local(end, zone_name).date() + timedelta(days=3):
        for window in windows:
            if day.weekday() in weekdays(window["days"]):
                opens, closes = wall_time(day, window["from"]), wall_time(day, window["to"])
                if closes < opens:
                    closes += timedelta(days=1)  # it crosses midnight
                found.append(
                    (
                        edge(zone_name, opens, closing=False),
                        edge(zone_name, closes, closing=True),
                    )
                )
        day += timedelta(days=1)
    return found


# --- the case -----------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class Wanted:
    """One message of the case, and its decision."""

    channel: str
    kind: str
    topic: str
    after: int
    on_cap: str
    max_delay: int
    reason: str | None = None
    send_at: int | None = None


@dataclass(kw_only=True)
class Counted:
    """A message that a cap may count."""

    channel: str
    kind: str
    topic: str
    send_at: int


@dataclass
class Judge:
    """One case, checked every `step` seconds."""

    case: dict[str, Any]
    step: int
    now: int = field(init=False)
    zones: list[str] = field(init=False)
    source: str = field(init=False)
    history: list[Counted] = field(init=False)
    members: list[Wanted] = field(init=False)
    spans: dict[tuple[str, str], list[tuple[int, int]]] = field(init=False, default_factory=dict)
    dates: dict[tuple[str, int], date] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.policy = self.case["policy"]
        self.profile = self.case["profile"]
        self.now = parse_instant(self.case["now"])
        self.zones, self.source = self.whose_zones()
        self.history = [
            Counted(
                channel=e["channel"],
                kind=e["kind"],
                topic=e["topic"],
                send_at=parse_instant(e["send_at"]),
            )
            for e in self.case.get("history", [])
            if e["state"] in COUNTING
        ]
        self.members = [
            Wanted(
                channel=m["channel"],
                kind=m["kind"],
                topic=m["topic"],
                after=parse_duration(m.get("after", "0s")),
                on_cap=m.get("on_cap", "skip"),
                max_delay=parse_duration(m.get("max_delay", self.policy["max_delay"])),
            )
            for m in self.case["send"]["messages"]
        ]

    # --- zones and refusals

    def whose_zones(self) -> tuple[list[str], str]:
        own = self.profile.get("timezone")
        if own in zone_names():
            return [own], "profile"
        country = self.profile.get("country") or ""
        of_country = zones_of_country(SPELLINGS.get(country, country))
        if of_country:
            return list(of_country), "country"
        addresses = self.profile["addresses"]
        phone = addresses.get("sms") or addresses.get("whatsapp") or ""
        for prefix, code in DIALLED.items():
            if phone.startswith(prefix):
                return list(zones_of_country(code)), "phone"
        return [self.policy["timezone"]], "brand"

    def refused_at_once(self, member: Wanted) -> str | None:
        """Rules 1 to 4, in their order."""
        marketing = member.kind == "marketing"
        if not self.profile["addresses"].get(member.channel):
            return "no_address"
        if member.channel in self.profile.get("suppressed", []):
            return "suppressed"
        said = self.profile.get("consent", {}).get(member.channel, {})
        if member.channel in ("sms", "whatsapp") and said.get("*") is False:
            return "no_consent"
        if marketing and not said.get(member.topic, said.get("*", self.opt_out(member.channel))):
            return "no_consent"
        if marketing and self.profile.get("held_out", False):
            return "held_out"
        return None

    def opt_out(self, channel: str) -> bool:
        if channel in ("sms", "whatsapp"):
            return False
        return bool(self.channel_policy(channel).get("consent", "opt-out") == "opt-out")

    def channel_policy(self, channel: str) -> dict[str, Any]:
        found: dict[str, Any] = self.policy.get("channels", {}).get(channel, {})
        return found

    # --- windows

    def is_open(self, member: Wanted, moment: int) -> bool:
        """Whether the instant is in a window of the channel, in every zone."""
        windows = self.channel_policy(member.channel).get("windows")
        if windows is None:
            return True
        return all(
            any(opens <= moment < closes for opens, closes in self.openings(member.channel, name))
            for name in self.zones
        )

    def openings(self, channel: str, zone_name: str) -> list[tuple[int, int]]:
        if (channel, zone_name) not in self.spans:
            reach = max(m.after + m.max_delay for m in self.members) + DAY
            windows = self.channel_policy(channel)["windows"]
            self.spans[channel, zone_name] = openings(
                windows, zone_name, self.now - DAY, self.now + reach
            )
        return self.spans[channel, zone_name]

    # --- caps

    def caps_hold(self, member: Wanted, moment: int, others: Iterable[Counted]) -> bool:
        others = list(others)
        return all(
            self.cap_holds(cap, moment, [o.send_at for o in others if counts(cap, o)])
            for cap in self.policy.get("caps", [])
            if concerns(cap, member)
        )

    def cap_holds(self, cap: dict[str, Any], moment: int, counted: list[int]) -> bool:
        limit: int = cap["limit"]
        if "within" in cap:
            length = parse_duration(cap["within"])
            all_of_them = [*counted, moment]
            # Moving a window forward to its first message loses none of its messages, so checking
            # the windows that start at a message is enough.
            starts = [s for s in all_of_them if s <= moment < s + length]
            return all(sum(s <= m < s + length for m in all_of_them) <= limit for s in starts)
        return all(
            1 + sum(self.period(cap, name, m) == self.period(cap, name, moment) for m in counted)
            <= limit
            for name in self.zones
        )

    def period(self, cap: dict[str, Any], zone_name: str, moment: int) -> date:
        """The first date of the day, week or month in the zone's calendar."""
        if (zone_name, moment) not in self.dates:
            self.dates[zone_name, moment] = local(moment, zone_name).date()
        day = self.dates[zone_name, moment]
        if cap["per"] == "day":
            return day
        if cap["per"] == "month":
            return day.replace(day=1)
        starts = WEEKDAYS_IN_FULL.index(self.policy.get("week_starts", "monday"))
        return day - timedelta(days=(day.weekday() - starts) % 7)

    # --- the group

    def decide(self) -> None:
        for member in self.members:
            member.reason = self.refused_at_once(member)
        if self.case["send"]["mode"] == "first":
            self.decide_first()
            return
        free = [m for m in self.members if m.reason is None and m.kind == "transactional"]
        for member in free:
            member.send_at = self.now + member.after
        background = [*self.history, *as_counted(free, self.now)]
        rest = [m for m in self.members if m.reason is None and m.kind == "marketing"]
        self.decide_together(rest, background)
        if self.case["send"]["mode"] == "all" and any(m.reason for m in self.members):
            for member in self.members:
                member.reason = member.reason or "group_incomplete"

    def decide_first(self) -> None:
        chosen = False
        for member in self.members:
            if chosen:
                member.reason = "not_chosen"
            elif member.reason is None:
                if member.kind == "transactional":
                    member.send_at = self.now + member.after
                else:
                    self.decide_together([member], self.history)
                chosen = member.reason is None

    def decide_together(self, rest: list[Wanted], background: list[Counted]) -> None:
        rest = list(rest)
        while rest:
            anchor = self.anchor(rest, background)
            if anchor is None:
                hopeless = [(m, self.why_not_alone(m, background)) for m in rest]
                leaving = [(m, reason) for m, reason in hopeless if reason]
                if not leaving:
                    no_caps = self.anchor(rest, background, with_caps=False)
                    leaving = [(rest[-1], "no_common_time" if no_caps is None else "capped")]
            else:
                refused = self.first_skipped(rest, background, anchor)
                leaving = [(refused, "capped")] if refused else []
            if anchor is not None and not leaving:
                for member in rest:
                    member.send_at = anchor + member.after
                return
            for member, reason in leaving:
                member.reason = reason
                rest.remove(member)

    def anchor(
        self, rest: list[Wanted], background: list[Counted], *, with_caps: bool = True
    ) -> int | None:
        """The earliest anchor at which all members are in windows and deferrable ones within caps.

        A deferrable member counts the members before it, including those that can be skipped.
        """
        for moment in range(self.now, self.now + min(m.max_delay for m in rest) + 1, self.step):
            if all(self.is_open(m, moment + m.after) for m in rest) and (
                not with_caps
                or all(
                    self.holds_in_group(rest, place, background, moment)
                    for place, m in enumerate(rest)
                    if m.on_cap == "defer"
                )
            ):
                return moment
        return None

    def holds_in_group(
        self, rest: list[Wanted], place: int, background: list[Counted], anchor: int
    ) -> bool:
        before = as_counted(rest[:place], anchor)
        return self.caps_hold(rest[place], anchor + rest[place].after, [*background, *before])

    def first_skipped(
        self, rest: list[Wanted], background: list[Counted], anchor: int
    ) -> Wanted | None:
        for place, member in enumerate(rest):
            if member.on_cap == "skip" and not self.holds_in_group(rest, place, background, anchor):
                return member
        return None

    def why_not_alone(self, member: Wanted, background: list[Counted]) -> str | None:
        """`capped` or `window_closed`; None if the member could be sent alone."""
        if self.anchor([member], background, with_caps=False) is None:
            return "window_closed"
        anchor = self.anchor([member], background)
        if anchor is None or self.first_skipped([member], background, anchor):
            return "capped"
        return None


def concerns(cap: dict[str, Any], member: Wanted) -> bool:
    return (
        (cap["channels"] == "all" or member.channel in cap["channels"])
        and cap.get("topic") in (None, member.topic)
        and member.kind == "marketing"
    )


def counts(cap: dict[str, Any], other: Counted) -> bool:
    return (
        (cap["channels"] == "all" or other.channel in cap["channels"])
        and cap.get("topic") in (None, other.topic)
        and (other.kind == "marketing" or cap.get("counts", "marketing") == "all")
    )


def as_counted(members: Sequence[Wanted], anchor: int) -> list[Counted]:
    return [
        Counted(channel=m.channel, kind=m.kind, topic=m.topic, send_at=anchor + m.after)
        for m in members
    ]


def reference_answer(case: dict[str, Any], step: int = MINUTE) -> dict[str, Any]:
    """Answer a well-formed case whose times are all whole steps from `now`."""
    judge = Judge(case, step)
    judge.decide()
    return {
        "id": case["id"],
        "decisions": [
            {
                "channel": m.channel,
                "outcome": "not_sent" if m.reason else "send",
                "send_at": None if m.reason or m.send_at is None else format_instant(m.send_at),
                "reason": m.reason,
                "timezone": judge.zones[0] if len(judge.zones) == 1 else judge.zones,
                "timezone_source": judge.source,
            }
            for m in judge.members
        ],
    }
