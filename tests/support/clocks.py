"""A database clock that a test sets, for what a simulated clock switches off."""

from collections.abc import Callable

import pytest
from sqlalchemy import BigInteger, literal_column, select

from config.clock.times import Instant
from config.database.engine import READ_CLOCK_AND_CHANGES, Database


def own_clock(db: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[Instant], None]:
    """Let the database use its own clock, which stands at the instant given to the result."""
    db.now = None

    def set_clock(now: Instant) -> None:
        _, changes = READ_CLOCK_AND_CHANGES.selected_columns
        stands = literal_column(str(now), BigInteger)
        clock = "config.database.engine.READ_CLOCK"
        monkeypatch.setattr(clock, select(stands))
        monkeypatch.setattr(f"{clock}_AND_CHANGES", select(stands, changes))

    return set_clock
