"""The people of the company who use the staff site: names, roles and password hashes."""

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, get_args

from sqlalchemy import (
    BigInteger,
    BindParameter,
    String,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlmodel import Field, SQLModel

from config.access.passwords import LONGEST, NOBODYS, SHORTEST, hash_password, is_password
from config.clock.times import Instant
from config.clock.zones import zone_name
from config.database.engine import Tx, table_of
from config.errors import SegueError

# What each may do includes what those before it may: docs/marketer/staff.md has the table.
Role = Literal["viewer", "editor", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
# A name can be an e-mail address, as identity providers have them.
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,99}")


class StaffUserRow(SQLModel, table=True):
    """A user of the staff site."""

    __tablename__: ClassVar[str] = "staff_user"

    name: str = Field(primary_key=True, description="in lower case")
    role: str = Field(description="Role")
    password: str = Field(description="its hash: config/access/passwords.py")
    is_one_time: bool = Field(description="whether the password must be changed at the next login")
    made_at: Instant = Field(sa_type=BigInteger)
    timezone: str | None = Field(default=None, description="IANA name; None: the policy's zone")


staff_users = table_of(StaffUserRow)
_c = staff_users.c
_OF_NAME: BindParameter[str] = bindparam("of_name")
# The columns of StaffUser.
USER_COLUMNS = (_c.name, _c.role, _c.is_one_time, _c.made_at, _c.timezone)
_ALL = select(*USER_COLUMNS).order_by(_c.name)
_ONE = select(*USER_COLUMNS).where(_c.name == _OF_NAME)
_HASH = select(_c.password).where(_c.name == _OF_NAME)
_INSERT = insert(staff_users)
_SET_PASSWORD = (
    update(staff_users)
    .where(_c.name == _OF_NAME)
    .values(password=bindparam("new_hash"), is_one_time=bindparam("one_time"))
)
_SET_ROLE = update(staff_users).where(_c.name == _OF_NAME).values(role=bindparam("new_role"))
_SET_TIMEZONE = (
    update(staff_users)
    .where(_c.name == _OF_NAME)
    .values(timezone=bindparam("new_timezone", type_=String))
)
_DELETE = delete(staff_users).where(_c.name == _OF_NAME)


class StaffUser(NamedTuple):
    """A user, without the password's hash. timezone: None for that of the policy."""

    name: str
    role: Role
    is_one_time: bool
    made_at: Instant
    timezone: str | None

    def may(self, role: Role) -> bool:
        """Whether the user has this role or one that includes it."""
        return ROLES.index(self.role) >= ROLES.index(role)


def add_user(tx: Tx, name: str, role: str, password: str, *, one_time: bool) -> StaffUser:
    """Add a user. Raises SegueError for an invalid or used name, role or password."""
    name = name.lower()
    if not _NAME.fullmatch(name):
        raise SegueError(
            f"{name!r} is not a name; use up to 100 letters, digits and . _ - + @, such as an "
            "e-mail address"
        )
    checked = _checked_role(role)
    if user_named(tx, name) is not None:
        raise SegueError(f"there is a user {name!r}; `segue staff password` sets a new password")
    row = {
        "name": name,
        "role": role,
        "password": _checked_hash(password),
        "is_one_time": one_time,
        "made_at": tx.now,
    }
    tx.conn.execute(_INSERT, row)
    return StaffUser(name=name, role=checked, is_one_time=one_time, made_at=tx.now, timezone=None)


def set_password(tx: Tx, name: str, password: str, *, one_time: bool) -> None:
    """Replace a password. Raises SegueError for an unknown user or an unfit password."""
    given = {"of_name": name.lower(), "new_hash": _checked_hash(password), "one_time": one_time}
    if not tx.conn.execute(_SET_PASSWORD, given).rowcount:
        raise SegueError(_unknown(name))


def set_role(tx: Tx, name: str, role: str) -> None:
    """Give a user another role. Raises SegueError for an unknown user or role."""
    given = {"of_name": name.lower(), "new_role": _checked_role(role)}
    if not tx.conn.execute(_SET_ROLE, given).rowcount:
        raise SegueError(_unknown(name))


def set_timezone(tx: Tx, name: str, timezone: str | None) -> None:
    """Give a user a time zone of their own; None: that of the policy.

    Raises SegueError for an unknown user or zone.
    """
    if timezone is not None and zone_name(timezone) is None:
        raise SegueError(
            f"{timezone!r} is not a time zone; use an IANA name, such as Europe/Berlin"
        )
    given = {"of_name": name.lower(), "new_timezone": zone_name(timezone)}
    if not tx.conn.execute(_SET_TIMEZONE, given).rowcount:
        raise SegueError(_unknown(name))


def remove_user(tx: Tx, name: str) -> None:
    """Remove a user, whose name stays in the log. Raises SegueError for an unknown user."""
    if not tx.conn.execute(_DELETE, {"of_name": name.lower()}).rowcount:
        raise SegueError(_unknown(name))


def user_named(tx: Tx, name: str) -> StaffUser | None:
    """The user of this name, in any case; None: there is none."""
    found = tx.conn.execute(_ONE, {"of_name": name.lower()}).first()
    return None if found is None else StaffUser._make(found)


def list_users(tx: Tx) -> list[StaffUser]:
    """All users by name."""
    return [StaffUser._make(row) for row in tx.conn.execute(_ALL)]


def stored_hash(tx: Tx, name: str) -> str:
    """The hash to check a password with; for an unknown name one that no password has."""
    found: str | None = tx.conn.execute(_HASH, {"of_name": name.lower()}).scalar()
    return found or NOBODYS


def password_fault(password: str) -> str | None:
    """What is wrong with a password that somebody chose; None: nothing."""
    if len(password) < SHORTEST:
        return f"the password has fewer than {SHORTEST} characters"
    return f"the password has more than {LONGEST} characters" if len(password) > LONGEST else None


def knows_password(hashed: str, given: Mapping[str, str]) -> bool:
    """Whether the form field `password` is the password of a hash."""
    password = given.get("password", "")
    return len(password) <= LONGEST and is_password(password, hashed)


def _checked_role(role: str) -> Role:
    for one in ROLES:
        if one == role:
            return one
    raise SegueError(f"{role!r} is not a role; there are: {', '.join(ROLES)}")


def _checked_hash(password: str) -> str:
    if fault := password_fault(password):
        raise SegueError(fault)
    return hash_password(password)


def _unknown(name: str) -> str:
    return f"there is no user {name!r}; `segue staff list` shows the users"
