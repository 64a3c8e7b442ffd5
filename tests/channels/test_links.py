"""Links to the customers' pages: the content of a token, its validation, and its revocation."""

from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from channels.links import (
    address_of,
    preferences_url,
    read_preferences,
    read_unsubscribe,
    unsubscribe_url,
)
from channels.providers.registry import connect_providers
from config.clock.times import Instant
from config.errors import SegueError
from config.settings import Settings, load_settings

# A machine under load may be slow.
however_slow = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])

OLD, NEW = "the key of last year", "the key of this year"


def settings(key: str = NEW, *retired: str, **more: Any) -> Settings:
    keys = {"secret_key": key, "secret_keys_retired": retired}
    return Settings.model_validate({**keys, "public_url": "https://shop.example/segue/", **more})


ANN = "ann@example.com"


def unsubscribe_token(signed_by: Settings) -> str:
    url = unsubscribe_url(signed_by, 7, "email", "promotions", ANN)
    return url.removeprefix("https://shop.example/segue/u/")


def preferences_token(signed_by: Settings, made_at: Instant = 1000) -> str:
    url = preferences_url(signed_by, 7, "email", ANN, made_at)
    return url.removeprefix("https://shop.example/segue/preferences/")


def signed(purpose: str, named: object) -> str:
    """A token as earlier releases made it."""
    digest = {"key_derivation": "hmac", "digest_method": sha256}
    token = URLSafeSerializer(NEW, salt=purpose, signer_kwargs=digest).dumps(named)
    assert isinstance(token, str)
    return token


def test_a_link_names_a_profile_a_topic_and_an_address() -> None:
    ours = settings()
    said = read_unsubscribe(ours, unsubscribe_token(ours))
    assert said is not None
    assert said[:3] == (7, "email", "promotions")
    assert address_of(ours, said.digest, [("phone", ANN), ("email", ANN)]) == ("email", ANN)
    assert address_of(ours, said.digest, [("email", "bob@example.com"), ("phone", ANN)]) is None
    access = read_preferences(ours, preferences_token(ours))
    assert access == (7, said.digest, 1000)


def test_no_token_holds_an_address() -> None:
    for token in (unsubscribe_token(settings()), preferences_token(settings())):
        payload = token.partition(".")[0]
        assert b"ann" not in urlsafe_b64decode(payload + "==")


def test_links_of_earlier_releases_name_no_address() -> None:
    ours = settings()
    old = read_unsubscribe(ours, signed("unsubscribe", [7, "email", "promotions"]))
    assert old == (7, "email", "promotions", "")
    assert read_preferences(ours, signed("preferences", 7)) == (7, "", None)


def test_the_two_kinds_of_token_are_not_interchangeable() -> None:
    ours = settings()
    assert read_preferences(ours, unsubscribe_token(ours)) is None
    assert read_unsubscribe(ours, preferences_token(ours)) is None


def test_a_retired_key_is_accepted_until_it_is_removed_and_signs_nothing() -> None:
    old_mail = unsubscribe_token(settings(OLD))
    said = read_unsubscribe(settings(NEW, OLD), old_mail)
    assert said is not None
    assert address_of(settings(NEW, OLD), said.digest, [("email", ANN)]) == ("email", ANN)
    assert read_unsubscribe(settings(NEW, "one older still....", OLD), old_mail) is not None
    assert read_unsubscribe(settings(NEW), old_mail) is None
    new_mail = unsubscribe_token(settings(NEW, OLD))
    assert read_unsubscribe(settings(NEW), new_mail) is not None
    assert read_unsubscribe(settings(OLD), new_mail) is None


@however_slow
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_other_text_is_refused(text: str) -> None:
    assert read_unsubscribe(settings(), text) is None
    assert read_preferences(settings(), text) is None


@however_slow
@given(st.data())
def test_a_token_with_one_changed_character_is_refused(data: st.DataObject) -> None:
    token = unsubscribe_token(settings())
    at = data.draw(st.integers(0, len(token) - 2))  # the last one holds spare bits
    other = data.draw(st.sampled_from("abcXYZ019-_.").filter(lambda char: char != token[at]))
    assert read_unsubscribe(settings(), token[:at] + other + token[at + 1 :]) is None
    assert read_unsubscribe(settings(), token[:at]) is None


def test_a_token_signed_for_another_purpose_is_refused() -> None:
    foreign = URLSafeSerializer(NEW, salt="password reset").dumps([7, "email", "promotions"])
    assert isinstance(foreign, str)
    assert read_unsubscribe(settings(), foreign) is None


def test_retired_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_SECRET_KEYS_RETIRED", f'["{OLD}"]')
    assert [key.get_secret_value() for key in load_settings().secret_keys_retired] == [OLD]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SEGUE_SECRET_KEY", ""),
        ("SEGUE_SECRET_KEY", "hunter2"),
        ("SEGUE_SECRET_KEYS_RETIRED", '["hunter2"]'),
        ("SEGUE_SECRET_KEYS_RETIRED", '"hunter2"'),
        ("SEGUE_SECRET_KEYS_RETIRED", "hunter2"),
    ],
)
def test_an_unusable_key_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SegueError) as raised:
        load_settings()
    assert name.removeprefix("SEGUE_").lower() in str(raised.value).lower()
    assert "hunter2" not in str(raised.value)
    # and the error that it came from is not shown
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None


def test_the_default_key_is_refused_as_a_retired_key() -> None:
    known = Settings.model_fields["secret_key"].default.get_secret_value()
    with pytest.raises(SegueError, match="SEGUE_SECRET_KEYS_RETIRED"):
        connect_providers(settings(NEW, known, providers="live"))
