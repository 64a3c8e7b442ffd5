"""What every page of the staff site uses: who asks, what they may do, and the answer to errors."""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from config.access.staff_acts import StaffActName, record_act
from config.access.staff_sessions import session_user
from config.access.staff_users import Role, StaffUser, user_named
from config.database.failures import of_the_database, reason_of
from config.errors import SegueError
from flows.app import Segue
from flows.http.body import read_form
from flows.http.errors import Refusal
from flows.http.limits.guessing import Guesses
from flows.http.limits.work import Threads
from flows.http.staff.rendering import StaffPages
from flows.http.staff.words import sentence

log = logging.getLogger(__name__)

# Threads that read the database for pages.
_THREADS = 4
# The address of the connection, before X-Forwarded-For replaces it in scope["client"].
PEER = "segue.peer"
StaffEndpoint = Callable[[Request], Awaitable[Response]]


class SignedIn(NamedTuple):
    """A user, and the secret of the session, which the tokens of forms are derived from.

    by_proxy: a proxy has signed the user in, so there is no session.
    """

    user: StaffUser
    secret: str
    by_proxy: bool


class Visit(NamedTuple):
    """One request of a user. form: the fields of a POST. token: of the forms on the page."""

    site: "Site"
    request: Request
    user: StaffUser
    token: str
    form: Mapping[str, str]
    by_proxy: bool

    @property
    def segue(self) -> Segue:
        return self.site.segue

    @property
    def zone(self) -> str:
        """The user's time zone, an IANA name."""
        return self.user.timezone or self.segue.policy.timezone

    def page(self, template: str, title: str, status: int = 200, **values: Any) -> Response:
        """Render a template; `here` is the section that the navigation marks."""
        given = {"here": self.request.url.path, **values, "title": title, "visit": self}
        return self.site.pages.page(template, given, status, zone=self.zone)

    def notice(self, status: int, title: str, *paragraphs: str) -> Response:
        """A page with text only, under the navigation."""
        return self.page("notice", title, status, paragraphs=paragraphs)

    def record(self, act: StaffActName, *, profile_id: int | None = None, about: str = "") -> None:
        """Record what the user does in the log, in a transaction of its own."""
        with self.segue.db.transaction() as tx:
            record_act(tx, self.user.name, act, profile_id=profile_id, about=about)


class Site:
    """The staff site of one installation."""

    def __init__(self, segue: Segue, guesses: Guesses) -> None:
        self.segue = segue
        self.pages = StaffPages(segue.settings.brand, segue.policy.timezone)
        self.guesses = guesses
        self.threads = Threads(_THREADS, "staff")
        self.is_secure = segue.settings.staff_url.startswith("https://")
        # With this prefix browsers take the cookie from this host only (RFC 6265bis).
        self.cookie = "__Host-segue-staff" if self.is_secure else "segue-staff"

    @property
    def prefect(self) -> str:
        """The URL of Prefect's UI. On a server of one's own the API's is the same with /api."""
        settings = self.segue.settings
        url = settings.prefect_api_url or f"{settings.prefect_url}/api"
        return url.removesuffix("/api") if url.endswith("/api") else "https://app.prefect.cloud"

    @property
    def has_proxy_login(self) -> bool:
        """Whether a proxy signs users in, so that there are no passwords."""
        return bool(self.segue.settings.staff_login_header)

    def endpoint(self, role: Role, answer: Callable[[Visit], Response]) -> StaffEndpoint:
        """An endpoint for users with a role: `answer` runs in a thread."""

        async def respond(request: Request) -> Response:
            try:
                form = await read_form(request) if request.method == "POST" else {}
            except Refusal:
                return self.pages.notice(413, "This is too long", "Nothing was changed.")
            return await self.threads.run(self._respond, request, form, role, answer)

        return respond

    def _respond(
        self,
        request: Request,
        form: Mapping[str, str],
        role: Role,
        answer: Callable[[Visit], Response],
    ) -> Response:
        notice = self.pages.notice
        try:
            who = self.signed_in(request)
            if who is None:
                return self._to_sign_in(request)
            token = self.form_token(who.secret)
            visit = Visit(
                site=self,
                request=request,
                user=who.user,
                token=token,
                form=form,
                by_proxy=who.by_proxy,
            )
            notice = visit.notice
            return self._refusal(visit, role) or answer(visit)
        except SegueError as error:
            return notice(400, "This can’t be done", sentence(str(error)))
        except Exception as error:
            return self.failed(error)

    def failed(self, error: Exception) -> Response:
        """The page for an unexpected error, which is logged."""
        log.error("a page of the staff site can't be served: %s", reason_of(error))
        if of_the_database(error):
            text = "The database does not answer. Please try again in a few minutes."
            return self.pages.notice(503, "Not now", text)
        text = "The log of the staff site has the reason. Please go back and try again."
        return self.pages.notice(500, "This did not work", text)

    def _refusal(self, visit: Visit, role: Role) -> Response | None:
        request = visit.request
        sent = visit.form.get("token", "").encode()
        if request.method == "POST" and not hmac.compare_digest(sent, visit.token.encode()):
            text = "Nothing was changed. Please go back, reload the page and try again."
            return visit.notice(403, "This form is from another session", text)
        if not visit.user.may(role):
            text = (
                f"This needs the role {role}; yours is {visit.user.role}. An admin can change it: "
                "segue staff role."
            )
            return visit.notice(403, "You may not do this", text)
        is_theirs = request.url.path in ("/password", "/sign-out")
        if visit.user.is_one_time and not visit.by_proxy and not is_theirs:
            return RedirectResponse("/password", 303)
        return None

    def _to_sign_in(self, request: Request) -> Response:
        if self.has_proxy_login:
            text = "Open this site through your company’s sign-in. If you did, ask an admin to add "
            return self.pages.notice(403, "You are not signed in", f"{text}you to the staff.")
        path = request.url.path
        wanted = f"?{request.url.query}" if request.url.query else ""
        back = urlencode({"next": path + wanted}) if request.method == "GET" and path != "/" else ""
        return RedirectResponse(f"/sign-in?{back}" if back else "/sign-in", 303)

    def signed_in(self, request: Request) -> SignedIn | None:
        """Who sends a request; None: nobody who is known."""
        if self.has_proxy_login:
            name = self._named_by_proxy(request)
            with self.segue.db.transaction(write=False) as tx:
                user = user_named(tx, name) if name else None
            return None if user is None else SignedIn(user, f"proxy:{user.name}", by_proxy=True)
        token = request.cookies.get(self.cookie, "")
        if not token:
            return None
        with self.segue.db.transaction(write=False) as tx:
            user = session_user(tx, token)
        return None if user is None else SignedIn(user, token, by_proxy=False)

    def _named_by_proxy(self, request: Request) -> str | None:
        """The user whom a trusted proxy names in its header, once."""
        settings = self.segue.settings
        names = request.headers.getlist(settings.staff_login_header)
        try:
            peer = ip_address(request.scope.get(PEER) or "")
        except ValueError:
            return None
        trusted = any(peer in network for network in settings.staff_login_proxies)
        return names[0].strip() if trusted and len(names) == 1 else None

    def form_token(self, secret: str) -> str:
        """The token that the forms of a session carry, against requests of other sites."""
        key = self.segue.settings.secret_key.get_secret_value().encode()
        return hmac.new(key, f"staff form:{secret}".encode(), sha256).hexdigest()
