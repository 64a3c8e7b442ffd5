"""The first page: what runs, what went out, what is due and why not now; stop everything."""

from starlette.responses import Response
from starlette.routing import Route

from flows.http.staff.site import Site, Visit
from flows.orchestration.journey_controls import control_journey
from journeys.explain.today import today
from journeys.operations.control import held
from journeys.operations.doctor import WAIT_FOR_APPROVAL, diagnose


def routes(site: Site) -> list[Route]:
    """`/`, and `/stop`, which asks before it pauses or stops every journey."""
    return [
        Route("/", site.endpoint("viewer", _show)),
        Route("/stop", site.endpoint("editor", _ask), methods=["GET"]),
        Route("/stop", site.endpoint("editor", _stop), methods=["POST"]),
    ]


def _show(visit: Visit) -> Response:
    segue = visit.segue
    with segue.db.transaction(write=False) as tx:
        now = tx.now
        found = today(tx, segue.catalog.current, segue.policy.timezone)
        findings = diagnose(tx)
    return visit.page(
        "today",
        "Today",
        now=now,
        today=found,
        findings=findings,
        approval=WAIT_FOR_APPROVAL,
        held=[one for one in found.journeys if one.state != "running"],
    )


def _running(visit: Visit) -> list[str]:
    with visit.segue.db.transaction(write=False) as tx:
        states = held(tx)
    return [name for name in sorted(visit.segue.catalog.current) if name not in states]


def _ask(visit: Visit) -> Response:
    return visit.page("stop", "Stop everything?", journeys=_running(visit), here="/")


def _stop(visit: Visit) -> Response:
    """Pause every journey, which takes effect at once; then, if that is wanted, stop them."""
    journeys = _running(visit)
    for name in journeys:
        visit.record("paused", about=name)
        control_journey(visit.segue, name, "pause")
    if visit.form.get("action") != "stop":
        text = "Nothing moves and nothing is sent until you resume a journey."
        return visit.page("done", "Every journey is paused", sentences=[text], here="/")
    sentences = []
    for name in journeys:
        visit.record("stopped", about=name)
        sentences.append(control_journey(visit.segue, name, "stop") + ".")
    return visit.page("done", "Every journey is stopped", sentences=sentences, here="/")
