"""The customer and the state of each message, read from Segue's own tables for the inbox."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import ColumnElement, func, or_, select, tuple_
from sqlalchemy.exc import DBAPIError

from channels.explain import EXPLAINED_COLUMNS, ExplainedMessage, explanation
from channels.messages import messages
from config.clock.times import Instant
from config.database.engine import Database, Tx
from config.errors import SegueError
from config.policy import CHANNELS
from profiles.attributes.names import full_name
from profiles.identity.addresses import channel_addresses
from profiles.identity.person import possible_keys
from profiles.tables import ADDRESS_KIND, events, identifiers, profiles

_AT_ONCE = 500  # parameters of one statement
_FOUND_AT_MOST = 50
_SHOWN_AT_MOST = 500  # messages of one customer
# Reactions of a customer to a message, by the second half of the event's name.
ANSWERS = (
    *("opened", "machine_opened", "clicked", "replied"),
    *("complained", "unsubscribed", "resubscribed", "stopped", "started"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A customer who gets messages."""

    id: str
    name: str
    email: str | None
    phone: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A reaction of a customer to a message: one of ANSWERS, and its time."""

    kind: str
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMessage:
    """One planned message, sent or not."""

    id: str
    channel: str
    journey: str
    step: str
    state: str
    reason: str | None
    explanation: str  # a sentence, or empty
    send_at: Instant
    zone: str  # IANA name of the recipient's zone
    answers: Sequence[Answer] = ()


class Timeline(Protocol):
    """The customers and planned messages, as the inbox needs them."""

    def customers(self, message_ids: Sequence[str]) -> dict[str, Customer]:
        """The customer of each of these messages; unknown ids are left out."""

    def customer(self, customer_id: str) -> Customer | None:
        """One customer."""

    def for_customer(self, customer_id: str) -> list[PlannedMessage]:
        """The planned messages of one customer, newest first."""

    def search(self, text: str) -> list[Customer]:
        """The customers whose name, e-mail, phone number or id contains the text."""


class DatabaseTimeline:
    """The timeline over Segue's tables. Raises SegueError if they can't be read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def customers(self, message_ids: Sequence[str]) -> dict[str, Customer]:
        numbers = [int(one) for one in message_ids if _is_number(one)]
        owners: dict[int, int] = {}
        with self._reading() as tx:
            for part in _parts(numbers):
                query = select(messages.c.id, messages.c.profile_id).where(messages.c.id.in_(part))
                owners.update({row.id: row.profile_id for row in tx.conn.execute(query)})
            people = _people(tx, set(owners.values()))
        return {str(number): people[owner] for number, owner in owners.items() if owner in people}

    def customer(self, customer_id: str) -> Customer | None:
        if not _is_number(customer_id):
            return None
        with self._reading() as tx:
            return _people(tx, [int(customer_id)]).get(int(customer_id))

    def for_customer(self, customer_id: str) -> list[PlannedMessage]:
        query = (
            select(*EXPLAINED_COLUMNS)
            .where(messages.c.profile_id == int(customer_id))
            .order_by(messages.c.send_at.desc(), messages.c.id.desc())
            .limit(_SHOWN_AT_MOST)
        )
        with self._reading() as tx:
            answers = _answers(tx, int(customer_id))
            rows = [ExplainedMessage._make(row) for row in tx.conn.execute(query)]
            return [_planned(row, answers[str(row.id)]) for row in rows]

    def search(self, text: str) -> list[Customer]:
        by_identifier = (
            select(identifiers.c.profile_id)
            .where(
                identifiers.c.kind.in_(["email", "phone", "user_id"]),
                or_(
                    identifiers.c.value.contains(text.lower().replace(" ", ""), autoescape=True),
                    tuple_(identifiers.c.kind, identifiers.c.value).in_(possible_keys(text)),
                ),
            )
            .limit(_FOUND_AT_MOST)
        )
        by_name = (
            select(profiles.c.id)
            .where(or_(*(name.icontains(text, autoescape=True) for name in _names())))
            .limit(_FOUND_AT_MOST)
        )
        with self._reading() as tx:
            found = [
                number for query in (by_name, by_identifier) for number in tx.conn.scalars(query)
            ]
            people = _people(tx, found)
        return list(people.values())[:_FOUND_AT_MOST]

    @contextmanager
    def _reading(self) -> Iterator[Tx]:
        try:
            with self._database.transaction(write=False) as tx:
                yield tx
        except DBAPIError as error:
            raise SegueError(
                f"Segue's tables can't be read ({error.orig}). Start Segue once to create them, "
                "and check that SEGUE_DATABASE_URL is the same here."
            ) from error


def _is_number(text: str) -> bool:
    """Whether the text can be a row's number: at most 18 digits."""
    return text.isascii() and text.isdecimal() and len(text) < 19


def _parts(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), _AT_ONCE):
        yield numbers[start : start + _AT_ONCE]


def _names() -> list[ColumnElement[str]]:
    """A profile's name, from the attributes that imports and Segment clients set."""
    return [
        profiles.c.attributes["name"].as_string(),
        *(
            func.coalesce(profiles.c.attributes[first].as_string(), "")
            + " "
            + func.coalesce(profiles.c.attributes[last].as_string(), "")
            for first, last in (("first_name", "last_name"), ("firstName", "lastName"))
        ),
    ]


def _people(tx: Tx, ids: Iterable[int]) -> dict[int, Customer]:
    """The customers of these profiles, in the order of the ids."""
    numbers = list(dict.fromkeys(ids))
    attributes: dict[int, dict[str, Any]] = {}
    addresses: dict[tuple[int, str], str] = {}
    for part in _parts(numbers):
        profile_rows = select(profiles.c.id, profiles.c.attributes).where(profiles.c.id.in_(part))
        attributes.update({row.id: row.attributes for row in tx.conn.execute(profile_rows)})
        for address in channel_addresses(tx, part):
            addresses[address.profile_id, ADDRESS_KIND[address.channel]] = address.value
    return {
        number: Customer(
            id=str(number),
            name=full_name(attributes[number]) or f"Customer {number}",
            email=addresses.get((number, "email")),
            phone=addresses.get((number, "phone")),
        )
        for number in numbers
        if number in attributes
    }


def _answers(tx: Tx, profile_id: int) -> defaultdict[str, list[Answer]]:
    """A customer's reactions to each message, by its id, in order of time."""
    names = [f"{channel}_{kind}" for channel in CHANNELS for kind in ANSWERS]
    done = (
        select(events.c.name, events.c.occurred_at, events.c.properties)
        .where(events.c.profile_id == profile_id, events.c.name.in_(names))
        .order_by(events.c.occurred_at, events.c.id)
    )
    answers: defaultdict[str, list[Answer]] = defaultdict(list)
    for name, at, properties in tx.conn.execute(done):
        kind = name.partition("_")[2]
        answers[str(properties.get("message_id"))].append(Answer(kind, at))
    return answers


def _planned(row: ExplainedMessage, answers: Sequence[Answer]) -> PlannedMessage:
    zone = row.decision["timezone"]
    return PlannedMessage(
        id=str(row.id),
        channel=row.channel,
        journey=row.journey,
        step=row.step,
        state=row.state,
        reason=row.reason,
        explanation=explanation(row),
        send_at=row.send_at,
        # A country with several zones has a list of them; the first is shown.
        zone=zone if isinstance(zone, str) else zone[0],
        answers=answers,
    )
