"""How the sandbox's customers react to messages: opens, clicks, replies, bounces, complaints.

A pure model. Each customer has fixed tendencies, and the same seed gives the same reactions to the
same messages, in whatever order they arrive.
"""

from collections.abc import Iterator
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Time = Annotated[float, Field(ge=0, le=86_400)]

EventKind = Literal[
    "processed",
    "delivered",
    "bounce",
    "blocked",
    "open",
    "machine_open",
    "click",
    "spamreport",
    "sent",
    "undelivered",
    "read",
    "stop",
]
# The concentration of the beta distribution of tendencies: the smaller, the more customers differ.
_CONCENTRATION = 2.0


class Behaviour(BaseModel):
    """Shares from 0 to 1, times in seconds. The defaults are those of an average shop.

    Real customers open a mail after hours; those of the sandbox within `answered_within`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    dead: Share = Field(default=0.02, description="addresses and numbers that do not exist")
    blocked: Share = Field(default=0.01, description="mails that are refused temporarily")
    opens: Share = Field(default=0.4, description="delivered mails that a customer opens")
    machine_opens: Share = Field(
        default=0.3, description="customers whose mail program opens every mail"
    )
    clicks: Share = Field(default=0.25, description="opened mails in which a link is clicked")
    complaints: Share = Field(default=0.002, description="opened mails reported as spam")
    stops: Share = Field(default=0.01, description="delivered texts that get the reply STOP")
    delivered_within: Time = 2
    answered_within: Time = 60
    gathered: Time = Field(
        default=1, description="seconds for which events are batched; SendGrid: 30"
    )
    twice: Share = Field(default=0, description="webhooks that are sent twice")
    out_of_order: Share = Field(
        default=0, description="messages whose webhooks come in reverse order"
    )


class CustomerReaction(NamedTuple):
    """An event about a message, `after` seconds after the message was accepted.

    reported: seconds after which the provider reports it; two values if it reports it twice.
    """

    kind: EventKind
    after: float
    reported: tuple[float, ...]


def reactions_to(
    behaviour: Behaviour, channel: str, address: str, message_id: str
) -> list[CustomerReaction]:
    """All reactions to one message, in order of time. Pushes have none."""
    dice = Random(f"{behaviour.seed}/{address}/{message_id}")  # noqa: S311  repeatable is the point
    person = Random(f"{behaviour.seed}/{address}")  # noqa: S311  must repeat
    reactions = {"email": _mail, "sms": _text, "whatsapp": _whatsapp}.get(channel)
    if reactions is None:
        return []
    found = sorted(reactions(behaviour, person, dice), key=lambda one: one[1])
    times = [after for _, after in found]
    if dice.random() < behaviour.out_of_order:
        times.reverse()
    again = [
        (dice.random() * behaviour.answered_within,) if dice.random() < behaviour.twice else ()
        for _ in found
    ]
    return [
        CustomerReaction(kind, after, (reported, *(reported + later for later in more)))
        for (kind, after), reported, more in zip(found, times, again, strict=True)
    ]


def _mail(behaviour: Behaviour, person: Random, dice: Random) -> Iterator[tuple[EventKind, float]]:
    dead = person.random() < behaviour.dead
    by_machine = person.random() < behaviour.machine_opens
    opens, clicks = _tendency(person, behaviour.opens), _tendency(person, behaviour.clicks)
    arrives = dice.random() * behaviour.delivered_within
    yield "processed", arrives / 2
    if dead:
        yield "bounce", arrives
        return
    if dice.random() < behaviour.blocked:
        yield "blocked", arrives
        return
    yield "delivered", arrives
    if by_machine:
        yield "machine_open", arrives + dice.random() * behaviour.delivered_within
    if dice.random() >= opens:
        return
    opened = arrives + dice.random() * behaviour.answered_within
    yield "open", opened
    if dice.random() < clicks:
        yield "click", opened + dice.random() * behaviour.answered_within
    if dice.random() < behaviour.complaints:
        yield "spamreport", opened + dice.random() * behaviour.answered_within


def _text(behaviour: Behaviour, person: Random, dice: Random) -> Iterator[tuple[EventKind, float]]:
    dead = person.random() < behaviour.dead
    stops = _tendency(person, behaviour.stops)
    arrives = dice.random() * behaviour.delivered_within
    yield "sent", arrives / 2
    if dead:
        yield "undelivered", arrives
        return
    yield "delivered", arrives
    if dice.random() < stops:
        yield "stop", arrives + dice.random() * behaviour.answered_within


def _whatsapp(
    behaviour: Behaviour, person: Random, dice: Random
) -> Iterator[tuple[EventKind, float]]:
    dead = person.random() < behaviour.dead
    reads, stops = _tendency(person, behaviour.opens), _tendency(person, behaviour.stops)
    arrives = dice.random() * behaviour.delivered_within
    yield "sent", arrives / 2
    if dead:
        yield "undelivered", arrives
        return
    yield "delivered", arrives
    if dice.random() < reads:
        read = arrives + dice.random() * behaviour.answered_within
        yield "read", read
        if dice.random() < stops:
            yield "stop", read + dice.random() * behaviour.answered_within


def _tendency(person: Random, share: float) -> float:
    """This customer's probability for something that a share of all customers does."""
    if share in (0, 1):
        return share
    return person.betavariate(share * _CONCENTRATION, (1 - share) * _CONCENTRATION)
