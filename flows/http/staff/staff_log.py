"""For admins: the users of the site, and the log of what they looked at and did."""

from starlette.responses import Response
from starlette.routing import Route

from config.access.staff_acts import latest_acts
from config.access.staff_users import list_users
from flows.http.staff.site import Site, Visit

_ON_A_PAGE = 100


def routes(site: Site) -> list[Route]:
    """`/staff`: the users, and the log with `?before=` for older acts."""
    return [Route("/staff", site.endpoint("admin", _show))]


def _show(visit: Visit) -> Response:
    text = visit.request.query_params.get("before", "")
    before = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
    with visit.segue.db.transaction(write=False) as tx:
        users = list_users(tx)
        acts = list(latest_acts(tx, _ON_A_PAGE + 1, before))
    shown = acts[:_ON_A_PAGE]
    older = shown[-1].id if len(acts) > _ON_A_PAGE else None
    return visit.page("staff", "Staff and log", users=users, acts=shown, older=older)
