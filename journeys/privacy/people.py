"""Find the one person that an export or an erasure is about."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import select

from config.database.arrays import any_of
from config.database.engine import Tx
from config.errors import SegueError
from profiles.identity.owners import holders_of
from profiles.identity.person import Key, possible_keys
from profiles.identity.placeholders import MEANINGLESS, Meaningless
from profiles.tables import ADDRESS_KIND, identifiers, merges, profiles

_KINDS = {"user_id", "anonymous_id", *ADDRESS_KIND.values()}
_m, _i = merges.c, identifiers.c
_JOINED = select(_m.from_id).where(any_of(_m.into_id, "profiles"))
_IDENTIFIERS = (
    select(_i.kind, _i.value).where(any_of(_i.profile_id, "profiles")).order_by(_i.kind, _i.value)
)
_THERE = select(profiles.c.id).where(any_of(profiles.c.id, "profiles"))


class DataSubject(NamedTuple):
    """A person on record.

    profile_id: of the profile. every: with the numbers of the profiles that were joined into it.
    identifiers: all that it has, retired ones too.
    """

    profile_id: int
    every: frozenset[int]
    identifiers: tuple[Key, ...]


def person_named(tx: Tx, text: str, meaningless: Meaningless = MEANINGLESS) -> DataSubject:
    """The person whom an identifier names, in any spelling, also as `kind:value`.

    Raises SegueError if there is nobody, or if it names several people.
    """
    if text in meaningless:
        raise SegueError(f"{text!r} is a placeholder and identifies no customer")
    keys = _keys(text)
    holders = holders_of(tx, keys)
    found = {holders[key].profile_id: key for key in reversed(keys) if key in holders}
    if not found:
        raise SegueError(
            f"no customer has the identifier {text!r}; give a user id, e-mail address or phone "
            "number, or a kind and a value, such as anonymous_id:4711"
        )
    if len(found) > 1:
        kinds = " or ".join(sorted(f"{kind}:{value}" for kind, value in found.values()))
        raise SegueError(f"{text!r} names {len(found)} customers; write {kinds}")
    return person_of(tx, next(iter(found)))


def person_of(tx: Tx, profile_id: int) -> DataSubject:
    """The person with the number. Raises SegueError if there is none."""
    if not tx.conn.execute(_THERE, {"profiles": [profile_id]}).all():
        raise SegueError(f"there is no customer with the number {profile_id}")
    every = {profile_id} | joined_into(tx, [profile_id])
    known = tx.conn.execute(_IDENTIFIERS, {"profiles": every}).tuples()
    return DataSubject(profile_id, frozenset(every), tuple(known))


def joined_into(tx: Tx, profile_ids: Collection[int]) -> set[int]:
    """The numbers of the profiles that were joined into these, directly or not."""
    found: set[int] = set()
    latest = set(profile_ids)
    while latest:
        latest = set(tx.conn.execute(_JOINED, {"profiles": latest}).scalars()) - found
        found |= latest
    return found - set(profile_ids)


def _keys(text: str) -> list[Key]:
    kind, colon, value = text.strip().partition(":")
    if colon and kind in _KINDS:
        return [key for key in possible_keys(value) if key[0] == kind]
    return possible_keys(text)
