"""Phone numbers, any way of writing them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.phones import Phone, normalise_phone


@pytest.mark.parametrize(
    ("written", "country", "expected"),
    [
        ("+44 7700 900123", None, Phone("+447700900123", "GB")),
        ("07700 900123", "GB", Phone("+447700900123", "GB")),
        ("0044 7700 900123", "GB", Phone("+447700900123", "GB")),
        ("tel:+447700900123", None, Phone("+447700900123", "GB")),
        # abroad, with a number from home
        ("+44 7700 900123", "FR", Phone("+447700900123", "GB")),
        # reserved for fiction, so of no known type: the main country of the calling code
        ("(202) 555-0123", "US", Phone("+12025550123", "US")),
        ("06 39 98 12 34", "FR", Phone("+33639981234", "FR")),
        # one calling code, several countries
        ("+7 916 123 45 67", None, Phone("+79161234567", "RU")),
        ("+7 701 123 45 67", None, Phone("+77011234567", "KZ")),
        ("07797 712345", "JE", Phone("+447797712345", "JE")),
        # an Italian zero belongs to the number
        ("06 1234 5678", "IT", Phone("+390612345678", "IT")),
    ],
)
def test_possible_numbers_become_e164(written: str, country: str | None, expected: Phone) -> None:
    assert normalise_phone(written, country) == expected


@pytest.mark.parametrize("written", ["+800 1234 5678", "+883 5100 12345"])
def test_numbers_of_no_country_have_none(written: str) -> None:
    phone = normalise_phone(written, "GB")
    assert phone is not None
    assert phone.country is None


@pytest.mark.parametrize(
    ("written", "country"),
    [
        ("", "GB"),
        ("n/a", "GB"),
        ("12345", "GB"),  # too short
        ("+44 7700 900123 456", None),  # too long
        ("07700 900123", None),  # national, but of which nation?
        ("07700 900123", "XX"),
        ("555-0123", "US"),  # dialled within one town only
        ("+49 30 1234567890123", None),  # more than the fifteen digits of E.164
        ("+999 123456", None),  # no such calling code
    ],
)
def test_what_cannot_be_dialled_is_refused(written: str, country: str | None) -> None:
    assert normalise_phone(written, country) is None


@given(st.from_regex(r"\+?[0-9 ()/.-]{3,20}", fullmatch=True), st.sampled_from(["GB", "US", None]))
def test_a_normalised_number_stays_as_it_is(written: str, country: str | None) -> None:
    phone = normalise_phone(written, country)
    assert phone is None or normalise_phone(phone.value, None) == phone
