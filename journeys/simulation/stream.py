"""What the shop's customers would do anyway: the events of the last weeks, once more.

The same customers do the same a whole number of weeks later, so that weekdays and hours stay; if
the simulation is longer than that, once more. From
the second seed on, the customers who did something change places: each does what one of them,
drawn with replacement, did.

Events that history attributes to a journey (its goal, within its time) are left out: the rates of
answers bring them back (rates.py).
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from random import Random
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, select

from config.clock.times import DAY, Instant
from config.database.arrays import one_of
from config.database.engine import Tx
from config.policy import CHANNELS
from journeys.definition.catalog import Catalog
from journeys.enrollments import enrollments
from journeys.simulation.behaviour import to_grain
from journeys.simulation.copy import events_read
from journeys.simulation.inputs import Inputs, ShopEvent
from profiles.events import PROFILE_CHANGED
from profiles.tables import events

_WEEK = 7 * DAY
_c = events.c
# Names, properties and times of events.
_Stream = list[tuple[str, dict[str, Any], Instant]]


def shop_events(
    tx: Tx,
    catalog: Catalog,
    *,
    start: Instant,
    days: int,
    seed: int,
    without: Collection[str] = (),
) -> Inputs:
    """The events of the coming days, read from a copy. without: names that are left out."""
    period = max(round(days / 7), 1) * _WEEK
    end = start + days * DAY
    names = {
        name
        for name in events_read(catalog) - set(without) - {PROFILE_CHANGED}
        if not name.startswith(tuple(f"{channel}_" for channel in CHANNELS))
    }
    found = (
        select(_c.profile_id, _c.name, _c.properties, _c.occurred_at)
        .where(
            one_of(_c.name, sorted(names)),
            _c.occurred_at >= start - period,
            _c.occurred_at < start,
            ~_attributed(catalog),
        )
        .order_by(_c.profile_id, _c.occurred_at, _c.id)
    )
    streams: dict[int, _Stream] = defaultdict(list)
    for profile_id, name, properties, at in tx.conn.execute(found):
        for again in range(at + period, end, period):
            streams[profile_id].append((name, properties, again))
    inputs = Inputs()
    for profile_id, stream in _places(list(streams.items()), seed):
        for number, (name, properties, at) in enumerate(stream):
            key = f"simulated {seed} {number} {name}"
            one = ShopEvent(profile_id=profile_id, name=name, properties=properties, dedupe_key=key)
            inputs.add(max(to_grain(at), start), [one])
    return inputs


def _places(streams: Sequence[tuple[int, _Stream]], seed: int) -> Sequence[tuple[int, _Stream]]:
    if seed == 0:
        return streams
    drawn = Random(seed).choices([stream for _, stream in streams], k=len(streams))  # noqa: S311  must repeat
    return [(profile_id, stream) for (profile_id, _), stream in zip(streams, drawn, strict=True)]


def _attributed(catalog: Catalog) -> ColumnElement[bool]:
    """Whether the event is the goal of an enrollment of its profile, within the goal's time."""
    e = enrollments.c
    goals = [
        (name, one.journey.goal)
        for name, one in catalog.current.items()
        if one.journey.goal is not None
    ]
    found: ColumnElement[bool] = exists().where(e.profile_id == _c.profile_id, e.id.is_(None))
    for name, goal in goals:
        found = found | exists().where(
            and_(
                _c.name == goal.did.event,
                e.profile_id == _c.profile_id,
                e.journey == name,
                _c.occurred_at > e.since,
                _c.occurred_at <= e.since + goal.within,
            )
        )
    return found
