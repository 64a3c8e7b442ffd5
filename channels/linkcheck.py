"""Which links a message may hold: https only, and from customer data only hosts on the list.

A template marks what it prints of data with OPEN and CLOSE, so that the rendered text still says
which part of a link is the author's. A link whose scheme or host has a character of data in it
needs a host of SEGUE_LINK_HOSTS; a link of the author's may have any.

Browsers read more as a link than RFC 3986 does (https://url.spec.whatwg.org, "URL parsing"): they
drop tabs and line ends, and take a backslash for a slash. A link of data with any of these is
refused rather than read.
"""

import re
from collections.abc import Iterator
from functools import cache
from html import unescape
from typing import NamedTuple

import pycountry

# Around what is printed of customer data: noncharacters, which no text has (Unicode, 23.7).
OPEN, CLOSE = "\ufdd0", "\ufdd1"
_MARKS = re.compile(f"[{OPEN}{CLOSE}]")

_HTTPS = re.compile(r"https://(?P<host>[a-z0-9.-]+)(?P<port>:\d+)?(?=[/?#]|\Z)", re.IGNORECASE)
LOOPBACK = re.compile(
    r"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(?=[/?#]|\Z)", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\\\s]")
_SCHEME = re.compile(r"\s*(?P<scheme>[a-z][a-z0-9+.-]*):", re.IGNORECASE)
# As far as it decides where a link leads.
_ORIGIN = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?(?:[/\\]*[^/?#\\]*)", re.IGNORECASE)
# A scheme that needs no host, or a host and what ends it.
_WRITTEN = re.compile(
    r"\s*(?:#|(?!https?:)[a-z][a-z0-9+.-]*:|https?:[/\\]{2}[^/?#\s\\@]+[/?#])", re.IGNORECASE
)
# These open a mail, a call, a picture of the same mail; what follows them is no host.
_NO_HOST = frozenset({"mailto", "tel", "sms", "cid"})
# Never, whoever wrote it: they run code, or carry a document of their own.
_NEVER = frozenset({"javascript", "vbscript", "data", "file", "blob", "http", "ftp"})
CSS_URL = re.compile(
    r"url\(\s*(?P<quote>[\"']?)(?P<url>.*?)(?P=quote)\s*\)", re.DOTALL | re.IGNORECASE
)
_CSS_BREAKS = re.compile(r"""["'()\\<>;{}\s\x00-\x1f\x7f]|/\*""")
_CSS_PLAIN = re.compile(r"[\w .,%#+-]*")
_DATA = re.compile(f"{OPEN}(.*?){CLOSE}", re.DOTALL)

# What mail and phone clients turn into a link where it stands in a text.
_DANGEROUS = re.compile(r"\b(?:javascript:|vbscript:|data:[a-z-]+/[a-z])", re.IGNORECASE)
_NO_SCHEME = re.compile(r"(?<![\w:/.-])//[\w-]+\.[^/?#\s\\]*")
_URL = re.compile(
    r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*:[/\\]{2}[^/?#\s\\]*|\bhttps?:[^/?#\s\\]*", re.IGNORECASE
)
_PERHAPS_A_LINK = re.compile(r"[.:\u3002\uff0e\uff61]|//")
_PATH = re.compile(r"[/?#]\S*")
_AFTER_A_LINK = ".,;:!?)]}'\"»”’…"
_TOP_LEVEL = (
    "app|biz|click|club|co|com|dev|edu|example|gov|info|invalid|io|link|live|me|mobi|net|news|"
    "online|org|page|pro|shop|site|store|test|top|tv|vip|web|website|wiki|work|world|xyz"
)


class LinkRefused(Exception):
    """A link that must not be sent. Its text says where it leads, as far as that can be shown."""


class LinkRules(NamedTuple):
    """hosts: those that links from data may lead to, in lower case.

    loopback: whether http and https may lead to this machine, as in the sandbox.
    """

    hosts: frozenset[str] = frozenset()
    loopback: bool = False


def without_marks(text: str) -> str:
    """The text alone."""
    return _MARKS.sub("", text) if OPEN in text or CLOSE in text else text


def check_link(
    marked: str, rules: LinkRules, *, html: bool = False, own_schemes: bool = False
) -> str:
    """A link as it is sent, of one that may hold marks. Raises LinkRefused.

    html: whether it is escaped. own_schemes: whether the author may lead into an app
    (`shop://cart`).
    """
    link, data = _unmarked(marked, html=html)
    plain = without_marks(marked)
    if not link.strip():
        return plain
    scheme = _SCHEME.match(link)
    authors_scheme = scheme is not None and not any(data[: scheme.end()])
    web = scheme is None or scheme["scheme"].lower() in ("http", "https")
    origin = _ORIGIN.match(link)
    if authors_scheme and not web:
        checked = allowed_to_authors(link, rules, own_schemes=own_schemes)
    elif origin is not None and any(data[: origin.end()]):
        checked = _listed(link, rules)
    else:
        checked = allowed_to_authors(link, rules)
    if not checked:
        raise LinkRefused(shown(link))
    return plain


def allowed_to_authors(link: str, rules: LinkRules, *, own_schemes: bool = False) -> bool:
    """Whether the author of a template may write a link."""
    if rules.loopback and LOOPBACK.match(link.strip()):
        return True
    found = _SCHEME.match(_CONTROL.sub("", link))
    if found is None:
        # A path, or a place in the same mail; but no other host.
        return not re.match(r"\s*[/\\]{2}", link)
    scheme = found["scheme"].lower()
    if scheme == "https":
        return re.match(r"\s*https://[^/\s]", link, re.IGNORECASE) is not None
    return scheme in _NO_HOST or (own_schemes and scheme not in _NEVER)


def written_start(link: str) -> str | None:
    """How a link of a template begins, as far as that decides where it leads; None if it does not.

    link: with its Liquid tags hidden behind words, one of which may stand in what is returned.
    """
    found = _WRITTEN.match(link)
    return found[0] if found else None


def check_style(marked: str, rules: LinkRules) -> str:
    """CSS as it is sent. Raises LinkRefused for data that could add a declaration or an address."""
    for printed in _DATA.findall(marked):
        if _CSS_BREAKS.search(unescape(printed)) and not _CSS_PLAIN.fullmatch(unescape(printed)):
            raise LinkRefused(shown(printed))

    def checked(found: re.Match[str]) -> str:
        check_link(unescape(found["url"]), rules)
        return ""

    rest = CSS_URL.sub(checked, unescape(marked))
    for printed in _DATA.findall(rest):
        if not _CSS_PLAIN.fullmatch(printed):
            raise LinkRefused(shown(printed))
    return without_marks(marked)


def check_text(marked: str, rules: LinkRules, *, html: bool = False) -> str:
    """A text as it is sent, in which every link that data makes is allowed. Raises LinkRefused.

    Costs next to nothing for a text without data, and little for data without a dot or a colon.
    """
    at = marked.find(OPEN)
    if at < 0:
        return marked
    while at >= 0:
        start, end = _word_around(marked, at)
        word = marked[start:end]
        if _PERHAPS_A_LINK.search(word):
            _check_word(word, rules, html=html)
        at = marked.find(OPEN, end)
    return without_marks(marked)


def _word_around(marked: str, at: int) -> tuple[int, int]:
    """Where the word that the data at `at` stands in, or begins, starts and ends."""
    start = at
    while start > 0 and not _ends_a_word(marked[start - 1]):
        start -= 1
    end = marked.index(CLOSE, at) + 1
    while end < len(marked) and not _ends_a_word(marked[end]):
        end = marked.index(CLOSE, end) + 1 if marked[end] == OPEN else end + 1
    return start, end


def _ends_a_word(char: str) -> bool:
    return char.isspace() or char in "<>\"'"


def _check_word(marked: str, rules: LinkRules, *, html: bool) -> None:
    text, data = _unmarked(marked, html=html)
    for start, end in _links(text):
        if any(data[start:end]) and not _may_stand(text, start, end, rules):
            raise LinkRefused(shown(text[start:].split()[0]))


def _may_stand(text: str, start: int, end: int, rules: LinkRules) -> bool:
    """Whether a text may hold the link that data has a part in, and that leads to `start:end`."""
    if "//" in text[start:end]:
        return _listed(text[start:].split()[0].rstrip(_AFTER_A_LINK), rules)
    return text[start:end].lower() in rules.hosts


def _links(text: str) -> Iterator[tuple[int, int]]:
    """Where the part of each link stands that decides where it leads; none within another."""
    patterns = (_URL, _DANGEROUS, _NO_SCHEME, _bare_host())
    covered = 0
    for found in sorted(
        (found for pattern in patterns for found in pattern.finditer(text)),
        key=lambda found: (found.start(), -found.end()),
    ):
        if found.start() < covered:
            continue
        yield found.start(), found.start() + len(found[0].rstrip(_AFTER_A_LINK))
        covered = found.end()
        if "//" in found[0]:
            # Its path and its query may hold what looks like another.
            rest = _PATH.match(text, covered)
            covered = rest.end() if rest else covered


@cache
def _bare_host() -> re.Pattern[str]:
    """A host without a scheme: `www.`, a usual top-level domain, or a path behind it.

    Not the part of an e-mail address behind its @. Country codes count in lower case only, for
    "Thanks.It" is two words.
    """
    countries = "|".join(country.alpha_2.lower() for country in pycountry.countries)
    return re.compile(
        r"(?<![\w@.%/-])(?:"
        r"(?i:www\.[^\s/?#]+)"
        rf"|(?:[\w-]+[.\u3002\uff0e\uff61])+(?:(?i:{_TOP_LEVEL})|eu|uk|{countries})"
        r"(?![\w@-]|\.\w)"
        r"|(?:[\w-]+\.)+[^\W\d]{2,}(?=/)"
        r")"
    )


def _listed(link: str, rules: LinkRules) -> bool:
    """Whether a link that data has a part in may be sent."""
    if _CONTROL.search(link):
        return False
    if rules.loopback and LOOPBACK.match(link):
        return True
    found = _HTTPS.match(link)
    return (
        found is not None
        and found["host"].lower() in rules.hosts
        and found["port"] in (None, ":443")
    )


def _unmarked(marked: str, *, html: bool = False) -> tuple[str, list[bool]]:
    """The text without marks, and of each character whether it came from data."""
    pieces: list[str] = []
    data: list[bool] = []
    inside = False
    for piece in re.split(f"([{OPEN}{CLOSE}])", marked):
        if piece in (OPEN, CLOSE) and piece:
            inside = piece == OPEN
            continue
        plain = unescape(piece) if html else piece
        pieces.append(plain)
        data += [inside] * len(plain)
    return "".join(pieces), data


def shown(link: str) -> str:
    """The scheme and the host of a link, in characters that are safe to show anywhere."""
    origin = _ORIGIN.match(without_marks(link))
    text = origin[0].strip() if origin else ""
    return re.sub(r"[^A-Za-z0-9.:/@_-]", "?", text)[:80] or "nowhere"
