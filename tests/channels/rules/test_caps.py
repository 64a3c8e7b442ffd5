"""Caps: what they count, over which period, and when a deferred message is sent."""

import pytest

from tests.support.planning.planner_cases import (
    A_DAY,
    MONDAY_10,
    OFFICE,
    WAKING_HOURS,
    WITHIN_24H,
    Decide,
    Json,
    by_planner,
    case,
    message,
    outcomes,
    sent,
)


def test_calendar_days_change_at_midnight(decide: Decide) -> None:
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
    """Two a day leave room, one a week does not until Monday, one in 6 days not until Tuesday."""
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
            email=[WAKING_HOURS],
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
        caps=[
            {"channels": "all", "limit": 1440, "per": "day"},
            {"channels": "all", "limit": 1440, "within": "24h"},
            {"channels": "all", "limit": 28 * 1440, "per": "month"},
        ],
    )
    wanted["history"] = history
    assert outcomes(by_planner(wanted)) == ["2026-03-01T00:00:00Z"]
    wanted["policy"]["caps"] = [{"channels": "all", "limit": 100, "within": "24h"}]
    assert outcomes(by_planner(wanted)) == ["2026-03-01T22:20:00Z"]
    wanted["policy"]["caps"] = [{"channels": "all", "limit": 50_000, "within": "40d"}]
    assert outcomes(by_planner(wanted)) == ["2026-03-03T06:40:00Z"]


def test_a_deferred_message_gets_the_first_time_that_fits(decide: Decide) -> None:
    """Not one whole period later: 24 h after the one sent, midnight, or the opening after it."""
    wanted = case(
        message(on_cap="defer"), caps=[WITHIN_24H], history=[sent("2026-03-02T09:00:00Z")]
    )
    assert outcomes(decide(wanted)) == ["2026-03-03T09:00:00Z"]
    wanted["policy"]["caps"] = [A_DAY]
    assert outcomes(decide(wanted)) == ["2026-03-03T00:00:00Z"]
    wanted["policy"]["channels"] = {"email": {"windows": [WAKING_HOURS]}}
    assert outcomes(decide(wanted)) == ["2026-03-03T08:00:00Z"]


def test_a_deferred_message_avoids_later_planned_messages(decide: Decide) -> None:
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


def test_on_cap_is_skip_by_default(decide: Decide) -> None:
    wanted = case(message(), caps=[A_DAY], history=[sent("2026-03-02T09:00:00Z")])
    assert outcomes(decide(wanted)) == ["capped"]


def test_caps_are_evaluated_at_the_opening_of_the_window(decide: Decide) -> None:
    """Wanted on Sunday, which is full; the window opens on Monday, which is not."""
    wanted = case(
        message(),
        now="2026-03-01T12:00:00Z",
        email=[OFFICE],
        caps=[A_DAY],
        history=[sent("2026-03-01T09:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2026-03-02T09:00:00Z"]


def test_weeks_start_on_the_day_in_the_policy(decide: Decide) -> None:
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


def test_months_follow_the_recipients_time_zone(decide: Decide) -> None:
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


def test_clocks_that_are_set_back_over_midnight(decide: Decide) -> None:
    """St John's 2010-11-07: at 00:01 (02:31Z) it is 23:01 of Saturday again, until 03:30Z."""
    wanted = case(
        message(on_cap="defer"),
        now="2010-11-07T02:45:00Z",
        zone="America/St_Johns",
        caps=[A_DAY],
        history=[sent("2010-11-06T15:00:00Z")],
    )
    assert outcomes(decide(wanted)) == ["2010-11-07T03:30:00Z"]
