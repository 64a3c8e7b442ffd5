"""Cells in the form in which matching compares them. Pure.

Letters lose case and accents, dates become YYYYMMDD, phone numbers their last digits. A value that
means nothing ("null", "0000") becomes None.
"""

import re
import unicodedata
from collections.abc import Callable

from config.text.invisible_characters import trimmed
from profiles.identity.placeholders import MEANINGLESS

# Digits of a phone number that are compared: without the country code and the leading zero.
_PHONE_DIGITS = 9
_NO_WORD = re.compile(r"[\W_]+")
_NO_DIGIT = re.compile(r"\D+")
_YEAR_FIRST = re.compile(r"(\d{4})[-/. ]?(\d{1,2})[-/. ]?(\d{1,2})(?:[T ].*)?")
_YEAR_LAST = re.compile(r"(\d{1,2})[-/. ](\d{1,2})[-/. ](\d{4})")


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in parts if not unicodedata.combining(letter))


def words(text: str) -> str:
    """Letters and digits without case and accents, words separated by one blank."""
    return _NO_WORD.sub(" ", _folded(text)).strip()


def code(text: str) -> str:
    """Letters and digits only, without case: postcodes and ids."""
    return _NO_WORD.sub("", _folded(text))


def date(text: str) -> str:
    """YYYYMMDD. 3/4/1980 is 3 April, 3/14/1980 is 14 March; an unreadable date is kept as a code.

    A date that does not exist, such as 19561332, is kept: it may be a typing mistake.
    """
    if found := _YEAR_FIRST.fullmatch(text):
        year, month, day = found.groups()
    elif found := _YEAR_LAST.fullmatch(text):
        day, month, year = found.groups()
    else:
        return code(text)
    if int(month) > 12 >= int(day):
        month, day = day, month
    return f"{year}{int(month):02}{int(day):02}"


def phone(text: str) -> str:
    """The last nine digits, which do not depend on how the country is written."""
    return _NO_DIGIT.sub("", text)[-_PHONE_DIGITS:]


def email(text: str) -> str:
    return "".join(_folded(text).split())


CLEAN: dict[str, Callable[[str], str]] = {
    "given_name": words,
    "surname": words,
    "birth_date": date,
    "street": words,
    "suburb": words,
    "postcode": code,
    "state": words,
    "city": words,
    "email": email,
    "phone": phone,
    "national_id": code,
}


def cleaned(column: str, text: str | None) -> str | None:
    """A cell of a column in the form that is compared; None if it says nothing."""
    if text is None:
        return None
    text = trimmed(text)
    if not text or text in MEANINGLESS:
        return None
    return CLEAN[column](text) or None
