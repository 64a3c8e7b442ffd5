"""Double opt-in: a yes on e-mail counts once the owner of the address confirms it."""

import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from channels.links import confirm_url, preferences_url, unsubscribe_url
from channels.messages import messages
from channels.rules.loaders import load_recipients
from config.clock.times import DAY, HOUR
from config.database.engine import Database
from config.policy import Policy
from flows.http.app import create_app
from journeys.definition.catalog import load_catalog
from profiles.consent.changes import ConsentChange, change_consent
from profiles.identity.merge import merge_profiles
from profiles.identity.mergers import Merger
from profiles.imports.importer import import_file
from profiles.rules import InputRules
from profiles.tables import consent_records, consents, email_confirmations, events
from tests.support.http.page_customers import Client, form_of, one_click, shown
from tests.support.http.receiving import WRITE_KEY, made_key
from tests.support.providers.callback_samples import FromProviders, mail_event
from tests.support.shop import MONDAY, House

POLICY = Policy.model_validate(
    {
        "topics": {
            "news": {"name": "News & more", "double_opt_in": True},
            "offers": "Offers",
            "tips": {"name": "Tips", "double_opt_in": True},
        },
        "consent_traits": [
            {"trait": "newsletter", "value": True, "channel": "email", "topic": "news"}
            | {"granted": True}
        ],
    }
)
PROOF = {"form": "footer", "ip": "203.0.113.7"}


class Desk:
    """A shop whose topic `news` needs confirmation, and Ann, without consent."""

    def __init__(self, house: House, library: Path) -> None:
        self.house = house
        house.open_library(library, POLICY)
        self.ann = house.customer("ann", consent={})
        self.client = Client(create_app(house.segue, lambda _: None))

    def says(self, granted: bool = True, topic: str = "news", **more: Any) -> list[str]:
        """State her consent by a form of the shop."""
        said = {
            **{"userId": "ann", "channel": "email", "topic": topic, "granted": granted},
            **{"source": "footer form", "wording": "Send me news", "evidence": PROOF, **more},
        }
        answer = self.client.post("/v1/consent", json=said, auth=(WRITE_KEY, ""))
        assert answer.status_code == 200, answer.text
        results: list[str] = answer.json()["results"]
        self.house.run()
        return results

    def mails(self) -> list[Any]:
        with self.house.db.transaction(write=False) as tx:
            return list(tx.conn.execute(select(messages).order_by(messages.c.id)))

    def link(self, topic: str = "news", address: str = "ann@example.com") -> str:
        settings = self.house.segue.settings
        url = confirm_url(settings, self.ann, address, topic)
        return url.removeprefix(settings.public_url)

    def press(self, path: str | None = None) -> str:
        answer = self.client.post(path or self.link(), data={"action": "confirm"})
        assert answer.status_code == 200
        return shown(answer.text)

    def rows(self, table: Any) -> list[Any]:
        with self.house.db.transaction(write=False) as tx:
            return list(tx.conn.execute(select(table).order_by(*table.primary_key)))

    def said(self) -> dict[tuple[str, str], bool]:
        return {(row.channel, row.topic): row.granted for row in self.rows(consents)}

    def gets(self, topic: str = "news") -> bool:
        """Whether planning allows marketing e-mail about the topic."""
        with self.house.db.transaction(write=False) as tx:
            who = load_recipients(tx, POLICY, [self.ann])[self.ann]
        return who.situation.refusal(POLICY, "email", "marketing", topic) is None


@pytest.fixture
def desk(house: House, tmp_path: Path) -> Desk:
    return Desk(house, tmp_path)


# The yes and its mail -----------------------------------------------------------------------------


def test_a_yes_waits_and_counts_from_the_confirmation_on(desk: Desk) -> None:
    assert not desk.gets()  # unset consent counts as no, also on an opt-out channel
    assert desk.says() == ["waiting"]
    assert desk.said() == {}
    assert not desk.gets()
    [mail] = desk.mails()
    assert (mail.kind, mail.state, mail.journey) == (
        *("transactional", "sent"),
        "confirm-subscription",
    )
    desk.house.db.now = MONDAY + HOUR
    page = shown(desk.client.get(desk.link()).text)
    assert "E-mail about “News & more”?" in page
    assert not desk.gets()
    assert "You are subscribed" in desk.press()
    assert desk.gets()
    [record] = desk.rows(consent_records)
    assert (record.granted, record.occurred_at) == (True, MONDAY + HOUR)
    assert (record.source, record.wording) == ("footer form, confirmed", "Send me news")
    assert record.evidence == {"requested_at": "2026-03-02T10:00:00Z", "request": PROOF}
    assert desk.rows(events)[-1].name == "profile_changed"


def test_the_mail_holds_the_link(desk: Desk) -> None:
    desk.says()
    [request] = [
        orjson.loads(call.content)
        for call in desk.house.providers.requests
        if call.url.path == "/v3/mail/send"
    ]
    text, html = (part["value"] for part in request["content"])
    url = desk.house.segue.settings.public_url + desk.link()
    assert url in text
    assert f'href="{url}"' in html
    assert 'clicktracking="off"' in html
    assert request["subject"] == "Please confirm: News & more"
    assert "headers" not in request["personalizations"][0]  # nothing to unsubscribe from


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_only_a_post_confirms(desk: Desk, method: str) -> None:
    desk.says()
    path = desk.link()
    for address in (path, f"{path}?action=confirm"):
        answer = desk.client.request(method, address)
        assert answer.status_code == (200 if method in ("GET", "HEAD") else 405)
    assert desk.said() == {}
    desk.client.post(path)  # a POST that is not of the button
    assert desk.said() == {}
    desk.press()
    assert desk.gets()


def test_confirming_again_changes_nothing(desk: Desk) -> None:
    desk.says()
    desk.press()
    before = desk.rows(consent_records), desk.rows(events)
    assert "You are subscribed" in desk.press()
    assert (desk.rows(consent_records), desk.rows(events)) == before
    assert desk.says() == ["recorded"]  # more proof of the same yes
    assert len(desk.mails()) == 1


def test_at_most_one_mail_a_day_for_an_address_and_a_topic(desk: Desk) -> None:
    for minute in range(5):
        desk.house.db.now = MONDAY + 60 * minute
        desk.says()
        desk.says(granted=False)
    desk.says()
    assert len(desk.mails()) == 1
    desk.says(topic="tips")
    assert len(desk.mails()) == 2
    desk.house.db.now = MONDAY + DAY - 1
    desk.says()
    assert len(desk.mails()) == 2
    desk.house.db.now = MONDAY + DAY
    desk.says()
    assert len(desk.mails()) == 3


def test_an_address_that_a_page_states_gets_at_most_one_mail_a_day(desk: Desk) -> None:
    """None before the shop's server states it too, whatever a page with a public key repeats."""
    key = made_key(desk.house)
    stated = {"anonymousId": "a1", "traits": {"email": "new@example.com", "news": True}}

    def page_states(times: int) -> None:
        for _ in range(times):
            answer = desk.client.post("/v1/identify", json=stated, auth=(key, ""))
            assert answer.status_code == 200
        desk.house.run()

    page_states(3)
    assert desk.mails() == []
    server = {**stated, "userId": "new", "traits": {"email": "new@example.com"}}
    assert desk.client.post("/v1/identify", json=server, auth=(WRITE_KEY, "")).status_code == 200
    for _ in range(3):
        assert desk.says(userId="new") == ["waiting"]
        page_states(3)
    [mail] = desk.mails()
    assert mail.address == "new@example.com"
    desk.house.db.now = MONDAY + DAY
    page_states(3)
    assert len(desk.mails()) == 1


def test_the_link_expires_after_seven_days(desk: Desk) -> None:
    desk.says()
    desk.house.db.now = MONDAY + 7 * DAY
    assert "There is nothing to confirm" in shown(desk.client.get(desk.link()).text)
    assert "There is nothing to confirm" in desk.press()
    assert not desk.gets()
    desk.says()
    desk.press()
    assert desk.gets()


@pytest.mark.parametrize("change", ["cut", "purpose", "topic", "address", "person"])
def test_another_link_confirms_nothing(desk: Desk, change: str) -> None:
    desk.says()
    other = desk.house.customer("bob", consent={})
    settings = desk.house.segue.settings
    path = {
        "cut": desk.link()[:-2],
        "purpose": desk.link().replace("/confirm/", "/u/"),
        "topic": desk.link(topic="tips"),
        "address": desk.link(address="bob@example.com"),
        "person": confirm_url(settings, other, "ann@example.com", "news").removeprefix(
            settings.public_url
        ),
    }[change]
    answer = desk.client.post(path, data={"action": "confirm"})
    assert answer.status_code == (404 if change in ("cut", "purpose") else 200)
    assert desk.said() == {}


def test_without_an_address_there_is_nothing_to_confirm(desk: Desk) -> None:
    assert desk.says(userId="new") == ["no_address"]
    assert desk.rows(email_confirmations) == []


# What is not asked --------------------------------------------------------------------------------


def test_other_topics_and_channels_need_no_confirmation(desk: Desk) -> None:
    assert desk.says(topic="offers") == ["recorded"]
    assert desk.says(channel="push") == ["recorded"]
    assert desk.said() == {("email", "offers"): True, ("push", "news"): True}


def test_a_yes_to_the_channel_does_not_confirm_a_topic(desk: Desk) -> None:
    assert desk.says(topic="*") == ["recorded"]
    assert desk.gets("offers")
    assert not desk.gets("news")


def test_a_yes_before_double_opt_in_was_set_still_counts(house: House, tmp_path: Path) -> None:
    desk = Desk(house, tmp_path)
    house.say(desk.ann, "email", "news", granted=True)
    assert desk.gets()
    assert desk.says() == ["recorded"]
    assert desk.mails() == []


# Who says yes, and how ----------------------------------------------------------------------------


def test_a_ticked_box_waits_for_confirmation_and_the_page_shows_it(desk: Desk) -> None:
    settings, now = desk.house.segue.settings, desk.house.now
    url = preferences_url(settings, desk.ann, "email", "ann@example.com", now)
    path = url.removeprefix(settings.public_url)
    page = desk.client.get(path).text
    assert "waiting" not in page
    answer = desk.client.post(path, data={**form_of(page), "email.news": "on"})
    words = shown(answer.text)
    assert "News & more (waiting for your confirmation)" in words
    assert "E-mail about “News & more” waits for your confirmation." in words
    assert "email.news" not in {k for k in form_of(answer.text) if not k.startswith("shown.")}
    assert desk.said() == {}
    desk.house.run()
    assert len(desk.mails()) == 1
    desk.press()
    assert "waiting" not in desk.client.get(path).text
    assert form_of(desk.client.get(path).text)["email.news"] == "on"


def test_undoing_an_unsubscribe_is_pending(desk: Desk) -> None:

    desk.says()
    desk.press()
    settings = desk.house.segue.settings
    url = unsubscribe_url(settings, desk.ann, "email", "news", "ann@example.com")
    path = url.removeprefix(settings.public_url)
    desk.client.post(path, data=one_click())
    assert not desk.gets()
    words = shown(desk.client.post(path, data={"action": "undo"}).text)
    assert "One step is left" in words
    assert not desk.gets()
    desk.press()
    assert desk.gets()


def test_a_yes_in_a_trait_is_pending(desk: Desk) -> None:
    said = {"userId": "ann", "traits": {"newsletter": True}}
    assert desk.client.post("/v1/identify", json=said, auth=(WRITE_KEY, "")).status_code == 200
    desk.house.run()
    assert desk.said() == {}
    assert len(desk.mails()) == 1
    desk.press()
    assert desk.gets()


def test_an_imported_yes_waits_and_a_repeated_import_sends_no_mail(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "map.toml").write_text(
        '[columns]\nuser_id = "id"\n[consent]\n"email.news" = "news"\n'
    )
    file = tmp_path / "people.csv"
    file.write_text("id,news\nann,yes\n")
    for day in range(0, 30, 2):
        desk.house.db.now = MONDAY + day * DAY
        import_file(
            desk.house.db,
            file,
            map_file=tmp_path / "map.toml",
            rules=InputRules(double_opt_in=POLICY.double_opt_in),
        )
        desk.house.run()
    assert desk.said() == {}
    assert len(desk.mails()) == 1


def test_a_resubscription_at_sendgrid_is_pending(desk: Desk) -> None:
    desk.says()
    desk.press()
    desk.house.say(desk.ann, "email", "news", granted=False)
    [mail] = desk.mails()
    with desk.house.db.transaction() as tx:
        tx.conn.execute(messages.update().values(topic="news", kind="marketing"))
    outside = FromProviders(desk.house.segue)
    desk.house.db.now = MONDAY + HOUR
    said = mail_event("group_resubscribe", mail.id, "ann@example.com", timestamp=MONDAY + HOUR)
    assert outside.mail(said).status_code == 200
    assert desk.said() == {("email", "news"): False}
    [waiting] = desk.rows(email_confirmations)
    assert waiting.said_at == MONDAY + HOUR


# What ends the wait -------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["news", "*"])
def test_a_no_ends_a_pending_yes(desk: Desk, topic: str) -> None:
    desk.says()
    desk.house.db.now = MONDAY + 60
    desk.says(granted=False, topic=topic)
    assert "There is nothing to confirm" in desk.press()
    assert not desk.gets()
    assert desk.said()["email", "news"] is False


def test_an_older_no_does_not_end_a_pending_yes(desk: Desk) -> None:
    desk.says()
    with desk.house.db.transaction() as tx:
        old = ConsentChange(
            profile_id=desk.ann,
            channel="email",
            topic="news",
            granted=False,
            occurred_at=MONDAY - DAY,
        )
        change_consent(tx, [old], "an old list")
    desk.press()
    assert desk.gets()


def test_a_link_to_a_retired_address_confirms_nothing(desk: Desk) -> None:
    desk.says()
    with desk.house.db.transaction() as tx:
        tx.conn.exec_driver_sql("UPDATE identifier SET retired_at = 1 WHERE kind = 'email'")
    assert "There is nothing to confirm" in desk.press()
    assert desk.said() == {}


def test_after_a_merge_the_link_confirms_for_the_surviving_profile(desk: Desk) -> None:
    desk.says()
    into = desk.house.customer("also-ann", consent={}, email=None)
    with desk.house.db.transaction() as tx:
        merge_profiles(tx, [Merger(from_id=desk.ann, into_id=into, why="alias")], {})
    desk.press()
    desk.ann = into
    assert desk.gets()


# The policy and the library -----------------------------------------------------------------------


def test_a_library_with_a_journey_of_its_own_for_the_mail_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "journey.py").write_text(
        "from journeys.dsl import Email, Journey, OnEvent, Send\n"
        "journey = Journey('mine', entry=OnEvent('email_confirmation_requested', key='topic',\n"
        "    again='always'), topic='*', steps=[\n"
        "    Send('ask', Email('ask'), kind='transactional')])\n"
    )
    (folder / "ask.email.html").write_text("Subject: Sure?\n\n<p>{{ links.confirm }}</p>")
    assert set(load_catalog(POLICY, tmp_path).current) == {"mine"}


def test_the_mail_is_sent_only_where_a_topic_asks_for_it(tmp_path: Path, db: Database) -> None:
    assert set(load_catalog(POLICY, tmp_path).current) == {"confirm-subscription"}
    assert load_catalog(Policy(), tmp_path).current == {}


def test_a_topic_is_a_name_or_a_table() -> None:
    assert POLICY.double_opt_in == {"news": "News & more", "tips": "Tips"}
    assert POLICY.topics["offers"].name == "Offers"
    with pytest.raises(ValueError, match=r"topics\.x\.double_opt_in"):
        Policy.model_validate({"topics": {"x": {"name": "X", "double_opt_in": "yes"}}})
    with pytest.raises(ValueError, match='write "name" or'):
        Policy.model_validate({"topics": {"x": 3}})
    with pytest.raises(ValueError, match=r"topics\.x\.name"):
        Policy.model_validate({"topics": {"x": {"double_opt_in": True}}})


def test_the_policy_in_the_docs_is_valid() -> None:
    page = (Path(__file__).parents[3] / "docs" / "journeys" / "policy.md").read_text(
        encoding="utf-8"
    )
    text = page[page.index("```toml") + 7 : page.index("```\n\nDays are")]
    policy = Policy.model_validate(tomllib.loads(text))
    assert policy.double_opt_in == {"newsletter": "Monthly letter"}
    assert policy.stop_words["pl"].first == ("wypisz",)
    assert policy.consent_traits[0].granted is False
