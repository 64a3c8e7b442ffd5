"""Concurrent processes never exceed a limit and never send a message twice."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select

from channels.messages import messages
from config.clock.times import Instant
from config.clock.zones import zone, zones_of_country
from config.database.engine import Database
from config.policy import Cap
from journeys.enrollments import enrollments
from tests.support.proof import cases
from tests.support.worlds.swarm import JOURNEYS, POLICY, populate, run_swarm, working_days

Zones = Mapping[int, tuple[str | None, str | None]]
HANDED_OVER = ("sending", "sent", "delivered", "unknown")


PEOPLE = cases(test=120, prove=2000)


@pytest.mark.long
@pytest.mark.proof
@pytest.mark.parametrize(
    ("engine", "processes", "people"), [("postgresql", 8, PEOPLE), ("sqlite", 3, PEOPLE)]
)
def test_no_cap_is_ever_broken(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str, processes: int, people: int
) -> None:
    url = request.getfixturevalue(f"{engine}_url")
    db = Database(url)
    zones = populate(db, people)
    accepted = run_swarm(url, processes, working_days(3), tmp_path)

    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(messages)).all()
        entered = tx.conn.execute(select(enrollments.c.profile_id, enrollments.c.journey)).all()
    db.close()
    handed_over = [row for row in rows if row.state in HANDED_OVER]

    # nothing went twice, nobody entered twice, and what went is what is on record
    assert max(Counter(accepted).values()) == 1
    assert set(accepted) == {row.id for row in handed_over}
    assert len(set(entered)) == len(entered) == people * len(JOURNEYS)
    assert {row.state for row in rows} <= {"planned", "sent", "skipped"}
    assert list(violations(handed_over, zones)) == []

    # and it was no idle run: every channel was used, places were fought for, and lost
    assert set(Counter(row.channel for row in handed_over)) == {"email", "sms", "push"}
    assert len(handed_over) > people * 3
    assert "capped" in {row.reason for row in rows}
    assert any("gave_way_to" in row.decision for row in rows)


# The recount: nothing of the planner's is used ----------------------------------------------------


def violations(rows: Sequence[Row[Any]], zones: Zones) -> Iterator[tuple[Cap, int, object]]:
    """Every period that holds more than its cap allows."""
    by_profile: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_profile[row.profile_id].append(row)
    for cap in POLICY.caps:
        for profile_id, theirs in by_profile.items():
            times = sorted(
                row.send_at
                for row in theirs
                if row.channel in cap.channels and cap.topic in (None, row.topic)
            )
            for period in overfull(cap, times, zones[profile_id]):
                yield cap, profile_id, period


def overfull(
    cap: Cap, times: Sequence[Instant], where: tuple[str | None, str | None]
) -> Iterator[object]:
    if cap.within is not None:
        for first, last in zip(times, times[cap.limit :], strict=False):
            if last - first < cap.within:
                yield first, last
        return
    name, country = where
    for each in [name] if name else zones_of_country(country or ""):
        local = Counter(period(cap, datetime.fromtimestamp(at, zone(each)).date()) for at in times)
        yield from ((each, day) for day, number in local.items() if number > cap.limit)


def period(cap: Cap, day: date) -> date:
    if cap.per == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if cap.per == "month" else day


def test_the_recount_detects_errors() -> None:
    """One more in a period is found, whichever cap it breaks."""
    rolling = Cap.model_validate({"channels": "all", "limit": 2, "within": "24h"})
    daily = Cap.model_validate({"channels": "all", "limit": 1, "per": "day"})
    weekly = Cap.model_validate({"channels": "all", "limit": 1, "per": "week"})
    hour = 3600
    assert list(overfull(rolling, [0, 12 * hour, 24 * hour - 1], ("UTC", None)))
    assert not list(overfull(rolling, [0, 12 * hour, 24 * hour], ("UTC", None)))
    assert not list(overfull(daily, [23 * hour, 24 * hour], ("UTC", None)))
    assert list(overfull(daily, [23 * hour, 24 * hour], ("Europe/Berlin", None)))
    assert list(overfull(daily, [23 * hour, 24 * hour], (None, "AU")))
    # 1970 began on a Thursday
    assert not list(overfull(weekly, [3 * 24 * hour, 4 * 24 * hour], ("UTC", None)))
    assert list(overfull(weekly, [2 * 24 * hour, 4 * 24 * hour - 1], ("UTC", None)))
