"""Intake: events per second that one worker commits, posted to `/v1/batch` a hundred at a time.

Segment's libraries send batches of a hundred. The worker also reacts to the events while they
arrive.
"""

import asyncio
import time
from collections.abc import Iterator

import uvloop
from sqlalchemy import func, select

from benchmarks.databases import Fresh, on_postgresql, on_sqlite
from benchmarks.live import fill_known
from benchmarks.runner import Benchmark, Figures
from benchmarks.stub import running_stub
from benchmarks.traffic import Shop, request_of
from benchmarks.working import workers
from config.database.engine import Database
from profiles.tables import events

_PEOPLE = 2000
_A_BATCH = 100
_CONNECTIONS = 8


def _run(quick: bool) -> Figures:
    number = 400 if quick else 20_000
    people = 200 if quick else _PEOPLE
    now = int(time.time())
    with on_sqlite(lambda db: fill_known(db, people), now) as fresh:
        on_one = _accepted(fresh, number, people)
    with on_postgresql(lambda db: fill_known(db, people), now) as fresh:
        on_other = _accepted(fresh, number, people)
    return {
        "events": number,
        "sqlite_per_second": number / on_one,
        "postgresql_per_second": number / on_other,
    }


def _accepted(fresh: Fresh, number: int, people: int) -> float:
    """The seconds until all events are accepted."""
    db = fresh()
    db.close()
    with running_stub() as stub, workers(1, db.url, stub) as ports:
        uvloop.run(_post_all(ports, _requests(10 * _A_BATCH, people, "before")))
        requests = list(_requests(number, people, "now"))
        started = time.perf_counter()
        uvloop.run(_post_all(ports, iter(requests)))
        took = time.perf_counter() - started
    committed = _count(db)
    assert committed == 10 * _A_BATCH + number, f"{committed} events are in the database"
    return took


def _requests(number: int, people: int, name: str) -> Iterator[bytes]:
    for first in range(0, number, _A_BATCH):
        calls = [
            {
                "type": "track",
                "userId": f"u-{1 + one % people}",
                "event": "product_viewed",
                "messageId": f"{name}-{one}",
                "timestamp": "2026-03-02T10:00:00.000Z",
                "properties": {"sku": f"s-{one % 97}", "price": 24.5, "category": "Camping"},
            }
            for one in range(first, min(first + _A_BATCH, number))
        ]
        yield request_of("/v1/batch", {"batch": calls, "sentAt": "2026-03-02T10:00:01.000Z"})


async def _post_all(ports: list[int], requests: Iterator[bytes]) -> None:
    shop = Shop(ports)

    async def post_some() -> None:
        for request in requests:
            _, status = await shop.post(request)
            assert status == 200, f"the receiver responds {status}"

    await asyncio.gather(*(post_some() for _ in range(_CONNECTIONS)))
    shop.close()


def _count(db: Database) -> int:
    with db.transaction(write=False) as tx:
        counted = select(func.count()).select_from(events)
        return tx.conn.execute(counted).scalar_one()


INTAKE = Benchmark(
    "intake: events committed per second, through /v1/batch",
    _run,
    {"sqlite_per_second": "at least 3,000", "postgresql_per_second": "at least 5,000"},
)
