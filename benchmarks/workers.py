"""Workers: the processor time of a message with four workers on one PostgreSQL, and with one.

The events and the journey are those of benchmarks.live, and each worker gets as many a second as
the one that is alone, so that batches are as large. The processor time is that of the workers, from
the first event until the last outcome is recorded, less what they use in as many seconds without
events.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple, Self

from sqlalchemy import func, select, text

from benchmarks.live import fill_known, post_events
from benchmarks.support.databases import Fresh, on_postgresql
from benchmarks.support.runner import Benchmark, Figures
from benchmarks.support.sandbox import Sandbox, running_sandbox
from benchmarks.support.working import cpu_seconds, workers
from channels.messages import messages
from config.database.engine import Database

_MANY = 4
_RATE = 5  # events a second for each worker
_WARM_UP = 10  # events for each worker
_IDLE = 5.0  # seconds
_RECORDED_WITHIN = 60.0  # seconds
_COUNTS = text(
    "SELECT xact_commit + xact_rollback, deadlocks FROM pg_stat_database"
    " WHERE datname = current_database()"
)


def _run(quick: bool) -> Figures:
    events = 20 if quick else 60
    people = _MANY * (events + _WARM_UP)
    with (
        on_postgresql(lambda db: fill_known(db, people), now=int(time.time())) as fresh,
        running_sandbox() as sandbox,
    ):
        one = _cost(fresh, sandbox, 1, events)
        many = _cost(fresh, sandbox, _MANY, events)
    return {
        "messages_per_worker": events,
        "cpu_ms_per_message_one": 1000 * one.cpu,
        "cpu_ms_per_message_four": 1000 * many.cpu,
        "cpu_ratio_four_to_one": many.cpu / one.cpu,
        "idle_cpu_ms_per_second_one": 1000 * one.idle,
        "transactions_per_message_one": one.transactions / (events + _WARM_UP),
        "transactions_per_message_four": many.transactions / people,
        "deadlocks_per_1000_transactions": 1000 * many.deadlocks / many.transactions,
    }


class _Reading(NamedTuple):
    """A time, and the processor seconds that the workers have used until then."""

    at: float
    cpu: float

    @classmethod
    def of(cls, ports: Sequence[int]) -> Self:
        return cls(time.monotonic(), sum(map(cpu_seconds, ports)))

    def since(self, earlier: Self) -> Self:
        return type(self)(self.at - earlier.at, self.cpu - earlier.cpu)


class _Cost(NamedTuple):
    """Processor seconds for each message, and for each idle second; what the database counted."""

    cpu: float
    idle: float
    transactions: int
    deadlocks: int


def _cost(fresh: Fresh, sandbox: Sandbox, number: int, events: int) -> _Cost:
    db = fresh()
    warm, people = number * _WARM_UP, number * (_WARM_UP + events)
    with workers(number, db.url, sandbox.port) as ports:
        _send(db, ports, range(1, warm + 1))
        begun = _Reading.of(ports)
        time.sleep(_IDLE)
        idle = _Reading.of(ports).since(begun)
        begun = _Reading.of(ports)
        _send(db, ports, range(warm + 1, people + 1))
        busy = _Reading.of(ports).since(begun)
    # The workers have ended, so that the database has their counts.
    with db.transaction(write=False) as tx:
        transactions, deadlocks = tx.conn.execute(_COUNTS).one()
    db.close()
    cpu = busy.cpu - idle.cpu * busy.at / idle.at
    return _Cost(
        cpu=cpu / (people - warm),
        idle=idle.cpu / idle.at,
        transactions=transactions,
        deadlocks=deadlocks,
    )


def _send(db: Database, ports: Sequence[int], people: Sequence[int]) -> None:
    """Post an event of each customer, and wait until each has a message."""
    post_events(ports, people, _RATE * len(ports))
    deadline = time.monotonic() + _RECORDED_WITHIN
    while (sent := _number_sent(db)) < people[-1]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{sent} of {people[-1]} messages are sent")
        time.sleep(0.2)


def _number_sent(db: Database) -> int:
    with db.transaction(write=False) as tx:
        sent = select(func.count()).where(messages.c.state == "sent")
        return tx.conn.execute(sent).scalar_one()


WORKERS = Benchmark(
    "workers: processor time of a message, four workers on one PostgreSQL",
    _run,
    {
        "cpu_ratio_four_to_one": "at most 1.2",
        "deadlocks_per_1000_transactions": "at most 1",
    },
)
