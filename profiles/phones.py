"""Phone numbers: any way of writing them, as E.164 with the country they belong to."""

from typing import NamedTuple

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

# ITU-T E.164, 6.1: fifteen digits at most, the country code included.
_LONGEST = len("+") + 15
# phonenumbers' region for codes that belong to no country: +800, +883 ...
_NOWHERE = "001"


class Phone(NamedTuple):
    """A number as messages are addressed to it."""

    value: str  # E.164: +447700900123
    country: str | None  # ISO alpha-2; None for numbers that belong to no country


def normalise_phone(text: str, country: str | None) -> Phone | None:
    """Read a number, national ones as dialled in `country` (ISO alpha-2).

    What is possible by length is accepted, allocated or not: ranges change faster than any
    library, and those reserved for fiction are never allocated. None when it is no number that can
    be dialled from abroad.
    """
    try:
        number = phonenumbers.parse(text, country)
    except NumberParseException:
        return None
    # not IS_POSSIBLE_LOCAL_ONLY: seven digits without an area code reach nobody from here
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return None
    value = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return Phone(value, _country(number)) if len(value) <= _LONGEST else None


def _country(number: phonenumbers.PhoneNumber) -> str | None:
    """The number's own country, else the main one of its calling code (+1: US, +44: GB)."""
    region = phonenumbers.region_code_for_number(number)
    if region is None:
        region = phonenumbers.region_code_for_country_code(number.country_code or 0)
    return region if region not in (_NOWHERE, phonenumbers.UNKNOWN_REGION) else None
