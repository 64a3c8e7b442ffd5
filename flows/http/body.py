"""Read request bodies within limits. Memory use stays near the limit, whatever the client sends."""

import zlib
from typing import Any

import orjson
from fastapi import Request

from config.text.json_input import NoJSON, TooDeep, read_json
from flows.http.errors import Refusal

KB = 1024


async def read_posted(request: Request, limit: int) -> bytes:
    """Read the body as sent, at most `limit` bytes. Raises Refusal (413)."""
    named = request.headers.get("content-length", "")
    if len(named) > 18 or (named.isdecimal() and int(named) > limit):
        raise too_large("body", limit)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise too_large("body", limit)
    return bytes(body)


async def read_body(request: Request, limit: int, unfolded: int) -> bytes:
    """Read the body and undo gzip.

    limit: the most bytes as sent. unfolded: the most bytes after gunzip. Raises Refusal: 413 above
    a limit, 400 for another encoding or broken gzip.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Refusal(400, "invalid", "only gzip is understood", field="Content-Encoding")
    body = await read_posted(request, limit)
    return body if encoding == "identity" else _unfold(body, unfolded)


def _unfold(body: bytes, limit: int) -> bytes:
    gunzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = gunzip.decompress(body, limit + 1)
    except zlib.error:
        raise Refusal(400, "invalid", "the body is not gzip, as its header says") from None
    if len(content) > limit:
        raise too_large("body after gunzip", limit)
    if not gunzip.eof or gunzip.unused_data:
        raise Refusal(400, "invalid", "the gzip body is cut off, or something stands behind it")
    return content


def too_large(what: str, limit: int) -> Refusal:
    """The refusal (413) of a part of the request that is larger than `limit` bytes."""
    message = f"it is larger than {limit} bytes; send less at once"
    return Refusal(413, "too_large", message, field=what)


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object that can also be written as JSON. Raises Refusal (400)."""
    value = read_object(body)
    json_size(value)
    return value


def json_size(value: object, field: str | None = None) -> int:
    """The size of a value as JSON, in bytes. Raises Refusal (400) for more than 250 levels.

    orjson writes at most 254 levels. A digest and the record of a merge add some around the value.
    """
    try:
        return len(orjson.dumps([[[[value]]]])) - len("[[[[]]]]")
    except TypeError:
        raise _too_deep(field) from None


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object of any depth. Raises Refusal (400)."""
    try:
        value = read_json(body)
    except TooDeep:
        raise _too_deep() from None
    except NoJSON:
        raise Refusal(400, "invalid", "the body is no JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise Refusal(400, "invalid", 'the body is no JSON object, such as {"userId": "u-1042"}')
    return value


def _too_deep(field: str | None = None) -> Refusal:
    message = "it lies too deep within itself: 250 levels are enough"
    return Refusal(400, "invalid", message, field=field)
