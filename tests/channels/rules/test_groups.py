"""Groups: the common anchor, refused members, and the modes."""

import pytest

from tests.support.planning.planner_cases import (
    A_DAY,
    MONDAY_10,
    OFFER,
    OFFICE,
    WAKING_HOURS,
    WITHIN_24H,
    Decide,
    by_planner,
    case,
    message,
    outcomes,
    sent,
)

ON_TIME = ["2026-03-02T10:00:00Z", "2026-03-02T10:05:00Z", "2026-03-02T10:10:00Z"]


@pytest.mark.parametrize("mode", ["any", "all", "first"])
def test_an_empty_group_has_no_decisions(decide: Decide, mode: str) -> None:
    assert decide(case(mode=mode)) == []


@pytest.mark.parametrize("mode", ["any", "all"])
def test_members_keep_their_offsets(decide: Decide, mode: str) -> None:
    assert outcomes(decide(case(*OFFER, mode=mode))) == ON_TIME


def test_the_anchor_waits_for_every_window(decide: Decide) -> None:
    """The text's window opens at 09:00, and the text follows ten minutes after the e-mail."""
    wanted = case(*OFFER, now="2026-03-02T06:00:00Z", email=[WAKING_HOURS], sms=[OFFICE])
    assert outcomes(decide(wanted)) == [
        "2026-03-02T08:50:00Z",
        "2026-03-02T08:55:00Z",
        "2026-03-02T09:00:00Z",
    ]


def test_an_offset_may_push_the_group_into_the_next_day(decide: Decide) -> None:
    """At 16:50 the text would be due at 17:00, when its window has closed."""
    wanted = case(*OFFER, now="2026-03-02T16:50:00Z", email=[WAKING_HOURS], sms=[OFFICE])
    assert outcomes(decide(wanted))[0] == "2026-03-03T08:50:00Z"


def test_the_smallest_max_delay_bounds_the_group_inclusively(decide: Decide) -> None:
    group = (message("email", max_delay="3d"), message("push", max_delay="2h"))
    wanted = case(*group, now="2026-03-02T06:00:00Z", email=[WAKING_HOURS])
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
    """The text has no consent, so its window delays no member, and it counts for no cap."""
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
        email=[WAKING_HOURS],
        sms=[OFFICE],
        caps=[{**A_DAY, "channels": ["sms"], "limit": 0}],
    )
    assert outcomes(decide(wanted)) == ["2026-03-02T08:00:00Z", "capped"]


def test_one_skippable_member_leaves_at_a_time(decide: Decide) -> None:
    """At 09:00 both would be refused; without the push the group is sent at 08:00, when the text's
    hour is not full."""
    wanted = case(
        message("email"),
        message("push"),
        message("sms"),
        now="2026-03-02T07:00:00Z",
        email=[WAKING_HOURS],
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


def test_members_that_are_refused_alone_leave_first(decide: Decide) -> None:
    """The push meets a cap of 0, the text a closed window; both leave before the last must."""
    wanted = case(
        message("sms", max_delay="1h"),
        message("push"),
        message("email"),
        now="2026-03-02T07:00:00Z",
        email=[WAKING_HOURS],
        sms=[OFFICE],
        caps=[{"channels": ["push"], "limit": 0, "per": "day"}],
    )
    assert outcomes(decide(wanted)) == ["window_closed", "capped", "2026-03-02T08:00:00Z"]


def test_all_members_that_are_refused_alone_leave_at_once(decide: Decide) -> None:
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
    """The e-mail alone could be sent now, and so could the push, but the cap allows one a week."""
    wanted = case(
        message("email"),
        message("push", on_cap="defer"),
        caps=[{**A_DAY, "per": "week"}],
    )
    assert outcomes(decide(wanted)) == [MONDAY_10, "capped"]
    wanted["send"]["messages"].reverse()
    assert outcomes(decide(wanted)) == [MONDAY_10, "capped"]


def test_members_keep_to_their_order_not_to_their_offsets(decide: Decide) -> None:
    """The text is first in the list and counts first, although it would be sent last."""
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


def test_mode_all_sends_every_member_or_none(decide: Decide) -> None:
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
    wanted = case(*group, now="2026-03-02T06:00:00Z", push=[WAKING_HOURS], caps=[A_DAY])
    assert outcomes(decide(wanted))[::order] == ["2026-03-02T06:05:00Z", "2026-03-02T08:00:00Z"]
    wanted["policy"]["caps"] = [{**A_DAY, "counts": "all"}]
    assert outcomes(decide(wanted))[::order] == ["2026-03-02T06:05:00Z", "2026-03-03T08:00:00Z"]


def test_first_takes_the_first_that_can_go(decide: Decide) -> None:
    """Later members are not chosen; earlier ones have the reason of their refusal."""
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
        email=[WAKING_HOURS],
        push=[WAKING_HOURS],
    )
    assert outcomes(decide(wanted)) == ["window_closed", "2026-03-02T08:00:00Z", "not_chosen"]


def test_mode_first_may_choose_no_member(decide: Decide) -> None:
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
