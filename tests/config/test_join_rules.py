"""The policy's limits of joins: defaults, forms, and errors that name the place and the fix."""

from pathlib import Path

import pytest

from config.clock.times import DAY
from config.errors import SegueError
from config.join_rules import JOIN_KINDS, JoinLimit
from config.policy import Policy, load_policy
from profiles.identity.placeholders import Meaningless


def load(folder: Path, text: str) -> Policy:
    file = folder / "policy.toml"
    file.write_text(text)
    return load_policy(file)


def test_the_defaults(tmp_path: Path) -> None:
    joins = load(tmp_path, "").joins
    assert {kind: (one.limit, one.within) for kind, one in joins.limits.items()} == {
        "user_id": (1, None),
        "email": (5, 365 * DAY),
        "anonymous_id": (5, 7 * DAY),
    }
    assert joins.priority == JOIN_KINDS


def test_a_named_kind_leaves_the_defaults_of_the_others(tmp_path: Path) -> None:
    text = """
    [joins]
    priority = ["email", "user_id", "phone", "anonymous_id", "push_token"]
    [joins.limits]
    anonymous_id = { limit = 20, within = "30d" }
    phone = { limit = 2 }
    email = "none"
    """
    joins = load(tmp_path, text).joins
    assert joins.limits.keys() == {"user_id", "anonymous_id", "phone"}
    assert joins.limits["anonymous_id"] == JoinLimit.model_validate({"limit": 20, "within": "30d"})
    assert str(joins.limits["anonymous_id"]) == "at most 20 in 30d"
    assert str(joins.limits["phone"]) == "at most 2"
    assert joins.strength("email") < joins.strength("user_id")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[joins.limits]\nemail = 5", "joins.limits: email: write { limit = 5 }, { limit = 5, "),
        ("[joins.limits]\nmail = { limit = 1 }", "joins.limits: 'mail' is not one of user_id, "),
        ("[joins.limits]\nemail = { limit = 0 }", "joins.limits.email.limit: "),
        ("[joins.limits]\nemail = { limit = true }", "joins.limits.email.limit: "),
        (
            '[joins.limits]\nemail = { limit = 2, within = "soon" }',
            "joins.limits.email.within: 'soon' is not a duration; write a number and s, m, h or d",
        ),
        ('[joins.limits]\nemail = { limit = 2, within = "0d" }', "joins.limits.email.within: "),
        (
            "[joins.limits]\nemail = { limit = 2, per = 'day' }",
            "joins.limits.email: there is no 'per' here; there are: limit, within",
        ),
        ("[joins]\nlimits = 3", "joins.limits: write one limit a kind, such as email = "),
        ("[joins]\nlimit = 3", "joins: there is no 'limit' here; did you mean 'limits'"),
        (
            '[joins]\npriority = ["user_id", "email"]',
            "joins: priority: name each of user_id, email, phone, push_token, anonymous_id once, "
            "the strongest first; it lacks phone, push_token, anonymous_id",
        ),
        ('[joins]\npriority = ["cookie"]', "joins.priority[0]: "),
        (
            'meaningless = [{ pattern = "test-(" }]',
            "meaningless[0].pattern: 'test-(' is not a regular expression: ",
        ),
        ("meaningless = [5]", "meaningless[0].text: "),
    ],
)
def test_an_error_names_the_place_and_the_fix(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(SegueError) as raised:
        load(tmp_path, text)
    assert f"policy.toml: {error}" in str(raised.value)


def test_patterns_and_values_never_identify(tmp_path: Path) -> None:
    policy = load(tmp_path, 'meaningless = ["Guest", { pattern = "test-\\\\d+" }]')
    found = Meaningless(policy.meaningless)
    for value in ("guest", " GUEST ", "test-1", "TEST-22", "unknown", "null", "N/A", "anonymous"):
        assert value in found
    assert "00000000-0000-0000-0000-000000000000" in found
    for value in ("test-", "test-1a", "guests", "unknown-7"):
        assert value not in found
