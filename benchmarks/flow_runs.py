"""Live with a Prefect flow run an event, for comparison: the same journey, without micro-batches.

    python -m benchmarks.flow_runs

is the process that stands where the worker stands in benchmarks.live. Its receiver is the same, and
so is what the library's own cart recovery looks up, decides, records, renders and posts; but each
event that is committed has a flow run in this process, which takes its person to the first message.

It is made easy for Prefect: the run has no tasks, which its server would have to record as well,
and nothing of what would come a day later, for which it would have to sleep. Our rows are in
PostgreSQL; Prefect's are in SQLite, for its server wants an extension (pg_trgm) that the embedded
PostgreSQL does not have, and so there are never more runs at once than SQLite can bear.
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

from benchmarks.databases import on_postgresql
from benchmarks.live import climb, fill_known, offer, percentiles
from benchmarks.runner import Benchmark, Figures
from benchmarks.sandbox import Sandbox
from benchmarks.working import workers
from config.settings import Settings
from flows.app import Segue, open_segue
from flows.http.serving import serving
from flows.local.stack import Stack, on_free_ports
from journeys.engine.events import react
from profiles.tables import events

log = logging.getLogger(__name__)

_JOURNEY, _FIRST_STEP = "cart-recovery", "nudge"
_PEOPLE = 1000
# The rates of benchmarks.live, with fewer events: a longer queue would only be more of the same.
_RATES, _EVENTS = (5, 50, 200), 100
_CLIMB = (2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50)
_WARM_UP = 5
# One was slower, and four were: Prefect's server answers 503 when many write to its SQLite.
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
    """A flow run for each event that comes, until we are terminated."""
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
                    log.exception("the run for event %d failed; another begins", event_id)
                    waiting.put_nowait(event_id)

        async with serving(segue, committed.set), asyncio.TaskGroup() as tasks:
            for _ in range(_RUNS_AT_ONCE):
                tasks.create_task(run_each())
            last = 0
            while await committed.wait():
                committed.clear()
                for event_id in await asyncio.to_thread(_after, segue, last):
                    waiting.put_nowait(last := event_id)


def _after(segue: Segue, event_id: int) -> list[int]:
    """The events that have come since this one."""
    newer = select(events.c.id).where(events.c.id > event_id).order_by(events.c.id)
    with segue.db.transaction(write=False) as tx:
        return list(tx.conn.execute(newer).scalars())


def _take_oldest(segue: Segue) -> None:
    """Let the person of the oldest event in that no other run has."""
    with segue.db.transaction() as tx:
        react(tx, segue.catalog, 1)


FLOW_RUNS = Benchmark("the same journey with a Prefect flow run an event, for comparison", _run, {})

if __name__ == "__main__":
    asyncio.run(_serve(open_segue()))
