"""A run: workers, a provider and a shop as processes, kills, a quiet phase, the verdict."""

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import func, select

from channels.messages import message_devices, messages
from config.database.engine import Database
from config.database.schema import migrate
from config.policy import load_policy
from flows.local.stack import free_ports
from journeys.enrollments import enrollments
from journeys.tables import passages
from profiles.tables import events
from tests.chaos import engines, provider, worker
from tests.chaos.crew import LAUNCHER, WORKERS, Crew, processes
from tests.chaos.engines import Engine, Trouble
from tests.chaos.patience import patiently
from tests.chaos.provider import Outage, remembered
from tests.chaos.shop import Shop, customers, day
from tests.chaos.verdict import Fate, judge
from tests.chaos.worker import posted

_A_SECOND = 12.0
# Somebody dies every so many seconds, and is back after at most as many. Somebody also freezes, for
# up to so many, which in a long run is longer than it takes until its claims count as lost and its
# transactions are ended.
_KILL_EVERY, _AWAY = 1.8, 1.0
_FREEZE_EVERY, _FROZEN = 25.0, 20.0
_TROUBLE_EVERY = 30.0


class Kill(NamedTuple):
    """At that second of the run this process is killed (or frozen) for so many seconds."""

    at: float
    whom: int
    away: float


def schedule(seed: int, what: str, seconds: float, every: float, away: float) -> list[Kill]:
    """Which worker and when: the same for the same seed."""
    draw = random.Random(f"{seed}/{what}")
    kills = []
    at = 1.0
    while (at := at + draw.expovariate(1 / every)) < seconds:
        kills.append(Kill(at, draw.randrange(WORKERS), draw.uniform(0, away)))
    return kills


def launching(seed: int, seconds: float) -> list[Kill]:
    """The launcher begins, and dies a few times soon after."""
    draw = random.Random(f"{seed}/launcher")
    at = seconds * 0.3
    return [
        Kill(at := at + draw.uniform(0.1, 0.6), LAUNCHER, draw.uniform(0, 0.3)) for _ in range(3)
    ]


def outages(seed: int, seconds: float) -> list[Outage]:
    """Each channel once in a while is down altogether, long enough for its breaker to open."""
    draw = random.Random(f"{seed}/outages")
    found = []
    for channel in ("email", "sms", "push"):
        begins = draw.uniform(0.2, 0.7) * seconds
        found.append(Outage(channel, begins, begins + min(4, seconds / 5)))
    return found


def run(engine: Engine, seed: int, seconds: float) -> tuple[dict[str, Any], list[str]]:
    """One run. Returns the line to print, and everything that is wrong."""
    with (
        tempfile.TemporaryDirectory(prefix="segue-chaos-") as name,
        engines.started(engine, Path(name)) as (url, troubles),
    ):
        directory = Path(name)
        db = Database(url)
        migrate(db)
        people = int(10 + 2 * seconds)
        customers(db, people)
        *ports, provider_port = free_ports(WORKERS + 1)
        _set(directory, url, provider_port)
        memory = directory / "provider.jsonl"
        answering = processes.Process(
            target=provider.serve,
            args=(provider_port, str(memory), seed, outages(seed, seconds)),
        )
        crew = Crew(directory, ports)
        shop = Shop(day(seed, seconds, _A_SECOND, people), ports)
        try:
            answering.start()
            storm = _Storm(crew=crew, shop=shop, seed=seed, seconds=seconds, troubles=troubles)
            storm.rage()
            db.close()  # it may have a connection that the storm has cut
            db = Database(url)
            began = time.monotonic()
            calm = patiently(partial(_is_calm, db), partial(_progress, db))
            calm_after = time.monotonic() - began
            crew.stop()
        finally:
            for process in (*crew.running.values(), answering):
                process.kill()
        verdict = judge(
            db,
            load_policy(worker.POLICY),
            shop.accepted,
            Fate(
                heard=remembered(memory),
                posts=posted(directory),
                killed=crew.killed,
                # A locked file is waited for, and a full one gives everything back; of a database
                # that died nobody knows what it last did.
                troubles=storm.in_trouble if engine == "postgresql" else [],
                claim_lasts=worker.CLAIM_LASTS,
            ),
        )
        db.close()
        if not calm:
            verdict.stuck.append("not everything came to rest, and nothing went on any more")
        line = {
            "db": engine,
            "seed": seed,
            "seconds": seconds,
            "kills": crew.kills,
            "freezes": crew.freezes,
            "database_troubles": len(storm.in_trouble),
            "provider_faults": verdict.faults,
            "events_accepted": verdict.events,
            "messages_accepted": verdict.accepted,
            "duplicates": len(verdict.duplicates),
            "lost": len(verdict.lost),
            "stuck": len(verdict.stuck),
            "cap_violations": len(verdict.caps),
            "unknown": sum(verdict.unknown.values()),
            "unknown_because": dict(verdict.unknown),
            "unknown_unexplained": len(verdict.unexplained),
            "untrue": len(verdict.untrue),
            "behind": round(storm.behind, 1),
            "calm_after": round(calm_after, 1),
        }
        wrong = verdict.wrong() + crew.fell + shop.refused
        return line, [*wrong, crew.logs()] if wrong else []


class _Storm:
    """Everything at once."""

    def __init__(
        self, *, crew: Crew, shop: Shop, seed: int, seconds: float, troubles: Sequence[Trouble]
    ) -> None:
        self._crew = crew
        self._shop = shop
        self._seconds = seconds
        # from when to when the database was
        self.in_trouble: list[tuple[float, float]] = []
        # how much later than planned something was done, at most
        self.behind = 0.0
        acts: list[tuple[float, Callable[[], None]]] = []
        number = max(len(troubles), int(seconds / _TROUBLE_EVERY))
        for one in range(number):
            upset = partial(self._upset, troubles[one % len(troubles)])
            acts.append((seconds * (one + 1) / (number + 1), upset))
        acts.append((seconds * 0.3, partial(crew.start, LAUNCHER)))
        kills = schedule(seed, "kills", seconds, _KILL_EVERY, _AWAY)
        for at, whom, away in [*kills, *launching(seed, seconds)]:
            acts.append((at, partial(crew.kill, whom)))
            acts.append((at + away, partial(crew.start, whom)))
        frozen = min(_FROZEN, seconds / 8)
        for at, whom, away in schedule(seed, "freezes", seconds, _FREEZE_EVERY, frozen):
            acts.append((at, partial(crew.freeze, whom, away)))
        self._acts = sorted(acts, key=itemgetter(0))
        self._upsetting: list[threading.Thread] = []
        self._one_trouble = threading.Lock()

    def rage(self) -> None:
        """Until all is done; then everybody is up, and what customers did was taken."""
        for number in range(WORKERS):
            self._crew.start(number)
        self._shop.open()
        began = time.monotonic()
        for at, act in self._acts:
            time.sleep(max(0.0, began + at - time.monotonic()))
            self.behind = max(self.behind, time.monotonic() - began - at)
            act()
        for upsetting in self._upsetting:
            upsetting.join()
        self._crew.all_up()
        self._shop.close()

    def _upset(self, trouble: Trouble) -> None:
        def upset() -> None:
            with self._one_trouble:
                began = time.time()
                trouble()
                self.in_trouble.append((began, time.time()))

        self._upsetting.append(threading.Thread(target=upset))
        self._upsetting[-1].start()


def _is_calm(db: Database) -> bool:
    """Nothing is due, or will be."""
    restless = (
        select(events.c.id).where(events.c.worked_at.is_(None)).limit(1),
        select(enrollments.c.id).where(enrollments.c.ended_at.is_(None)).limit(1),
        select(messages.c.id).where(messages.c.state.in_(("planned", "sending"))).limit(1),
        select(message_devices.c.token).where(message_devices.c.state == "sending").limit(1),
    )
    with db.transaction(write=False) as tx:
        return not any(tx.conn.execute(one).first() for one in restless)


def _progress(db: Database) -> tuple[int, ...]:
    """What only grows, and not for ever."""
    done = (
        select(func.count()).where(events.c.worked_at.is_not(None)),
        select(func.count()).select_from(passages),
        select(func.count()).where(enrollments.c.ended_at.is_not(None)),
        select(func.count()).where(messages.c.state.notin_(("planned", "sending"))),
        select(func.count()).where(message_devices.c.state != "sending"),
    )
    with db.transaction(write=False) as tx:
        return tuple(tx.conn.execute(one).scalar_one() for one in done)


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
    processes.set_forkserver_preload(["tests.chaos.worker", "tests.chaos.provider"])
