"""The processes of the chaos test: workers and a launcher, killed, frozen and restarted."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from socket import create_connection

from tests.chaos import worker
from tests.chaos.patience import patiently

# The workers. One machine's clock is right, the others' are seven minutes fast and slow.
WORKERS = 3
_CLOCKS = (0.0, 420.0, -420.0)
# Who else may be killed: not a worker, but whoever launches a journey from the command line.
LAUNCHER = WORKERS
_LAUNCHED = "news"
# Python takes longer to load than Segue to recover: the processes are forked from one that has
# everything loaded.
processes = get_context("forkserver")


@dataclass
class Crew:
    """Everybody by number: the workers, each on a port of its own, and the launcher."""

    directory: Path
    ports: list[int]
    _: KW_ONLY
    killed: set[int] = field(default_factory=set)
    fell: list[str] = field(default_factory=list)
    kills: int = 0
    freezes: int = 0
    running: dict[int, ForkServerProcess] = field(default_factory=dict)
    launched: bool = False

    def start(self, number: int) -> None:
        """Start the processes that do not run, except a launcher that has finished."""
        if number in self.running and not self.running[number].is_alive():
            self._still_there(number, self.running.pop(number))
        if number not in self.running and not (number == LAUNCHER and self.launched):
            self.running[number] = self._process(number)
            self.running[number].start()

    def _process(self, number: int) -> ForkServerProcess:
        name = self._name(number)
        if number == LAUNCHER:
            given = (name, self.directory, _LAUNCHED)
            return processes.Process(target=worker.launch, args=given)
        return processes.Process(
            target=worker.work, args=(name, self.directory, self.ports[number], _CLOCKS[number])
        )

    def kill(self, number: int) -> None:
        """Send SIGKILL."""
        process = self.running.pop(number, None)
        if process is not None:
            self._still_there(number, process)
            self.kills += process.exitcode is None
            self.killed.add(process.pid or 0)
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

    def all_up(self) -> None:
        """Everybody runs; the launcher until it has done its work, however often that takes."""

        def done() -> bool:
            for number in (*range(WORKERS), LAUNCHER):
                self.start(number)
            return self.launched

        posts = self.directory / f"{self._name(LAUNCHER)}.posts"
        if not patiently(done, lambda: posts.exists() and posts.stat().st_size):
            self.fell.append(f"the launch of {_LAUNCHED} does not come to its end")

    def stop(self) -> None:
        """Send SIGTERM, after which processes finish their work.

        A process that is still starting does not handle it yet; one that found no database has
        ended already.
        """
        told: dict[int, ForkServerProcess] = {}
        for number, process in self.running.items():
            if number != LAUNCHER:
                patiently(_listens_or_ended(process, self.ports[number]), lambda: None)
            self._still_there(number, process)
            if process.exitcode is None:
                told[number] = process
                process.terminate()
        for number, process in told.items():
            patiently(_ended(process), lambda: None)
            if process.exitcode != 0:
                self.fell.append(f"worker {number} ended with {process.exitcode} when told to")
                process.kill()

    def _still_there(self, number: int, process: ForkServerProcess) -> None:
        """Without a database a process ends at its start; else a worker never ends by itself."""
        if number == LAUNCHER:
            self.launched |= process.exitcode == 0
        elif process.exitcode is not None:
            log = self._log(number)
            last = log.read_text().splitlines()[-1:] if log.exists() else []
            if not any("DatabaseUnusable" in line and "can't be reached" in line for line in last):
                self.fell.append(f"worker {number} ended by itself with {process.exitcode}: {last}")

    def _name(self, number: int) -> str:
        return "launcher" if number == LAUNCHER else f"worker-{number}"

    def _log(self, number: int) -> Path:
        return self.directory / f"{self._name(number)}.log"

    def logs(self) -> str:
        """The ends of the processes' logs."""
        files = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{file.name}: {file.read_text()[-3000:]}" for file in files)


def _listens_or_ended(process: ForkServerProcess, port: int) -> Callable[[], bool]:
    def listens() -> bool:
        with suppress(OSError), create_connection(("127.0.0.1", port), timeout=1):
            return True
        return not process.is_alive()

    return listens


def _ended(process: ForkServerProcess) -> Callable[[], bool]:
    return lambda: not process.is_alive()
