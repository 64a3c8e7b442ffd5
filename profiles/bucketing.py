"""Hashes of profiles that are equal on all machines: buckets of rows, and random draws."""

import hashlib
from collections.abc import Collection, Iterable

from sqlalchemy import BigInteger, ColumnElement, Integer, cast, literal

from config.database.buckets import BUCKETS

# An odd number near 2^32 divided by the golden ratio (Knuth, The Art of Computer Programming,
# volume 3, 6.4), so that consecutive ids spread evenly.
_FACTOR = 2_654_435_761


def bucket_of(profile_id: int) -> int:
    """The bucket of a profile and of all its rows, 0 to 255.

    Migration 0014 has the same in SQL. The remainder by 2^31 keeps the product below 2^63, the
    largest integer of both databases.
    """
    return profile_id % 2**31 * _FACTOR % 2**32 // 2**24


def bucket_sql(profile_id: ColumnElement[int]) -> ColumnElement[int]:
    """`bucket_of` in SQL, for a profile that the same statement finds."""
    rest = cast(profile_id, BigInteger) % literal(2**31, BigInteger)
    product = rest * literal(_FACTOR, BigInteger) % literal(2**32, BigInteger)
    return product.op(">>")(literal(24, Integer))


def buckets_of(profile_ids: Iterable[int]) -> list[int]:
    """The buckets of these profiles, in order, each once."""
    return sorted(set(map(bucket_of, profile_ids)))


def narrowest(profile_id: int, buckets: Collection[int]) -> Collection[int]:
    """The bucket of a profile, for a statement about it alone in a transaction with these buckets.

    A transaction with all buckets does not know where rows are: a merge may have moved them.
    """
    return buckets if len(buckets) == BUCKETS else [bucket_of(profile_id)]


def identifier_bucket(kind: str, value: str) -> int:
    """The bucket of an identifier, 0 to 255. It is looked up before its profile is known."""
    return hashlib.sha256(f"{kind}:{value}".encode()).digest()[0]


def identifier_buckets(keys: Iterable[tuple[str, str]]) -> list[int]:
    """The buckets of these identifiers, each a kind and a value, in order, each once."""
    return sorted({identifier_bucket(*key) for key in keys})


def draw(profile_id: int, salt: str) -> float:
    """A number in [0, 1), uniform over profiles, independent between salts."""
    digest = hashlib.blake2b(f"{salt}:{profile_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
