"""A small shop for tests: journeys, customers and a fixed clock.

Its providers answer real HTTP requests without a network.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import parse_qs

import httpx
import orjson
import respx
from sqlalchemy import Row, select, update

from channels.messages import message_devices, messages
from channels.outbox.dispatch import Dispatcher
from channels.outbox.outcomes import Tally
from channels.rules.planner import Planner
from config.channels import ChannelName
from config.clock.times import Instant, format_instant, parse_duration, parse_instant
from config.database.engine import Database
from config.policy import Policy
from flows.app import Segue, input_rules
from flows.launch import launch
from journeys.definition.catalog import Catalog, load_catalog
from journeys.definition.journey import Version
from journeys.definition.steps import Step
from journeys.dsl import Journey, OnLaunch, Segment, everyone
from journeys.engine.advance import Engine
from journeys.engine.turn import Turn
from journeys.enrollments import enrollments
from journeys.tables import passages
from profiles.computed.definitions import ComputedTraits
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import NewEvent, record_events
from profiles.identity.person import Person, normalise_email
from profiles.identity.phones import Phone
from profiles.identity.upsert import upsert_people
from profiles.tables import profiles
from tests.support.configured import configured

# A Monday; every channel of the default policy is open in London.
MONDAY: Instant = parse_instant("2026-03-02T10:00:00Z")
# Short contents for the templates that most tests send.
TEXTS: Mapping[str, str] = {
    f"{name}.{file}": text
    for name in ("hello", "offer", "reminder")
    for file, text in (
        ("email.html", f"Subject: {name}\n\n<p>{name}</p>"),
        ("sms.txt", name),
        ("push.txt", f"Title: {name}\n\n{name}"),
    )
}

_SHOP = {"brand": "The Shop", "public_url": "http://127.0.0.1:8080"}
# Other processes run tests at the same time. In live mode the port must be known.
_FREE_PORT = {"receiver_port": 0}


def described(*steps: Step, name: str = "j", **parts: Any) -> Journey:
    """A journey of these steps with entry by launch, unless `parts` says otherwise."""
    return Journey(name, **{"entry": OnLaunch(), "topic": "news", "steps": steps, **parts})


_TLS = httpx.create_ssl_context()


class Sent(NamedTuple):
    """A message that a provider accepted."""

    channel: ChannelName
    message_id: int
    to: str
    text: str


Answer = httpx.Response | Exception


class Providers:
    """All providers in one function. They accept everything unless `answer` was called."""

    def __init__(self) -> None:
        self.accepted: list[Sent] = []
        self.requests: list[httpx.Request] = []
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        # called at every request, before the answer
        self.meanwhile: Callable[[], None] = lambda: None
        # other servers by host, such as those of Call steps and Prefect; a result may be a
        # coroutine
        self.hosts: dict[str, Callable[[httpx.Request], Any]] = {}

    def answer(self, channel: ChannelName, *answers: Answer) -> None:
        """Set the answers to the next requests on this channel, or to `postmark`."""
        self._answers[channel].extend(answers)

    def answer_to(self, address: str, *answers: Answer) -> None:
        """Set the responses to the next requests whose first message has this address."""
        self._answers[address].extend(answers)

    def accept_again(self) -> None:
        """Remove all set answers."""
        self._answers.clear()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer requests to the sandbox's address, until the block ends."""
        with (
            respx.mock(assert_all_called=False) as mock,
            # loaded once because it takes 20 ms; no test uses TLS
            patch("httpx.create_ssl_context", return_value=_TLS),
        ):
            mock.route(host="127.0.0.1").mock(side_effect=self._respond)
            for host, respond in self.hosts.items():
                mock.route(host=host).mock(side_effect=respond)
            yield

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.meanwhile()
        sent = list(read_request(request))
        provider = "postmark" if request.url.path == "/email/batch" else ""
        waiting = (
            self._answers[sent[0].to] or self._answers[provider] or self._answers[sent[0].channel]
        )
        answer = waiting.popleft() if waiting else _accept(request, len(sent))
        if isinstance(answer, httpx.Response) and answer.is_success:
            self.accepted += sent
        if isinstance(answer, httpx.ReadError):
            # the connection broke after the provider accepted the request
            self.accepted += sent
        if isinstance(answer, Exception):
            raise answer
        return answer


def _accept(request: httpx.Request, messages: int) -> httpx.Response:
    if request.url.path == "/email/batch":
        return httpx.Response(200, json=[{"ErrorCode": 0, "Message": "OK"}] * messages)
    return httpx.Response(202, json={})


def read_request(request: httpx.Request) -> Iterator[Sent]:
    """The messages in a provider's request."""
    path = request.url.path
    if path == "/v3/mail/send":
        mail = orjson.loads(request.content)
        for one in mail["personalizations"]:
            data = one.get("dynamic_template_data", {"subject": mail.get("subject")})
            message_id = int(one["custom_args"]["message_id"])
            yield Sent(
                channel="email",
                message_id=message_id,
                to=one["to"][0]["email"],
                text=data["subject"],
            )
    elif path == "/email/batch":
        for mail in orjson.loads(request.content):
            message_id = int(mail["Metadata"]["message_id"])
            yield Sent(channel="email", message_id=message_id, to=mail["To"], text=mail["Subject"])
    elif path.endswith("/Messages.json"):
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        message_id = int(form["StatusCallback"].partition("message_id=")[2])
        channel = "whatsapp" if form["To"].startswith("whatsapp:") else "sms"
        text = form.get("Body") or f"{form['ContentSid']} {form['ContentVariables']}"
        yield Sent(
            channel=channel,
            message_id=message_id,
            to=form["To"].removeprefix("whatsapp:"),
            text=text,
        )
    else:
        message = orjson.loads(request.content)["message"]
        text = message["notification"]["body"]
        yield Sent(
            channel="push",
            message_id=int(message["data"]["message_id"]),
            to=message["token"],
            text=text,
        )


def bare_message(journey: str, number: int, state: str, send_at: Instant) -> dict[str, Any]:
    """A message row for an e-mail of a profile that is not in the database."""
    return {
        **{"profile_id": -number, "enrollment_id": -number, "journey": journey, "version": "1"},
        **{"step": "s", "member": "email", "channel": "email", "kind": "marketing"},
        **{"topic": "news", "priority": 50, "mode": "any", "after": 0, "on_cap": "skip"},
        **{"wanted_at": send_at, "latest_anchor": send_at, "send_at": send_at, "state": state},
        **{"decision": {}, "attempts": 1},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The columns of a message row that tests check."""

    step: str
    channel: str
    state: str
    reason: str | None
    send_at: str


def advance(engine: Engine) -> Counter[str]:
    """Move enrollments until none is due. Returns the number of moves by journey."""
    moved: Counter[str] = Counter()
    while some := engine.advance_round(chain(*engine.due_steps())).moves:
        moved.update(some)
    return +moved


class House:
    """Segue on one database."""

    def __init__(self, db: Database, *, now: Instant = MONDAY) -> None:
        db.now = now
        self.db = db
        self.providers = Providers()
        self.segue: Segue
        self._numbers = count(1)

    def shorten(self, **timing: Any) -> None:
        """Change the waiting times of the database. Open connections may keep the old ones."""
        self.db.timing = replace(self.db.timing, **timing)

    # Setup
    # -------------------------------------------------------------------------------------------

    def open(
        self,
        *journeys: Journey,
        policy: Policy | None = None,
        texts: Mapping[str, str] = TEXTS,
        segments: Mapping[str, Segment] | None = None,
        traits: ComputedTraits | None = None,
        personas: Sequence[Segment] = (),
        **settings: Any,
    ) -> Segue:
        """Open Segue with these journeys, all with the same templates."""
        versions = {journey.name: Version(journey, texts) for journey in journeys}
        known = {"everyone": Segment("everyone", "Every customer", everyone()), **(segments or {})}
        return self._open(
            policy or Policy(), Catalog(versions, known, traits=traits, personas=personas), settings
        )

    def open_library(self, library: Path, policy: Policy, **settings: Any) -> Segue:
        """Open Segue with the journeys of a folder."""
        return self._open(policy, load_catalog(policy, library), settings)

    def _open(self, policy: Policy, catalog: Catalog, settings: dict[str, Any]) -> Segue:
        with self.db.transaction() as tx:
            catalog.register(tx)
        port = {} if settings.get("providers") == "live" else _FREE_PORT
        loaded = configured(**{**_SHOP, **port, **settings})
        engine = Engine(self.db, catalog, Planner(policy))
        rules = input_rules(loaded, policy)
        self.segue = Segue(
            settings=loaded, db=self.db, policy=policy, catalog=catalog, engine=engine, rules=rules
        )
        return self.segue

    # Customers -----------------------------------------------------------------------------------

    def customer(self, name: str = "", **said: Any) -> int:
        """Create a customer with an address and consent on every channel. Returns the id."""
        number = next(self._numbers)
        name = name or f"c{number}"
        person: dict[str, Any] = {
            "user_id": name,
            "email": normalise_email(f"{name}@example.com"),
            "phone": Phone(f"+447700{900_000 + number}", "GB"),
            "push_tokens": {f"token-{name}": "ios"},
            "timezone": "UTC",
            "consent": {("sms", "*"): True, ("email", "*"): True},
        }
        with self.db.transaction() as tx:
            report = upsert_people(tx, [Person(**(person | said))], "test")
        [profile_id] = report.profile_ids
        assert profile_id is not None, report.refused
        return profile_id

    def did(
        self, profile_id: int, event: str, at: Instant | None = None, **properties: Any
    ) -> None:
        """Record an event. Journeys react to it in the next run."""
        with self.db.transaction() as tx:
            occurred_at = tx.now if at is None else at
            key = f"test-{next(self._numbers)}"
            new = NewEvent(
                profile_id=profile_id,
                name=event,
                occurred_at=occurred_at,
                dedupe_key=key,
                properties=properties,
            )
            record_events(tx, [new], worked=False)

    def say(self, profile_id: int, channel: ChannelName, topic: str, *, granted: bool) -> None:
        """Change consent for a channel (topic `*`) or one of its topics, now."""
        with self.db.transaction() as tx:
            change = ConsentChange(
                profile_id=profile_id,
                channel=channel,
                topic=topic,
                granted=granted,
                occurred_at=tx.now,
            )
            change_consent(tx, [change], "test")

    # Time and work -------------------------------------------------------------------------------

    @property
    def now(self) -> Instant:
        assert self.db.now is not None
        return self.db.now

    def launch(self, journey: str, audience: str = "everyone", **options: Any) -> dict[str, Any]:
        """Launch a journey, and send what is due."""
        with self.providers.listening():
            return launch(self.segue, journey, audience, **options)

    def run(self) -> Tally:
        """Do a worker's work until nothing is due now."""
        tally: Tally = Tally()

        async def work(dispatcher: Dispatcher) -> None:
            tally.update(await Turn(self.segue.engine, dispatcher).until_idle())

        self.dispatching(work)
        return tally

    def advance(self) -> Counter[str]:
        """Move enrollments until none is due, without sending. Returns the moves by journey."""
        return advance(self.segue.engine)

    def dispatch(self) -> Tally:
        """Send due messages without moving enrollments."""
        tally: Tally = Tally()

        async def send(dispatcher: Dispatcher) -> None:
            tally.update(await dispatcher.run())

        self.dispatching(send)
        return tally

    def dispatching(self, work: Callable[[Dispatcher], Awaitable[None]]) -> None:
        """Run a function with an open dispatcher."""

        async def with_dispatcher() -> None:
            async with self.segue.dispatcher() as dispatcher:
                await work(dispatcher)

        with self.providers.listening():
            asyncio.run(with_dispatcher())

    def until(self, moment: str | Instant) -> None:
        """Advance the clock to an instant. Work that becomes due is done at its due time."""
        target = parse_instant(moment) if isinstance(moment, str) else moment
        while True:
            self.run()
            due = self.segue.engine.next_due()
            if due is None or due > target:
                break
            assert due > self.now, "somebody stays due"
            self.db.now = due
        self.db.now = target

    def later(self, duration: str | timedelta) -> None:
        """Advance the clock by a duration."""
        self.until(self.now + parse_duration(duration))

    # Queries -------------------------------------------------------------------------------------

    def rows(self, profile_id: int | None = None) -> list[Row[Any]]:
        """The message rows, in the order of their creation."""
        found = select(messages).order_by(messages.c.id)
        if profile_id is not None:
            found = found.where(messages.c.profile_id == profile_id)
        with self.db.transaction(write=False) as tx:
            return list(tx.conn.execute(found))

    def outbox(self, profile_id: int | None = None) -> list[Outcome]:
        """The message rows with the columns that tests check."""
        return [
            Outcome(
                step=row.step,
                channel=row.channel,
                state=row.state,
                reason=row.reason,
                send_at=format_instant(row.send_at),
            )
            for row in self.rows(profile_id)
        ]

    def devices(self, message_id: int) -> dict[str, str]:
        """The state of a push message on each device, by token."""
        c = message_devices.c
        found = select(c.token, c.state).where(c.message_id == message_id)
        with self.db.transaction(write=False) as tx:
            return {row.token: row.state for row in tx.conn.execute(found)}

    def people(self, profile_id: int | None = None) -> list[Row[Any]]:
        """The enrollments."""
        found = select(enrollments).order_by(enrollments.c.id)
        if profile_id is not None:
            found = found.where(enrollments.c.profile_id == profile_id)
        with self.db.transaction(write=False) as tx:
            return list(tx.conn.execute(found))

    def passed(self, profile_id: int | None = None) -> list[tuple[str, str]]:
        """(step, outcome) of every passage, in order."""
        found = select(passages)
        if profile_id is not None:
            found = found.where(passages.c.profile_id == profile_id)
        with self.db.transaction(write=False) as tx:
            rows = tx.conn.execute(found).all()
        place = {
            (version.journey.name, step): number
            for version in self.segue.catalog.current.values()
            for number, step in enumerate(version.journey.graph)
        }
        rows = sorted(rows, key=lambda row: (row.at, place.get((row.journey, row.step), 0)))
        return [(row.step, row.outcome) for row in rows]

    def attributes(self, profile_id: int) -> dict[str, Any]:
        """The attributes of a profile."""
        with self.db.transaction(write=False) as tx:
            found = select(profiles.c.attributes).where(profiles.c.id == profile_id)
            attributes: dict[str, Any] = tx.conn.execute(found).scalar_one()
            return attributes

    def change(self, profile_id: int, **attributes: Any) -> None:
        """Set attributes of a profile."""
        known = self.attributes(profile_id) | attributes
        with self.db.transaction() as tx:
            changed = update(profiles).where(profiles.c.id == profile_id)
            tx.conn.execute(changed.values(attributes=known))
