"""Placeholders, such as "undefined": values that identify nobody. Pure."""

import re
from collections.abc import Iterable

from config.join_rules import Pattern
from profiles.identity.person import Person

# What programs print for a missing value: JavaScript, Python, Ruby, Objective-C, Java, SQL.
_WORDS = frozenset(
    {
        *("undefined", "null", "none", "nil", "nan", "[object object]", "(null)", "<null>"),
        *("unknown", "anonymous", "n/a"),  # what shops and libraries send for "not signed in"
    }
)
# "0", "0000", "0.0", "+0", "00000000-0000-0000-0000-000000000000" (an erased device id)
_ZEROS = "0-+.:"
# Every listed value is shorter, so longer texts are not checked.
_LONGEST = 1000


def _folded(text: str) -> str:
    """The text without regard to case and spacing."""
    return " ".join(text.split()).casefold()


class Meaningless:
    """The placeholders: those above and the policy's `meaningless`."""

    def __init__(self, listed: Iterable[str | Pattern] = ()) -> None:
        texts, patterns = set[str](), list[re.Pattern[str]]()
        for one in listed:
            if isinstance(one, Pattern):
                patterns.append(re.compile(one.pattern, re.IGNORECASE))
            else:
                texts.add(_folded(one))
        self._words = _WORDS | texts
        self._patterns = patterns

    def __contains__(self, text: str) -> bool:
        """Whether a text is a placeholder, in any case and spacing."""
        if len(text) > _LONGEST:
            return False
        folded = _folded(text)
        if folded in self._words or not folded.strip(_ZEROS):
            return True
        return any(one.fullmatch(folded) for one in self._patterns)


# The placeholders without those of a policy.
MEANINGLESS = Meaningless()


def without_meaningless(person: Person, meaningless: Meaningless) -> Person:
    """Remove the identifiers that are placeholders."""

    def drop(value: str | None) -> bool:
        return value is not None and value in meaningless

    return person._replace(
        user_id=None if drop(person.user_id) else person.user_id,
        anonymous_id=None if drop(person.anonymous_id) else person.anonymous_id,
        email=None if drop(person.email) else person.email,
        phone=None if person.phone is not None and drop(person.phone.value) else person.phone,
        push_tokens={t: platform for t, platform in person.push_tokens.items() if not drop(t)},
    )
