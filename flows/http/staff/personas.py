"""The personas: their people, who moved between them by month, and which journeys speak to whom."""

from starlette.responses import Response
from starlette.routing import Route

from flows.http.staff.site import Site, Visit
from journeys.operations.personas import moves, persona_views


def routes(site: Site) -> list[Route]:
    """`/personas`."""
    return [Route("/personas", site.endpoint("viewer", _show))]


def _show(visit: Visit) -> Response:
    segue = visit.segue
    with segue.db.transaction(write=False) as tx:
        found = persona_views(tx, segue.catalog.personas)
        moved = moves(tx)
    return visit.page("personas", "Personas", personas=found, moves=moved)
