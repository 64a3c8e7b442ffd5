"""Suppressions and consent from provider reports and from customers' replies."""

from collections import Counter
from itertools import cycle

import pytest
from sqlalchemy import update

from config.clock.times import DAY, HOUR, MINUTE
from profiles.consent.changes import ConsentChange, change_consent
from profiles.tables import consent_records, consents, events
from tests.support.providers.callback_samples import mail_event
from tests.support.providers.feedback_shop import NEWS, TEXTS, AnnsShop
from tests.support.providers.suppressing import becomes
from tests.support.shop import House

# Addresses --------------------------------------------------------------------------------------


def test_reports_that_suppress_an_e_mail_address(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    for event, more, state in (
        ("deferred", {}, None),
        ("bounce", {"type": "blocked", "status": "4.7.0"}, None),
        ("dropped", {"reason": "Spam Content"}, None),
        ("bounce", {"type": "bounce", "status": "5.1.1"}, "bounced"),
        ("dropped", {"reason": "Bounced Address"}, "bounced"),
        ("dropped", {"reason": "Invalid"}, "bounced"),
        ("dropped", {"reason": "Spam Reporting Address"}, "complained"),
        ("spamreport", {}, "complained"),
    ):
        becomes(house.db, "email", "ann@example.com", None)
        shop.mail(event, **more)
        assert shop.suppressed("email") == state, (event, more)


def test_reports_that_suppress_a_phone_number(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    for code, state in (("30003", None), ("30005", "unregistered"), ("30006", "bounced")):
        becomes(house.db, "sms", "+447700900001", None)
        shop.sms("failed", ErrorCode=code, MessageSid=f"SM{code}")
        assert shop.suppressed("sms") == state, code


def test_twilios_opt_out_error_withdraws_consent(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    shop.sms("failed", ErrorCode="21610")
    assert (shop.state, shop.consent("sms")) == ("failed", False)
    assert shop.of(consent_records, channel="sms")[-1].source == "twilio 21610"


def test_a_complaint_suppresses_an_address_for_good(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    shop.mail("spamreport")
    shop.mail("bounce", type="bounce")
    assert shop.suppressed("email") == "complained"
    assert shop.state == "failed"


def test_the_reason_of_a_bounce_holds_no_address(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    shop.mail("bounce", type="bounce", status="5.1.1", reason="550 <ANN@example.com> unknown")
    [row] = house.rows()
    assert row.reason == "sendgrid bounce: 5.1.1 550 <…> unknown"
    assert "example.com" not in str(shop.of(events)[0].properties)


# Consent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "topic", "granted"),
    [
        ("unsubscribe", "*", False),
        ("group_unsubscribe", "news", False),
        ("group_resubscribe", "news", True),
    ],
)
def test_an_unsubscribe_at_sendgrid_withdraws_consent(
    house: House, event: str, topic: str, granted: bool
) -> None:
    shop = AnnsShop(house, NEWS)
    shop.mail(event, at=house.now)
    assert shop.consent("email", topic) is granted
    record = shop.of(consent_records, channel="email", topic=topic)[-1]
    assert (record.granted, record.source) == (granted, f"sendgrid {event}")
    assert shop.heard() == [
        "email_unsubscribed" if not granted else "email_resubscribed",
        "profile_changed",
    ]


@pytest.mark.parametrize(
    ("event", "more"), [("unsubscribe", {}), ("dropped", {"reason": "Unsubscribed Address"})]
)
def test_a_no_to_all_e_mail_withdraws_consent_to_each_topic(
    house: House, event: str, more: dict[str, str]
) -> None:
    shop = AnnsShop(house, NEWS, consent={("email", "news"): True, ("push", "news"): True})
    house.db.now = house.now + 1
    shop.mail(event, at=house.now, **more)
    assert shop.said() == {
        ("email", "*"): False,
        ("email", "news"): False,
        ("push", "news"): True,
    }
    assert shop.refused("email", "news")
    assert not shop.refused("push", "news")
    assert {row.source for row in shop.of(consent_records, granted=False)} == {f"sendgrid {event}"}


def test_a_later_yes_to_one_topic_stays(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    house.db.now = house.now + HOUR
    shop.mail("group_resubscribe", at=house.now - MINUTE)
    shop.mail("unsubscribe", at=house.now - 2 * MINUTE)
    assert shop.said()["email", "*"] is False
    assert shop.said()["email", "news"] is True


@pytest.mark.parametrize("last", ["unsubscribe", "group_resubscribe"])
def test_reports_in_one_request_apply_in_their_order(house: House, last: str) -> None:
    shop = AnnsShop(house, NEWS)
    began, house.db.now = house.now, house.now + HOUR
    names = ["unsubscribe", "group_resubscribe", last]
    told = [
        mail_event(
            name, shop.id, "ann@example.com", timestamp=began + number, sg_event_id=str(number)
        )
        for number, name in enumerate(names, 1)
    ]
    assert shop.outside.mail(*reversed(told)).status_code == 200
    assert shop.said()["email", "*"] is False
    assert shop.said()["email", "news"] is (last == "group_resubscribe")


def test_an_unsubscribe_outweighs_a_yes_from_the_future(house: House) -> None:
    shop = AnnsShop(house, NEWS, consent={})
    with house.db.transaction() as tx:
        yes = ConsentChange(
            profile_id=shop.ann,
            channel="email",
            topic="*",
            granted=True,
            occurred_at=house.now + DAY,
        )
        change_consent(tx, [yes], "import")
    [row] = shop.of(consents)
    assert row.changed_at == house.now
    shop.mail("unsubscribe", at=house.now)
    assert shop.consent("email") is False
    with house.db.transaction() as tx:
        assert change_consent(tx, [yes], "import").overruled == [yes]


def test_a_stored_future_time_counts_as_the_time_of_its_record(
    house: House,
) -> None:
    shop = AnnsShop(house, NEWS)
    with house.db.transaction() as tx:
        tx.conn.execute(update(consents).values(changed_at=house.now + DAY))
        tx.conn.execute(update(consent_records).values(occurred_at=house.now + DAY))
    house.db.now = house.now + MINUTE
    shop.mail("unsubscribe", at=house.now - 1)
    assert shop.consent("email") is False


def test_the_latest_statement_holds_in_any_order_of_arrival(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    house.db.now = house.now + HOUR
    shop.mail("group_resubscribe", at=house.now - MINUTE)
    shop.mail("group_unsubscribe", at=house.now - 2 * MINUTE)
    assert shop.consent("email", "news") is True


def test_every_stop_word_withdraws_consent_and_every_start_word_restores_it(
    house: House,
) -> None:
    shop = AnnsShop(house, TEXTS)
    stops = [
        *("STOP", "stopall", "Unsubscribe", "CANCEL", "End", "quit", "REVOKE", "optout"),
        *(" stop \n", "Stop.", '"STOP!"'),
    ]
    for text, start in zip(stops, cycle(["START", "yes", "Unstop"]), strict=False):
        shop.says(text)
        assert shop.consent("sms") is False, text
        [*_, record] = shop.of(consent_records, channel="sms")
        word = text.strip(' .!\n"').upper()
        assert (record.source, record.occurred_at) == (f"twilio {word}", house.now)
        shop.says(start)
        assert shop.consent("sms") is True, start
        [*_, record] = shop.of(consent_records, channel="sms")
        assert record.source == f"twilio {start.upper()}"
    assert Counter(shop.heard()) == {
        "sms_stopped": len(stops),
        "sms_started": len(stops),
        "profile_changed": 2 * len(stops),
    }


def test_advanced_opt_out_speaks_every_language(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    shop.says("ARRÊT", OptOutType="STOP")
    assert shop.consent("sms") is False
    shop.says("ALLO", OptOutType="START")
    assert shop.consent("sms") is True
    shop.says("AIDE", OptOutType="HELP")
    assert shop.heard()[-1] == "sms_replied"


def test_a_start_without_a_stop_changes_no_consent(house: House) -> None:
    shop = AnnsShop(house, TEXTS, consent={})
    shop.says("YES")
    assert shop.consent("sms") is None
    assert shop.heard() == ["sms_started"]


@pytest.mark.parametrize(
    "before", [{}, {("sms", "orders"): True}, {("sms", "*"): True, ("sms", "orders"): False}]
)
def test_a_start_restores_exactly_the_consent_before_the_stop(
    house: House, before: dict[tuple[str, str], bool]
) -> None:
    shop = AnnsShop(house, TEXTS, consent=before)
    refused = [shop.refused("sms", topic) for topic in ("promotions", "orders")]
    for _ in range(2):
        shop.says("STOP")
        assert shop.says_no_texts()
        shop.says("STOPALL")
        shop.says("START")
        assert shop.said() == before
        assert not shop.says_no_texts()
        assert [shop.refused("sms", topic) for topic in ("promotions", "orders")] == refused
        [*_, record] = shop.of(consent_records, channel="sms", topic="*")
        assert (record.granted, record.source) == (before.get(("sms", "*")), "twilio START")
    shop.says("START")  # where there is no STOP there is nothing to give back
    assert shop.said() == before


def test_a_start_restores_a_yes_between_two_stops(house: House) -> None:
    shop = AnnsShop(house, TEXTS, consent={})
    shop.says("STOP")
    shop.says("START")
    house.db.now = house.now + 1
    house.say(shop.ann, "sms", "*", granted=True)
    shop.says("STOP")
    shop.says("START")
    assert shop.consent("sms") is True


def test_a_start_does_not_restore_a_withdrawn_yes(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    with house.db.transaction() as tx:
        unticked = ConsentChange(
            profile_id=shop.ann, channel="sms", topic="*", granted=None, just_now=True
        )
        change_consent(tx, [unticked], "preference page")
    shop.says("STOP")
    shop.says("START")
    assert shop.consent("sms") is None


def test_a_start_after_a_stop_recorded_only_at_twilio(house: House) -> None:
    shop = AnnsShop(house, TEXTS, consent={("sms", "news"): True})
    shop.sms("failed", ErrorCode="21610")
    assert shop.said() == {("sms", "*"): False, ("sms", "news"): True}
    shop.says("START")
    assert shop.said() == {("sms", "news"): True}


def test_a_stop_and_a_start_within_a_second_hold_in_their_order(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    for text, granted in (("STOP", False), ("START", True), ("STOP", False)):
        shop.outside.text(shop.phone, text)
        assert shop.consent("sms") is granted


def test_a_repeated_old_stop_does_not_undo_a_start(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    shop.says("STOP", sid="SM1")
    shop.says("START", sid="SM2")
    shop.says("STOP", sid="SM1")
    assert shop.consent("sms") is True


def test_a_reply_from_an_unknown_number_is_ignored(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    answer = shop.outside.text("+12025550199", "STOP")
    assert (answer.status_code, answer.content[-21:]) == (200, b"<Response></Response>")
    assert (shop.heard(), shop.consent("sms")) == ([], True)


def test_a_reply_is_assigned_to_the_last_text_message(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    shop.says("Do you deliver on Sundays?")
    [event] = shop.of(events)
    assert event.properties == {
        "text": "Do you deliver on Sundays?",
        "message_id": str(shop.id),
        "journey": "texts",
        "step": "hello",
    }
