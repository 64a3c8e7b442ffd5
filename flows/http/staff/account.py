"""The user's own page: the time zone in which they see times, and their password."""

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from config.access.staff_acts import record_act
from config.access.staff_users import set_timezone
from config.clock.zones import zone_names
from config.errors import SegueError
from flows.http.staff.site import Site, Visit
from flows.http.staff.words import sentence


def routes(site: Site) -> list[Route]:
    """`/account`."""
    return [
        Route("/account", site.endpoint("viewer", _show), methods=["GET"]),
        Route("/account", site.endpoint("viewer", _save), methods=["POST"]),
    ]


def _show(visit: Visit, error: str = "", chosen: str | None = None) -> Response:
    return visit.page(
        "account",
        visit.user.name,
        400 if error else 200,
        error=error,
        chosen=visit.user.timezone or "" if chosen is None else chosen,
        usual=visit.segue.policy.timezone,
        zones=sorted(zone_names()),
    )


def _save(visit: Visit) -> Response:
    chosen = visit.form.get("timezone", "").strip()[:100]
    try:
        with visit.segue.db.transaction() as tx:
            set_timezone(tx, visit.user.name, chosen or None)
            about = f"{visit.user.name}, {chosen or 'as the policy'}"
            record_act(tx, visit.user.name, "set a time zone", about=about)
    except SegueError as error:
        return _show(visit, sentence(str(error)), chosen)
    return RedirectResponse("/account", 303)
