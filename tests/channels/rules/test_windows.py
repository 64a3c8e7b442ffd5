"""Windows: messages are sent inside them, also at clock changes, and within their maximum delay."""

import pytest

from tests.support.planning.planner_cases import (
    A_DAY,
    MONDAY_10,
    OFFICE,
    WAKING_HOURS,
    Decide,
    Json,
    by_planner,
    case,
    message,
    outcomes,
    sent,
)


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
    wanted = case(message(), now="2026-03-02T20:59:59Z", email=[WAKING_HOURS])
    assert outcomes(by_planner(wanted)) == ["2026-03-02T20:59:59Z"]


def test_the_start_of_a_window_is_inside(decide: Decide) -> None:
    wanted = case(message(), now="2026-03-02T08:00:00Z", email=[WAKING_HOURS])
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
    wanted = case(message(max_delay="2h"), now="2026-03-02T06:00:00Z", email=[WAKING_HOURS])
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z"]
    wanted["now"] = "2026-03-02T05:45:00Z"
    assert outcomes(decide(wanted)) == ["window_closed"]


def test_no_delay_at_all(decide: Decide) -> None:
    wanted = case(message(max_delay="0s"), email=[WAKING_HOURS])
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
