"""Several providers of one channel: settings choose the provider of each message, and a failing
provider stops only its own messages.
"""

from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import select

from channels.outbox.dispatch import Dispatcher
from config.timing import TIMING
from journeys.dsl import Email, Journey, OnLaunch, Send
from journeys.engine.entry import enter_people
from profiles.tables import consents
from tests.support.clocks import own_clock
from tests.support.providers.suppressing import suppressed
from tests.support.shop import House

BY_KIND: dict[str, Any] = {"email_provider_by_kind": '{"transactional": "postmark"}'}
BY_TOPIC: dict[str, Any] = {"email_provider_by_topic": '{"receipts": "postmark"}'}


def enter(house: House, journey: str, *customers: int) -> None:
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey(journey), customers, None)
    house.advance()


def planned(house: House, people: int = 3, *, kind: Any = "transactional", **settings: Any) -> None:
    """News and receipts to so many people, due now."""
    news = Send("s", Email("hello"))
    receipt = Send("s", Email("offer"), kind=kind)
    house.open(
        Journey("news", entry=OnLaunch(), topic="news", steps=[news]),
        Journey("receipt", entry=OnLaunch(), topic="receipts", steps=[receipt]),
        **settings,
    )
    customers = [house.customer() for _ in range(people)]
    enter(house, "news", *customers)
    enter(house, "receipt", *customers)


def sent_by(house: House) -> dict[str, set[str]]:
    """The subjects that each provider was given."""
    found: dict[str, set[str]] = {}
    for request in house.providers.requests:
        mails = orjson.loads(request.content)
        if request.url.path == "/email/batch":
            found.setdefault("postmark", set()).update(one["Subject"] for one in mails)
        else:
            found.setdefault("sendgrid", set()).add(mails["subject"])
    return found


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("transactional", BY_KIND), ("marketing", BY_TOPIC), ("marketing", BY_TOPIC | BY_KIND)],
    ids=["kind", "topic", "both"],
)
def test_each_message_is_sent_by_its_provider(
    house: House, kind: str, settings: dict[str, Any]
) -> None:
    planned(house, kind=kind, **settings)
    house.dispatch()
    assert {row.state for row in house.rows()} == {"sent"}
    assert len(house.providers.accepted) == 6
    assert sent_by(house) == {"sendgrid": {"hello"}, "postmark": {"offer"}}


def test_a_stopped_provider_stops_only_what_it_sends(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    planned(house, **BY_KIND)
    house.providers.answer("postmark", httpx.Response(401))

    def states(journey: str) -> list[str]:
        return [row.state for row in house.rows() if row.journey == journey]

    async def run(dispatcher: Dispatcher) -> None:
        await dispatcher.run()
        assert (states("news"), states("receipt")) == (["sent"] * 3, ["planned"] * 3)
        enter(house, "news", house.customer())
        house.db.now = house.now + TIMING.refused_pause - 1
        await dispatcher.run()
        assert (states("news"), states("receipt")) == (["sent"] * 4, ["planned"] * 3)
        house.db.now = house.now + 1
        while await dispatcher.run():
            pass

    house.dispatching(run)
    assert f"postmark is paused for {TIMING.refused_pause} s" in caplog.text
    assert caplog.text.count("is paused for") == 1
    assert {row.state for row in house.rows()} == {"sent"}


def test_a_rate_holds_for_its_provider_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(house, people=6, rates={"postmark": 2}, **BY_KIND)
    now = house.now

    async def run(dispatcher: Dispatcher) -> None:
        await dispatcher.run()

    set_clock = own_clock(house.db, monkeypatch)
    for seconds in range(3):
        set_clock(now + seconds)
        house.dispatching(run)
        gone = [row.journey for row in house.rows() if row.state == "sent"]
        assert (gone.count("news"), gone.count("receipt")) == (6, 2 * (seconds + 1))


@pytest.mark.parametrize(
    ("kind", "state", "consent"),
    [("marketing", None, False), ("transactional", "bounced", True)],
)
def test_an_inactive_recipient_is_an_opt_out_or_a_suppressed_address(
    house: House, kind: str, state: str | None, consent: bool
) -> None:
    """On Postmark's broadcast stream they may have unsubscribed: other mail is still sent."""
    planned(house, people=1, kind=kind, email_provider="postmark")
    inactive = [{"ErrorCode": 406, "Message": "Found inactive addresses: c1@example.com."}]
    house.providers.answer("postmark", httpx.Response(200, json=inactive))

    async def receipts(dispatcher: Dispatcher) -> None:
        await dispatcher.run(journey="receipt")

    house.dispatching(receipts)
    assert [row.state for row in house.rows() if row.journey == "receipt"] == ["failed"]
    with house.db.transaction(write=False) as tx:
        said = tx.conn.execute(select(consents).where(consents.c.channel == "email")).all()
    assert suppressed(house.db).get(("email", "c1@example.com")) == state
    assert [row.granted for row in said if row.topic == "*"] == [consent]
