"""Parse MJML source into tags with line numbers, and write it back for the renderer.

The structure follows documentation.mjml.io, "Components". The content of an ending tag (`mj-text`,
`mj-button` ...) is HTML and is not parsed.
"""

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from html.parser import HTMLParser

from typing_extensions import override

from channels.templates.plain_text import VOID

_CONTENT = frozenset(
    {
        "mj-accordion",
        "mj-button",
        "mj-carousel",
        "mj-divider",
        "mj-image",
        "mj-navbar",
        "mj-raw",
        "mj-social",
        "mj-spacer",
        "mj-table",
        "mj-text",
    }
)
# MJML's reference implementation only warns if these are nested wrongly, and renders them.
_LAYOUT = {"mj-wrapper", "mj-section", "mj-group", "mj-column", "mj-hero"}
# The tags allowed in each tag.
_CHILDREN: dict[str, frozenset[str]] = {
    "mjml": frozenset({"mj-head", "mj-body", "mj-raw"}),
    "mj-head": frozenset(
        {
            "mj-attributes",
            "mj-breakpoint",
            "mj-font",
            "mj-preview",
            "mj-raw",
            "mj-style",
            "mj-title",
        }
    ),
    **dict.fromkeys(("mj-body", *_LAYOUT), _CONTENT | _LAYOUT),
    "mj-accordion": frozenset({"mj-accordion-element", "mj-raw"}),
    "mj-accordion-element": frozenset({"mj-accordion-title", "mj-accordion-text", "mj-raw"}),
    "mj-carousel": frozenset({"mj-carousel-image"}),
    "mj-navbar": frozenset({"mj-navbar-link", "mj-raw"}),
    "mj-social": frozenset({"mj-social-element", "mj-raw"}),
}
_ENDING = frozenset(
    {
        "mj-accordion-text",
        "mj-accordion-title",
        "mj-button",
        "mj-navbar-link",
        "mj-preview",
        "mj-raw",
        "mj-social-element",
        "mj-style",
        "mj-table",
        "mj-text",
        "mj-title",
    }
)
# Ending tags whose content need not be balanced HTML.
_ANY_CONTENT = frozenset({"mj-preview", "mj-raw", "mj-style", "mj-title"})
_TAGS = frozenset({"mj-all", "mj-class"}).union(_CHILDREN, *_CHILDREN.values())
COMMENT = "!--"

_TOKEN = re.compile(
    r"<!--(?P<comment>.*?)-->"
    r"|</(?P<end>[\w-]+)\s*>"
    r"""|<(?P<start>[A-Za-z][\w-]*)(?P<attributes>(?:[^<>"']|"[^"]*"|'[^']*')*)>""",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""\s*(?P<name>[\w:.-]+)\s*=\s*(?:"(?P<v1>[^"]*)"|'(?P<v2>[^']*)')""")
_SPACE = re.compile(r"[ \t\r\n]+")
_STRAY = re.compile(r"<(?![A-Za-z/!?])")


class Mistake(Exception):
    """An error in the source. line: counted from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass(slots=True)
class Tag:
    """One MJML tag. Ending tags and comments have `content`, other tags have children."""

    name: str
    _: KW_ONLY
    line: int
    attributes: dict[str, str]
    children: list["Tag"] = field(default_factory=list)
    content: str | None = None

    def walk(self) -> Iterator["Tag"]:
        """The tag and all tags inside it, in the order of the source."""
        yield self
        for child in self.children:
            yield from child.walk()

    def write(self) -> str:
        """The tag as MJML."""
        if self.name == COMMENT:
            return f"<!--{self.content}-->"
        attributes = "".join(f' {name}="{value}"' for name, value in self.attributes.items())
        inside = self.content or "".join(child.write() for child in self.children)
        return f"<{self.name}{attributes}>{inside}</{self.name}>"


def read(source: str) -> Tag:
    """The `mjml` tag of a source. Raises Mistake."""
    root = Tag("", line=1, attributes={})
    open_: list[Tag] = [root]
    at = 0
    for token in _tokens(source):
        line = _line(source, token.start())
        _check_text(source, at, token.start(), open_[-1])
        at = token.end()
        parent = open_[-1]
        if token["comment"] is not None:
            parent.children.append(Tag(COMMENT, line=line, attributes={}, content=token["comment"]))
        elif token["end"]:
            if len(open_) == 1:
                raise Mistake(line, f"</{token['end']}> closes nothing")
            if parent.name != token["end"]:
                raise Mistake(parent.line, f"<{parent.name}> is not closed before {token[0]}")
            open_.pop()
        else:
            tag, closed = _tag(token, line)
            parent.children.append(tag)
            if not closed:
                open_.append(tag)
                if tag.name in _ENDING:
                    at = _content_end(source, at, tag)
                    tag.content = source[token.end() : at].strip()
    if len(open_) > 1:
        raise Mistake(open_[-1].line, f"<{open_[-1].name}> is not closed")
    _check_text(source, at, len(source), root)
    return _checked(root)


def _tokens(source: str) -> Iterator[re.Match[str]]:
    """Tags and comments outside the content of ending tags."""
    at = 0
    while token := _TOKEN.search(source, at):
        yield token
        at = token.end()
        if token["start"] in _ENDING and not token["attributes"].endswith("/"):
            close = source.find(f"</{token['start']}", at)
            at = len(source) if close < 0 else close


def _content_end(source: str, at: int, tag: Tag) -> int:
    close = source.find(f"</{tag.name}", at)
    if close < 0:
        raise Mistake(tag.line, f"<{tag.name}> is not closed")
    if tag.name not in _ANY_CONTENT:
        _check_html(source[at:close], tag, _line(source, at))
    return close


def _tag(token: re.Match[str], line: int) -> tuple[Tag, bool]:
    """The tag of a token, and whether it closes itself."""
    name, text = token["start"], token["attributes"]
    closed = text.endswith("/")
    text = text.removesuffix("/")
    attributes: dict[str, str] = {}
    at = 0
    while found := _ATTRIBUTE.match(text, at):
        at = found.end()
        if found["name"] in attributes:
            raise Mistake(line, f"<{name}> has {found['name']} twice; keep one")
        value = found["v1"] if found["v1"] is not None else found["v2"]
        attributes[found["name"]] = _SPACE.sub(" ", value).strip(" ")
    if rest := text[at:].strip():
        raise Mistake(
            line, f'<{name}> has {rest[:40]!r}, which is not an attribute; write name="value"'
        )
    return Tag(name, line=line, attributes=attributes), closed


def _check_text(source: str, start: int, end: int, parent: Tag) -> None:
    """Record text between tags as a child without a name. Raises Mistake for a broken tag."""
    between = source[start:end]
    if stray := _STRAY.search(between):
        line = _line(source, start + stray.start())
        raise Mistake(line, "a < begins no tag; write it as &lt;")
    if (cut := between.find("<")) >= 0:
        line = _line(source, start + cut)
        raise Mistake(line, "the tag is incomplete; check for a missing quote or >")
    if (text := between.strip()) and parent.name != "mj-attributes":
        line = _line(source, start + between.index(text[0]))
        parent.children.append(Tag("", line=line, attributes={}, content=_SPACE.sub(" ", text)))


def _checked(root: Tag) -> Tag:
    """The `mjml` tag. Raises Mistake for an unknown or misplaced tag."""
    for tag in root.walk():
        if tag.name.startswith("mj-") and tag.name not in _TAGS:
            raise Mistake(tag.line, _unknown(tag.name))
    found = [child for child in root.children if child.name != COMMENT]
    if len(found) != 1 or found[0].name != "mjml":
        wrong = next((child for child in found if child.name != "mjml"), root)
        shown = f"<{wrong.name}>" if wrong.name else (wrong.content or "nothing")[:40]
        raise Mistake(
            wrong.line,
            f"unexpected {shown}; the source must begin with <mjml> and end with </mjml>",
        )
    _check_children(found[0])
    return found[0]


def _check_children(tag: Tag) -> None:
    allowed = _CHILDREN.get(tag.name, frozenset())
    for child in tag.children:
        if child.name == "":
            raise Mistake(
                child.line,
                f"{(child.content or '')[:40]!r} is directly in <{tag.name}>; put it into an "
                "<mj-text> or <mj-raw>",
            )
        if child.name not in allowed and child.name != COMMENT:
            here = ", ".join(sorted(allowed)) or "nothing"
            raise Mistake(
                child.line,
                f"<{child.name}> is not allowed in <{tag.name}>; allowed are {here}",
            )
        if child.name != "mj-attributes":
            _check_children(child)


def _unknown(name: str) -> str:
    if name == "mj-include":
        return "<mj-include> is not supported: a template can't include other files"
    if name in ("mj-html-attributes", "mj-selector", "mj-html-attribute"):
        return f"<{name}> is not supported; put the attribute into the HTML of an <mj-text>"
    return f"there is no MJML tag <{name}>; correct the name"


class _Nesting(HTMLParser):
    """Finds the HTML tag that is not closed, with its line."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, int]] = []
        self.problem: tuple[str, int] | None = None

    @override
    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append((tag, self.getpos()[0]))

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """<br /> is closed already."""

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or self.problem:
            return
        if not self.open:
            self.problem = f"</{tag}> closes nothing", self.getpos()[0]
        elif self.open[-1][0] == tag:
            self.open.pop()
        else:
            opened, line = self.open[-1]
            self.problem = f"<{opened}> is not closed before </{tag}>", line


def _check_html(html: str, tag: Tag, first_line: int) -> None:
    nesting = _Nesting()
    nesting.feed(html)
    nesting.close()
    problem = nesting.problem
    if problem is None and nesting.open:
        opened, line = nesting.open[-1]
        problem = f"<{opened}> is not closed", line
    if stray := _STRAY.search(html):
        problem = "a < begins no tag; write it as &lt;", html.count("\n", 0, stray.start()) + 1
    if problem:
        raise Mistake(first_line - 1 + problem[1], f"{problem[0]}, in <{tag.name}>")


def _line(source: str, at: int) -> int:
    return source.count("\n", 0, at) + 1
