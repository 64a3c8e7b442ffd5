"""The worked cases of the rules, each by name; every one is put to the planner and the reference.

The reference answers them too, so that what judges the planner is itself held to the text.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from channels.cases import answer_case
from channels.decide import Planner
from config.policy import Policy
from tests.compare_decide import WITH_RULE
from tests.random_cases import step_of
from tests.reference import reference_answer

Json = dict[str, Any]
Decide = Callable[[Json], list[Json]]

DEFAULT = Planner(Policy())
OFFICE = {"days": "mon-fri", "from": "09:00", "to": "17:00"}
DAYTIME = {"days": "mon-sun", "from": "08:00", "to": "21:00"}
A_DAY = {"channels": "all", "limit": 1, "per": "day"}
WITHIN_24H = {"channels": "all", "limit": 1, "within": "24h"}
MONDAY_10 = "2026-03-02T10:00:00Z"


@pytest.fixture(params=["planner", "reference"])
def decide(request: pytest.FixtureRequest) -> Decide:
    """Answers a case with its decisions, one for each message."""
    return by_planner if request.param == "planner" else by_reference


def by_planner(case: Json) -> list[Json]:
    decisions: list[Json] = answer_case(case, DEFAULT)["decisions"]
    for decision in decisions:
        told = decision["reason"] in WITH_RULE
        assert (decision["rule"] is not None) == told, decision
    return decisions


def by_reference(case: Json) -> list[Json]:
    decisions: list[Json] = reference_answer(case, step_of(case))["decisions"]
    return decisions


def case(
    *messages: Json,
    now: str = MONDAY_10,
    mode: str = "any",
    zone: str = "UTC",
    caps: list[Json] | None = None,
    history: list[Json] | None = None,
    profile: Json | None = None,
    **windows: list[Json],
) -> Json:
    """A case for a customer who may be reached everywhere; `email=[…]` gives e-mail's windows."""
    told = {
        "id": "c1",
        "now": now,
        "policy": {
            "timezone": "UTC",
            "week_starts": "monday",
            "max_delay": "7d",
            "channels": {channel: {"windows": told} for channel, told in windows.items()},
            "caps": caps or [],
        },
        "profile": {
            "timezone": zone,
            "country": None,
            "addresses": {"email": "a@example.com", "sms": "+4915112345678", "push": ["t1"]},
            "consent": {"sms": {"*": True}},
            "suppressed": [],
            "held_out": False,
            **(profile or {}),
        },
        "history": history or [],
        "send": {"mode": mode, "messages": list(messages)},
    }
    return copy.deepcopy(told)  # a test may change its case, and cases share their parts


def message(channel: str = "email", **fields: str) -> Json:
    return {"channel": channel, "kind": "marketing", "topic": "promotions", **fields}


def sent(send_at: str, channel: str = "email", **fields: str) -> Json:
    """An entry of the history."""
    told = {"kind": "marketing", "topic": "promotions", "state": "sent"}
    return {"channel": channel, "send_at": send_at, **told, **fields}


def outcomes(decisions: list[Json]) -> list[str]:
    """When each message goes, or why it does not."""
    for decision in decisions:
        assert (decision["outcome"] == "send") == (decision["reason"] is None)
        assert (decision["outcome"] == "send") == (decision["send_at"] is not None)
        assert decision["outcome"] in ("send", "not_sent")
    return [decision["reason"] or decision["send_at"] for decision in decisions]


# --- order of decisions -------------------------------------------------------------------------


def test_example_of_the_case_format(decide: Decide) -> None:
    example = case(
        message(after="0s", on_cap="defer", max_delay="3d"),
        now="2026-03-02T04:30:00Z",
        zone="Europe/Berlin",
        email=[DAYTIME],
        caps=[A_DAY],
        history=[sent("2026-03-01T09:00:00Z")],
        profile={"country": "DE", "suppressed": ["push"]},
    )
    (decision,) = decide(example)
    assert {key: decision[key] for key in decision if key != "rule"} == {
        "channel": "email",
        "outcome": "send",
        "send_at": "2026-03-02T07:00:00Z",
        "reason": None,
        "timezone": "Europe/Berlin",
        "timezone_source": "profile",
    }


def test_the_answer_carries_the_id_of_its_case() -> None:
    assert answer_case(case(), DEFAULT)["id"] == "c1"


@pytest.mark.parametrize("fraction", ["250", "000001", "000000001", "999999999"])
def test_a_fraction_of_a_second_rounds_up(decide: Decide, fraction: str) -> None:
    """However small: some languages print nanoseconds."""
    wanted = case(message(), now=f"2026-03-02T10:00:00.{fraction}Z")
    assert outcomes(decide(wanted)) == ["2026-03-02T10:00:01Z"]


def test_no_fraction_of_a_second_does_not_round_up(decide: Decide) -> None:
    wanted = case(message(), now="2026-03-02T10:00:00.000000000Z")
    assert outcomes(decide(wanted)) == [MONDAY_10]


@pytest.mark.parametrize("kind", ["marketing", "transactional"])
def test_no_address_comes_before_suppressed(decide: Decide, kind: str) -> None:
    profile = {"addresses": {"push": []}, "suppressed": ["email", "push"], "held_out": True}
    wanted = case(message("email", kind=kind), message("push", kind=kind), profile=profile)
    assert outcomes(decide(wanted)) == ["no_address", "no_address"]


@pytest.mark.parametrize("kind", ["marketing", "transactional"])
def test_suppressed_comes_before_consent_and_binds_every_kind(decide: Decide, kind: str) -> None:
    profile = {"suppressed": ["sms"], "consent": {"sms": {"*": False}}, "held_out": True}
    assert outcomes(decide(case(message("sms", kind=kind), profile=profile))) == ["suppressed"]


def test_no_consent_comes_before_held_out(decide: Decide) -> None:
    profile = {"consent": {"email": {"*": False}}, "held_out": True}
    wanted = case(message("email"), message("push"), profile=profile)
    assert outcomes(decide(wanted)) == ["no_consent", "held_out"]


def test_holdout_binds_marketing_only(decide: Decide) -> None:
    wanted = case(message(), message(kind="transactional"), profile={"held_out": True})
    assert outcomes(decide(wanted)) == ["held_out", MONDAY_10]


def test_refusals_come_before_windows_and_caps(decide: Decide) -> None:
    wanted = case(
        message(),
        email=[{"days": "sun", "from": "08:00", "to": "09:00"}],
        caps=[{**A_DAY, "limit": 0}],
        profile={"addresses": {}},
    )
    assert outcomes(decide(wanted)) == ["no_address"]


def test_stop_binds_transactional_sms_and_wins_over_topics(decide: Decide) -> None:
    wanted = case(
        message("sms"),
        message("sms", kind="transactional"),
        profile={"consent": {"sms": {"*": False, "promotions": True}}},
    )
    assert outcomes(decide(wanted)) == ["no_consent", "no_consent"]


@pytest.mark.parametrize("channel", ["email", "push"])
def test_channel_refusal_elsewhere_does_not_bind_transactional(
    decide: Decide, channel: str
) -> None:
    wanted = case(
        message(channel),
        message(channel, kind="transactional"),
        profile={"consent": {channel: {"*": False}}},
    )
    assert outcomes(decide(wanted)) == ["no_consent", MONDAY_10]


def test_topic_refused_on_sms_does_not_bind_transactional(decide: Decide) -> None:
    wanted = case(
        message("sms"),
        message("sms", topic="news"),
        message("sms", kind="transactional"),
        profile={"consent": {"sms": {"*": True, "promotions": False}}},
    )
    assert outcomes(decide(wanted)) == ["no_consent", MONDAY_10, MONDAY_10]


def test_topic_overrides_the_channel_on_email(decide: Decide) -> None:
    wanted = case(
        message(),
        message(topic="news"),
        message("push"),
        message("push", topic="news"),
        profile={
            "consent": {
                "email": {"*": False, "promotions": True},
                "push": {"*": True, "promotions": False},
            }
        },
    )
    assert outcomes(decide(wanted)) == [MONDAY_10, "no_consent", "no_consent", MONDAY_10]


def test_what_is_not_said_follows_the_channel(decide: Decide) -> None:
    """Opt-out unless the policy says otherwise; sms is opt-in always."""
    wanted = case(
        message("email"),
        message("push"),
        message("sms"),
        message("sms", kind="transactional"),
        profile={"consent": {}},
    )
    wanted["policy"]["channels"] = {"email": {"consent": "opt-in"}}
    assert outcomes(decide(wanted)) == ["no_consent", MONDAY_10, "no_consent", MONDAY_10]


def test_consent_to_one_topic_is_not_consent_to_another(decide: Decide) -> None:
    wanted = case(
        message("sms"),
        message("sms", topic="news"),
        profile={"consent": {"sms": {"promotions": True}}},
    )
    assert outcomes(decide(wanted)) == [MONDAY_10, "no_consent"]


# --- send time ----------------------------------------------------------------------------------


def test_quiet_hours_end_the_same_day(decide: Decide) -> None:
    open_by_day = {"days": "mon-sun", "from": "06:00", "to": "22:00"}
    wanted = case(message(), now="2026-03-02T05:30:00Z", email=[open_by_day])
    assert outcomes(decide(wanted)) == ["2026-03-02T06:00:00Z"]


def test_the_end_of_a_window_is_exclusive(decide: Decide) -> None:
    window = {"days": "mon-sun", "from": "08:00", "to": "22:00"}
    wanted = case(message(), now="2026-03-02T22:00:00Z", email=[window])
    assert outcomes(decide(wanted)) == ["2026-03-03T08:00:00Z"]
    wanted["now"] = "2026-03-02T21:45:00Z"
    assert outcomes(decide(wanted)) == ["2026-03-02T21:45:00Z"]


def test_the_last_second_of_a_window_is_inside() -> None:
    wanted = case(message(), now="2026-03-02T20:59:59Z", email=[DAYTIME])
    assert outcomes(by_planner(wanted)) == ["2026-03-02T20:59:59Z"]


def test_the_start_of_a_window_is_inside(decide: Decide) -> None:
    wanted = case(message(), now="2026-03-02T08:00:00Z", email=[DAYTIME])
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z"]


@pytest.mark.parametrize(
    ("wanted_at", "send_at"),
    [
        ("2026-03-04T18:00:00Z", "2026-03-05T09:00:00Z"),  # Monday 18:00, two days on
        ("2026-03-07T09:00:00Z", "2026-03-09T09:00:00Z"),  # that Thursday 09:00, two days on
    ],
)
def test_two_day_waits_in_an_office_week(decide: Decide, wanted_at: str, send_at: str) -> None:
    assert outcomes(decide(case(message(), now=wanted_at, email=[OFFICE]))) == [send_at]


def test_transactional_is_free_of_windows_and_caps(decide: Decide) -> None:
    wanted = case(
        message(kind="transactional", after="90m"),
        now="2026-03-01T03:00:00Z",
        email=[OFFICE],
        caps=[{**A_DAY, "limit": 0}],
    )
    assert outcomes(decide(wanted)) == ["2026-03-01T04:30:00Z"]


def test_several_windows_a_day(decide: Decide) -> None:
    lunch = [
        {"days": "mon-fri", "from": "08:00", "to": "09:30"},
        {"days": "mon-fri", "from": "12:00", "to": "13:00"},
    ]
    for now, send_at in [
        ("2026-03-02T09:15:00Z", "2026-03-02T09:15:00Z"),
        ("2026-03-02T09:30:00Z", "2026-03-02T12:00:00Z"),
        ("2026-03-06T13:00:00Z", "2026-03-09T08:00:00Z"),
    ]:
        assert outcomes(decide(case(message(), now=now, email=lunch))) == [send_at]


def test_a_window_across_midnight_belongs_to_the_day_it_starts(decide: Decide) -> None:
    friday_night = [{"days": "fri", "from": "22:00", "to": "02:00"}]
    for now, send_at in [
        ("2026-03-06T01:00:00Z", "2026-03-06T22:00:00Z"),  # Friday morning is Thursday's night
        ("2026-03-07T01:45:00Z", "2026-03-07T01:45:00Z"),
        ("2026-03-07T02:00:00Z", "2026-03-13T22:00:00Z"),
    ]:
        assert outcomes(decide(case(message(), now=now, email=friday_night))) == [send_at]


def test_days_may_wrap_and_be_listed(decide: Decide) -> None:
    windows = [{"days": "fri-mon,wed", "from": "10:00", "to": "11:00"}]
    for day, next_day in [(3, 4), (4, 4), (5, 6), (6, 6), (7, 7), (8, 8), (9, 9)]:
        wanted = case(message(), now=f"2026-03-{day:02}T00:00:00Z", email=windows)
        assert outcomes(decide(wanted)) == [f"2026-03-{next_day:02}T10:00:00Z"]


def test_a_window_may_end_at_24_00(decide: Decide) -> None:
    evening = [{"days": "mon", "from": "20:00", "to": "24:00"}]
    wanted = case(message(), now="2026-03-02T23:45:00Z", email=evening)
    assert outcomes(decide(wanted)) == ["2026-03-02T23:45:00Z"]
    wanted["now"] = "2026-03-03T00:00:00Z"
    assert outcomes(decide(wanted)) == ["2026-03-09T20:00:00Z"]


def test_an_opening_later_than_max_delay_is_too_late(decide: Decide) -> None:
    """`max_delay` itself still counts."""
    wanted = case(message(max_delay="2h"), now="2026-03-02T06:00:00Z", email=[DAYTIME])
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z"]
    wanted["now"] = "2026-03-02T05:45:00Z"
    assert outcomes(decide(wanted)) == ["window_closed"]


def test_no_delay_at_all(decide: Decide) -> None:
    wanted = case(message(max_delay="0s"), email=[DAYTIME])
    assert outcomes(decide(wanted)) == [MONDAY_10]
    wanted["now"] = "2026-03-02T07:45:00Z"
    assert outcomes(decide(wanted)) == ["window_closed"]


def night(opens: str, closes: str) -> list[Json]:
    return [{"days": "mon-sun", "from": opens, "to": closes}]


@pytest.mark.parametrize(
    ("zone", "window", "now", "send_at"),
    [
        # Berlin 2026-03-29: 02:00 is followed by 03:00, at 01:00Z.
        ("Europe/Berlin", ("02:30", "05:00"), "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", ("00:00", "02:30"), "2026-03-29T00:59:00Z", "2026-03-29T00:59:00Z"),
        ("Europe/Berlin", ("00:00", "02:30"), "2026-03-29T01:00:00Z", "2026-03-29T22:00:00Z"),
        ("Europe/Berlin", ("22:00", "02:30"), "2026-03-29T00:59:00Z", "2026-03-29T00:59:00Z"),
        ("Europe/Berlin", ("22:00", "02:30"), "2026-03-29T01:00:00Z", "2026-03-29T20:00:00Z"),
        # A window that lies in the gap does not open that day.
        ("Europe/Berlin", ("02:15", "02:45"), "2026-03-29T00:00:00Z", "2026-03-30T00:15:00Z"),
        # Berlin 2026-10-25: 03:00 is followed by 02:00, at 01:00Z.
        ("Europe/Berlin", ("02:30", "05:00"), "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"),
        ("Europe/Berlin", ("00:00", "02:30"), "2026-10-25T01:29:00Z", "2026-10-25T01:29:00Z"),
        ("Europe/Berlin", ("00:00", "02:30"), "2026-10-25T01:30:00Z", "2026-10-25T23:00:00Z"),
        ("Europe/Berlin", ("22:00", "02:30"), "2026-10-25T01:29:00Z", "2026-10-25T01:29:00Z"),
        ("Europe/Berlin", ("22:00", "02:30"), "2026-10-25T01:30:00Z", "2026-10-25T21:00:00Z"),
        ("Europe/Berlin", ("02:15", "02:45"), "2026-10-25T01:00:00Z", "2026-10-25T01:00:00Z"),
        # Lord Howe changes by half an hour: 2026-04-05 02:00 is followed by 01:30, at 15:00Z.
        ("Australia/Lord_Howe", ("01:45", "05:00"), "2026-04-04T14:30:00Z", "2026-04-04T14:45:00Z"),
        ("Australia/Lord_Howe", ("00:00", "01:45"), "2026-04-04T15:14:00Z", "2026-04-04T15:14:00Z"),
        ("Australia/Lord_Howe", ("00:00", "01:45"), "2026-04-04T15:15:00Z", "2026-04-05T13:30:00Z"),
        # and 2026-10-04 02:00 by 02:30, at 2026-10-03T15:30Z.
        ("Australia/Lord_Howe", ("02:15", "05:00"), "2026-10-03T15:00:00Z", "2026-10-03T15:30:00Z"),
        # Havana changes at midnight: 2026-03-08 has no 00:30, 2025-11-02 has it twice.
        ("America/Havana", ("00:00", "06:00"), "2026-03-08T04:30:00Z", "2026-03-08T05:00:00Z"),
        ("America/Havana", ("00:30", "06:00"), "2026-03-08T04:30:00Z", "2026-03-08T05:00:00Z"),
        ("America/Havana", ("00:00", "06:00"), "2025-11-02T03:30:00Z", "2025-11-02T04:00:00Z"),
        ("America/Havana", ("20:00", "00:30"), "2025-11-02T05:29:00Z", "2025-11-02T05:29:00Z"),
        ("America/Havana", ("20:00", "00:30"), "2025-11-02T05:30:00Z", "2025-11-03T01:00:00Z"),
        # 24:00 is the next day's 00:00, which comes twice there.
        ("America/Havana", ("20:00", "24:00"), "2025-11-02T04:59:00Z", "2025-11-02T04:59:00Z"),
        ("America/Havana", ("20:00", "24:00"), "2025-11-02T05:00:00Z", "2025-11-03T01:00:00Z"),
        # Beirut goes from 24:00 back to 23:00 on 2026-10-24, at 21:00Z: midnight comes once.
        ("Asia/Beirut", ("20:00", "24:00"), "2026-10-24T21:59:00Z", "2026-10-24T21:59:00Z"),
        ("Asia/Beirut", ("20:00", "24:00"), "2026-10-24T22:00:00Z", "2026-10-25T18:00:00Z"),
        ("Asia/Beirut", ("23:30", "24:00"), "2026-10-24T20:00:00Z", "2026-10-24T20:30:00Z"),
        # Troll moves by two hours: 2026-03-29 01:00 is followed by 03:00, at 01:00Z.
        ("Antarctica/Troll", ("01:30", "05:00"), "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),
        ("Antarctica/Troll", ("23:00", "02:30"), "2026-03-29T00:59:00Z", "2026-03-29T00:59:00Z"),
        ("Antarctica/Troll", ("23:00", "02:30"), "2026-03-29T01:00:00Z", "2026-03-29T21:00:00Z"),
    ],
)
def test_clock_changes(
    decide: Decide, zone: str, window: tuple[str, str], now: str, send_at: str
) -> None:
    """An edge in a gap is the first instant after it; a repeated one opens at the first, closes
    at the second."""
    assert outcomes(decide(case(message(), now=now, zone=zone, email=night(*window)))) == [send_at]


@pytest.mark.parametrize(
    ("window", "now", "send_at"),
    [
        # Friday 2011-12-30 was left out: Thursday 24:00 (10:00Z) was Saturday 00:00.
        (("22:00", "06:00"), "2011-12-30T09:00:00Z", "2011-12-30T10:00:00Z"),
        (("22:00", "06:00"), "2011-12-30T15:45:00Z", "2011-12-30T15:45:00Z"),
        (("22:00", "06:00"), "2011-12-30T16:00:00Z", "2012-01-06T08:00:00Z"),
        (("08:00", "21:00"), "2011-12-30T09:00:00Z", "2012-01-05T18:00:00Z"),
        (("00:00", "24:00"), "2011-12-30T09:00:00Z", "2012-01-05T10:00:00Z"),
    ],
)
def test_a_window_on_samoas_missing_friday(
    decide: Decide, window: tuple[str, str], now: str, send_at: str
) -> None:
    friday = [{"days": "fri", "from": window[0], "to": window[1]}]
    assert outcomes(decide(case(message(), now=now, zone="Pacific/Apia", email=friday))) == [
        send_at
    ]


def test_samoas_thursday_and_saturday_are_two_days(decide: Decide) -> None:
    wanted = case(
        message(),
        now="2011-12-30T10:00:00Z",
        zone="Pacific/Apia",
        caps=[A_DAY],
        history=[sent("2011-12-30T09:45:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2011-12-30T10:00:00Z"]
    wanted["now"] = "2011-12-30T09:45:00Z"
    assert outcomes(decide(wanted)) == ["capped"]


# --- whose time ---------------------------------------------------------------------------------


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
def test_a_number_reserved_for_fiction_still_tells_its_country(decide: Decide, phone: str) -> None:
    assert zone_of(decide, phone, timezone=None) == ("Europe/London", "phone")


def test_a_suppressed_phone_still_tells_the_country(decide: Decide) -> None:
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
    """Kiritimati is 14 hours ahead of UTC, Pago Pago 11 behind; Kiribati spans 12 to 14."""
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


# --- caps ---------------------------------------------------------------------------------------


def test_calendar_days_part_at_midnight(decide: Decide) -> None:
    wanted = case(
        message(),
        now="2026-03-03T00:00:00Z",
        caps=[A_DAY],
        history=[sent("2026-03-02T23:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2026-03-03T00:00:00Z"]


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        ("2026-03-03T11:59:00Z", "capped"),
        ("2026-03-03T11:59:59Z", "capped"),
        ("2026-03-03T12:00:00Z", "2026-03-03T12:00:00Z"),
    ],
)
def test_rolling_day_is_exact_to_the_second(decide: Decide, now: str, outcome: str) -> None:
    wanted = case(message(), now=now, caps=[WITHIN_24H], history=[sent("2026-03-02T12:00:00Z")])
    assert outcomes(decide(wanted)) == [outcome]


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        ("2026-03-02T12:00:00Z", "2026-03-02T12:00:00Z"),
        ("2026-03-02T12:00:01Z", "capped"),
    ],
)
def test_rolling_cap_sees_what_is_planned_later(decide: Decide, now: str, outcome: str) -> None:
    later = [sent("2026-03-03T12:00:00Z", state="planned")]
    assert outcomes(decide(case(message(), now=now, caps=[WITHIN_24H], history=later))) == [outcome]


def test_every_rolling_window_that_holds_the_message_counts(decide: Decide) -> None:
    """Ten hours before and thirteen after lie within one 24 h window with it; fourteen do not."""
    cap = {**WITHIN_24H, "limit": 2}
    earlier = sent("2026-03-02T00:00:00Z")
    near = case(
        message(), caps=[cap], history=[earlier, sent("2026-03-02T23:45:00Z", state="planned")]
    )
    far = case(
        message(), caps=[cap], history=[earlier, sent("2026-03-03T00:00:00Z", state="planned")]
    )
    assert outcomes(decide(near)) == ["capped"]
    assert outcomes(decide(far)) == [MONDAY_10]


@pytest.mark.parametrize("state", ["planned", "sending", "sent", "delivered", "unknown"])
@pytest.mark.parametrize("send_at", ["2026-03-02T09:00:00Z", "2026-03-02T20:00:00Z"])
def test_states_that_count(decide: Decide, state: str, send_at: str) -> None:
    wanted = case(message(), caps=[A_DAY], history=[sent(send_at, state=state)])
    assert outcomes(decide(wanted)) == ["capped"]


@pytest.mark.parametrize("state", ["cancelled", "skipped", "failed"])
def test_states_that_do_not_count(decide: Decide, state: str) -> None:
    wanted = case(message(), caps=[A_DAY], history=[sent("2026-03-02T09:00:00Z", state=state)])
    assert outcomes(decide(wanted)) == [MONDAY_10]


def test_the_strictest_cap_wins(decide: Decide) -> None:
    """Two a day leave room, one a week does not until Monday, one in 9 days not until then."""
    caps = [{**A_DAY, "limit": 2}, {**A_DAY, "per": "week"}]
    history = [sent("2026-03-04T10:00:00Z")]
    wanted = case(message(on_cap="defer"), now="2026-03-04T11:00:00Z", caps=caps, history=history)
    assert outcomes(decide(wanted)) == ["2026-03-09T00:00:00Z"]
    wanted["policy"]["caps"].append({**WITHIN_24H, "within": "6d"})
    assert outcomes(decide(wanted)) == ["2026-03-10T10:00:00Z"]


def test_a_cap_binds_and_counts_its_channels(decide: Decide) -> None:
    caps = [{**A_DAY, "channels": ["email", "push"]}]
    history = [sent("2026-03-02T09:00:00Z", "push")]
    wanted = case(message("email"), message("push"), message("sms"), caps=caps, history=history)
    assert outcomes(decide(wanted)) == ["capped", "capped", MONDAY_10]


def test_a_cap_for_all_channels(decide: Decide) -> None:
    history = [sent("2026-03-02T09:00:00Z", "push")]
    wanted = case(message("email"), message("sms"), caps=[A_DAY], history=history)
    assert outcomes(decide(wanted)) == ["capped", "capped"]


def test_a_topic_filters_what_is_bound_and_what_is_counted(decide: Decide) -> None:
    caps = [{**A_DAY, "topic": "promotions"}]
    wanted = case(
        message(),
        message(topic="news"),
        caps=caps,
        history=[sent("2026-03-02T09:00:00Z", topic="news")],
    )
    assert outcomes(decide(wanted)) == [MONDAY_10, MONDAY_10]
    wanted["history"] = [sent("2026-03-02T09:00:00Z")]
    assert outcomes(decide(wanted)) == ["capped", MONDAY_10]


def test_transactional_counts_only_under_counts_all(decide: Decide) -> None:
    wanted = case(
        message(),
        caps=[A_DAY],
        history=[sent("2026-03-02T09:00:00Z", kind="transactional")],
    )
    assert outcomes(decide(wanted)) == [MONDAY_10]
    wanted["policy"]["caps"] = [{**A_DAY, "counts": "all"}]
    assert outcomes(decide(wanted)) == ["capped"]
    wanted["send"]["messages"] = [message(kind="transactional")]
    assert outcomes(decide(wanted)) == [MONDAY_10]


@pytest.mark.parametrize("on_cap", ["skip", "defer"])
def test_a_cap_of_0_refuses(decide: Decide, on_cap: str) -> None:
    for span in ({"per": "month"}, {"within": "30d"}):
        cap = {"channels": ["email"], "limit": 0, **span}
        wanted = case(
            message(on_cap=on_cap),
            message("push", on_cap=on_cap),
            message(kind="transactional"),
            caps=[cap],
            now="2026-03-02T06:00:00Z",
            email=[DAYTIME],
        )
        assert outcomes(decide(wanted)) == [
            "capped",
            "2026-03-02T06:00:00Z",
            "2026-03-02T06:00:00Z",
        ]


@pytest.mark.parametrize("span", [{"per": "month"}, {"within": "1000d"}])
def test_a_limit_of_a_million(span: Json) -> None:
    cap = {"channels": "all", "limit": 1_000_000, **span}
    history = [sent("2026-03-02T09:00:00Z") for _ in range(3)]
    assert outcomes(by_planner(case(message(), caps=[cap], history=history))) == [MONDAY_10]


def test_a_history_of_100_000_messages() -> None:
    """One a minute, the last at 09:59 of the day; each cap is full up to its own edge."""
    minutes = [divmod(number, 60) for number in range(24 * 60)]
    days = [f"2026-{month:02}-{day:02}" for month in (1, 2) for day in range(1, 29)]
    days += [f"2025-12-{day:02}" for day in range(18, 32)]
    history = [sent(f"{day}T{h:02}:{m:02}:00Z") for day in days for h, m in minutes]
    assert len(history) == 100_800
    wanted = case(
        message(on_cap="defer"),
        now="2026-02-28T23:59:30Z",
        history=history,
        caps=[
            {"channels": "all", "limit": 1440, "per": "day"},
            {"channels": "all", "limit": 1440, "within": "24h"},
            {"channels": "all", "limit": 28 * 1440, "per": "month"},
        ],
    )
    assert outcomes(by_planner(wanted)) == ["2026-03-01T00:00:00Z"]
    wanted["policy"]["caps"] = [{"channels": "all", "limit": 100, "within": "24h"}]
    assert outcomes(by_planner(wanted)) == ["2026-03-01T22:20:00Z"]
    wanted["policy"]["caps"] = [{"channels": "all", "limit": 50_000, "within": "40d"}]
    assert outcomes(by_planner(wanted)) == ["2026-03-03T06:40:00Z"]


def test_a_deferred_message_goes_to_the_first_time_that_fits(decide: Decide) -> None:
    """Not one whole period later: 24 h after the one sent, midnight, or the opening after it."""
    wanted = case(
        message(on_cap="defer"), caps=[WITHIN_24H], history=[sent("2026-03-02T09:00:00Z")]
    )
    assert outcomes(decide(wanted)) == ["2026-03-03T09:00:00Z"]
    wanted["policy"]["caps"] = [A_DAY]
    assert outcomes(decide(wanted)) == ["2026-03-03T00:00:00Z"]
    wanted["policy"]["channels"] = {"email": {"windows": [DAYTIME]}}
    assert outcomes(decide(wanted)) == ["2026-03-03T08:00:00Z"]


def test_a_deferred_message_goes_round_what_is_planned_later(decide: Decide) -> None:
    later = [sent("2026-03-03T09:00:00Z", state="planned")]
    wanted = case(message(on_cap="defer"), caps=[WITHIN_24H], history=later)
    assert outcomes(decide(wanted)) == ["2026-03-04T09:00:00Z"]
    wanted["policy"]["caps"][0]["within"] = "23h"
    assert outcomes(decide(wanted)) == [MONDAY_10]


def test_deferring_ends_with_max_delay_inclusive(decide: Decide) -> None:
    history = [sent("2026-03-02T09:00:00Z")]
    wanted = case(message(on_cap="defer", max_delay="23h"), caps=[WITHIN_24H], history=history)
    assert outcomes(decide(wanted)) == ["2026-03-03T09:00:00Z"]
    wanted["send"]["messages"][0]["max_delay"] = "82799s"  # a second less than 23 h
    assert outcomes(decide(wanted)) == ["capped"]


def test_skip_is_what_happens_when_nothing_is_said(decide: Decide) -> None:
    wanted = case(message(), caps=[A_DAY], history=[sent("2026-03-02T09:00:00Z")])
    assert outcomes(decide(wanted)) == ["capped"]


def test_a_cap_is_looked_at_where_the_window_opens(decide: Decide) -> None:
    """Wanted on Sunday, which is full; the window opens on Monday, which is not."""
    wanted = case(
        message(),
        now="2026-03-01T12:00:00Z",
        email=[OFFICE],
        caps=[A_DAY],
        history=[sent("2026-03-01T09:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2026-03-02T09:00:00Z"]


def test_weeks_start_when_the_policy_says(decide: Decide) -> None:
    """Sent on Saturday, wanted on Sunday: the same week from Monday on, another from Sunday on."""
    wanted = case(
        message(on_cap="defer"),
        now="2026-03-08T10:00:00Z",
        caps=[{**A_DAY, "per": "week"}],
        history=[sent("2026-03-07T10:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2026-03-09T00:00:00Z"]
    wanted["policy"]["week_starts"] = "sunday"
    assert outcomes(decide(wanted)) == ["2026-03-08T10:00:00Z"]


def test_months_are_those_of_the_recipient(decide: Decide) -> None:
    """In Kiritimati it is March at 2026-02-28T10:00Z; the cap is full for March, not February."""
    wanted = case(
        message(on_cap="defer"),
        now="2026-02-28T09:45:00Z",
        zone="Pacific/Kiritimati",
        caps=[{**A_DAY, "per": "month"}],
        history=[sent("2026-03-20T10:00:00Z", state="planned")],
    )
    assert outcomes(decide(wanted)) == ["2026-02-28T09:45:00Z"]
    wanted["now"] = "2026-02-28T10:00:00Z"
    assert outcomes(decide(wanted)) == ["capped"]


def test_a_day_of_25_hours_is_one_day(decide: Decide) -> None:
    """Berlin 2026-10-25 lasts from 22:00Z to 23:00Z."""
    wanted = case(
        message(on_cap="defer"),
        now="2026-10-25T22:45:00Z",
        zone="Europe/Berlin",
        caps=[A_DAY],
        history=[sent("2026-10-24T22:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2026-10-25T23:00:00Z"]


def test_clocks_that_go_back_over_midnight(decide: Decide) -> None:
    """St John's 2010-11-07: at 00:01 (02:31Z) it is 23:01 of Saturday again, until 03:30Z."""
    wanted = case(
        message(on_cap="defer"),
        now="2010-11-07T02:45:00Z",
        zone="America/St_Johns",
        caps=[A_DAY],
        history=[sent("2010-11-06T15:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2010-11-07T03:30:00Z"]


# --- synchronised sends -------------------------------------------------------------------------

OFFER = [message("email"), message("push", after="5m"), message("sms", after="10m")]
ON_TIME = ["2026-03-02T10:00:00Z", "2026-03-02T10:05:00Z", "2026-03-02T10:10:00Z"]


@pytest.mark.parametrize("mode", ["any", "all", "first"])
def test_an_empty_group_has_no_decisions(decide: Decide, mode: str) -> None:
    assert decide(case(mode=mode)) == []


@pytest.mark.parametrize("mode", ["any", "all"])
def test_members_keep_their_offsets(decide: Decide, mode: str) -> None:
    assert outcomes(decide(case(*OFFER, mode=mode))) == ON_TIME


def test_the_anchor_waits_for_every_window(decide: Decide) -> None:
    """The text may go from 09:00 on, ten minutes after the e-mail."""
    wanted = case(*OFFER, now="2026-03-02T06:00:00Z", email=[DAYTIME], sms=[OFFICE])
    assert outcomes(decide(wanted)) == [
        "2026-03-02T08:50:00Z",
        "2026-03-02T08:55:00Z",
        "2026-03-02T09:00:00Z",
    ]


def test_an_offset_may_push_the_group_into_the_next_day(decide: Decide) -> None:
    """At 16:50 the text would be due at 17:00, when its window has closed."""
    wanted = case(*OFFER, now="2026-03-02T16:50:00Z", email=[DAYTIME], sms=[OFFICE])
    assert outcomes(decide(wanted))[0] == "2026-03-03T08:50:00Z"


def test_the_smallest_max_delay_bounds_the_group_inclusively(decide: Decide) -> None:
    group = (message("email", max_delay="3d"), message("push", max_delay="2h"))
    wanted = case(*group, now="2026-03-02T06:00:00Z", email=[DAYTIME])
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z"] * 2
    wanted["now"] = "2026-03-02T05:45:00Z"
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z", "no_common_time"]


def test_members_count_against_each_other_in_order(decide: Decide) -> None:
    wanted = case(*OFFER, caps=[{**A_DAY, "limit": 2}])
    assert outcomes(decide(wanted)) == [*ON_TIME[:2], "capped"]
    wanted["policy"]["caps"] = [{**A_DAY, "limit": 3}]
    assert outcomes(decide(wanted)) == ON_TIME


def test_each_member_counts_once_on_its_own_channel(decide: Decide) -> None:
    caps = [{**A_DAY, "channels": [channel]} for channel in ("email", "push", "sms")]
    assert outcomes(decide(case(*OFFER, caps=caps))) == ON_TIME


def test_refused_members_do_not_take_part(decide: Decide) -> None:
    """The text has no consent: its window holds nobody back, and it counts for nobody."""
    wanted = case(
        message("sms"),
        message("email"),
        now="2026-03-02T07:00:00Z",
        sms=[OFFICE],
        caps=[A_DAY],
        profile={"consent": {}},
    )
    assert outcomes(decide(wanted)) == ["no_consent", "2026-03-02T07:00:00Z"]


def test_a_deferrable_member_holds_the_anchor(decide: Decide) -> None:
    wanted = case(
        message("email", on_cap="defer"),
        message("push", after="5m"),
        caps=[{**A_DAY, "channels": ["email"]}],
        history=[sent("2026-03-02T09:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2026-03-03T00:00:00Z", "2026-03-03T00:05:00Z"]


def test_a_skippable_member_is_looked_at_where_the_others_wait_for(decide: Decide) -> None:
    """Today both channels are full; the e-mail waits for tomorrow, where the push fits too."""
    wanted = case(
        message("push"),
        message("email", on_cap="defer"),
        caps=[{**A_DAY, "channels": ["email"]}, {**A_DAY, "channels": ["push"]}],
        history=[sent("2026-03-02T09:00:00Z"), sent("2026-03-02T09:00:00Z", "push")],
    )
    assert outcomes(decide(wanted)) == ["2026-03-03T00:00:00Z"] * 2


def test_the_anchor_is_found_anew_when_a_skippable_member_leaves(decide: Decide) -> None:
    """Only the text had to wait for 09:00, and it is capped."""
    wanted = case(
        message("email"),
        message("sms"),
        now="2026-03-02T07:00:00Z",
        email=[DAYTIME],
        sms=[OFFICE],
        caps=[{**A_DAY, "channels": ["sms"], "limit": 0}],
    )
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z", "capped"]


def test_one_skippable_member_leaves_at_a_time(decide: Decide) -> None:
    """At 09:00 both would be refused; without the push the group goes at 08:00, where the text's
    hour is not yet full."""
    wanted = case(
        message("email"),
        message("push"),
        message("sms"),
        now="2026-03-02T07:00:00Z",
        email=[DAYTIME],
        push=[OFFICE],
        caps=[
            {"channels": ["push"], "limit": 0, "per": "day"},
            {"channels": ["sms"], "limit": 1, "within": "1h"},
        ],
        history=[sent("2026-03-02T09:00:00Z", "sms", state="planned")],
    )
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z", "capped", "2026-03-02T08:00:00Z"]


def test_windows_that_never_meet_lose_the_last_member(decide: Decide) -> None:
    wanted = case(
        message("email"),
        message("sms"),
        now="2026-03-02T07:00:00Z",
        email=[{"days": "mon-sun", "from": "08:00", "to": "12:00"}],
        sms=[{"days": "mon-sun", "from": "13:00", "to": "17:00"}],
    )
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z", "no_common_time"]
    rule = by_planner(wanted)[1]["rule"]
    assert "08:00-12:00, sms window" in rule
    assert rule.endswith("13:00-17:00: not open together for 7d")


def test_members_that_could_not_go_even_alone_leave_first(decide: Decide) -> None:
    """The push meets a cap of 0, the text a closed window; both leave before the last must."""
    wanted = case(
        message("sms", max_delay="1h"),
        message("push"),
        message("email"),
        now="2026-03-02T07:00:00Z",
        email=[DAYTIME],
        sms=[OFFICE],
        caps=[{"channels": ["push"], "limit": 0, "per": "day"}],
    )
    assert outcomes(decide(wanted)) == ["window_closed", "capped", "2026-03-02T08:00:00Z"]


def test_all_members_that_could_not_go_alone_leave_at_once(decide: Decide) -> None:
    """The push meets a cap of 0; the e-mail meets a full day, were it alone. It leaves with the
    push, although it would fit tomorrow, which the text has to wait for."""
    wanted = case(
        message("push", on_cap="defer"),
        message("email"),
        message("sms", on_cap="defer"),
        caps=[
            {**A_DAY, "channels": ["push"], "limit": 0},
            {**A_DAY, "channels": ["email"]},
            {**A_DAY, "channels": ["sms"]},
        ],
        history=[sent("2026-03-02T09:00:00Z"), sent("2026-03-02T09:00:00Z", "sms")],
    )
    assert outcomes(decide(wanted)) == ["capped", "capped", "2026-03-03T00:00:00Z"]


def test_an_earlier_skippable_member_counts_while_the_anchor_is_sought(decide: Decide) -> None:
    """The e-mail alone could go now, and so could the push, but one a week is all there is."""
    wanted = case(
        message("email"),
        message("push", on_cap="defer"),
        caps=[{**A_DAY, "per": "week"}],
    )
    assert outcomes(decide(wanted)) == [MONDAY_10, "capped"]
    wanted["send"]["messages"].reverse()
    assert outcomes(decide(wanted)) == [MONDAY_10, "capped"]


def test_members_keep_to_their_order_not_to_their_offsets(decide: Decide) -> None:
    """The text stands first and counts first, although it would leave last."""
    wanted = case(
        message("sms", after="2h"),
        message("email"),
        caps=[A_DAY],
    )
    assert outcomes(decide(wanted)) == ["2026-03-02T12:00:00Z", "capped"]


def test_members_on_two_sides_of_midnight_count_on_two_days(decide: Decide) -> None:
    wanted = case(
        message("email"), message("push", after="2h"), now="2026-03-02T22:15:00Z", caps=[A_DAY]
    )
    assert outcomes(decide(wanted)) == ["2026-03-02T22:15:00Z", "2026-03-03T00:15:00Z"]


def test_a_cap_between_members_loses_the_last_as_capped(decide: Decide) -> None:
    wanted = case(
        message("email", on_cap="defer", max_delay="3d"),
        message("push", on_cap="defer", max_delay="3d"),
        caps=[{**WITHIN_24H, "within": "7d"}],
    )
    assert outcomes(decide(wanted)) == [MONDAY_10, "capped"]


def test_all_goes_together_or_not_at_all(decide: Decide) -> None:
    wanted = case(
        message("email"),
        message("sms"),
        message("push"),
        mode="all",
        caps=[{**A_DAY, "channels": ["push"], "limit": 0}],
        profile={"consent": {}},
    )
    assert outcomes(decide(wanted)) == ["group_incomplete", "no_consent", "capped"]
    # it names the one that failed, and why
    assert by_planner(wanted)[0]["rule"] == "sms is refused: no_consent"
    wanted["profile"]["consent"] = {"sms": {"*": True}}
    assert by_planner(wanted)[0]["rule"].startswith("push is refused: capped, at most 0 push a day")


def test_all_refuses_the_transactional_member_with_the_others(decide: Decide) -> None:
    wanted = case(
        message("email", kind="transactional"),
        message("push"),
        mode="all",
        caps=[{**A_DAY, "limit": 0}],
    )
    assert outcomes(decide(wanted)) == ["group_incomplete", "capped"]
    wanted["send"]["mode"] = "any"
    assert outcomes(decide(wanted)) == [MONDAY_10, "capped"]


@pytest.mark.parametrize("order", [1, -1])
def test_transactional_members_are_decided_apart(decide: Decide, order: int) -> None:
    """They leave at once, and count for the others, wherever they stand, under counts = "all"."""
    group = [
        message("email", kind="transactional", after="5m"),
        message("push", on_cap="defer"),
    ][::order]
    wanted = case(*group, now="2026-03-02T06:00:00Z", push=[DAYTIME], caps=[A_DAY])
    assert outcomes(decide(wanted))[::order] == ["2026-03-02T06:05:00Z", "2026-03-02T08:00:00Z"]
    wanted["policy"]["caps"] = [{**A_DAY, "counts": "all"}]
    assert outcomes(decide(wanted))[::order] == ["2026-03-02T06:05:00Z", "2026-03-03T08:00:00Z"]


def test_first_takes_the_first_that_can_go(decide: Decide) -> None:
    """Whatever comes after it is not chosen, whatever else it was; what came before says why."""
    wanted = case(
        message("sms"),
        message("email", after="30m"),
        message("push", after="5m"),
        message("sms"),
        mode="first",
        profile={"consent": {}},
    )
    assert outcomes(decide(wanted)) == [
        "no_consent",
        "2026-03-02T10:30:00Z",
        "not_chosen",
        "not_chosen",
    ]


def test_first_hands_over_where_skip_is_refused_and_waits_where_defer_is(decide: Decide) -> None:
    wanted = case(
        message("email", on_cap="skip"),
        message("push", on_cap="defer"),
        message("sms"),
        mode="first",
        caps=[{**A_DAY, "channels": ["email", "push"]}],
        history=[sent("2026-03-02T09:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["capped", "2026-03-03T00:00:00Z", "not_chosen"]


def test_first_looks_at_each_window_alone(decide: Decide) -> None:
    wanted = case(
        message("email", max_delay="1h"),
        message("push", max_delay="2h"),
        message("sms"),
        mode="first",
        now="2026-03-02T06:00:00Z",
        email=[DAYTIME],
        push=[DAYTIME],
    )
    assert outcomes(decide(wanted)) == ["window_closed", "2026-03-02T08:00:00Z", "not_chosen"]


def test_first_may_choose_nobody(decide: Decide) -> None:
    wanted = case(
        message("email"), message("sms"), mode="first", caps=[{**A_DAY, "limit": 0}],
        profile={"consent": {}},
    )  # fmt: skip
    assert outcomes(decide(wanted)) == ["capped", "no_consent"]


def test_first_does_not_count_a_transactional_member_that_is_not_chosen(decide: Decide) -> None:
    wanted = case(
        message("push"),
        message("email", kind="transactional"),
        mode="first",
        caps=[{**A_DAY, "counts": "all"}],
    )
    assert outcomes(decide(wanted)) == [MONDAY_10, "not_chosen"]


# --- malformed cases ----------------------------------------------------------------------------


def put(wanted: Json, path: str, value: Any) -> Json:
    """A copy with that value at that path, or, for `...`, with nothing there."""
    wanted = copy.deepcopy(wanted)
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    inner: Any = wanted
    for key in way:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return wanted


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("now", ..., "now"),
        ("now", "2026-03-02T04:30:00", "now"),
        ("now", "yesterday", "now"),
        ("now", 1772425800, "now"),
        ("policy.timezone", "Mars/Olympus", "timezone"),
        ("policy.week_starts", "someday", "week_starts"),
        ("policy.max_delay", "a week", "max_delay"),
        ("policy.channels.fax", {}, "fax"),
        ("policy.channels.email.consent", "maybe", "consent"),
        ("policy.channels.email.windows", [], "windows"),
        ("policy.channels.email.windows.0.days", "mon-foo", "days"),
        ("policy.channels.email.windows.0.from", "25:00", "from"),
        ("policy.channels.email.windows.0.from", "24:00", "windows"),
        ("policy.channels.email.windows.0.from", "21:00", "from"),
        ("policy.channels.email.windows.0.to", "24:01", "to"),
        ("policy.channels.email.windows.0.to", "9pm", "to"),
        ("policy.channels.email.windows.0.to", ..., "to"),
        ("policy.caps.0.channels", ["fax"], "channels"),
        ("policy.caps.0.limit", -1, "limit"),
        ("policy.caps.0.limit", 1.5, "limit"),
        ("policy.caps.0.limit", ..., "limit"),
        ("policy.caps.0.per", "year", "per"),
        ("policy.caps.0.per", ..., "per"),
        ("policy.caps.0.within", "24h", "within"),
        ("policy.caps.0.counts", "some", "counts"),
        ("profile.addresses", "a@example.com", "addresses"),
        ("profile.consent", {"email": {"*": "perhaps"}}, "consent"),
        ("profile.suppressed", ["fax"], "suppressed"),
        ("history", {}, "history"),
        ("history.0.channel", "fax", "channel"),
        ("history.0.send_at", "2026-03-02T04:30:00", "send_at"),
        ("history.0.send_at", ..., "send_at"),
        ("history.0.state", "lost", "state"),
        ("history.0.kind", "spam", "kind"),
        ("send", ..., "send"),
        ("send.mode", "some", "mode"),
        ("send.messages", ..., "messages"),
        ("send.messages", {}, "messages"),
        ("send.messages.0.channel", "fax", "channel"),
        ("send.messages.0.channel", ..., "channel"),
        ("send.messages.0.kind", "spam", "kind"),
        ("send.messages.0.after", "soon", "after"),
        ("send.messages.0.after", "-5m", "after"),
        ("send.messages.0.after", 5, "after"),
        ("send.messages.0.after", "\N{ARABIC-INDIC DIGIT FIVE}m", "after"),
        ("send.messages.0.on_cap", "wait", "on_cap"),
        ("send.messages.0.max_delay", "1w", "max_delay"),
    ],
)
def test_a_malformed_case_is_refused_by_the_name_of_the_field(
    path: str, value: Any, named: str
) -> None:
    wanted = case(message(), email=[DAYTIME], caps=[A_DAY], history=[sent(MONDAY_10)])
    assert outcomes(by_planner(wanted)) == ["capped"]
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        answer_case(put(wanted, path, value), DEFAULT)


@pytest.mark.parametrize(
    "path", ["history.0.topic", "send.messages.0.topic", "send.messages.0.max_delay"]
)
def test_null_says_as_much_as_leaving_out(path: str) -> None:
    deferred = message(on_cap="defer", max_delay="1h")
    wanted = case(deferred, caps=[A_DAY], history=[sent(MONDAY_10)])
    answers = [answer_case(put(wanted, path, value), DEFAULT) for value in (None, ...)]
    assert answers[0] == answers[1]


def test_null_is_no_address(decide: Decide) -> None:
    nowhere = {"addresses": {"email": None, "sms": None, "push": None}}
    wanted = case(message("email"), message("sms"), message("push"), profile=nowhere)
    assert outcomes(decide(wanted)) == ["no_address"] * 3


def test_a_case_without_a_policy_takes_the_configured_one() -> None:
    wanted = put(case(message(), now="2026-03-02T04:30:00Z"), "policy", ...)
    office = Policy.model_validate({"channels": {"email": {"windows": [OFFICE]}}})
    assert outcomes(by_planner(wanted)) == ["2026-03-02T04:30:00Z"]
    (decision,) = answer_case(wanted, Planner(office))["decisions"]
    assert decision["send_at"] == "2026-03-02T09:00:00Z"


def test_the_answer_does_not_change_its_case() -> None:
    wanted = case(*OFFER, email=[DAYTIME], caps=[A_DAY], history=[sent(MONDAY_10)])
    again = case(*OFFER, email=[DAYTIME], caps=[A_DAY], history=[sent(MONDAY_10)])
    answer_case(wanted, DEFAULT)
    assert wanted == again
