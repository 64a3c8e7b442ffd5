"""Parse JSON from clients and providers, also if it is not strict JSON."""

import json
import math
from typing import Any

import orjson


class NoJSON(ValueError):
    """The body is not JSON. The text is the reason."""


class TooDeep(NoJSON):
    """The body is nested too deeply to be parsed."""


def read_json(body: bytes) -> Any:
    """Parse a JSON body. Raises NoJSON, or TooDeep.

    Invalid values do not affect the rest of the body: NUL characters, which PostgreSQL can't store,
    are removed; invalid surrogates become U+FFFD; NaN and infinite numbers become null.
    """
    try:
        return _read(body)
    except RecursionError:
        raise TooDeep("the JSON is nested too deeply") from None


def _read(body: bytes) -> Any:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return _clean(json.loads(body))
        except ValueError:
            raise NoJSON("the body is not JSON in UTF-8") from None
    return _clean(value) if rb"\u0000" in body else value


def well_formed(text: str) -> str:
    """The text with U+FFFD for each unpaired surrogate."""
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
        # as in orjson, larger integers become floats
        case int() if not -(2**63) <= value < 2**64:
            return float(value) if abs(value) < 2**1000 else None
        case _:
            return value
