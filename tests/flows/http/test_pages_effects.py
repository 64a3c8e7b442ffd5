"""Choices on the customers' pages apply to planned messages, and journeys react to them."""

import re
from html import unescape
from pathlib import Path

import orjson

from config.clock.times import DAY, HOUR, format_instant
from config.policy import Policy
from journeys.definition.catalog import load_catalog
from journeys.dsl import (
    Email,
    Exit,
    Journey,
    OnEvent,
    Send,
    Split,
    Update,
    WaitUntil,
    attribute,
    consented,
    when,
)
from profiles.imports.importer import import_file
from profiles.tables import profiles
from tests.support.http.page_customers import POLICY, TEXTS, Shop, form_of, one_click
from tests.support.http.receiving import WRITE_KEY
from tests.support.shop import MONDAY

# What then never leaves --------------------------------------------------------------------------


def planned(shop: Shop) -> None:
    """A mail for noon, a text and a push for the hours after it."""
    shop.house.launch("offers")
    shop.house.until(MONDAY + 2 * HOUR - 1)
    assert [row.state for row in shop.house.outbox()] == []


def test_an_unsubscribe_applies_to_planned_messages(shop: Shop) -> None:
    shop.house.launch("offers")
    shop.house.until(MONDAY + 2 * HOUR)
    assert [(row.channel, row.state) for row in shop.house.outbox()] == [
        ("email", "sent"),
        ("sms", "planned"),
        ("push", "planned"),
    ]
    shop.client.post(shop.u("sms"), data={"action": "stop"})
    shop.client.post(shop.u("push"), data=one_click())
    shop.house.until(MONDAY + 2 * DAY)
    assert [(row.channel, row.state, row.reason) for row in shop.house.outbox()] == [
        ("email", "sent", None),
        ("sms", "skipped", "no_consent"),
        ("push", "skipped", "no_consent"),
    ]
    assert [sent.channel for sent in shop.house.providers.accepted] == ["email"]


def test_chosen_hours_move_planned_messages(shop: Shop) -> None:
    shop.house.launch("offers")
    shop.house.until(MONDAY + 2 * HOUR)
    shop.choose(opens="18:00", closes="20:00")
    shop.house.until(MONDAY + 2 * DAY)
    assert [(row.channel, row.state, row.send_at) for row in shop.house.outbox()] == [
        ("email", "sent", "2026-03-02T12:00:00Z"),
        ("sms", "sent", "2026-03-02T18:00:00Z"),
        ("push", "sent", "2026-03-02T19:00:00Z"),
    ]


def test_a_chosen_cap_applies_to_planned_messages(shop: Shop) -> None:
    shop.house.launch("offers")
    shop.house.until(MONDAY + 2 * HOUR)
    shop.choose(per_week="2")
    shop.house.until(MONDAY + 10 * DAY)
    assert [(row.channel, row.state, row.reason) for row in shop.house.outbox()] == [
        ("email", "sent", None),
        ("sms", "sent", None),
        ("push", "skipped", "capped"),
    ]


def test_a_chosen_time_zone_and_language_override_later_statements(
    shop: Shop, tmp_path: Path
) -> None:
    shop.choose(timezone="America/New_York", language="de")
    file, columns = tmp_path / "customers.csv", tmp_path / "map.toml"
    file.write_text("id,zone,speaks\nann,Asia/Tokyo,fr\n")
    columns.write_text('[columns]\nuser_id = "id"\ntimezone = "zone"\nlanguage = "speaks"\n')
    assert import_file(shop.house.db, file, map_file=columns).updated == 1
    context = {"timezone": "Asia/Seoul", "locale": "ko"}
    call = {"userId": "ann", "messageId": "m1", "context": context}
    assert shop.client.post("/v1/identify", json=call, auth=(WRITE_KEY, "")).status_code == 200
    [known] = shop.rows(profiles)
    assert (known.timezone, known.language) == ("Asia/Seoul", "ko")

    letters = Journey(
        "letters",
        entry=OnEvent("came", again="always"),
        topic="offers",
        steps=[
            Split(
                "by language", when(attribute("language") == "de", [Update("german", german=True)])
            ),
            Send("letter", Email("letter")),
        ],
    )
    texts = {"letter.email.html": "Subject: {{ profile.language }}\n\n<p>x</p>"}
    shop.house.open(letters, policy=POLICY, texts=texts)
    shop.house.did(shop.ann, "came")
    shop.house.run()
    [planned] = shop.house.rows()
    # 8:00 in New York; in Seoul it is 19:00
    assert (planned.state, format_instant(planned.send_at)) == ("planned", "2026-03-02T13:00:00Z")
    assert planned.decision["timezone"] == "America/New_York"
    assert shop.house.attributes(shop.ann)["german"] is True
    shop.house.until(planned.send_at)

    page = shop.choose(timezone="", language="")
    assert "Leave it to us (Seoul)" in page
    assert "Leave it to us (ko)" in page
    shop.house.did(shop.ann, "came")
    shop.house.later("1d")
    assert [row.decision["timezone"] for row in shop.house.rows()] == [
        "America/New_York",
        "Asia/Seoul",
    ]
    assert [row.state for row in shop.house.rows()] == ["sent", "sent"]
    assert [mail.text for mail in shop.house.providers.accepted] == ["de", "ko"]


def test_a_chosen_time_zone_moves_planned_messages(shop: Shop) -> None:
    shop.house.launch("offers")
    shop.house.until(MONDAY + 2 * HOUR)
    shop.choose(timezone="America/Los_Angeles")
    shop.house.until(MONDAY + 2 * DAY)
    text = shop.house.outbox()[1]
    assert (text.channel, text.state, text.send_at) == ("sms", "sent", "2026-03-02T16:00:00Z")


def test_journeys_react_to_what_was_chosen(shop: Shop) -> None:
    waiting = Journey(
        "waiting",
        entry=OnEvent("signed_up"),
        topic="offers",
        steps=[
            WaitUntil("says yes", consented("push", "news"), timeout="30d", then=[Exit("done")]),
        ],
    )
    shop.house.open(waiting, policy=POLICY, texts=TEXTS)
    bob = shop.house.customer("bob", consent={("push", "*"): False})
    shop.house.did(bob, "signed_up")
    shop.house.run()
    path = shop.p(bob)
    page = shop.get(path)
    shop.client.post(path, data={**form_of(page), "push.news": "on"})
    shop.house.run()
    assert shop.house.passed(bob)[0] == ("says yes", "next")


def test_mails_lead_to_both_pages_and_receipts_to_the_choices(shop: Shop) -> None:
    shop.house.launch("offers")
    shop.house.until(MONDAY + 2 * HOUR)
    mail = orjson.loads(shop.house.providers.requests[0].content)
    html = next(part["value"] for part in mail["content"] if part["type"] == "text/html")
    links = [unescape(link) for link in re.findall(r'href="([^"]+)"', html)]
    assert links == [f"{shop.settings.public_url}{path}" for path in (shop.u(), shop.p())]
    [personalization] = mail["personalizations"]
    assert personalization["headers"]["List-Unsubscribe"] == f"<{links[0]}>"

    receipt = Send("receipt", Email("receipt"), kind="transactional")
    bought = Journey("bought", entry=OnEvent("bought"), topic="orders", steps=[receipt])
    shop.house.open(bought, policy=POLICY, texts=TEXTS)
    shop.house.did(shop.ann, "bought")
    shop.house.run()
    html = orjson.loads(shop.house.providers.requests[-1].content)["content"][-1]["value"]
    assert f"{shop.settings.public_url}{shop.p()}" in unescape(html)


def test_the_librarys_mails_lead_to_both_pages() -> None:
    catalog = load_catalog(Policy())
    mails = 0
    for version in catalog.current.values():
        for step in version.journey.sends():
            for message in step.messages:
                if message.channel == "email":
                    mails += 1
                    used = version.template(message).variables
                    assert {"links.unsubscribe", "links.preferences"} <= used
    assert mails > 5
