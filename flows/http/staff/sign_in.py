"""Signing in with a name and a password, signing out, and choosing a password."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from config.access.staff_acts import record_act
from config.access.staff_sessions import LASTS, end_session, end_sessions, start_session
from config.access.staff_users import (
    knows_password,
    password_fault,
    set_password,
    stored_hash,
    user_named,
)
from flows.http.body import read_form
from flows.http.errors import Refusal
from flows.http.limits.clients import client_of
from flows.http.limits.work import Threads
from flows.http.staff.site import Site, Visit

log = logging.getLogger(__name__)

# A check of a password takes a third of a second of CPU, so few are made at a time.
_AT_ONCE = 16
_OF_ONE_CLIENT = 3
_WRONG = "The name or the password is wrong."
_BUSY = "Too many people sign in at the moment. Please try again in a few seconds."


def routes(site: Site) -> list[Route]:
    """`/sign-in`, `/sign-out` and `/password`."""
    checks = _Checks()

    async def sign_in(request: Request) -> Response:
        if site.has_proxy_login:
            return RedirectResponse("/", 303)
        if request.method != "POST":
            return _form(site, request.query_params.get("next", ""))
        # Browsers send it with every POST, and OwnPagesOnly has compared it.
        if "origin" not in request.headers:
            return site.pages.notice(403, "This form is not ours", "Please open this site anew.")
        try:
            form = await read_form(request)
            with checks.one(client_of(_host(request))):
                token = await checks.threads.run(_session, site, form)
            if token is None:
                await site.guesses.wrong(_host(request))
        except Refusal as refusal:
            return _form(site, "", _BUSY, status=refusal.status)
        except DBAPIError as error:
            return site.failed(error)
        wanted = form.get("next", "")
        if token is None:
            log.warning("failed to sign in to the staff site from %s", _host(request))
            return _form(site, wanted, _WRONG, name=form.get("name", ""), status=403)
        return _with_session(site, token, _local(wanted))

    return [
        Route("/sign-in", sign_in, methods=["GET", "POST"]),
        Route("/sign-out", site.endpoint("viewer", _sign_out), methods=["POST"]),
        Route("/password", site.endpoint("viewer", _password), methods=["GET", "POST"]),
    ]


class _Checks:
    """The checks of passwords that wait for their turn or are being made."""

    def __init__(self) -> None:
        self.threads = Threads(1, "sign-in")
        self._of_client: Counter[str] = Counter()

    @contextmanager
    def one(self, client: str) -> Iterator[None]:
        """Count one check. Raises Refusal (429) if too many wait."""
        if self._of_client[client] >= _OF_ONE_CLIENT or self._of_client.total() >= _AT_ONCE:
            raise Refusal(429, "too_many", _BUSY)
        self._of_client[client] += 1
        try:
            yield
        finally:
            self._of_client[client] -= 1
            self._of_client += Counter()  # drops the zeros


def _host(request: Request) -> str:
    return request.client.host if request.client else ""


def _form(
    site: Site, wanted: str, error: str = "", *, name: str = "", status: int = 200
) -> Response:
    values = {"title": "Sign in", "visit": None, "wanted": wanted, "error": error, "name": name}
    return site.pages.page("sign_in", values, status)


def _session(site: Site, form: dict[str, str]) -> str | None:
    """Check the password; returns the token of a new session, or None."""
    name = form.get("name", "").strip().lower()
    with site.segue.db.transaction(write=False) as tx:
        hashed = stored_hash(tx, name)
    if not knows_password(hashed, form):
        return None
    with site.segue.db.transaction() as tx:
        if user_named(tx, name) is None:  # removed meanwhile
            return None
        record_act(tx, name, "signed in")
        return start_session(tx, name)


def _with_session(site: Site, token: str, path: str) -> Response:
    """Go to a path with the cookie of a new session."""
    response = RedirectResponse(path, 303)
    response.set_cookie(
        site.cookie, token, max_age=LASTS, secure=site.is_secure, httponly=True, samesite="lax"
    )
    return response


def _local(path: str) -> str:
    """A path of this site; `/` for anything that leads to another one."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _sign_out(visit: Visit) -> Response:
    token = visit.request.cookies.get(visit.site.cookie, "")
    with visit.segue.db.transaction() as tx:
        end_session(tx, token)
        record_act(tx, visit.user.name, "signed out")
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(visit.site.cookie, secure=visit.site.is_secure, httponly=True)
    return response


def _password(visit: Visit) -> Response:
    if visit.by_proxy:
        return visit.notice(404, "There are no passwords", "Your company’s sign-in has yours.")
    if visit.request.method != "POST":
        return visit.page("password", "Choose a password", error="")
    chosen = visit.form.get("new", "")
    with visit.segue.db.transaction(write=False) as tx:
        hashed = stored_hash(tx, visit.user.name)
    error = ""
    if not knows_password(hashed, visit.form):
        error = "The password of now is wrong."
    elif chosen != visit.form.get("again", ""):
        error = "The two new passwords are not the same."
    elif chosen == visit.form.get("password"):
        error = "The new password is the one of now."
    elif fault := password_fault(chosen):
        error = fault[:1].upper() + fault[1:] + "."
    if error:
        return visit.page("password", "Choose a password", 400, error=error)
    with visit.segue.db.transaction() as tx:
        set_password(tx, visit.user.name, chosen, one_time=False)
        end_sessions(tx, visit.user.name)
        record_act(tx, visit.user.name, "changed the password")
        token = start_session(tx, visit.user.name)
    return _with_session(visit.site, token, "/")
