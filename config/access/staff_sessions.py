"""Sessions of the staff site. The browser has a random token; only its SHA-256 is stored."""

import secrets
from hashlib import sha256
from typing import ClassVar

from sqlalchemy import BigInteger, bindparam, delete, insert, select
from sqlmodel import Field, SQLModel

from config.access.staff_users import USER_COLUMNS, StaffUser, staff_users
from config.clock.times import HOUR, Instant, Seconds
from config.database.engine import Tx, table_of

# A session ends after this time, however much it is used.
LASTS: Seconds = 12 * HOUR


class StaffSessionRow(SQLModel, table=True):
    """A session of a user of the staff site."""

    __tablename__: ClassVar[str] = "staff_session"

    digest: str = Field(primary_key=True, description="SHA-256 of the token, in hex")
    name: str = Field(description="of the user")
    made_at: Instant = Field(sa_type=BigInteger)
    ends_at: Instant = Field(sa_type=BigInteger)


_sessions = table_of(StaffSessionRow)
_c, _u = _sessions.c, staff_users.c
_NOW = bindparam("now", type_=BigInteger)
_INSERT = insert(_sessions)
_USER = (
    select(*USER_COLUMNS)
    .join_from(_sessions, staff_users, _u.name == _c.name)
    # A session that is older than its user is of an earlier user with the same name.
    .where(_c.digest == bindparam("of_digest"), _c.ends_at > _NOW, _c.made_at >= _u.made_at)
)
_END = delete(_sessions).where(_c.digest == bindparam("of_digest"))
_END_ALL = delete(_sessions).where(_c.name == bindparam("of_name"))
_END_EXPIRED = delete(_sessions).where(_c.ends_at <= _NOW)


def start_session(tx: Tx, name: str) -> str:
    """Start a session, and delete those that have ended. Returns the token."""
    tx.conn.execute(_END_EXPIRED, {"now": tx.now})
    token = secrets.token_urlsafe(32)
    row = {"digest": _digest(token), "name": name, "made_at": tx.now, "ends_at": tx.now + LASTS}
    tx.conn.execute(_INSERT, row)
    return token


def session_user(tx: Tx, token: str) -> StaffUser | None:
    """The user of a session, with the role of now; None if the session has ended."""
    found = tx.conn.execute(_USER, {"of_digest": _digest(token), "now": tx.now}).first()
    return None if found is None else StaffUser._make(found)


def end_session(tx: Tx, token: str) -> None:
    """End a session."""
    tx.conn.execute(_END, {"of_digest": _digest(token)})


def end_sessions(tx: Tx, name: str) -> None:
    """End all sessions of a user."""
    tx.conn.execute(_END_ALL, {"of_name": name.lower()})


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
