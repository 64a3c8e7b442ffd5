"""What one event costs from HTTP to the provider, in statements and transactions."""

import asyncio
from typing import Any

import pytest

from config.policy import load_policy
from config.settings import Settings
from flows.local.stack import free_ports
from flows.worker.worker import Worker
from journeys.definition.catalog import LIBRARY
from journeys.operations.housekeeping import Housekeeping
from tests.support.clocks import own_clock
from tests.support.counting import transactions
from tests.support.failures import until
from tests.support.patience import PATIENCE
from tests.support.shop import MONDAY, House
from tests.support.structure.walk import listens, post

# From HTTP to the recorded outcome; the clock is read in them too.
STATEMENTS = 27
CART = {"cart_id": "c1", "items": [{"name": "Kettle", "price": 30}], "currency": "EUR"}


@pytest.mark.parametrize("devices", [0, 1])
def test_an_event_takes_three_transactions(
    house: House, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    """The receiver commits it; its message is planned and claimed; the outcome is recorded."""
    [port] = free_ports(1)
    house.open_library(LIBRARY, load_policy(Settings().policy_file), receiver_port=port)
    # Neither housekeeping, renewed leases nor a look for what other processes plan is counted.
    # The first round of housekeeping may last until the second event is worked.
    for tasks in ("often", "newcomers"):
        monkeypatch.setattr(Housekeeping, tasks, lambda _: ())
    house.shorten(
        housekeeping=3600, idle=3600, backlog_every=3600, renew_every=3600, lease_lasts=7200
    )
    own_clock(house.db, monkeypatch)(MONDAY)
    house.db.is_migrated = True
    counted: list[list[str]] = []

    async def abandons(name: str) -> None:
        sent = len(house.providers.accepted)
        call: dict[str, Any] = {"userId": name, "event": "cart_abandoned", "properties": CART}
        await asyncio.to_thread(post, port, call)
        await until(lambda: len(house.providers.accepted) > sent)
        await until(lambda: {row.state for row in house.rows()} <= {"sent", "skipped"})

    async def scenario() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        async with asyncio.timeout(PATIENCE):
            await until(lambda: listens(port))
            # The first event of a process also fills what is cached.
            await abandons("ann")
            with transactions(house.db) as found:
                await abandons("bob")
                counted.extend(found)
            stop.set()
            await working

    for name in ("ann", "bob"):
        tokens = {f"token-{name}-{number}": "ios" for number in range(devices)}
        house.customer(name, push_tokens=tokens)
    with house.providers.listening():
        asyncio.run(scenario())
    channel = "push" if devices else "email"
    assert [one.channel for one in house.providers.accepted] == [channel] * 2
    shown = "\n\n".join("\n".join(sql[:100] for sql in one) for one in counted)
    assert len(counted) == 3, shown
    assert sum(map(len, counted)) <= STATEMENTS, shown
