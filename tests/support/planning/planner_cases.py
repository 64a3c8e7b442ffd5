"""Short cases of the planning rules, for the planner and the reference.

The reference is tested with them too, because it is used to test the planner.
"""

import copy
from collections.abc import Callable
from typing import Any

from channels.rules.cases import answer_case
from tests.support.planning.compare_planner import DEFAULT, WITH_RULE
from tests.support.planning.random_cases import step_of
from tests.support.planning.reference import reference_answer

Json = dict[str, Any]
Decide = Callable[[Json], list[Json]]

OFFICE = {"days": "mon-fri", "from": "09:00", "to": "17:00"}
WAKING_HOURS = {"days": "mon-sun", "from": "08:00", "to": "21:00"}
A_DAY = {"channels": "all", "limit": 1, "per": "day"}
WITHIN_24H = {"channels": "all", "limit": 1, "within": "24h"}
MONDAY_10 = "2026-03-02T10:00:00Z"


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
    """A case of a customer with every address; `email=[...]` sets the windows of e-mail."""
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


OFFER = [message("email"), message("push", after="5m"), message("sms", after="10m")]


def outcomes(decisions: list[Json]) -> list[str]:
    """For each message: when it is sent, or why not."""
    for decision in decisions:
        assert (decision["outcome"] == "send") == (decision["reason"] is None)
        assert (decision["outcome"] == "send") == (decision["send_at"] is not None)
        assert decision["outcome"] in ("send", "not_sent")
    return [decision["reason"] or decision["send_at"] for decision in decisions]
