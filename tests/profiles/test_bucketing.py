"""Buckets: equal in Python and SQL, evenly distributed, on every row, and in every unique key."""

from collections import Counter
from importlib import import_module
from random import Random

import pytest
from sqlalchemy import Connection, literal, select, text
from sqlmodel import SQLModel

from config.database.buckets import BUCKETS
from config.database.engine import Database
from journeys.dsl import Email, OnEvent, Push, Send, Wait
from journeys.operations.merge import merge
from profiles.bucketing import bucket_of, bucket_sql, identifier_bucket
from profiles.identity.mergers import Merger
from tests.support.shop import House, described

migration = import_module("config.database.migrations.versions.0014_buckets_and_suppressions")
WITH_BUCKET = [table for table in SQLModel.metadata.sorted_tables if "bucket" in table.c]
# A number of rows would do as well, for these have neither.
_random = Random(14)
IDS = [1, 2, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63 - 1, *_random.sample(range(2**62), 1000)]
VALUES = [
    "",
    "ann@example.com",
    "+447700900001",
    "jürgen@bücher.example",
    "\U0001f600",
    "a:b",
    "x'y",
]


def identifier_sql(conn: Connection) -> str:
    """The migration's expression for the columns kind and value."""
    if conn.dialect.name == "sqlite":
        function = migration.identifier_bucket
        conn.connection.driver_connection.create_function("identifier_bucket", 2, function)  # type: ignore[union-attr]
    return str(migration.IDENTIFIER_BUCKET[conn.dialect.name])


def test_the_migration_computes_the_same_bucket(db: Database) -> None:
    of_id = text(f"SELECT {migration.bucket_of('CAST(:id AS BIGINT)')}")
    with db.transaction() as tx:
        found = [tx.conn.execute(of_id, {"id": one}).scalar_one() for one in IDS]
        assert found == [bucket_of(one) for one in IDS]
        named = "(SELECT CAST(:kind AS TEXT) AS kind, CAST(:value AS TEXT) AS value) AS one"
        of_key = text(f"SELECT {identifier_sql(tx.conn)} FROM {named}")
        for value in VALUES:
            key = {"kind": "email", "value": value}
            assert tx.conn.execute(of_key, key).scalar_one() == identifier_bucket(**key)


def test_a_statement_computes_the_same_bucket(db: Database) -> None:
    with db.transaction() as tx:
        found = [tx.conn.execute(select(bucket_sql(literal(one)))).scalar_one() for one in IDS]
    assert found == [bucket_of(one) for one in IDS]


def test_buckets_are_even() -> None:
    """Of 256,000 in 256 buckets each has 1,000; of ids in a row nearly exactly."""
    of_ids = Counter(bucket_of(one) for one in range(1, 256_001))
    assert len(of_ids) == BUCKETS
    assert all(abs(number - 1000) < 20 for number in of_ids.values())
    of_keys = Counter(identifier_bucket("user_id", str(one)) for one in range(256_000))
    assert len(of_keys) == BUCKETS
    # 6 standard deviations of sqrt(1000)
    assert all(abs(number - 1000) < 190 for number in of_keys.values())


def test_every_row_is_in_its_bucket(house: House) -> None:
    """Through events, sends and a join."""
    hello = Send("hello", Email("hello"), Push("hello"))
    house.open(described(hello, Wait("1d"), entry=OnEvent("came")))
    ann, bob, cyd = (house.customer(name) for name in ("ann", "bob", "cyd"))
    for person in (ann, bob, cyd):
        house.did(person, "came")
        house.say(person, "email", "news", granted=False)
    house.run()
    with house.db.transaction() as tx:
        merge(tx, [Merger(from_id=bob, into_id=ann, why="test")])
    house.later("2d")
    checked = set()
    with house.db.transaction(write=False) as tx:
        for table in WITH_BUCKET:
            for row in tx.conn.execute(select(table)).mappings():
                checked.add(table.name)
                if table.name == "identifier":
                    assert row["bucket"] == identifier_bucket(row["kind"], row["value"])
                else:
                    whose = row["id" if table.name == "profile" else "profile_id"]
                    assert row["bucket"] == bucket_of(whose), table.name
    assert checked >= {
        *("profile", "identifier", "event", "consent", "consent_record"),
        *("enrollment", "passage", "message", "message_device"),
    }


@pytest.mark.parametrize("table", WITH_BUCKET, ids=lambda table: table.name)
def test_postgresql_can_partition_by_bucket(postgresql_url: str, table: object) -> None:
    """It refuses that to a table with a unique key that does not contain the bucket."""
    db = Database(postgresql_url)
    with db.transaction(keep=False) as tx:
        like = f"(LIKE {table} INCLUDING ALL)"
        tx.conn.execute(text(f"CREATE TABLE parts {like} PARTITION BY LIST (bucket)"))
        keys = "SELECT count(*) FROM pg_index WHERE indrelid = 'parts'::regclass AND indisunique"
        assert tx.conn.execute(text(keys)).scalar_one() >= 1
    db.close()
