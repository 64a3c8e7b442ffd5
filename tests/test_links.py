"""The links to customers' own pages: what a token says, who accepts it, and what revokes it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from channels.links import (
    preferences_token,
    preferences_url,
    read_preferences,
    read_unsubscribe,
    unsubscribe_url,
)
from channels.provider import providers
from config.errors import SegueError
from config.settings import Settings, load_settings

# A machine under load may be slow.
however_slow = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])

OLD, NEW = "the key of last year", "the key of this year"


def settings(key: str = NEW, *retired: str, **more: Any) -> Settings:
    keys = {"secret_key": key, "secret_keys_retired": retired}
    return Settings.model_validate({**keys, "public_url": "https://shop.example/segue/", **more})


def unsubscribe_token(signed_by: Settings) -> str:
    url = unsubscribe_url(signed_by, 7, "email", "promotions")
    return url.removeprefix("https://shop.example/segue/u/")


def test_a_link_says_what_it_stops_and_for_whom() -> None:
    ours = settings()
    assert read_unsubscribe(ours, unsubscribe_token(ours)) == (7, "email", "promotions")
    url = preferences_url(ours, 7)
    token = url.removeprefix("https://shop.example/segue/preferences/")
    assert token == preferences_token(ours, 7)
    assert read_preferences(ours, token) == 7


def test_neither_kind_of_token_passes_for_the_other() -> None:
    ours = settings()
    assert read_preferences(ours, unsubscribe_token(ours)) is None
    assert read_unsubscribe(ours, preferences_token(ours, 7)) is None


def test_a_retired_key_is_accepted_until_it_is_removed_and_signs_nothing() -> None:
    old_mail = unsubscribe_token(settings(OLD))
    assert read_unsubscribe(settings(NEW, OLD), old_mail) == (7, "email", "promotions")
    assert read_unsubscribe(settings(NEW, "one older still....", OLD), old_mail) is not None
    assert read_unsubscribe(settings(NEW), old_mail) is None
    new_mail = unsubscribe_token(settings(NEW, OLD))
    assert read_unsubscribe(settings(NEW), new_mail) is not None
    assert read_unsubscribe(settings(OLD), new_mail) is None


def test_a_token_does_not_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    token = unsubscribe_token(settings())
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert read_unsubscribe(settings(), token) is not None


@however_slow
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_other_text_is_no_token(text: str) -> None:
    assert read_unsubscribe(settings(), text) is None
    assert read_preferences(settings(), text) is None


@however_slow
@given(st.data())
def test_a_token_of_which_one_character_is_wrong_is_none_of_ours(data: st.DataObject) -> None:
    token = unsubscribe_token(settings())
    at = data.draw(st.integers(0, len(token) - 2))  # the last one holds spare bits
    other = data.draw(st.sampled_from("abcXYZ019-_.").filter(lambda char: char != token[at]))
    assert read_unsubscribe(settings(), token[:at] + other + token[at + 1 :]) is None
    assert read_unsubscribe(settings(), token[:at]) is None


def test_a_token_signed_with_the_right_key_for_another_purpose_is_none_of_ours() -> None:
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
def test_a_key_that_will_not_do_is_named_and_not_shown(
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


def test_the_key_that_everybody_knows_is_refused_among_the_retired_ones() -> None:
    known = Settings.model_fields["secret_key"].default.get_secret_value()
    with pytest.raises(SegueError, match="SEGUE_SECRET_KEYS_RETIRED"):
        providers(settings(NEW, known, providers="live"))
