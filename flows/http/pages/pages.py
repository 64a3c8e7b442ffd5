"""The routes of the customers' pages: one-click unsubscribe (RFC 8058), preferences, confirmation.

The signed token in the path is the only authority. There are no cookies, so another site cannot
forge a request. A GET never changes anything, because mail scanners follow every link.
"""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from config.database.failures import of_the_database, reason_of
from flows.http.body import read_form
from flows.http.context import Receiver
from flows.http.errors import Refusal
from flows.http.pages import confirm_page, preferences_page, unsubscribe_page
from flows.http.pages.form import Fields
from flows.http.pages.rendering import CustomerPages, page_templates

log = logging.getLogger(__name__)

# Tokens have about 100 characters, and more if the topic has a long name.
_LONGEST_TOKEN = 1000

_Answer = Callable[[CustomerPages], Response]


def router(receiver: Receiver) -> APIRouter:
    """`/u/{token}`, `/preferences/{token}` and `/confirm/{token}`."""
    brand_pages = CustomerPages(page_templates(receiver.segue.settings.brand))
    routes = APIRouter(
        tags=["customers"],
        default_response_class=HTMLResponse,
        responses={
            404: {"description": "The token is invalid."},
            410: {"description": "The profile of the link no longer exists, or the link expired."},
            413: {"description": "The form is larger than 64 KB."},
            500: {"description": "Internal error; the page asks to open the link again."},
            503: {"description": "Database error; nothing was changed."},
        },
    )

    def guarded(pages: CustomerPages, answer: _Answer) -> Response:
        try:
            return answer(pages)
        except Exception as error:
            log.error("a customer's page can't be served: %s", reason_of(error))
            _ = pages.texts.gettext
            failed = _("This did not work just now")
            if of_the_database(error):
                text = _("Nothing was changed. Please try again in a few minutes.")
                return pages.notice(503, failed, text)
            text = _("Please open the link again in a few minutes to see your current choices.")
            return pages.notice(500, failed, text)

    async def shown(token: str, request: Request, answer: _Answer) -> Response:
        pages = brand_pages.for_request(request.headers.get("accept-language", ""))
        if len(token) > _LONGEST_TOKEN:
            return pages.unknown()
        return await receiver.threads.run(guarded, pages, answer)

    async def posted(
        token: str, request: Request, answer: Callable[[CustomerPages, Fields], Response]
    ) -> Response:
        try:
            form = await read_form(request)
        except Refusal:
            pages = brand_pages.for_request(request.headers.get("accept-language", ""))
            _ = pages.texts.gettext
            return pages.notice(413, _("This is too long"), _("Nothing was changed."))
        return await shown(token, request, lambda pages: answer(pages, form))

    @routes.get("/u/{token}", summary="The page of an unsubscribe link")
    async def show_unsubscribe(token: str, request: Request) -> Response:
        """Show what the link stops, with a button that stops it. Changes nothing."""
        return await shown(
            token, request, lambda pages: unsubscribe_page.show(receiver, pages, token)
        )

    @routes.post(
        "/u/{token}", summary="Unsubscribe", openapi_extra=_takes("List-Unsubscribe", "One-Click")
    )
    async def unsubscribe(token: str, request: Request) -> Response:
        """Unsubscribe (RFC 8058). No redirect, no cookie; a repeated request changes nothing.

        Any body unsubscribes, except `action=undo` from the page itself.
        """
        return await posted(
            token, request, lambda pages, form: unsubscribe_page.act(receiver, pages, token, form)
        )

    @routes.get("/preferences/{token}", summary="The preference center")
    async def show_preferences(token: str, request: Request) -> Response:
        """Show the customer's choices as a form. Changes nothing."""
        return await shown(
            token, request, lambda pages: preferences_page.show(receiver, pages, token)
        )

    @routes.post(
        "/preferences/{token}",
        summary="Save the choices",
        openapi_extra=_takes("action", "stop"),
        responses={400: {"description": "A field has an error; the page names it."}},
    )
    async def save_preferences(token: str, request: Request) -> Response:
        """Save the changed fields of the form, or stop everything. Responds with the page.

        It does not redirect, because the status "Saved" would need a cookie or a URL of its own. A
        reload posts the same form again, which changes nothing.
        """
        return await posted(
            token, request, lambda pages, form: preferences_page.save(receiver, pages, token, form)
        )

    @routes.get("/confirm/{token}", summary="The page of a confirmation link")
    async def show_confirmation(token: str, request: Request) -> Response:
        """Show what the link confirms, with a button that confirms it. Changes nothing."""
        return await shown(token, request, lambda pages: confirm_page.show(receiver, pages, token))

    @routes.post(
        "/confirm/{token}", summary="Confirm a yes", openapi_extra=_takes("action", "confirm")
    )
    async def confirm(token: str, request: Request) -> Response:
        """Confirm the yes. A repeated request changes nothing."""
        return await posted(
            token, request, lambda pages, form: confirm_page.act(receiver, pages, token, form)
        )

    return routes


def _takes(field: str, value: str) -> dict[str, Any]:
    """The form's schema for OpenAPI."""
    schema = {"type": "object", "properties": {field: {"type": "string", "example": value}}}
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data")
    content = {kind: {"schema": schema} for kind in kinds}
    return {"requestBody": {"content": content}}
