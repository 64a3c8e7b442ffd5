"""The planner agrees with the reference on generated cases."""

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.rules.cases import answer_case
from config.clock.times import DAY, HOUR, MINUTE, format_duration, format_instant, parse_instant
from tests.support.planning.compare_planner import DEFAULT, disagreement
from tests.support.planning.random_cases import all_clock_changes, random_case, step_of
from tests.support.planning.reference import Judge, edge, local, openings
from tests.support.proof import cases

large = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
generated = st.randoms(use_true_random=False).map(random_case)


@settings(large, max_examples=cases(test=300, prove=20_000))
@given(case=generated)
def test_planner_and_reference_agree(case: dict[str, Any]) -> None:
    assert disagreement(case) is None


@settings(large, max_examples=cases(test=100, prove=5000))
@given(case=generated, seed=st.integers(0, 2**32))
def test_a_single_message_is_sent_at_the_first_second_that_fits(
    case: dict[str, Any], seed: int
) -> None:
    """Ten days and single seconds, too far to step through: the moment given fits, and neither
    the second before it nor any of many looked at on the way does."""
    random = Random(seed)
    for entry in [case, *case["history"]]:
        key = "now" if entry is case else "send_at"
        jittered = parse_instant(entry[key]) + random.randrange(-HOUR, HOUR)
        entry[key] = format_instant(jittered)
    wanted = {"channel": "email", "kind": "marketing", "topic": "promotions", "on_cap": "defer"}
    wanted["max_delay"] = format_duration(random.randrange(10 * DAY))
    case["send"] = {"mode": "any", "messages": [wanted]}
    case["profile"] |= {"addresses": {"email": "a@example.com"}, "consent": {}, "suppressed": []}
    case["profile"]["held_out"] = False
    case["policy"]["channels"].get("email", {}).pop("consent", None)

    judge = Judge(case, 1)
    (member,) = judge.members

    def fits(moment: int) -> bool:
        return judge.is_open(member, moment) and judge.caps_hold(member, moment, judge.history)

    (decision,) = answer_case(case, DEFAULT)["decisions"]
    if decision["outcome"] == "send":
        end = parse_instant(decision["send_at"])
        assert judge.now <= end <= judge.now + member.max_delay
        assert fits(end)
        assert end == judge.now or not fits(end - 1)
    else:
        assert decision["reason"] in ("capped", "window_closed")
        end = judge.now + member.max_delay + 1
    minutes = range(judge.now, end, 20 * MINUTE)
    seconds = [random.randrange(judge.now, end) for _ in range(100 if end > judge.now else 0)]
    assert not any(fits(moment) for moment in [*minutes, *seconds] if moment < end)


@settings(large, max_examples=cases(test=100, prove=5000))
@given(case=generated, seed=st.integers(0, 2**32))
def test_the_order_of_the_history_does_not_matter(case: dict[str, Any], seed: int) -> None:
    before = answer_case(case, DEFAULT)
    Random(seed).shuffle(case["history"])
    after = answer_case(case, DEFAULT)
    keys = ("outcome", "send_at", "reason")
    assert [[d[key] for key in keys] for d in after["decisions"]] == [
        [d[key] for key in keys] for d in before["decisions"]
    ]


@pytest.mark.proof
def test_every_zone_at_every_clock_change() -> None:
    """Windows that open or close near the change, or in it, asked at each edge and a second
    before it. Every change of every zone from 2024 to 2030, one window each; in `make test` a
    tenth of them."""
    random = Random(1)
    changes = all_clock_changes()
    assert len(changes) > 2500
    number = cases(test=len(changes) // 10, prove=len(changes))
    for zone_name, change in random.sample(changes, number):
        window = {"days": random.choice(["mon-sun", "mon-sun", "sat-mon", "sun", "sat", "mon-fri"])}
        window |= _clocks(random, zone_name, change)
        spans = openings([window], zone_name, change - 2 * DAY, change + 6 * DAY)
        edges = {moment for span in spans for moment in span if abs(moment - change) < 30 * HOUR}
        for now in sorted(at + beside for at in {change, *edges} for beside in (-1, 0)):
            first = min(max(now, opens) for opens, closes in spans if max(now, opens) < closes)
            case = _wanted(zone_name, window, now)
            (decision,) = answer_case(case, DEFAULT)["decisions"]
            due = format_instant(first) if first <= now + 3 * DAY else None
            assert decision["send_at"] == due, (case, decision)


def _clocks(random: Random, zone_name: str, change: int) -> dict[str, str]:
    """A window whose edges lie near what the clock shows before or after the change."""
    while True:
        walls = [
            local(change + random.choice([-1, 0]) + random.randrange(-120, 120) * MINUTE, zone_name)
            if random.random() < 0.8
            else local(change + random.randrange(DAY), zone_name)
            for _ in range(2)
        ]
        opens, closes = (f"{wall:%H:%M}" for wall in walls)
        if closes == "00:00" and random.random() < 0.5:
            closes = "24:00"
        if opens != closes:
            return {"from": opens, "to": closes}


def _wanted(zone_name: str, window: dict[str, str], now: int) -> dict[str, Any]:
    return {
        "id": zone_name,
        "now": format_instant(now),
        "policy": {"timezone": "UTC", "channels": {"email": {"windows": [window]}}},
        "profile": {"timezone": zone_name, "addresses": {"email": "a@example.com"}},
        "send": {
            "mode": "any",
            "messages": [
                {
                    "channel": "email",
                    "kind": "marketing",
                    "topic": "promotions",
                    "max_delay": "3d",
                }
            ],
        },
    }


# --- the reference itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "zone_name", ["America/Havana", "Antarctica/Troll", "Australia/Lord_Howe", "Europe/Berlin"]
)
def test_the_reference_finds_edges_as_a_walk_over_every_minute_does(zone_name: str) -> None:
    random = Random(zone_name)
    changes = [change for name, change in all_clock_changes() if name == zone_name][:4]
    assert len(changes) == 4
    for change in changes:
        shown = {t: local(t, zone_name) for t in range(change - DAY, change + DAY, MINUTE)}
        for _ in range(20):
            wall = local(change, zone_name).replace(minute=random.choice([0, 15, 30, 59]))
            wall = wall.replace(hour=random.randrange(4))
            seen = [t for t, clock in shown.items() if clock == wall]
            later = [t for t, clock in shown.items() if clock > wall]
            assert edge(zone_name, wall, closing=False) == (seen or later)[0]
            assert edge(zone_name, wall, closing=True) == (seen[-1] if seen else later[0])


def test_the_generator_reaches_every_reason_and_grid() -> None:
    random = Random(3)
    reasons, steps = set(), set()
    for _ in range(400):
        case = random_case(random)
        steps.add(step_of(case))
        judge = Judge(case, step_of(case))
        judge.decide()
        reasons |= {member.reason for member in judge.members}
    assert steps == {1, MINUTE, 15 * MINUTE}
    assert reasons == {
        None, "no_address", "suppressed", "no_consent", "held_out", "capped", "window_closed",
        "no_common_time", "group_incomplete", "not_chosen",
    }  # fmt: skip
