"""`/openapi.json`: the description of the receiver's API; `/docs`: the same as a page.

Both are built once. The page loads nothing from other sites, so it works without internet access,
and no foreign script runs on the origin of the customers' pages.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response

from flows.http.context import Receiver
from flows.http.errors import problem_schemas
from flows.http.pages.rendering import CustomerPages, page_templates


def router(receiver: Receiver) -> APIRouter:
    """`/openapi.json` and `/docs`."""
    pages = CustomerPages(page_templates(receiver.segue.settings.brand))
    routes = APIRouter()

    @cache
    def description(app: FastAPI) -> bytes:
        found = app.openapi()
        found["components"]["schemas"] |= problem_schemas()
        return orjson.dumps(found)

    @cache
    def page(app: FastAPI) -> Response:
        operations = [
            _operation(path, method, operation)
            for path, methods in app.openapi()["paths"].items()
            for method, operation in methods.items()
        ]
        return pages.page("reference", {"title": "HTTP API", "operations": operations})

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        """The OpenAPI description of every path."""
        return Response(description(request.app), media_type="application/json")

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        """A page with every path, an example and its responses."""
        return page(request.app)

    return routes


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    example = content.get("application/json", {}).get("example")
    printed = (
        None if example is None else orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()
    )
    return {
        "path": path,
        "method": method.upper(),
        "summary": operation.get("summary", ""),
        "paragraphs": operation.get("description", "").split("\n\n"),
        "headers": [
            {"name": one["name"], "about": one.get("description", "")}
            for one in operation.get("parameters", [])
            if one["in"] == "header"
        ],
        "example": printed,
        "responses": [
            {"status": status, "about": one.get("description", "")}
            for status, one in operation.get("responses", {}).items()
        ],
    }
