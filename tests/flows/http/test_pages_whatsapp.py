"""Customers with a WhatsApp opt-in: the preferences page, and the unsubscribe link of a message."""

from urllib.parse import parse_qs

import orjson
import pytest

from config.clock.times import DAY, HOUR
from config.database.engine import Database
from flows.http.app import create_app
from journeys.dsl import Journey, OnLaunch, Send, Wait, WhatsApp
from tests.support.http.page_customers import POLICY, Client, Shop, form_of, one_click, shown
from tests.support.shop import MONDAY

TEXT = "Content-SID: HX" + "0a" * 16 + "\nVariable-1: {{ links.unsubscribe }}\n"
# Two messages, a day apart.
JOURNEY = Journey(
    "chat",
    entry=OnLaunch(),
    topic="offers",
    steps=[Send("now", WhatsApp("chat")), Wait("1d"), Send("later", WhatsApp("chat"))],
)


@pytest.fixture
def shop(db: Database) -> Shop:
    """Ann has agreed to WhatsApp."""
    channels = {**POLICY.channels, "whatsapp": POLICY.channels["sms"]}
    policy = POLICY.model_copy(update={"channels": channels})
    shop = Shop(db)
    shop.house.open(JOURNEY, policy=policy, texts={"chat.whatsapp.txt": TEXT})
    shop.client = Client(create_app(shop.house.segue, lambda _: None))
    shop.house.say(shop.ann, "whatsapp", "*", granted=True)
    return shop


def test_the_preferences_page_shows_and_changes_an_opt_in(shop: Shop) -> None:
    page = shop.get(shop.p())
    assert "No WhatsApp messages at all, not even about an order" in shown(page)
    assert form_of(page)["whatsapp.offers"] == "on"
    shop.choose(whatsapp_on_offers="")
    others = {("email", "*"): True, ("sms", "*"): True}
    assert shop.said() == {**others, ("whatsapp", "*"): True, ("whatsapp", "offers"): False}
    fields = form_of(shop.get(shop.p()))
    assert "whatsapp.offers" not in fields
    assert fields["whatsapp.news"] == "on"


def test_a_stop_on_the_preferences_page_says_nothing_about_sms(shop: Shop) -> None:
    shop.choose(no_whatsapp="on")
    assert shop.said() == {("email", "*"): True, ("sms", "*"): True, ("whatsapp", "*"): False}
    assert form_of(shop.get(shop.p()))["no_whatsapp"] == "on"
    shop.choose(no_whatsapp="", whatsapp_on_news="on")
    assert shop.said() == {("email", "*"): True, ("sms", "*"): True, ("whatsapp", "news"): True}


def test_one_click_in_a_message_stops_the_topic_on_whatsapp(shop: Shop) -> None:
    shop.house.launch("chat")
    shop.house.until(MONDAY + HOUR)
    [request] = shop.house.providers.requests
    variables = orjson.loads(parse_qs(request.content.decode())["ContentVariables"][0])
    path = variables["1"].removeprefix(shop.settings.public_url)
    assert "Stop WhatsApp messages about “Offers”?" in shown(shop.get(path))
    assert shop.client.post(path, data=one_click()).status_code == 200
    assert shop.last_record() == ("whatsapp", "offers", False, shop.house.now, "one-click")
    assert shop.said()["sms", "*"] is True
    shop.house.until(MONDAY + 3 * DAY)
    assert [(row.state, row.reason) for row in shop.house.outbox()] == [
        ("sent", None),
        ("skipped", "no_consent"),
    ]
    assert len(shop.house.providers.requests) == 1
