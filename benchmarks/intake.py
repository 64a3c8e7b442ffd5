"""Intake: what it costs a receiver to commit events, against a bare ASGI application.

Segment's libraries batch a hundred events; a server sends single ones. A receiver alone in its
process (benchmarks/baselines/receivers.py) takes both, and so does the bare application, on the
same database and server (uvicorn with uvloop and httptools). `cpu_ratio` is the processor time of
the bare process by that of the receiver's, without the database server's: it does not depend on
other load.

`per_second` is for a complete worker, which also reacts to the events as they arrive. Several
workers share the database.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import uvloop
from sqlalchemy import func, select

from benchmarks.live import fill_known
from benchmarks.support.databases import Fresh, on_postgresql, on_sqlite
from benchmarks.support.runner import Benchmark, Figures
from benchmarks.support.stub import running_stub
from benchmarks.support.traffic import Shop, request_of
from benchmarks.support.working import cpu_seconds, workers
from config.database.engine import Database
from profiles.tables import events

_PEOPLE = 2000
_A_BATCH = 100
_FORMS = {"batch": _A_BATCH, "single": 1}
_CONNECTIONS = 8


def _run(quick: bool) -> Figures:
    # Processor time is counted in hundredths of a second, so a receiver needs some events.
    size = _Size(200, 4_000, 100) if quick else _Size(_PEOPLE, 20_000, 1000)
    now = int(time.time())
    figures: dict[str, float] = {"events": size.events}
    for name, database in (("sqlite", on_sqlite), ("postgresql", on_postgresql)):
        with database(lambda db: fill_known(db, size.people), now) as fresh:
            figures[f"{name}_per_second"] = size.events / _seconds(fresh, size)
            rounds = [_ratios(fresh, size) for _ in range(1 if quick else 3)]
            for form in _FORMS:
                ratio = statistics.median(found[form] for found in rounds)
                figures[f"{name}_{form}_cpu_ratio"] = ratio
    return figures


class _Size(NamedTuple):
    """Customers, events in batches, and events to warm up; a tenth of them are sent singly."""

    people: int
    events: int
    warm_up: int


def _seconds(fresh: Fresh, size: _Size) -> float:
    """The seconds until a worker has accepted all events."""
    db = fresh()
    db.close()
    with running_stub() as stub, workers(1, db.url, stub) as ports:
        uvloop.run(_post_all(ports, _requests(size.warm_up, size.people, "before", _A_BATCH)))
        requests = list(_requests(size.events, size.people, "now", _A_BATCH))
        started = time.perf_counter()
        uvloop.run(_post_all(ports, iter(requests)))
        took = time.perf_counter() - started
    _check(db, size.warm_up + size.events)
    return took


def _ratios(fresh: Fresh, size: _Size) -> dict[str, float]:
    """The processor time of the bare application by that of the receiver, by form."""
    ours, bare = (
        _cpu_seconds(fresh, f"benchmarks.baselines.receivers {which}", size)
        for which in ("segue", "bare")
    )
    return {form: bare[form] / ours[form] for form in _FORMS}


def _cpu_seconds(fresh: Fresh, command: str, size: _Size) -> dict[str, float]:
    """The processor seconds of a receiving process for the events in each form."""
    db = fresh()
    db.close()
    took: dict[str, float] = {}
    sent = 0
    with workers(1, db.url, 1, command) as ports:
        for form, in_a_call in _FORMS.items():
            events = size.events if in_a_call > 1 else size.events // 10
            for number, name in ((size.warm_up, "before"), (events, "now")):
                requests = list(_requests(number, size.people, f"{name}-{form}", in_a_call))
                before = cpu_seconds(ports[0])
                uvloop.run(_post_all(ports, iter(requests)))
                took[form] = cpu_seconds(ports[0]) - before
                sent += number
    _check(db, sent)
    return took


def _requests(number: int, people: int, name: str, size: int) -> Iterator[bytes]:
    for first in range(0, number, size):
        calls = [_call(one, people, name) for one in range(first, min(first + size, number))]
        if size == 1:
            yield request_of("/v1/track", {**calls[0], "sentAt": "2026-03-02T10:00:01.000Z"})
        else:
            yield request_of("/v1/batch", {"batch": calls, "sentAt": "2026-03-02T10:00:01.000Z"})


def _call(number: int, people: int, name: str) -> dict[str, Any]:
    return {
        "type": "track",
        "userId": f"u-{1 + number % people}",
        "event": "product_viewed",
        "messageId": f"{name}-{number}",
        "timestamp": "2026-03-02T10:00:00.000Z",
        "properties": {"sku": f"s-{number % 97}", "price": 24.5, "category": "Camping"},
    }


async def _post_all(ports: list[int], requests: Iterator[bytes]) -> None:
    shop = Shop(ports)

    async def post_some() -> None:
        for request in requests:
            _, status = await shop.send(request)
            assert status == 200, f"the receiver answers {status}"

    await asyncio.gather(*(post_some() for _ in range(_CONNECTIONS)))
    shop.close()


def _check(db: Database, number: int) -> None:
    with db.transaction(write=False) as tx:
        committed = tx.conn.execute(select(func.count()).select_from(events)).scalar_one()
    db.close()
    assert committed == number, f"{committed} events are in the database"


_AIM = "at least 0.5"
INTAKE = Benchmark(
    "intake: events a second committed, through /v1/batch, and the cost of receiving",
    _run,
    {
        "sqlite_per_second": "at least 3,000",
        "postgresql_per_second": "at least 5,000",
        "sqlite_batch_cpu_ratio": _AIM,
        "sqlite_single_cpu_ratio": _AIM,
        "postgresql_batch_cpu_ratio": _AIM,
        "postgresql_single_cpu_ratio": _AIM,
    },
)
