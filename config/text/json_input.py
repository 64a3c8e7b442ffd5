"""Parse JSON from clients and providers, which is not always strict JSON."""

import json
import math
from typing import Any

import orjson


class NoJSON(ValueError):
    """The body is not JSON; the message gives the reason."""


class TooDeep(NoJSON):
    """The body is nested more deeply than can be parsed."""


def read_json(body: bytes) -> Any:
    """Parse a JSON body. Raises NoJSON, or TooDeep.

    NUL characters, which PostgreSQL can't store, are taken out. Clients also send half of an emoji
    that they cut apart, or NaN: the half becomes U+FFFD, and a number that is none becomes null, so
    that nothing else in the body is lost for it.
    """
    try:
        return _read(body)
    except RecursionError:
        raise TooDeep("it lies too deep within itself") from None


def _read(body: bytes) -> Any:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return _clean(json.loads(body))
        except ValueError:
            raise NoJSON("it is no JSON in UTF-8") from None
    return _clean(value) if rb"\u0000" in body else value


def well_formed(text: str) -> str:
    """The text with U+FFFD for each surrogate that is not one of a pair."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _clean(value: Any) -> Any:
    match value:
        case str():
            return well_formed(value.replace("\0", ""))
        case list():
            return [_clean(one) for one in value]
        case dict():
            return {_clean(name): _clean(one) for name, one in value.items()}
        case float() if not math.isfinite(value):
            return None
        # as orjson parses it: a larger integer is a float
        case int() if not -(2**63) <= value < 2**64:
            return float(value) if abs(value) < 2**1000 else None
        case _:
            return value
