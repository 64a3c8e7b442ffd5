"""The size of a chunk follows from the duration of the previous ones."""

import time
from collections.abc import Callable

import pytest

from config.database.engine import Database
from journeys.engine.chunks import Chunks

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


def test_the_chunk_size_follows_the_duration_of_the_last_chunks(work: Work) -> None:
    first = work(QUICK, None)
    assert work(QUICK, None) == 2 * first
    assert work(SLOW, 3) == 4 * first
    assert work(SLOW, 3) == 2 * first


def test_each_kind_of_work_has_its_own_chunk_size(sqlite_url: str) -> None:
    chunks = Chunks(Database(sqlite_url))
    with chunks.transaction("one") as chunk:
        chunk.people = chunk.size
    with chunks.transaction("other", most=7) as other:
        assert other.size == 7
    with chunks.transaction("other") as other:
        assert other.size == chunk.size
