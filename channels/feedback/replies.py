"""Classify inbound texts: STOP, START or another reply. Pure.

Variants of the keyword count as well: “Stop.”, `OPT-OUT`, "Stop please".
"""

import unicodedata
from functools import lru_cache
from typing import Literal, NamedTuple

from config.policy import Policy
from config.text.stop_words import SHIPPED, START_WORDS, StopWords, bare

# A longer text that begins with a stop word may be no STOP: "stop sending it to my old address".
_MOST_WORDS = 4
# Hyphens and apostrophes are part of a word. All other punctuation separates words.
_INSIDE = frozenset("-'\u2010\u2011\u2019\u02bc")


class StopWordForms(NamedTuple):
    """The stop words of all languages, normalized by `bare`.

    alone: the whole text must equal the word; includes `first`. first: a short text may begin with
    the word.
    """

    alone: frozenset[str]
    first: frozenset[str]


class Reply(NamedTuple):
    """The meaning of a text and the keyword found, in capitals; empty for `replied`."""

    meaning: Literal["stopped", "started", "replied"]
    word: str = ""


def stop_words_of(policy: Policy) -> StopWordForms:
    """The built-in stop words and those of the policy."""
    return _words((*SHIPPED.values(), *policy.stop_words.values()))


@lru_cache(maxsize=16)
def _words(languages: tuple[StopWords, ...]) -> StopWordForms:
    first = frozenset(bare(word) for one in languages for word in one.first)
    return StopWordForms(first.union(bare(word) for one in languages for word in one.alone), first)


def read_reply(text: str, words: StopWordForms) -> Reply:
    """Classify an inbound text message.

    It is a STOP if it equals a stop word after normalization by `bare`, or if it has at most four
    words and begins with an unambiguous stop word.
    """
    # With and without symbols: ⓈⓉⓄⓅ consists of symbols, and ™ would become the letters "tm".
    forms = (text, _without_symbols(text))
    for form in forms:
        word = bare(form)
        if word in words.alone:
            return Reply("stopped", word.upper())
        if word in START_WORDS:
            return Reply("started", word.upper())
    for form in forms:
        parts = _split(form)
        if len(parts) <= _MOST_WORDS:
            # "opt out" and "opt-out" are the same keyword.
            beginnings = ("".join(parts[:end]) for end in range(1, len(parts) + 1))
            for word in beginnings:
                if word in words.first:
                    return Reply("stopped", word.upper())
    return Reply("replied")


def _without_symbols(text: str) -> str:
    return "".join(" " if unicodedata.category(one)[0] == "S" else one for one in text)


def _split(text: str) -> list[str]:
    """The words of a text, normalized by `bare`."""
    spaced = "".join(_in_words(one) for one in unicodedata.normalize("NFKC", text))
    return [word for part in spaced.split() if (word := bare(part))]


def _in_words(one: str) -> str:
    """The character if it can be part of a word, "" if it has no width, else a space."""
    category = unicodedata.category(one)
    if category == "Cf":
        return ""
    return one if category[0] in "LMN" or one in _INSIDE else " "
