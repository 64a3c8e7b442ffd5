"""Start a journey now, later or regularly, try it, simulate it, and see its runs; by Prefect's API.

The page has each run's result in words, and links to its artifacts.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from config.access.staff_acts import StaffActName
from config.clock.times import Instant
from config.clock.zones import zone
from config.errors import SegueError
from flows.http.staff.journeys.journey import version_of
from flows.http.staff.site import Site, Visit
from flows.http.staff.words import sentence
from flows.launch import MOST_PEOPLE
from flows.orchestration.api.prefect_runs import PrefectRuns
from flows.orchestration.names import SIMULATION

_DAYS = 30
# How often a run repeats, with the parts of its cron line after minute and hour.
_REPEATS = {"once": "", "daily": "* * *", "weekly": "* * {weekday}"}
_ACTS: dict[str, StaffActName] = {
    "try": "tried a launch",
    "start": "launched",
    "simulate": "simulated",
    "schedule": "scheduled",
}


def routes(site: Site) -> list[Route]:
    """`/journeys/{name}/runs`, with `/start`, `/unschedule` and `/cancel`."""
    return [
        Route("/journeys/{name}/runs", site.endpoint("viewer", _show)),
        Route("/journeys/{name}/start", site.endpoint("editor", _start), methods=["POST"]),
        Route(
            "/journeys/{name}/unschedule", site.endpoint("editor", _unschedule), methods=["POST"]
        ),
        Route("/journeys/{name}/cancel", site.endpoint("editor", _cancel), methods=["POST"]),
    ]


def _runs(visit: Visit) -> PrefectRuns:
    return PrefectRuns(visit.segue.settings, visit.site.prefect)


def _show(visit: Visit, error: str = "") -> Response:
    journey = version_of(visit).journey
    found, status = None, 400 if error else 200
    try:
        found = _runs(visit).of_journey(journey.name)
    except SegueError as fault:
        error, status = error or sentence(str(fault)), 503
    return visit.page(
        "runs",
        f"Start {journey.name}",
        status,
        journey=journey,
        found=found,
        error=error,
        form=visit.form,
        segments=list(visit.segue.catalog.segments.values()),
        most=MOST_PEOPLE,
        days=_DAYS,
        # A form that is sent twice starts one run.
        key=str(uuid.uuid4()),
        here="/journeys",
    )


def _start(visit: Visit) -> Response:
    journey, form = version_of(visit).journey.name, visit.form
    try:
        action = form.get("action", "")
        if action not in _ACTS:
            raise SegueError("choose what to do with one of the buttons")
        audience = _audience(visit)
        limit = _limit(form.get("limit", ""))
        # The same form may be used again for something else.
        sent = ("key", "action", "audience", "limit", "at", "repeats")
        key = sha256("\n".join(form.get(one, "") for one in sent).encode()).hexdigest()
        runs = _runs(visit)
        visit.record(_ACTS[action], about=f"{journey}: {audience}")
        if action == "simulate":
            asked: dict[str, Any] = {"journey": journey, "audience": audience, "days": _DAYS}
            runs.start(SIMULATION, asked | {"limit": limit}, key)
        else:
            asked = {"audience": audience, "limit": limit, "dry_run": action == "try"}
            _by_schedule(visit, runs, asked, key, action == "schedule")
    except SegueError as error:
        return _show(visit, sentence(str(error)))
    return RedirectResponse(f"/journeys/{journey}/runs", 303)


def _by_schedule(
    visit: Visit, runs: PrefectRuns, asked: Mapping[str, Any], key: str, later: bool
) -> None:
    """Start a run now, or at the time and as often as the form says."""
    journey, form = visit.request.path_params["name"], visit.form
    if not later:
        runs.start(journey, asked, key)
        return
    repeats = form.get("repeats", "once")
    if repeats not in _REPEATS:
        raise SegueError(f"choose how often: {', '.join(_REPEATS)}")
    at = _time(visit, form.get("at", ""))
    if repeats == "once":
        with visit.segue.db.transaction(write=False) as tx:
            if at <= tx.now:
                raise SegueError("this time is past; choose a later one")
        runs.start(journey, asked, key, at)
        return
    local = datetime.fromtimestamp(at, zone(visit.zone))
    days = _REPEATS[repeats].format(weekday=local.strftime("%a").lower())
    runs.schedule(journey, asked, f"{local.minute} {local.hour} {days}", visit.zone, key)


def _unschedule(visit: Visit) -> Response:
    return _change(visit, "removed a schedule", _runs(visit).remove_schedule)


def _cancel(visit: Visit) -> Response:
    return _change(visit, "cancelled a run", _runs(visit).cancel)


def _change(visit: Visit, act: StaffActName, change: Any) -> Response:
    journey = version_of(visit).journey.name
    try:
        visit.record(act, about=journey)
        change(journey, visit.form.get("id", "")[:60])
    except SegueError as error:
        return _show(visit, sentence(str(error)))
    return RedirectResponse(f"/journeys/{journey}/runs", 303)


def _audience(visit: Visit) -> str:
    audience = visit.form.get("audience", "")
    return visit.segue.catalog.segment(audience).name


def _limit(text: str) -> int:
    text = text.strip() or "0"
    if not (text.isascii() and text.isdecimal()) or int(text) > MOST_PEOPLE:
        raise SegueError(f"{text!r} is no number of people; use up to {MOST_PEOPLE:,}, or leave it")
    return int(text)


def _time(visit: Visit, text: str) -> Instant:
    """The time of a form, by the user's clock. Raises SegueError."""
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        local = None
    if local is None or local.tzinfo is not None:
        raise SegueError("choose a day and a time, such as 2026-03-02T09:00")
    here = zone(visit.zone)
    at = int(local.replace(tzinfo=here).timestamp())
    if datetime.fromtimestamp(at, here).replace(tzinfo=None) != local:
        raise SegueError(f"this time does not exist in {visit.zone}: the clocks are put forward")
    return at
