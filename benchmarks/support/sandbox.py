"""The sandbox as a separate process, as `segue up` starts it."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.support.working import wait_for
from config.settings import Settings
from flows.local.stack import environment, on_free_ports

_DRAINED_WITHIN = 60.0  # seconds


class Sandbox(NamedTuple):
    """A running sandbox: its port, and the database file with the accepted messages."""

    port: int
    file: Path

    def all_arrived(self, people: list[int]) -> dict[int, float]:
        """Wait until each customer got a mail. Returns when the head of its first request was read.

        Times are of the machine's monotonic clock. Raises TimeoutError after _DRAINED_WITHIN.
        """
        deadline = time.monotonic() + _DRAINED_WITHIN
        while missing := set(people) - (arrived := self._arrived()).keys():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(missing)} of {len(people)} messages did not arrive")
            time.sleep(0.2)
        return arrived

    def _arrived(self) -> dict[int, float]:
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as conn:
            rows = conn.execute("SELECT address, min(arrived) FROM accepted GROUP BY address")
            # addresses of benchmarks.support.material contain the customer's number
            return {int(address.split("@")[0].split(".")[1]): arrived for address, arrived in rows}


@contextmanager
def running_sandbox() -> Iterator[Sandbox]:
    """Run the sandbox until the block ends."""
    with TemporaryDirectory(prefix="segue-bench-") as folder:
        settings = on_free_ports(Settings(data_dir=Path(folder)))
        command = [sys.executable, "-m", "sandbox"]
        with subprocess.Popen(command, env=environment(settings)) as process:
            try:
                wait_for(settings.sandbox_port, "/inbox.css", "the sandbox")
                yield Sandbox(settings.sandbox_port, Path(folder) / "sandbox.db")
            finally:
                process.terminate()
