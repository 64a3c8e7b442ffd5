"""Money and dates as the recipient's language writes them, by Babel (Unicode CLDR).

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
# What a message is written in where nobody says it.
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
        raise ValueError(f"{code!r} is no currency; write its ISO 4217 code, such as 'EUR'")
    return known


def money(value: object, code: object, locale: Locale) -> str:
    """An amount, a number or digits in a text, rounded to the currency's smallest unit.

    Raises ValueError for anything else, for a guess would be a wrong figure.
    """
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError(f"{text[:40]!r} is no amount of money")
    # A float's shortest digits are the ones that were written.
    amount = text if isinstance(value, str) else format(Decimal(text), "f")
    if not _AMOUNT.fullmatch(amount):
        raise ValueError(f"{text[:40]!r} is no amount of money; write it as in 1234.50")
    currency = currency_of(code)
    unit = Decimal(1).scaleb(-get_currency_precision(currency))
    rounded = Decimal(amount).quantize(unit, ROUND_HALF_UP)
    return str(format_currency(rounded, currency, locale=locale))


def moment(value: object) -> datetime:
    """Whole seconds, in UTC, or ISO 8601, as it is written. Raises ValueError or OverflowError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(str(value).strip())


def local_date(value: object, length: object, locale: Locale) -> str:
    """A day, written out in one of LENGTHS. Raises ValueError, OverflowError or OSError."""
    day: date = moment(value).date()
    return str(format_date(day, format=length_of(length), locale=locale))


def length_of(length: object) -> DateLength:
    """Raises ValueError for what is none of LENGTHS."""
    for known in LENGTHS:
        if length == known:
            return known
    raise ValueError(f"{length!r} is no length of a date; write one of {', '.join(LENGTHS)}")
