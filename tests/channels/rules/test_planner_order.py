"""The order of immediate refusals: no address, suppressed, no consent, holdout."""

import pytest

from channels.rules.cases import answer_case
from tests.support.planning.compare_planner import DEFAULT
from tests.support.planning.planner_cases import (
    A_DAY,
    MONDAY_10,
    WAKING_HOURS,
    Decide,
    case,
    message,
    outcomes,
    sent,
)


def test_example_of_the_case_format(decide: Decide) -> None:
    example = case(
        message(after="0s", on_cap="defer", max_delay="3d"),
        now="2026-03-02T04:30:00Z",
        zone="Europe/Berlin",
        email=[WAKING_HOURS],
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


def test_unset_consent_follows_the_channel(decide: Decide) -> None:
    """E-mail and push are opt-out unless the policy differs; SMS is always opt-in."""
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
