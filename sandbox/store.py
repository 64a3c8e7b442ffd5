"""The messages that the sandbox accepted, in its own SQLite file.

The sandbox shares nothing with Segue's database, so that tests can compare Segue with it. The file
uses `synchronous = OFF`, which is fast and loses data only if the machine crashes.
"""

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from config.access.private_files import tighten_database
from config.channels import by_channel
from config.clock.times import Instant

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accepted (
    seq INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    message_id TEXT,
    provider_id TEXT NOT NULL,
    address TEXT NOT NULL,
    title TEXT NOT NULL,
    content TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    arrived REAL
);
CREATE INDEX IF NOT EXISTS ix_accepted_message ON accepted (message_id, channel);
CREATE INDEX IF NOT EXISTS ix_accepted_address ON accepted (address, seq);
CREATE TABLE IF NOT EXISTS recipient (address TEXT PRIMARY KEY, last_seq INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS ix_recipient_last ON recipient (last_seq);
CREATE TABLE IF NOT EXISTS tally (name TEXT PRIMARY KEY, number INTEGER NOT NULL);
INSERT OR IGNORE INTO tally VALUES ('requests', 0), ('refused', 0);
"""
_INSERT = """
INSERT INTO accepted
(seq, channel, message_id, provider_id, address, title, content, accepted_at, arrived)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_TOUCH = """
INSERT INTO recipient VALUES (?, ?)
ON CONFLICT (address) DO UPDATE SET last_seq = excluded.last_seq
"""
_LATEST = "SELECT accepted.* FROM accepted JOIN recipient ON seq = last_seq"
# SQLite before 3.32 takes at most 999 parameters in one statement.
_AT_ONCE = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One message that a provider look-alike accepted."""

    channel: str
    message_id: str | None  # our id, if the sender put it where the provider returns it
    provider_id: str
    address: str
    title: str  # one line for lists
    content: dict[str, Any]  # for the inbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Accepted):
    """An accepted message as stored."""

    seq: int  # a later message has a higher one
    accepted_at: Instant
    arrived: float | None  # when its request arrived, on this machine's monotonic clock, in seconds


class Store:
    """The accepted messages and the counts.

    The server's event loop writes; any thread may read, on a connection with a lock.

    simulated: the time of the clock until it is moved; None: the real time.
    """

    def __init__(self, path: Path | str, *, simulated: Instant | None = None) -> None:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tighten_database(Path(path))
        self.simulated = simulated
        self._write = _connect(path)
        self._write.executescript(_SCHEMA)
        self._add_arrived()
        self._read = _connect(path)
        self._reading = Lock()

    def close(self) -> None:
        self._read.close()
        self._write.close()

    def now(self) -> Instant:
        """The time of accepted messages."""
        if self.simulated is not None:
            return self.simulated
        row = self._write.execute("SELECT CAST(strftime('%s', 'now') AS INTEGER)").fetchone()
        return int(row[0])

    def _add_arrived(self) -> None:
        """Add the column that files of earlier versions lack."""
        columns = {row[1] for row in self._write.execute("PRAGMA table_info(accepted)")}
        if "arrived" not in columns:
            self._write.execute("ALTER TABLE accepted ADD COLUMN arrived REAL")

    def record(
        self, accepted: Sequence[Accepted], *, refused: bool, arrived: float | None = None
    ) -> None:
        """Store the result of one request, in one transaction."""
        names = [("requests",), ("refused",)] if refused else [("requests",)]
        self._write.execute("BEGIN IMMEDIATE")
        with self._write:
            self._write.executemany("UPDATE tally SET number = number + 1 WHERE name = ?", names)
            if accepted:
                self._append(accepted, arrived)

    def _append(self, accepted: Sequence[Accepted], arrived: float | None) -> None:
        now = self.now()
        (last,) = self._write.execute("SELECT coalesce(max(seq), 0) FROM accepted").fetchone()
        self._write.executemany(
            _INSERT,
            [
                (
                    seq,
                    one.channel,
                    one.message_id,
                    one.provider_id,
                    one.address,
                    one.title,
                    orjson.dumps(one.content).decode(),
                    now,
                    arrived,
                )
                for seq, one in enumerate(accepted, last + 1)
            ],
        )
        self._write.executemany(
            _TOUCH, [(one.address, seq) for seq, one in enumerate(accepted, last + 1)]
        )

    def stats(self) -> dict[str, Any]:
        """Requests, distinct message ids by channel, ids accepted more than once, refusals.

        A push goes to several devices; it is a duplicate only if one device got it twice.
        """
        tally = dict(self._rows("SELECT name, number FROM tally"))
        distinct = dict(
            self._rows("SELECT channel, count(DISTINCT message_id) FROM accepted GROUP BY channel")
        )
        [(duplicates,)] = self._rows(
            "SELECT count(*) FROM (SELECT 1 FROM accepted WHERE message_id IS NOT NULL"
            " GROUP BY message_id, CASE channel WHEN 'push' THEN address END HAVING count(*) > 1)"
        )
        [(without_id,)] = self._rows("SELECT count(*) FROM accepted WHERE message_id IS NULL")
        return {
            "requests": tally["requests"],
            "accepted": by_channel(distinct),
            "duplicates": duplicates,
            "refused": tally["refused"],
            "without_id": without_id,
        }

    def latest(self, containing: str, *, offset: int, limit: int) -> list[Received]:
        """The newest message of each address that contains the text, newest first."""
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", containing) + "%"
        return self._received(
            _LATEST + " WHERE recipient.address LIKE ? ESCAPE '\\'"
            " ORDER BY last_seq DESC LIMIT ? OFFSET ?",
            [pattern, limit, offset],
        )

    def to_address(self, address: str, *, offset: int, limit: int) -> list[Received]:
        """The messages of one address, newest first."""
        return self._received(
            "SELECT * FROM accepted WHERE address = ? ORDER BY seq DESC LIMIT ? OFFSET ?",
            [address, limit, offset],
        )

    def latest_to(self, addresses: Sequence[str]) -> dict[str, Received]:
        """The newest message of each of these addresses, if it has one."""
        found = self._among(_LATEST + " WHERE recipient.address IN ", addresses)
        return {one.address: one for one in found}

    def with_ids(self, message_ids: Sequence[str]) -> list[Received]:
        """All messages accepted under these ids of ours."""
        return self._among("SELECT * FROM accepted WHERE message_id IN ", message_ids)

    def _among(self, sql: str, values: Sequence[str]) -> list[Received]:
        found: list[Received] = []
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            found += self._received(f"{sql} ({','.join('?' * len(part))})", part)
        return found

    def _received(self, sql: str, values: Sequence[str | int]) -> list[Received]:
        return [
            Received(
                seq=seq,
                channel=channel,
                message_id=message_id,
                provider_id=provider_id,
                address=address,
                title=title,
                content=orjson.loads(content),
                accepted_at=accepted_at,
                arrived=arrived,
            )
            for (
                seq,
                channel,
                message_id,
                provider_id,
                address,
                title,
                content,
                accepted_at,
                arrived,
            ) in self._rows(sql, values)
        ]

    def _rows(self, sql: str, values: Sequence[str | int] = ()) -> list[Any]:
        with self._reading:
            return self._read.execute(sql, values).fetchall()


def _connect(path: Path | str) -> sqlite3.Connection:
    # isolation_level=None: our code starts transactions. Locks let several threads share these.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    return connection
