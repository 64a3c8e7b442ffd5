"""A dry run of a launch: a simulation of one day, in which customers do nothing.

It says who would enter and why others would not, what would be sent and at which hours, and what
would not be sent and why.
"""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select

from channels.messages import messages
from config.channels import by_channel
from config.clock.zones import zone
from config.database.engine import Tx
from config.policy import Policy
from flows.orchestration.pages.counts import JourneyCounts, StepCounts, count_journey, count_step
from journeys.engine.entry import audience_size
from journeys.enrollments import enrollments
from journeys.operations.counts import AHEAD, SENT
from journeys.simulation.clock import SimulatedShop
from journeys.simulation.results import Results
from journeys.simulation.simulate import Question, prepare, run

_DAYS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunReport:
    """What a launch would do. The people who are in the journey already do not count.

    audience: the profiles of the segment. hours: messages by hour, in the brand's time zone.
    steps: in graph order.
    """

    results: Results
    audience: int
    hours: dict[str, int]
    steps: dict[str, StepCounts]
    journey: JourneyCounts


def dry_run(
    tx: Tx, shop: SimulatedShop, journey: str, audience: str, people: int | None
) -> DryRunReport:
    """Simulate a launch now, on a copy. Raises SegueError for an unknown journey or segment."""
    question = Question(
        journeys=(journey,), audience=audience, days=_DAYS, people=people, customers=False
    )
    prepared = prepare(tx, shop, question)
    results = run(prepared, shop, question, seed=0, of_launch=True)
    start = results.start
    graph = shop.catalog.journey(journey).journey.graph
    with prepared.db.transaction(write=False) as copied:
        report = DryRunReport(
            results=results,
            audience=audience_size(tx, shop.catalog.segment(audience).condition),
            hours=_hours(copied, shop.policy, start),
            steps={
                step: _would_be(count_step(copied, journey, step, start, entered_since=start))
                for step in graph
            },
            journey=count_journey(copied, journey, entered_since=start),
        )
    prepared.db.close()
    return report


def _would_be(counts: StepCounts) -> StepCounts:
    """The counts of a step, with the messages that the simulation has sent as planned."""
    would_be: Counter[tuple[str, str]] = Counter()
    for (channel, fate), number in counts.messages.items():
        would_be[channel, "planned" if fate == "sent" else fate] += number
    return replace(counts, messages=would_be)


def _hours(tx: Tx, policy: Policy, since: int) -> dict[str, int]:
    leaving = (
        select(messages.c.send_at)
        .join(enrollments, enrollments.c.id == messages.c.enrollment_id)
        .where(
            enrollments.c.entered_at >= since,
            or_(*(messages.c.state == state for state in (*SENT, *AHEAD))),
        )
    )
    brand = zone(policy.timezone)
    hours = Counter(
        datetime.fromtimestamp(at, brand).replace(minute=0, second=0).isoformat()
        for at in tx.conn.execute(leaving).scalars()
    )
    return dict(sorted(hours.items()))


def as_json(journey: str, audience: str, report: DryRunReport) -> dict[str, Any]:
    """The report as the command prints it."""
    results = report.results
    return {
        "journey": journey,
        "audience": audience,
        "dry_run": True,
        "people": report.audience,
        "entered": results.entered[journey],
        "planned": by_channel(results.sent + results.planned),
        "not_sent": dict(sorted(results.not_sent.items())),
        "hours": report.hours,
        "why_not": dict(results.why.get(journey, {})),
    }
