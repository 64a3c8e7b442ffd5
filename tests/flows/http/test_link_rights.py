"""The rights of a link to a customer's page: its own profile, an expired link, and a join."""

from hashlib import sha256
from typing import Any

import pytest
from itsdangerous import URLSafeSerializer
from sqlalchemy import update

from config.channels import ChannelName
from config.clock.times import DAY
from flows.http.app import create_app
from journeys.dsl import SMS, Email, Push, Send
from journeys.operations.merge import merge
from profiles.calls.record_calls import take_calls
from profiles.calls.segment_calls import CallKind, read_call
from profiles.identity.phones import Phone
from profiles.tables import consents, identifiers, merges, preferences, upgrades
from tests.support.http.page_customers import POLICY, TEXTS, Client, Shop, form_of, one_click, shown
from tests.support.shop import MONDAY, described

EMAIL, PHONE = "sue@example.com", "+447700900555"
LIFETIME = 60 * DAY


def take(shop: Shop, kind: CallKind, **said: Any) -> None:
    with shop.house.db.transaction() as tx:
        [outcome] = take_calls(tx, [read_call(kind, said)], merge)
    assert outcome.refused is None


def subscriber(shop: Shop, **said: Any) -> int:
    """A profile without a user id that has opted in to everything."""
    person = {"email": EMAIL, "phone": None, "push_tokens": {}, **said}
    consent = {("email", "*"): True, ("sms", "*"): True, ("push", "*"): True}
    return shop.house.customer(
        "sue", user_id=None, anonymous_id="a-sue", **{"consent": consent, **person}
    )


def joined_by_address(shop: Shop, **said: Any) -> tuple[int, int]:
    """A subscriber whose address a customer states: the one who went, the one who stays."""
    went = subscriber(shop, **said)
    stays = shop.house.customer("cyd", email=None)
    take(shop, "identify", userId="cyd", traits={"email": EMAIL})
    return went, stays


def old_token(shop: Shop, purpose: str, named: object) -> str:
    """As releases before the schema 0009 made it."""
    key = shop.settings.secret_key.get_secret_value()
    how = {"key_derivation": "hmac", "digest_method": sha256}
    return str(URLSafeSerializer(key, salt=purpose, signer_kwargs=how).dumps(named))


def everything(shop: Shop) -> list[Any]:
    return [*shop.everything(), *shop.rows(identifiers)]


def said_by(shop: Shop, profile_id: int) -> dict[tuple[str, str], bool]:
    return {
        (row.channel, row.topic): row.granted
        for row in shop.rows(consents)
        if row.profile_id == profile_id
    }


# By itself ----------------------------------------------------------------------------------------


def test_a_link_keeps_its_rights_after_a_change_of_address(shop: Shop) -> None:
    unsubscribe, choose = shop.u(), shop.p()
    with shop.house.db.transaction() as tx:
        of = identifiers.c.value == "ann@example.com"
        tx.conn.execute(update(identifiers).where(of).values(retired_at=MONDAY))
    take(shop, "identify", userId="ann", traits={"email": "new@example.com"})
    assert "to n…\N{WORD JOINER}@example.com" in shown(shop.get(unsubscribe))
    assert shop.client.post(unsubscribe, data=one_click()).status_code == 200
    assert shop.said()["email", "offers"] is False
    page = shop.get(choose)
    shop.client.post(choose, data={**form_of(page), "email.offers": "on"})
    assert shop.said()["email", "offers"] is True


def test_an_unsubscribe_link_does_not_lead_to_the_preferences_page(small_shop: Shop) -> None:
    shop = small_shop
    token = shop.u()[3:]
    for answer in (shop.client.get(shop.u()), shop.client.post(shop.u(), data=one_click())):
        assert "preferences" not in answer.text
        assert "<a " not in answer.text
        assert "has a link to all your choices" in shown(answer.text)
    assert shop.client.get(f"/preferences/{token}").status_code == 404


def test_an_unsubscribe_link_works_for_ever(small_shop: Shop) -> None:
    shop = small_shop
    path = shop.u()
    shop.house.db.now = MONDAY + 3650 * DAY
    assert shop.client.post(path, data=one_click()).status_code == 200
    assert shop.said()["email", "offers"] is False


def test_a_preferences_link_expires(shop: Shop) -> None:
    path = shop.p()
    shop.house.db.now = MONDAY + LIFETIME
    form = form_of(shop.get(path))
    before = shop.everything()
    shop.house.db.now = MONDAY + LIFETIME + 1
    for answer in (
        shop.client.get(path),
        shop.client.post(path, data={**form, "per_week": "1"}),
        shop.client.post(path, data={"action": "stop"}),
    ):
        assert answer.status_code == 410
        words = shown(answer.text)
        assert "This link has expired" in words
        assert "works for 60 days. Nothing was changed" in words
        assert "The next message that we send you has a new one" in words
        assert "Links to unsubscribe do not expire" in words
    assert shop.everything() == before


def test_the_lifetime_is_a_setting(shop: Shop) -> None:
    path = shop.p()
    shop.house.open(policy=POLICY, texts=TEXTS, preferences_link_lifetime="1d")
    client = Client(create_app(shop.house.segue, lambda _: None))
    shop.house.db.now = MONDAY + DAY
    assert client.get(path).status_code == 200
    shop.house.db.now = MONDAY + DAY + 1
    assert "works for 1 day." in shown(client.get(path).text)


def test_links_already_sent_unsubscribe_for_ever_and_open_preferences_for_60_days(
    shop: Shop,
) -> None:
    with shop.house.db.transaction() as tx:
        tx.conn.execute(update(upgrades).values(at=MONDAY))
    unsubscribe = f"/u/{old_token(shop, 'unsubscribe', [shop.ann, 'email', 'offers'])}"
    choose = f"/preferences/{old_token(shop, 'preferences', shop.ann)}"
    shop.house.db.now = MONDAY + LIFETIME
    assert "What you get, and when" in shown(shop.get(choose))
    shop.house.db.now = MONDAY + LIFETIME + 1
    assert "This link has expired" in shown(shop.client.get(choose).text)
    shop.house.db.now = MONDAY + 3650 * DAY
    assert shop.client.post(unsubscribe, data=one_click()).status_code == 200
    assert shop.said()["email", "offers"] is False


# After a join -------------------------------------------------------------------------------------


def test_an_unsubscribe_link_of_a_merged_profile_withdraws_consent(shop: Shop) -> None:
    went, stays = joined_by_address(shop)
    path = shop.u(who=went, address=EMAIL)
    page = shop.get(path)
    assert "to s…\N{WORD JOINER}@example.com" in shown(page)
    answer = shop.client.post(path, data=one_click())
    assert answer.status_code == 200
    assert "<button" not in answer.text  # that would give a yes
    after = said_by(shop, stays)
    assert after["email", "offers"] is False
    answer = shop.client.post(path, data={"action": "undo"})
    assert "You are unsubscribed" in shown(answer.text)
    assert said_by(shop, stays) == after


def test_a_preferences_link_of_a_merged_profile_only_withdraws_consent(
    shop: Shop,
) -> None:
    went, stays = joined_by_address(shop)
    path = shop.p(went, address=EMAIL)
    page = shop.get(path)
    assert "Stop all of it?" in shown(page)
    assert "e-mail to s…\N{WORD JOINER}@example.com" in shown(page)
    for other in ("number ending", "our app", "<input", "<select"):
        assert other not in page
    before = everything(shop)
    own_form = form_of(shop.get(shop.p(stays)))
    for wanted in (
        {**own_form, "per_week": "1", "language": "de", "opens": "10:00", "sms.news": ""},
        {**own_form, "push.offers": "on", "no_sms": "on"},
        {"opens": "nonsense"},
        {"action": "undo"},
    ):
        assert shop.client.post(path, data=wanted).status_code == 200
    assert everything(shop) == before
    said = said_by(shop, stays)
    answer = shop.client.post(path, data={"action": "stop"})
    assert "Stopped" in shown(answer.text)
    assert said_by(shop, stays) == {**said, ("email", "*"): False}
    # a form that says yes again changes nothing
    shop.client.post(path, data={**own_form, "shown.email.offers": "", "email.offers": "on"})
    assert said_by(shop, stays) == {**said, ("email", "*"): False}
    assert shop.rows(preferences) == []


def test_a_page_opened_before_a_join_can_still_opt_out(shop: Shop) -> None:
    went = subscriber(shop)
    path = shop.p(went, address=EMAIL)
    form = form_of(shop.get(path))
    stays = shop.house.customer("cyd", email=None)
    take(shop, "identify", userId="cyd", traits={"email": EMAIL})
    said = said_by(shop, stays)
    changed = {**form, "email.offers": "", "sms.offers": "", "language": "de"}
    shop.client.post(path, data={name: value for name, value in changed.items() if value})
    assert said_by(shop, stays) == {**said, ("email", "offers"): False}
    assert shop.rows(preferences) == []


@pytest.mark.parametrize("action", ["stop", "undo", ""])
@pytest.mark.parametrize("channel", ["email", "sms", "push"])
def test_the_links_of_an_attacker_do_nothing_for_the_customer_whom_they_named(
    shop: Shop, channel: ChannelName, action: str
) -> None:
    """m has an address, a link to it, and joins a customer by an address of another kind."""
    own: dict[ChannelName, dict[str, Any]] = {
        "email": {"email": "m@evil.example"},
        "sms": {"phone": "+447700900666"},
        "push": {"context": {"device": {"token": "t-evil"}}},
    }
    said = dict(own[channel])
    context = said.pop("context", {})
    take(shop, "identify", anonymousId="m", traits=said, context=context)
    address = next(iter(said.values()), "t-evil")
    [m] = [row.profile_id for row in shop.rows(identifiers) if row.value == "m"]
    links = shop.u(channel, who=m, address=address), shop.p(m, channel, address)
    victims = {"phone": "+447700900001"} if channel == "email" else {"email": "ann@example.com"}
    take(shop, "identify", anonymousId="m", traits=victims)
    assert [row.profile_id for row in shop.rows(identifiers) if row.value == "m"] == [shop.ann]
    before = everything(shop)
    for path in links:
        for answer in (
            shop.client.get(path),
            shop.client.post(path, data={"action": action}),
            shop.client.post(path, data=one_click()),
            shop.client.post(path, data={"shown.email.news": "on", "language": "de"}),
        ):
            assert answer.status_code == 200
            assert "We no longer send to this address" in shown(answer.text)
            assert "example.com" not in answer.text
    assert everything(shop) == before
    # and nothing goes to the attacker
    step = Send("offer", Email("offer"), SMS("offer"), Push("offer"))
    shop.house.open(described(step, topic="offers"), policy=POLICY, texts=TEXTS)
    shop.house.launch("j")
    shop.house.until(MONDAY + DAY)
    gone_to = {sent.to for sent in shop.house.providers.accepted}
    assert gone_to == {"ann@example.com", "+447700900001", "token-ann"}


def test_a_withheld_address_that_is_stated_again_is_in_use_again(shop: Shop) -> None:
    went, stays = joined_by_address(shop, phone=None, push_tokens={"t-sue": "ios"})
    path = shop.u("push", who=went, address="t-sue")
    assert "We no longer send to this address" in shown(shop.get(path))
    device = {"device": {"token": "t-sue", "type": "ios"}}
    take(shop, "identify", userId="cyd", context=device)
    shop.client.post(path, data=one_click())
    assert said_by(shop, stays)["push", "offers"] is False


def test_after_a_join_by_ids_a_link_withdraws_consent_for_its_channel(shop: Shop) -> None:
    went = subscriber(shop)
    take(shop, "identify", userId="ann", anonymousId="a-sue")
    path = shop.p(went, address=EMAIL)
    assert "e-mail to s…\N{WORD JOINER}@example.com" in shown(shop.get(path))
    shop.client.post(path, data={"action": "stop"})
    assert said_by(shop, shop.ann) == {
        ("email", "*"): False,
        ("sms", "*"): True,
        ("push", "*"): True,
    }


def test_consent_to_texts_is_withdrawn_without_a_stop(shop: Shop) -> None:
    went = subscriber(shop, email=None, phone=Phone(PHONE, "GB"))
    stays = shop.house.customer("cyd", phone=None)
    take(shop, "identify", userId="cyd", traits={"phone": PHONE})
    path = shop.p(went, "sms", PHONE)
    assert "text messages to the number ending in 555" in shown(shop.get(path))
    shop.client.post(path, data={"action": "stop"})
    said = said_by(shop, stays)
    assert {said["sms", topic] for topic in POLICY.topics} == {False}
    assert ("sms", "*") not in said


@pytest.mark.parametrize("known", [True, False])
def test_older_links_of_a_merged_profile_withdraw_consent(shop: Shop, known: bool) -> None:
    went, stays = joined_by_address(shop)
    if not known:  # the record of a join of long ago
        with shop.house.db.transaction() as tx:
            tx.conn.execute(update(merges).values(moved={}))
    choose = f"/preferences/{old_token(shop, 'preferences', went)}"
    said = said_by(shop, stays)
    if known:
        assert "Stop all of it?" in shown(shop.get(choose))
        shop.client.post(choose, data={"action": "stop"})
        assert said_by(shop, stays) == {**said, ("email", "*"): False}
    else:
        assert "We no longer send to this address" in shown(shop.get(choose))
    path = f"/u/{old_token(shop, 'unsubscribe', [went, 'email', 'news'])}"
    assert shop.client.post(path, data=one_click()).status_code == 200
    assert said_by(shop, stays)["email", "news"] is False


def test_a_chain_of_joins_is_followed_to_its_end(shop: Shop) -> None:
    went, _ = joined_by_address(shop)
    take(shop, "alias", userId="ann", previousId="cyd")
    shop.client.post(shop.u(who=went, address=EMAIL), data=one_click())
    assert said_by(shop, shop.ann)["email", "offers"] is False
