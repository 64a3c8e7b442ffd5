"""Find profiles for staff: by any spelling of an identifier, or by the start of one."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import BigInteger, Text, bindparam, func, select

from config.database.arrays import any_of, one_of
from config.database.engine import Tx
from profiles.attributes.names import full_name
from profiles.identity.addresses import channel_addresses
from profiles.identity.owners import holders_of
from profiles.identity.person import possible_keys
from profiles.tables import ADDRESS_KIND, identifiers, profiles

# The most profiles that a search finds.
FOUND_AT_MOST = 20
# The fewest characters of the start of an identifier.
_SHORTEST_START = 3

_p, _i = profiles.c, identifiers.c
_START = bindparam("start", type_=Text)
_MOST = bindparam("most", type_=BigInteger)
# Reads every identifier of these kinds: staff search rarely.
_STARTING = (
    select(_i.profile_id)
    .where(
        one_of(_i.kind, ("email", "user_id")),
        func.substr(_i.value, 1, func.length(_START)) == _START,
    )
    .order_by(_i.kind, _i.value)
    .limit(_MOST)
)
_NEWEST = select(_p.id).order_by(_p.id.desc()).limit(_MOST)
_ATTRIBUTES = select(_p.id, _p.country, _p.attributes).where(any_of(_p.id, "profiles"))
_USER_IDS = (
    select(_i.profile_id, _i.value)
    .where(any_of(_i.profile_id, "profiles"), _i.kind == "user_id")
    .order_by(_i.value.desc())
)


class ProfileSummary(NamedTuple):
    """A profile in a list. Empty: not known. email, phone: in use."""

    id: int
    name: str
    user_id: str
    email: str
    phone: str
    country: str


def find_profiles(tx: Tx, text: str) -> list[int]:
    """The ids of the profiles that a text names, in any spelling; else of those with an e-mail
    address or user id that starts with it. At most FOUND_AT_MOST.
    """
    keys = possible_keys(text)
    holders = holders_of(tx, keys)
    found = list(dict.fromkeys(holders[key].profile_id for key in keys if key in holders))
    start = text.strip().lower()
    if found or len(start) < _SHORTEST_START:
        return found
    given = {"start": start, "most": FOUND_AT_MOST}
    return list(dict.fromkeys(tx.conn.execute(_STARTING, given).scalars()))


def newest_profiles(tx: Tx, most: int) -> list[int]:
    """The ids of the profiles that were created last."""
    return list(tx.conn.execute(_NEWEST, {"most": most}).scalars())


def summaries(tx: Tx, profile_ids: Collection[int]) -> list[ProfileSummary]:
    """The profiles in the order of the ids; those that do not exist are left out."""
    given = {"profiles": list(profile_ids)}
    stated = {row.id: row for row in tx.conn.execute(_ATTRIBUTES, given)}
    user_ids = dict(tx.conn.execute(_USER_IDS, given).tuples().all())
    addresses: dict[tuple[int, str], str] = {}
    for one in channel_addresses(tx, list(stated)):
        addresses.setdefault((one.profile_id, ADDRESS_KIND[one.channel]), one.value)
    return [
        ProfileSummary(
            id=number,
            name=full_name(stated[number].attributes),
            user_id=user_ids.get(number, ""),
            email=addresses.get((number, "email"), ""),
            phone=addresses.get((number, "phone"), ""),
            country=stated[number].country or "",
        )
        for number in profile_ids
        if number in stated
    ]
