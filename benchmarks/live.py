"""Live: the time from an event's first byte to the first byte of the resulting message.

The journey is the library's cart recovery. A shop posts `cart_abandoned` to a worker's receiver at
random times. The worker commits it, enters the customer, plans the reminder under windows and caps,
claims it, and posts it to the sandbox, which records when the request arrives. All times are of the
machine's monotonic clock. Each customer abandons one cart.

The reference is a process that does the least for the same events
(benchmarks/baselines/bare_loop.py), with the same sandbox and the same database server.
`cpu_ratio_to_bare_loop` is the worker's processor time for each message by that of the bare
process.
"""

import asyncio
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby, islice
from typing import NamedTuple

import uvloop
from sqlalchemy import insert

from benchmarks.support.databases import Fresh, on_postgresql, on_sqlite
from benchmarks.support.material import fill
from benchmarks.support.runner import Benchmark, Figures
from benchmarks.support.sandbox import Sandbox, running_sandbox
from benchmarks.support.traffic import Shop, request_of
from benchmarks.support.working import cpu_seconds, workers
from config.database.engine import Database
from profiles.tables import identifiers

_WORKER, _BARE = "flows.cli.main work", "benchmarks.baselines.bare_loop"
# The rates at which Segue is compared with the bare loop.
_P50_AT, _CPU_AT = 5, 50
# Rates to try after the planned ones, until the processes fall behind.
_FASTER = (300, 400, 600, 900)
_BARE_FASTER = (400, 600, 900, 1300, 1800)
_CLIMBS_FOR = 5.0  # seconds per rate
# They have fallen behind when the median of the last messages exceeds this, in seconds.
_BEHIND = 1.0
_WARM_UP = 20


class _Load(NamedTuple):
    """Events to offer: how many processes take them, how many a second, for how many seconds."""

    processes: int
    rate: int
    seconds: float


def _postgresql(quick: bool) -> Figures:
    if quick:
        return _quick(on_postgresql)
    loads = [_Load(1, 5, 15.0), _Load(1, 50, 15.0), _Load(2, 200, 15.0)]
    bare = [_Load(1, 5, 10.0), _Load(1, 50, 10.0), _Load(1, 200, 5.0)]
    with on_postgresql(lambda db: fill_known(db, 50_000), now=_now()) as fresh:
        return _measure(fresh, 50_000, loads, bare, climbing=True)


def _sqlite(quick: bool) -> Figures:
    if quick:
        return _quick(on_sqlite)
    loads = [_Load(1, 5, 10.0), _Load(1, 50, 10.0)]
    with on_sqlite(lambda db: fill_known(db, 2_000), now=_now()) as fresh:
        return _measure(fresh, 2_000, loads, loads, climbing=False)


def _quick(database: Callable[..., AbstractContextManager[Fresh]]) -> Figures:
    loads = [_Load(1, 5, 1.0), _Load(1, 50, 1.0)]
    with database(lambda db: fill_known(db, 400), now=_now()) as fresh:
        return _measure(fresh, 400, loads, loads, climbing=False)


def _now() -> int:
    return int(time.time())


def fill_known(db: Database, people: int) -> None:
    """Create the tables and this many customers, with user ids from `u-1`."""
    fill(db, people, _now(), alone=True)
    rows = [
        {"kind": "user_id", "value": f"u-{number}", "profile_id": number, "seen_at": _now()}
        for number in range(1, people + 1)
    ]
    with db.transaction() as tx:
        tx.conn.execute(insert(identifiers), rows)


def _measure(
    fresh: Fresh, people: int, loads: Sequence[_Load], bare: Sequence[_Load], *, climbing: bool
) -> Figures:
    left = iter(range(1, people + 1))
    with running_sandbox() as sandbox:
        ours = _offered(fresh, _WORKER, loads, sandbox, left, _FASTER if climbing else ())
        theirs = _offered(fresh, _BARE, bare, sandbox, left, _BARE_FASTER if climbing else ())
    cpu, p50, most = "cpu_ms_a_message", f"p50_ms_at_{_P50_AT}", "keeps_up_with_per_second"
    figures = {
        **ours,
        "cpu_ratio_to_bare_loop": ours[cpu] / theirs[cpu],
        "p50_ratio_to_bare_loop": ours[p50] / theirs[p50],
    }
    if climbing:
        figures["keeps_up_with_of_bare_loop"] = ours[most] / theirs[most]
    return figures


def _offered(
    fresh: Fresh,
    command: str,
    loads: Sequence[_Load],
    sandbox: Sandbox,
    left: Iterator[int],
    faster: Sequence[int],
) -> dict[str, float]:
    """Offer the loads to processes of this command, on a new database, and climb from the last."""
    db = fresh()
    db.close()
    figures: dict[str, float] = {}
    for processes, same in groupby(loads, lambda load: load.processes):
        with workers(processes, db.url, sandbox.port, command) as ports:
            offer(ports, sandbox, list(islice(left, _WARM_UP)), _WARM_UP)
            for load in same:
                some = list(islice(left, round(load.rate * load.seconds)))
                before = sum(map(cpu_seconds, ports))
                took = offer(ports, sandbox, some, load.rate)
                if load.rate == _CPU_AT:
                    spent = sum(map(cpu_seconds, ports)) - before
                    figures["cpu_ms_a_message"] = 1000 * spent / len(some)
                figures |= percentiles(took, load.rate)
                if faster and load is loads[-1]:
                    figures |= climb(ports, sandbox, left, faster, (load.rate, took))
    return figures


def percentiles(took: Sequence[float], rate: int) -> Figures:
    """Percentiles of the times, in milliseconds."""
    ordered = sorted(took)
    return {
        f"p{percent}_ms_at_{rate}": ordered[math.ceil(len(ordered) * percent / 100) - 1]
        for percent in (50, 95, 99)
    }


def climb(
    ports: Sequence[int],
    sandbox: Sandbox,
    left: Iterator[int],
    rates: Iterable[int],
    begun: tuple[int, Sequence[float]],
) -> Figures:
    """Raise the rate until the workers fall behind.

    Returns the last rate that they kept up with, and the first at which they fell behind (0: none).

    Parameters
    ----------
    begun: a rate that was already offered, and the milliseconds of its messages.
    """
    kept_up, (rate, took) = 0, begun
    faster = iter(rates)
    while not _falls_behind(took):
        kept_up, rate = rate, next(faster, 0)
        if not rate:
            break
        took = offer(ports, sandbox, list(islice(left, round(rate * _CLIMBS_FOR))), rate)
    return {"keeps_up_with_per_second": kept_up, "falls_behind_at_per_second": rate}


def _falls_behind(took: Sequence[float]) -> bool:
    last = took[-max(1, len(took) // 10) :]
    return statistics.median(last) > 1000 * _BEHIND


def event_of(number: int) -> bytes:
    """The request with the event of a customer."""
    event = {"userId": f"u-{number}", "event": "cart_abandoned", "properties": _CART}
    return request_of("/v1/track", event)


def offer(ports: Sequence[int], sandbox: Sandbox, people: list[int], rate: float) -> list[float]:
    """Post one event per customer, at a mean rate per second.

    Returns the milliseconds from each event to its message, in order.
    """
    left = post_events(ports, people, rate)
    arrived = sandbox.all_arrived(people)
    return [(arrived[number] - left[number]) * 1000 for number in people]


def post_events(ports: Sequence[int], people: Sequence[int], rate: float) -> dict[int, float]:
    """Post one event per customer, at a mean rate per second.

    Returns when each left, by the machine's monotonic clock. The times do not depend on how fast
    the responses are.
    """

    async def leave_all() -> dict[int, float]:
        shop, chance = Shop(ports), random.Random(rate)
        left: dict[int, float] = {}

        async def leave(number: int) -> None:
            left[number], status = await shop.send(event_of(number))
            assert status == 200, f"the receiver responds {status}"

        loop, due = asyncio.get_running_loop(), time.monotonic()
        leaving = []
        for number in people:
            due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            leaving.append(loop.create_task(leave(number)))
        await asyncio.gather(*leaving)
        shop.close()
        return left

    return uvloop.run(leave_all())


_CART = {
    "cart_id": "c-1",
    "items": [{"name": "Tent for Two Nights", "quantity": 1}, {"name": "Camping Stove"}],
    "url": "https://shop.example/cart/1",
}


_AIMS = {
    "p50_ms_at_5": "at most 50",
    "p99_ms_at_50": "at most 500",
    "cpu_ratio_to_bare_loop": "at most 3",
    "p50_ratio_to_bare_loop": "at most 4",
}
POSTGRESQL = Benchmark(
    "live: time from an event to its message, PostgreSQL, up to 200 per second with two workers",
    _postgresql,
    {
        **_AIMS,
        "keeps_up_with_per_second": "at least 200, with two workers",
        "keeps_up_with_of_bare_loop": "at least 0.3",
    },
)
SQLITE = Benchmark(
    "the same on SQLite, with one worker",
    _sqlite,
    _AIMS,
)
