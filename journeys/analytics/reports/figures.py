"""The figures of a journey's report: what is counted, and the shares that follow. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from config.channels import Channel, channel_of
from config.clock.times import Instant, Seconds
from journeys.analytics.reports.period import ReportPeriod
from journeys.definition.journey import Goal

By = Literal["step", "arm", "channel", "segment", "week", "launch"]
# The shares of complaints below which Gmail and Yahoo want senders to stay, and which they must
# never reach. Source: their rules for senders of 5,000 mails a day, February 2024.
COMPLAINTS_WANTED = 0.001
COMPLAINTS_LIMIT = 0.003
# Measures that a provider or an app reports, by the evidence that a channel must have for them.
_EVIDENCE: Mapping[str, Literal["delivered", "opened", "clicked"]] = {
    "delivered": "delivered",
    "opened": "opened",
    "machine_opened": "opened",
    "clicked": "clicked",
}
MEASURES = (
    *("sent", "delivered", "opened", "machine_opened", "clicked", "converted"),
    *("orders", "unsubscribed", "complained", "returned"),
)


@dataclass(slots=True, kw_only=True)
class Figures:
    """Counts of one group, such as a step or a week.

    key, part: the name of the group; an arm has its experiment as key and itself as part.
    entered, active, goals: enrollments, those in progress, and those that converted; None: the
    group has messages only. counts: messages by measure and channel. planned: by channel.
    not_sent: by reason. revenue: in 1/UNIT of the currency. unreported: messages at a mailbox
    provider that reports no complaints.
    """

    key: str
    part: str = ""
    entered: int | None = None
    active: int | None = None
    goals: int | None = None
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    planned: Counter[str] = field(default_factory=Counter)
    not_sent: Counter[str] = field(default_factory=Counter)
    revenue: int = 0
    unreported: int = 0

    @property
    def sent(self) -> int:
        """The messages that a provider accepted, or may have."""
        return sum(number for (of, _), number in self.counts.items() if of == "sent")

    def count(self, measure: str) -> int | None:
        """The messages of a measure; None: nobody reports it for the messages that were sent."""
        if self._base(measure) == 0 < self.sent:
            return None
        return sum(number for (of, _), number in self.counts.items() if of == measure)

    def share(self, measure: str) -> float | None:
        """The part of the messages that could have it; None: there are none."""
        number, base = self.count(measure), self._base(measure)
        return number / base if number is not None and base else None

    def by_channel(self, measure: str) -> Counter[str]:
        """The messages of a measure by channel, without zeros."""
        return Counter({on: n for (of, on), n in self.counts.items() if of == measure and n})

    def add(self, other: "Figures") -> None:
        """Add the messages of a group that has no message in common with this one."""
        self.counts += other.counts
        self.planned += other.planned
        self.not_sent += other.not_sent
        self.revenue += other.revenue
        self.unreported += other.unreported

    def _base(self, measure: str) -> int:
        """The number of sent messages on which the measure would be reported."""
        base = sum(
            number
            for (of, on), number in self.counts.items()
            if of == "sent" and _is_reported(channel_of(on), measure, self.counts[measure, on])
        )
        return base - self.unreported if measure == "complained" else base


def _is_reported(channel: Channel, measure: str, number: int) -> bool:
    """Whether somebody reports a measure of messages on a channel.

    number: of the reports. Where an app or a link shortener of the shop reports, none at all means
    that it may not do so.
    """
    if measure == "complained":
        return channel.watch_bounces
    evidence = _EVIDENCE.get(measure)
    if evidence is None:
        return True
    if measure == "machine_opened" and not channel.watch_bounces:
        return False
    reporter = channel.evidence.get(evidence)
    return reporter is not None and (number > 0 or reporter.startswith("the provider"))


class FunnelStep(NamedTuple):
    """The enrollments at one step.

    reached: all that came to it. here: those at it now. left: by outcome. ended: those that ended
    here without leaving it, by reason. current: whether the current version has the step.
    """

    step: str
    reached: int
    here: int
    left: Counter[str]
    ended: Counter[str]
    current: bool


class Link(NamedTuple):
    """The messages of a step in which a link was clicked. url: without query; "": unknown."""

    step: str
    channel: str
    url: str
    clicked: int


class Delays(NamedTuple):
    """Messages of a channel that windows and caps planned for later than they were wanted.

    minutes: for how long, by number of messages. waiting: those not sent yet.
    """

    channel: str
    minutes: Counter[int]
    waiting: int

    def quantile(self, part: float) -> Seconds:
        """The delay that this part of the messages does not exceed, in seconds."""
        wanted, seen = part * self.minutes.total(), 0
        for minutes in sorted(self.minutes):
            seen += self.minutes[minutes]
            if seen >= wanted:
                return minutes * 60
        return 0


@dataclass(slots=True, kw_only=True)
class JourneyReport:
    """The report on one journey.

    launch: the only launch that it counts; None: all. first_entry: the first one ever.
    groups: one for each value of `by`. channels: one for each channel. mailboxes: e-mails by
    mailbox provider. ended: enrollments by reason. outcomes: messages by channel, counted state and
    reason. method: how the figures are counted. notes: what
    they do not contain. empty: why there is nothing to report; "" if there is.
    """

    journey: str
    by: By
    period: ReportPeriod
    launch: str | None
    counted_at: Instant
    first_entry: Instant | None
    currency: str
    goal: Goal | None
    total: Figures
    groups: list[Figures]
    channels: list[Figures]
    steps: list[FunnelStep]
    ended: Counter[str]
    links: list[Link]
    mailboxes: list[Figures]
    delays: list[Delays]
    outcomes: Counter[tuple[str, str, str]]
    method: list[str]
    notes: list[str]
    empty: str


def by_channel(groups: Iterable[Figures]) -> list[Figures]:
    """The figures of one grouping that has a channel as `part`, by channel."""
    channels: dict[str, Figures] = {}
    for one in groups:
        channels.setdefault(one.part, Figures(key=one.part)).add(one)
    return [channels[name] for name in sorted(channels, key=lambda name: channel_of(name).order)]
