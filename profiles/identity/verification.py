"""Verify anonymous ids: what a merge withheld for lack of proof becomes usable."""

from collections.abc import Collection, Sequence

from sqlalchemy import Integer, bindparam, select, update

from config.clock.times import Instant
from config.database.arrays import any_of, rows_of
from config.database.engine import Tx
from profiles.consent.merge import weigh, write_consents
from profiles.consent.state import Statement, consent_statements, withdrawn
from profiles.identity.addresses import ONE_AT_A_TIME, is_in_use
from profiles.identity.mergers import Merger, repoint
from profiles.tables import consent_records, identifiers, merges

_i, _m = identifiers.c, merges.c
_named = (_i.kind == "anonymous_id") & any_of(_i.value, "anonymous")
_UNVERIFIED = (
    select(_i.profile_id, _i.unverified_from)
    .where(_named, _i.unverified_from.is_not(None))
    .order_by(_i.value)
)
_VERIFY = update(identifiers).where(_named).values(unverified_from=None)
_WITHHELD = select(_m.from_id, _m.merged_at, _m.moved["withheld"]).where(
    any_of(_m.from_id, "profiles")
)
_whose = _i.profile_id == bindparam("whose", type_=Integer)
_KINDS_IN_USE = select(_i.kind).where(_whose, is_in_use())
_KEYS = rows_of("keys", _i.kind, _i.value)
_USE = (
    update(identifiers)
    .where(
        _i.kind == _KEYS.c.kind,
        _i.value == _KEYS.c.value,
        _whose,
        _i.retired_at == bindparam("since"),
    )
    .values(retired_at=None)
)


def verify(tx: Tx, anonymous_ids: Collection[str]) -> None:
    """Mark anonymous ids as verified: a call named them with proof of their owner.

    Whatever an earlier merge withheld because that proof was missing becomes usable, as if ids had
    joined the profiles.
    """
    named = {"anonymous": anonymous_ids}
    whose = {row.unverified_from: row.profile_id for row in tx.conn.execute(_UNVERIFIED, named)}
    tx.conn.execute(_VERIFY, named)
    found = tx.conn.execute(_WITHHELD, {"profiles": whose}).all()
    for from_id, merged_at, withheld in found:
        _use_addresses(tx, whose[from_id], withheld["addresses"], merged_at)
    statements = [
        Statement(**{**one, "profile_id": whose[from_id]})
        for from_id, _, withheld in found
        for one in withheld["consents"]
    ]
    if statements:
        people = {one.profile_id for one in statements}
        before = {**withdrawn(tx, people), **consent_statements(tx, people)}
        now = dict(before)
        for one in statements:
            weigh(now, one)
        write_consents(tx, before, now)
    repoint(
        tx,
        consent_records,
        [Merger(from_id=from_id, into_id=whose[from_id], why="") for from_id, *_ in found],
    )


def _use_addresses(
    tx: Tx, profile_id: int, addresses: Sequence[Sequence[str]], since: Instant
) -> None:
    """Put withheld addresses into use.

    An e-mail address or phone number is only used if the profile uses no other one.
    """
    has = set(tx.conn.execute(_KINDS_IN_USE, {"whose": profile_id}).scalars())
    usable = [
        (kind, value) for kind, value in addresses if kind not in ONE_AT_A_TIME or kind not in has
    ]
    if usable:
        tx.conn.execute(_USE, {"keys": usable, "whose": profile_id, "since": since})
