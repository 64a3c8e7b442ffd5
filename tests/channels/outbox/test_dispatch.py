"""Dispatch: outcomes by the provider's response, missing template data, batches in one request."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from channels.explain import history_of
from channels.kinds.email import EmailContent
from channels.outbox.dispatch import Dispatcher
from config.channels import ChannelName
from config.policy import Policy
from config.settings import Settings
from config.timing import TIMING
from journeys.dsl import SMS, Email, Journey, OnLaunch, Push, Send
from journeys.engine.entry import enter_people
from profiles.tables import consents
from tests.support.providers.dispatching import ONE, POLICY, reported, sending
from tests.support.providers.suppressing import suppressed
from tests.support.shop import MONDAY, TEXTS, House


def answered(house: House, channel: ChannelName, *answers: httpx.Response | Exception) -> list[Any]:
    """What becomes of one message when the provider answers so, as far as this moment."""
    house.open(sending(ONE[channel]), policy=POLICY)
    house.customer("ann")
    house.providers.answer(channel, *answers)
    house.launch("j")
    return house.rows()


def test_a_retry_waits_as_long_as_the_provider_asks_and_backs_off(house: House) -> None:
    busy = httpx.Response(429, headers={"retry-after": "120"}, json={})
    [row] = answered(house, "sms", busy, httpx.Response(503))
    assert (row.state, row.attempts) == ("planned", 1)
    assert str(row.reason).startswith("twilio 429")
    # never earlier than the provider asks, and up to half as much again
    first = row.send_at
    assert MONDAY + 120 <= first < MONDAY + 180
    house.until(first - 1)
    assert len(house.providers.requests) == 1
    house.until(first)
    # no time named: half a minute, doubled each time, and up to half as much again
    [row] = house.rows()
    assert (row.state, row.attempts) == ("planned", 2)
    again = row.send_at
    assert first + 60 <= again < first + 90
    house.until(again)
    [row] = house.rows()
    assert (row.state, row.send_at, row.attempts) == ("sent", again, 3)
    assert row.reason is None


def test_a_retry_evaluates_the_rules_again(house: House) -> None:
    answered(house, "sms", httpx.Response(429, headers={"retry-after": "600"}, json={}))
    [row] = house.rows()
    house.say(row.profile_id, "sms", "*", granted=False)
    house.later("1h")
    assert reported(house) == [("sms", "skipped", "no_consent")]
    assert len(house.providers.requests) == 1


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (httpx.ConnectError("refused"), "planned"),  # nothing has left
        (httpx.ConnectTimeout("slow"), "planned"),
        (httpx.ReadError("cut"), "unknown"),  # after it was accepted, perhaps
        (httpx.ReadTimeout("slow"), "unknown"),
        (httpx.RemoteProtocolError("cut"), "unknown"),
        (httpx.Response(500), "unknown"),
        (httpx.Response(504), "unknown"),
        (httpx.Response(503), "planned"),
        (httpx.Response(400, json={}), "failed"),
    ],
    ids=repr,
)
def test_a_request_that_was_certainly_not_accepted_is_retried(
    house: House, answer: httpx.Response | Exception, state: str
) -> None:
    [row] = answered(house, "email", answer)
    assert row.state == state
    assert row.reason
    house.later("2d")
    [row] = house.rows()
    assert row.state == ("sent" if state == "planned" else state)
    assert len(house.providers.requests) == (2 if state == "planned" else 1)
    assert house.people()[0].end_reason == "completed"


def test_an_unknown_message_counts_against_caps(house: House) -> None:
    answered(house, "email", httpx.ReadError("cut"))
    again = Journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", Email("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert reported(house)[1] == ("email", "skipped", "capped")


def test_a_failed_message_does_not_count_against_caps(house: House) -> None:
    answered(house, "email", httpx.Response(400, json={}))
    again = Journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", Email("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert reported(house) == [
        ("email", "failed", "sendgrid 400"),
        ("email", "sent", None),
    ]


def test_refused_credentials_stop_only_their_channel(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = Email("hello"), SMS("hello")
    house.open(sending(*wanted), policy=POLICY)
    for _ in range(3):
        house.customer()
    house.providers.answer("email", *[httpx.Response(401, json={})] * 3)

    async def work(dispatcher: Dispatcher) -> None:
        async def everything() -> None:
            while await dispatcher.run():
                await asyncio.to_thread(house.advance)

        with house.db.transaction() as tx:
            enter_people(tx, house.segue.catalog.journey("j"), [1, 2, 3], None)
        await asyncio.to_thread(house.advance)
        await everything()
        refused = [one for one in house.providers.requests if "mail" in one.url.path]
        asked.append(len(refused))
        assert [row.state for row in house.rows() if row.channel == "sms"] == ["sent"] * 3
        mails = [row for row in house.rows() if row.channel == "email"]
        assert [(row.state, row.attempts) for row in mails] == [("planned", 0)] * 3
        # while it is stopped nothing is even tried
        house.db.now = MONDAY + TIMING.refused_pause - 1
        await everything()
        asked.append(len([one for one in house.providers.requests if "mail" in one.url.path]))
        house.providers.accept_again()
        # from the answer on, which takes its time on a loaded machine
        house.db.now = MONDAY + 2 * TIMING.refused_pause
        await everything()

    asked: list[int] = []
    house.dispatching(work)
    assert 1 <= asked[0] == asked[1] <= 3
    assert {row.state for row in house.rows()} == {"sent"}
    assert any("refuses our account" in record.message for record in caplog.records)


def test_twilios_opt_out_error_records_a_stop(house: House) -> None:
    said = {"code": 21610, "message": "Attempt to send to unsubscribed recipient"}
    [row] = answered(house, "sms", httpx.Response(400, json=said))
    assert (row.state, row.reason) == ("failed", "twilio 21610: the recipient replied STOP")
    with house.db.transaction() as tx:
        stop = tx.conn.execute(select(consents.c.granted).where(consents.c.channel == "sms"))
        assert list(stop.scalars()) == [False]
    again = Journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", SMS("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert reported(house)[1] == ("sms", "skipped", "no_consent")


def test_an_unregistered_device_is_suppressed(house: House) -> None:
    detail = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError"}
    body = {"error": {"code": 404, "details": [detail | {"errorCode": "UNREGISTERED"}]}}
    [row] = answered(house, "push", httpx.Response(404, json=body))
    assert row.state == "failed"
    assert list(suppressed(house.db).values()) == ["unregistered"]
    again = Journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", Push("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert reported(house)[1] == ("push", "skipped", "suppressed")


def test_a_missing_template_variable_is_named_in_the_reason(house: House) -> None:
    texts = {**TEXTS, "hello.sms.txt": "Hello {{ profile.first_name }}"}
    house.open(sending(SMS("hello"), then=(Send("t", Push("hello")),)), policy=POLICY, texts=texts)
    ann, bob = house.customer(attributes={"first_name": "Ann"}), house.customer()
    house.launch("j")
    assert [(row.profile_id, row.state, row.reason) for row in house.rows()] == [
        (ann, "sent", None),
        (bob, "skipped", "missing_data: profile.first_name"),
        (ann, "sent", None),
        (bob, "sent", None),
    ]
    # it did not go, so it does not count
    again = Journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", SMS("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert [row.reason for row in house.rows()[4:]] == ["capped", None]


def test_invalid_data_of_one_customer_does_not_affect_others(house: House) -> None:
    texts = {**TEXTS, "hello.sms.txt": "{{ profile.n | date: '%d' }}"}
    house.open(sending(SMS("hello")), policy=POLICY, texts=texts)
    for number in (1, "soon", 10**18):
        house.customer(attributes={"n": number})
    house.launch("j")
    rows = house.rows()
    assert [row.state for row in rows] == ["sent", "skipped", "skipped"]
    assert all(row.reason.startswith("render_error: hello.sms.txt") for row in rows[1:])


def test_a_link_that_leads_elsewhere_is_not_sent(house: House) -> None:
    texts = {
        **TEXTS,
        "hello.email.html": 'Subject: Hello\n\n<a href="{{ profile.site }}">x</a>',
        "hello.sms.txt": "Hi {{ profile.site }}",
        "hello.push.txt": "Title: Hi\nLink: {{ profile.site }}\n\nx",
    }
    messages = (Email("hello"), SMS("hello"), Push("hello"))
    house.open(sending(*messages), policy=Policy(), texts=texts)
    for site in (
        "https://shop.example/cart",
        "http://127.0.0.1:8080/cart",
        "https://evil.example/cart",
        "javascript:alert(1)",
        "//evil.example/[/red]",
    ):
        house.customer(attributes={"site": site})
    house.launch("j")
    reasons = [row.reason for row in house.rows()]
    assert reasons[:6] == [None] * 6
    assert reasons[6:] == [
        *["link_refused: https://evil.example"] * 3,
        *["link_refused: javascript:alert?1?"] * 3,
        *["link_refused: //evil.example"] * 3,
    ]
    assert len(house.providers.accepted) == 6
    with house.db.transaction() as tx:
        row = house.rows()[6]
        [told_of] = [one for one in history_of(tx, str(row.id)) if one["message"] == row.id]
    assert told_of["why"].startswith("It links to https://evil.example. Links need https")


def test_a_message_longer_than_the_channel_allows_is_not_sent(house: House) -> None:
    texts = {
        **TEXTS,
        "hello.sms.txt": "{{ profile.x }}",
        "hello.push.txt": "Title: Hi\n\n{{ profile.x }}",
    }
    house.open(sending(SMS("hello"), Push("hello")), policy=Policy(), texts=texts)
    for length in (1_530, 1_531, 3_900):
        house.customer(attributes={"x": "x" * length})
    house.launch("j")
    assert [(row.channel, row.state, row.reason) for row in house.rows()] == [
        ("sms", "sent", None),
        ("push", "sent", None),
        ("sms", "skipped", "too_long: 11 segments; the limit is 10"),
        ("push", "sent", None),
        ("sms", "skipped", "too_long: 26 segments; the limit is 10"),
        ("push", "skipped", "too_long: 3915 bytes; the limit is 3800"),
    ]


def test_a_mail_may_be_long_but_not_endless() -> None:
    assert EmailContent("s", "ü" * 9_999_999, "t").excess(Settings()) is None
    assert EmailContent("s", "ü" * 10_000_000, "t").excess(Settings()) == (
        "20000002 bytes; the limit is 20000000"
    )


def test_how_long_a_text_may_be_is_a_setting(house: House) -> None:
    texts = {**TEXTS, "hello.sms.txt": "x" * 161}
    house.open(sending(SMS("hello")), policy=POLICY, texts=texts, sms_segments=1)
    house.customer()
    house.launch("j")
    assert reported(house) == [("sms", "skipped", "too_long: 2 segments; the limit is 1")]


# Many in one request ------------------------------------------------------------------------------


def in_one_request(house: House, number: int) -> None:
    house.open(sending(Email("hello")), policy=POLICY, sendgrid_template_id="d-1")
    for _ in range(number):
        house.customer()
    house.launch("j")


def test_many_mails_in_one_request(house: House) -> None:
    in_one_request(house, 30)
    assert len(house.providers.requests) == 1
    assert {row.state for row in house.rows()} == {"sent"}
    assert {one.message_id for one in house.providers.accepted} == {row.id for row in house.rows()}


def test_a_request_holds_the_mails_of_one_journey_and_step(house: House) -> None:
    in_an_hour = [
        Journey(name, entry=OnLaunch(), topic="n", steps=[Send(step, Email("hello", after="1h"))])
        for name, step in (("j", "s"), ("k", "t"))
    ]
    house.open(*in_an_hour, policy=Policy(), sendgrid_template_id="d-1")
    for _ in range(3):
        house.customer()
    house.launch("j")
    house.launch("k")
    house.later("1h")
    categories = [json.loads(one.content)["categories"] for one in house.providers.requests]
    assert sorted(categories) == [["j", "s"], ["k", "t"]]
    assert {row.state for row in house.rows()} == {"sent"}


def test_a_request_refused_for_one_of_its_mails(house: House) -> None:
    wrong = {
        "message": "Does not contain a valid address.",
        "field": "personalizations.1.to.0.email",
    }
    house.providers.answer("email", httpx.Response(400, json={"errors": [wrong]}))
    in_one_request(house, 3)
    assert [(row.state, row.attempts) for row in house.rows()] == [
        ("planned", 1), ("failed", 1), ("planned", 1),
    ]  # fmt: skip
    house.later("1m")
    assert [row.state for row in house.rows()] == ["sent", "failed", "sent"]
    assert suppressed(house.db) == {("email", "c2@example.com"): "bounced"}


def test_a_request_to_sendgrid_names_an_address_once(house: House) -> None:
    """SendGrid refuses a request whole that names an address twice."""
    policy = Policy()
    steps = [Send("s", Email("hello"), Email("offer"))]
    house.open(
        Journey("j", entry=OnLaunch(), topic="n", steps=steps),
        policy=policy,
        sendgrid_template_id="d-1",
    )
    for _ in range(3):
        house.customer()
    house.launch("j")
    sizes = [request.content.count(b'"message_id"') for request in house.providers.requests]
    assert sum(sizes) == 6
    assert len(house.providers.accepted) == len(
        {one.message_id for one in house.providers.accepted}
    )
    for request in house.providers.requests:
        addresses = [part.split(b'"')[0] for part in request.content.split(b'"to":[{"email":"')[1:]]
        assert len(set(addresses)) == len(addresses)
    assert {row.state for row in house.rows()} == {"sent"}
