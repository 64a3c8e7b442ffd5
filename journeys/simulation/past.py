"""Replay a past period under other rules: the same customers, events and launches.

The database has gone on since, so its copy is taken back to the beginning of the period
(rewind.py). Customers answer a message as long after it as they did; a message that was not sent
then is answered by rates.

Attributes and addresses are those of today, since their changes are not recorded one by one.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select

from channels.messages import messages
from channels.providers.sending import Outgoing
from config.channels import ChannelName
from config.clock.times import DAY, Instant, Seconds
from config.database.arrays import one_of
from config.database.engine import Database, Tx
from journeys.enrollments import enrollments
from journeys.operations.counts import SENT
from journeys.simulation.behaviour import AnsweringPeople
from journeys.simulation.inputs import (
    AnswerInput,
    Input,
    Inputs,
    LaunchOf,
    MessageKey,
    StartOf,
)
from journeys.simulation.messages import KEY_COLUMNS, message_keys
from journeys.simulation.rates import ANSWER_KINDS
from journeys.simulation.replay import recorded

_m, _e = messages.c, enrollments.c
# Answers to messages of the period are read for so long after it.
_ANSWERED: Seconds = 31 * DAY
# A message with the launch of its enrollment, which takes the place of `entered_at`: a launch
# enters people over some seconds, a simulated one at once.
_Place = tuple[MessageKey, str | None]


@dataclass(slots=True)
class _Sent:
    """A message that was sent in the period, and what the customer answered, after how long."""

    launch_id: str | None
    send_at: Instant
    answers: list[tuple[Seconds, AnswerInput]]


class PastPeriod(NamedTuple):
    """What happened in a period. inputs: at their times. sent: the messages."""

    inputs: Inputs
    sent: Mapping[_Place, _Sent]


def recall(tx: Tx, journeys: Collection[str], since: Instant, until: Instant) -> PastPeriod:
    """Read what happened to these journeys from `since` on, before `until`."""
    sent = _sent(tx, journeys, since)
    inputs = Inputs()
    for at, one in recorded(tx, since, min(tx.now + 1, until + _ANSWERED)):
        if isinstance(one, AnswerInput) and isinstance(one.message, MessageKey):
            if (message := sent.get(one.message)) is not None:
                message.answers.append((at - message.send_at, one))
                continue
            if one.message.journey in journeys and one.message.entered_at >= since:
                continue
        if at < until and not (isinstance(one, LaunchOf | StartOf) and one.journey not in journeys):
            inputs.add(at, [one])
    return PastPeriod(inputs, {_place(key, one.launch_id): one for key, one in sent.items()})


def _sent(tx: Tx, journeys: Collection[str], since: Instant) -> dict[MessageKey, _Sent]:
    found = (
        select(_e.launch_id, _m.send_at, *KEY_COLUMNS)
        .join_from(messages, enrollments, _e.id == _m.enrollment_id)
        .where(
            one_of(_m.journey, sorted(journeys)),
            one_of(_m.state, (*SENT, "failed")),
            _m.attempts > 0,
            _e.entered_at >= since,
        )
    )
    return {
        MessageKey(*key): _Sent(launch_id, send_at, [])
        for launch_id, send_at, *key in tx.conn.execute(found)
    }


def _place(key: MessageKey, launch_id: str | None) -> _Place:
    return key if launch_id is None else key._replace(entered_at=0), launch_id


class RememberingPeople:
    """Customers who answer as they did; `answer` is a journeys.simulation.clock.Behave.

    known: how many messages they answered so; unknown: how many by rates. others: answers the
    latter, and counts all answers.
    """

    def __init__(self, db: Database, past: PastPeriod, others: AnsweringPeople) -> None:
        self.known = 0
        self.unknown = 0
        self._db = db
        self._sent = past.sent
        self._others = others

    def answer(self, batch: Sequence[Outgoing], now: Instant) -> Iterator[tuple[Instant, Input]]:
        """What customers do about messages that were just sent."""
        with self._db.transaction(write=False) as tx:
            keys = message_keys(tx, [one.message_id for one in batch])
        unknown = []
        for one in batch:
            channel, launch_id, key = keys[one.message_id]
            message = self._sent.get(_place(key, launch_id))
            if message is None:
                unknown.append(one)
                continue
            self.known += 1
            self._count(key.journey, channel, message)
            for after, answer in message.answers:
                yield (
                    now + after,
                    answer._replace(message=one.message_id, address=one.to, at=None),
                )
        self.unknown += len(unknown)
        yield from self._others.answer(unknown, now)

    def _count(self, journey: str, channel: ChannelName, message: _Sent) -> None:
        kinds = {answer.kind for _, answer in message.answers}
        for kind in ANSWER_KINDS:
            if kind in kinds:
                self._others.answers[journey, channel, kind] += 1
