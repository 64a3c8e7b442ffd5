"""The segments: their conditions in words, sizes, some of their people, and who uses them."""

from typing import NamedTuple

from starlette.responses import Response
from starlette.routing import Route

from config.clock.crons import cron_in_words
from flows.http.staff.site import Site, Visit
from journeys.definition.catalog import Catalog
from journeys.definition.journey import ScheduleEntry, SegmentEntry
from journeys.definition.segment import Segment
from journeys.engine.entry import audience_after, audience_size
from journeys.operations.segment_counts import latest_counts
from profiles.conditions.words import in_words
from profiles.identity.search import summaries

_PREVIEWED = 10
_DAYS = 30  # of the daily count


class SegmentUse(NamedTuple):
    """A journey that enters a segment's people, and when."""

    journey: str
    when: str


def routes(site: Site) -> list[Route]:
    """`/segments` and `/segments/{name}`."""
    return [
        Route("/segments", site.endpoint("viewer", _list)),
        Route("/segments/{name}", site.endpoint("viewer", _show)),
    ]


def _list(visit: Visit) -> Response:
    segue = visit.segue
    with segue.db.transaction(write=False) as tx:
        found = [
            (segment, audience_size(tx, segment.condition), used_by(segue.catalog, name))
            for name, segment in sorted(segue.catalog.segments.items())
        ]
    return visit.page("segments", "Segments", segments=found)


def _show(visit: Visit) -> Response:
    segue = visit.segue
    segment: Segment = segue.catalog.segment(visit.request.path_params["name"])
    with segue.db.transaction(write=False) as tx:
        size = audience_size(tx, segment.condition)
        people = summaries(tx, audience_after(tx, segment.condition, 0, _PREVIEWED))
        days = latest_counts(tx, segment.name, _DAYS)
    return visit.page(
        "segment",
        segment.name,
        segment=segment,
        condition=in_words(segment.condition),
        size=size,
        people=people,
        days=days,
        uses=used_by(segue.catalog, segment.name),
    )


def used_by(catalog: Catalog, segment: str) -> list[SegmentUse]:
    """The journeys that enter the people of a segment on their own."""
    uses = []
    for name, version in sorted(catalog.current.items()):
        entry = version.journey.entry
        if isinstance(entry, SegmentEntry) and entry.segment == segment:
            uses.append(SegmentUse(name, "as soon as somebody joins it"))
        if isinstance(entry, ScheduleEntry) and entry.segment == segment:
            uses.append(SegmentUse(name, f"{cron_in_words(entry.cron)} ({entry.timezone})"))
    return uses
