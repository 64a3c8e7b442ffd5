"""What the sandbox accepts and refuses as Twilio, by SMS and WhatsApp."""

from base64 import b64encode

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.providers import twilio
from sandbox.providers.provider_api import ApiCall
from tests.support.providers.sandbox_requests import (
    SMS,
    post_sms,
    sms,
)

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000


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


async def test_twilio_refuses_numbers_that_opted_out(client: httpx.AsyncClient) -> None:
    stop = {"provider": "twilio", "answer": "opted_out", "numbers": ["+447700900001"]}
    assert (await client.post("/faults", json=stop)).status_code == 204
    assert (await post_sms(client, sms())).json()["code"] == 21610
    assert (await post_sms(client, sms(To="+447700900002"))).status_code == 201
    await client.delete("/faults")
    assert (await post_sms(client, sms())).status_code == 201


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
