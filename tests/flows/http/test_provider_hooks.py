"""The provider webhooks over HTTP: their responses and their effects."""

import asyncio
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import select

from channels.feedback.apply import apply
from channels.messages import messages
from channels.providers.registry import webhooks
from channels.providers.webhook import Feedback
from config.database.engine import Database, Tx
from config.policy import Policy
from config.settings import Settings
from flows.http.app import create_app
from journeys.dsl import SMS, Email, Journey, OnLaunch, Send
from profiles.tables import consents, events, identifiers
from tests.support.patience import PATIENCE
from tests.support.providers.callback_samples import (
    FORM,
    FromProviders,
    logged_in_as_postmark,
    mail_event,
    sendgrid_key,
    signed_by_sendgrid,
    signed_by_twilio,
)
from tests.support.providers.provider_samples import LIVE
from tests.support.shop import MONDAY, House

OFFER = Journey(
    "offer", entry=OnLaunch(), topic="news", steps=[Send("hi", Email("hello"), SMS("hello"))]
)
HOOKS = ["/hooks/sendgrid", "/hooks/postmark", "/hooks/twilio/status", "/hooks/twilio/inbound"]


@pytest.fixture
def house(db: Database) -> House:
    house = House(db)
    house.open(OFFER)
    house.customer("ann")
    house.launch("offer")
    return house


def everything(house: House) -> list[Any]:
    """All that a call-back could change."""
    with house.db.transaction(write=False) as tx:
        return [
            list(tx.conn.execute(select(table).order_by(*table.primary_key)))
            for table in (messages, events, consents, identifiers)
        ]


def mail_of(house: House) -> int:
    [row] = [row for row in house.rows() if row.channel == "email"]
    return int(row.id)


def test_a_replay_is_accepted_and_changes_nothing(house: House) -> None:
    outside = FromProviders(house.segue)
    body = orjson.dumps([mail_event("open", mail_of(house), "ann@example.com")])
    headers = signed_by_sendgrid(sendgrid_key(house.segue.settings), body, MONDAY)
    assert outside.post("/hooks/sendgrid", body, headers).status_code == 200
    once = everything(house)
    assert [row.name for row in once[1]] == ["email_opened"]
    assert outside.post("/hooks/sendgrid", body, headers).status_code == 200
    assert everything(house) == once
    # Journeys are told after the commit.
    assert outside.woken == 2


def test_a_forged_webhook_changes_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    outside = FromProviders(house.segue)
    before = everything(house)
    stranger = ec.generate_private_key(ec.SECP256R1())
    mine = sendgrid_key(house.segue.settings)
    body = orjson.dumps([mail_event("spamreport", mail_of(house), "ann@example.com")])
    good = signed_by_sendgrid(mine, body, MONDAY)
    stop = b"From=%2B447700900001&Body=STOP&MessageSid=SM1"
    form = {"From": "+447700900001", "Body": "STOP", "MessageSid": "SM1"}
    url = f"{house.segue.settings.public_url}/hooks/twilio/inbound"
    for path, posted, headers in (
        ("/hooks/sendgrid", body, {}),
        ("/hooks/sendgrid", body, signed_by_sendgrid(stranger, body, MONDAY)),
        ("/hooks/sendgrid", body + b"\n", good),
        ("/hooks/sendgrid", body[:-9], good),
        ("/hooks/sendgrid", b"", good),
        ("/hooks/twilio/inbound", stop, {}),
        ("/hooks/twilio/inbound", stop, signed_by_twilio("guessed", url, form)),
        ("/hooks/twilio/inbound", stop, signed_by_twilio("sandbox", url, form)),
        ("/hooks/twilio/status?message_id=%ff%00", stop, signed_by_twilio("x", url, form)),
    ):
        answer = outside.post(path, posted, headers)
        assert answer.status_code == 403, path
        assert answer.json()["message"].endswith("nothing was changed")
    assert everything(house) == before
    assert outside.woken == 0
    assert "ann@example.com" not in caplog.text
    assert "447700900001" not in caplog.text


def test_a_signature_of_yesterday_is_stale(house: House) -> None:
    """Only where the clock is the real one: a simulated one runs as it likes."""
    house.db.now = None
    outside = FromProviders(house.segue)
    before = everything(house)
    said = mail_event("open", mail_of(house), "ann@example.com")
    with house.db.transaction(write=False) as tx:
        now = tx.now
    for age in (86_400, 301 + 60, -301 - 60):
        assert outside.mail(said, signed_at=now - age).status_code == 403
    assert everything(house) == before
    assert outside.mail(said, signed_at=now - 60).status_code == 200
    assert len(everything(house)[1]) == 1


def test_an_unreadable_webhook_gets_400(house: House) -> None:
    outside = FromProviders(house.segue)
    body = b'{"event": "open"}'
    headers = signed_by_sendgrid(sendgrid_key(house.segue.settings), body, MONDAY)
    answer = outside.post("/hooks/sendgrid", body, headers)
    assert answer.status_code == 400
    assert answer.json()["message"] == "the body is not a JSON array of events"


def test_a_lone_surrogate_does_not_affect_other_events(house: House) -> None:
    click = mail_event("click", None, "else@example.com", url="https://shop.example/?q=cut @@")
    mine = mail_event("click", mail_of(house), "ann@example.com", url="https://shop.example/@@")
    body = orjson.dumps([click, mine]).replace(b"@@", rb"\ud83d")
    headers = signed_by_sendgrid(sendgrid_key(house.segue.settings), body, MONDAY)
    assert FromProviders(house.segue).post("/hooks/sendgrid", body, headers).status_code == 200
    [event] = everything(house)[1]
    assert (event.name, event.properties["url"]) == ("email_clicked", "https://shop.example/\ufffd")


def seems_signed(url: str) -> dict[str, str]:
    """Headers that a stranger can make up, but for Postmark's login, which is all that it has."""
    return {
        **signed_by_sendgrid(ec.generate_private_key(ec.SECP256R1()), b"", MONDAY),
        **signed_by_twilio("guessed", url, {}),
        **logged_in_as_postmark(Settings()),
    }


def test_a_body_longer_than_any_providers_is_refused(sqlite_house: House) -> None:
    outside = FromProviders(sqlite_house.open())
    for hook in webhooks(outside.settings, Policy()):
        headers = seems_signed(hook.path)
        assert outside.post(hook.path, b" " * (hook.limit + 1), headers).status_code == 413
        # Postmark's login is right, so this is read, and is no JSON.
        refused = 400 if hook.path == "/hooks/postmark" else 403
        assert outside.post(hook.path, b" " * hook.limit, headers).status_code == refused
    assert {hook.path: hook.limit // 1024 for hook in webhooks(outside.settings, Policy())} == {
        "/hooks/sendgrid": 1000,
        "/hooks/postmark": 1000,
        "/hooks/twilio/status": 64,
        "/hooks/twilio/inbound": 64,
        "/hooks/twilio_whatsapp/status": 64,
        "/hooks/twilio_whatsapp/inbound": 64,
    }


@pytest.mark.parametrize("path", HOOKS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-twilio-signature": "", "x-twilio-email-event-webhook-signature": ""},
        {"x-twilio-signature": "x" * 29, "x-twilio-email-event-webhook-signature": "x" * 29},
        {
            "x-twilio-signature": "x" * 30_000,
            "x-twilio-email-event-webhook-signature": "x" * 30_000,
            "x-twilio-email-event-webhook-timestamp": "1",
        },
        {
            "x-twilio-email-event-webhook-signature": "x" * 96,
            "x-twilio-email-event-webhook-timestamp": "1" * 30_000,
        },
    ],
    ids=["none", "empty", "of another length", "long", "a long time"],
)
def test_a_webhook_without_a_signature_is_refused_before_its_body_is_read(
    sqlite_house: House, path: str, headers: dict[str, str]
) -> None:
    outside = FromProviders(sqlite_house.open())
    status, read = outside.unread(path, headers)
    assert (status, read) == (403, 0)


def test_a_body_with_too_large_a_content_length_is_not_read(sqlite_house: House) -> None:
    outside = FromProviders(sqlite_house.open())
    for hook in webhooks(outside.settings, Policy()):
        for length in (str(hook.limit + 1), "9" * 18, "9" * 5000):
            headers = {**seems_signed(hook.path), "content-length": length}
            assert outside.unread(hook.path, headers) == (413, 0)


def test_sixteen_thousand_fields_are_refused_unread(sqlite_house: House) -> None:
    outside = FromProviders(sqlite_house.open())
    for body in (b"a&" * 16_000, b"&".join(b"%d=1" % number for number in range(16_000))):
        for path in ("/hooks/twilio/status", "/hooks/twilio/inbound"):
            answer = outside.post(path, body, {**FORM, **seems_signed(path)})
            assert answer.status_code == (413 if len(body) > 64 * 1024 else 403)


def test_webhooks_use_their_own_threads(
    sqlite_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_house.open()
    released, busy = threading.Event(), threading.Semaphore(0)

    def stuck(tx: Tx, said: Sequence[Feedback], double_opt_in: Mapping[str, str]) -> Counter[str]:
        busy.release()
        released.wait()
        return apply(tx, said, double_opt_in)

    monkeypatch.setattr("flows.http.hooks.providers.apply", stuck)
    body = orjson.dumps([mail_event("open", 1, "ann@example.com")])
    signed = signed_by_sendgrid(sendgrid_key(sqlite_house.segue.settings), body, MONDAY)

    async def scenario() -> list[int]:
        transport = httpx.ASGITransport(create_app(sqlite_house.segue, lambda _: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://in") as client:
            posts = [
                asyncio.create_task(client.post("/hooks/sendgrid", content=body, headers=signed))
                for _ in range(50)
            ]
            async with asyncio.timeout(PATIENCE):
                await asyncio.to_thread(busy.acquire)
                for path in ("/healthz", "/u/x", "/metrics", "/docs"):
                    assert (await client.get(path)).status_code in (200, 404)
            released.set()
            return [answer.status_code for answer in await asyncio.gather(*posts)]

    try:
        assert asyncio.run(scenario()) == [200] * 50
    finally:
        released.set()


def test_live_mode_accepts_only_webhooks_signed_with_its_keys(house: House) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    house.open(
        OFFER,
        **LIVE
        | {
            "public_url": "https://hooks.your.shop/segue",
            "sendgrid_webhook_key": b64encode(der).decode(),
            "twilio_auth_token": "the token",
        },
    )
    outside = FromProviders(house.segue)
    body = orjson.dumps([mail_event("delivered", mail_of(house), "ann@example.com")])
    signed = signed_by_sendgrid(key, body, MONDAY)
    assert outside.post("/hooks/sendgrid", body, signed).status_code == 200
    path = "/hooks/twilio/inbound"
    form = {"MessageSid": "SM1", "From": "+447700900001", "Body": "STOP"}
    signed = signed_by_twilio("the token", f"https://hooks.your.shop/segue{path}", form)
    answer = outside.post(path, b"MessageSid=SM1&From=%2B447700900001&Body=STOP", signed)
    assert answer.status_code == 200
    assert [row.name for row in everything(house)[1]] == [
        *("email_delivered", "sms_stopped", "profile_changed")
    ]


def test_a_database_in_trouble_makes_the_provider_try_again(sqlite_house: House) -> None:
    outside = FromProviders(sqlite_house.open(OFFER))
    with sqlite_house.db.transaction() as tx:
        messages.drop(tx.conn)
    assert outside.mail(mail_event("open", 1, "ann@example.com")).status_code == 503
    assert outside.woken == 0


def test_only_posts_are_answered_and_they_are_described(house: House) -> None:
    app = create_app(house.segue, lambda _: None)
    described = app.openapi()["paths"]
    for path in HOOKS:
        assert set(described[path]) == {"post"}
        assert {"200", "400", "403", "413", "503"} <= set(described[path]["post"]["responses"])

    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://in") as client:
            return [(await client.get(path)).status_code for path in HOOKS]

    assert asyncio.run(statuses()) == [405] * len(HOOKS)
