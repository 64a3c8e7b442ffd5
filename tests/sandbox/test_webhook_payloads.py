"""The sandbox's customers react, and its providers send the webhooks of the real ones."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import orjson
import pytest
import respx

from channels.providers.registry import webhooks
from channels.providers.webhook import Feedback, WebhookRequest
from config.clock.times import format_instant, parse_instant
from config.policy import Policy
from config.settings import Settings
from sandbox.app import create_app
from sandbox.providers import caller
from sandbox.providers.caller import Callbacks
from sandbox.simulated_customer import Behaviour, CustomerReaction, reactions_to
from sandbox.store import Store
from tests.support.patience import PATIENCE
from tests.support.providers.sandbox_requests import (
    LOGIN,
    client_of,
    mail,
    post_batch,
    post_mail,
    post_push,
    post_sms,
    postmark_mail,
    push,
    sms,
)

pytestmark = pytest.mark.anyio

SETTINGS = Settings()
PUBLIC = SETTINGS.public_url
# Nobody is dead, nothing takes time: each test switches on what it is about.
CALM: dict[str, Any] = {
    **dict.fromkeys(
        ["dead", "blocked", "opens", "machine_opens", "clicks", "complaints", "stops"], 0
    ),
    **dict.fromkeys(["delivered_within", "answered_within", "gathered"], 0),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# The model --------------------------------------------------------------------------------------


def words(behaviour: Behaviour, channel: str, address: str, message: str) -> list[str]:
    return [one.kind for one in reactions_to(behaviour, channel, address, message)]


def lives(channel: str = "email", people: int = 400, mails: int = 5, **changes: Any) -> list[Any]:
    behaviour = Behaviour(seed=7, **changes)
    return [
        [words(behaviour, channel, f"p{person}@example.com", f"m{n}") for n in range(mails)]
        for person in range(people)
    ]


def test_the_same_seed_gives_the_same_answers_in_any_order() -> None:
    messages = [(f"p{n % 7}@example.com", f"m{n}") for n in range(50)]

    def run(
        seed: int, order: list[tuple[str, str]]
    ) -> dict[tuple[str, str], list[CustomerReaction]]:
        behaviour = Behaviour(seed=seed, twice=0.5, out_of_order=0.5)
        return {one: reactions_to(behaviour, "email", *one) for one in order}

    assert run(1, messages) == run(1, messages[::-1])
    assert run(1, messages) != run(2, messages)


def test_shares_are_those_of_the_whole() -> None:
    mails = [mail for person in lives(opens=0.4, clicks=0.5, machine_opens=0.3) for mail in person]
    seen = Counter(word for mail in mails for word in mail)
    assert seen["processed"] == len(mails)
    assert 0.35 < seen["open"] / seen["delivered"] < 0.45
    assert 0.4 < seen["click"] / seen["open"] < 0.6
    assert 0.25 < seen["machine_open"] / seen["delivered"] < 0.35
    assert 0 < seen["bounce"] < 0.05 * len(mails)
    texts = [text for person in lives("sms", stops=0.1) for text in person]
    assert 0.05 < sum("stop" in text for text in texts) / len(texts) < 0.15


def test_a_recipient_behaves_the_same_each_time() -> None:
    for person in lives(dead=0.3, machine_opens=0.5):
        assert len({"bounce" in mail for mail in person}) == 1
        assert len({"machine_open" in mail for mail in person if "delivered" in mail}) <= 1
    # Some open nearly everything and some nearly nothing, which no coin would do.
    opened = Counter(
        sum("open" in mail for mail in person)
        for person in lives(mails=20, opens=0.4, dead=0, blocked=0)
    )
    assert sum(opened[n] for n in range(3)) > 20
    assert sum(opened[n] for n in range(14, 21)) > 20


def test_events_of_a_message_follow_in_order() -> None:
    behaviour = Behaviour(seed=3, opens=1, clicks=1, complaints=1, dead=0, blocked=0)
    for number in range(50):
        told = reactions_to(behaviour, "email", f"p{number}@example.com", "m")
        after = {one.kind: one.after for one in told}
        assert after["processed"] <= after["delivered"] <= after["open"] <= after["click"]
        assert after["delivered"] <= 2
        assert after["click"] <= 2 + 60 + 60
        assert all(one.reported == (one.after,) for one in told)


def test_a_push_has_no_webhooks() -> None:
    assert reactions_to(Behaviour(), "push", "token", "1") == []


# The call-backs ---------------------------------------------------------------------------------


class Listener:
    """The receiver of the webhooks: the product's own code verifies and parses them."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.heard: list[Feedback] = []
        self.down = 0
        self._hooks = {hook.path: hook for hook in webhooks(SETTINGS, Policy())}

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.down:
            self.down -= 1
            if self.down % 2:
                raise httpx.ConnectError("nobody is there")
            return httpx.Response(503)
        hook = self._hooks[request.url.path]
        query = request.url.query.decode()
        url = f"{PUBLIC}{request.url.path}{'?' if query else ''}{query}"
        now = int(request.headers.get("X-Twilio-Email-Event-Webhook-Timestamp", "0"))
        self.heard += hook.read(
            WebhookRequest(url=url, headers=request.headers, body=request.content, now=now)
        )
        return httpx.Response(200)

    def said(self) -> list[tuple[int | None, str]]:
        return [(one.message_id, one.kind) for one in self.heard]


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    with respx.mock(assert_all_called=False) as mock:
        mock.route(url__startswith=PUBLIC).mock(side_effect=listener.respond)
        yield listener


class Sandbox:
    """The sandbox without a port."""

    def __init__(self, callbacks: Callbacks, client: httpx.AsyncClient) -> None:
        self.callbacks = callbacks
        self.client = client

    async def behave(self, **behaviour: Any) -> None:
        answer = await self.client.post("/behaviour", json={**CALM, **behaviour})
        assert answer.status_code == 204

    async def settled(self) -> dict[str, Any]:
        """How things stand once nothing waits any more."""
        async with asyncio.timeout(PATIENCE):
            while (state := (await self.client.get("/behaviour")).json())["waiting"]:
                await asyncio.sleep(0.01)
        return dict(state)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    store = Store(tmp_path / "sandbox.db")
    callbacks = Callbacks(SETTINGS, store.now, tries_after=(0, 0, 0))
    async with (
        callbacks.running(),
        client_of(create_app(store, None, callbacks, login=LOGIN)) as client,
    ):
        yield Sandbox(callbacks, client)
    store.close()


async def test_no_webhooks_without_a_behaviour(sandbox: Sandbox, listener: Listener) -> None:
    await post_mail(sandbox.client, mail("1"))
    await post_sms(sandbox.client, sms("2"))
    assert await sandbox.settled() == {
        **{"behaviour": None, "waiting": 0, "posted": 0, "given_up": 0, "dropped": 0}
    }
    assert listener.requests == []


async def test_mails_are_opened_and_clicked(sandbox: Sandbox, listener: Listener) -> None:
    await sandbox.behave(opens=1, clicks=1, machine_opens=1)
    body = mail("1")
    [to] = body["personalizations"]
    to["dynamic_template_data"]["html"] = '<a href="https://shop.example/?a=1&amp;b=2">x</a>'
    await post_mail(sandbox.client, body)
    await sandbox.settled()
    assert sorted(listener.said()) == [
        *((1, "clicked"), (1, "delivered"), (1, "machine_opened"), (1, "opened"), (1, "sent"))
    ]
    assert {one.address for one in listener.heard} == {"customer1@example.com"}
    [click] = [one for one in listener.heard if one.kind == "clicked"]
    assert click.properties == {"url": "https://shop.example/?a=1&b=2"}


async def test_mails_by_postmark_are_opened_and_clicked(
    sandbox: Sandbox, listener: Listener
) -> None:
    await sandbox.behave(opens=1, clicks=1, machine_opens=1, complaints=1)
    html = f'<a data-pm-no-track href="{PUBLIC}/u/x">no</a> <a href="https://shop.example/">x</a>'
    await post_batch(sandbox.client, postmark_mail("1", HtmlBody=html))
    await sandbox.settled()
    assert sorted(listener.said()) == [
        *((1, "clicked"), (1, "complained"), (1, "delivered"), (1, "opened"), (1, "opened"))
    ]
    assert {one.address for one in listener.heard} == {"customer1@example.com"}
    [click] = [one for one in listener.heard if one.kind == "clicked"]
    assert click.properties == {"url": "https://shop.example/"}
    # Whoever complained is inactive at Postmark.
    [answer] = (await post_batch(sandbox.client, postmark_mail("1"))).json()
    assert answer["ErrorCode"] == 406


async def test_bounces_by_postmark(sandbox: Sandbox, listener: Listener) -> None:
    await sandbox.behave(dead=1)
    await post_batch(sandbox.client, postmark_mail("1"))
    await sandbox.settled()
    await sandbox.behave(blocked=1)
    await post_batch(sandbox.client, postmark_mail("2"))
    await sandbox.settled()
    assert [(one.message_id, one.kind, one.suppress) for one in listener.heard] == [
        *((1, "bounced", "bounced"), (2, "bounced", None))
    ]


async def test_events_come_in_batches(sandbox: Sandbox, listener: Listener) -> None:
    await sandbox.behave(gathered=0.2)
    await post_mail(sandbox.client, mail(*map(str, range(1, 1001))))
    await sandbox.settled()
    assert len(listener.heard) == 2000
    assert len(listener.requests) < 50
    assert max(len(orjson.loads(one.content)) for one in listener.requests) <= 1000
    assert all(one.content.endswith(b"\r\n") for one in listener.requests)


async def test_dead_addresses_bounce_and_blocked_mails_do_not_suppress(
    sandbox: Sandbox, listener: Listener
) -> None:
    await sandbox.behave(dead=1)
    await post_mail(sandbox.client, mail("1"))
    await sandbox.settled()
    await sandbox.behave(blocked=1)
    await post_mail(sandbox.client, mail("2"))
    await sandbox.settled()
    bounces = [one for one in listener.heard if one.kind == "bounced"]
    assert [(one.message_id, one.suppress) for one in bounces] == [(1, "bounced"), (2, None)]


async def test_texts_are_delivered_and_answered(sandbox: Sandbox, listener: Listener) -> None:
    await sandbox.behave(stops=1)
    answer = await post_sms(sandbox.client, sms("7"))
    await sandbox.settled()
    assert sorted(listener.said(), key=str) == [(7, "delivered"), (7, "sent"), (None, "stopped")]
    status, *_ = listener.requests
    form = dict(parse_qsl(status.content.decode(), keep_blank_values=True))
    assert form["MessageSid"] == answer.json()["sid"]
    # Twilio itself now refuses to text them, until they say START.
    assert (await post_sms(sandbox.client, sms("8"))).json()["code"] == 21610
    start = {"from": "+447700900001", "body": "Start"}
    assert (await sandbox.client.post("/replies", json=start)).status_code == 204
    await sandbox.settled()
    assert listener.heard[-1].kind == "started"
    assert (await post_sms(sandbox.client, sms("8"))).status_code == 201


async def test_a_text_without_a_callback_is_answered_all_the_same(
    sandbox: Sandbox, listener: Listener
) -> None:
    await sandbox.behave(stops=1)
    await post_sms(sandbox.client, sms(StatusCallback=""))
    await sandbox.settled()
    assert listener.said() == [(None, "stopped")]


async def test_unreachable_numbers(sandbox: Sandbox, listener: Listener) -> None:
    await sandbox.behave(dead=1)
    await post_sms(sandbox.client, sms("7"))
    await sandbox.settled()
    [failed] = [one for one in listener.heard if one.kind == "failed"]
    assert (failed.suppress, failed.properties) == ("unregistered", {"error_code": "30005"})


async def test_a_whatsapp_message_is_read_and_answered(
    sandbox: Sandbox, listener: Listener
) -> None:
    await sandbox.behave(opens=1, stops=1)
    addresses = {"To": "whatsapp:+447700900001", "From": "whatsapp:+14155238886"}
    callback = f"{PUBLIC}/hooks/twilio_whatsapp/status?message_id=7"
    await post_sms(sandbox.client, sms("7", **addresses, StatusCallback=callback))
    await sandbox.client.post(
        "/replies", json={"from": "whatsapp:+447700900001", "body": "How much?"}
    )
    await sandbox.settled()
    assert {one.channel for one in listener.heard} == {"whatsapp"}
    assert {one.address for one in listener.heard} == {"+447700900001"}
    assert sorted(one.kind for one in listener.heard) == [
        *("delivered", "opened", "replied", "sent", "stopped"),
    ]


async def test_a_repeated_webhook_has_the_same_id(sandbox: Sandbox, listener: Listener) -> None:
    await sandbox.behave(opens=1, twice=1)
    await post_mail(sandbox.client, mail("1"))
    await post_sms(sandbox.client, sms("2"))
    await sandbox.settled()
    said = Counter(one.id for one in listener.heard)
    assert len(said) == 5
    assert set(said.values()) == {2}


async def test_webhooks_may_arrive_in_reverse_order(sandbox: Sandbox, listener: Listener) -> None:
    await sandbox.behave(out_of_order=1, delivered_within=0.2)
    await post_sms(sandbox.client, sms("7"))
    await sandbox.settled()
    assert listener.said() == [(7, "delivered"), (7, "sent")]


async def test_a_receiver_that_is_down_gets_it_later(sandbox: Sandbox, listener: Listener) -> None:
    listener.down = 3
    await sandbox.behave(gathered=0)
    assert (await post_mail(sandbox.client, mail("1"))).status_code == 202
    state = await sandbox.settled()
    assert sorted(listener.said()) == [(1, "delivered"), (1, "sent")]
    assert (state["given_up"], listener.down) == (0, 0)


async def test_a_receiver_that_stays_down_is_given_up(sandbox: Sandbox, listener: Listener) -> None:
    listener.down = 10**6
    await sandbox.client.post("/replies", json={"from": "+447700900001", "body": "Hello?"})
    state = await sandbox.settled()
    assert (state["posted"], state["given_up"]) == (0, 1)
    assert len(listener.requests) == 4


async def test_the_queue_of_webhooks_is_limited(
    sandbox: Sandbox, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "MOST_WAITING", 10)
    await sandbox.behave(delivered_within=1000)
    await post_mail(sandbox.client, mail(*map(str, range(25))))
    async with asyncio.timeout(10):
        # 15 of the mails, and half of what the other ten would have had said of them
        while sandbox.callbacks.state()["dropped"] < 15 + 10:
            await asyncio.sleep(0)
    assert sandbox.callbacks.state()["waiting"] == 10
    assert (await sandbox.client.delete("/behaviour")).status_code == 204
    assert (await sandbox.settled())["behaviour"] is None
    assert listener.requests == []


async def test_pushes_are_taken_in_silence(sandbox: Sandbox, listener: Listener) -> None:
    await sandbox.behave()
    await post_push(sandbox.client, push())
    await sandbox.settled()
    assert listener.requests == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/behaviour", {"opens": 2}),
        ("/behaviour", {"open": 0.1}),
        ("/replies", {"from": "ann", "body": "STOP"}),
        ("/replies", {"from": "+447700900001"}),
        ("/clock", {"now": "09:00"}),
    ],
)
async def test_invalid_behaviour_is_refused(
    sandbox: Sandbox, path: str, body: dict[str, Any]
) -> None:
    answer = await sandbox.client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["msg"]


# A clock that is moved -------------------------------------------------------------------------


MORNING = parse_instant("2026-03-02T09:00:00Z")


@pytest.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[Sandbox]:
    store = Store(tmp_path / "sandbox.db", simulated=MORNING)
    callbacks = Callbacks(SETTINGS, store.now, tries_after=(0, 0, 0), simulated=True)
    async with (
        callbacks.running(),
        client_of(create_app(store, None, callbacks, login=LOGIN)) as client,
    ):
        yield Sandbox(callbacks, client)
    store.close()


async def test_due_webhooks_are_posted_when_the_clock_has_moved(
    simulated: Sandbox, listener: Listener
) -> None:
    await simulated.behave(opens=1, delivered_within=60, answered_within=3600)
    await post_mail(simulated.client, mail("1"))
    await post_sms(simulated.client, sms("2"))
    clock = (await simulated.client.get("/clock")).json()
    assert clock["now"] == "2026-03-02T09:00:00Z"
    assert MORNING < parse_instant(clock["next"]) <= MORNING + 60
    assert listener.requests == []

    async def move(to: int) -> None:
        answer = await simulated.client.post("/clock", json={"now": format_instant(to)})
        assert answer.status_code == 204

    await move(MORNING + 60)
    assert sorted(listener.said()) == [
        *((1, "delivered"), (1, "sent"), (2, "delivered"), (2, "sent")),
    ]
    # SendGrid names the moment in its events, and signs with the time of the request.
    [delivered] = [one for one in listener.heard if one.message_id == 1 and one.kind == "delivered"]
    assert delivered.at is not None
    assert MORNING <= delivered.at <= MORNING + 60
    await move(MORNING + 2 * 3600)
    assert listener.said()[-1] == (1, "opened")
    clock = (await simulated.client.get("/clock")).json()
    assert clock == {"now": "2026-03-02T11:00:00Z", "next": None}
    [kept] = (await simulated.client.get("/message/1")).json()["accepted"]
    assert kept["accepted_at"] == MORNING


async def test_only_a_simulated_clock_moves_and_only_forward(
    simulated: Sandbox, sandbox: Sandbox
) -> None:
    before = {"now": format_instant(MORNING - 1)}
    back = await simulated.client.post("/clock", json=before)
    assert (back.status_code, back.json()["errors"][0]["msg"]) == (
        *(409, "the clock is already at 2026-03-02T09:00:00Z"),
    )
    real = await sandbox.client.post("/clock", json=before)
    assert (real.status_code, "SEGUE_NOW" in real.json()["errors"][0]["msg"]) == (409, True)
    assert (await sandbox.client.get("/clock")).json()["next"] is None
