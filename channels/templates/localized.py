"""Format money and dates in the recipient's language, with Babel (Unicode CLDR).

Filters for templates: `{{ event.total | money: "EUR" }}`, `{{ profile.renewal | local_date }}`.
"""

import re
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache, lru_cache
from typing import Literal

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import format_currency, get_currency_precision, list_currencies

DateLength = Literal["short", "medium", "long", "full"]
LENGTHS: tuple[DateLength, ...] = ("short", "medium", "long", "full")
# The language of a message if neither the template nor the profile has one.
FALLBACK = "en"
_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@lru_cache(maxsize=256)
def locale_of(*tags: str | None) -> Locale:
    """The locale of the first of these language tags (BCP 47) that Babel knows; else English."""
    for tag in tags:
        try:
            return Locale.parse((tag or "").replace("_", "-"), sep="-")
        except (ValueError, UnknownLocaleError, TypeError):
            continue
    return Locale.parse(FALLBACK)


@cache
def _currencies() -> frozenset[str]:
    return frozenset(list_currencies())


def currency_of(code: object) -> str:
    """The ISO 4217 code in capitals. Raises ValueError."""
    known = str(code).strip().upper()
    if known not in _currencies():
        raise ValueError(f"{code!r} is not a currency; use its ISO 4217 code, such as 'EUR'")
    return known


def money(value: object, code: object, locale: Locale) -> str:
    """Format a number or a decimal string, rounded to the currency's smallest unit.

    Raises ValueError for other values, such as "1,234": parsing them could give a wrong amount.
    """
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError(f"{text[:40]!r} is not an amount")
    # str() of a float has the digits that were written.
    amount = text if isinstance(value, str) else format(Decimal(text), "f")
    if not _AMOUNT.fullmatch(amount):
        raise ValueError(f"{text[:40]!r} is not an amount; write it as in 1234.50")
    currency = currency_of(code)
    unit = Decimal(1).scaleb(-get_currency_precision(currency))
    rounded = Decimal(amount).quantize(unit, ROUND_HALF_UP)
    return str(format_currency(rounded, currency, locale=locale))


def moment(value: object) -> datetime:
    """The time of whole seconds (in UTC) or of ISO 8601 (with the offset that it has).

    Raises ValueError or OverflowError.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(str(value).strip())


def local_date(value: object, length: object, locale: Locale) -> str:
    """Format the day in one of LENGTHS. Raises ValueError, OverflowError or OSError."""
    day: date = moment(value).date()
    return str(format_date(day, format=length_of(length), locale=locale))


def length_of(length: object) -> DateLength:
    """One of LENGTHS. Raises ValueError."""
    for known in LENGTHS:
        if length == known:
            return known
    raise ValueError(f"{length!r} is not a date length; use one of {', '.join(LENGTHS)}")
