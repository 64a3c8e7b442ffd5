"""Reports on a journey, its experiments, and the yardstick of the whole shop.

They import numpy, and their plots matplotlib, so they are imported when somebody asks for one.
"""

from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple, cast, get_args

from starlette.responses import Response
from starlette.routing import Route

from config.access.staff_acts import record_act
from flows.http.staff.journeys.journey import version_of
from flows.http.staff.site import Site, Visit
from journeys.analytics.reports.figures import By
from journeys.definition.steps import ExperimentStep
from journeys.operations.promotion import experiment_of, promote

_BY = get_args(By)


class StaffTable(NamedTuple):
    """A table with its caption."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


class StaffPlot(NamedTuple):
    """A plot as an image, and in words."""

    source: str
    text: str

    @classmethod
    def of(cls, svg: str, text: str) -> "StaffPlot":
        return cls(f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}", text)


def routes(site: Site) -> list[Route]:
    """`/journeys/{name}/report?by=&from=&to=`, `.../experiment?step=`, and `/yardstick`."""
    return [
        Route("/journeys/{name}/report", site.endpoint("viewer", _report)),
        Route("/journeys/{name}/experiment", site.endpoint("viewer", _experiment)),
        Route("/journeys/{name}/promote", site.endpoint("editor", _promote), methods=["POST"]),
        Route("/yardstick", site.endpoint("viewer", _yardstick)),
    ]


def _report(visit: Visit) -> Response:
    from journeys.analytics.reports import views
    from journeys.analytics.reports.period import period_of
    from journeys.analytics.reports.report import report_journey
    from journeys.analytics.revenue import RevenueMapping

    segue, journey = visit.segue, version_of(visit).journey
    query = visit.request.query_params
    has_arms = any(isinstance(one.step, ExperimentStep) for one in journey.graph.values())
    ways = [one for one in _BY if one != "arm" or has_arms]
    by = query.get("by") if query.get("by") in ways else "step"
    first, last = query.get("from") or None, query.get("to") or None
    with segue.db.transaction(write=False) as tx:
        policy = segue.policy
        period = period_of(first, last, policy.timezone, tx.now, policy.first_weekday)
        mapping = RevenueMapping.of(segue.settings)
        found = report_journey(tx, segue.catalog, journey.name, mapping, period, by=cast(By, by))
    tables = [StaffTable(one.title, one.headings, one.rows) for one in views.tables(found)]
    return visit.page(
        "report",
        f"Report on {journey.name}",
        journey=journey.name,
        ways=ways,
        by=by,
        first=first or "",
        last=last or "",
        headline=views.headline(found),
        plot=StaffPlot.of(views.plot(found), views.described(found)) if found.total.sent else None,
        tables=[one for one in tables if one.rows],
        sentences=[one for one in (found.empty, *found.notes) if one],
        method=list(found.method),
        here="/journeys",
    )


def _experiment(visit: Visit) -> Response:
    from journeys.analytics import experiment_views as views
    from journeys.analytics.experiments import report_experiment
    from journeys.analytics.revenue import RevenueMapping

    segue, version = visit.segue, version_of(visit)
    journey = version.journey.name
    step = visit.request.query_params.get("step", "")
    with segue.db.transaction(write=False) as tx:
        mapping = RevenueMapping.of(segue.settings)
        found = report_experiment(tx, segue.catalog, journey, step, mapping)
    differences = views.difference_rows(found)
    sentences = list(views.sentences(found))
    has_people = any(one.people for one in found.arms)
    return visit.page(
        "experiment",
        f"Experiment “{step}”",
        journey=journey,
        sentences=sentences,
        plot=StaffPlot.of(views.plot(found), " ".join(sentences)) if has_people else None,
        tables=[
            StaffTable("Arms", views.ARM_HEADINGS, views.arm_rows(found)),
            StaffTable(f"Differences to {found.control}", views.DIFFERENCE_HEADINGS, differences),
        ],
        notes=list(found.left_out),
        step=step,
        outcomes=experiment_of(version, step).outcomes(),
        here="/journeys",
    )


def _promote(visit: Visit) -> Response:
    segue, journey = visit.segue, version_of(visit).journey.name
    step, arm = visit.request.query_params.get("step", ""), visit.form.get("arm", "")
    with segue.db.transaction() as tx:
        promote(tx, segue.catalog, journey, step, arm)
        about = f"{journey}, {step}: {arm}"
        record_act(tx, visit.user.name, "promoted an arm", about=about)
    said = f"Everybody who enters {journey} from now on takes “{arm}” at “{step}”."
    return visit.page("done", "The experiment has ended", sentences=[said], here="/journeys")


def _yardstick(visit: Visit) -> Response:
    from flows.yardstick import yardstick
    from journeys.analytics import yardstick_views as views

    history, reports = yardstick(visit.segue)
    of_measure: dict[str, list[Sequence[str]]] = {}
    for period, _segment, measure, *figures in views.rows(reports):
        of_measure.setdefault(measure, []).append((period, *figures))
    headings = (views.HEADINGS[0], *views.HEADINGS[3:])
    return visit.page(
        "yardstick",
        "Yardstick",
        tables=[StaffTable(name, headings, rows) for name, rows in of_measure.items()],
        notes=views.left_out(history),
    )
