"""Customers with due messages, and a running worker, for tests of failures."""

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
    """Create customers whose messages are due and not sent. Returns their ids."""
    house.open(described(Send("s", *wanted)), **settings)
    customers = [house.customer() for _ in range(people)]
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), customers, None)
    house.advance()
    return customers


def at(house: House, channel: ChannelName) -> int:
    """The number of requests on a channel."""
    path = {"email": "mail", "sms": "Messages", "push": "messages:send"}[channel]
    return sum(path in request.url.path for request in house.providers.requests)


async def until(done: Callable[[], Any]) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(0.02)


def worked(house: House, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario beside a worker, then stop the worker. It must end by itself.

    A worker that fails ends the scenario too.
    """

    async def both() -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            working = group.create_task(Worker(house.segue).run(stop))
            await scenario()
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await working

    with house.providers.listening():
        asyncio.run(both())
