"""The recipient's zone: from the profile, the country, the phone number or the brand."""

from typing import Any

import pytest

from tests.support.planning.planner_cases import (
    A_DAY,
    Decide,
    by_planner,
    case,
    message,
    outcomes,
    sent,
)


def zone_of(decide: Decide, phone: str | None = None, **profile: str | None) -> tuple[Any, str]:
    addresses = {"email": "a@example.com", **({"sms": phone} if phone else {})}
    (decision,) = decide(case(message(), profile={**profile, "addresses": addresses}))
    return decision["timezone"], decision["timezone_source"]


BERLIN = ["Europe/Berlin", "Europe/Busingen"]
GERMAN = "+4915112345678"


def test_the_zone_of_the_profile_comes_first(decide: Decide) -> None:
    told = zone_of(decide, GERMAN, timezone="Asia/Kathmandu", country="DE")
    assert told == ("Asia/Kathmandu", "profile")


def test_a_link_is_a_zone(decide: Decide) -> None:
    assert zone_of(decide, timezone="US/Eastern") == ("US/Eastern", "profile")


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "", "../zone.tab", "Europe", "europe/Paris ", None]
)
def test_a_zone_that_does_not_exist_falls_through_to_the_country(
    decide: Decide, zone: str | None
) -> None:
    assert zone_of(decide, timezone=zone, country="DE") == (BERLIN, "country")


def test_the_country_gives_its_zones_in_the_order_of_zone_tab(decide: Decide) -> None:
    assert zone_of(decide, timezone=None, country="DE") == (BERLIN, "country")
    new_zealand = (["Pacific/Auckland", "Pacific/Chatham"], "country")
    assert zone_of(decide, GERMAN, timezone=None, country="NZ") == new_zealand
    assert zone_of(decide, timezone=None, country="NP") == ("Asia/Kathmandu", "country")


@pytest.mark.parametrize(
    ("spelling", "zone"),
    [
        ("EIRE", "Europe/Dublin"),
        ("RSA", "Africa/Johannesburg"),
        ("UK", "Europe/London"),
        ("United Kingdom", "Europe/London"),
        ("Germany", BERLIN),
    ],
)
def test_spellings_of_countries(spelling: str, zone: Any) -> None:
    assert zone_of(by_planner, timezone=None, country=spelling) == (zone, "country")


def test_usa_is_a_country_of_many_zones() -> None:
    zones, source = zone_of(by_planner, timezone=None, country="USA")
    assert source == "country"
    assert zones[0] == "America/New_York"
    assert zones[-1] == "Pacific/Honolulu"
    assert len(zones) == 29


@pytest.mark.parametrize("country", ["European Community", "Unspecified", "", "ZZ", None])
def test_no_country_falls_through_to_the_phone_and_then_the_brand(
    decide: Decide, country: str | None
) -> None:
    assert zone_of(decide, GERMAN, timezone=None, country=country) == (BERLIN, "phone")
    assert zone_of(decide, timezone=None, country=country) == ("UTC", "brand")


@pytest.mark.parametrize("phone", ["+447700900123", "+442079460018"])
def test_a_number_reserved_for_fiction_has_its_country(decide: Decide, phone: str) -> None:
    assert zone_of(decide, phone, timezone=None) == ("Europe/London", "phone")


def test_a_suppressed_phone_still_gives_the_country(decide: Decide) -> None:
    (decision,) = decide(case(message(), profile={"timezone": None, "suppressed": ["sms"]}))
    assert (decision["timezone"], decision["timezone_source"]) == (BERLIN, "phone")


def test_a_country_of_several_zones_is_open_when_all_are(decide: Decide) -> None:
    """In July 09:00 is 21:00Z in Auckland and 20:15Z in Chatham, 17:00 is 05:00Z and 04:15Z."""
    profile = {"timezone": None, "country": "NZ"}
    hours = [{"days": "mon-sun", "from": "09:00", "to": "17:00"}]
    for now, send_at in [
        ("2026-07-06T20:15:00Z", "2026-07-06T21:00:00Z"),
        ("2026-07-07T04:00:00Z", "2026-07-07T04:00:00Z"),
        ("2026-07-07T04:15:00Z", "2026-07-07T21:00:00Z"),
    ]:
        assert outcomes(decide(case(message(), now=now, profile=profile, email=hours))) == [send_at]


def test_zones_that_are_never_open_together_close_the_window(decide: Decide) -> None:
    """Kiribati spans 12 to 14 hours ahead of UTC: Tarawa, Kanton and Kiritimati, an hour apart."""
    narrow = [{"days": "mon-sun", "from": "10:00", "to": "11:00"}]
    profile = {"timezone": None, "country": "KI"}
    assert outcomes(decide(case(message(), profile=profile, email=narrow))) == ["window_closed"]


def test_a_calendar_cap_holds_in_every_zone_of_the_country(decide: Decide) -> None:
    """Sent 23:30 in Auckland, already the next day in Chatham: that day is full there."""
    wanted = case(
        message(on_cap="defer"),
        now="2026-07-06T12:00:00Z",
        profile={"timezone": None, "country": "NZ"},
        caps=[A_DAY],
        history=[sent("2026-07-06T11:30:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2026-07-07T11:15:00Z"]
