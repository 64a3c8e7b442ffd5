"""A database clock that a test sets, for what a simulated clock switches off."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from config.clock.times import Instant
from config.database.engine import Database


def own_clock(db: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[Instant], None]:
    """Let the database use its own clock, which stands at the instant given to the result."""
    db.now = None

    def set_clock(now: Instant) -> None:
        clock = "config.database.engine.READ_CLOCK"
        monkeypatch.setattr(clock, text(f"SELECT {now}"))
        changes = "COALESCE((SELECT changes FROM change_counter WHERE id = 1), 0)"
        monkeypatch.setattr(f"{clock}_AND_CHANGES", text(f"SELECT {now}, {changes}"))

    return set_clock
