"""Which journeys are paused is cached, and a change in another process is seen at once."""

from collections.abc import Iterator

import pytest

from config.database.engine import Database
from config.database.schema import migrate
from journeys.operations.control import PAUSED, held, pause, resume
from tests.support.counting import statements


@pytest.fixture
def processes(db: Database) -> Iterator[tuple[Database, Database]]:
    """The same database as two processes have it."""
    other = Database(db.url)
    for one in (db, other):
        migrate(one)
    yield db, other
    other.close()


def held_in(db: Database) -> dict[str, str]:
    with db.transaction(write=False) as tx:
        return held(tx)


def test_a_change_of_another_process_is_seen_by_the_next_transaction(
    processes: tuple[Database, Database],
) -> None:
    mine, other = processes
    assert held_in(mine) == {}
    pause(other, "j")
    assert held_in(mine) == {"j": PAUSED}
    resume(other, "j")
    assert held_in(mine) == {}


def test_without_a_change_it_is_read_once(processes: tuple[Database, Database]) -> None:
    mine, _ = processes
    pause(mine, "j")
    with statements(mine) as executed:
        assert [held_in(mine) for _ in range(3)] == [{"j": PAUSED}] * 3
    assert len([sql for sql in executed if "journey_control" in sql]) == 1
