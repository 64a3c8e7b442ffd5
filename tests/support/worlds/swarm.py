"""Several processes that plan and send for the same customers at once, with one simulated clock."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any
from unittest.mock import patch

import httpx
import orjson

from channels.outbox.dispatch import Dispatcher
from channels.providers.connection import ProviderConnection, ProviderResponse
from channels.providers.sending import ProviderRequest
from channels.rules.planner import Planner
from config.clock.times import HOUR, Instant
from config.database.engine import Database
from config.policy import Policy
from journeys.dsl import SMS, Email, Journey, OnLaunch, Push, Send, Wait
from journeys.engine.advance import Engine
from journeys.launches.launching import enter_audience, start_launch
from profiles.identity.person import Person, normalise_email
from profiles.identity.phones import Phone
from profiles.identity.upsert import upsert_people
from tests.support.shop import MONDAY, House, advance, read_request

# (zone, country) of the customers; zone None: only the country is known.
ZONES: Sequence[tuple[str | None, str | None]] = (
    ("Europe/Berlin", "DE"),
    ("America/New_York", "US"),
    ("Asia/Kolkata", "IN"),
    (None, "AU"),
)

CHANNELS = {
    "email": {"windows": [{"days": "mon-sun", "from": "08:00", "to": "21:00"}]},
    "sms": {"windows": [{"days": "mon-fri", "from": "09:00", "to": "20:00"}]},
    "push": {"windows": [{"days": "mon-sun", "from": "09:00", "to": "21:00"}]},
}

POLICY = Policy.model_validate(
    {
        "max_delay": "3d",
        "channels": CHANNELS,
        "caps": [
            {"channels": ["email"], "limit": 1, "per": "day"},
            {"channels": ["sms"], "limit": 1, "per": "week"},
            {"channels": "all", "limit": 4, "within": "24h"},
            {"channels": "all", "limit": 4, "within": "3d", "topic": "promotions"},
        ],
    }
)


def _journey(name: str, priority: int, *steps: Any) -> Journey:
    topic = "news" if name == "news" else "promotions"
    return Journey(name, entry=OnLaunch(), topic=topic, priority=priority, steps=steps)


JOURNEYS = (
    _journey("news", 50, Send("s", Email("hello"), SMS("hello", after="5m"))),
    _journey(
        "promo",
        40,
        Send("s", Email("offer", on_cap="defer"), Push("offer", after="5m"), mode="any"),
        Wait("1d"),
        Send("t", Email("reminder")),
    ),
    _journey(
        "cart",
        60,
        Send(
            "s",
            *(Push("hello"), Email("hello")),
            mode="first",
            fallback_after="2h",
            unless="opened",
        ),
    ),
    _journey("pair", 30, Send("s", Push("reminder"), Email("hello"), mode="all")),
    _journey("low", 10, Send("s", Email("offer", on_cap="defer"), SMS("offer", after="10m"))),
)


def populate(db: Database, number: int) -> Mapping[int, tuple[str | None, str | None]]:
    """Create customers with an address on every channel. Returns (zone, country) by profile."""
    people = []
    for index in range(number):
        zone, country = ZONES[index % len(ZONES)]
        people.append(
            Person(
                user_id=f"u{index}",
                email=normalise_email(f"u{index}@example.com"),
                phone=Phone(f"+4477009{index:05}", "GB"),
                push_tokens={f"token-{index}": "ios"},
                timezone=zone,
                country=country,
                consent={("email", "*"): True, ("sms", "*"): True},
            )
        )
    with db.transaction() as tx:
        ids = upsert_people(tx, people, "test").profile_ids
    return {one: ZONES[index % len(ZONES)] for index, one in enumerate(ids) if one is not None}


def run_swarm(url: str, processes: int, ticks: Sequence[Instant], folder: Path) -> list[int]:
    """Run the processes to their end. Returns the ids of all messages that a provider accepted."""
    # forkserver imports everything only once, which takes a second.
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.support.worlds.swarm"])
    barrier = context.Barrier(processes)
    members = [
        context.Process(target=_member, args=(url, number, barrier, ticks, folder))
        for number in range(processes)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join()
    assert [member.exitcode for member in members] == [0] * processes
    return [
        message_id
        for file in sorted(folder.glob("accepted-*.json"))
        for message_id in orjson.loads(file.read_bytes())
    ]


def _member(
    url: str, number: int, barrier: Barrier, ticks: Sequence[Instant], folder: Path
) -> None:
    db = Database(url)
    house = House(db, now=ticks[0])
    segue = house.open(*JOURNEYS, policy=POLICY, sendgrid_template_id="d-1")
    # Some processes plan with an older policy without caps, so the check at hand-over must hold.
    planner = Planner(POLICY.model_copy(update={"caps": ()})) if number % 3 == 1 else None
    engine = Engine(db, segue.catalog, planner or segue.engine.planner)
    # Each process begins with another journey, so that they compete at every journey.
    order = JOURNEYS[number % len(JOURNEYS) :] + JOURNEYS[: number % len(JOURNEYS)]

    def enter(some: Sequence[Journey]) -> None:
        for one in some:
            version = start_launch(engine, f"launch {one.name}", one.name, "everyone")
            for _ in enter_audience(engine, version, "everyone", f"launch {one.name}"):
                advance(engine)

    async def work(dispatcher: Dispatcher) -> None:
        for tick in ticks:
            await asyncio.to_thread(barrier.wait, 300)
            db.now = tick
            if tick == ticks[0]:
                # However fast each process is, the important journeys come later, and take places.
                await asyncio.to_thread(enter, [one for one in order if one.priority < 50])
                await asyncio.to_thread(barrier.wait, 300)
                if planner is None:
                    await asyncio.to_thread(enter, [one for one in order if one.priority >= 50])
            while True:
                busy = (await asyncio.to_thread(advance, engine)).total()
                for one in order:
                    busy += (await dispatcher.run(journey=one.name)).total()
                if not busy:
                    break

    async def with_dispatcher() -> None:
        async with segue.dispatcher() as dispatcher:
            await work(dispatcher)

    accepted: list[int] = []
    with listening(accepted.extend):
        asyncio.run(with_dispatcher())
    (folder / f"accepted-{os.getpid()}.json").write_bytes(orjson.dumps(accepted))

    db.close()


@contextmanager
def listening(accept: Callable[[list[int]], object]) -> Iterator[None]:
    """Accept all requests of this process; `accept` gets the ids of each one's messages."""

    async def respond(
        _: Any, request: ProviderRequest, _authorization: str | None, extensions: dict[str, Any]
    ) -> ProviderResponse:
        if "trace" in extensions:
            await extensions["trace"]("http11.send_request_headers.started", {})
        posted = httpx.Request(request.method, request.url, content=request.content)
        accept([one.message_id for one in read_request(posted)])
        await asyncio.sleep(0)
        return ProviderResponse(202, {}, b"{}")

    with patch.object(ProviderConnection, "send", respond):
        yield


def working_days(number: int) -> list[Instant]:
    """Instants of every four hours for a number of days."""
    return [MONDAY - 4 * HOUR + step * 4 * HOUR for step in range(number * 6)]
