"""Which inbound text messages are a STOP, and which are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from channels.feedback.replies import read_reply, stop_words_of
from config.policy import Policy
from config.text.stop_words import SHIPPED, START_WORDS, bare
from tests.support.providers.feedback_shop import TEXTS, AnnsShop
from tests.support.shop import House

WORDS = stop_words_of(Policy())


def meaning(text: str, policy: Policy | None = None) -> str:
    return read_reply(text, stop_words_of(policy or Policy())).meaning


@pytest.mark.parametrize(
    "text",
    [
        *("“STOP”", "‘stop’", "opt out", "OPT-OUT", "stop all", "STOP,", "(STOP)", "STOP?"),
        *("STOP…", "-STOP-", "STOP.", '"STOP!"', "«stop»", "¡STOP!", "STOP;", "*STOP*", "s t o p"),
        *("ＳＴＯＰ", "ⓈⓉⓄⓅ", "𝗦𝗧𝗢𝗣", "STOP™", "STOP\u200b", "\u2060STOP\ufeff", "STOP\ufe0f"),
        *("STOP\u00a0", "\u3000stop\u2003", "STOP 🛑", "🛑STOP🛑", "❤️ stop", "S\u00adTOP"),
        *("opt\u2011out", "Opt_Out", "OptOut.", "un-subscribe", "Stop All!!", "remove me"),
        *("End.", "cancel!", "QUIT?", "(revoke)"),
    ],
)
def test_a_stop_word_is_a_stop_however_it_is_written(text: str) -> None:
    assert meaning(text) == "stopped"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Stop please",
            "STOP!please",
            "Stop, thanks.",
            "stop texting me now",
            "stop don't text me",
        ),
        *("Unsubscribe me please", "opt out please", "Opt-out me now", "stop\nAnn"),
        *("Arrêtez svp", "désabonner moi", "Abmelden bitte!", "Stopp bitte", "Afmelden aub"),
        *("Uitschrijven alstublieft", "avregistrera mig tack", "disiscrivimi per favore"),
        *("descadastrar por favor", "darme de baja, gracias", "dar de baja"),
    ],
)
def test_a_short_text_that_begins_with_an_unambiguous_stop_word_is_a_stop(text: str) -> None:
    assert meaning(text) == "stopped"


@pytest.mark.parametrize(
    "text",
    [
        *("end of the month?", "cancel my order", "Quit worrying", "revoke it", "End it"),
        "stop sending the blue one to my old address please",
        *(
            "stop-motion video?",
            "stopped by today",
            "Please stop",
            "non-stop",
            "Stopwatch",
            "opt in",
        ),
        *("", " ", "…", "🛑", "?!", "fine", "slut", "no", "unsubscribed", "started"),
    ],
)
def test_other_texts_are_no_stop(text: str) -> None:
    assert meaning(text) == "replied"


@pytest.mark.parametrize("text", ["START", "“yes”", "Un-Stop!", "ＹＥＳ", "start…", "(Yes)"])
def test_start_words_are_compared_in_the_same_form(text: str) -> None:
    assert meaning(text) == "started"


@pytest.mark.parametrize("text", ["Yes please", "start again"])
def test_a_start_word_counts_alone_only(text: str) -> None:
    assert meaning(text) == "replied"


@pytest.mark.parametrize("language", ["en", "fr", "es", "de", "nl", "sv", "it", "pt"])
def test_words_are_shipped_for_this_language(language: str) -> None:
    shipped = SHIPPED[language]
    assert shipped.alone
    assert shipped.first
    for word in (*shipped.alone, *shipped.first):
        assert meaning(word.upper()) == "stopped"
    for word in shipped.first:
        assert meaning(f"{word} x") == "stopped"


@pytest.mark.parametrize("text", ["ARRET", "arrêt", "ARRE\u0302T", "desabonner", "avanmal"])
def test_accents_make_no_difference(text: str) -> None:
    assert meaning(text) == "stopped"


NOISE = st.text(
    st.characters(categories=["P", "Z", "Cc", "Cf"]) | st.sampled_from("\ufe0f\ufe0e\u20e3"),
    max_size=6,
)
ANY_STOP = st.sampled_from(sorted(WORDS.alone))


def _wide(word: str) -> str:
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in word)


@given(word=ANY_STOP, before=NOISE, after=NOISE, between=NOISE, data=st.data())
def test_punctuation_and_invisible_characters_do_not_hide_a_stop_word(
    word: str, before: str, after: str, between: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(word)))
    shape = data.draw(st.sampled_from([str.upper, str.title, str.lower, _wide]))
    assert meaning(f"{before}{shape(word[:at])}{between}{shape(word[at:])}{after}") == "stopped"


@given(
    first=st.sampled_from(sorted(WORDS.first)),
    rest=st.lists(st.text("abcdefgh", min_size=1, max_size=8), min_size=4, max_size=8),
)
def test_five_words_are_no_stop(first: str, rest: list[str]) -> None:
    assert meaning(" ".join([first, *rest])) == "replied"


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    reply = read_reply(text, WORDS)
    assert (reply.word == "") is (reply.meaning == "replied")
    if reply.meaning == "started":
        assert bare(reply.word) in START_WORDS


def test_the_policy_adds_words() -> None:
    words = {"pl": {"alone": ["Koniec"], "first": ["wypisz"]}}
    policy = Policy.model_validate({"stop_words": words})
    for text in ("KONIEC!", "wypisz", "Wypisz mnie", "stop"):
        assert meaning(text, policy) == "stopped"
    assert meaning("koniec miesiąca", policy) == "replied"
    assert meaning("koniec") == "replied"


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ({"pl": {"alone": ["…"]}}, "'…' has no letter or digit"),
        ({"pl": {"first": ["Yes!"]}}, "is a START keyword"),
        ({"pl": {"whole": ["x"]}}, "there is no 'whole' here; there are: alone, first"),
    ],
)
def test_a_word_that_cannot_work_is_refused(words: object, wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        Policy.model_validate({"stop_words": words})


@pytest.mark.parametrize("text", ["“STOP”", "OPT-OUT", "Stop please", "désabonner"])
def test_a_stop_by_text_applies_and_a_start_restores_consent(house: House, text: str) -> None:
    shop = AnnsShop(house, TEXTS)
    shop.says(text)
    assert shop.consent("sms") is False
    assert shop.says_no_texts()
    shop.says("„Start“")
    assert shop.consent("sms") is True


def test_twilios_opt_out_type_overrides_the_stop_words(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    shop.says("genug davon, wirklich, ein für alle Mal", OptOutType="STOP")
    assert shop.consent("sms") is False
