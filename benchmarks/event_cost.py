"""What one event costs: the statements and transactions from its call to its recorded message.

PostgreSQL's own log counts them, of one call of a known customer that starts the library's cart
recovery, in the second after the call, without what an idle worker executes in a second.
"""

import re
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from benchmarks.live import fill_known, offer
from benchmarks.support.databases import on_postgresql
from benchmarks.support.runner import Benchmark, Figures
from benchmarks.support.sandbox import Sandbox, running_sandbox
from benchmarks.support.working import workers
from config.database.engine import Database

_PEOPLE = 50
_WARM_UP = 5
_SECOND = 1.0
# A line of the log for each statement; a statement of several lines continues without it.
_STATEMENT = re.compile(r"LOG: +(?:statement|execute [^:]*): (\w+)")


class _Counts(NamedTuple):
    statements: int
    transactions: int


def _run(quick: bool) -> Figures:
    with (
        on_postgresql(lambda db: fill_known(db, _PEOPLE), now=int(time.time())) as fresh,
        running_sandbox() as sandbox,
    ):
        db = fresh()
        log = _log_of(db)
        db.close()
        left = iter(range(1, _PEOPLE + 1))
        with workers(1, db.url, sandbox.port) as ports:
            offer(ports, sandbox, list(islice(left, _WARM_UP)), _WARM_UP)
            costs = [_cost(log, ports, sandbox, left) for _ in range(1 if quick else 8)]
    return {
        "statements": statistics.median(one.statements for one in costs),
        "transactions": statistics.median(one.transactions for one in costs),
    }


def _log_of(db: Database) -> Path:
    """The server's log file, which from now on has each statement of new connections."""
    with db.transaction() as tx:
        name = tx.conn.exec_driver_sql("SELECT current_database()").scalar_one()
        tx.conn.exec_driver_sql(f"ALTER DATABASE {name} SET log_statement = 'all'")
        folder = tx.conn.exec_driver_sql("SHOW data_directory").scalar_one()
    return Path(folder) / "log"


def _cost(log: Path, ports: list[int], sandbox: Sandbox, left: Iterator[int]) -> _Counts:
    begun = log.stat().st_size
    time.sleep(_SECOND)
    called = log.stat().st_size
    started = time.monotonic()
    offer(ports, sandbox, [next(left)], _WARM_UP)
    time.sleep(max(0.0, _SECOND - (time.monotonic() - started)))
    text = log.read_bytes()
    idle, busy = _counted(text[begun:called]), _counted(text[called:])
    return _Counts(busy.statements - idle.statements, busy.transactions - idle.transactions)


def _counted(text: bytes) -> _Counts:
    words = [word.upper() for word in _STATEMENT.findall(text.decode())]
    ends = sum(word in ("COMMIT", "ROLLBACK") for word in words)
    return _Counts(sum(word != "BEGIN" for word in words) - ends, ends)


EVENT_COST = Benchmark(
    "event cost: statements and transactions from one event to its recorded message, PostgreSQL",
    _run,
    {"statements": "at most 30", "transactions": "at most 4"},
)
