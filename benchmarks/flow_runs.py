"""Live with one Prefect flow run per event, for comparison: the same journey without micro-batches.

    python -m benchmarks.flow_runs

runs the process that replaces the worker of benchmarks.live. The receiver and all work of the cart
recovery journey are the same. But each committed event starts a flow run in this process, which
moves its customer to the first message.

The setup favours Prefect: the run has no tasks, which Prefect's server would have to record, and
omits the steps of the next day, for which it would have to sleep. Segue's tables are in PostgreSQL.
Prefect's are in SQLite, because its server needs an extension (pg_trgm) that the embedded
PostgreSQL lacks, so the number of concurrent runs is limited to what SQLite sustains.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import select

from benchmarks.live import climb, fill_known, offer, percentiles
from benchmarks.support.databases import on_postgresql
from benchmarks.support.runner import Benchmark, Figures
from benchmarks.support.sandbox import Sandbox
from benchmarks.support.working import workers
from config.settings import Settings
from flows.app import Segue, open_segue
from flows.http.serving import serving
from flows.local.stack import Stack, on_free_ports
from journeys.engine.events import react
from profiles.tables import events

log = logging.getLogger(__name__)

_JOURNEY, _FIRST_STEP = "cart-recovery", "nudge"
_PEOPLE = 1000
# The rates of benchmarks.live with fewer events: once runs queue up, more events add nothing new.
_RATES, _EVENTS = (5, 50), 60
_CLIMB = (4, 6, 8, 10, 15, 20, 30, 50)
_WARM_UP = 5
# One and four were slower: Prefect's server responds 503 if many runs write to its SQLite.
_RUNS_AT_ONCE = 2


def _run(quick: bool) -> Figures:
    figures: dict[str, float] = {}
    with (
        on_postgresql(lambda db: fill_known(db, _PEOPLE), now=int(time.time())) as fresh,
        _servers() as stack,
    ):
        db = fresh()
        db.close()
        sandbox = Sandbox(stack.settings.sandbox_port, stack.settings.data_dir / "sandbox.db")
        prefect_url = f"{stack.settings.prefect_url}/api"
        left = iter(range(1, _PEOPLE + 1))
        with workers(1, db.url, sandbox.port, "benchmarks.flow_runs", prefect_url) as ports:
            warm = 1, offer(ports, sandbox, list(islice(left, _WARM_UP)), 1)
            if not quick:
                figures |= climb(ports, sandbox, left, _CLIMB, warm)
            for rate in _RATES[:1] if quick else _RATES:
                some = list(islice(left, _WARM_UP if quick else _EVENTS))
                figures |= percentiles(offer(ports, sandbox, some, rate), rate)
    return figures


@contextmanager
def _servers() -> Iterator[Stack]:
    """Prefect's server and the sandbox."""
    with TemporaryDirectory(prefix="segue-bench-") as folder:
        settings = on_free_ports(Settings(data_dir=Path(folder)))
        with Stack(settings) as stack:
            stack.start_servers()
            stack.wait_for_servers()
            yield stack


# The process -------------------------------------------------------------------------------------


async def _serve(segue: Segue) -> None:
    """Start a flow run for each event, until the process is terminated."""
    from prefect import flow

    version = segue.catalog.journey(_JOURNEY)
    committed = asyncio.Event()
    waiting = asyncio.Queue[int]()

    async with segue.dispatcher() as dispatcher:

        @flow(name=_JOURNEY)
        async def recover() -> None:
            await asyncio.to_thread(_take_oldest, segue)
            await asyncio.to_thread(segue.engine.advance, version, _FIRST_STEP)
            await dispatcher.run(journey=_JOURNEY)

        async def run_each() -> None:
            while True:
                event_id = await waiting.get()
                try:
                    await recover()
                except Exception:
                    log.exception("the run for event %d failed and is started again", event_id)
                    waiting.put_nowait(event_id)

        async with serving(segue, lambda _: committed.set()), asyncio.TaskGroup() as tasks:
            for _ in range(_RUNS_AT_ONCE):
                tasks.create_task(run_each())
            last = 0
            while await committed.wait():
                committed.clear()
                for event_id in await asyncio.to_thread(_after, segue, last):
                    waiting.put_nowait(last := event_id)


def _after(segue: Segue, event_id: int) -> list[int]:
    """The ids of the events that arrived after this one."""
    newer = select(events.c.id).where(events.c.id > event_id).order_by(events.c.id)
    with segue.db.transaction(write=False) as tx:
        return list(tx.conn.execute(newer).scalars())


def _take_oldest(segue: Segue) -> None:
    """Enter the customer of the oldest event that no other run processes."""
    with segue.db.transaction() as tx:
        react(tx, segue.catalog, 1)


FLOW_RUNS = Benchmark(
    "for comparison: the same journey with one Prefect flow run for each event", _run, {}
)

if __name__ == "__main__":
    asyncio.run(_serve(open_segue()))
