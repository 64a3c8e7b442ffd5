"""Read request bodies within limits. Memory use stays near the limit, whatever the client sends."""

import zlib
from typing import Any

import orjson
from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.types import Message

from config.text.json_input import NoJSON, TooDeep, read_json
from flows.http.errors import Refusal

KB = 1024
_LONGEST_FORM = 64 * KB
# For multipart, Starlette uses any Python codec that the client names, and some (punycode) take
# quadratic time.
_CHARSETS = (b"utf-8", b"us-ascii", b"iso-8859-1", b"windows-1252")


async def read_posted(request: Request, limit: int) -> bytes:
    """Read the body as sent, at most `limit` bytes. Raises Refusal (413)."""
    length = request.headers.get("content-length", "")
    if len(length) > 18 or (length.isdecimal() and int(length) > limit):
        raise too_large("body", limit)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise too_large("body", limit)
    return bytes(body)


async def read_body(request: Request, limit: int, decompressed: int) -> bytes:
    """Read the body and decompress gzip.

    limit: the most bytes as sent. decompressed: the most bytes after decompression. Raises Refusal:
    413 above a limit, 400 for another encoding or invalid gzip.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        message = "only gzip is supported; use it, or send the body as it is"
        raise Refusal(400, "invalid", message, field="Content-Encoding")
    body = await read_posted(request, limit)
    return body if encoding == "identity" else _decompress(body, decompressed)


async def read_form(request: Request) -> dict[str, str]:
    """Read a form in either encoding; {} if it can't be read. Raises Refusal (413)."""
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


def _decompress(body: bytes, limit: int) -> bytes:
    gunzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = gunzip.decompress(body, limit + 1)
    except zlib.error:
        raise Refusal(
            400, "invalid", "the body is not gzip, although Content-Encoding says so"
        ) from None
    if len(content) > limit:
        raise too_large("decompressed body", limit)
    if not gunzip.eof or gunzip.unused_data:
        raise Refusal(400, "invalid", "the gzip body is truncated, or data follows it")
    return content


def too_large(what: str, limit: int) -> Refusal:
    """The refusal (413) of a part of the request that is larger than `limit` bytes."""
    message = f"larger than {limit} bytes; send less in one request"
    return Refusal(413, "too_large", message, field=what)


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object that orjson can also write. Raises Refusal (400)."""
    value = read_object(body)
    json_size(value)
    return value


def json_size(value: object, field: str | None = None) -> int:
    """The size of a value as JSON, in bytes. Raises Refusal (400) for more than 250 levels.

    orjson writes at most 254 levels, and a digest or the record of a merge nests the value deeper.
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
        raise Refusal(400, "invalid", "the body is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise Refusal(400, "invalid", 'the body is not a JSON object such as {"userId": "u-1042"}')
    return value


def _too_deep(field: str | None = None) -> Refusal:
    message = "nested more than 250 levels deep; use fewer levels"
    return Refusal(400, "invalid", message, field=field)
