"""The yardstick of an installation, for the command and for Prefect."""

from collections.abc import Sequence
from datetime import date

import numpy as np

from channels.rules.windows import resolve
from config.clock.times import DAY, parse_date
from config.clock.zones import zone
from config.errors import SegueError
from flows.app import Segue
from journeys.analytics.periods import periods
from journeys.analytics.yardstick import History, PeriodReport, measure_period, read_history
from journeys.engine.entry import audience_after
from journeys.operations.holdout import hold_out_drawn

_ALL = 2**31  # more than there are profiles


def yardstick(
    segue: Segue, since: date | None = None, *, by_segment: bool = False
) -> tuple[History, Sequence[PeriodReport]]:
    """Measure the quarters and years from the one with the day `since` to the current one.

    Stores first who is drawn into the holdout and is not stored yet.

    Parameters
    ----------
    since: a day in the brand's time zone; default: a year ago.
    by_segment: also for the people who are in each segment now.
    """
    hold_out_drawn(segue.db, segue.rules.holdout)
    brand = zone(segue.policy.timezone)
    with segue.db.transaction(write=False) as tx:
        history = read_history(tx, segue.settings)
        segments = {
            name: np.array(audience_after(tx, segment.condition, 0, _ALL), dtype=np.int64)
            for name, segment in sorted(segue.catalog.segments.items())
            if by_segment and name != "everyone"
        }
        begin = tx.now - 365 * DAY if since is None else resolve(since, 0, brand)
        reports = [
            report
            for period in periods(begin, tx.now, brand)
            for report in measure_period(tx, history, period, segments)
        ]
    return history, reports


def read_day(text: str) -> date:
    """A day that a person gives. Raises SegueError."""
    day = parse_date(text)
    if day is None:
        raise SegueError(f"{text!r} is not a day; write it like 2026-01-01")
    return day
