"""WhatsApp: templates, the 24-hour session, STOP, and provider reports."""

from typing import Any
from urllib.parse import parse_qs

import httpx
import orjson
import pytest
from sqlalchemy import select

from channels.explain import history_of
from channels.kinds.whatsapp import WhatsAppContent
from channels.outbox.rows import MESSAGE_COLUMNS, MessageRow
from channels.outbox.sessions import session_ends
from channels.providers.registry import connect_providers
from channels.templates.compile import TemplateError, compile_template
from channels.templates.link_check import LinkRules
from config.clock.times import HOUR
from config.policy import Policy
from config.settings import Settings
from journeys.dsl import SMS, Email, Send, WhatsApp
from journeys.engine.hand_over import CatalogJourneys
from profiles.identity.addresses import channel_addresses
from profiles.tables import events
from tests.support.counting import statements
from tests.support.providers.feedback_shop import AnnsShop
from tests.support.providers.provider_samples import outgoing
from tests.support.shop import TEXTS, House, described

SID = "HX" + "0a" * 16
YES = {("whatsapp", "*"): True, ("sms", "*"): True, ("email", "*"): True}
WORDS = {
    **TEXTS,
    "hello.whatsapp.txt": "Hello {{ profile.first_name | default: 'there' }}",
    "offer.whatsapp.txt": f"Content-SID: {SID}\nVariable-1: {{{{ profile.name }}}}\n"
    "Variable-2: 10 %\n",
}


@pytest.fixture
def shop(house: House) -> AnnsShop:
    """Ann has agreed to WhatsApp, and is sent a free text in an hour."""
    return open_shop(house, Send("s", WhatsApp("hello", after="1h")))


def open_shop(house: House, *steps: Any, policy: Policy | None = None, **ann: Any) -> AnnsShop:
    original = house.open
    house.open = lambda *js, **kw: original(*js, texts=WORDS, policy=policy, **kw)  # type: ignore[method-assign]
    ann = {"consent": YES, "attributes": {"name": "Ann"}, **ann}
    return AnnsShop(house, described(*steps), **ann)


def writes(shop: AnnsShop, text: str) -> None:
    assert shop.outside.text(f"whatsapp:{shop.phone}", text).status_code == 200


def form_of(request: httpx.Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.content.decode()).items()}


# Templates -----------------------------------------------------------------------------------


def compiled(text: str) -> WhatsAppContent:
    template = compile_template("whatsapp", "t", {"t.whatsapp.txt": text})
    content = template.render({"name": "Ann\nB"}, LinkRules())
    assert isinstance(content, WhatsAppContent)
    return content


def test_a_template_has_a_content_sid_and_its_variables() -> None:
    variables = "".join(f"Variable-{number}: v{number}\n" for number in (10, 2, 1))
    assert compiled(f"Content-SID: {SID}\n{variables}") == WhatsAppContent(
        "", SID, (("1", "v1"), ("2", "v2"), ("10", "v10"))
    )
    assert compiled(f"Content-SID: {SID}\nVariable-1: {{{{ name }}}}") == WhatsAppContent(
        "", SID, (("1", "Ann B"),)
    )


def test_a_text_without_headers_is_free_text() -> None:
    assert compiled("Hello {{ name }}") == WhatsAppContent("Hello Ann\nB")
    assert compiled("\nNote: hello") == WhatsAppContent("Note: hello")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Content-SID: HX12", "'HX12' is not the SID of a Content template"),
        (f"Content-SID: {SID}\n\nHello", "Content-SID: names a template at the provider"),
        ("Variable-1: Ann\n\nHello", "Variable-…: needs a line Content-SID:"),
        ("Variable-0: Ann\n\nHello", "the header Variable-0: is unknown"),
        ("Title: Hello\n\nHello", "allowed are Content-SID:, Variable-1:, Language:"),
    ],
)
def test_errors_in_a_template(text: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        compile_template("whatsapp", "t", {"t.whatsapp.txt": text})


def test_a_text_may_have_1600_characters() -> None:
    settings = Settings()
    assert WhatsAppContent("x" * 1600).excess(settings) is None
    assert WhatsAppContent("x" * 1601).excess(settings) == "1601 characters; the limit is 1600"


# The provider --------------------------------------------------------------------------------


def test_the_request_to_twilio() -> None:
    sender = connect_providers(Settings()).by_name["twilio_whatsapp"].sender
    free = form_of_request(sender.prepare([outgoing("whatsapp")]).content)
    assert free["To"] == "whatsapp:+4915112345678"
    assert free["From"] == "whatsapp:+14155238886"
    assert free["Body"] == "Hello"
    assert free["StatusCallback"].endswith("/hooks/twilio_whatsapp/status?message_id=7")
    content = WhatsAppContent("", SID, (("1", "Ann"),))
    named = form_of_request(sender.prepare([outgoing("whatsapp", content=content)]).content)
    assert named["ContentSid"] == SID
    assert orjson.loads(named["ContentVariables"]) == {"1": "Ann"}
    assert "Body" not in named


def form_of_request(body: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


@pytest.mark.parametrize(
    ("code", "result", "suppress"),
    [
        (63003, "failed", "unregistered"),
        (63007, "stopped", None),
        (63016, "failed", None),
        (63018, "retry", None),
        (21610, "failed", "opted_out"),
    ],
)
def test_twilios_whatsapp_error_codes(code: int, result: str, suppress: str | None) -> None:
    sender = connect_providers(Settings()).by_name["twilio_whatsapp"].sender
    body = orjson.dumps({"code": code, "message": "No, whatsapp:+4915112345678"})
    [outcome] = sender.read(400, {}, body, [outgoing("whatsapp")])
    assert (outcome.result, outcome.suppress) == (result, suppress)
    assert "+49" not in str(outcome.reason)


def test_whatsapp_has_a_live_route_only_if_a_setting_chooses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from channels.providers.registry import known_providers, routes

    live = Settings.model_construct(providers="live")
    assert "whatsapp" not in routes(known_providers(), live)
    monkeypatch.setenv("SEGUE_WHATSAPP_PROVIDER", "twilio_whatsapp")
    assert routes(known_providers(), live)["whatsapp"].default == "twilio_whatsapp"


# The session ---------------------------------------------------------------------------------


def test_free_text_without_a_session_is_refused_at_the_hand_over(shop: AnnsShop) -> None:
    assert shop.state == "planned"  # nothing is said of it while it waits
    shop.house.later("2h")
    [one] = shop.house.outbox()
    assert (one.state, one.reason) == ("skipped", "no_session")
    with shop.house.db.transaction(write=False) as tx:
        [told] = history_of(tx, "ann")
    assert "has not written to us by WhatsApp messages in the last 24 hours" in told["why"]


@pytest.mark.parametrize(
    ("before", "state"), [(0, "sent"), (23 * HOUR - 1, "sent"), (23 * HOUR, "skipped")]
)
def test_a_session_lasts_24_hours(house: House, before: int, state: str) -> None:
    shop = open_shop(house, Send("s", WhatsApp("hello", after="1h")))
    with house.db.transaction() as tx:
        written = tx.now
    writes(shop, "How much is it?")
    assert shop.heard() == ["whatsapp_replied"]
    with house.db.transaction() as tx:
        tx.conn.execute(events.update().values(occurred_at=written - before))
    house.later("2h")
    assert house.outbox()[0].state == state


def test_a_claim_ends_with_the_session(house: House) -> None:
    shop = open_shop(house, Send("s", WhatsApp("hello", after="1h"), kind="transactional"))
    writes(shop, "Hello?")
    with house.db.transaction() as tx:
        tx.conn.execute(events.update().values(occurred_at=tx.now - 23 * HOUR + 30))
    house.later("1h")
    form = form_of(house.providers.requests[-1])
    assert form["ValidityPeriod"] == "30"


def test_sessions_are_one_statement_and_none_where_no_message_needs_one(shop: AnnsShop) -> None:
    house = shop.house
    templates = CatalogJourneys(house.segue.engine.mover)
    writes(shop, "Hello?")
    with house.db.transaction() as tx:
        [row] = [MessageRow._make(row) for row in tx.conn.execute(select(*MESSAGE_COLUMNS))]
        with statements(house.db) as executed:
            assert session_ends(tx, templates, [row, row]) == {row.id: tx.now + 24 * HOUR}
        assert len(executed) == 1
        with statements(house.db) as executed:
            assert session_ends(tx, templates, [row._replace(channel="sms")]) == {}
        assert executed == []


def test_an_approved_template_needs_no_session(house: House) -> None:
    open_shop(house, Send("s", WhatsApp("offer")))
    [sent] = house.providers.accepted
    assert (sent.channel, sent.text) == ("whatsapp", f'{SID} {{"1":"Ann","2":"10 %"}}')


def test_without_a_session_the_next_channel_takes_over(house: House) -> None:
    step = Send("s", WhatsApp("hello"), SMS("hello"), Email("hello"), mode="first")
    open_shop(house, step)
    house.run()
    sent = [(one.channel, one.state, one.reason) for one in house.outbox()]
    assert sent == [
        ("whatsapp", "skipped", "no_session"),
        ("sms", "sent", None),
        ("email", "skipped", "not_chosen"),
    ]


def test_without_a_session_all_means_none(house: House) -> None:
    open_shop(house, Send("s", Email("hello"), WhatsApp("hello"), mode="all"))
    house.run()
    assert {(one.channel, one.reason) for one in house.outbox()} == {
        ("email", "group_incomplete"),
        ("whatsapp", "no_session"),
    }
    assert house.providers.accepted == []


# Consent and evidence ------------------------------------------------------------------------


def test_whatsapp_is_always_opt_in(house: House) -> None:
    policy = Policy.model_validate({"channels": {"whatsapp": {"consent": "opt-out"}}})
    said = policy.warnings()
    assert said == [
        "channels.whatsapp.consent: it has no effect; WhatsApp messages are always opt-in"
    ]
    open_shop(house, Send("s", WhatsApp("offer")), policy=policy, consent={("sms", "*"): True})
    assert [one.reason for one in house.outbox()] == ["no_consent"]


def test_a_stop_on_whatsapp_binds_whatsapp_and_nothing_else(house: House) -> None:
    offers = [
        Send("promo", WhatsApp("offer", after="1h"), SMS("hello", after="1h")),
        Send("receipt", WhatsApp("offer", after="1h"), kind="transactional"),
    ]
    shop = open_shop(house, *offers)
    writes(shop, "Stop!")
    assert shop.said()["whatsapp", "*"] is False
    assert shop.said()["sms", "*"] is True
    house.later("3h")
    assert [(one.step, one.channel, one.reason) for one in house.outbox()] == [
        ("promo", "whatsapp", "no_consent"),
        ("promo", "sms", None),
        ("receipt", "whatsapp", "no_consent"),
    ]
    writes(shop, "START")
    assert shop.said()["whatsapp", "*"] is True


def test_a_stop_by_text_does_not_affect_whatsapp(shop: AnnsShop) -> None:
    shop.says("STOP")
    assert shop.said()["sms", "*"] is False
    assert shop.said()["whatsapp", "*"] is True


def test_a_start_on_whatsapp_does_not_affect_sms(shop: AnnsShop) -> None:
    shop.says("STOP")
    writes(shop, "START")
    assert shop.said()["sms", "*"] is False


def test_a_read_receipt_is_recorded_as_opened(house: House) -> None:
    shop = open_shop(house, Send("s", WhatsApp("offer")))
    for status in ("delivered", "read"):
        answer = shop.outside.status(shop.id, status, f"whatsapp:{shop.phone}")
        assert answer.status_code == 200
    assert shop.state == "delivered"
    assert shop.heard() == ["whatsapp_delivered", "whatsapp_opened"]


def test_a_read_message_prevents_the_fallback(house: House) -> None:
    step = Send(
        "s", WhatsApp("offer"), SMS("hello"), mode="first", fallback_after="2h", unless="opened"
    )
    shop = open_shop(house, step)
    shop.outside.status(shop.id, "read", f"whatsapp:{shop.phone}")
    house.later("1d")
    assert [one.channel for one in house.providers.accepted] == ["whatsapp"], house.outbox()


def test_a_late_twilio_report_applies_to_whatsapp(house: House) -> None:
    shop = open_shop(house, Send("s", WhatsApp("offer")))
    shop.outside.status(shop.id, "undelivered", f"whatsapp:{shop.phone}", ErrorCode="63016")
    [row] = house.rows()
    assert (row.state, row.reason) == (
        "failed",
        "twilio undelivered 63016: free text outside the 24-hour session",
    )
    assert not suppressed(shop, "whatsapp")


def suppressed(shop: AnnsShop, channel: str) -> bool:
    with shop.house.db.transaction(write=False) as tx:
        theirs = channel_addresses(tx, [shop.ann])
    [suppressed] = [one.suppressed for one in theirs if one.channel == channel]
    return suppressed


def test_a_number_that_is_not_on_whatsapp_still_gets_texts(house: House) -> None:
    shop = open_shop(house, Send("s", WhatsApp("offer")))
    shop.outside.status(shop.id, "undelivered", f"whatsapp:{shop.phone}", ErrorCode="63003")
    assert suppressed(shop, "whatsapp")
    assert not suppressed(shop, "sms")
