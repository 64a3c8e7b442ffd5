"""Which pairs of records are compared: those that share a key, at most a number of them.

A key is one or several columns, or parts of them. A value that very many records share, such as the
phone number of a shop, makes no pairs, so that the number of pairs grows with the records and not
with their square.
"""

from collections.abc import Collection
from typing import NamedTuple

from profiles.matching.duck import Duck

# Pairs that are compared at most: this many for each record, and at least so many in all.
_PAIRS_A_RECORD = 8
_FEWEST_PAIRS = 2_000_000
# One key makes at most this share of them.
_SHARE = 0.25
# Above these records only so many keys are tried: each takes a pass over all of them.
_MANY_RECORDS = 200_000
_MANY_KEYS = 14
# Records that may share a value; the largest that fits is used.
_CAPS = (1_000_000_000, 2_000, 500, 100, 30, 10)

# Parts of columns: mistakes in the other part do not matter.
_PARTS = {
    "given_3": ("given_name", "left(given_name, 3)"),
    "given_end": ("given_name", "right(given_name, 4)"),
    "surname_3": ("surname", "left(surname, 3)"),
    "surname_end": ("surname", "right(surname, 4)"),
    "birth_year": ("birth_date", "left(birth_date, 4)"),
    "birth_day": ("birth_date", "right(birth_date, 4)"),
    "street_6": ("street", "left(street, 6)"),
    "street_end": ("street", "right(street, 6)"),
    "suburb_4": ("suburb", "left(suburb, 4)"),
    "suburb_end": ("suburb", "right(suburb, 4)"),
    "city_4": ("city", "left(city, 4)"),
    "postcode_3": ("postcode", "left(postcode, 3)"),
    "email_name": ("email", "split_part(email, '@', 1)"),
    "email_6": ("email", "left(email, 6)"),
    "email_end": ("email", "right(split_part(email, '@', 1), 5)"),
    "phone_start": ("phone", "left(phone, -4)"),
    "phone_end": ("phone", "right(phone, 5)"),
    "id_start": ("national_id", "left(national_id, (length(national_id) / 2)::int)"),
    "id_end": ("national_id", "right(national_id, (length(national_id) / 2)::int)"),
}
# In the order of trust; the first ones cover different columns.
_NAMED = """
    national_id email phone birth_date+surname birth_date+given_name email_name
    surname+given_name street+suburb birth_date+postcode street+surname street+given_name
    street+postcode phone_end surname+postcode given_name+postcode given_3+surname_3+postcode
    id_end id_start surname+given_3+birth_year given_name+surname_3+birth_day email_end email_6
    phone_start suburb+surname suburb+given_name birth_year+surname_3+given_3
    birth_day+surname_3 birth_day+given_3 birth_year+surname_3 birth_year+given_3
    birth_day+postcode birth_year+postcode street_6+postcode street_6+surname_3
    street_6+given_3 street_6+birth_year birth_date street surname+city given_name+city
    street_6+birth_day surname_3+given_3 suburb+birth_year suburb_4+given_3
    suburb_4+surname_3 city_4+surname_3 city_4+given_3 birth_day street_6 street_end
    suburb+postcode given_end+surname_end surname_end+postcode given_end+postcode surname
    given_name suburb_end+postcode suburb postcode surname_3 surname_end given_3 given_end
    city+birth_year postcode_3+surname_3 postcode_3+given_3 suburb_4 suburb_end city state
"""
_KEYS = [tuple(key.split("+")) for key in _NAMED.split()]


class BlockingKey(NamedTuple):
    """Columns that two records share, and how many pairs do at most: those that are compared, and
    with those of frequent values.
    """

    columns: tuple[str, ...]
    pairs: int
    in_all: int


def add_parts(duck: Duck, columns: Collection[str]) -> None:
    """Make the table `people` out of the view `records`, with the parts of its columns."""
    parts = [f"nullif({sql}, '') AS {name}" for name, (of, sql) in _PARTS.items() if of in columns]
    duck.run(f"CREATE TABLE people AS SELECT {', '.join(['*', *parts])} FROM records")


def block(duck: Duck, columns: Collection[str], *, across: bool) -> list[BlockingKey]:
    """Make the table `pairs` (join_key_l, join_key_r, match_key) of what is compared.

    across: only pairs of different sides. Returns the keys that were used.
    """
    have = {*columns, *(name for name, (of, _) in _PARTS.items() if of in columns)}
    [[records]] = duck.rows("SELECT count(*) FROM people")
    left = budget = max(_FEWEST_PAIRS, _PAIRS_A_RECORD * records)
    used: list[BlockingKey] = []
    duck.run("CREATE TABLE found (l BIGINT, r BIGINT)")
    for key in _KEYS:
        if records > _MANY_RECORDS and len(used) >= _MANY_KEYS:
            break
        if not have.issuperset(key):
            continue
        found = _pairs_of(duck, key, int(min(left, budget * _SHARE)), across=across)
        if found.pairs:
            left -= found.pairs
            used.append(found)
    duck.run(
        "CREATE TABLE pairs AS SELECT DISTINCT l join_key_l, r join_key_r, '0' match_key FROM found"
    )
    duck.run("DROP TABLE found")
    return used


def _pairs_of(duck: Duck, key: tuple[str, ...], most: int, *, across: bool) -> BlockingKey:
    """Add the pairs that share a key, at most `most`."""
    known = " AND ".join(f"{column} IS NOT NULL" for column in key)
    duck.run(
        "CREATE OR REPLACE TEMP TABLE keyed AS "
        "SELECT k, unique_id, side, count(*) OVER (PARTITION BY k) c "
        f"FROM (SELECT hash({', '.join(key)}) k, unique_id, side FROM people WHERE {known}) "
        "QUALIFY c > 1"
    )
    sizes = duck.rows("SELECT c, count(*) // c FROM keyed GROUP BY c")
    in_all = sum(groups * size * (size - 1) // 2 for size, groups in sizes)
    cap = _cap(sizes, most)
    if not cap:
        return BlockingKey(key, 0, in_all)
    sides = "AND a.side < b.side" if across else ""
    duck.run(
        "INSERT INTO found SELECT a.unique_id, b.unique_id FROM keyed a JOIN keyed b "
        f"ON a.k = b.k AND a.unique_id < b.unique_id {sides} WHERE a.c <= {cap} AND b.c <= {cap}"
    )
    pairs = sum(groups * size * (size - 1) // 2 for size, groups in sizes if size <= cap)
    return BlockingKey(key, pairs, in_all)


def _cap(sizes: list[tuple[int, int]], most: int) -> int:
    """The largest group of records that makes pairs; 0 if none does within `most` pairs."""
    for cap in _CAPS:
        pairs = sum(groups * size * (size - 1) // 2 for size, groups in sizes if size <= cap)
        if pairs and pairs <= most:
            return cap
    return 0


def whole(keys: list[BlockingKey], columns: Collection[str]) -> list[BlockingKey]:
    """The keys made of whole columns, those with the fewest pairs first."""
    ordered = sorted(keys, key=lambda key: key.in_all)
    return [key for key in ordered if {*columns}.issuperset(key.columns)]
