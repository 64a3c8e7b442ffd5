"""What would go to a customer now, by the rules of the engine."""

from config.policy import Policy
from journeys.definition.steps import MessageSpec
from journeys.dsl import SMS, Email, Journey, OnLaunch, Push, Send, Wait
from journeys.explain.would_go import WouldGo, would_go
from journeys.operations.control import pause
from tests.support.shop import House

POLICY = Policy.model_validate(
    {
        "max_delay": "3d",
        "channels": {
            "sms": {"windows": [{"days": "mon-sun", "from": "20:00", "to": "21:00"}]},
        },
        "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
    }
)


def letters(name: str, *messages: MessageSpec) -> Journey:
    steps = [Send("hello", *messages), Wait("1d")]
    return Journey(name, entry=OnLaunch(), topic="promotions", steps=steps)


def asked(house: House, profile_id: int) -> dict[tuple[str, str], WouldGo]:
    segue = house.segue
    with house.db.transaction(write=False) as tx:
        found = would_go(tx, segue.catalog, segue.policy, segue.settings, profile_id, "UTC")
    return {(one.journey, one.channel): one for one in found}


def test_each_message_is_decided_as_the_engine_would(house: House) -> None:
    mixed = letters("mixed", Email("hello"), Push("hello"))
    others = letters("mail", Email("offer")), letters("text", SMS("hello"))
    house.open(mixed, *others, policy=POLICY)
    ann = house.customer("ann", push_tokens={})
    found = asked(house, ann)
    assert found["mixed", "email"].goes == "now"
    assert found["mixed", "email"].why == ""
    assert found["text", "sms"].goes == "later"
    assert found["text", "sms"].why == "It waits for Mon 2026-03-02 20:00 UTC."
    assert found["mixed", "push"].goes == "not"
    assert found["mixed", "push"].why.startswith("The customer has no ")
    assert house.rows() == []

    # Afterwards the day's mail is used up: as the engine refuses it, so does the answer.
    house.launch("mixed")
    refused = asked(house, ann)["mail", "email"]
    assert refused.goes == "not"
    assert refused.why.startswith("A frequency cap was full. Rule: ")
    house.launch("mail")
    [row] = [one for one in house.rows() if one.journey == "mail"]
    assert (row.state, row.reason) == ("skipped", "capped")


def test_missing_data_and_a_pause_are_reasons(house: House) -> None:
    texts = {"hello.email.html": "Subject: Hi\n\n<p>{{ profile.favourite }}</p>"}
    house.open(letters("mail", Email("hello")), texts=texts)
    ann = house.customer("ann")
    lacking = asked(house, ann)["mail", "email"]
    assert lacking.goes == "not"
    assert "prints profile.favourite, which has no value" in lacking.why
    pause(house.db, "mail")
    paused = asked(house, ann)["mail", "email"]
    assert paused.goes == "not"
    assert paused.why == "The journey is paused: nothing moves and nothing is sent."
