"""On tables that are partitioned by bucket, a statement about one profile reads one partition.

The statements are those that a call, its message and a launch execute, so none can be missing.
"""

import re
from collections.abc import Mapping, Sequence

import pytest
from sqlalchemy import Connection, text

from channels.feedback.apply import apply
from channels.outbox.dispatch import Dispatcher
from channels.providers.webhook import Feedback
from config.clock.times import DAY
from config.policy import load_policy
from config.settings import ROOT, Settings
from journeys.definition.catalog import LIBRARY
from journeys.engine.turn import Turn
from journeys.launches.launching import enter_audience, start_launch
from profiles.bucketing import buckets_of
from tests.config.database.test_upgrades import columns_of, contents
from tests.support.http.receiving import receiving
from tests.support.partitions import Reads, partition_by_bucket, partitions_read
from tests.support.shop import House

on_postgresql = pytest.mark.parametrize("db", ["postgresql"], indirect=True)
CART = {"cart_id": "c1", "items": [{"name": "Kettle", "price": 30}], "currency": "EUR"}

# What reads all partitions: a part of the statement, and the tables.
OF_ALL = (
    # the backlog and the audience of a launch are not of one profile
    ("WHERE event.worked_at IS NULL LIMIT", {"event"}),
    ("WHERE profile.id > ", {"profile"}),
    # an address is in the bucket of its kind and value, by which a call looks it up
    ("WHERE identifier.profile_id = profile.id", {"identifier", "suppression"}),
)


@pytest.fixture
def tables(house: House) -> list[str]:
    """The library's journeys on partitioned tables."""
    tables = partition_by_bucket(house.db)
    house.open_library(LIBRARY, load_policy(Settings().policy_file))
    return tables


def live_and_launched(house: House, people: Sequence[int], names: Sequence[str]) -> None:
    """Each customer abandons a cart, and a launch enters them; then three days pass."""

    async def work(dispatcher: Dispatcher) -> None:
        leased = buckets_of(people)
        await Turn(house.segue.engine, dispatcher, leased=lambda: leased).until_idle()

    with receiving(house.segue) as receiver:
        for name in names:
            call = {"userId": name, "event": "cart_abandoned", "properties": CART}
            receiver.post("/v1/track", json=call).raise_for_status()
    house.dispatching(work)
    version = start_launch(house.segue.engine, "launch", "win-back", "everyone")
    entering = enter_audience(house.segue.engine, version, "everyone", "launch")
    assert sum(entering) == len(people)
    for _ in range(4):
        house.dispatching(work)
        house.db.now = house.now + DAY


@on_postgresql
def test_rows_and_indexes_stay_when_tables_are_partitioned(house: House) -> None:
    ann = house.customer("ann")
    with house.db.transaction(write=False) as tx:
        before = contents(tx.conn, columns_of(tx.conn))
        indexes = {name: indexes_of(tx.conn, name) for name in before}
    tables = partition_by_bucket(house.db)
    assert len(tables) > 10
    with house.db.transaction(write=False) as tx:
        columns = {table: names for table, names in columns_of(tx.conn).items() if table in before}
        assert contents(tx.conn, columns) == before
        assert {name: indexes_of(tx.conn, name) for name in before} == indexes
        sizes = tx.conn.connection.cursor()
        sizes.execute("ANALYZE")
        sizes.execute((ROOT / "deploy" / "postgres" / "sizes.sql").read_text(encoding="utf-8"))
        rows = {name: (number, size) for name, number, _, _, size in sizes.fetchall()}
    assert rows["profile"][0] == 1
    assert rows["profile"][1] > 0
    assert house.customer("bob") == ann + 2, "the script has taken a number"


def indexes_of(conn: Connection, table: str) -> set[str]:
    """The names of a table's indexes, those of its keys included."""
    named = "SELECT indexname FROM pg_indexes WHERE tablename = :table"
    return set(conn.execute(text(named), {"table": table}).scalars())


def wide(found: Mapping[str, Reads]) -> list[tuple[str, str]]:
    """The statements that read several partitions of a table, with the table."""
    return [
        (sql, table)
        for sql, reads in found.items()
        for table, partitions in reads.items()
        if len(partitions) > 1
    ]


@on_postgresql
def test_a_statement_about_one_profile_reads_one_partition(house: House, tables: list[str]) -> None:
    bob = house.customer("bob", push_tokens={}, phone=None)
    with partitions_read(house.db, tables) as found:
        live_and_launched(house, [bob], ["bob"])
    assert len(found) > 30
    excepted = [
        (sql, table)
        for sql, table in wide(found)
        for part, of in OF_ALL
        if part in sql and table in of
    ]
    assert not set(wide(found)) - set(excepted)
    for part, _ in OF_ALL:
        assert any(part in sql for sql in found), part


@on_postgresql
def test_with_distributed_tables_a_statement_locks_rows_in_one_partition(
    house: House, tables: list[str]
) -> None:
    house.db.distributed = True
    names = [f"c{number}" for number in range(4)]
    people = [house.customer(name, push_tokens={}, phone=None) for name in names]
    assert len(buckets_of(people)) == len(people)
    with partitions_read(house.db, tables) as found:
        live_and_launched(house, people, names)
        for sent in house.providers.accepted:
            report = Feedback(
                channel=sent.channel,
                kind="delivered",
                id=f"d{sent.message_id}",
                source="sendgrid",
                message_id=sent.message_id,
                address=sent.to,
            )
            with house.db.transaction() as tx:
                apply(tx, [report])
    locking = {
        sql: reads for sql, reads in found.items() if re.search(r" FOR (NO KEY )?UPDATE", sql)
    }
    assert len(locking) > 6
    assert not wide(locking)
    assert wide(found), "others name several buckets at once"
    together = [sql for sql, reads in found.items() if {"profile", "identifier"} <= reads.keys()]
    assert not together, "they are in different buckets"
    assert {row.state for row in house.rows()} <= {"delivered", "skipped", "cancelled"}
