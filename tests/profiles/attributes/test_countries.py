"""Countries in their usual spellings."""

from datetime import UTC, datetime

import pycountry
import pytest

from config.clock.zones import zone, zones_of_country
from profiles.attributes.countries import country_code


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("GB", "GB"),
        ("gbr", "GB"),
        ("United Kingdom", "GB"),
        ("  united   kingdom ", "GB"),
        ("UK", "GB"),
        ("U.K.", "GB"),
        ("Great Britain", "GB"),
        ("England", "GB"),
        ("Scotland", "GB"),
        ("Wales", "GB"),
        ("Northern Ireland", "GB"),
        ("EIRE", "IE"),
        ("Ireland", "IE"),
        ("RSA", "ZA"),
        ("USA", "US"),
        ("U.S.A.", "US"),
        ("United States", "US"),
        ("Holland", "NL"),
        ("The Netherlands", "NL"),
        ("South Korea", "KR"),
        ("Russia", "RU"),
        ("UAE", "AE"),
        ("United Arab Emirates", "AE"),
        ("Czech Republic", "CZ"),
        ("Türkiye", "TR"),
        ("Turkey", "TR"),
        ("Cote d’Ivoire", "CI"),
        ("Channel Islands", "JE"),
        ("Deutschland", "DE"),
        ("ALLEMAGNE", "DE"),
        ("España", "ES"),
        ("Espana", "ES"),
        ("Österreich", "AT"),
        ("États-Unis", "US"),
        ("Schweiz", "CH"),
        ("Suisse", "CH"),
        ("Ελλάδα", "GR"),
        ("日本", "JP"),
    ],
)
def test_usual_spellings_are_understood(written: str, code: str) -> None:
    assert country_code(written) == code


@pytest.mark.parametrize(
    "written",
    [None, "", "  ", "European Community", "Unspecified", "Unknown", "EU", "Atlantis", "Kongo"],
)
def test_an_unknown_country_gives_none(written: str | None) -> None:
    assert country_code(written) is None


def test_every_name_and_code_of_iso_3166_is_understood() -> None:
    for country in pycountry.countries:
        for written in (country.alpha_2, country.alpha_3, country.name.upper()):
            assert country_code(written) == country.alpha_2


def test_jersey_may_stand_for_guernsey() -> None:
    """Why "Channel Islands" is JE: both keep the same time all year."""
    (jersey,) = zones_of_country("JE")
    (guernsey,) = zones_of_country("GG")
    for month in range(1, 13):
        noon = datetime(2026, month, 1, 12, tzinfo=UTC)
        assert noon.astimezone(zone(jersey)).time() == noon.astimezone(zone(guernsey)).time()
