"""`/openapi.json`: the description of the receiver's API; `/docs`: the same as a page.

The page has contents, how to sign in, and an example of each call.

Both are built once. The page loads nothing from other sites, so it works without internet access,
and no foreign script runs on the origin of the customers' pages.
"""

import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter, FastAPI, Request, Response

from flows.http.context import Receiver
from flows.http.errors import problem_schemas
from flows.http.pages.rendering import CustomerPages, page_templates


class _Section(NamedTuple):
    """The operations with a tag. about: for the description and the page."""

    tag: str
    title: str
    about: str


_SECTIONS = (
    _Section(
        "segment",
        "Events and customers",
        "The HTTP tracking API of Segment: its clients and those of RudderStack work after you "
        "change their host. Sign in with a write key.",
    ),
    _Section(
        "consent",
        "Consent",
        "A yes or a no with its wording and evidence. Sign in with a server key.",
    ),
    _Section(
        "profiles",
        "Profiles",
        "What is known of a customer, for systems that face them. Sign in with a server key.",
    ),
    _Section("journeys", "Journeys", "Start a journey for named customers. Each call is signed."),
    _Section(
        "providers",
        "Webhooks of providers",
        "What SendGrid, Twilio and Postmark call. SendGrid and Twilio sign each call; Postmark has "
        "a user name and a password in its URL.",
    ),
    _Section(
        "customers",
        "Pages of customers",
        "What the links in messages open. The token in the path is the key.",
    ),
    _Section(
        "operations", "Operations", "For load balancers and monitoring. Not for the internet."
    ),
)
_KEY = "$SEGUE_WRITE_KEY"


def describe(app: FastAPI, public_url: str) -> dict[str, Any]:
    """The OpenAPI 3.1 description of an application. public_url: where clients reach it."""
    found = app.openapi()
    found["components"]["schemas"] |= problem_schemas()
    found["servers"] = [{"url": public_url}]
    found["tags"] = [{"name": one.tag, "description": one.about} for one in _SECTIONS]
    return found


def router(receiver: Receiver) -> APIRouter:
    """`/openapi.json` and `/docs`."""
    settings = receiver.segue.settings
    pages = CustomerPages(page_templates(settings.brand))
    routes = APIRouter()

    @cache
    def description(app: FastAPI) -> dict[str, Any]:
        return describe(app, settings.public_url)

    @cache
    def as_json(app: FastAPI) -> bytes:
        return orjson.dumps(description(app))

    @cache
    def page(app: FastAPI) -> Response:
        values = {
            "title": "HTTP API",
            "url": settings.public_url.rstrip("/"),
            "sections": _sections(description(app)),
        }
        return pages.page("reference", values)

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        """The OpenAPI description of every path."""
        return Response(as_json(request.app), media_type="application/json")

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        """A page with contents, how to sign in, and every path with an example."""
        return page(request.app)

    return routes


def _sections(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sections of the page, each with its operations."""
    url = description["servers"][0]["url"].rstrip("/")
    by_tag: dict[str, list[dict[str, Any]]] = {one.tag: [] for one in _SECTIONS}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            [tag] = operation["tags"]
            by_tag[tag].append(_operation(url, path, method, operation))
    return [
        {"id": one.tag, "title": one.title, "about": one.about, "operations": by_tag[one.tag]}
        for one in _SECTIONS
        if by_tag[one.tag]
    ]


def _operation(url: str, path: str, method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    example = content.get("application/json", {}).get("example")
    printed = (
        None if example is None else orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()
    )
    return {
        "id": operation["operationId"],
        "path": path,
        "method": method.upper(),
        "summary": operation.get("summary", ""),
        "paragraphs": [one for one in operation.get("description", "").split("\n\n") if one],
        "parameters": [
            {"name": one["name"], "about": one.get("description", "")}
            for one in operation.get("parameters", [])
            if one["in"] in ("header", "query")
        ],
        # A signed call has an example in the text on how to sign in.
        "curl": _curl(url + path, operation, example) if operation.get("security") else None,
        "example": printed,
        "responses": [
            {"status": status, "about": one.get("description", "")}
            for status, one in operation.get("responses", {}).items()
        ],
    }


def _curl(url: str, operation: Mapping[str, Any], example: Any) -> str:
    """The call with curl, for a shell in which the variable of the key is set.

    example: the body; None: the call has none, and its parameters have examples.
    """
    shown = [one for one in operation.get("parameters", []) if "example" in one]
    for one in shown:
        url = url.replace(f"{{{one['name']}}}", str(one["example"]))
    query = "&".join(f"{o['name']}={','.join(o['example'])}" for o in shown if o["in"] == "query")
    asked = f'curl {shlex.quote(f"{url}?{query}" if query else url)} -u "{_KEY}:"'
    return (
        asked
        if example is None
        else f"{asked} \\\n  -d {shlex.quote(orjson.dumps(example).decode())}"
    )
