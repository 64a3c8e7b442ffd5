"""Double opt-in on e-mail: a yes is pending until the owner of the address confirms it.

A pending yes is in `email_confirmation` and does not count; docs/decisions/0016-pending-opt-ins.md
has the reasons.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import not_, select, tuple_, update

from config.channels import channels
from config.clock.times import DAY, Instant, Seconds, format_instant
from config.database.arrays import any_of, insert_or_update, rows_of
from config.database.engine import Tx
from profiles.events import NewEvent, record_events
from profiles.identity.addresses import is_retired, is_suppressed, is_usable
from profiles.identity.survivors import survivors
from profiles.tables import email_confirmations, identifiers

# The channel whose opt-ins are confirmed.
[CONFIRMED_ON] = [name for name, one in channels().items() if one.double_opt_in]
# The event that requests the mail. Properties: topic, topic_name.
CONFIRMATION_REQUESTED = "email_confirmation_requested"
# The shortest time between two mails to an address about a topic; how long a yes stays pending.
ASK_AGAIN_AFTER: Seconds = DAY
LASTS: Seconds = 7 * DAY
# No topic has double opt-in.
NO_TOPICS: Mapping[str, str] = MappingProxyType({})

_e, _i = email_confirmations.c, identifiers.c
_ADDRESSES = select(_i.profile_id, _i.value).where(
    any_of(_i.profile_id, "profiles"), is_usable(CONFIRMED_ON)
)
_KEYS = rows_of("keys", _e.address, _e.topic)
_named = tuple_(_e.address, _e.topic).in_(select(_KEYS))
_REQUESTS = select(_e.address, _e.topic, _e.profile_id, _e.said_at, _e.asked_at).where(_named)
_PENDING = (
    select(
        *(_i.profile_id.label("owner"), _e.profile_id, _e.address, _e.topic),
        *(_e.said_at, _e.asked_at, _e.source, _e.wording, _e.evidence),
    )
    .join(identifiers, (_i.kind == "email") & (_i.value == _e.address))
    .where(any_of(_i.profile_id, "profiles"), _e.said_at.is_not(None))
    .where(not_(is_suppressed(CONFIRMED_ON)), not_(is_retired()))
    .order_by(_e.asked_at, _e.address)
)
_SETTLE = update(email_confirmations).where(_named).values(said_at=None)
_STATED = ("profile_id", "said_at", "asked_at", "source", "wording", "evidence")
_UPSERT = insert_or_update(_e.address, _e.topic, *(_e[name] for name in _STATED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Yes:
    """A yes to a topic on e-mail. said_at: None if its time is unknown."""

    profile_id: int
    topic: str
    said_at: Instant | None
    source: str
    wording: str | None
    evidence: Any


def ask(tx: Tx, yeses: Sequence[Yes], names: Mapping[str, str]) -> set[tuple[int, str]]:
    """Store pending yeses and request the mails, at most one a day for each address and topic.

    The caller has locked the profiles. An undated yes changes nothing if one is already pending, so
    a repeated import requests no mail.

    Parameters
    ----------
    names: the names of the topics, for the mails.

    Returns
    -------
    Profile and topic of the yeses that can't be confirmed, for lack of a usable address.
    """
    if not yeses:
        return set()
    addresses = _addresses(tx, {one.profile_id for one in yeses})
    keys = {(addresses[one.profile_id], one.topic) for one in yeses if one.profile_id in addresses}
    known = {(row.address, row.topic): row for row in _requests(tx, keys)}
    written: dict[tuple[str, str], tuple[Any, ...]] = {}
    asking: list[NewEvent] = []
    for one in yeses:
        if one.profile_id not in addresses:
            continue
        key = addresses[one.profile_id], one.topic
        row = known.get(key)
        if row is not None and row.profile_id == one.profile_id and not _is_newer(one, row):
            continue
        due = row is None or tx.now - row.asked_at >= ASK_AGAIN_AFTER
        written[key] = (
            *(*key, one.profile_id),
            tx.now if one.said_at is None else one.said_at,
            tx.now if due or row is None else row.asked_at,
            *(one.source, one.wording, one.evidence),
        )
        if due:
            properties = {"topic": one.topic, "topic_name": names[one.topic]}
            name = f"confirm email {one.topic} {tx.now}"
            event = NewEvent(
                profile_id=one.profile_id,
                name=CONFIRMATION_REQUESTED,
                occurred_at=tx.now,
                dedupe_key=name,
                properties=properties,
            )
            asking.append(event)
    if written:
        _UPSERT(tx.conn, list(written.values()))
    record_events(tx, asking, worked=False)
    return {(one.profile_id, one.topic) for one in yeses if one.profile_id not in addresses}


class PendingYes(NamedTuple):
    """A yes that waits for its confirmation.

    said_by: the profile that said yes. owner: the profile that has the address; it is `said_by` or
    the profile that `said_by` was merged into.
    """

    owner: int
    said_by: int
    address: str
    topic: str
    said_at: Instant
    asked_at: Instant
    source: str
    wording: str | None
    evidence: Any


def waiting(tx: Tx, profile_ids: Collection[int]) -> list[PendingYes]:
    """The pending yeses of these profiles, including expired ones, the latest last."""
    if not profile_ids:
        return []
    rows = tx.conn.execute(_PENDING, {"profiles": profile_ids})
    found = [PendingYes._make(row) for row in rows]
    merged_into = survivors(tx, {one.said_by for one in found})
    return [one for one in found if merged_into.get(one.said_by, one.said_by) == one.owner]


class _Request(NamedTuple):
    """The last mail to an address about a topic. said_at: None if no yes is pending."""

    address: str
    topic: str
    profile_id: int
    said_at: Instant | None
    asked_at: Instant


def _is_newer(one: Yes, row: _Request) -> bool:
    """Whether a yes replaces the one in the row: no yes is pending, or it is later."""
    if row.said_at is None:
        return True
    return one.said_at is not None and one.said_at > row.said_at


def can_be_confirmed(row: PendingYes, now: Instant) -> bool:
    """Whether a pending yes has not expired."""
    return now < row.asked_at + LASTS


def settle(tx: Tx, rows: Iterable[PendingYes]) -> None:
    """End pending yeses after a confirmation or a no. The row keeps the time of the last mail."""
    if keys := [(row.address, row.topic) for row in rows]:
        tx.conn.execute(_SETTLE, {"keys": keys})


def proof(row: PendingYes) -> dict[str, Any]:
    """The evidence of a confirmed yes: its time, and its original evidence."""
    return {"requested_at": format_instant(row.said_at), "request": row.evidence}


def _addresses(tx: Tx, profile_ids: Collection[int]) -> dict[int, str]:
    """The e-mail address of each profile that has a usable one."""
    rows = tx.conn.execute(_ADDRESSES, {"profiles": profile_ids})
    return {row.profile_id: row.value for row in rows}


def _requests(tx: Tx, keys: Collection[tuple[str, str]]) -> list[_Request]:
    rows = tx.conn.execute(_REQUESTS, {"keys": sorted(keys)})
    return [_Request._make(row) for row in rows]
