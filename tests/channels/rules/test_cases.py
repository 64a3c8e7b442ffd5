"""Malformed cases are refused with the name of the field; optional fields may be missing."""

import copy
from typing import Any

import pytest

from channels.rules.cases import answer_case
from channels.rules.planner import Planner
from config.policy import Policy
from tests.support.planning.compare_planner import DEFAULT
from tests.support.planning.planner_cases import (
    A_DAY,
    MONDAY_10,
    OFFER,
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
    wanted = case(message(), email=[WAKING_HOURS], caps=[A_DAY], history=[sent(MONDAY_10)])
    assert outcomes(by_planner(wanted)) == ["capped"]
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        answer_case(put(wanted, path, value), DEFAULT)


@pytest.mark.parametrize(
    "path", ["history.0.topic", "send.messages.0.topic", "send.messages.0.max_delay"]
)
def test_null_equals_a_missing_field(path: str) -> None:
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
    wanted = case(*OFFER, email=[WAKING_HOURS], caps=[A_DAY], history=[sent(MONDAY_10)])
    again = case(*OFFER, email=[WAKING_HOURS], caps=[A_DAY], history=[sent(MONDAY_10)])
    answer_case(wanted, DEFAULT)
    assert wanted == again
