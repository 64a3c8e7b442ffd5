"""Phone numbers: every spelling, and that a number never becomes another number."""

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from profiles.identity.phones import Phone, normalise_phone

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)


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


@pytest.mark.parametrize(
    ("written", "country"),
    [
        ("+447700900123", None),
        ("00447700900123", None),  # the prefix that E.164 recommends
        ("00447700900123", "BR"),  # whose own prefix is another
        ("011 44 7700 900123", "US"),
        ("447700900123", "GB"),  # too long for a national number
        ("7700900123", "GB"),  # a spreadsheet took the zero
        ("+44 (0)7700 900123", None),
        ("0044 (0) 7700 900123", "GB"),
        ("(+44) 7700 900123", None),
        ("+44.7700900123", None),  # RFC 5733
        ("+44-7700-900-123", None),
        ("07700.900123", "GB"),
        ("07700/900123", "GB"),
        ("[07700] 900123", "GB"),
        ("'+447700900123", None),  # a spreadsheet's mark of text
        ("'07700900123", "GB"),
        ("’07700900123", "GB"),
        ("\u00a007700\u202f900123\u00a0", "GB"),  # no-break spaces
        ("\u202a+44 7700 900123\u202c", None),  # direction marks
        ("\ufeff07700\u200b900123", "GB"),
        ("+44\u20137700\u2212900123", None),  # dashes
        ("＋４４７７００９００１２３", None),
        ("０７７００\u3000９００１２３", "GB"),
        ("٠٧٧٠٠٩٠٠١٢٣", "GB"),
        ("TEL:+44-7700-900123", None),
        ("tel:7700900123;phone-context=+44", None),  # RFC 3966
        ("whatsapp:+447700900123", None),
        ("sms:+447700900123", None),
    ],
)
def test_every_spelling_gives_the_same_number(written: str, country: str | None) -> None:
    assert normalise_phone(written, country) == Phone("+447700900123", "GB")


@pytest.mark.parametrize(
    ("stored", "spellings"),
    [
        (
            Phone("+5491123456789", "AR"),
            [
                ("+541123456789", None),
                ("+54 9 11 2345-6789", None),
                ("+54 11 15 2345-6789", None),
                ("011 15-2345-6789", "AR"),
                ("011 2345-6789", "AR"),
                ("11 2345 6789", "AR"),
                ("541123456789", "AR"),
            ],
        ),
        (
            Phone("+5511987654321", "BR"),
            [
                ("+551187654321", None),
                ("+55 (11) 8765-4321", None),
                ("(11) 98765-4321", "BR"),
                ("(11) 8765-4321", "BR"),
                ("011 8765-4321", "BR"),
                ("0 21 11 98765-4321", "BR"),  # with the code of a carrier
                ("551187654321", "BR"),
            ],
        ),
        (
            Phone("+525512345678", "MX"),
            [
                ("+5215512345678", None),
                ("+52 55 1234 5678", None),
                ("55 1234 5678", "MX"),
                ("1 55 1234 5678", "MX"),
                ("01 55 1234 5678", "MX"),
                ("044 55 1234 5678", "MX"),
                ("045 55 1234 5678", "MX"),
                ("525512345678", "MX"),
            ],
        ),
    ],
)
def test_an_optional_mobile_digit_gives_the_same_number(
    stored: Phone, spellings: list[tuple[str, str | None]]
) -> None:
    assert {spelling: normalise_phone(*spelling) for spelling in spellings} == dict.fromkeys(
        spellings, stored
    )


@pytest.mark.parametrize(
    "value",
    [
        "+551132654321",  # a fixed line: eight digits
        "+551178654321",  # a service that keeps eight digits
        "+5511978654321",
        "+548001234567",  # free of charge
        "+529991234567",
    ],
)
def test_a_number_with_one_form_is_unchanged(value: str) -> None:
    assert normalise_phone(value, None).value == value


@pytest.mark.parametrize("written", ["+800 1234 5678", "+883 5100 12345"])
def test_numbers_of_no_country_have_none(written: str) -> None:
    assert normalise_phone(written, "GB").country is None


@pytest.mark.parametrize(
    ("written", "country", "reason"),
    [
        ("", "GB", "not a possible phone number in GB"),
        ("+", "GB", "not a possible phone number in GB"),
        ("12345", "GB", "not a possible phone number in GB"),  # too short
        ("+44 7700 900123 456", None, "not a possible phone number"),  # too long
        ("07700 900123", None, "it must start with +"),  # national, but of which nation?
        ("07700 900123", "XX", "not a possible phone number in XX"),
        ("555-0123", "US", "not a possible phone number in US"),  # dialled within one town only
        ("+261 22 12 345", None, "not a possible phone number"),  # without the area code, 20
        ("+49 30 1234567890123", None, "not a possible phone number"),  # more than fifteen digits
        ("+999 123456", None, "not a possible phone number"),  # no such calling code
        # There is other text.
        ("n/a", "GB", "remove 'n/a'"),
        ("07700 900123 ext. 5", "GB", "remove 'ext. 5'"),
        ("07700 900123x5", "GB", "remove 'x5'"),
        ("07700 900123#5", "GB", "remove '#5'"),
        ("1-800-FLOWERS", "US", "remove 'FLOWERS'"),
        ("+44 7700 900123, +44 7700 900124", None, "is not only a phone number"),
        ("+44 7700 900123 / +44 7700 900124", None, "is not only a phone number"),
        ("+44 7700 900123 or 900124", None, "remove 'or 900124'"),
        ("07700900123\n07700900124", "GB", "is not only a phone number"),
        ("07700900123;07700900124", "GB", "is not only a phone number"),
        ("++447700900123", None, "is not only a phone number"),
        ("+44 7700 900123²", None, "remove '²'"),
        ("4915112345678,0", "DE", "remove ',0'"),
        ("tel:+44-7700-900123;ext=5", None, "more than a number: ;ext=5"),
        ("tel:+44-7700-900123;phone-context=+49", None, "more than a number"),
        ("tel:7700900123;phone-context=shop.example", None, "more than a number"),
        # 030 12345657 is somebody else's.
        ("030 123456/57", "DE", "two numbers"),
        ("030/123456/57", "DE", "two numbers"),
        # Spreadsheets make numbers of phone numbers.
        ("4915112345678.0", "DE", "a number with a fraction"),
        ("4915112345678.00", "DE", "a number with a fraction"),
        ("4915112345678.5", "DE", "a number with a fraction"),
        ("07700900123.0", "GB", "a number with a fraction"),
        ("+447700900123.0", None, "a number with a fraction"),
        ("4.91512E+12", "DE", "a spreadsheet shortened"),
        ("4,91512E+12", "DE", "a spreadsheet shortened"),
        ("4.91512e12", "DE", "a spreadsheet shortened"),
        # Valid as a German national number, and with the country's code in front.
        ("4915112345678", "DE", r"as \+4915112345678 and as \+494915112345678"),
        ("4" * 10_000, "DE", "longer than 100 characters"),
    ],
)
def test_what_is_not_one_possible_number_is_refused_with_the_reason(
    written: str, country: str | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        normalise_phone(written, country)


@pytest.mark.parametrize("region", REGIONS)
def test_each_country_writes_its_mobile_numbers_in_several_ways(region: str) -> None:
    example = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    if example is None:
        example = phonenumbers.example_number(region)
    assert example is not None
    international = phonenumbers.format_number(example, PhoneNumberFormat.INTERNATIONAL)
    e164 = phonenumbers.format_number(example, PhoneNumberFormat.E164)
    national = phonenumbers.format_number(example, PhoneNumberFormat.NATIONAL)
    found = {
        normalise_phone(e164, None).value,
        normalise_phone(international, None).value,
        normalise_phone(national, region).value,
        normalise_phone(f"00{e164[1:]}", region).value,
    }
    assert found == {e164}


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))


@given(
    st.sampled_from(REGIONS),
    st.sampled_from([PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE]),
    st.text("0123456789", max_size=3),
    st.integers(0, 3),
)
def test_an_added_or_missing_digit_never_gives_another_number(
    region: str, kind: int, more: str, fewer: int
) -> None:
    """In the form with + the digits that are written are the digits of the number, but for the
    trunk prefix and the optional digit of mobile phones.
    """
    example = phonenumbers.example_number_for_type(region, kind)
    if example is None:
        return
    e164 = phonenumbers.format_number(example, PhoneNumberFormat.E164)
    written = e164[: len(e164) - fewer] + more
    try:
        found = normalise_phone(written, region).value
    except ValueError:
        return
    if example.country_code in (52, 54, 55):
        # but for the 9 of Argentina and Brazil, and the 1 of Mexico
        assert abs(len(found) - len(written)) <= 2
        assert found[-7:] == written[-7:]
    else:
        national = found[1 + len(str(example.country_code)) :]
        assert _digits(written).endswith(national.lstrip("0"))
        assert len(_digits(written)) - len(_digits(found)) <= 3  # a trunk prefix


@given(st.sampled_from(REGIONS), st.integers(1, 10**15 - 1), st.sampled_from([".0", ",0", ".5"]))
def test_a_number_with_a_fraction_is_no_phone_number(
    region: str, number: int, fraction: str
) -> None:
    with pytest.raises(ValueError, match=r"fraction|is not only a phone number"):
        normalise_phone(f"{number}{fraction}", region)


@given(st.from_regex(r"\+?[0-9 ()/.-]{3,20}", fullmatch=True), st.sampled_from([*REGIONS, None]))
def test_a_normalised_number_stays_as_it_is(written: str, country: str | None) -> None:
    try:
        phone = normalise_phone(written, country)
    except ValueError:
        return
    assert normalise_phone(phone.value, None) == phone
    assert normalise_phone(phone.value, country) == phone
