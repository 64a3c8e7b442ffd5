"""The database: SQLite (embedded default) or PostgreSQL, behind one `transaction()`.

A transaction has the connection and `now`, which is read from the database's clock at its first
use, so that a machine with a wrong clock causes no errors. Tests and simulations pass their own
time.
"""

import math
import re
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Integer,
    Table,
    create_engine,
    event,
    literal_column,
    make_url,
    select,
)
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import SQLModel

from config.access.private_files import tighten_database
from config.clock.times import Instant, Seconds
from config.database import execution
from config.database.buckets import ALL_BUCKETS
from config.database.execution import Given, SqlStatement
from config.database.failures import first_line
from config.database.write_turn import WriteTurn
from config.errors import DatabaseUnusable, SegueError
from config.timing import TIMING, Timing


class _Clock(FunctionElement[int]):
    inherit_cache = True
    type = BigInteger()


@compiles(_Clock, "sqlite")
def _clock_of_sqlite(*_: Any, **_kw: Any) -> str:
    return "CAST(strftime('%s', 'now') AS INTEGER)"


@compiles(_Clock, "postgresql")
def _clock_of_postgresql(*_: Any, **_kw: Any) -> str:
    return "CAST(floor(extract(epoch FROM clock_timestamp())) AS BIGINT)"


# The database's clock, for a column of a statement whose result goes to `Tx.set_clock`.
CLOCK = _Clock()
READ_CLOCK = select(CLOCK)
# The same with the counter of changes (change_counter.py).
READ_CLOCK_AND_CHANGES = select(
    CLOCK,
    literal_column("COALESCE((SELECT changes FROM change_counter WHERE id = 1), 0)", Integer),
)
# The `info` of an index that SQLite does not have.
ON_POSTGRESQL = {"dialect": "postgresql"}
# Milliseconds for which a writer waits for SQLite's write lock.
_BUSY_MS = 15_000


T = TypeVar("T")
# Values by key, each with the counter of changes for which it was read.
Cache = dict[str, tuple[int | None, Any]]


@dataclass(slots=True, kw_only=True)
class Tx:
    """One open transaction: its connection, and how long things may take.

    buckets: those of the profiles whose rows it reads and writes, as far as it knows them. Whoever
        narrows them down holds locks of these profiles or of rows of theirs, since a merge moves
        rows to another bucket.
    distributed: whether tables are on several nodes (locking.py).
    event_buckets: those with events that it has recorded and that journeys have to react to.
    is_counted: whether there is a counter of changes; without one nothing is cached.
    """

    conn: Connection
    timing: Timing
    buckets: Collection[int] = ALL_BUCKETS
    distributed: bool = False
    event_buckets: set[int] = field(default_factory=set)
    is_counted: bool = False
    cache: Cache = field(default_factory=dict)
    _now: Instant | None  # None: the clock was not read yet
    _changes: int | None = None

    @property
    def now(self) -> Instant:
        """The time of this transaction, which does not change within it.

        The first use reads the database's clock, unless a statement has read it before.
        """
        if self._now is None:
            self._read_clock()
        assert self._now is not None
        return self._now

    @property
    def changes(self) -> int | None:
        """The counter of changes when it was first used, or the clock; None if there is none."""
        if self._changes is None and self.is_counted:
            self._read_clock()
        return self._changes

    def set_clock(self, clock: Instant) -> None:
        """Take the value of CLOCK in a statement's result as `now`, unless there is one already.

        It saves the statement that only reads the clock.
        """
        if self._now is None:
            self._now = clock

    def _read_clock(self) -> None:
        if self.is_counted:
            [(clock, self._changes)] = self.rows(READ_CLOCK_AND_CHANGES, {})
        else:
            [(clock,)] = self.rows(READ_CLOCK, {})
        self.set_clock(clock)

    @property
    def is_sqlite(self) -> bool:
        return self.conn.dialect.name == "sqlite"

    def rows(self, statement: SqlStatement, given: Given) -> list[Any]:
        """The rows that a statement returns, as named tuples (execution.py)."""
        return execution.rows(self.conn, statement, given)

    def write(self, statement: SqlStatement, *given: Given) -> int:
        """Execute a statement once for each set of parameters; returns how many rows it wrote."""
        return execution.write(self.conn, statement, *given)

    def cached(self, key: str, read: Callable[["Tx"], T]) -> T:
        """What `read` returns, which every change of it counts with `count_change`.

        Read at most once a transaction, and again only after a change.
        """
        known = self.cache.get(key)
        if known is None or known[0] != self.changes:
            known = self.cache[key] = self.changes, read(self)
        return cast(T, known[1])


class Database:
    """An engine and its clock.

    Parameters
    ----------
    url: SQLAlchemy URL, `sqlite:///file` or `postgresql+psycopg://...`.
    now: a fixed time for simulations and tests; None reads the database's clock.
    timing: waits and time limits.
    distributed: whether PostgreSQL's tables are distributed by bucket over several nodes.
    read_only: the database itself refuses to write.
    sole_user: no other process uses it, so that what is cached changes only here.
    """

    def __init__(
        self,
        url: str,
        *,
        now: Instant | None = None,
        timing: Timing = TIMING,
        distributed: bool = False,
        read_only: bool = False,
        sole_user: bool = False,
    ) -> None:
        self.url = url
        self.now = now
        self.timing = timing
        self.distributed = distributed
        self.sole_user = sole_user
        # Whether `migrate` has brought the tables up to date; until then nothing is cached.
        self.is_migrated = False
        self._cache: Cache = {}
        self.engine = _engine(url, timing)
        if read_only:
            event.listen(self.engine, "connect", partial(_refuse_writes, sqlite=self.is_sqlite))
        file = self.engine.url.database if self.is_sqlite else None
        in_memory = file in (None, "", ":memory:")
        self._turn = WriteTurn(None if in_memory else Path(str(file)), _BUSY_MS / 1000)
        # Close the connections of a Database that is garbage-collected without close().
        weakref.finalize(self, self.engine.dispose)
        weakref.finalize(self, self._turn.close)

    @property
    def shown(self) -> str:
        """The URL with its password masked."""
        return shown_url(self.url)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self, *, write: bool = True, keep: bool = True) -> Iterator[Tx]:
        """Commit at the end, roll back on an exception; always roll back if `keep` is false.

        On SQLite `write=True` takes the write lock at the start (BEGIN IMMEDIATE), so that the data
        can't change between reading and writing; `write=False` reads a snapshot without the lock.
        """
        turn = self._turn() if write and self.is_sqlite else nullcontext()
        with turn, self._connect(write=write) as conn, conn.begin() as transaction:
            is_counted = self.now is None and self.is_migrated
            yield Tx(
                conn=conn,
                timing=self.timing,
                distributed=self.distributed and not self.is_sqlite,
                is_counted=is_counted,
                cache=self._cache if is_counted or self.sole_user else {},
                _now=self.now,
            )
            if not keep:
                transaction.rollback()

    @contextmanager
    def _connect(self, *, write: bool) -> Iterator[Connection]:
        try:
            conn = self.engine.connect()
        except DBAPIError as error:
            raise unusable(self.url, error) from error
        with conn:
            yield conn.execution_options(segue_write=write)

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()
        self._turn.close()


def shown_url(url: str) -> str:
    """The URL with its password masked, also if the URL is invalid."""
    masked = re.sub(r":(?!//).*@", ":***@", url)
    return re.sub(r"(?i)(password=)[^&]*", r"\1***", masked)


def unusable(url: str, error: DBAPIError) -> DatabaseUnusable:
    """The error for a database that is damaged or does not respond; the password is masked."""
    shown = shown_url(url)
    reason = first_line(error.orig or error)
    if not isinstance(error, OperationalError):
        return DatabaseUnusable(
            f"the database {shown} can't be read: {reason}. "
            "Move it away or restore a backup, then start again"
        )
    fix = "Check SEGUE_DATABASE_URL and that the server is running."
    if "locked" in reason:
        fix = "Another process is writing to it; try again when it has finished."
    return DatabaseUnusable(f"the database {shown} can't be reached: {reason}. {fix}")


def table_of(model: type[SQLModel]) -> Table:
    """The SQLAlchemy table of a SQLModel class, for bulk statements in Core."""
    return SQLModel.metadata.tables[str(model.__tablename__)]


# Detect a lost server within about a minute; the kernel's default is two hours.
_ALIVE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def _end_idle_transactions(connection: Any, _record: Any, *, after: Seconds) -> None:
    """Let PostgreSQL end transactions of processes that hang, which frees their row locks.

    Set by a statement, because poolers refuse the parameter at connection start.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{after}s'")
    connection.commit()


def _refuse_writes(connection: Any, _record: Any, *, sqlite: bool) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = ON" if sqlite else "SET default_transaction_read_only = on")
    cursor.close()
    if not sqlite:
        connection.commit()


# A connection that was used within so many seconds is not checked before it is used again.
_CHECK_AFTER: Seconds = 10


def _check_idle_connections(engine: Engine) -> None:
    """Replace connections that the server closed while they were idle.

    SQLAlchemy's pool_pre_ping does so too, at the price of a statement before each transaction.
    """

    @event.listens_for(engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", math.inf) < _CHECK_AFTER:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # the pool takes a new connection


def _engine(url: str, timing: Timing) -> Engine:
    try:
        parsed = make_url(url)
    except Exception:
        raise SegueError(
            f"SEGUE_DATABASE_URL {shown_url(url)!r} is not a database URL; use sqlite:///file.db "
            "or postgresql+psycopg://user@host/name"
        ) from None  # the original error may contain the password
    if "@" in (parsed.host or ""):
        raise SegueError(
            f"SEGUE_DATABASE_URL {shown_url(url)!r} has an @ in its password; write it as %40"
        )
    options: dict[str, Any] = {
        "hide_parameters": True,  # errors and logs contain no customer data
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
    }
    if parsed.get_backend_name() == "postgresql":
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args=_ALIVE,
            # Each connection prepares a statement at its fifth execution and plans it anew until
            # the tenth. So the connection that was used last is the fastest.
            pool_use_lifo=True,
            **options,
        )
        _check_idle_connections(engine)
        end = partial(_end_idle_transactions, after=timing.transaction_idle)
        event.listen(engine, "connect", end)
        return engine
    if parsed.get_backend_name() != "sqlite":
        raise SegueError(
            f"Segue runs on SQLite and PostgreSQL, not on {parsed.get_backend_name()}; "
            "set SEGUE_DATABASE_URL to one of them"
        )
    if parsed.database and parsed.database != ":memory:":
        file = Path(parsed.database)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tighten_database(file)
    engine = create_engine(parsed, **options)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # `_begin` below starts transactions; the driver must not.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        write = conn.get_execution_options().get("segue_write", True)
        execution.run(conn, "BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
