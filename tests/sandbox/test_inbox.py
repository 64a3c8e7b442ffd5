"""The inbox shows the sent and refused messages of each customer, with all data as text."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update

from channels.messages import messages
from config.clock.times import HOUR, MINUTE, format_instant
from config.database.engine import Database
from profiles.events import NewEvent, record_events
from profiles.tables import identifiers, profiles
from sandbox.app import create_app
from sandbox.inbox.timeline import DatabaseTimeline
from sandbox.store import Store
from tests.support.providers.sandbox_requests import (
    LOGIN,
    client_of,
    mail,
    post_mail,
    post_push,
    post_sms,
    push,
    sms,
    to,
)

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000
HOSTILE = "<script>alert(1)</script> {{ 7*7 }}"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt; {{ 7*7 }}"


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


async def test_without_a_timeline_the_inbox_lists_addresses(client: httpx.AsyncClient) -> None:
    await post_mail(client, mail(*map(str, range(30))))
    await post_sms(client, sms(Body="Latest"))
    page = (await client.get("/inbox")).text
    assert page.index("+447700900001") < page.index("customer29@example.com")
    assert "customer5@example.com" not in page
    assert "/inbox?page=2" in page
    assert "customer5@example.com" in (await client.get("/inbox?page=2")).text
    found = (await client.get("/inbox", params={"q": "customer12"})).text
    assert "customer12@" in found
    assert "customer13@" not in found
    assert "No customer matches" in (await client.get("/inbox?q=%25")).text
    assert "Latest" in (await client.get("/inbox/%2B447700900001")).text
    assert (await client.get("/inbox/nobody")).status_code == 404


async def test_what_customers_send_shows_as_text(client: httpx.AsyncClient) -> None:
    data = {"subject": HOSTILE, "html": f'<p>"{HOSTILE}"</p>', "text": HOSTILE}
    headers = {"X-Note": HOSTILE}
    await post_mail(client, mail("1", **to(dynamic_template_data=data, headers=headers)))
    await post_sms(client, sms(Body=HOSTILE))
    link = {"link": "javascript:alert(1)"}
    await post_push(client, push(notification={"title": HOSTILE, "body": HOSTILE}, data=link))
    paths = ["/inbox", "/inbox/a@example.com", "/inbox/%2B447700900001", "/inbox/token-1"]
    for path in [*paths, "/inbox?q=" + HOSTILE.replace("<", "%3C")]:
        answer = await client.get(path)
        assert "<script" not in answer.text
        assert ESCAPED in answer.text
        assert "javascript:" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    shown = (await client.get("/inbox/a@example.com")).text
    [frame] = [line for line in shown.splitlines() if "<iframe" in line]
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in frame
    assert f"&lt;p&gt;&#34;{ESCAPED}&#34;&lt;/p&gt;" in frame


def _message(number: int, profile_id: int, channel: str, **changes: Any) -> dict[str, Any]:
    """A row of Segue's outbox."""
    at = changes.get("send_at", NOW)
    decision = {
        "outcome": "send",
        "send_at": format_instant(at),
        "reason": None,
        "rule": None,
        "timezone": ["Europe/Berlin", "Europe/Busingen"],
        "timezone_source": "country",
    }
    row = {
        "id": number,
        "profile_id": profile_id,
        "enrollment_id": number,
        "journey": "win-back",
        "version": "v1",
        "step": "offer",
        "member": channel,
        "channel": channel,
        "kind": "marketing",
        "topic": "promotions",
        "priority": 50,
        "mode": "any",
        "after": 0,
        "on_cap": "skip",
        "wanted_at": NOW,
        "latest_anchor": NOW,
        "send_at": at,
        "state": "sent",
        "reason": None,
        "attempts": 0,
    }
    return row | changes | {"decision": decision | changes.get("decision", {})}


@pytest.fixture
def timeline(db: Database) -> DatabaseTimeline:
    """Ada: a mail sent, a text capped, a push waiting. Grace: a mail, and two that failed."""
    names = [{"first_name": "Ada", "last_name": HOSTILE}, {"name": "Grace 100%"}]
    ada, grace = [
        {"id": number, "attributes": name, "created_at": NOW, "updated_at": NOW}
        for number, name in enumerate(names, 1)
    ]
    known = [
        (1, "email", "old@example.com", NOW),
        (1, "email", "customer1@example.com", None),
        (1, "phone", "+447700900001", None),
        (2, "email", "customer4@example.com", None),
    ]
    capped = {"reason": "capped", "rule": "at most 1 sms a day: 1 on 2027-01-15"}
    with db.transaction() as tx:
        tx.conn.execute(insert(profiles), [ada, grace])
        tx.conn.execute(
            insert(identifiers),
            [
                {"profile_id": who, "kind": kind, "value": value, "seen_at": NOW, "retired_at": at}
                for who, kind, value, at in known
            ],
        )
        tx.conn.execute(
            insert(messages),
            [
                _message(1, 1, "email"),
                _message(2, 1, "sms", state="skipped", reason="capped", decision=capped),
                _message(3, 1, "push", state="planned", send_at=NOW + 26 * HOUR),
                _message(4, 2, "email", state="delivered"),
                _message(5, 2, "sms", state="skipped", reason="missing_data: cart.total"),
                _message(6, 2, "push", state="unknown", reason="the line broke"),
            ],
        )
    return DatabaseTimeline(db)


async def test_the_inbox_joins_what_one_customer_got_and_did_not_get(
    store: Store, timeline: DatabaseTimeline
) -> None:
    async with client_of(create_app(store, timeline, login=LOGIN)) as client:
        await post_mail(client, mail("1", "4"))
        await post_mail(client, mail("nobody's"))
        inbox = (await client.get("/inbox")).text
        assert f"Ada {ESCAPED}" in inbox
        assert "Grace 100%" in inbox
        assert "customernobody&#39;s@example.com" in inbox
        ada = (await client.get("/inbox/1")).text
        assert f"Ada {ESCAPED}" in ada
        assert "customer1@example.com · +447700900001" in ada
        assert "&lt;p&gt;Mail 1&lt;/p&gt;" in ada
        assert "A frequency cap was full." in ada
        assert "at most 1 sms a day: 1 on 2027-01-15" in ada
        assert "Windows and caps delayed it by 1 day 2 hours." in ada
        assert ada.index("Planned") < ada.index("Not sent")
        assert "Friday 15 January 2027" in ada
        assert '<time datetime="2027-01-15T09:00:00+01:00">09:00</time>' in ada
        assert "Mail 4" not in ada
        grace = (await client.get("/inbox/2")).text
        assert "prints cart.total, which has no value" in grace
        assert "not sent again automatically. Reason: the line broke." in grace
        await post_mail(client, mail("1"))
        assert "Accepted 2 times" in (await client.get("/inbox/1")).text
        assert (await client.get("/inbox/99")).status_code == 404
        assert "Subject nobody" in (await client.get("/inbox/customernobody's@example.com")).text


async def test_the_inbox_counts_the_devices_of_a_push(
    store: Store, timeline: DatabaseTimeline, db: Database
) -> None:
    with db.transaction() as tx:
        tx.conn.execute(insert(messages).values(_message(50, 2, "push")))
    async with client_of(create_app(store, timeline, login=LOGIN)) as client:
        for token in ("device-a", "device-b"):
            await post_push(client, push("50", token=token))
        grace = (await client.get("/inbox/2")).text
        assert "To 2 devices." in grace
        assert "under one message id" not in grace
        await post_push(client, push("50", token="device-a"))
        assert "Accepted 2 times" in (await client.get("/inbox/2")).text


async def test_the_inbox_shows_what_a_customer_did_with_a_message(
    store: Store, timeline: DatabaseTimeline, db: Database
) -> None:
    about = {"message_id": "4", "journey": "win-back", "step": "offer"}
    done = [
        NewEvent(
            profile_id=2,
            name=f"email_{kind}",
            occurred_at=NOW + minute * MINUTE,
            dedupe_key=kind,
            properties=about,
        )
        for minute, kind in enumerate(("delivered", "machine_opened", "opened", "clicked"))
    ]
    another = NewEvent(
        profile_id=2,
        name="email_complained",
        occurred_at=NOW,
        dedupe_key="other",
        properties={"message_id": "99"},
    )
    nobody = NewEvent(
        profile_id=1, name="email_opened", occurred_at=NOW, dedupe_key="ada", properties={}
    )
    with db.transaction() as tx:
        record_events(tx, [*reversed(done), another, nobody], worked=True)
        returned = update(messages).where(messages.c.id == 1)
        tx.conn.execute(returned.values(state="failed", reason="sendgrid bounce: 550"))
    async with client_of(create_app(store, timeline, login=LOGIN)) as client:
        await post_mail(client, mail("1", "4"))
        grace = (await client.get("/inbox/2")).text
        ada = (await client.get("/inbox/1")).text
    shown = re.findall(r"<li>([A-Z][^<]*) <time [^>]*>([^<]*)</time></li>", grace)
    assert shown == [("Opened by a program", "09:01"), ("Opened", "09:02"), ("Clicked", "09:03")]
    assert "Returned" in ada
    assert 'class="answers"' not in ada


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("aDa", ["1"]),
        ("grace 100%", ["2"]),
        ("%", ["2"]),
        ("<script>", ["1"]),
        ("customer", ["1", "2"]),
        ("+44 7700 900001", ["1"]),
        ("tel:+44-7700-900001", ["1"]),
        ("nobody", []),
    ],
)
def test_customers_are_found_by_name_mail_and_phone(
    timeline: DatabaseTimeline, text: str, found: list[str]
) -> None:
    assert sorted(who.id for who in timeline.search(text)) == found


def test_unknown_message_ids_have_no_customer(timeline: DatabaseTimeline) -> None:
    assert set(timeline.customers(["1", "99", "x", "²", "9" * 30])) == {"1"}
    assert timeline.customer("x") is None


async def test_a_search_finds_people_who_got_nothing(
    store: Store, timeline: DatabaseTimeline
) -> None:
    async with client_of(create_app(store, timeline, login=LOGIN)) as client:
        page = (await client.get("/inbox?q=grace")).text
        assert "Grace 100%" in page
        assert "This customer has received no e-mail" in page


async def test_a_database_without_tables_is_reported(store: Store, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/empty.db")
    async with client_of(create_app(store, DatabaseTimeline(database), login=LOGIN)) as client:
        await post_mail(client, mail("1"))
        for path in ("/inbox", "/inbox/1", "/inbox?q=a"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "SEGUE_DATABASE_URL" in answer.text
    database.close()
