"""Writers of SQLite take turns: whoever has written queues behind those who wait."""

import fcntl
import threading
import time
from pathlib import Path

from config.database.write_turn import WriteTurn
from tests.support.patience import PATIENCE


def test_a_waiting_writer_goes_first(tmp_path: Path) -> None:
    file = tmp_path / "segue.db"
    # Locks of files exclude one another by open file, so a second value is like a second process.
    mine, other = WriteTurn(file, PATIENCE), WriteTurn(file, PATIENCE)
    order: list[str] = []

    def waits() -> None:
        with other():
            order.append("the one that waited")

    waiting = threading.Thread(target=waits)
    with mine():
        waiting.start()
        while not is_locked(tmp_path / "segue.db-queue"):
            time.sleep(0.01)
        order.append("first")
    with mine():
        order.append("again")
    waiting.join(PATIENCE)
    assert order == ["first", "the one that waited", "again"]
    mine.close()
    other.close()


def is_locked(file: Path) -> bool:
    """Whether somebody holds the lock of the file: the first of those who wait holds the queue."""
    with file.open() as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_writer_goes_ahead_when_the_turn_is_not_given_back(tmp_path: Path) -> None:
    file = tmp_path / "segue.db"
    hangs, goes = WriteTurn(file, PATIENCE), WriteTurn(file, 0.01)
    with hangs(), goes():
        pass
    hangs.close()
    goes.close()


def test_a_folder_without_write_access_has_no_turns(tmp_path: Path) -> None:
    turn = WriteTurn(tmp_path / "missing" / "segue.db", PATIENCE)
    with turn():
        pass
    turn.close()
