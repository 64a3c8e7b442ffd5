"""The customer's own pages: one-click unsubscribe (RFC 8058), and what they want to get and when.

The signed token in the address is the only authority, so there are no cookies and nothing that
another site could forge. A GET never changes anything: mail scanners follow every link.
"""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.types import Message

from config.failures import of_the_database, told
from flows.http.body import KB, read_posted
from flows.http.context import Receiver
from flows.http.errors import Refusal
from flows.http.pages import confirm_page, preferences_page, unsubscribe_page
from flows.http.pages.form import Fields
from flows.http.pages.rendering import CustomerPages

log = logging.getLogger(__name__)

_LONGEST_FORM = 64 * KB
# For multipart Starlette takes any codec of Python's that the client names, and some of these
# (punycode) take quadratic time.
_CHARSETS = (b"utf-8", b"us-ascii", b"iso-8859-1", b"windows-1252")
# A token of ours has about 100 characters, more where the topic has a long name.
_LONGEST_TOKEN = 1000
_TROUBLE = "This did not work just now"


def router(receiver: Receiver) -> APIRouter:
    """`/u/{token}`, `/preferences/{token}` and `/confirm/{token}`."""
    pages = CustomerPages(receiver.segue.settings.brand)
    routes = APIRouter(
        tags=["customers"],
        default_response_class=HTMLResponse,
        responses={
            404: {"description": "The token is not one of ours."},
            410: {"description": "Whom it was made for is not on record any more."},
            413: {"description": "The form is longer than 64 KB."},
            500: {"description": "Our fault; the page asks to look again."},
            503: {"description": "The database does not answer; nothing was changed."},
        },
    )

    def guarded(answer: Callable[[], Response]) -> Response:
        try:
            return answer()
        except Exception as error:
            log.error("a customer's page can't be served: %s", told(error))
            if of_the_database(error):
                words = "Nothing was changed. Please try again in a few minutes."
                return pages.notice(503, _TROUBLE, words)
            words = "Please open the link again in a few minutes: it shows how things are then."
            return pages.notice(500, _TROUBLE, words)

    async def shown(token: str, answer: Callable[[], Response]) -> Response:
        if len(token) > _LONGEST_TOKEN:
            return pages.unknown()
        return await receiver.threads.run(guarded, answer)

    async def posted(
        token: str, request: Request, answer: Callable[[Fields], Response]
    ) -> Response:
        try:
            form = await _read_form(request)
        except Refusal:
            return pages.notice(413, "This is too long", "Nothing was changed.")
        return await shown(token, lambda: answer(form))

    @routes.get("/u/{token}")
    async def show_unsubscribe(token: str) -> Response:
        """What the link stops, with a button that does it. Changes nothing."""
        return await shown(token, lambda: unsubscribe_page.show(receiver, pages, token))

    @routes.post("/u/{token}", openapi_extra=_takes("List-Unsubscribe", "One-Click"))
    async def unsubscribe(token: str, request: Request) -> Response:
        """Unsubscribe at once (RFC 8058): no redirect, no cookie, and once more changes nothing.

        Whatever the body says, it is a no, unless it is `action=undo` of the page itself.
        """
        return await posted(
            token, request, lambda form: unsubscribe_page.act(receiver, pages, token, form)
        )

    @routes.get("/preferences/{token}")
    async def show_preferences(token: str) -> Response:
        """What somebody gets, how often and when, as a form. Changes nothing."""
        return await shown(token, lambda: preferences_page.show(receiver, pages, token))

    @routes.post(
        "/preferences/{token}",
        openapi_extra=_takes("action", "stop"),
        responses={400: {"description": "Something can't be saved; the page says what."}},
    )
    async def save_preferences(token: str, request: Request) -> Response:
        """Save what was changed on the form, or stop everything; answers with the page.

        There is no redirect after it: that could carry "saved" only in a cookie, or in an address
        that would say so for ever. And the same form again, by a reload, changes nothing.
        """
        return await posted(
            token, request, lambda form: preferences_page.save(receiver, pages, token, form)
        )

    @routes.get("/confirm/{token}")
    async def show_confirmation(token: str) -> Response:
        """What the link confirms, with a button that does it. Changes nothing."""
        return await shown(token, lambda: confirm_page.show(receiver, pages, token))

    @routes.post("/confirm/{token}", openapi_extra=_takes("action", "confirm"))
    async def confirm(token: str, request: Request) -> Response:
        """The yes counts from now on; once more changes nothing."""
        return await posted(
            token, request, lambda form: confirm_page.act(receiver, pages, token, form)
        )

    return routes


async def _read_form(request: Request) -> Fields:
    """A form of either kind; empty when it can't be read. Raises Refusal when it is too long."""
    body = await read_posted(request, _LONGEST_FORM)

    async def again() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    kind, options = parse_options_header(request.headers.get("content-type"))
    charset = options.get(b"charset", b"utf-8").lower()
    if kind == b"multipart/form-data" and charset not in _CHARSETS:
        return {}
    try:
        async with Request(request.scope, again).form(max_files=0) as form:
            return {name: value for name, value in form.items() if isinstance(value, str)}
    except HTTPException:
        return {}


def _takes(field: str, value: str) -> dict[str, Any]:
    """How the description of the API shows a form."""
    schema = {"type": "object", "properties": {field: {"type": "string", "example": value}}}
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data")
    content = {kind: {"schema": schema} for kind in kinds}
    return {"requestBody": {"content": content}}
