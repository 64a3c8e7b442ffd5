"""What clients fetch before they send, and the metrics that they send about themselves.

`{key}` is a public key. An answer other than 200 makes most of them send nothing at all.
"""

from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from flows.http.body import KB, read_posted
from flows.http.context import Receiver
from flows.http.errors import json_response, problems
from flows.http.ingest.keys import Authentication

_METRICS_LIMIT = 64 * KB
_ANSWERS = problems(
    s401="There is no such live public key",
    s403="The page's origin is not one of the key's",
    s429="Too many wrong keys; Retry-After has the seconds to wait",
    s503="Database error; ask again",
)
_METRICS_ANSWERS = problems(s413="The body is larger than 64 KB")


def router(receiver: Receiver, auth: Authentication) -> APIRouter:
    """`/v1/projects/{key}/settings`, `/projects/{key}/settings`, `/sourceConfig/`, `/v1/m`."""
    routes = APIRouter(tags=["segment"])
    url = urlsplit(receiver.segue.settings.public_url)
    # Clients put https:// before apiHost, and the browser's takes another scheme from `protocol`.
    host = f"{url.netloc}{url.path}/v1"
    plain = {} if url.scheme == "https" else {"protocol": url.scheme}

    async def segment_settings(key: str, request: Request) -> Response:
        """The settings of Segment's clients: the one integration that posts to this host."""
        await auth.public_key(request, key)
        integration = {"apiKey": key, "apiHost": host, **plain}
        # Without a rate the browser's client sends metrics about itself to Segment's own host.
        metrics = {"sampleRate": 0}
        return json_response(200, {"integrations": {"Segment.io": integration}, "metrics": metrics})

    async def source_config(request: Request) -> Response:
        """The configuration of RudderStack's browser client: a source without destinations."""
        await auth.public_key(request)
        source = {"id": "segue", "name": "segue", "config": {}, "destinations": []}
        return json_response(200, {"source": source})

    async def metrics(request: Request) -> Response:
        """Accept what clients count about themselves, without a key, and drop it."""
        await read_posted(request, _METRICS_LIMIT)
        return json_response(200, {"success": True})

    for path, shown in (("/v1/projects/{key}/settings", True), ("/projects/{key}/settings", False)):
        routes.add_api_route(
            path,
            segment_settings,
            methods=["GET"],
            summary="The settings of Segment's clients",
            responses=_ANSWERS,
            include_in_schema=shown,
        )
    for path, shown in (("/sourceConfig/", True), ("/sourceConfig", False)):
        routes.add_api_route(
            path,
            source_config,
            methods=["GET"],
            summary="The configuration of RudderStack's browser client",
            responses=_ANSWERS,
            include_in_schema=shown,
        )
    routes.add_api_route(
        "/v1/m",
        metrics,
        methods=["POST"],
        summary="Accept and drop the metrics of clients",
        responses=_METRICS_ANSWERS,
    )
    return routes
