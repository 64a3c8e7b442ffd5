"""Read cells as numbers, yes or no, dates and times, in the spellings of several countries. Pure.

Some cells have two readings: `1,234` may be 1234 or 1.234, and `03/04/2024` a day of March or of
April. A `Style` says which one holds in a column; styles.py finds it.
"""

import math
import re
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

Type = Literal["text", "integer", "number", "boolean", "date", "time"]
DecimalMark = Literal[".", ","]
DateOrder = Literal["day-first", "month-first"]


class Style(NamedTuple):
    """How a column writes numbers and dates.

    date_order: of dates with numbers only, such as 03/04/2024. Dates that begin with the year have
    one reading.
    """

    decimal: DecimalMark = "."
    date_order: DateOrder = "day-first"


# German, French and Spanish, also as Excel shows truth values.
_YES = frozenset(["ja", "j", "wahr", "oui", "vrai", "sí", "si", "verdadero"])
_NO = frozenset(["nein", "falsch", "non", "faux", "falso"])

_GROUP = " .,'’\u00a0\u2009\u202f"
_NOT_FINITE = re.compile(r"[+-]?(inf|infinity|nan)", re.IGNORECASE)
# Year, month and day in either order, with a time of day or without.
_NUMERIC = re.compile(r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})(?:[T ]+(\S.*))?")
_CLOCK = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,6})?)?\s*([AaPp])?(?(5)\.?[Mm]\.?)\s*"
    r"(Z|z|[+-]\d{2}:?\d{2})?"
)
_MIDNIGHT = re.compile(r"0?0:00(:00(\.0+)?)?")
# 1 January 1982 to 6 July 2173 in a spreadsheet that counts the days from 1900.
_DAY_NUMBER = re.compile(r"[3-9]\d{4}([.,]\d+)?")


def yes_or_no(text: str) -> bool:
    """Parse common spellings of yes and no. Raises ValueError."""
    word = text.casefold()
    if word in ("true", "yes", "y", "t", "1", "on"):
        return True
    if word in ("false", "no", "n", "f", "0", "off"):
        return False
    raise ValueError(f"{text!r} is neither yes nor no; use true or false")


def read_boolean(text: str) -> bool:
    """As `yes_or_no`, also in German, French and Spanish."""
    word = text.casefold()
    return word in _YES or (word not in _NO and yes_or_no(text))


@lru_cache
def _number(decimal: DecimalMark) -> re.Pattern[str]:
    """Digits, alone or in groups of three with the same character between them."""
    group = _GROUP.replace(decimal, "")
    mark = re.escape(decimal)
    return re.compile(
        rf"([+-]?)(\d+|[1-9]\d{{0,2}}(?:([{group}])\d{{3}})(?:\3\d{{3}})*|(?={mark}\d))"
        rf"(?:{mark}(\d*))?([eE][+-]?\d+)?",
        re.ASCII,
    )


def _plain_number(text: str, style: Style) -> str | None:
    """The number as Python writes it; None if it is not one."""
    if text.isascii() and text.isdigit():
        return text
    found = _number(style.decimal).fullmatch(text)
    if found is None:
        return None
    sign, whole, group, part, exponent = found.groups()
    digits = whole.replace(group, "") if group else whole
    fraction = "" if part is None else f".{part or '0'}"
    return f"{sign}{digits or '0'}{fraction}{exponent or ''}"


def read_number(text: str, style: Style) -> float:
    """Raises ValueError."""
    plain = _plain_number(text, style)
    value = math.inf if plain is None and _NOT_FINITE.fullmatch(text) else None
    if plain is None and value is None:
        hint = f"write it like 1234{style.decimal}5"
        raise ValueError(f"{text!r} is not a number; {hint}")
    value = value if plain is None else float(plain)
    if value is None or not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def read_integer(text: str, style: Style) -> int:
    """Raises ValueError."""
    plain = _plain_number(text, style)
    if plain is None or not plain.lstrip("+-").isdigit():
        raise ValueError(f"{text!r} is not a whole number")
    value = int(plain)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{text} does not fit into 64 bits")
    return value


def read_date(text: str, style: Style) -> str:
    """The day as 2026-03-02. A time of day is accepted if it is midnight. Raises ValueError."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    found = _NUMERIC.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a date; {_hint(text, '2026-03-02')}")
    clock = found[5]
    if clock and not _MIDNIGHT.fullmatch(clock):
        raise ValueError(f'{text!r} has a time of day; give the column the type "time"')
    return _day(text, found, style).isoformat()


def read_moment(text: str, style: Style) -> datetime:
    """The date and time, without a zone if the cell names none. Raises ValueError."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    found = _NUMERIC.fullmatch(text)
    clock = _CLOCK.fullmatch(found[5] or "0:00") if found else None
    if found is None or clock is None:
        raise ValueError(f"{text!r} is not a date and time; {_hint(text, '2026-03-02T04:30:00Z')}")
    hour, minute, second, fraction, half, zone = clock.groups()
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            raise ValueError(f"{text!r} is not a date and time; the hour is not from 1 to 12")
        hours = hours % 12 + (12 if half in "Pp" else 0)
    day = _day(text, found, style).isoformat()
    try:
        return datetime.fromisoformat(
            f"{day}T{hours:02}:{minute}:{second or '00'}{fraction or ''}{(zone or '').upper()}"
        )
    except ValueError:
        raise ValueError(f"{text!r} is not a date and time; no day has this time") from None


def _hint(text: str, example: str) -> str:
    if _DAY_NUMBER.fullmatch(text):
        return (
            "it may be a spreadsheet's number of a day: format the column as a date before you "
            "export it"
        )
    return f"write it like {example}"


def _day(text: str, found: re.Match[str], style: Style) -> date:
    first, _, second, third, _ = found.groups()
    if len(first) == 4:
        year, month, day = first, second, third
    elif len(third) == 4:
        day, month = (first, second) if style.date_order == "day-first" else (second, first)
        year = third
    else:
        raise ValueError(f"{text!r} is not a date; write the year with four digits")
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        order = "" if len(first) == 4 else f" ({style.date_order.replace('-', ' ')})"
        raise ValueError(f"{text!r} is not a date{order}; no year has this day") from None


READ: dict[Type, Callable[[str, Style], Any]] = {
    "text": lambda text, _style: text,
    "integer": read_integer,
    "number": read_number,
    "boolean": lambda text, _style: read_boolean(text),
    "date": read_date,
}
