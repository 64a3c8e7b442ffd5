"""Which profiles have which identifiers: look them up and lock them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Integer, Text, bindparam, column, func, select

from config.clock.times import Instant
from config.database.arrays import any_of, rows_of
from config.database.buckets import in_buckets, in_one_bucket
from config.database.engine import CLOCK, Tx
from config.errors import SegueError
from profiles.bucketing import bucket_sql, identifier_bucket, identifier_buckets
from profiles.bulk import lock_profiles
from profiles.identity.addresses import is_retired
from profiles.identity.person import Key
from profiles.tables import identifiers, profiles

_p, _i = profiles.c, identifiers.c
_HOLDERS = select(
    *(_i.kind, _i.value, _i.profile_id, is_retired().label("retired")),
    *(_i.unverified_from.is_not(None).label("unverified"), _i.added_at, _i.seen_at),
    select(CLOCK).scalar_subquery(),
).where(any_of(_i.kind, "kinds"), any_of(_i.value, "values"), in_buckets(_i.bucket))
_HOLDER = select(
    *(_i.profile_id, is_retired(), _i.unverified_from.is_not(None)),
    select(CLOCK).scalar_subquery(),
).where(
    _i.kind == bindparam("kind", type_=Text),
    _i.value == bindparam("value", type_=Text),
    in_one_bucket(_i.bucket),
)
_NAMED = rows_of("named", column("number", Integer), _i.kind, _i.value, _i.bucket)
_settled = (
    select(_NAMED.c.number, _i.kind, _i.value, _i.profile_id)
    .join(
        _NAMED,
        # The bucket of each: with all of them PostgreSQL would look for each key in each bucket.
        (_i.kind == _NAMED.c.kind) & (_i.value == _NAMED.c.value) & (_i.bucket == _NAMED.c.bucket),
    )
    .where(~is_retired(), _i.unverified_from.is_(None), in_buckets(_i.bucket))
    .cte("settled")
)
_mixed = (
    select(_settled.c.number)
    .group_by(_settled.c.number)
    .having(func.min(_settled.c.profile_id) < func.max(_settled.c.profile_id))
)
_number_settled = select(func.count()).select_from(_settled).scalar_subquery()
_HOLD_SETTLED = (
    select(_settled.c.kind, _settled.c.value, _p.id, select(CLOCK).scalar_subquery())
    .join(
        _settled,
        (_settled.c.profile_id == _p.id) & (bucket_sql(_settled.c.profile_id) == _p.bucket),
    )
    .where(
        _number_settled == bindparam("number", type_=Integer),
        ~_mixed.exists(),
    )
    .order_by(_p.id)
    .with_for_update(key_share=True, of=profiles)
)
_USERS = select(_i.profile_id, _i.value).where(
    _i.kind == "user_id", any_of(_i.profile_id, "profiles")
)
# The key of PostgreSQL's advisory lock for creating and moving identifiers; an arbitrary number.
_IDENTITY_LOCK = 7_334_823
_LOCK_IDENTITIES = select(func.pg_advisory_xact_lock(_IDENTITY_LOCK))


class Holder(NamedTuple):
    """The profile that has an identifier or, of a retired address, had it last.

    unverified: an anonymous id whose calls only add events (profiles/calls/resolve.py).
    added_at: since when the profile has it.
    """

    profile_id: int
    retired: bool
    unverified: bool = False
    added_at: Instant = 0


def holders_of(tx: Tx, keys: Collection[Key]) -> dict[Key, Holder]:
    """The profiles that have or had these identifiers."""
    if not keys:
        return {}
    # Any of the kinds with any of the values: cheaper than pairs, and few rows too many.
    given = {
        "kinds": {kind for kind, _ in keys},
        "values": {value for _, value in keys},
        # SQLite's statement names no buckets, and a hash costs more than its lookup.
        "buckets": () if tx.is_sqlite else identifier_buckets(keys),
    }
    named = set(keys)
    found: dict[Key, Holder] = {}
    for kind, value, whose, retired, unverified, added, seen, clock in tx.conn.execute(
        _HOLDERS, given
    ).all():
        tx.set_clock(clock)
        key = (kind, value)
        if key in named:
            found[key] = Holder(
                profile_id=whose,
                retired=retired,
                unverified=unverified,
                added_at=seen if added is None else added,
            )
    return found


def holder_of(tx: Tx, key: Key) -> Holder | None:
    """The profile that has or had an identifier; None if there is none. One statement."""
    kind, value = key
    given = {"kind": kind, "value": value, "bucket": identifier_bucket(kind, value)}
    for *holder, clock in tx.rows(_HOLDER, given):
        tx.set_clock(clock)
        return Holder(*holder)
    return None


def users_of(tx: Tx, profile_ids: Collection[int]) -> dict[int, set[str]]:
    """The user ids of each profile that has one."""
    users: dict[int, set[str]] = {}
    for profile_id, user_id in tx.conn.execute(_USERS, {"profiles": profile_ids}):
        users.setdefault(profile_id, set()).add(user_id)
    return users


def owners_of(tx: Tx, keys: Collection[Key]) -> dict[Key, int]:
    """The profiles that have these identifiers. A retired address has none."""
    return owners_among(holders_of(tx, keys))


def owners_among(holders: Mapping[Key, Holder]) -> dict[Key, int]:
    """The owners of identifiers among those who have or had them."""
    return {key: holder.profile_id for key, holder in holders.items() if not holder.retired}


def all_owners_of(tx: Tx, keys: Collection[Key]) -> dict[Key, int]:
    """As `owners_of`, and for retired addresses the profile that had it last."""
    return {key: holder.profile_id for key, holder in holders_of(tx, keys).items()}


def settled_owners_of(tx: Tx, keys: Collection[Key]) -> dict[Key, int]:
    """`owners_of`, under `lock_identities`. Call it before profiles are locked."""
    lock_identities(tx)
    return owners_of(tx, keys)


def lock_identities(tx: Tx) -> None:
    """Let no other transaction create or move identifiers until this one ends.

    Call it before profiles are locked. SQLite needs no lock, as it has one writer.
    """
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(_LOCK_IDENTITIES)


def held_owners_of(
    tx: Tx,
    keys: Collection[Key],
    owners: Mapping[Key, int],
    *,
    read: Callable[[Tx, Collection[Key]], dict[Key, int]] | None = None,
) -> Mapping[Key, int]:
    """Lock the profiles of `owners`. Returns the owners, read again if a profile was merged.

    read: reads owners again; None means `owners_of`. Raises SegueError when an identifier names a
    profile that does not exist.
    """
    read = read or owners_of
    while len(lock_profiles(tx, ids := set(owners.values()))) < len(ids):
        # one of them was merged into another profile meanwhile
        before, owners = owners, read(tx, keys)
        if owners == before:
            raise SegueError(
                f"identifiers refer to the profiles {sorted(ids)}, of which at least one does not "
                "exist; restore the deleted rows of the table profile from a backup"
            )
    return owners


def hold_settled_owners(tx: Tx, named: Sequence[tuple[int, Key]]) -> dict[Key, int] | None:
    """Lock the profiles of these identifiers by one statement, and return them by identifier.

    None, and nothing is locked, unless each identifier has an owner and is not an unverified
    anonymous id, and those with the same number belong to one profile. Otherwise identifiers may
    change, and `lock_identities` comes before the locks of profiles. (A profile that is merged
    while the statement waits for it also gives None; the others then stay locked.)

    Parameters
    ----------
    named: numbered identifiers, such as those of each call.
    """
    given = {
        "named": [(number, *key, identifier_bucket(*key)) for number, key in named],
        "number": len(named),
        "buckets": identifier_buckets(key for _, key in named),
    }
    owners: dict[Key, int] = {}
    rows = tx.rows(_HOLD_SETTLED, given)
    if len(rows) < len(named):
        return None
    for kind, value, profile_id, clock in rows:
        owners[kind, value] = profile_id
        tx.set_clock(clock)
    return owners
