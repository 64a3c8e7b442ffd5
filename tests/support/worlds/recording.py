"""A month of a shop, worked by two worker processes on one database, with one simulated clock.

The processes are as `segue work`, without its receiver: real leases of buckets, turns and senders.
A driver moves their clock to the next due time, and plays the shop, its customers and providers.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from random import Random
from time import sleep
from typing import Any

from sqlalchemy import select

from channels.feedback.apply import apply
from channels.messages import messages
from channels.outbox.dispatch import Dispatcher
from channels.providers.webhook import Feedback, FeedbackKind
from config.channels import ChannelName
from config.clock.times import DAY, HOUR, MINUTE, Instant, days
from config.database.engine import Database, Tx
from config.policy import Policy
from flows.worker.leasing import leasing
from journeys.dsl import (
    SMS,
    Email,
    Enter,
    Experiment,
    Goal,
    Journey,
    OnEvent,
    OnLaunch,
    OnSegment,
    Push,
    Segment,
    Send,
    Update,
    Wait,
    WaitUntil,
    arm,
    attribute,
    did,
)
from journeys.engine.turn import Turn
from journeys.launches.launching import enter_audience, start_launch
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import NewEvent, record_events
from profiles.identity.person import Person, normalise_email
from profiles.identity.phones import Phone
from profiles.identity.upsert import upsert_people
from tests.support.patience import PATIENCE
from tests.support.shop import House
from tests.support.worlds.swarm import CHANNELS, ZONES, listening

WORKERS = 2
GROUPS = 20
# Seconds between two questions whether each worker has leased its share of the buckets.
_LEASING = 0.05
# A launch a day, each for a group, so that no cohort of a second is larger than a chunk.
SEGMENTS = {
    **{
        f"group-{number}": Segment(f"group-{number}", "A part", attribute("group") == number)
        for number in range(GROUPS)
    },
    "regulars": Segment("regulars", "Two purchases", did("bought", at_least=2)),
}
POLICY = Policy.model_validate(
    {
        "max_delay": "3d",
        "channels": CHANNELS,
        "caps": [
            {"channels": ["email"], "limit": 1, "per": "day"},
            {"channels": ["sms"], "limit": 1, "per": "week"},
            {"channels": "all", "limit": 4, "within": "7d"},
        ],
    }
)
JOURNEYS = (
    Journey(
        "cart",
        entry=OnEvent("cart_abandoned", key="cart_id", again=days(7)),
        exit_when=did("bought"),
        goal=Goal(did=did("bought"), within=days(5)),
        topic="promotions",
        priority=60,
        steps=[
            Send(
                "nudge",
                *(Push("hello"), Email("reminder")),
                mode="first",
                fallback_after="2h",
                unless="opened",
            ),
            WaitUntil("came back", did("cart_viewed"), timeout="25h"),
            Send(
                "offer",
                *(Email("offer", on_cap="defer"), SMS("offer", after="10m")),
                mode="any",
                stop_on="clicked",
            ),
        ],
    ),
    Journey(
        "promo",
        entry=OnLaunch(again=days(10)),
        exit_when=did("bought"),
        goal=Goal(did=did("bought"), within=days(7)),
        topic="promotions",
        priority=40,
        steps=[
            Experiment(
                "which",
                arm("mail", 60, [Send("mail", Email("offer", on_cap="defer"))]),
                arm("both", 40, [Send("both", SMS("offer"), Push("offer", after="5m"))]),
                holdout=10,
            ),
            Wait("3d"),
            Send("last", Email("reminder")),
            Update("mark", promoted=True),
        ],
    ),
    Journey(
        "welcome",
        entry=OnEvent("signed_up"),
        topic="welcome",
        priority=50,
        steps=[
            Send("hello", Email("hello", on_cap="defer"), Push("hello", after="10m"), mode="any"),
            Wait(time="09:30", days="mon-fri"),
            Send("more", Email("offer")),
            Enter("and then", "promo"),
        ],
    ),
    Journey(
        "thanks",
        entry=OnSegment("regulars"),
        topic="promotions",
        priority=45,
        steps=[Send("thanks", Email("hello", on_cap="defer"))],
    ),
)
Act = Callable[[Tx], object]


def open_house(db: Database, now: Instant) -> House:
    """The shop of the recording, on this database."""
    house = House(db, now=now)
    house.open(*JOURNEYS, policy=POLICY, segments=SEGMENTS)
    return house


def populate(db: Database, number: int, seed: int) -> list[int]:
    """Create customers, who differ in zone, addresses and consent. Returns their ids."""
    chance = Random(seed)
    people = []
    for index in range(number):
        zone, country = ZONES[index % len(ZONES)]
        people.append(
            Person(
                user_id=f"u{index}",
                email=normalise_email(f"u{index}@example.com") if chance.random() < 0.9 else None,
                phone=Phone(f"+4477{index:08}", "GB") if chance.random() < 0.7 else None,
                push_tokens={f"token-{index}": "ios"} if chance.random() < 0.5 else {},
                timezone=zone,
                country=country,
                consent={
                    ("email", "*"): chance.random() < 0.9,
                    ("sms", "*"): chance.random() < 0.8,
                },
                attributes={"group": index % GROUPS},
            )
        )
    ids: list[int] = []
    for start in range(0, number, 500):
        with db.transaction() as tx:
            report = upsert_people(tx, people[start : start + 500], "test")
        ids += [one for one in report.profile_ids if one is not None]
    return ids


def _worker(url: str, number: int, pipe: Connection) -> None:
    """Work at each time that comes through the pipe, and answer when nothing is due any more."""
    db = Database(url)
    first = pipe.recv()
    house = open_house(db, first)
    house.shorten(lease_lasts=int(PATIENCE))
    segue = house.segue

    async def work(dispatcher: Dispatcher) -> None:
        async with leasing(segue) as leases:
            turn = Turn(segue.engine, dispatcher, leased=leases.held)
            now: Instant | None = first
            while now is not None:
                db.now = now
                if leases.is_complete:
                    await turn.until_idle()
                await asyncio.to_thread(pipe.send, leases.is_complete)
                now = await asyncio.to_thread(pipe.recv)

    async def with_dispatcher() -> None:
        async with segue.dispatcher() as dispatcher:
            await work(dispatcher)

    with listening(lambda _: None):
        asyncio.run(with_dispatcher())
    db.close()


@contextmanager
def workers(url: str, now: Instant) -> Iterator[Callable[[Instant], None]]:
    """Two workers; the function lets both work at a time until nothing is due."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.support.worlds.recording"])
    pipes = [context.Pipe() for _ in range(WORKERS)]
    members = [
        context.Process(target=_worker, args=(url, number, there))
        for number, (_, there) in enumerate(pipes)
    ]
    for member in members:
        member.start()

    def ask(at: Instant) -> Iterator[bool]:
        for here, _ in pipes:
            here.send(at)
        for here, _ in pipes:
            assert here.poll(PATIENCE), "a worker does not answer"
            yield here.recv()

    def work(at: Instant) -> None:
        while not all([*ask(at)]):
            sleep(_LEASING)

    try:
        work(now)
        yield work
        for here, _ in pipes:
            here.send(None)
        for member in members:
            member.join(PATIENCE)
        assert [member.exitcode for member in members] == [0] * WORKERS
    finally:
        for member in members:
            if member.is_alive():
                member.kill()


class Recording:
    """The driver: what the shop and its customers do from `start` on."""

    def __init__(self, house: House, people: Sequence[int], *, grain: int, seed: int) -> None:
        self.house = house
        self._people = people
        self._grain = grain
        self._seed = seed
        self._acts: dict[Instant, list[Act]] = defaultdict(list)
        self._launches: dict[Instant, list[str]] = defaultdict(list)

    def happens(self, start: Instant, length: int) -> None:
        """Decide what customers do without being asked, in so many days."""
        chance = Random(self._seed)
        names = ("cart_abandoned", "cart_viewed", "bought", "signed_up")
        for profile_id in self._people:
            # one event of a profile at a time
            moments = chance.sample(range(length * DAY // self._grain), chance.randrange(5))
            for number, place in enumerate(moments):
                [name] = chance.choices(names, weights=(4, 3, 3, 2))
                event = {"cart_id": f"c{profile_id}-{number}"} if "cart" in name else {}
                self._acts[start + place * self._grain].append(
                    self._event(profile_id, name, f"e{profile_id}-{number}", event)
                )
            if chance.random() < 0.03:
                at = start + chance.randrange(length * DAY // self._grain) * self._grain
                self._acts[at].append(self._says(profile_id, granted=chance.random() < 0.3))
        for number in range(GROUPS):
            for day in (number % length, number % length + 12):
                if day < length:
                    at = start + day * DAY + 10 * HOUR + 7 * MINUTE
                    self._launches[at].append(f"group-{number}")

    def run(self, until: Instant, work: Callable[[Instant], None]) -> int:
        """Live until then. Returns how many moments there were."""
        db, engine, moments = self.house.db, self.house.segue.engine, 0
        while True:
            times = [*self._acts, *self._launches]
            due = engine.next_due()
            times += [] if due is None else [due]
            now = min(times, default=until)
            if now >= until:
                db.now = until
                return moments
            db.now = now
            with db.transaction() as tx:
                for act in self._acts.pop(now, ()):
                    act(tx)
            for audience in self._launches.pop(now, ()):
                self._launch(audience)
            work(now)
            self._answer(now)
            moments += 1

    def _launch(self, audience: str) -> None:
        engine = self.house.segue.engine
        name = f"{audience} {self.house.now}"
        version = start_launch(engine, name, "promo", audience)
        for _ in enter_audience(engine, version, audience, name):
            pass

    def _event(self, profile_id: int, name: str, key: str, properties: Mapping[str, Any]) -> Act:
        def act(tx: Tx) -> None:
            new = NewEvent(
                profile_id=profile_id,
                name=name,
                occurred_at=tx.now,
                dedupe_key=key,
                properties=dict(properties),
            )
            record_events(tx, [new], worked=False)

        return act

    def _says(self, profile_id: int, *, granted: bool) -> Act:
        def act(tx: Tx) -> None:
            change = ConsentChange(
                profile_id=profile_id,
                channel="email",
                topic="promotions",
                granted=granted,
                occurred_at=tx.now,
            )
            change_consent(tx, [change], "preference page")

        return act

    def _answer(self, now: Instant) -> None:
        """Decide what customers answer to the messages that were just sent."""
        sent = select(
            *(messages.c[name] for name in ("id", "profile_id", "step", "channel", "address"))
        ).where(messages.c.send_at == now, messages.c.state == "sent")
        with self.house.db.transaction(write=False) as tx:
            rows = tx.conn.execute(sent).all()
        for row in rows:
            chance = Random(f"{self._seed} {row.profile_id} {row.step} {row.channel} {now}")
            for after, kind in _reactions(chance, row.channel):
                at = (now + after) // self._grain * self._grain + self._grain
                self._acts[at].append(self._report(row, kind, at))

    def _report(self, row: Any, kind: FeedbackKind, at: Instant) -> Act:
        report = Feedback(
            id=f"{kind} {row.id}",
            source="test",
            channel=row.channel,
            kind=kind,
            at=at,
            message_id=row.id,
            address=row.address,
            reason="no such mailbox" if kind == "bounced" else None,
            suppress="bounced" if kind == "bounced" else None,
        )

        def act(tx: Tx) -> None:
            apply(tx, [report])

        return act


def _reactions(chance: Random, channel: ChannelName) -> Iterator[tuple[int, FeedbackKind]]:
    if channel == "push":
        if chance.random() < 0.3:
            yield chance.randrange(3 * HOUR), "opened"
        return
    if chance.random() < 0.02:
        yield 0, "bounced"
        return
    yield 0, "delivered"
    if channel == "email" and chance.random() < 0.4:
        opened = chance.randrange(8 * HOUR)
        yield opened, "opened"
        if chance.random() < 0.3:
            yield opened + HOUR, "clicked"
        if chance.random() < 0.02:
            yield opened + HOUR, "unsubscribed"
    if channel == "sms" and chance.random() < 0.03:
        yield HOUR, "stopped"
