"""The customers' pages in several languages: whose language, and no text without a translation."""

import re
from typing import Any

import pytest

from config.clock.times import DAY
from flows.http.pages.form import SHOWN
from flows.http.pages.texts import Texts, accepted, languages, texts_for, texts_in
from flows.http.pages.zone_list import zone_labels, zones_by_region
from profiles.tables import profiles
from tests.support.http.page_customers import Shop, form_of, shown
from tests.support.http.page_texts import catalogue, wanted

FOREIGN = languages()[1:]
_PLACEHOLDER = re.compile(r"\{\w+\}|%\(\w+\)s")


def _forms(text: Any) -> tuple[str, ...]:
    """The singular and the plural, or the only form."""
    return text if isinstance(text, tuple) else (text,)


def test_the_languages_of_the_sample_are_there() -> None:
    assert languages() == ("en", "de", "es", "fr")


@pytest.mark.parametrize("language", FOREIGN)
def test_every_text_is_translated_with_its_placeholders(language: str) -> None:
    again = "run `python -m tests.support.http.page_texts` and translate what is new"
    texts = {message.id for message in wanted() if message.id}
    known = {message.id: message for message in catalogue(language) if message.id}
    assert texts == known.keys(), again
    assert len(texts) > 90
    for text, message in known.items():
        assert not message.fuzzy, text
        for ours, theirs in zip(_forms(text), _forms(message.string), strict=True):
            assert theirs, f"{ours!r} has no translation; {again}"
            assert sorted(_PLACEHOLDER.findall(ours)) == sorted(_PLACEHOLDER.findall(theirs)), ours
            assert (ours[0].isspace(), ours[-1].isspace()) == (
                theirs[0].isspace(),
                theirs[-1].isspace(),
            )


def test_no_page_uses_a_text_that_the_catalogues_lack(
    small_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: set[str] = set()
    gettext = Texts.gettext

    def recorded(self: Texts, text: str, **values: object) -> str:
        used.add(text)
        return gettext(self, text, **values)

    monkeypatch.setattr(Texts, "gettext", recorded)
    shop = small_shop
    for path in (shop.u(), shop.u("sms"), shop.u("push"), shop.p(), "/u/x", "/preferences/x"):
        shop.client.get(path)
    shop.client.post(shop.u(), data={"action": "stop"})
    shop.client.post(shop.u(), data={"action": "undo"})
    form = form_of(shop.get(shop.p()))
    hours = {"opens": "02:00", "closes": "03:00", "per_week": "x", "timezone": "x", "language": "x"}
    shop.client.post(shop.p(), data={**form, **hours})
    shop.client.post(shop.p(), data={"action": "stop"})
    shop.client.get(shop.u("sms"))
    shop.house.db.now = shop.house.now + 90 * DAY
    shop.client.get(shop.p())
    topics = {one.name for one in shop.house.segue.policy.topics.values()}
    assert used - topics <= {message.id for message in wanted()}
    assert len(used) > 40  # the names of regions are kept


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("", []),
        ("de-AT,de;q=0.9,en;q=0.5", ["de-AT", "de", "en"]),
        ("en;q=0.1, fr ;q=0.8 ,*;q=0.2", ["fr", "*", "en"]),
        ("fr;q=0,es", ["es"]),
        ("fr;q=x,,;q=1,es", ["es"]),
        ("x" * 10_000, ["x" * 10_000]),
    ],
)
def test_the_header_of_a_browser(header: str, tags: list[str]) -> None:
    assert accepted(header) == tags
    assert texts_for(*tags).language in languages()


@pytest.mark.parametrize(
    ("person", "header", "language"),
    [
        (None, "", "en"),
        (None, "fr-CA,en;q=0.8", "fr"),
        (None, "it,nl", "en"),
        ("de", "fr", "de"),
        ("de-AT", "fr", "de"),
        ("es", "", "es"),
        ("tlh", "fr", "fr"),
        ("not a language", "x;y", "en"),
    ],
)
def test_the_language_is_the_customers_then_the_browsers_then_english(
    small_shop: Shop, person: str | None, header: str, language: str
) -> None:
    shop = small_shop
    with shop.house.db.transaction() as tx:
        tx.conn.execute(profiles.update().values(language=person))
    headers = {"Accept-Language": header}
    for path in (shop.u(), shop.p()):
        assert f'<html lang="{language}">' in shop.client.get(path, headers=headers).text
    unknown = shop.client.get("/u/x", headers=headers).text
    browsers = texts_for(*accepted(header))
    assert f'<html lang="{browsers.language}">' in unknown
    assert browsers.gettext("This link does not work") in unknown


def test_a_chosen_language_holds_at_once(small_shop: Shop) -> None:
    shop = small_shop
    form = form_of(shop.get(shop.p()))
    saved = shop.client.post(shop.p(), data={**form, "language": "de", f"{SHOWN}language": ""})
    assert '<html lang="de">' in saved.text
    assert "Gespeichert: Was Sie erhalten, und wann" in saved.text
    words = shown(shop.get(shop.p()))
    for text in ("Ihre Zeitzone", "Alles abbestellen", "Deutschland, Berlin", "Jederzeit"):
        assert text in words
    assert "E-Mails zu „Offers“ abbestellen?" in shown(shop.get(shop.u()))


def test_plural_forms() -> None:
    days = {
        "en": ("1 day", "60 days"),
        "de": ("1 Tag", "60 Tage"),
        "fr": ("1 jour", "60 jours"),
        "es": ("1 día", "60 días"),
    }
    for language, (one, many) in days.items():
        texts = texts_in(language)
        assert texts.ngettext("{number} day", "{number} days", 1) == one
        assert texts.ngettext("{number} day", "{number} days", 60) == many


@pytest.mark.parametrize("language", languages())
def test_every_zone_has_a_name_of_its_own(language: str) -> None:
    labels = zone_labels(language)
    assert len(labels) == len(set(labels.values())) > 400
    assert sum(map(len, zones_by_region(language).values())) == len(labels)
