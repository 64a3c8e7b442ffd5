"""People whose messages are due, and a worker that is on, for the tests of what goes wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from config.channels import ChannelName
from flows.worker.worker import Worker
from journeys.definition.steps import MessageSpec
from journeys.dsl import Send
from journeys.engine.entry import enter_people
from tests.support.patience import PATIENCE
from tests.support.shop import House, described


def entered(house: House, *wanted: MessageSpec, people: int, **settings: Any) -> list[int]:
    """So many people whose messages are due, and nobody has sent any yet; their ids."""
    house.open(described(Send("s", *wanted)), **settings)
    customers = [house.customer() for _ in range(people)]
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), customers, None)
    house.advance()
    return customers


def at(house: House, channel: ChannelName) -> int:
    """How many requests there were on a channel."""
    path = {"email": "mail", "sms": "Messages", "push": "messages:send"}[channel]
    return sum(path in request.url.path for request in house.providers.requests)


async def until(done: Callable[[], Any]) -> None:
    """Wait for something that a worker does."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(0.02)


def worked(house: House, scenario: Callable[[], Awaitable[None]]) -> None:
    """Something happens while a worker is on; it must end soon, by itself, when it is told to."""

    async def both() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        await scenario()
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await working

    with house.providers.listening():
        asyncio.run(both())
