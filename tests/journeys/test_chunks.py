"""How many people a transaction takes follows from how long the last ones took."""

import time
from collections.abc import Callable

import pytest

from config.database import Database
from journeys.engine.chunks import LARGEST, Chunks

Work = Callable[[float, int | None], int]
# Seconds a person.
QUICK, SLOW = 1e-7, 1.0


@pytest.fixture
def work(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Do a chunk at so many seconds a person, of so many people or all it may; gives its size."""
    clock = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    chunks = Chunks(Database(sqlite_url))

    def one(each: float, people: int | None) -> int:
        nonlocal clock
        with chunks.transaction("work") as chunk:
            chunk.people = chunk.size if people is None else people
            clock += each * chunk.people
        return chunk.size

    return one


def test_quick_chunks_grow_and_slow_ones_shrink_by_steps(work: Work) -> None:
    first = work(QUICK, None)
    assert work(QUICK, None) == first * 3 // 2
    assert [work(QUICK, None) for _ in range(20)][-1] == LARGEST
    work(SLOW, None)
    assert work(SLOW, None) == LARGEST // 2
    assert [work(SLOW, None) for _ in range(20)][-1] == 50


def test_the_size_settles_where_a_chunk_takes_a_twenty_fifth_of_a_second(work: Work) -> None:
    assert [work(1 / 10_000, None) for _ in range(20)][-1] == pytest.approx(400, abs=1)


def test_a_few_people_quickly_done_change_nothing(work: Work) -> None:
    first = work(QUICK, 1)
    assert work(QUICK, 0) == first
    assert work(QUICK, 1) == first


def test_what_is_slow_for_a_few_is_too_slow_for_many(work: Work) -> None:
    first = work(SLOW, 3)
    assert work(SLOW, 3) == first // 2


def test_kinds_of_work_are_apart(sqlite_url: str) -> None:
    chunks = Chunks(Database(sqlite_url))
    with chunks.transaction("one") as chunk:
        chunk.people = chunk.size
    with chunks.transaction("other", most=7) as other:
        assert other.size == 7
    with chunks.transaction("other") as other:
        assert other.size == chunk.size
