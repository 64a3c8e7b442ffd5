"""The launches that asked for an approval: what each would do, and the decision about it."""

from collections.abc import Iterator, Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from config.errors import SegueError
from flows.approval import approve_launch, reject_launch
from flows.http.staff.site import Site, Visit
from journeys.launches.approvals import APPROVED, WAITING, all_approvals

_DECIDED = 20


def routes(site: Site) -> list[Route]:
    """`/approvals`, and its form."""
    return [
        Route("/approvals", site.endpoint("viewer", _list), methods=["GET"]),
        Route("/approvals", site.endpoint("editor", _decide), methods=["POST"]),
    ]


def _list(visit: Visit) -> Response:
    with visit.segue.db.transaction(write=False) as tx:
        now, rows = tx.now, all_approvals(tx)
    found = [(row, row.standing(now), list(_listed(row.summary))) for row in rows]
    return visit.page(
        "approvals",
        "Approvals",
        waiting=[one for one in found if one[1] == WAITING],
        decided=[one for one in reversed(found) if one[1] != WAITING][:_DECIDED],
    )


def _listed(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The result of a dry run: names and values."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in value.items())
        if value not in (None, ""):
            yield name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)


def _decide(visit: Visit) -> Response:
    """Approve or reject. Of several decisions the first one counts.

    The launch starts in a worker within a minute, so that no request waits for its audience.
    """
    segue, form = visit.segue, visit.form
    launch, by = form.get("launch", ""), visit.user.name
    if form.get("action") == "approve":
        verdict = approve_launch(segue, launch, by)
        if verdict.changed:
            visit.record("approved", about=launch)
        is_approved = verdict.row.state == APPROVED
        later = ["A worker starts it within two minutes."] if is_approved else []
        title = "Approved" if is_approved else "Not approved"
        return visit.page("done", title, sentences=[verdict.text, *later])
    if form.get("action") != "reject":
        raise SegueError("choose to approve or to reject")
    reason = form.get("reason", "").strip()
    if not reason:
        raise SegueError("say why you reject it; whoever launched it will read the reason")
    verdict = reject_launch(segue, launch, by, reason[:500])
    if verdict.changed:
        visit.record("rejected", about=launch)
    title = "Rejected" if verdict.changed else "Not rejected"
    return visit.page("done", title, sentences=[verdict.text])
