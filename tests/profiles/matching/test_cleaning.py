"""Cells in the form in which matching compares them."""

import pytest

from profiles.matching.cleaning import cleaned


@pytest.mark.parametrize(
    ("column", "text", "wanted"),
    [
        ("given_name", "  José-María ", "jose maria"),
        ("surname", "O'Brien", "o brien"),
        ("surname", "Groß", "gross"),
        ("birth_date", "1956-04-09", "19560409"),
        ("birth_date", "19560409", "19560409"),
        ("birth_date", "1956-04-09T00:00:00Z", "19560409"),
        ("birth_date", "9.4.1956", "19560409"),
        ("birth_date", "4/19/1956", "19560419"),
        ("birth_date", "19561332", "19561332"),
        ("postcode", "sw1a 2aa", "sw1a2aa"),
        ("email", " Ann@Example.com", "ann@example.com"),
        ("phone", "+44 7700 900123", "700900123"),
        ("phone", "07700 900 123", "700900123"),
        ("national_id", "QQ 12-34", "qq1234"),
        ("surname", "n/a", None),
        ("surname", "NULL", None),
        ("phone", "0000", None),
        ("street", "  ", None),
        ("street", None, None),
        ("phone", "none given", None),
    ],
)
def test_a_cell(column: str, text: str | None, wanted: str | None) -> None:
    assert cleaned(column, text) == wanted
