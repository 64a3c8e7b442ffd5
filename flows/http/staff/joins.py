"""Undo a join: what would go to whom, and the form that does it."""

from starlette.responses import Response
from starlette.routing import Route

from flows.http.staff.site import Site, Visit
from journeys.operations.unmerge import preview_undo, unmerge


def routes(site: Site) -> list[Route]:
    """`/joins/{id}`: a preview, and its form."""
    return [
        Route("/joins/{id:int}", site.endpoint("viewer", _preview), methods=["GET"]),
        Route("/joins/{id:int}", site.endpoint("editor", _undo), methods=["POST"]),
    ]


def _number(visit: Visit) -> int:
    number: int = visit.request.path_params["id"]
    return number if number < 2**62 else 0


def _preview(visit: Visit) -> Response:
    with visit.segue.db.transaction(write=False) as tx:
        found = preview_undo(tx, _number(visit))
    visit.record("looked at a customer", profile_id=found.holder)
    return visit.page("join", f"Undo join {found.join}", found=found)


def _undo(visit: Visit) -> Response:
    segue = visit.segue
    with segue.db.transaction() as tx:
        done = unmerge(tx, _number(visit), segue.rules, f"staff: {visit.user.name}")
    visit.record("undid a join", profile_id=done.leaves, about=f"join {done.join}")
    sentences = [
        f"Customers {done.holder} and {done.leaves} are two again.",
        "What either of them refused holds for both. Calls do not join them again.",
    ]
    return visit.page("done", f"Join {done.join} is undone", sentences=sentences)
