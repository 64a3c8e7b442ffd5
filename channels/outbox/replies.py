"""What a person's text message means for consent: a STOP, a START, or neither. Pure.

A STOP need not be written as the keyword alone: “Stop.”, `OPT-OUT` and "Stop please" are one.
"""

import unicodedata
from functools import lru_cache
from typing import Literal, NamedTuple

from config.policy import Policy
from config.text.stop_words import SHIPPED, START_WORDS, StopWords, bare

# A longer text that begins with a stop word may mean anything: "stop sending it to my old address".
_MOST_WORDS = 4
# Punctuation that stands inside a word: hyphens and apostrophes. All other separates words.
_INSIDE = frozenset("-'\u2010\u2011\u2019\u02bc")


class StopWordForms(NamedTuple):
    """The stop words of all languages, each as `bare` gives it.

    alone: the whole text is the word; `first` is part of it. first: a short text begins with it.
    """

    alone: frozenset[str]
    first: frozenset[str]


class Reply(NamedTuple):
    """What a text means, and the word that says so, in capitals; empty for `replied`."""

    meaning: Literal["stopped", "started", "replied"]
    word: str = ""


def stop_words_of(policy: Policy) -> StopWordForms:
    """The stop words that are shipped, and those that the policy adds."""
    return _words((*SHIPPED.values(), *policy.stop_words.values()))


@lru_cache(maxsize=16)
def _words(languages: tuple[StopWords, ...]) -> StopWordForms:
    first = frozenset(bare(word) for one in languages for word in one.first)
    return StopWordForms(first.union(bare(word) for one in languages for word in one.alone), first)


def read_reply(text: str, words: StopWordForms) -> Reply:
    """Read an inbound text message.

    It is a STOP if it equals a stop word in the form that `bare` gives, or if it has at most four
    words and begins with a stop word that can mean nothing else.
    """
    # Symbols count both ways: ⓈⓉⓄⓅ is made of symbols, and ™ would become the letters "tm".
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
            # "opt out" and "opt-out" are one word.
            beginnings = ("".join(parts[:end]) for end in range(1, len(parts) + 1))
            for word in beginnings:
                if word in words.first:
                    return Reply("stopped", word.upper())
    return Reply("replied")


def _without_symbols(text: str) -> str:
    return "".join(" " if unicodedata.category(one)[0] == "S" else one for one in text)


def _split(text: str) -> list[str]:
    """The words of a text, each as `bare` gives it."""
    spaced = "".join(_in_words(one) for one in unicodedata.normalize("NFKC", text))
    return [word for part in spaced.split() if (word := bare(part))]


def _in_words(one: str) -> str:
    """The character where it belongs to a word, nothing for a zero-width one, else a space."""
    category = unicodedata.category(one)
    if category == "Cf":
        return ""
    return one if category[0] in "LMN" or one in _INSIDE else " "
