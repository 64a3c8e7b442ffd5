"""Complete the HTML of a mail when its template is compiled: head, preheader, link checks.

Liquid tags are hidden while HTML tags are matched. Tags inside Outlook's conditional comments are
matched too. A link that depends on data gets a check that runs at rendering
(channels/templates/link_check.py).
"""

import re
from html import escape, unescape

from channels.templates.link_check import (
    CSS_URL,
    LinkRules,
    allowed_to_authors,
    shown,
    written_start,
)
from channels.templates.liquid import Hidden, TemplateError

_TAG = re.compile(r"""<(?P<name>[A-Za-z][\w:-]*)(?P<inside>(?:[^<>"']|"[^"]*"|'[^']*')*)>""")
_ATTRIBUTE = re.compile(
    r"""(?P<name>[^\s"'<>/=]+)(?:\s*=\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<bare>[^\s"'<>]+)))?"""
)
_STYLE = re.compile(r"(<style\b[^>]*>)(.*?)(</style)", re.IGNORECASE | re.DOTALL)
_HTML = re.compile(r"<html\b[^>]*>", re.IGNORECASE)
_LANG = re.compile(r"""\slang=["']?([^"'>]*)["']?""", re.IGNORECASE)
_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_BODY = re.compile(r"<body\b[^>]*>", re.IGNORECASE)
_OWN = re.compile(r"\{\{-?\s*links\.\w+\s*-?\}\}")
_OWN_LINK = re.compile(r"\blinks\s*\.\s*(unsubscribe|preferences)\b")
# Attributes that hold a URL (https://html.spec.whatwg.org, "Attributes"; also those of VML).
_ADDRESSES = frozenset(
    {
        "action",
        "background",
        "cite",
        "data",
        "formaction",
        "href",
        "longdesc",
        "poster",
        "src",
        "xlink:href",
    }
)
_ANYWHERE = LinkRules(loopback=True)
# Dark mode is disabled: templates set dark text, unreadable on a client's dark background.
_COLOURS = "".join(
    f'<meta name="{name}" content="light">' for name in ("color-scheme", "supported-color-schemes")
)


def complete(html: str, subject: str, preheader: str | None, file: str, source: str) -> str:
    """A complete mail: `html` with head, preheader and checks around data links.

    source: the text of the template file, to find the line of an error. Raises TemplateError.
    """
    hidden = Hidden(html)
    tags = _Tags(hidden, file, source)
    checked = _STYLE.sub(tags.sheet, _TAG.sub(tags.tag, hidden.text))
    whole = _with_head(checked, subject)
    if preheader:
        whole = _with_preheader(whole, preheader)
    return hidden.restore(whole)


class _Tags:
    """Rewrites the tags of one mail."""

    def __init__(self, hidden: Hidden, file: str, source: str) -> None:
        self._hidden = hidden
        self._file = file
        self._source = source

    def tag(self, tag: re.Match[str]) -> str:
        """The tag with checks in its attributes."""
        name = tag["name"]
        inside = _ATTRIBUTE.sub(lambda found: self._attribute(name, found), tag["inside"])
        own = any(_OWN_LINK.search(printed) for printed in self._printed(inside))
        if name.lower() == "a" and own and "clicktracking" not in inside.lower():
            # SendGrid does not wrap such a link (its documentation, "Click Tracking").
            inside = f' clicktracking="off"{inside}'
        return f"<{name}{inside}>"

    def sheet(self, style: re.Match[str]) -> str:
        """The style sheet, with a check around it if it prints data."""
        start, css, end = style.groups()
        self._check_css(css)
        return f"{start}{checked('style', css)}{end}" if self._printed(css) else style[0]

    def _attribute(self, tag: str, found: re.Match[str]) -> str:
        name = found["name"].lower()
        quoted = found["quoted"]
        value = quoted[1:-1] if quoted else found["bare"] or ""
        if not self._hidden.found(found[0]):
            if name == "style":
                self._check_css(value)
            if name not in _ADDRESSES:
                return found[0]
            self._check_written(tag, unescape(value))
            # Loopback links are allowed only in the sandbox, which is known at rendering.
            here = not allowed_to_authors(unescape(value), LinkRules())
            return f'{found["name"]}="{checked("link", value)}"' if here else found[0]
        if not self._printed(found[0]) and name not in _ADDRESSES:
            return found[0]
        if not quoted or name.startswith("on") or self._hidden.found(name):
            written = self._hidden.restore(found[0])
            raise self._mistake(
                written, f"<{tag} {written}>: put the Liquid into a quoted attribute value"
            )
        if name == "style":
            self._check_css(value)
            value = checked("style", value)
        elif name in _ADDRESSES and not self._is_authors(tag, value):
            value = checked("link", value)
        return f"{found['name']}={quoted[0]}{value}{quoted[0]}"

    def _check_css(self, css: str) -> None:
        for found in CSS_URL.finditer(unescape(css)):
            if not self._hidden.found(found["url"]):
                self._check_written("style", found["url"])

    def _check_written(self, tag: str, link: str) -> None:
        if not allowed_to_authors(link, _ANYWHERE):
            raise self._mistake(link, f"<{tag}> links to {shown(link)}; a link needs https")

    def _is_authors(self, tag: str, link: str) -> bool:
        """Whether scheme and host of a link are written by the author or are one of `links`."""
        first = self._hidden.found(link)[0]
        if link.startswith(self._hidden.word(first)):
            return _OWN.fullmatch(self._hidden.tags[first]) is not None
        start = written_start(unescape(link))
        if start is None or self._hidden.found(start):
            return False
        self._check_written(tag, start)
        return allowed_to_authors(start, LinkRules())

    def _printed(self, text: str) -> list[str]:
        """The Liquid tags in a text that print a value."""
        numbers = self._hidden.found(text)
        return [self._hidden.tags[one] for one in numbers if not self._hidden.is_block(one)]

    def _mistake(self, written: str, problem: str) -> TemplateError:
        at = self._source.find(written)
        line = self._source.count("\n", 0, at) + 1 if at >= 0 else None
        return TemplateError(self._file, line, problem)


def checked(kind: str, text: str) -> str:
    """Liquid with a check block around it. kind: `link`, `app_link` or `style`."""
    return f"{{% segue_{kind} %}}{text}{{% endsegue_{kind} %}}"


def _with_head(html: str, subject: str) -> str:
    """Add language, title and color scheme if the author set none."""
    if not _HTML.search(html):
        body = html if _BODY.search(html) else f"<body>{html}</body>"
        html = f'<!doctype html><html><head><meta charset="utf-8"></head>{body}</html>'
    html = _with_language(html)
    if not _HEAD.search(html):
        html = _HTML.sub(lambda tag: f"{tag[0]}<head></head>", html, count=1)
    title = f"<title>{_escaped(subject)}</title>"
    written = _TITLE.search(html)
    if written is None:
        html = _HEAD.sub(lambda tag: f"{tag[0]}{title}", html, count=1)
    elif not written[1].strip():
        html = _TITLE.sub(lambda _: title, html, count=1)
    if "color-scheme" not in html:
        html = _HEAD.sub(lambda tag: f"{tag[0]}{_COLOURS}", html, count=1)
    return html


def _with_language(html: str) -> str:
    """Set `lang` to the language of the message, unless the author set it."""
    lang = 'lang="{% segue_language %}"'
    # MJML writes lang="und" if no language is set.
    html = html.replace('lang="und"', lang)
    tag = _HTML.search(html)
    if tag is None or not (written := _LANG.search(tag[0])):
        return _HTML.sub(lambda tag: f"{tag[0][:5]} {lang}{tag[0][5:]}", html, count=1)
    if written[1]:
        return html
    return html.replace(tag[0], _LANG.sub(f" {lang}", tag[0]), 1)


def _escaped(liquid: str) -> str:
    """Liquid with its literal text escaped for HTML; data is escaped at rendering."""
    hidden = Hidden(liquid)
    return hidden.restore(escape(hidden.text, quote=False))


def _with_preheader(html: str, preheader: str) -> str:
    """Insert the preheader as hidden first text; inboxes show it next to the subject."""
    text = f'<div style="display:none;max-height:0;overflow:hidden">{preheader}</div>'
    return _BODY.sub(lambda tag: f"{tag[0]}{text}", html, count=1)
