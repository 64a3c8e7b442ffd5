"""The keys of those who send events: server keys, which are trusted, and public keys.

A public key stands in web pages and apps, where anyone can read it, so it may do little
(docs/decisions/0031-two-kinds-of-key.md). Only the SHA-256 of a key is stored. Keys are random, so
nobody finds one by hashing guesses.
"""

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import BigInteger, bindparam, insert, select, update
from sqlmodel import Field, SQLModel

from config.clock.times import Instant
from config.database.engine import Tx, table_of
from config.errors import SegueError

# Random bytes of a key.
_BYTES = 24
_PREFIXES = {True: "pk_", False: "sk_"}
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class ApiKeyRow(SQLModel, table=True):
    """A key, live or revoked."""

    __tablename__: ClassVar[str] = "api_key"

    digest: str = Field(primary_key=True, description="SHA-256 of the key, in hex")
    label: str = Field(unique=True, description="its name in logs")
    is_public: bool
    origins: str = Field(
        description="the origins whose pages may use a public key, with blanks between them"
    )
    made_at: Instant = Field(sa_type=BigInteger)
    revoked_at: Instant | None = Field(default=None, sa_type=BigInteger)


_keys = table_of(ApiKeyRow)
_c = _keys.c
_LIVE = select(_c.digest, _c.label, _c.is_public, _c.origins).where(_c.revoked_at.is_(None))
_ALL = select(_c.label, _c.is_public, _c.origins, _c.made_at, _c.revoked_at).order_by(_c.label)
_REVOKE = (
    update(_keys)
    .where(_c.label == bindparam("of_label"), _c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
)


class ApiKey(NamedTuple):
    """A live key as the receiver uses it. origins: as in the header `Origin`."""

    label: str
    is_public: bool = False
    origins: frozenset[str] = frozenset()


class ListedKey(NamedTuple):
    """A key in a list, without anything secret."""

    label: str
    is_public: bool
    origins: Sequence[str]
    made_at: Instant
    revoked_at: Instant | None


def digest_of(key: str) -> str:
    """The digest that is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def make_key(tx: Tx, label: str, *, public: bool, origins: Collection[str] = ()) -> str:
    """Make a key and store its digest. Returns the key, which can't be read again.

    origins: the origins of the pages that may use a public key; none for a key of apps. Raises
    SegueError for an invalid or used label, an invalid origin, or origins of a server key.
    """
    if not _LABEL.fullmatch(label):
        raise SegueError(
            f"{label!r} is not a label; use up to 60 letters, digits, dots, hyphens and underscores"
        )
    if origins and not public:
        raise SegueError(
            "a server key must not stand in a page, so it has no origins; add --public"
        )
    if tx.conn.execute(select(_c.label).where(_c.label == label)).first():
        raise SegueError(f"there is or was a key {label!r}; choose another label")
    key = _PREFIXES[public] + secrets.token_urlsafe(_BYTES)
    row = {
        "digest": digest_of(key),
        "label": label,
        "is_public": public,
        "origins": " ".join(sorted({read_origin(one) for one in origins})),
        "made_at": tx.now,
    }
    tx.conn.execute(insert(_keys), row)
    return key


def revoke_key(tx: Tx, label: str) -> None:
    """Revoke a key. Raises SegueError if there is no live key with this label."""
    if not tx.conn.execute(_REVOKE, {"of_label": label, "now": tx.now}).rowcount:
        raise SegueError(f"there is no live key {label!r}; `segue keys list` shows the keys")


def list_keys(tx: Tx) -> list[ListedKey]:
    """All keys by label, also revoked ones."""
    return [
        ListedKey(
            label=row.label,
            is_public=row.is_public,
            origins=row.origins.split(),
            made_at=row.made_at,
            revoked_at=row.revoked_at,
        )
        for row in tx.conn.execute(_ALL)
    ]


def live_keys(tx: Tx) -> dict[str, ApiKey]:
    """The live keys by digest."""
    return {
        row.digest: ApiKey(row.label, row.is_public, frozenset(row.origins.split()))
        for row in tx.conn.execute(_LIVE)
    }


def read_origin(text: str) -> str:
    """An origin as browsers write it (RFC 6454, 6.2): scheme, host, and a port that is not the
    scheme's default. Raises SegueError.
    """
    fault = SegueError(
        f"{text!r} is not an origin; write scheme and host, such as https://shop.example"
    )
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise fault from None
    within = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if not _SCHEME.fullmatch(parts.scheme) or not host or within or "*" in host or " " in host:
        raise fault
    try:
        name = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        raise fault from None
    shown = f"[{name}]" if ":" in name else name
    written = "" if port is None or port == _DEFAULT_PORTS.get(parts.scheme) else f":{port}"
    return f"{parts.scheme}://{shown}{written}"
