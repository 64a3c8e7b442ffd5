"""`/docs`: the OpenAPI description as a page to read.

It loads nothing from anywhere, so it is there without the internet, and no stranger's script runs
beside customers' pages.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from flows.receiver.context import Receiver
from flows.receiver.rendering import Pages


def router(receiver: Receiver) -> APIRouter:
    """The one page."""
    pages = Pages(receiver.segue.settings.brand)
    routes = APIRouter()

    @routes.get("/docs", include_in_schema=False)
    def docs(request: Request) -> Response:
        """Every path, with an example and its answers."""
        paths = request.app.openapi()["paths"]
        described = [
            _described(path, method, operation)
            for path, operations in paths.items()
            for method, operation in operations.items()
        ]
        return pages.page("reference", {"title": "HTTP API", "operations": described})

    return routes


def _described(path: str, method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    example = content.get("application/json", {}).get("example")
    packed = None if example is None else orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()
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
        "example": packed,
        "answers": [
            {"status": status, "about": one.get("description", "")}
            for status, one in operation.get("responses", {}).items()
        ],
    }
