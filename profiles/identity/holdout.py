"""The global holdout: profiles that get no marketing, to measure against.

A profile is drawn by its number. It is stored when it is created, with a keyed hash of each of its
addresses, and then stays in the holdout: whoever has one of these addresses later, or joins a
held-out profile, is held out too. Without a holdout in the policy nothing is read or stored.
docs/decisions/0035-promotion-and-holdout.md
"""

import hmac
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import BigInteger, Text, cast, null, select, union_all

from config.database.arrays import InsertRows, any_of, one_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.policy import Policy
from config.settings import Settings
from profiles.bucketing import bucket_of, buckets_of, draw
from profiles.identity.mergers import Merger, Notes, delete_rows
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND, held_out, held_out_addresses, identifiers

_ADDRESSES = frozenset(ADDRESS_KIND.values())

_h, _a, _i = held_out.c, held_out_addresses.c, identifiers.c
_INSERT = InsertRows(_h.profile_id, _h.bucket, _h.since, on_conflict="DO NOTHING")
_INSERT_ADDRESSES = InsertRows(_a.hash, _a.bucket, _a.since, on_conflict="DO NOTHING")
_HELD = select(_h.profile_id).where(any_of(_h.profile_id, "profiles"), in_buckets(_h.bucket))
_KNOWN = union_all(
    select(_a.hash, cast(null(), BigInteger).label("profile_id")).where(
        any_of(_a.hash, "hashes"), any_of(_a.bucket, "of_hashes")
    ),
    select(cast(null(), Text), _h.profile_id).where(
        any_of(_h.profile_id, "profiles"), in_buckets(_h.bucket)
    ),
)
_THEIR_ADDRESSES = select(_i.profile_id, _i.kind, _i.value).where(
    any_of(_i.profile_id, "profiles"), one_of(_i.kind, tuple(_ADDRESSES))
)


class Holdout(NamedTuple):
    """The holdout of the policy.

    percent: of profiles; 0: there is none. keys: of the hashes, the current one first; the others
    were current before.
    """

    percent: float = 0
    keys: tuple[bytes, ...] = ()

    def draws(self, profile_id: int) -> bool:
        """Whether a profile is in the holdout by its number."""
        return self.percent > 0 and draw(profile_id, "holdout") * 100 < self.percent

    def hashes(self, address: Key) -> list[str]:
        """The hashes of an address, one by each key: 32 hexadecimal digits."""
        text = f"holdout:{address[0]}:{address[1]}".encode()
        return [hmac.new(key, text, sha256).hexdigest()[:32] for key in self.keys]


NO_HOLDOUT = Holdout()


def holdout_of(settings: Settings, policy: Policy) -> Holdout:
    """The holdout of an installation."""
    keys = (settings.secret_key, *reversed(settings.secret_keys_retired))
    return Holdout(
        percent=policy.holdout_percent,
        keys=tuple(key.get_secret_value().encode() for key in keys),
    )


class Gain(NamedTuple):
    """A profile that got addresses. every: all that it has. is_new: whether it was just created."""

    profile_id: int
    gained: Collection[Key]
    every: Collection[Key]
    is_new: bool


def is_address(key: Key) -> bool:
    """Whether messages can be sent to the identifier."""
    return key[0] in _ADDRESSES


def follow_addresses(tx: Tx, holdout: Holdout, gains: Iterable[Gain]) -> int:
    """Put profiles into the holdout that are drawn at their creation, or get an address of one.

    Returns how many are new in it. The profiles are locked. One statement for those with new
    addresses, two more if somebody is held out.
    """
    if not holdout.percent:
        return 0
    concerned = [
        gain for gain in gains if gain.gained or (gain.is_new and holdout.draws(gain.profile_id))
    ]
    if not concerned:
        return 0
    hashes = {
        one: gain.profile_id
        for gain in concerned
        for address in gain.gained
        for one in holdout.hashes(address)
    }
    ids = [gain.profile_id for gain in concerned]
    given = {
        "hashes": list(hashes),
        "of_hashes": sorted(set(map(_bucket, hashes))),
        "profiles": ids,
        "buckets": buckets_of(ids),
    }
    found = tx.conn.execute(_KNOWN, given).all()
    stored = {profile_id for _, profile_id in found if profile_id is not None}
    by_address = {hashes[one] for one, _ in found if one is not None}
    held: dict[int, Collection[Key]] = {}
    for gain in concerned:
        if gain.profile_id in stored:
            held[gain.profile_id] = gain.gained
        elif gain.profile_id in by_address or (gain.is_new and holdout.draws(gain.profile_id)):
            held[gain.profile_id] = gain.every
    new = held.keys() - stored
    _store(tx, holdout, held, new=new)
    return len(new)


def hold_out(tx: Tx, holdout: Holdout, profile_ids: Collection[int]) -> int:
    """Put those of the profiles into the holdout that belong there; returns how many are new.

    The profiles are locked.
    """
    theirs = _addresses(tx, profile_ids)
    return follow_addresses(
        tx,
        holdout,
        [
            Gain(profile_id=profile_id, gained=addresses, every=addresses, is_new=True)
            for profile_id, addresses in theirs.items()
        ],
    )


def held_among(tx: Tx, profile_ids: Collection[int]) -> set[int]:
    """Those of the profiles that are stored as held out."""
    if not profile_ids:
        return set()
    given = {"profiles": profile_ids, "buckets": buckets_of(profile_ids)}
    return set(tx.conn.execute(_HELD, given).scalars())


def merge_holdout(tx: Tx, mergers: Collection[Merger], notes: Notes) -> None:
    """Hold out whoever joins a held-out profile."""
    concerned = {one for merger in mergers for one in (merger.from_id, merger.into_id)}
    held = held_among(tx, concerned)
    if not held:
        return
    leaving = [merger for merger in mergers if merger.from_id in held]
    joined = {merger.into_id for merger in leaving} - held
    _INSERT(tx.conn, [(one, bucket_of(one), tx.now) for one in sorted(joined)])
    delete_rows(tx, held_out, [{"profile_id": merger.from_id} for merger in leaving])
    for merger in leaving:
        notes[merger.from_id]["held_out"] = {"survivor_was": merger.into_id in held}


def set_held(tx: Tx, held: Mapping[int, bool]) -> None:
    """Put profiles into the holdout or out of it, after the join that held them out is undone."""
    delete_rows(tx, held_out, [{"profile_id": one} for one in held])
    rows = [(one, bucket_of(one), tx.now) for one, is_held in sorted(held.items()) if is_held]
    _INSERT(tx.conn, rows)


def follow_joins(tx: Tx, holdout: Holdout, survivors: Collection[int]) -> None:
    """Store the addresses of held-out profiles that others were merged into."""
    if holdout.percent and survivors:
        held = held_among(tx, survivors)
        _store(tx, holdout, _addresses(tx, held), new=())


def _addresses(tx: Tx, profile_ids: Collection[int]) -> dict[int, list[Key]]:
    """The addresses of the profiles, retired ones too; profiles without any have an empty list."""
    found: dict[int, list[Key]] = {profile_id: [] for profile_id in sorted(profile_ids)}
    if found:
        for profile_id, kind, value in tx.conn.execute(_THEIR_ADDRESSES, {"profiles": found}):
            found[profile_id].append((kind, value))
    return found


def _store(
    tx: Tx, holdout: Holdout, held: Mapping[int, Collection[Key]], *, new: Collection[int]
) -> None:
    """Store addresses of held-out profiles, and the new ones of these profiles."""
    _INSERT(tx.conn, [(one, bucket_of(one), tx.now) for one in sorted(new)])
    hashes = sorted({holdout.hashes(address)[0] for theirs in held.values() for address in theirs})
    _INSERT_ADDRESSES(tx.conn, [(one, _bucket(one), tx.now) for one in hashes])


def _bucket(hashed: str) -> int:
    return int(hashed[:2], 16)
