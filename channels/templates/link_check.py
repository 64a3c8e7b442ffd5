"""Check links in messages: only https, and links from customer data only to allowed hosts.

Rendered text has OPEN and CLOSE around data, which shows the part of a link that the author wrote.
If any character of the scheme or host comes from data, the host must be in SEGUE_LINK_HOSTS. If the
author wrote both, any host is allowed.

Browsers accept more URLs than RFC 3986 (https://url.spec.whatwg.org, "URL parsing"): they remove
tabs and line ends and treat a backslash as a slash. A data link with any of these is refused.
"""

import re
from collections.abc import Iterator
from functools import cache
from html import unescape
from typing import NamedTuple

import pycountry

# Marks around printed customer data: noncharacters, which no text contains (Unicode, 23.7).
OPEN, CLOSE = "\ufdd0", "\ufdd1"
_MARKS = re.compile(f"[{OPEN}{CLOSE}]")

_HTTPS = re.compile(r"https://(?P<host>[a-z0-9.-]+)(?P<port>:\d+)?(?=[/?#]|\Z)", re.IGNORECASE)
LOOPBACK = re.compile(
    r"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(?=[/?#]|\Z)", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\\\s]")
_SCHEME = re.compile(r"\s*(?P<scheme>[a-z][a-z0-9+.-]*):", re.IGNORECASE)
# The part of a link that selects the host.
_ORIGIN = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?(?:[/\\]*[^/?#\\]*)", re.IGNORECASE)
# A scheme without a host, or a host with the character after it.
_WRITTEN = re.compile(
    r"\s*(?:#|(?!https?:)[a-z][a-z0-9+.-]*:|https?:[/\\]{2}[^/?#\s\\@]+[/?#])", re.IGNORECASE
)
# Schemes without a host: mail, call, text message, image inside the same mail.
_NO_HOST = frozenset({"mailto", "tel", "sms", "cid"})
# Never allowed as the scheme of an app: they run code, embed a document or are not encrypted.
_NEVER = frozenset({"javascript", "vbscript", "data", "file", "blob", "http", "ftp"})
CSS_URL = re.compile(
    r"url\(\s*(?P<quote>[\"']?)(?P<url>.*?)(?P=quote)\s*\)", re.DOTALL | re.IGNORECASE
)
_CSS_BREAKS = re.compile(r"""["'()\\<>;{}\s\x00-\x1f\x7f]|/\*""")
_CSS_PLAIN = re.compile(r"[\w .,%#+-]*")
_DATA = re.compile(f"{OPEN}(.*?){CLOSE}", re.DOTALL)

# Patterns that mail and phone clients turn into a link in plain text.
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
    """A link is not allowed. The text is its scheme and host, with safe characters only."""


class LinkRules(NamedTuple):
    """The rules for links from data.

    hosts: the allowed hosts, in lower case. loopback: whether http(s) links to this machine are
    allowed, as in the sandbox.
    """

    hosts: frozenset[str] = frozenset()
    loopback: bool = False


def without_marks(text: str) -> str:
    """The text without OPEN and CLOSE."""
    return _MARKS.sub("", text) if OPEN in text or CLOSE in text else text


def check_link(
    marked: str, rules: LinkRules, *, html: bool = False, own_schemes: bool = False
) -> str:
    """Return a link without its marks. Raises LinkRefused.

    html: whether it is HTML-escaped. own_schemes: whether the author may use the scheme of an app
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
    elif origin is not None and any(data[: max(origin.end(), 1)]):
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
        # A path or a fragment, but no other host.
        return not re.match(r"\s*[/\\]{2}", link)
    scheme = found["scheme"].lower()
    if scheme == "https":
        return re.match(r"\s*https://[^/\s]", link, re.IGNORECASE) is not None
    return scheme in _NO_HOST or (own_schemes and scheme not in _NEVER)


def written_start(link: str) -> str | None:
    """The scheme and host with which a link in a template begins; None if they are not complete.

    link: with Liquid tags hidden behind words. The result may contain such a word.
    """
    found = _WRITTEN.match(link)
    return found[0] if found else None


def check_style(marked: str, rules: LinkRules) -> str:
    """Return CSS without its marks. Raises LinkRefused for data that adds declarations or URLs."""
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
    """Return a text without its marks. Raises LinkRefused for a data link that is not allowed.

    Text without data is only searched for OPEN. Words of data without a dot, a colon or `//` are
    not parsed.
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
    """Start and end of the word around the mark at `at`; data may add spaces to it."""
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
    """Whether a text may contain a data link whose scheme and host are at `start:end`."""
    if "//" in text[start:end]:
        return _listed(text[start:].split()[0].rstrip(_AFTER_A_LINK), rules)
    return text[start:end].lower() in rules.hosts


def _links(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of the scheme and host of each link; links inside other links are skipped."""
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
            # Its path and query may contain what looks like another link.
            rest = _PATH.match(text, covered)
            covered = rest.end() if rest else covered


@cache
def _bare_host() -> re.Pattern[str]:
    """A host without a scheme: after `www.`, with a common top-level domain, or before a path.

    The host of an e-mail address does not match. Country codes match in lower case only, since
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
    """Whether a data link leads to an allowed host."""
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
    """The text without marks, and for each character whether it comes from data."""
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
    """The scheme and host of a link, in ASCII without brackets or control characters."""
    origin = _ORIGIN.match(without_marks(link))
    text = origin[0].strip() if origin else ""
    return re.sub(r"[^A-Za-z0-9.:/@_-]", "?", text)[:80] or "nowhere"
