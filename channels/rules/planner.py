"""The decisions about the messages of one send: which are sent when, and why others are refused.

Pure: no I/O, no clock. Planning, claiming and `segue decide` use this code. docs/journeys/policy.md
describes the rules and their order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from channels.rules.caps import NEVER, Count, Counted, counts
from channels.rules.recipient import Kind, Situation
from channels.rules.windows import OpeningHours
from config.channels import ChannelName
from config.clock.times import Instant, Seconds, format_duration, format_instant
from config.policy import Cap, Policy, Window

Mode = Literal["all", "any", "first"]
OnCap = Literal["skip", "defer"]
Reason = Literal[
    "no_address",
    "suppressed",
    "no_consent",
    "held_out",
    "capped",
    "window_closed",
    "no_common_time",
    "group_incomplete",
    "not_chosen",
    "no_session",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One message of a send, as the step wants it.

    offset: seconds after the group's anchor. max_delay: the most seconds that it may be delayed.
    refused: a reason to refuse it that is known only at the hand-over.
    """

    channel: ChannelName
    kind: Kind
    topic: str
    offset: Seconds
    on_cap: OnCap
    max_delay: Seconds
    refused: Reason | None = None


class Decision(NamedTuple):
    """The send time of a message, or the reason for its refusal with the rule that decided."""

    send_at: Instant | None
    reason: str | None = None
    rule: str | None = None

    def described(self, situation: Situation) -> dict[str, Any]:
        """The decision as JSON, for message rows and `segue decide`."""
        names = situation.zones.names
        described: dict[str, Any] = {
            "outcome": "not_sent" if self.reason else "send",
            "send_at": None if self.send_at is None else format_instant(self.send_at),
            "reason": self.reason,
            "rule": self.rule,
            "timezone": names[0] if len(names) == 1 else list(names),
            "timezone_source": situation.zones.source,
        }
        if situation.zones.chosen:
            described["timezone_chosen"] = True
        if situation.zones.invalid:
            described["invalid_timezone"] = situation.zones.invalid
        return described


class _Member(NamedTuple):
    place: int
    wanted: Wanted
    hours: OpeningHours


class Planner:
    """Decides with one policy; caches the open hours and caps that it computes."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._hours: dict[tuple[ChannelName, tuple[str, ...], Window | None], OpeningHours] = {}
        self._caps: dict[tuple[ChannelName, str], tuple[Cap, ...]] = {}

    def hours(self, channel: ChannelName, situation: Situation) -> OpeningHours:
        """The channel's open hours for a recipient."""
        key = (channel, situation.zones.names, situation.own.hours)
        hours = self._hours.get(key)
        if hours is None:
            hours = OpeningHours(self.policy.windows(channel), key[1], key[2])
            self._hours[key] = hours
        return hours

    def caps(self, channel: ChannelName, topic: str, situation: Situation) -> tuple[Cap, ...]:
        """The caps for a marketing message on this channel and topic, including the recipient's."""
        own = situation.own.per_week
        return self._policy_caps(channel, topic) + (() if own is None else (own,))

    def _policy_caps(self, channel: ChannelName, topic: str) -> tuple[Cap, ...]:
        caps = self._caps.get((channel, topic))
        if caps is None:
            probe = Counted(send_at=0, channel=channel, kind="marketing", topic=topic)
            caps = tuple(cap for cap in self.policy.caps if counts(cap, probe))
            self._caps[channel, topic] = caps
        return caps

    def decide(
        self,
        situation: Situation,
        mode: Mode,
        wanted: Sequence[Wanted],
        history: Sequence[Counted],
        now: Instant,
    ) -> list[Decision]:
        """Decide a group of messages that are wanted now; one decision each, in their order.

        Parameters
        ----------
        history: the sent and planned messages that count against caps, in any order.
        """
        if mode == "first":
            return self._first(situation, wanted, history, now)
        decisions = self._together(situation, wanted, history, now)
        return _whole(wanted, decisions) if mode == "all" else decisions

    def _first(
        self,
        situation: Situation,
        wanted: Sequence[Wanted],
        history: Sequence[Counted],
        now: Instant,
    ) -> list[Decision]:
        decisions: list[Decision] = []
        for message in wanted:
            decisions += self._together(situation, [message], history, now)
            if decisions[-1].reason is None:
                break
        left = len(wanted) - len(decisions)
        return decisions + [Decision(None, "not_chosen")] * left

    def _together(
        self,
        situation: Situation,
        wanted: Sequence[Wanted],
        history: Sequence[Counted],
        now: Instant,
    ) -> list[Decision]:
        """Decide the messages with a common anchor, without those that can't be sent."""
        decisions: list[Decision] = [Decision(None)] * len(wanted)
        alive: list[_Member] = []
        for place, message in enumerate(wanted):
            reason: str | None = situation.refusal(
                self.policy, message.channel, message.kind, message.topic
            )
            reason = reason or message.refused
            if reason:
                decisions[place] = Decision(None, reason)
            elif message.kind == "transactional":
                at = now + message.offset
                decisions[place] = Decision(at)
                history = [
                    *history,
                    Counted(
                        send_at=at, channel=message.channel, kind=message.kind, topic=message.topic
                    ),
                ]
            else:
                hours = self.hours(message.channel, situation)
                alive.append(_Member(place, message, hours))
        search = _Search(planner=self, situation=situation, history=history, now=now)
        while alive:
            anchor = search.anchor(alive)
            if anchor is not None:
                refused = search.capped_skip(alive, anchor)
                if refused is None:
                    for member in alive:
                        decisions[member.place] = Decision(anchor + member.wanted.offset)
                    break
                leaving = [
                    (refused, Decision(None, "capped", search.cap_at(alive, refused, anchor)))
                ]
            else:
                leaving = [
                    (member, search.refusal_alone(member))
                    for member in alive
                    if not search.could_go_alone(member)
                ] or [(alive[-1], search.refusal_together(alive))]
            for member, decision in leaving:
                decisions[member.place] = decision
                alive.remove(member)
        return decisions


def _whole(wanted: Sequence[Wanted], decisions: list[Decision]) -> list[Decision]:
    """Refuse the whole group if one message is refused; the rule names the first of these."""
    for message, refused in zip(wanted, decisions, strict=True):
        if refused.reason:
            rule = ", ".join(filter(None, (refused.reason, refused.rule)))
            incomplete = Decision(None, "group_incomplete", f"{message.channel} is refused: {rule}")
            return [decision if decision.reason else incomplete for decision in decisions]
    return decisions


class _Search:
    """The search for a common anchor of one recipient's group."""

    def __init__(
        self, *, planner: Planner, situation: Situation, history: Sequence[Counted], now: Instant
    ) -> None:
        self.planner = planner
        self.situation = situation
        self.history = history
        self.now = now
        self._counts: dict[tuple[ChannelName, str], list[Count]] = {}

    def anchor(self, group: Sequence[_Member], *, caps: bool = True) -> Instant | None:
        """The earliest anchor within all windows and the caps of members with on_cap "defer"."""
        anchor = self.now
        latest = self.now + min(member.wanted.max_delay for member in group)
        while anchor <= latest:
            bound = self._bound(group, anchor, latest, caps)
            if bound is None:
                return anchor
            anchor = bound
        return None

    def _bound(
        self, group: Sequence[_Member], anchor: Instant, latest: Instant, caps: bool
    ) -> Instant | None:
        """None if the anchor fits all members, else a lower bound for anchors that may fit."""
        for number, member in enumerate(group):
            offset = member.wanted.offset
            opens = member.hours.next_open(anchor + offset, latest + offset)
            if opens is None:
                return NEVER
            if opens > anchor + offset:
                return opens - offset
            if caps and member.wanted.on_cap == "defer":
                for _, bound in self._blocking(group[:number], member, anchor):
                    return bound
        return None

    def capped_skip(self, group: Sequence[_Member], anchor: Instant) -> _Member | None:
        """The first member with on_cap "skip" that a cap refuses at this anchor."""
        for number, member in enumerate(group):
            if member.wanted.on_cap == "skip":
                for _ in self._blocking(group[:number], member, anchor):
                    return member
        return None

    def could_go_alone(self, member: _Member) -> bool:
        """Whether it could be sent as the only member."""
        anchor = self.anchor([member])
        return anchor is not None and self.capped_skip([member], anchor) is None

    def refusal_alone(self, member: _Member) -> Decision:
        """The decision for a member that can't be sent even as the only one."""
        anchor = self.anchor([member], caps=False)
        if anchor is not None:
            return Decision(None, "capped", self.cap_at([member], member, anchor))
        within = format_duration(member.wanted.max_delay)
        rule = f"{self._windows([member])}: closed for {within}"
        return Decision(None, "window_closed", rule)

    def refusal_together(self, group: Sequence[_Member]) -> Decision:
        """The decision for the last of several members that could each be sent alone."""
        anchor = self.anchor(group, caps=False)
        if anchor is None:
            within = format_duration(min(member.wanted.max_delay for member in group))
            rule = f"{self._windows(group)}: not open together for {within}"
            return Decision(None, "no_common_time", rule)
        rules = (self.cap_at(group, member, anchor) for member in reversed(group))
        return Decision(None, "capped", next(filter(None, rules), None))

    def _windows(self, group: Sequence[_Member]) -> str:
        """The windows of a group's channels and the recipient's own hours, as text."""
        parts = [
            f"{channel} window {'; '.join(map(str, windows))}"
            for channel in dict.fromkeys(member.wanted.channel for member in group)
            if (windows := self.planner.policy.windows(channel))
        ]
        if own := self.situation.own.hours:
            parts.append(f"their own hours {own}")
        return ", ".join(parts)

    def cap_at(self, group: Sequence[_Member], member: _Member, anchor: Instant) -> str | None:
        """The cap that refuses the member at an anchor with its count, as text."""
        earlier = group[: group.index(member)]
        for count, _ in self._blocking(earlier, member, anchor):
            moving = self._moving(count.cap, earlier)
            return count.describe(anchor, member.wanted.offset, moving)
        return None

    def _blocking(
        self, earlier: Sequence[_Member], member: _Member, anchor: Instant
    ) -> Iterator[tuple[Count, Instant]]:
        """The caps that refuse the member at an anchor, each with a lower bound for anchors."""
        for count in self._counted(member.wanted):
            moving = self._moving(count.cap, earlier) if earlier else ()
            bound = count.blocked_until(anchor, member.wanted.offset, moving)
            if bound is not None:
                yield count, bound

    def _moving(self, cap: Cap, members: Sequence[_Member]) -> list[Seconds]:
        return [
            member.wanted.offset
            for member in members
            if counts(
                cap,
                Counted(
                    send_at=0,
                    channel=member.wanted.channel,
                    kind="marketing",
                    topic=member.wanted.topic,
                ),
            )
        ]

    def _counted(self, wanted: Wanted) -> list[Count]:
        key = (wanted.channel, wanted.topic)
        counted = self._counts.get(key)
        if counted is None:
            counted = [
                Count(
                    cap=cap,
                    fixed=sorted(
                        message.send_at for message in self.history if counts(cap, message)
                    ),
                    zones=self.situation.zones.names,
                    first_weekday=self.planner.policy.first_weekday,
                )
                for cap in self.planner.caps(wanted.channel, wanted.topic, self.situation)
            ]
            self._counts[key] = counted
        return counted
