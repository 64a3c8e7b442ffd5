"""Profile reads: `GET /v1/profiles/user_id:...` at 200 a second beside 50 events a second.

A complete worker answers them, while it reacts to the events: views of products, and one in ten an
abandoned cart, which becomes a mail to the sandbox. A read asks for every field, of a customer with
twenty events, in the library's segments.

The reference is the bare application of `intake` (benchmarks/baselines/receivers.py), which reads a
profile by its primary key and inserts as many events. It runs on a database of its own at the same
server. Both have their turn in each round; `p99_ratio_to_bare_read` is the p99 of the bare read by
that of the profile, the median of the rounds.
"""

import asyncio
import math
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import NamedTuple

import uvloop
from sqlalchemy import insert

from benchmarks.live import fill_known
from benchmarks.support.databases import Fresh, on_postgresql, on_sqlite
from benchmarks.support.runner import Benchmark, Figures
from benchmarks.support.sandbox import running_sandbox
from benchmarks.support.traffic import Shop, read_of, request_of
from benchmarks.support.working import cpu_seconds, workers
from config.clock.times import DAY
from config.database.engine import Database
from flows.http.profile_api import PREFIX
from profiles.tables import events

_WORKER, _BARE = "flows.cli.main work", "benchmarks.baselines.receivers bare"
_READS, _EVENTS = 200, 50  # a second
_HISTORY = 20  # events of each customer
_CARTS = 10  # one event in so many is an abandoned cart
_WARM_UP = 1.0  # seconds


class _Size(NamedTuple):
    """Customers, rounds, and the seconds of a round for each of the two processes."""

    people: int
    rounds: int
    seconds: float


class _Round(NamedTuple):
    """The milliseconds of each read, and the processor seconds of the process."""

    took: Sequence[float]
    cpu: float


def _postgresql(quick: bool) -> Figures:
    return _run(on_postgresql, quick)


def _sqlite(quick: bool) -> Figures:
    return _run(on_sqlite, quick)


def _run(database: Callable[..., AbstractContextManager[Fresh]], quick: bool) -> Figures:
    size = _Size(400, 1, 1.0) if quick else _Size(1000, 3, 4.0)
    now = int(time.time())
    with (
        database(lambda db: _fill(db, size.people, now), now=now) as fresh,
        running_sandbox() as sandbox,
    ):
        stores = [fresh(), fresh()]
        for db in stores:
            db.close()
        urls = [db.url for db in stores]
        buyers = iter(range(1, size.people + 1))
        with (
            workers(1, urls[0], sandbox.port, _WORKER) as ours,
            workers(1, urls[1], sandbox.port, _BARE) as bare,
        ):
            rounds: list[tuple[_Round, _Round]] = []
            for seconds in (_WARM_UP, *[size.seconds] * size.rounds):
                chance = random.Random(len(rounds))
                one, other = (
                    _read(ports, size.people, seconds, chance, buyers) for ports in (ours, bare)
                )
                rounds.append((one, other))
    return _figures(rounds[1:])


def _fill(db: Database, people: int, now: int) -> None:
    """Customers with a history."""
    fill_known(db, people)
    names = ("page_viewed", "product_viewed", "cart_viewed", "order_completed")
    for number in range(_HISTORY):
        rows = [
            {
                "profile_id": profile_id,
                "name": names[number % len(names)],
                "occurred_at": now - (number + 1) * 10 * DAY,
                "received_at": now,
                "worked_at": now,
                "properties": {"url": f"/products/{profile_id % 97}", "total": 24.5},
                "dedupe_key": f"h{number}",
            }
            for profile_id in range(1, people + 1)
        ]
        with db.transaction() as tx:
            tx.conn.execute(insert(events), rows)


def _read(
    ports: Sequence[int],
    people: int,
    seconds: float,
    chance: random.Random,
    buyers: Iterator[int],
) -> _Round:
    """Read profiles and send events for so long, at random times."""

    async def load() -> list[float]:
        shop = Shop(ports)
        took: list[float] = []

        async def read(number: int) -> None:
            left, status = await shop.send(read_of(f"{PREFIX}user_id:u-{number}"))
            took.append((time.monotonic() - left) * 1000)
            assert status == 200, f"the receiver responds {status}"

        async def report(number: int) -> None:
            _, status = await shop.send(_event_of(number))
            assert status == 200, f"the receiver responds {status}"

        reads = iter(lambda: chance.randint(1, people), 0)
        await asyncio.gather(
            _at_rate(_READS, seconds, read, reads), _at_rate(_EVENTS, seconds, report, buyers)
        )
        shop.close()
        return took

    before = cpu_seconds(ports[0])
    took = uvloop.run(load())
    return _Round(took, cpu_seconds(ports[0]) - before)


def _event_of(number: int) -> bytes:
    """The request with an event of a customer."""
    is_cart = number % _CARTS == 0
    seen = {"sku": f"s-{number % 97}", "price": 24.5, "category": "Camping"}
    event = {
        "userId": f"u-{number}",
        "event": "cart_abandoned" if is_cart else "product_viewed",
        "messageId": f"m-{number}",
        "properties": {"cart_id": f"c-{number}", **seen} if is_cart else seen,
    }
    return request_of("/v1/track", event)


async def _at_rate(
    rate: int, seconds: float, send: Callable[[int], Awaitable[None]], numbers: Iterator[int]
) -> None:
    """Send at random times, however slow the responses are."""
    chance, due = random.Random(rate), time.monotonic()
    sending = []
    for number in islice(numbers, round(rate * seconds)):
        due += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        sending.append(asyncio.ensure_future(send(number)))
    await asyncio.gather(*sending)


def _figures(rounds: Sequence[tuple[_Round, _Round]]) -> Figures:
    ours = [took for one, _ in rounds for took in one.took]
    bare = [took for _, one in rounds for took in one.took]
    ratios = [_percentile(b.took, 99) / _percentile(o.took, 99) for o, b in rounds]
    cpu = [b.cpu / o.cpu for o, b in rounds]
    return {
        "p50_ms": _percentile(ours, 50),
        "p99_ms": _percentile(ours, 99),
        "bare_p50_ms": _percentile(bare, 50),
        "bare_p99_ms": _percentile(bare, 99),
        "p99_ratio_to_bare_read": statistics.median(ratios),
        "cpu_ratio_to_bare_read": statistics.median(cpu),
    }


def _percentile(took: Sequence[float], percent: int) -> float:
    return sorted(took)[math.ceil(len(took) * percent / 100) - 1]


_AIMS = {"p99_ms": "at most 50", "p99_ratio_to_bare_read": "at least 0.3"}
POSTGRESQL = Benchmark(
    "profile reads: 200 a second beside 50 events a second, PostgreSQL", _postgresql, _AIMS
)
SQLITE = Benchmark("the same on SQLite", _sqlite, _AIMS)
