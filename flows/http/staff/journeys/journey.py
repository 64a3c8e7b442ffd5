"""All journeys; one journey with its steps, counts and versions; pause, resume and stop."""

from collections import Counter

from sqlalchemy import BindParameter, bindparam, func, select, union_all
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from channels.messages import messages
from config.access.staff_acts import StaffActName
from config.database.engine import Tx
from config.errors import SegueError
from flows.http.staff.journeys.graph import draw
from flows.http.staff.journeys.steps import StepFigures, shown_steps
from flows.http.staff.site import Site, Visit
from flows.http.staff.words import duration
from flows.orchestration.journey_controls import Action, control_journey
from flows.orchestration.pages.counts import count_journey
from journeys.definition.journey import After, EventEntry, Journey, Version
from journeys.definition.steps import ExperimentStep
from journeys.enrollments import enrollments
from journeys.operations.control import held
from journeys.operations.counts import (
    AHEAD,
    HANDED_OVER,
    LARGE,
    counted_state,
    is_large,
    summarise,
)
from journeys.tables import journey_versions, launches, message_totals, passages
from profiles.conditions.words import in_words
from profiles.identity.search import summaries

_LAUNCHES = 10
_PEOPLE = 50
_m, _e, _t = messages.c, enrollments.c, message_totals.c
_OF: BindParameter[str] = bindparam("of_journey")
_fate = counted_state().label("fate")
_MESSAGES = union_all(
    select(_m.step, _m.channel, _fate, func.count())
    .where(_m.journey == _OF)
    .group_by(_m.step, _m.channel, "fate"),
    select(_t.step, _t.channel, _t.state, func.sum(_t.number))
    .where(_t.journey == _OF)
    .group_by(_t.step, _t.channel, _t.state),
)
_CONVERTED = (
    select(passages.c.step, passages.c.outcome, func.count(), func.count(_e.converted_at))
    .join_from(passages, enrollments, _e.id == passages.c.enrollment_id)
    .where(passages.c.journey == _OF)
    .group_by(passages.c.step, passages.c.outcome)
)
_IN_VERSION = (
    select(_e.version, func.count())
    .where(_e.journey == _OF, _e.ended_at.is_(None))
    .group_by(_e.version)
)
_VERSIONS = (
    select(journey_versions.c.version, journey_versions.c.created_at)
    .where(journey_versions.c.journey == _OF)
    .order_by(journey_versions.c.created_at.desc(), journey_versions.c.version)
)
_LATEST_LAUNCHES = (
    select(launches.c.id, launches.c.audience, launches.c.people, launches.c.started_at)
    .where(launches.c.journey == _OF)
    .order_by(launches.c.started_at.desc(), launches.c.id)
    .limit(_LAUNCHES)
)
_AT_STEP = (
    select(_e.profile_id, _e.arrived_at, _e.due_at)
    .where(_e.journey == _OF, _e.step == bindparam("of_step"), _e.ended_at.is_(None))
    .order_by(_e.due_at, _e.id)
    .limit(_PEOPLE)
)
# What can be done in each state.
_ACTIONS: dict[str, tuple[Action, ...]] = {
    "running": ("pause", "stop"),
    "paused": ("resume", "stop"),
    "stopped": ("resume",),
}
_PAST: dict[str, StaffActName] = {"pause": "paused", "resume": "resumed", "stop": "stopped"}


def routes(site: Site) -> list[Route]:
    """`/journeys`; `/journeys/{name}` with `/people?step=`, `/stop` and `/control`."""
    return [
        Route("/journeys", site.endpoint("viewer", _list)),
        Route("/journeys/{name}", site.endpoint("viewer", _show)),
        Route("/journeys/{name}/people", site.endpoint("viewer", _people)),
        Route("/journeys/{name}/stop", site.endpoint("editor", _ask)),
        Route("/journeys/{name}/control", site.endpoint("editor", _control), methods=["POST"]),
    ]


def version_of(visit: Visit) -> Version:
    """The current version of the journey in the path. Raises SegueError if there is none."""
    segue, name = visit.segue, visit.request.path_params["name"]
    with segue.db.transaction(write=False) as tx:
        segue.catalog.catch_up(tx)
    return segue.catalog.journey(name)


def _list(visit: Visit) -> Response:
    segue = visit.segue
    with segue.db.transaction(write=False) as tx:
        states = held(tx)
        found = [
            (version.journey, states.get(name, "running"), summarise(tx, name))
            for name, version in sorted(segue.catalog.current.items())
        ]
    return visit.page("journeys", "Journeys", journeys=found)


def _show(visit: Visit) -> Response:
    segue, version = visit.segue, version_of(visit)
    journey = version.journey
    given = {"of_journey": journey.name}
    with segue.db.transaction(write=False) as tx:
        state = held(tx).get(journey.name, "running")
        summary = summarise(tx, journey.name)
        figures = _figures(tx, journey)
        too_large = journey.goal is not None and is_large(tx, journey.name)
        in_version = dict(tx.conn.execute(_IN_VERSION, given).tuples().all())
        versions = [
            (digest, at, in_version.get(digest, 0))
            for digest, at in tx.conn.execute(_VERSIONS, given)
        ]
        started = tx.conn.execute(_LATEST_LAUNCHES, given).all()
    experiments = [
        name for name, node in journey.graph.items() if isinstance(node.step, ExperimentStep)
    ]
    steps = shown_steps(journey.steps, figures)
    return visit.page(
        "journey",
        journey.name,
        journey=journey,
        state=state,
        actions=_ACTIONS[state],
        facts=_facts(journey),
        summary=summary,
        steps=steps,
        drawing=draw(journey.name, journey.entry.described, summary.entered, steps),
        too_large=LARGE if too_large else 0,
        version=version.digest,
        versions=versions,
        launches=started,
        experiments=experiments,
        prefect=visit.site.prefect,
    )


def _people(visit: Visit) -> Response:
    """Some of the people at a step, those who are due first first."""
    journey = visit.request.path_params["name"]
    step = visit.request.query_params.get("step", "")
    with visit.segue.db.transaction(write=False) as tx:
        given = {"of_journey": journey, "of_step": step}
        found = {row.profile_id: row for row in tx.conn.execute(_AT_STEP, given)}
        people = [(one, found[one.id]) for one in summaries(tx, list(found))]
    return visit.page(
        "step_people",
        f"At the step “{step}”",
        journey=journey,
        people=people,
        most=_PEOPLE,
        here="/journeys",
    )


def _figures(tx: Tx, journey: Journey) -> StepFigures:
    name = journey.name
    counts = count_journey(tx, name)
    sent: Counter[tuple[str, str, str]] = Counter()
    for step, channel, state, number in tx.conn.execute(_MESSAGES, {"of_journey": name}):
        sent[step, channel, _fate_of(state)] += int(number)
    converted = {}
    if journey.goal is not None and not is_large(tx, name):
        for step, outcome, people, number in tx.conn.execute(_CONVERTED, {"of_journey": name}):
            converted[step, outcome] = (people, number)
    return StepFigures(
        here=counts.here,
        left=counts.passed,
        messages=dict(sent.most_common()),
        converted=converted,
    )


def _fate_of(state: str) -> str:
    if state in HANDED_OVER:
        return "sent"
    return "planned" if state in AHEAD else "not sent"


def _facts(journey: Journey) -> list[tuple[str, str]]:
    """What holds for the whole journey, in words."""
    entry, again = journey.entry, journey.entry.again
    key = f", each {entry.key} apart" if isinstance(entry, EventEntry) and entry.key else ""
    if isinstance(again, After):
        often = f"again after {duration(again.after)}"
    else:
        often = {"once": "once", "always": "as often as it happens"}[again]
    facts = [("who enters", f"{entry.described}{key}"), ("how often", often)]
    if journey.exit_when is not None:
        facts.append(("leaves at once", in_words(journey.exit_when)))
    if (goal := journey.goal) is not None:
        since = "after entry" if goal.after == "entry" else "after a message"
        facts.append(("goal", f"{in_words(goal.did)}, within {duration(goal.within)} {since}"))
    return [*facts, ("topic", journey.topic), ("priority", f"{journey.priority} of 100")]


def _ask(visit: Visit) -> Response:
    journey = version_of(visit).journey.name
    with visit.segue.db.transaction(write=False) as tx:
        summary = summarise(tx, journey)
    return visit.page("stop_journey", f"Stop {journey}?", journey=journey, summary=summary)


def _control(visit: Visit) -> Response:
    journey, action = version_of(visit).journey.name, visit.form.get("action", "")
    with visit.segue.db.transaction(write=False) as tx:
        state = held(tx).get(journey, "running")
    if action not in _PAST:
        raise SegueError(f"{action!r} is no action; go back and try again")
    if action not in _ACTIONS[state]:  # somebody else was faster, or the form was sent twice
        return RedirectResponse(f"/journeys/{journey}", 303)
    past = _PAST[action]
    visit.record(past, about=journey)
    text = control_journey(visit.segue, journey, action) + "."
    back = f"/journeys/{journey}"
    return visit.page("done", f"{journey} is {past}", sentences=[text], back=back, here=back)
