"""Addresses of erased people: nothing is sent to them again until a newer opt-in.

Of each address a keyed hash stays, for each channel that sends to it. Whoever states the address
later is a new person, and the address is suppressed there as `erased`, until an opt-in of a known
time after the erasure. The keys are settings, so the database alone does not tell whose addresses
these are. docs/decisions/0038-erasure.md
"""

import hmac
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import select

from config.clock.times import Instant
from config.database.arrays import any_of, insert_or_update
from config.database.engine import Tx
from config.settings import Settings
from profiles.identity.addresses import CHANNELS_TO, ErasedOwner, suppress_owners_erased
from profiles.identity.person import Key
from profiles.tables import (
    consent_records,
    erased_addresses,
)

_a, _r = erased_addresses.c, consent_records.c
_REMEMBER = insert_or_update(_a.hash, _a.channel, _a.bucket, _a.since)
_FOUND = select(_a.hash, _a.channel, _a.since).where(
    any_of(_a.hash, "hashes"), any_of(_a.bucket, "of_hashes")
)
_YESES = select(_r.profile_id, _r.channel, _r.occurred_at).where(
    any_of(_r.profile_id, "profiles"), _r.granted.is_(True)
)


class ErasedAddresses(NamedTuple):
    """The keys of the hashes: the current one first; the others were current before."""

    keys: tuple[bytes, ...] = ()

    def hashes(self, identifier: Key) -> list[str]:
        """The hashes of an identifier, one by each key: 32 hexadecimal digits."""
        text = f"erased:{identifier[0]}:{identifier[1]}".encode()
        return [hmac.new(key, text, sha256).hexdigest()[:32] for key in self.keys]


NOBODY_ERASED = ErasedAddresses()


def erased_addresses_of(settings: Settings) -> ErasedAddresses:
    """The keys of an installation."""
    keys = (settings.erasure_key, settings.secret_key, *reversed(settings.secret_keys_retired))
    texts = [key.get_secret_value() for key in keys]
    return ErasedAddresses(tuple(text.encode() for text in texts if text))


def remember(tx: Tx, erased: ErasedAddresses, addresses: Collection[Key]) -> None:
    """Store the hashes of addresses whose owner is erased now."""
    rows = [
        (hashed, channel, _bucket(hashed), tx.now)
        for address in sorted(addresses)
        for hashed in erased.hashes(address)[:1]
        for channel in CHANNELS_TO.get(address[0], ())
    ]
    _REMEMBER(tx.conn, rows)


def suppress_erased(tx: Tx, erased: ErasedAddresses, gained: Mapping[int, Collection[Key]]) -> None:
    """Suppress those of the addresses that belonged to erased people.

    The profiles are locked, and have the addresses since this transaction. One statement if there
    are addresses, two more if one is found.

    Parameters
    ----------
    gained: the new addresses, by profile id.
    """
    whose = {
        hashed: (profile_id, address)
        for profile_id, addresses in gained.items()
        for address in addresses
        for hashed in erased.hashes(address)
    }
    if not whose:
        return
    given = {"hashes": list(whose), "of_hashes": sorted(set(map(_bucket, whose)))}
    found = tx.rows(_FOUND, given)
    if not found:
        return
    opted_in: dict[tuple[int, str], Instant] = {}
    for row in tx.rows(_YESES, {"profiles": {whose[row.hash][0] for row in found}}):
        key = (row.profile_id, row.channel)
        opted_in[key] = max(row.occurred_at, opted_in.get(key, 0))
    rows: list[ErasedOwner] = []
    for row in found:
        profile_id, (kind, value) = whose[row.hash]
        if opted_in.get((profile_id, row.channel), 0) <= row.since:
            rows.append(ErasedOwner(channel=row.channel, kind=kind, address=value, since=row.since))
    suppress_owners_erased(tx, rows)


def _bucket(hashed: str) -> int:
    return int(hashed[:2], 16)
