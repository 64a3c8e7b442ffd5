"""The customers' pages over HTTP: one-click unsubscribe and the preference center."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import delete, insert

from config.clock.times import DAY, HOUR
from config.policy import Policy
from flows.http.app import create_app
from flows.http.pages.form import SHOWN
from profiles.consent.changes import ConsentChange, change_consent
from profiles.tables import consent_records, consents, events, merges, preferences, profiles
from tests.support.http.page_customers import (
    JOURNEY,
    TEXTS,
    Client,
    Shop,
    form_of,
    one_click,
    shown,
)
from tests.support.shop import MONDAY

# Unsubscribe -------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["urlencoded", "multipart"])
def test_a_one_click_unsubscribe(shop: Shop, body: str) -> None:
    """RFC 8058: POST, 200, no redirect, no cookies; the same again changes nothing."""
    post: dict[str, Any] = {"data": one_click()}
    if body == "multipart":
        post = {"files": {"List-Unsubscribe": (None, "One-Click")}}
    answer = shop.client.post(shop.u(), **post)
    assert answer.status_code == 200
    assert answer.history == []
    assert "set-cookie" not in answer.headers
    assert shop.said()["email", "offers"] is False
    assert shop.last_record() == ("email", "offers", False, MONDAY, "one-click")
    assert shop.arrivals == 1
    once = shop.everything()
    assert [row.name for row in shop.rows(events)] == ["profile_changed"]
    assert shop.rows(events)[0].worked_at is None
    assert shop.client.post(shop.u(), **post).status_code == 200
    assert shop.everything() == once
    assert shop.arrivals == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_nothing_but_a_post_changes_anything(small_shop: Shop, method: str) -> None:
    shop = small_shop
    before = shop.everything()
    for path in (shop.u(), shop.p(), shop.u() + "?List-Unsubscribe=One-Click"):
        answer = shop.client.request(method, path)
        assert answer.status_code == (200 if method in ("GET", "HEAD") else 405)
    assert shop.everything() == before
    assert shop.arrivals == 0


def test_the_page_shows_what_stops_and_a_button(small_shop: Shop) -> None:
    shop = small_shop
    page = shop.get(shop.u())
    words = shown(page)
    assert "Stop e-mail about “Offers”?" in words
    assert "to a…\N{WORD JOINER}@example.com" in words
    assert "ann@example.com" not in page
    assert "receipts" in words
    assert '<form method="post"><button name="action" value="stop">Unsubscribe</button>' in page
    assert "Stop text messages about “News & <more>”?" in shown(shop.get(shop.u("sms", "news")))
    assert "to the number ending in 001" in shown(shop.get(shop.u("sms", "news")))
    assert "about “a topic of last year”" in shown(shop.get(shop.u("push", "a topic of last year")))


def test_undo_restores_consent_even_within_the_same_second(shop: Shop) -> None:
    answer = shop.client.post(shop.u("push"), data={"action": "stop"})
    assert "You are unsubscribed" in shown(answer.text)
    assert shop.last_record() == ("push", "offers", False, MONDAY, "unsubscribe link")
    assert 'value="undo" class="quiet">Undo</button>' in answer.text
    assert "You get no notifications in the app" in shown(shop.get(shop.u("push")))
    answer = shop.client.post(shop.u("push"), data={"action": "undo"})
    assert "You are subscribed again" in shown(answer.text)
    assert shop.said()["push", "offers"] is True
    channel, topic, granted, _, source = shop.last_record()
    assert (channel, topic, granted) == ("push", "offers", True)
    assert source == "unsubscribe link, undone"
    assert "Stop notifications in the app about “Offers”?" in shown(shop.get(shop.u("push")))
    assert shop.arrivals == 2


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"%ff%00=&&&=="),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-da"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/json", b'{"action": "undo"}'),
        ("text/plain; charset=nonsense", b"List-Unsubscribe=One-Click"),
        ("", b"\x00"),
    ],
)
def test_every_form_of_the_one_click_body_is_a_no(small_shop: Shop, kind: str, body: bytes) -> None:
    shop = small_shop
    headers = {"Content-Type": kind} if kind else {}
    assert shop.client.post(shop.u(), content=body, headers=headers).status_code == 200
    assert shop.said()["email", "offers"] is False


def test_a_multipart_one_click_body_is_a_no(small_shop: Shop) -> None:
    files = {"List-Unsubscribe": ("file.txt", b"One-Click")}
    assert small_shop.client.post(small_shop.u(), files=files).status_code == 200
    assert small_shop.said()["email", "offers"] is False


def test_a_no_outweighs_a_yes_from_the_future(shop: Shop) -> None:
    """An import may have a wrong date; the opt-out on the page counts as later."""
    with shop.house.db.transaction() as tx:
        yes = ConsentChange(
            profile_id=shop.ann,
            channel="email",
            topic="offers",
            granted=True,
            occurred_at=MONDAY + 400 * DAY,
        )
        change_consent(tx, [yes], "import")
    shop.client.post(shop.u(), data=one_click())
    assert shop.said()["email", "offers"] is False


def test_no_undo_is_offered_for_consent_that_was_unset(small_shop: Shop) -> None:
    shop = small_shop
    shop.choose(email_on_offers="")
    answer = shop.client.post(shop.u(), data={"action": "stop"})
    assert "Undo" not in answer.text
    assert "Send it to me again" in answer.text


def test_an_undo_lifts_no_stop(shop: Shop) -> None:
    shop.choose(no_sms="on")
    page = shown(shop.get(shop.u("sms")))
    assert "You have stopped all text messages" in page
    answer = shop.client.post(shop.u("sms"), data={"action": "undo"})
    assert "You are still unsubscribed" in shown(answer.text)
    assert shop.said()["sms", "*"] is False


def test_the_link_of_a_merged_profile_leads_to_the_surviving_one(shop: Shop) -> None:
    before = shop.house.customer("anonymous")
    old, older = shop.u(who=before), shop.u(who=999)
    with shop.house.db.transaction() as tx:
        tx.conn.execute(delete(profiles).where(profiles.c.id == before))
        row = {"merged_at": MONDAY, "why": "test", "moved": {}}
        tx.conn.execute(insert(merges).values(from_id=999, into_id=before, **row))
        tx.conn.execute(insert(merges).values(from_id=before, into_id=shop.ann, **row))
    assert shop.client.post(old, data=one_click()).status_code == 200
    assert shop.last_record()[:3] == ("email", "offers", False)
    assert shop.rows(consent_records)[-1].profile_id == shop.ann
    assert "You get no e-mail" in shown(shop.get(older))


# Choosing ----------------------------------------------------------------------------------------


def test_the_page_shows_what_is_on_record(shop: Shop) -> None:
    fields = form_of(shop.get(shop.p()))
    assert {name: fields[name] for name in fields if not name.startswith(SHOWN)} == {
        **{f"email.{topic}": "on" for topic in ("news", "offers", "orders")},
        **{f"sms.{topic}": "on" for topic in ("news", "offers", "orders")},
        **{f"push.{topic}": "on" for topic in ("news", "offers", "orders")},
        "per_week": "",
        "opens": "",
        "closes": "",
        "timezone": "",
        "language": "",
    }
    shop.client.post(shop.u("push", "news"), data=one_click())
    shop.choose(per_week="3", opens="18:00", timezone="America/New_York", language="de")
    fields = form_of(shop.get(shop.p()))
    assert "push.news" not in fields
    choices = ["per_week", "opens", "closes", "timezone", "language"]
    assert [fields[name] for name in choices] == ["3", "18:00", "24:00", "America/New_York", "de"]


def test_what_is_chosen_is_consent_with_its_source_and_time(shop: Shop) -> None:
    shop.house.db.now = MONDAY + HOUR
    page = shop.choose(sms_on_offers="", push_on_news="")
    assert "Saved" in shown(page)
    assert shop.said() == {
        ("email", "*"): True,
        ("sms", "*"): True,
        ("sms", "offers"): False,
        ("push", "news"): False,
    }
    assert shop.last_record()[3:] == (MONDAY + HOUR, "preference page")
    assert shop.arrivals == 1
    [event] = shop.rows(events)
    assert (event.name, event.profile_id, event.worked_at) == ("profile_changed", shop.ann, None)


def kept(shop: Shop) -> tuple[object, ...]:
    [row] = shop.rows(preferences)
    return (
        row.profile_id,
        row.per_week,
        row.opens,
        row.closes,
        row.timezone,
        row.language,
        row.changed_at,
    )


def test_limits_zone_and_language_are_kept(shop: Shop) -> None:
    shop.choose(per_week="2", opens="09:00", closes="12:00", timezone="Asia/Tokyo", language="fr")
    known = shop.rows(profiles)
    assert kept(shop) == (shop.ann, 2, 9 * HOUR, 12 * HOUR, "Asia/Tokyo", "fr", MONDAY)
    shop.house.db.now = MONDAY + HOUR
    shop.choose(per_week="", opens="", closes="", timezone="")
    assert kept(shop) == (shop.ann, None, None, None, None, "fr", MONDAY + HOUR)
    assert shop.rows(profiles) == known


def test_the_same_form_again_changes_nothing(shop: Shop) -> None:
    page = shop.get(shop.p())
    changes = {"per_week": "2", "sms.offers": "", "language": "de"}
    shop.fill_in(page, changes)
    once = shop.everything()
    assert shop.fill_in(page, changes).status_code == 200
    assert shop.fill_in(shop.get(shop.p()), {}).status_code == 200
    assert shop.everything() == once
    assert shop.arrivals == 1


def test_an_outdated_page_does_not_undo_later_changes(shop: Shop) -> None:
    page = shop.get(shop.p())
    shop.client.post(shop.u(), data=one_click())
    shop.choose(per_week="1", no_sms="on")
    answer = shop.fill_in(page, {"opens": "10:00", "push.news": ""})
    assert answer.status_code == 200
    said = shop.said()
    assert (said["email", "offers"], said["sms", "*"], said["push", "news"]) == (False,) * 3
    [row] = shop.rows(preferences)
    assert (row.per_week, row.opens, row.closes) == (1, 10 * HOUR, DAY)


def test_two_pages_saved_at_once_both_hold(shop: Shop) -> None:
    page = shop.get(shop.p())
    start = Barrier(8)

    def save(number: int) -> int:
        changes = [
            {"per_week": "2"},
            {"opens": "10:00", "closes": "12:00"},
            {"sms.offers": ""},
            {"language": "de"},
        ][number % 4]
        start.wait()
        return shop.fill_in(page, changes).status_code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(save, range(8))) == [200] * 8
    [row] = shop.rows(preferences)
    assert (row.per_week, row.opens, row.closes) == (2, 10 * HOUR, 12 * HOUR)
    assert shop.said()["sms", "offers"] is False
    assert row.language == "de"
    assert len(shop.rows(events)) == 4  # each change once


def test_a_stop_and_a_start(shop: Shop) -> None:
    """On texts a no to the whole channel is a STOP: it outweighs every topic, orders too."""
    shop.choose(no_sms="on")
    assert shop.said() == {("email", "*"): True, ("sms", "*"): False}
    fields = form_of(shop.get(shop.p()))
    assert fields["no_sms"] == "on"
    shop.choose(no_sms="", sms_on_news="on")
    assert shop.said() == {("email", "*"): True, ("sms", "news"): True}
    records = [row for row in shop.rows(consent_records) if row.channel == "sms"]
    assert [(row.topic, row.granted) for row in records[-3:]] == [
        ("*", False),
        ("*", None),
        ("news", True),
    ]


def test_an_import_does_not_restore_withdrawn_consent(shop: Shop) -> None:
    """On texts an empty page leaves no row, but the shop's old list of numbers is no news."""
    shop.choose(no_sms="on")
    shop.choose(no_sms="")
    shop.house.db.now = MONDAY + DAY
    for granted, occurred_at in ((True, None), (True, MONDAY - DAY), (False, MONDAY - DAY)):
        with shop.house.db.transaction() as tx:
            old = ConsentChange(
                profile_id=shop.ann,
                channel="sms",
                topic="*",
                granted=granted,
                occurred_at=occurred_at,
            )
            assert change_consent(tx, [old], "import customers.csv").overruled == [old]
    assert ("sms", "*") not in shop.said()
    with shop.house.db.transaction() as tx:
        news = ConsentChange(
            profile_id=shop.ann, channel="sms", topic="*", granted=True, occurred_at=MONDAY + 1
        )
        assert change_consent(tx, [news], "import customers.csv").applied == [news]


def test_without_topics_an_unticked_box_of_texts_is_no_stop(shop: Shop) -> None:
    shop.house.open(JOURNEY, policy=Policy(), texts=TEXTS)
    client = Client(create_app(shop.house.segue, lambda _: None))
    page = client.get(shop.p()).text
    assert client.post(shop.p(), data={**form_of(page), "sms.*": ""}).status_code == 200
    assert shop.said() == {("email", "*"): True}
    assert shop.last_record() == ("sms", "*", None, MONDAY, "preference page")
    again = form_of(client.get(shop.p()).text)
    assert "no_sms" not in again
    assert "sms.*" not in again


def test_everything_stops_at_once(shop: Shop) -> None:
    answer = shop.client.post(shop.p(), data={"action": "stop"})
    assert "Everything is stopped" in shown(answer.text)
    said = shop.said()
    assert (said["email", "*"], said["sms", "*"], said["push", "*"]) == (False,) * 3
    ticked = {name for name in form_of(answer.text) if not name.startswith(SHOWN)}
    assert ticked == {"no_sms", "per_week", "opens", "closes", "timezone", "language"}
    once = shop.everything()
    shop.client.post(shop.p(), data={"action": "stop"})
    assert shop.everything() == once


def test_everything_stops_for_topics_of_next_year_too(small_shop: Shop) -> None:
    """A customer who refused each topic has stated nothing about a later one."""
    shop = small_shop
    with shop.house.db.transaction() as tx:
        tx.conn.execute(delete(consents))
        for topic in ("news", "offers", "orders"):
            no = ConsentChange(
                profile_id=shop.ann, channel="email", topic=topic, granted=False, occurred_at=MONDAY
            )
            change_consent(tx, [no], "test")
    before = shop.everything()
    shop.choose()
    assert shop.everything() == before
    shop.client.post(shop.p(), data={"action": "stop"})
    said = shop.said()
    assert (said["email", "*"], said["sms", "*"], said["push", "*"]) == (False,) * 3


def test_an_error_is_shown_beside_its_field_and_the_input_is_kept(small_shop: Shop) -> None:
    shop = small_shop
    before = shop.everything()
    changes = {
        "opens": "10:00",
        "closes": "10:00",
        "timezone": "Mars/<Olympus>",
        "per_week": "2",
        "push.news": "",
        "no_sms": "on",
    }
    page = shop.get(shop.p())
    answer = shop.fill_in(page, changes)
    assert answer.status_code == 400
    assert shop.everything() == before
    assert "<title>Not saved:" in answer.text
    assert 'role="alert" tabindex="-1" autofocus' in answer.text
    assert '<a href="#closes">Until: Choose an end that is later than 10:00.</a>' in answer.text
    for name in ("closes", "timezone"):
        assert f'id="{name}-error"' in answer.text
        assert f'aria-invalid="true" aria-describedby="{name}-error"' in answer.text
    wanted = {**form_of(page), **changes}
    left = {name: value for name, value in wanted.items() if value or "." not in name}
    again = form_of(answer.text)
    assert {name: again[name] for name in left} == left
    assert "push.news" not in again
    # Mended, it is saved, with all the rest.
    mended = {**again, "closes": "12:00", "timezone": "Asia/Tokyo"}
    assert shop.client.post(shop.p(), data=mended).status_code == 200
    assert shop.said()["sms", "*"] is False
    assert shop.rows(preferences)[0].timezone == "Asia/Tokyo"


def test_a_channel_without_address_is_marked(small_shop: Shop) -> None:
    shop = small_shop
    nobody = shop.house.customer("bob", email=None, phone=None, push_tokens={})
    page = shown(shop.get(shop.p(nobody)))
    assert "We have no working e-mail address of yours" in page
    assert "We have no phone number of yours" in page
    assert "Not switched on in our app" in page


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"country": "DE", "timezone": "Asia/Tokyo"}, "Leave it to us (Tokyo)"),
        ({"country": "DE", "timezone": None}, "Leave it to us (your country’s)"),
        ({"country": "JP", "timezone": None}, "Leave it to us (Tokyo)"),
        ({"country": None, "timezone": "Mars/Olympus"}, "Leave it to us (London)"),  # by number
    ],
)
def test_the_page_shows_the_zone_that_is_used_without_a_choice(
    small_shop: Shop, where: dict[str, Any], words: str
) -> None:
    with small_shop.house.db.transaction() as tx:
        tx.conn.execute(profiles.update().values(where))
    page = small_shop.get(small_shop.p())
    assert words in shown(page)
    assert form_of(page)["timezone"] == ""


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (None, "No choice"),
        ("de", "Automatisch (Deutsch)"),
        ("de-AT", "Automatisch (Deutsch)"),
        ("tlh", "Leave it to us (tlh)"),
    ],
)
def test_the_page_shows_the_language_that_is_used_without_a_choice(
    small_shop: Shop, language: str | None, words: str
) -> None:
    with small_shop.house.db.transaction() as tx:
        tx.conn.execute(profiles.update().values(language=language))
    page = small_shop.get(small_shop.p())
    assert words in shown(page)
    assert form_of(page)["language"] == ""
