"""Normalize stored addresses

docs/decisions/0017-one-spelling.md describes what happens to two customers with one address.
"""

import logging
import unicodedata
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from email_validator import EmailNotValidError, validate_email

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

log = logging.getLogger(__name__)

identifiers = sa.table(
    "identifier",
    sa.column("kind", sa.Text),
    sa.column("value", sa.Text),
    sa.column("profile_id", sa.BigInteger),
    sa.column("state", sa.Text),
    sa.column("seen_at", sa.BigInteger),
    sa.column("retired_at", sa.BigInteger),
)
consents = sa.table(
    "consent",
    sa.column("profile_id", sa.BigInteger),
    sa.column("channel", sa.Text),
    sa.column("topic", sa.Text),
    sa.column("granted", sa.Boolean),
    sa.column("changed_at", sa.BigInteger),
)
records = sa.table(
    "consent_record",
    sa.column("profile_id", sa.BigInteger),
    sa.column("channel", sa.Text),
    sa.column("topic", sa.Text),
    sa.column("granted", sa.Boolean),
    sa.column("occurred_at", sa.BigInteger),
    sa.column("recorded_at", sa.BigInteger),
    sa.column("source", sa.Text),
)
i = identifiers.c

_CHANNEL = {"email": "email", "phone": "sms"}
# By precedence, the lowest first.
_STANDING = ("active", "unregistered", "bounced", "complained")
_FULL_WIDTH: dict[int, int | str] = {
    **{0xFF01 + place: 0x21 + place for place in range(94)},
    **dict.fromkeys((0x3002, 0xFF61), "."),
}
_NOW = {
    "sqlite": "SELECT CAST(strftime('%s', 'now') AS INTEGER)",
    "postgresql": "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint",
}


def upgrade() -> None:
    conn = op.get_bind()
    now = conn.execute(sa.text(_NOW[conn.dialect.name])).scalar_one()
    pairs = [*_phones(conn), *_emails(conn)]
    shared = [two for pair in pairs if (two := _settle(conn, now, *pair))]
    if shared:
        log.warning(
            "%s pairs of customers had one address in two spellings. The first of each pair keeps "
            "the address; what either of them refused holds for both: %s",
            len(shared),
            ", ".join(f"{keeps} and {other}" for keeps, other in shared),
        )


def _phones(conn: sa.Connection) -> Iterator[tuple[str, str, str]]:
    """Rewrite phone numbers. Yields those whose new form exists already, as (kind, old, new)."""
    other = identifiers.alias()
    for like, at, digits, better in (
        # Argentina: the 9 of mobile phones was left out
        ("+54__________", 4, "123", "+549" + sa.func.substr(i.value, 4)),
        # Brazil: mobile numbers of eight digits
        (
            "+55__________",
            6,
            "689",
            sa.func.substr(i.value, 1, 5) + "9" + sa.func.substr(i.value, 6),
        ),
    ):
        old = (
            i.kind == "phone",
            i.value.like(like),
            sa.func.substr(i.value, at, 1).in_(list(digits)),
        )
        taken = sa.exists().where(other.c.kind == "phone", other.c.value == better)
        conn.execute(sa.update(identifiers).where(*old, ~taken).values(value=better))
        for before, after in conn.execute(sa.select(i.value, better).where(*old)).all():
            yield "phone", before, after


def _emails(conn: sa.Connection) -> Iterator[tuple[str, str, str]]:
    """As `_phones`, for e-mail addresses."""
    size = (
        sa.func.length(sa.cast(i.value, sa.LargeBinary))
        if conn.dialect.name == "sqlite"
        else sa.func.octet_length(i.value)
    )
    beyond_ascii = sa.select(i.value).where(i.kind == "email", size > sa.func.length(i.value))
    for old in conn.execute(beyond_ascii.order_by(i.value)).scalars().all():
        local, _, domain = old.translate(_FULL_WIDTH).rpartition("@")
        try:
            ascii_domain = validate_email(f"x@{domain}", check_deliverability=False).ascii_domain
        except EmailNotValidError:
            continue  # invalid, so it was written manually; it is not changed
        better = f"{unicodedata.normalize('NFC', local)}@{ascii_domain.lower()}"
        this = i.kind == "email", i.value == old
        there = sa.select(i.value).where(i.kind == "email", i.value == better)
        if conn.execute(there).first() is None:
            conn.execute(sa.update(identifiers).where(*this).values(value=better))
        elif better != old:
            yield "email", old, better


def _settle(
    conn: sa.Connection, now: int, kind: str, old: str, better: str
) -> tuple[int, int] | None:
    """Keep the normalized one of two rows of an address. Returns the customers if there are two."""
    found = sa.select(identifiers).where(i.kind == kind, i.value.in_([old, better]))
    by_value = {row.value: row for row in conn.execute(found)}
    goes, stays = by_value[old], by_value[better]
    is_old, is_better = ((i.kind == kind, i.value == value) for value in (old, better))
    state = max(goes.state, stays.state, key=_STANDING.index)
    conn.execute(sa.update(identifiers).where(*is_better).values(state=state))
    if goes.profile_id == stays.profile_id:
        in_use = None in (goes.retired_at, stays.retired_at)
        conn.execute(sa.delete(identifiers).where(*is_old))
        conn.execute(
            sa.update(identifiers)
            .where(*is_better)
            .values(
                seen_at=max(goes.seen_at, stays.seen_at),
                retired_at=None if in_use else max(goes.retired_at, stays.retired_at),
            )
        )
        return None
    conn.execute(
        sa.update(identifiers)
        .where(*is_old)
        .values(state=state, retired_at=sa.func.coalesce(i.retired_at, now))
    )
    _copy_opt_outs(conn, now, _CHANNEL[kind], goes.profile_id, stays.profile_id)
    _copy_opt_outs(conn, now, _CHANNEL[kind], stays.profile_id, goes.profile_id)
    return stays.profile_id, goes.profile_id


def _copy_opt_outs(conn: sa.Connection, now: int, channel: str, source: int, target: int) -> None:
    """Copy the opt-outs of one customer on the channel to the other."""
    c = consents.c
    refused = sa.select(c.topic).where(c.channel == channel, ~c.granted)
    own = set(conn.execute(refused.where(c.profile_id == target)).scalars())
    theirs = set(conn.execute(refused.where(c.profile_id == source)).scalars())
    for topic in sorted(theirs - own):
        row = {"profile_id": target, "channel": channel, "topic": topic, "granted": False}
        conn.execute(
            sa.insert(records).values(
                **row,
                occurred_at=now,
                recorded_at=now,
                source=f"upgrade: one address with profile {source}",
            )
        )
        key = c.profile_id == target, c.channel == channel, c.topic == topic
        no = {"granted": False, "changed_at": now}
        if not conn.execute(sa.update(consents).where(*key).values(no)).rowcount:
            conn.execute(sa.insert(consents).values(row | no))
