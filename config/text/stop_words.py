"""Stop words by language, and the normalization with which texts are compared.

The policy adds to the built-in words below. The words of all languages apply to every text, because
its language is unknown.
"""

import unicodedata
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from config.text.strict import Strict


def bare(text: str) -> str:
    """The letters and digits of a text, normalised (NFKC), without case and accents.

    Punctuation, spaces, control characters, zero-width characters and marks (accents, emoji
    variation selectors) are removed: `“STÓP”` and `ＳＴＯＰ` become `stop`.
    """
    unified = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return "".join(one for one in unified if unicodedata.category(one)[0] in "LN")


def _with_letters(word: str) -> str:
    if not bare(word):
        raise ValueError(f"{word!r} has no letter or digit; use a word")
    if bare(word) in START_WORDS:
        raise ValueError(f"{word!r} is a START keyword; use another word")
    return word


StopWord = Annotated[str, AfterValidator(_with_letters)]


class StopWords(Strict):
    """The stop words of one language. A word may be a phrase: "opt out".

    alone: a text that equals this word is a STOP. first: a text of at most four words that begins
    with this word is a STOP; only for unambiguous words.
    """

    alone: tuple[StopWord, ...] = ()
    first: tuple[StopWord, ...] = ()


# Twilio's START keywords, normalized by `bare`.
START_WORDS = frozenset(("start", "yes", "unstop"))

# English has Twilio's default keywords. A word that is an everyday word of another language is
# left out, such as Italian "fine" (English) and Spanish "fin" (Swedish).
SHIPPED: Mapping[str, StopWords] = {
    "en": StopWords(
        alone=("cancel", "end", "quit", "revoke", "remove me"),
        first=("stop", "stop all", "unsubscribe", "unsub", "opt out"),
    ),
    "fr": StopWords(
        alone=("arrêt", "arrête", "annuler", "résilier", "stopper"),
        first=(
            "arrêter",
            "arrêtez",
            "désabonner",
            "désabonnement",
            "désinscrire",
            "désinscription",
        ),
    ),
    "es": StopWords(
        alone=("baja", "parar", "pare", "cancelar", "detener", "no más mensajes"),
        first=("darme de baja", "desuscribir", "desuscribirme", "desinscribir", "dar de baja"),
    ),
    "de": StopWords(
        alone=("ende", "aufhören", "aufhoeren", "abmeldung", "kündigen", "kuendigen", "halt"),
        first=("stopp", "stoppen", "abmelden", "abbestellen", "austragen"),
    ),
    "nl": StopWords(
        alone=("einde", "annuleren", "opzeggen", "ophouden"),
        first=("stoppen", "afmelden", "uitschrijven"),
    ),
    "sv": StopWords(
        alone=("avsluta", "avbryt", "sluta", "avanmälan"),
        first=("stopp", "stoppa", "avregistrera", "avprenumerera", "avanmäl"),
    ),
    "it": StopWords(
        alone=("basta", "ferma", "fermare", "annulla", "cancella", "cancellazione", "arresta"),
        first=("disiscrivi", "disiscrivimi", "disiscrizione", "cancellami"),
    ),
    "pt": StopWords(
        alone=("parar", "pare", "sair", "cancelar", "remover", "fim"),
        first=("descadastrar", "descadastre", "desinscrever", "cancelar inscrição"),
    ),
}
