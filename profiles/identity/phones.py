"""Normalize phone numbers to E.164, with their country."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import phonenumbers
from phonenumbers import (
    CountryCodeSource,
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    ValidationResult,
)

from config.text.invisible_characters import visible

# Longer text is refused without parsing.
_LONGEST_WRITTEN = 100
# ITU-T E.164, 6.1: at most fifteen digits, with the country code.
_LONGEST = len("+") + 15
# phonenumbers' region for codes of no country, such as +800 and +883.
_NOWHERE = "001"
# URIs of RFC 3966 and RFC 5724, and Twilio's address of a WhatsApp user.
_SCHEME = re.compile(r"(tel|sms|whatsapp):", re.IGNORECASE)
_CONTEXT = re.compile(r"phone-context=(\+[0-9]+)", re.IGNORECASE)
_SHORTENED = re.compile(r"[0-9]+([.,][0-9]+)?E\+?[0-9]+", re.IGNORECASE)

# Two forms of one number: (a form that is or was dialled, the stored form). The stored form is that
# of the country's numbering plan at the ITU; Twilio requires it too.
_ONE_HANDSET = (
    # Argentina: a 9 before the area code marks a mobile phone; an area code begins with 1, 2 or 3.
    # phonenumbers calls the 9 the country's mobile token.
    (re.compile(r"\+54([1-3]\d{9})"), r"+549\1"),
    # Brazil: mobile numbers of eight digits got a leading 9 between 2012 and 2016 (Anatel,
    # resolution 553). Numbers that begin with 7 belong to another service and keep eight digits.
    (re.compile(r"\+55([1-9]{2})([689]\d{7})"), r"+55\g<1>9\2"),
    # Mexico: the prefixes of mobile phones, 1 from abroad and 01, 044 and 045 within the country,
    # ended on 3 August 2019.
    (re.compile(r"\+52(?:1|01|044|045)([2-9]\d{9})"), r"+52\1"),
)


class Phone(NamedTuple):
    """A phone number in normal form."""

    value: str  # E.164: +447700900123
    country: str | None  # ISO alpha-2; None for numbers that belong to no country


def normalise_phone(text: str, country: str | None) -> Phone:
    """Normalise a phone number. National numbers are read as dialled in `country` (ISO alpha-2).

    Numbers of a possible length are accepted even if they are not allocated: allocations change
    faster than any library, and numbers reserved for fiction are never allocated. Digits without a
    + can be possible both as a national number and with the country's own code in front. Then the
    reading that is valid in the numbering plan is used; if both or none are valid, the text is
    refused.

    Digits are added or removed only as the numbering plan says. Two forms of one handset's number
    give the same value. Raises ValueError with the reason.
    """
    if len(text) > _LONGEST_WRITTEN:
        raise ValueError(f"{text[:20]!r}... is longer than {_LONGEST_WRITTEN} characters")
    plus, digits = _digits(text)
    read = {_one_form(_e164(number)) for number in _readings(plus, digits, country)}
    found = {value: number for value in sorted(read) if (number := _possible(value)) is not None}
    if not found:
        where = f"in {country}" if country else "(without a known country it must start with +)"
        raise ValueError(f"{text!r} is not a possible phone number {where}")
    if len(found) > 1:
        found = {v: n for v, n in found.items() if phonenumbers.is_valid_number(n)} or found
    if len(found) > 1:
        raise ValueError(
            f"{text!r} can be read as {' and as '.join(found)}; write it with + and the country "
            "code"
        )
    [(value, number)] = found.items()
    return Phone(value, _country(number))


def _digits(text: str) -> tuple[bool, str]:
    """Whether the text begins with +, and its digits. Raises ValueError for any other content."""
    written = "".join(map(_plain, visible(text)))
    # Spreadsheets mark text with an apostrophe, and some exports keep it.
    written = written.removeprefix("'").removeprefix("’").strip()
    if scheme := _SCHEME.match(written):
        written, *parameters = written[scheme.end() :].split(";")
        if "+" not in written and parameters and (context := _CONTEXT.fullmatch(parameters[0])):
            written, parameters = context[1] + written, parameters[1:]
        if parameters:
            raise ValueError(f"{text!r} has more than a number: ;{';'.join(parameters)}")
    if _SHORTENED.fullmatch(written):
        raise ValueError(
            f"{text!r} is a number that a spreadsheet shortened: its last digits are lost. Format "
            "the column as text and export it again"
        )
    unsigned = written.removeprefix("(")
    plus, unsigned = unsigned.startswith("+"), unsigned.removeprefix("+")
    if rest := unsigned.lstrip("0123456789 ()./[]-"):
        raise ValueError(f"{text!r} is not only a phone number: remove {rest!r}")
    if _is_fraction(written):
        raise ValueError(f"{text!r} is a number with a fraction; write the digits alone")
    before, slash, after = written.partition("/")
    if slash and ("/" in after or not _is_area_code(before, after)):
        raise ValueError(f"{text!r} seems to be two numbers; give one of them")
    return plus, "".join(filter(str.isdecimal, unsigned))


def _plain(letter: str) -> str:
    """The ASCII form of a digit, sign or space; other characters unchanged."""
    digit = unicodedata.decimal(letter, None)
    if digit is not None:
        return str(digit)
    if letter in "−ー" or unicodedata.category(letter) == "Pd":  # dashes and similar characters
        return "-"
    if unicodedata.category(letter) == "Zs":
        return " "
    same = unicodedata.normalize("NFKC", letter)
    return same if len(same) == 1 and same in "+()./[]:;=" else letter


def _is_fraction(written: str) -> bool:
    """Whether it is a number with one decimal point, as spreadsheets write it.

    A dot after an area code or a country code is no decimal point: 0151.12345678, +44.7700900123.
    """
    whole, dot, fraction = written.partition(".")
    if not dot or not fraction.isdecimal() or not whole.removeprefix("+").isdecimal():
        return False
    return whole[0] not in "+0" or len(fraction) < 3 or not int(fraction)


def _is_area_code(before: str, after: str) -> bool:
    """Whether a slash separates an area code from the number, as in 0151/12345678.

    In 030 123456/57 it separates two numbers.
    """
    lengths = [len([letter for letter in part if letter.isdecimal()]) for part in (before, after)]
    return lengths[0] <= lengths[1] and lengths[1] >= 4


def _readings(plus: bool, digits: str, country: str | None) -> Iterator[PhoneNumber]:
    """All numbers that the digits can represent, possible or not."""
    code = str(phonenumbers.country_code_for_region(country) or "") if country else ""
    international = []
    if plus:
        international.append(digits)
    elif digits.startswith("00"):  # the prefix that E.164 recommends, whatever the country uses
        international.append(digits[2:])
    if not plus and code:
        dialled = _parsed(digits, country)
        if dialled is not None:
            yield dialled
        if dialled is None or dialled.country_code_source != CountryCodeSource.FROM_NUMBER_WITH_IDD:
            # phonenumbers removes the country's code if the remaining digits are possible
            international.append(code + digits)
        if digits.startswith(code):
            international.append(digits)
    for number in international:
        written = _one_form(f"+{number}")
        parsed = _parsed(written, None)
        # phonenumbers can add an area code that only local callers omit; such a reading is longer
        if parsed is not None and len(_e164(parsed)) <= len(written):
            yield parsed


def _possible(value: str) -> PhoneNumber | None:
    """Parse an E.164 value. None unless it is possible from abroad and in its only E.164 form."""
    number = _parsed(value, None)
    if number is None or len(value) > _LONGEST or _e164(number) != value:
        return None
    # IS_POSSIBLE_LOCAL_ONLY is not enough: seven digits without an area code are not reachable
    possible = phonenumbers.is_possible_number_with_reason(number)
    return number if possible == ValidationResult.IS_POSSIBLE else None


def _parsed(text: str, country: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(text, country, keep_raw_input=True)
    except NumberParseException:
        return None


def _e164(number: PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def _one_form(value: str) -> str:
    """Replace a number of _ONE_HANDSET ("+" and digits) with its stored form."""
    for other, stored in _ONE_HANDSET:
        if found := other.fullmatch(value):
            return found.expand(stored)
    return value


def _country(number: PhoneNumber) -> str | None:
    """The country of a number, else the main country of its calling code (+1: US, +44: GB)."""
    region = phonenumbers.region_code_for_number(number)
    if region is None:
        region = phonenumbers.region_code_for_country_code(number.country_code or 0)
    return region if region not in (_NOWHERE, phonenumbers.UNKNOWN_REGION) else None
