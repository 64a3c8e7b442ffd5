"""What customers do in a simulation: they answer messages, by rates.

The draws depend on the seed, the customer, the journey and the step, so that a customer answers the
same message in the same way under another policy.
"""

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import select

from channels.messages import messages
from channels.providers.sending import Outgoing
from channels.providers.webhook import FeedbackKind
from config.channels import ChannelName, channel_of
from config.clock.times import DAY, HOUR, MINUTE, Instant, Seconds
from config.database.arrays import any_of
from config.database.engine import Database
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Goal
from journeys.simulation.copy import events_read
from journeys.simulation.inputs import AnswerInput, Input, Purchase
from journeys.simulation.rates import AnswerKind, AnswerRates, Delay, Rate
from profiles.tables import events

# Customers act at full hours: fewer moments, each with more to do.
GRAIN: Seconds = HOUR
# They open within this time, or not at all.
_OPENED_WITHIN: Seconds = 3 * DAY
# How many past purchases lend their properties to the simulated ones.
_EXAMPLES = 500

_m = messages.c
_WHO = select(
    _m.id, _m.profile_id, _m.enrollment_id, _m.journey, _m.step, _m.member, _m.channel, _m.kind
).where(any_of(_m.id, "messages"))


class _Draws(NamedTuple):
    """Independent numbers in [0, 1)."""

    delivered: float
    opened: float
    clicked: float
    unsubscribed: float
    opens_after: float


def to_grain(at: Instant) -> Instant:
    """The first moment at or after `at` at which customers act."""
    return -(-at // GRAIN) * GRAIN


class AnsweringPeople:
    """Customers who answer by rates; `answer` is a journeys.simulation.clock.Behave.

    Parameters
    ----------
    db: the copy. segments: the segment that each journey is launched for, by journey. buys: whether
    messages cause purchases.
    """

    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        *,
        rates: AnswerRates,
        segments: Mapping[str, str],
        seed: int,
        buys: bool = True,
    ) -> None:
        self.answers: Counter[tuple[str, ChannelName, AnswerKind]] = Counter()
        self.used: dict[tuple[str, ChannelName, AnswerKind], Rate] = {}
        self.delays: dict[tuple[AnswerKind, str], Delay] = {}
        self._db = db
        self._rates = rates
        self._segments = segments
        self._seed = seed
        self._buys = buys
        self._read = events_read(catalog)
        self._goals = {name: one.journey.goal for name, one in catalog.current.items()}
        self._examples = cache(self._load_examples)
        # Enrollments of which it is decided whether they buy.
        self._decided: set[int] = set()

    def answer(self, batch: Sequence[Outgoing], now: Instant) -> Iterator[tuple[Instant, Input]]:
        """What customers do about messages that were just sent."""
        to = {one.message_id: one.to for one in batch}
        with self._db.transaction(write=False) as tx:
            rows = tx.rows(_WHO, {"messages": list(to)})
        for message_id, profile_id, enrollment_id, journey, step, member, channel, kind in rows:
            key = f"{self._seed}/{journey}/{step}/{member}/{profile_id}"
            marketing = kind == "marketing"
            for at, report in self._reports(journey, channel, _draws(key), now, marketing):
                yield (
                    at,
                    AnswerInput(
                        id=f"simulated {message_id} {report}",
                        channel=channel,
                        kind=report,
                        message=message_id,
                        address=to[message_id],
                    ),
                )
            if self._buys and enrollment_id not in self._decided:
                self._decided.add(enrollment_id)
                if purchase := self._purchase(journey, channel, profile_id, message_id, now):
                    yield purchase

    def _reports(
        self, journey: str, channel: ChannelName, draws: _Draws, now: Instant, marketing: bool
    ) -> Iterator[tuple[Instant, FeedbackKind]]:
        """What the provider reports about one message, each with its time."""
        if draws.delivered >= self._rate("delivered", journey, channel):
            yield from self._noted(channel, "failed", now + MINUTE)
            return
        self.answers[journey, channel, "delivered"] += 1
        yield from self._noted(channel, "delivered", now + MINUTE)
        kind = channel_of(channel)
        at = now + min(self._after("opened", channel, draws.opens_after), _OPENED_WITHIN)
        opens = self._rate("opened", journey, channel) if "opened" in kind.evidence else 1.0
        if draws.opened < opens and "opened" in kind.evidence:
            self.answers[journey, channel, "opened"] += 1
            yield from self._noted(channel, "opened", at)
        # The rates are shares of all messages; who clicks has opened.
        clicks = self._rate("clicked", journey, channel)
        if draws.opened < opens and draws.clicked * opens < clicks:
            self.answers[journey, channel, "clicked"] += 1
            yield from self._noted(channel, "clicked", at)
        if not marketing or not (kind.unsubscribe_link or kind.has_stop):
            return
        if draws.unsubscribed < self._rate("unsubscribed", journey, channel):
            self.answers[journey, channel, "unsubscribed"] += 1
            yield to_grain(at), "stopped" if kind.has_stop else "unsubscribed"

    def _noted(
        self, channel: ChannelName, kind: FeedbackKind, at: Instant
    ) -> Iterator[tuple[Instant, FeedbackKind]]:
        """The report, if a journey reads it; others are counted and not recorded."""
        if f"{channel}_{kind}" in self._read:
            yield to_grain(at), kind

    def _purchase(
        self, journey: str, channel: ChannelName, profile_id: int, message_id: int, now: Instant
    ) -> tuple[Instant, Purchase] | None:
        """What the first message of an enrollment makes a customer buy."""
        goal = self._goals.get(journey)
        draws = _draws(f"{self._seed}/{journey}/bought/{profile_id}/{now}")
        if goal is None or draws.opened >= self._rate("bought", journey, channel):
            return None
        self.answers[journey, channel, "bought"] += 1
        at = now + min(self._after("bought", journey, draws.opens_after), goal.within - GRAIN)
        examples = self._examples(goal.did.event)
        example = examples[int(draws.clicked * len(examples))] if examples else {}
        purchase = Purchase(
            message=message_id,
            name=goal.did.event,
            properties=_reaching(goal, example),
            same=goal.did.same,
        )
        return max(to_grain(at), now + 1), purchase

    def _rate(self, kind: AnswerKind, journey: str, channel: ChannelName) -> float:
        rate = self.used.get((journey, channel, kind))
        if rate is None:
            segment = self._segments.get(journey)
            rate = self._rates.rate(kind, journey, channel, segment)
            self.used[journey, channel, kind] = rate
        return rate.value

    def _after(self, kind: AnswerKind, where: str, draw: float) -> Seconds:
        """The delay of an answer: exponentially distributed, with the median of the history.

        where: the channel of an opened message, the journey of a purchase.
        """
        delay = self.delays.get((kind, where))
        if delay is None:
            rates = self._rates
            delay = rates.opens_after(where) if kind == "opened" else rates.buys_after(where)
            self.delays[kind, where] = delay
        return int(-math.log1p(-draw) * delay.median / math.log(2))

    def _load_examples(self, event: str) -> list[dict[str, Any]]:
        found = (
            select(events.c.properties)
            .where(events.c.name == event)
            .order_by(events.c.id)
            .limit(_EXAMPLES)
        )
        with self._db.transaction(write=False) as tx:
            return list(tx.conn.execute(found).scalars())


def _reaching(goal: Goal, example: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of an event that reaches the goal, as far as `==` decides."""
    required = {one.name: one.value for one in goal.did.where if one.op == "=="}
    return {**example, **required}


def _draws(key: str) -> _Draws:
    digest = hashlib.blake2b(key.encode(), digest_size=20).digest()
    return _Draws(*(number / 2**32 for number in struct.unpack("5I", digest)))
