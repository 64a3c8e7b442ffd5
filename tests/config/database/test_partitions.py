"""On tables that are partitioned by bucket, a statement about one profile reads one partition.

The statements are those that a call, its message and a launch execute, so none can be missing.
"""

import pytest

from channels.outbox.dispatch import Dispatcher
from config.clock.times import DAY
from config.policy import load_policy
from config.settings import Settings
from journeys.definition.catalog import LIBRARY
from journeys.engine.turn import Turn
from journeys.operations.launches import enter_audience, start_launch
from profiles.bucketing import bucket_of
from tests.support.partitions import partition_by_bucket, partitions_read
from tests.support.receiving import receiving
from tests.support.shop import House

CART = {"cart_id": "c1", "items": [{"name": "Kettle", "price": 30}], "currency": "EUR"}

# What reads all partitions: a part of the statement, and the tables.
OF_ALL = (
    # the backlog and the audience of a launch are not of one profile
    ("WHERE event.worked_at IS NULL LIMIT", {"event"}),
    ("WHERE profile.id > ", {"profile"}),
    # an address is in the bucket of its kind and value, by which a call looks it up
    ("WHERE identifier.profile_id = profile.id", {"identifier", "suppression"}),
)


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_statement_about_one_profile_reads_one_partition(house: House) -> None:
    tables = partition_by_bucket(house.db)
    house.open_library(LIBRARY, load_policy(Settings().policy_file))
    bob = house.customer("bob", push_tokens={}, phone=None)

    async def work(dispatcher: Dispatcher) -> None:
        turn = Turn(house.segue.engine, dispatcher, leased=lambda: [bucket_of(bob)])
        await turn.until_idle()

    with partitions_read(house.db, tables) as found:
        with receiving(house.segue) as receiver:
            call = {"userId": "bob", "event": "cart_abandoned", "properties": CART}
            receiver.post("/v1/track", json=call).raise_for_status()
        house.dispatching(work)
        version = start_launch(house.segue.engine, "launch", "win-back", "everyone")
        assert sum(enter_audience(house.segue.engine, version, "everyone", "launch")) == 1
        for _ in range(4):
            house.dispatching(work)
            house.db.now = house.now + DAY
    assert len(house.providers.accepted) >= 2
    assert len(found) > 30
    wide = [
        (sql, table)
        for sql, reads in found.items()
        for table, partitions in reads.items()
        if len(partitions) > 1 and not any(part in sql and table in of for part, of in OF_ALL)
    ]
    assert not wide
    for part, _ in OF_ALL:
        assert any(part in sql for sql in found), part
