"""Leases of buckets: live processes have equal shares, and no bucket belongs to two of them."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.database.buckets import ALL_BUCKETS, BUCKETS
from config.database.engine import Database
from config.timing import TIMING
from journeys.operations.leases import WORKERS, Leases, share

on_postgresql = pytest.mark.parametrize("db", ["postgresql"], indirect=True)
NAMES = st.sampled_from([f"host:{number}" for number in range(1, 9)])


@given(
    st.dictionaries(st.integers(0, BUCKETS - 1), NAMES, max_size=BUCKETS),
    st.lists(NAMES, min_size=1, unique=True),
)
def test_shares_become_equal_without_taking_leased_buckets(
    leases: dict[int, str], alive: list[str]
) -> None:
    for _ in range(2):  # in the first round some give up what others take in the second
        for one in alive:
            found = share(one, alive, leases)
            others = {bucket for bucket, whose in leases.items() if whose in set(alive) - {one}}
            assert not found.wanted & others
            for bucket in found.owned - found.wanted:
                del leases[bucket]
            leases |= dict.fromkeys(found.wanted, one)
    assert leases.keys() == set(ALL_BUCKETS)
    sizes = [sum(whose == one for whose in leases.values()) for one in alive]
    assert max(sizes) - min(sizes) <= 1
    for one in alive:
        found = share(one, alive, leases)
        assert (found.owned, len(found.owned)) == (found.wanted, found.size), "and stay so"


def settled(*leases: Leases) -> None:
    """Two renewals, which is what a change of the shares takes."""
    for _ in range(2):
        for one in leases:
            one.renew()
    assert all(one.is_complete for one in leases)


def together(*leases: Leases) -> Collection[int]:
    return sorted(bucket for one in leases for bucket in one.held())


@on_postgresql
def test_workers_that_come_and_go_share_the_buckets(db: Database) -> None:
    first, second, third = (Leases(db, f"host:{number}") for number in range(3))
    assert together(first) == []
    first.renew()
    assert together(first) == list(ALL_BUCKETS)
    second.renew()
    assert together(second) == [], "until the first gives some up"
    settled(first, second, third)
    assert together(first, second, third) == list(ALL_BUCKETS)
    assert sorted(len(one.held()) for one in (first, second, third)) == [85, 85, 86]
    second.release()
    assert together(second) == []
    settled(first, third)
    assert together(first, third) == list(ALL_BUCKETS)


@on_postgresql
def test_runs_of_a_journey_share_buckets_apart_from_the_workers(db: Database) -> None:
    worker, welcome, again, other = (
        Leases(db, f"host:{number}", journey)
        for number, journey in enumerate((WORKERS, "welcome", "welcome", "other"))
    )
    settled(worker, welcome, again, other)
    assert len(worker.held()) == len(other.held()) == BUCKETS
    assert together(welcome, again) == list(ALL_BUCKETS)
    assert len(welcome.held()) == BUCKETS / 2


@on_postgresql
def test_a_process_that_hung_has_no_buckets_until_it_renews(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(db, "host:1")
    leases.renew()
    clock = leases._renewed_at + TIMING.lease_lasts
    with monkeypatch.context() as hanging:
        hanging.setattr("journeys.operations.leases.time.monotonic", lambda: clock)
        assert leases.held() == ()
        leases.renew()
        assert len(leases.held()) == BUCKETS


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_on_sqlite_each_process_has_all_buckets(db: Database) -> None:
    first, second = Leases(db, "host:1"), Leases(db, "host:2")
    settled(first, second)
    assert first.held() == second.held() == ALL_BUCKETS
    second.release()
    assert second.held() == ALL_BUCKETS
