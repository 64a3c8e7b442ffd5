"""Several real workers on PostgreSQL: each moves the people in its buckets, and no one is lost or
reached twice when a worker comes, stops or is killed.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import sleep

import orjson
import pytest
from sqlalchemy import select

from channels.messages import messages
from config.database.buckets import ALL_BUCKETS
from config.database.engine import Database
from flows.local.stack import free_ports
from flows.worker.worker import Worker
from journeys.dsl import Email, Send
from journeys.engine.entry import enter_people
from journeys.tables import bucket_leases
from tests.support.patience import PATIENCE
from tests.support.shop import House, described
from tests.support.worlds.swarm import listening

_processes = get_context("forkserver")
JOURNEY = described(Send("s", Email("hello")))
PEOPLE = 60


def work(url: str, port: int, folder: Path) -> None:
    """A worker, until SIGTERM. Its file has the messages that it handed over."""
    db = Database(url)
    house = House(db)
    house.shorten(idle=0.02, renew_every=0.1, lease_lasts=2)
    house.open(JOURNEY, receiver_port=port)
    file = os.open(folder / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def until_terminated() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await Worker(house.segue).run(stop)

    with listening(lambda ids: os.write(file, orjson.dumps(ids) + b"\n")):
        asyncio.run(until_terminated())
    db.close()


class Crew:
    """Workers on one database."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._db = Database(url)
        self.running: list[ForkServerProcess] = []

    def start(self, number: int) -> None:
        for port in free_ports(number):
            given = (self._url, port, self._folder)
            process = _processes.Process(target=work, args=given)
            process.start()
            self.running.append(process)

    def handed_over(self) -> dict[int, list[int]]:
        """The messages that each process handed over, by its number."""
        return {
            int(file.stem): [
                one for line in file.read_bytes().splitlines() for one in orjson.loads(line)
            ]
            for file in self._folder.glob("*.jsonl")
        }

    def leases(self) -> dict[str, set[int]]:
        """The buckets of each worker, by its name."""
        found: dict[str, set[int]] = {}
        with self._db.transaction(write=False) as tx:
            rows = tx.conn.execute(select(bucket_leases.c.holder, bucket_leases.c.bucket))
            for holder, bucket in rows:
                found.setdefault(holder, set()).add(bucket)
        return found

    def shared_out(self) -> None:
        """Wait until those who run have equal shares of all buckets."""
        numbers = {process.pid for process in self.running}

        def are_equal() -> bool:
            leases = self.leases()
            sizes = sorted(map(len, leases.values()))
            return (
                {int(name.rpartition(":")[2]) for name in leases} == numbers
                and sum(sizes) == len(ALL_BUCKETS)
                and sizes[-1] - sizes[0] <= 1
            )

        wait_until(are_equal)

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.join()
        self._db.close()


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE / 0.05)):
        if done():
            return
        sleep(0.05)
    raise TimeoutError


def enter(house: House, customers: Sequence[int]) -> None:
    """They are due at the first step from now on."""
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), customers, None)


def states(house: House) -> dict[int, tuple[str, int]]:
    """State and bucket of each message."""
    with house.db.transaction(write=False) as tx:
        found = tx.conn.execute(select(messages.c.id, messages.c.state, messages.c.bucket))
        return {message_id: (state, bucket) for message_id, state, bucket in found}


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_leases_move_when_workers_come_go_and_are_killed(house: House, tmp_path: Path) -> None:
    house.open(JOURNEY)
    customers = [house.customer() for _ in range(3 * PEOPLE)]
    _processes.set_forkserver_preload(["tests.flows.worker.test_leasing"])
    crew = Crew(house.db.url, tmp_path)

    def all_sent(number: int) -> bool:
        found = states(house)
        return len(found) == number and {state for state, _ in found.values()} == {"sent"}

    try:
        crew.start(2)
        crew.shared_out()
        leases = crew.leases()
        enter(house, customers[:PEOPLE])
        wait_until(lambda: all_sent(PEOPLE))
        # Each worked in its own buckets.
        found = states(house)
        by_process = crew.handed_over()
        assert sorted(one for some in by_process.values() for one in some) == sorted(found)
        for name, buckets in leases.items():
            handed_over = by_process[int(name.rpartition(":")[2])]
            assert handed_over
            assert {found[one][1] for one in handed_over} <= buckets

        # One is killed in the middle of its work.
        enter(house, customers[PEOPLE : 2 * PEOPLE])
        killed = crew.running.pop(0)
        wait_until(lambda: len(states(house)) > PEOPLE)
        killed.kill()
        crew.shared_out()
        wait_until(lambda: len(states(house)) == 2 * PEOPLE)
        # What it had claimed may have been sent, and is not sent again.
        claimed = {one for one, (state, _) in states(house).items() if state == "sending"}
        wait_until(
            lambda: (
                {state for one, (state, _) in states(house).items() if one not in claimed}
                == {"sent"}
            )
        )

        # One comes, and one stops.
        crew.start(1)
        crew.shared_out()
        stopped = crew.running.pop(0)
        stopped.terminate()
        stopped.join()
        assert stopped.exitcode == 0
        crew.shared_out()
        enter(house, customers[2 * PEOPLE :])
        wait_until(lambda: len(states(house)) == 3 * PEOPLE)
        wait_until(
            lambda: (
                {state for one, (state, _) in states(house).items() if one not in claimed}
                == {"sent"}
            )
        )
        handed_over = [one for some in crew.handed_over().values() for one in some]
        assert len(handed_over) == len(set(handed_over))
        assert set(states(house)) - claimed <= set(handed_over)
    finally:
        crew.end()
