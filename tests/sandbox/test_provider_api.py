"""The sandbox responds and refuses as the providers do, and counts accepted messages."""

import json
import sqlite3
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from config.clock.times import HOUR
from sandbox.app import create_app
from sandbox.providers import fcm, postmark, sendgrid, twilio
from sandbox.providers.provider_api import ApiCall
from sandbox.store import Accepted, Store
from tests.support.proof import cases
from tests.support.providers.sandbox_requests import (
    AUTH,
    BEARER,
    LOGIN,
    MAIL,
    PUSH,
    SMS,
    client_of,
    mail,
    post_batch,
    post_mail,
    post_push,
    post_sms,
    postmark_mail,
    push,
    sms,
    to,
)

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "sandbox.db")
    yield store
    store.close()


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(store, login=LOGIN)) as client:
        yield client


# What they accept


async def test_sendgrid_takes_a_thousand_mails_in_one_request(client: httpx.AsyncClient) -> None:
    answer = await post_mail(client, mail(*map(str, range(1000))))
    assert answer.status_code == 202
    assert answer.content == b""
    assert answer.headers["x-message-id"]
    assert answer.headers["x-ratelimit-remaining"] == "599"
    stats = (await client.get("/stats")).json()
    assert stats["accepted"] == {"email": 1000, "sms": 0, "push": 0}
    kept = (await client.get("/message/17")).json()["accepted"][0]
    assert kept["address"] == "customer17@example.com"
    assert kept["content"]["subject"] == "Subject 17"
    assert kept["content"]["html"] == "<p>Mail 17</p>"


async def test_sendgrid_takes_a_mail_with_its_own_content(client: httpx.AsyncClient) -> None:
    body = to(custom_args={"message_id": "1"}) | {
        "from": {"email": "hello@shop.example"},
        "subject": "For all",
        "content": [
            {"type": "text/plain", "value": "Plain"},
            {"type": "text/html", "value": "<b>Rich</b>"},
        ],
        "send_at": int(time.time()) + 71 * HOUR,
        "categories": ["a", "b"],
        "headers": {"List-Unsubscribe": "<https://shop.example/u/1>"},
    }
    assert (await post_mail(client, body)).status_code == 202
    content = (await client.get("/message/1")).json()["accepted"][0]["content"]
    assert (content["subject"], content["text"], content["html"]) == (
        "For all",
        "Plain",
        "<b>Rich</b>",
    )


async def test_sendgrids_own_sandbox_mode_answers_200_and_keeps_nothing(
    client: httpx.AsyncClient,
) -> None:
    quiet = mail("1", mail_settings={"sandbox_mode": {"enable": True}})
    assert (await post_mail(client, quiet)).status_code == 200
    assert (await client.get("/stats")).json()["accepted"]["email"] == 0


async def test_postmark_answers_for_each_mail(client: httpx.AsyncClient) -> None:
    mails = [postmark_mail(str(number)) for number in range(500)]
    mails[7] = postmark_mail("7", To="nobody")
    answer = await post_batch(client, *mails)
    assert answer.status_code == 200
    codes = [one["ErrorCode"] for one in answer.json()]
    assert codes == [300 if number == 7 else 0 for number in range(500)]
    assert len({one.get("MessageID") for one in answer.json()}) == 500
    stats = (await client.get("/stats")).json()
    assert stats["accepted"] == {"email": 499, "sms": 0, "push": 0}
    kept = (await client.get("/message/17")).json()["accepted"][0]
    assert kept["address"] == "customer17@example.com"
    assert kept["provider_id"] == answer.json()[17]["MessageID"]
    assert (kept["content"]["from_name"], kept["content"]["from"]) == (
        *("The Shop", "hello@shop.example"),
    )
    assert kept["content"]["categories"] == ["carts/reminder", "broadcast"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"From": "nobody"}, 300),
        ({"To": "a@example.com, b@example.com"}, 300),
        ({"HtmlBody": "", "TextBody": ""}, 300),
        ({"Metadata": {"k" * 21: "v"}}, 300),
        ({"Metadata": {"message_id": 5}}, 403),
        ({"Tag": "x" * 1001}, 403),
        ({"TrackLinks": "All"}, 300),
        ({"MessageStream": "No Such Stream"}, 1235),
        ({"MessageStream": "inbound"}, 1236),
    ],
)
async def test_postmark_refuses_a_mail(
    client: httpx.AsyncClient, changes: dict[str, Any], code: int
) -> None:
    answer = await post_batch(client, postmark_mail(**changes), postmark_mail("6"))
    assert [one["ErrorCode"] for one in answer.json()] == [code, 0]


async def test_postmark_refuses_a_request(client: httpx.AsyncClient) -> None:
    assert (await client.post("/email/batch", json=[])).json()["ErrorCode"] == 10
    assert (await client.post("/email/batch", json=[])).status_code == 401
    token = {"X-Postmark-Server-Token": "token"}
    answer = await client.post("/email/batch", content=b"{", headers=token)
    assert (answer.status_code, answer.json()["ErrorCode"]) == (422, 402)
    answer = await post_batch(client, *[postmark_mail()] * 501)
    assert (answer.status_code, answer.json()["ErrorCode"]) == (422, 410)


async def test_postmark_refuses_inactive_recipients(client: httpx.AsyncClient) -> None:
    inactive = {"provider": "postmark", "answer": "opted_out", "numbers": ["customer5@example.com"]}
    assert (await client.post("/faults", json=inactive)).status_code == 204
    [answer] = (await post_batch(client, postmark_mail())).json()
    assert answer["ErrorCode"] == 406


async def test_twilio_answers_with_the_message(client: httpx.AsyncClient) -> None:
    answer = await post_sms(client, sms("7", Body="x" * 161))
    assert answer.status_code == 201
    message = answer.json()
    assert message["sid"].startswith("SM")
    assert len(message["sid"]) == 34
    assert message["status"] == "queued"
    assert message["num_segments"] == "2"
    assert message["to"] == "+447700900001"
    assert (await client.get("/message/7")).json()["accepted"][0]["provider_id"] == message["sid"]


async def test_a_messaging_service_may_stand_for_the_sender(client: httpx.AsyncClient) -> None:
    form = sms(MessagingServiceSid="MG" + "0" * 32)
    del form["From"]
    answer = await post_sms(client, form)
    assert (answer.status_code, answer.json()["status"]) == (201, "accepted")


def by_whatsapp(message_id: str = "1", **changes: str) -> dict[str, str]:
    """A WhatsApp message by the API of Twilio."""
    addresses = {"To": "whatsapp:+447700900001", "From": "whatsapp:+14155238886"}
    return sms(message_id, **{**addresses, **changes})


async def test_twilio_takes_whatsapp_messages(client: httpx.AsyncClient) -> None:
    assert (await post_sms(client, by_whatsapp("8"))).status_code == 201
    kept = (await client.get("/message/8")).json()["accepted"][0]
    assert (kept["channel"], kept["address"]) == ("whatsapp", "+447700900001")
    template = by_whatsapp("9", ContentSid="HX" + "0" * 32, ContentVariables='{"1": "Ann"}')
    del template["Body"]
    assert (await post_sms(client, template)).status_code == 201
    kept = (await client.get("/message/9")).json()["accepted"][0]
    assert kept["content"]["template"] == "HX" + "0" * 32
    assert kept["content"]["variables"] == {"1": "Ann"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"From": "+14155238886"}, 63007),
        ({"To": "whatsapp:ann"}, 21211),
        ({"ContentSid": "HX1"}, 21655),
        ({"ContentSid": "HX" + "0" * 32, "ContentVariables": "[]"}, 21656),
        ({"ContentSid": "HX" + "0" * 32, "ContentVariables": '{"1": ""}'}, 21656),
        ({"Body": ""}, 21602),
    ],
)
async def test_twilio_refuses_by_whatsapp(
    client: httpx.AsyncClient, changes: dict[str, str], code: int
) -> None:
    answer = await post_sms(client, by_whatsapp(**changes))
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_fcm_answers_with_the_messages_name(client: httpx.AsyncClient) -> None:
    apns = {"headers": {"apns-collapse-id": "1"}, "payload": {"aps": {"sound": "default"}}}
    answer = await post_push(
        client, push("9", apns=apns, android={"collapseKey": "1", "ttl": "3600s"})
    )
    assert answer.status_code == 200
    assert answer.json()["name"].startswith("projects/shop/messages/")
    kept = (await client.get("/message/9")).json()["accepted"][0]
    assert (kept["address"], kept["title"]) == ("token-1", "Hello")
    assert kept["provider_id"] == answer.json()["name"]


async def test_fcms_dry_run_keeps_nothing(client: httpx.AsyncClient) -> None:
    assert (await post_push(client, push() | {"validate_only": True})).status_code == 200
    assert (await client.get("/stats")).json()["accepted"]["push"] == 0


# What they refuse


def _content(*parts: tuple[str, str]) -> dict[str, Any]:
    values = [{"type": kind, "value": value} for kind, value in parts]
    return {"template_id": None, "subject": "S", "content": values}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (mail(*map(str, range(1001))), "personalizations"),
        (mail(), "personalizations"),
        (
            mail("1", **to(cc=[{"email": f"c{n}@example.com"} for n in range(1000)])),
            "personalizations",
        ),
        (mail("1", "1"), "personalizations"),
        (mail("1", **to(bcc=[{"email": "A@example.com"}])), "personalizations"),
        (mail("1", **to(to=[])), "personalizations.0.to"),
        (mail("1", **to(to=[{"name": "A"}])), "personalizations.0.to.0.email"),
        (mail("1", **to(to=[{"email": "junk"}])), "personalizations.0.to.0.email"),
        ({k: v for k, v in mail("1").items() if k != "from"}, "from"),
        (mail("1", **{"from": {"email": "junk"}}), "from.email"),
        (mail("1", reply_to={"email": "junk"}), "reply_to.email"),
        (mail("1", template_id=None, content=[{"type": "text/plain", "value": "x"}]), "subject"),
        (mail("1", template_id=None, subject="S"), "content"),
        (mail("1") | _content(), "content"),
        (mail("1") | _content(("text/plain", "")), "content.0.value"),
        (mail("1") | _content(("text/html", "x"), ("text/plain", "x")), "content"),
        (mail("1", subject=""), "subject"),
        (mail("1", headers={"DKIM-Signature": "x"}), "headers"),
        (mail("1", **to(headers={"subject": "x"})), "personalizations.0.headers"),
        (
            mail("1", **to(custom_args={"message_id": "x" * 10_000})),
            "personalizations.0.custom_args",
        ),
        (
            mail("1", **to(custom_args={"message_id": 1})),
            "personalizations.0.custom_args.message_id",
        ),
        (mail("1", custom_args="text"), "custom_args"),
        (mail("1", **to(substitutions={"a": "x" * 10_000})), "personalizations.0.substitutions"),
        (mail("1", categories=[str(n) for n in range(11)]), "categories"),
        (mail("1", categories=["twice", "twice"]), "categories"),
        (mail("1", send_at=NOW * 2), "send_at"),
        (mail("1", **to(send_at=NOW * 2)), "personalizations.0.send_at"),
    ],
)
async def test_sendgrid_refuses(client: httpx.AsyncClient, body: Any, field: str) -> None:
    answer = await post_mail(client, body)
    assert answer.status_code == 400
    errors = answer.json()["errors"]
    assert field in [error["field"] for error in errors]
    assert all(set(error) == {"message", "field", "help"} and error["message"] for error in errors)
    assert (await client.get("/stats")).json() == {
        "requests": 1,
        "accepted": {"email": 0, "sms": 0, "push": 0},
        "duplicates": 0,
        "refused": 1,
        "without_id": 0,
    }


async def test_sendgrid_names_the_type_that_it_wanted(client: httpx.AsyncClient) -> None:
    [error] = (await post_mail(client, mail("1", custom_args="text"))).json()["errors"]
    assert error["message"] == "Invalid type. Expected: object, given: string."
    assert error["help"].endswith("errors.html#message.custom_args")


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "application/json"}, b"{}", 401),
        (BEARER | {"Content-Type": "text/plain"}, b"{}", 415),
        (BEARER | {"Content-Type": "application/json"}, b"{", 400),
        (BEARER | {"Content-Type": "application/json"}, b" " * 30_000_001, 413),
    ],
)
async def test_sendgrid_refuses_the_request_itself(
    client: httpx.AsyncClient, headers: dict[str, str], content: bytes, status: int
) -> None:
    answer = await client.post(MAIL, content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["field"] is None


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (sms(To=""), 21604),
        (sms(To="07700900001"), 21211),
        (sms(To="+15005550001"), 21211),
        (sms(To="+15005550004"), 21610),
        (sms(To="+15005550009"), 21614),
        (sms(From=""), 21603),
        (sms(From="", MessagingServiceSid="junk"), 21603),
        (sms(From="a name too long"), 21212),
        (sms(Body=""), 21602),
        (sms(Body="x" * 1601), 21617),
        (sms(StatusCallback="not a URL"), 21609),
        (sms(StatusCallback="http://[junk"), 21609),
    ],
)
async def test_twilio_refuses(client: httpx.AsyncClient, form: dict[str, str], code: int) -> None:
    answer = await post_sms(client, form)
    assert answer.status_code == 400
    body = answer.json()
    assert (body["code"], body["status"]) == (code, 400)
    assert body["message"]
    assert body["more_info"] == f"https://www.twilio.com/docs/errors/{code}"


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer x", "Basic !", "Basic " + b64encode(b"AC2:token").decode(), "Basic QUMxOg=="],
)
async def test_twilio_refuses_strangers(client: httpx.AsyncClient, authorization: str) -> None:
    answer = await client.post(SMS, data=sms(), headers={"Authorization": authorization})
    assert (answer.status_code, answer.json()["code"]) == (401, 20003)


async def test_twilio_refuses_whoever_opted_out(client: httpx.AsyncClient) -> None:
    stop = {"provider": "twilio", "answer": "opted_out", "numbers": ["+447700900001"]}
    assert (await client.post("/faults", json=stop)).status_code == 204
    assert (await post_sms(client, sms())).json()["code"] == 21610
    assert (await post_sms(client, sms(To="+447700900002"))).status_code == 201
    await client.delete("/faults")
    assert (await post_sms(client, sms())).status_code == 201


@pytest.mark.parametrize(
    ("body", "status", "canonical", "code"),
    [
        (push(token="gone-1"), 404, "NOT_FOUND", "UNREGISTERED"),
        (push(token="bad-1"), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(token="no token"), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(token=""), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(token=None), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(topic="news"), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(data={"from": "me"}), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(data={"a": "x" * 4096}), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(data={"a": 1}), 400, "INVALID_ARGUMENT", None),
        (push(colour="red"), 400, "INVALID_ARGUMENT", None),
        (push(android={"ttl": "soon"}), 400, "INVALID_ARGUMENT", None),
        ({}, 400, "INVALID_ARGUMENT", None),
    ],
)
async def test_fcm_refuses(
    client: httpx.AsyncClient, body: Any, status: int, canonical: str, code: str | None
) -> None:
    answer = await post_push(client, body)
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == status
    assert error["status"] == canonical
    assert error["message"]
    assert [detail.get("errorCode") for detail in error["details"]] == [code]


async def test_fcm_names_the_field_that_it_does_not_know(client: httpx.AsyncClient) -> None:
    body = push(notification={"title": "x", "colour": "red"})
    [detail] = (await post_push(client, body)).json()["error"]["details"]
    [violation] = detail["fieldViolations"]
    assert violation["field"] == "message.notification"
    assert 'Unknown name "colour"' in violation["description"]


async def test_fcm_refuses_strangers(client: httpx.AsyncClient) -> None:
    answer = await client.post(PUSH, json=push())
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("provider", "base"), [(sendgrid, mail("1")), (postmark, [postmark_mail()]), (fcm, push())]
)
@settings(max_examples=cases(test=60, prove=5000))
@given(data=st.data())
def test_no_body_breaks_them(provider: Any, base: dict[str, Any], data: st.DataObject) -> None:
    """Any value in place of any part of a valid body gets a response, never an exception."""
    body = deepcopy(base)
    part: Any = body
    while True:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else [0]))
        if not (isinstance(part[key], dict | list) and part[key] and data.draw(st.booleans())):
            break
        part = part[key]
    part[key] = data.draw(JSON)
    headers = {
        **{"authorization": "Bearer x", "content-type": "application/json"},
        "x-postmark-server-token": "x",
    }
    encoded = json.dumps(body).encode()  # huge numbers, NaN and lone surrogates included
    answer = provider.answer(
        ApiCall(headers=headers, path={"project": "p"}, body=encoded, now=NOW, opted_out=set())
    )
    assert answer.status in (200, 202, 400, 404, 422)


@given(body=st.binary(max_size=40))
def test_no_form_breaks_twilio(body: bytes) -> None:
    headers = {"authorization": "Basic " + b64encode(b"AC1:x").decode()}
    answer = twilio.answer(
        ApiCall(
            headers=headers,
            path={"sid": "AC1"},
            body=b"To=%2B447700900001&From=1&Body=" + body,
            now=NOW,
            opted_out=set(),
        )
    )
    assert answer.status in (201, 400)


# Counts


async def test_stats_count_ids_once_and_tell_what_came_twice(client: httpx.AsyncClient) -> None:
    await post_mail(client, mail("1", "2"))
    await post_sms(client, sms("7"))
    await post_sms(client, sms("7"))
    await post_sms(client, sms("8", StatusCallback=""))
    await post_push(client, push("9"))
    await post_push(client, push("9", token="gone"))
    # Another device of the same person; and one that got it twice.
    await post_push(client, push("9", token="token-2"))
    for _ in range(2):
        await post_push(client, push("10", token="token-2"))
    assert (await client.get("/stats")).json() == {
        "requests": 9,
        "accepted": {"email": 2, "sms": 1, "push": 2},
        "duplicates": 2,
        "refused": 1,
        "without_id": 1,
    }
    assert len((await client.get("/message/7")).json()["accepted"]) == 2
    assert (await client.get("/message/8")).status_code == 404


def test_the_store_keeps_what_it_took(tmp_path: Path) -> None:
    one = Accepted(
        channel="sms",
        message_id="1",
        provider_id="SM1",
        address="+447700900001",
        title="Hello",
        content={"body": "Hello"},
    )
    first = Store(tmp_path / "sandbox.db")
    first.record([one], refused=False)
    first.close()
    again = Store(tmp_path / "sandbox.db")
    again.record([one], refused=False)
    assert [kept.seq for kept in again.with_ids(["1", "2"])] == [1, 2]
    assert again.stats()["duplicates"] == 1
    again.close()


def test_a_file_without_arrivals_gets_them(tmp_path: Path) -> None:
    """A file from before the sandbox stored the arrival time of a request."""
    with closing(sqlite3.connect(tmp_path / "sandbox.db")) as file, file:
        file.execute(
            "CREATE TABLE accepted (seq INTEGER PRIMARY KEY, channel, message_id, provider_id,"
            " address, title, content, accepted_at INTEGER NOT NULL)"
        )
        file.execute("INSERT INTO accepted VALUES (1, 'sms', '1', 'SM1', '+4477', 'x', '{}', 9)")
    store = Store(tmp_path / "sandbox.db")
    one = Accepted(
        channel="sms",
        message_id="1",
        provider_id="SM1",
        address="+447700900001",
        title="Hello",
        content={"body": "Hello"},
    )
    store.record([one], refused=False, arrived=2.5)
    assert [kept.arrived for kept in store.with_ids(["1"])] == [None, 2.5]
    store.close()


# Faults


async def test_a_provider_says_try_later_so_many_times(client: httpx.AsyncClient) -> None:
    fault = {"provider": "sendgrid", "answer": 429, "retry_after": 3, "count": 2}
    await client.post("/faults", json=fault)
    answers = [await post_mail(client, mail(str(n))) for n in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 202]
    assert answers[0].headers["retry-after"] == "3"
    assert answers[0].headers["x-ratelimit-remaining"] == "0"
    assert (await client.get("/stats")).json()["refused"] == 2


async def test_each_provider_fails_in_its_own_words(client: httpx.AsyncClient) -> None:
    for provider in ("sendgrid", "postmark", "twilio", "fcm"):
        for status in (401, 403, 429, 500, 503):
            fault = {"provider": provider, "answer": status, "count": 1}
            await client.post("/faults", json=fault)
    for status in (401, 403, 429, 500, 503):
        by_mail = await post_mail(client, mail("1"))
        assert by_mail.status_code == status
        assert by_mail.json()["errors"][0]["message"]
        by_postmark = await post_batch(client, postmark_mail())
        assert by_postmark.status_code == status
        assert by_postmark.json()["ErrorCode"] == {401: 10, 503: 100}.get(status, status)
        by_sms = await post_sms(client, sms())
        assert by_sms.status_code == by_sms.json()["status"] == status
        assert by_sms.json()["code"] == (20003 if status == 401 else 20000 + status)
        by_push = await post_push(client, push())
        assert by_push.status_code == by_push.json()["error"]["code"] == status
    assert (await post_sms(client, sms())).status_code == 201


async def test_a_share_of_requests_fails_the_same_way_every_time(client: httpx.AsyncClient) -> None:
    async def run() -> list[int]:
        await client.delete("/faults")
        fault = {"provider": "twilio", "answer": 500, "share": 0.4, "seed": 7}
        await client.post("/faults", json=fault)
        return [(await post_sms(client, sms())).status_code for _ in range(40)]

    first = await run()
    assert set(first) == {201, 500}
    assert await run() == first


async def test_a_slow_provider_still_answers(client: httpx.AsyncClient) -> None:
    fault = {"provider": "fcm", "answer": "slow", "seconds": 0.01, "count": 1}
    await client.post("/faults", json=fault)
    assert (await post_push(client, push())).status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"provider": "sendgrid", "answer": 429},
        {"provider": "sendgrid", "answer": 429, "count": 1, "share": 0.5},
        {"provider": "sendgrid", "answer": 418, "count": 1},
        {"provider": "post office", "answer": 500, "count": 1},
        {"provider": "sendgrid", "answer": "opted_out", "numbers": []},
    ],
)
async def test_a_fault_that_is_none_is_refused(
    client: httpx.AsyncClient, fault: dict[str, Any]
) -> None:
    answer = await client.post("/faults", json=fault)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["msg"]


@pytest.fixture
def server(store: Store) -> Iterator[str]:
    """The URL of a real server on its own port."""
    config = uvicorn.Config(
        create_app(store, login=LOGIN), port=0, access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


async def test_a_provider_hangs_up_after_it_took_the_message(server: str) -> None:
    async with httpx.AsyncClient(base_url=server, auth=AUTH) as client:
        await client.post("/faults", json={"provider": "twilio", "answer": "drop", "count": 2})
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await post_sms(client, sms("7"))
        assert (await post_sms(client, sms("8", To="junk"))).json()["code"] == 21211
        assert (await post_sms(client, sms("8"))).status_code == 201
        assert (await client.get("/stats")).json()["accepted"]["sms"] == 2
