"""An operator resolves unknown messages."""

import httpx
import pytest

from channels.outbox.unknown import Verdict, resolve, unknown_messages
from config.clock.times import HOUR
from config.database.engine import Database
from config.policy import Policy
from journeys.dsl import SMS, Email, Journey, OnLaunch, Send
from tests.support.shop import MONDAY, House

POLICY = Policy.model_validate({"caps": [{"channels": ["email"], "limit": 1, "per": "day"}]})


@pytest.fixture
def house(db: Database) -> House:
    """One unknown mail and one unknown text, an hour apart, and a mail that was sent."""
    house = House(db)
    steps = [Send("s", Email("hello"), SMS("hello", after="1h"))]
    house.open(
        Journey("j", entry=OnLaunch(), topic="news", steps=steps),
        Journey("k", entry=OnLaunch(), topic="news", steps=[Send("s", Email("offer"))]),
        policy=POLICY,
    )
    house.customer("ann")
    house.providers.answer("email", httpx.ReadError("cut"))
    house.providers.answer("sms", httpx.ReadTimeout("slow"))
    house.launch("j")
    house.later("2h")
    house.customer("bob", consent={("email", "*"): True})
    house.launch("j")
    return house


def unknown(house: House, message_id: int | None = None) -> list[tuple[int, str, int]]:
    with house.db.transaction(write=False) as tx:
        return list(unknown_messages(tx, message_id))


def settle(house: House, ids: list[int], verdict: Verdict) -> int:
    with house.db.transaction() as tx:
        return resolve(tx, ids, verdict)


def test_unknown_messages_are_listed(house: House) -> None:
    mail, text, *_ = house.rows()
    assert unknown(house) == [(mail.id, "email", MONDAY), (text.id, "sms", MONDAY + HOUR)]
    assert unknown(house, text.id) == [(text.id, "sms", MONDAY + HOUR)]
    sent = house.rows()[2]
    assert sent.state == "sent"
    assert unknown(house, sent.id) == []


@pytest.mark.parametrize("verdict", ["sent", "failed"])
def test_one_unknown_message_is_resolved(house: House, verdict: Verdict) -> None:
    mail, text, *others = house.rows()
    assert settle(house, [mail.id], verdict) == 1
    now = {row.id: (row.state, row.reason) for row in house.rows()}
    assert now[mail.id] == (verdict, "resolved by an operator")
    assert now[text.id][0] == "unknown"
    assert [now[row.id] for row in others] == [(row.state, row.reason) for row in others]
    # once
    assert settle(house, [mail.id], "failed") == 0
    house.later("2d")
    assert len(house.providers.requests) == 3


def test_only_unknown_messages_are_resolved(house: House) -> None:
    ids = [row.id for row in house.rows()]
    assert settle(house, ids, "failed") == 2
    assert unknown(house) == []
    assert settle(house, [], "failed") == 0
    # as many as there are in a bad week, in one statement
    assert settle(house, list(range(10_000, 60_000)), "failed") == 0


@pytest.mark.parametrize(
    ("verdict", "next_one"), [("sent", ("skipped", "capped")), ("failed", ("sent", None))]
)
def test_a_message_resolved_as_failed_no_longer_counts_against_caps(
    house: House, verdict: Verdict, next_one: tuple[str, str | None]
) -> None:
    mail = house.rows()[0]
    settle(house, [mail.id], verdict)
    house.launch("k")
    [row] = [row for row in house.rows(mail.profile_id) if row.journey == "k"]
    assert (row.state, row.reason) == next_one
