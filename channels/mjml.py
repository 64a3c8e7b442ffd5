"""MJML to HTML, once, with the Liquid tags carried through to where they belong."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import mrml

from channels.language import Hidden, TemplateError, without_tags
from channels.plaintext import VOID

# Without the fonts that MJML would fetch from elsewhere: opening a mail should tell nobody.
_OPTIONS = mrml.RenderOptions(fonts={})
_POSITION = re.compile(r" at position (\d+):\d+")
_UNKNOWN = re.compile(r"<(mj-[\w-]+)")
_STRAY = re.compile(r"<(?![A-Za-z/!?])")
# mrml writes a quote or an unprintable character in an attribute as Rust would.
_MANGLED = re.compile(r'="[^"<>]*\\(u\{|")')


def to_html(source: str, file: str, first_line: int = 1) -> str:
    """The HTML of MJML `source`, which begins at `first_line` of `file`. Raises TemplateError."""
    _check_nesting(source, file, first_line)
    hidden = Hidden(source)
    try:
        html = mrml.to_html(hidden.text, None, _OPTIONS).content
    except OSError as error:
        place = _POSITION.search(str(error))
        before = hidden.text.encode()[: int(place[1])].decode(errors="ignore") if place else ""
        line = first_line + hidden.restore(before).count("\n") if place else None
        raise TemplateError(
            file,
            line,
            f"MJML: {_POSITION.sub('', str(error))}. It begins with <mjml>, and can't include "
            "other files",
        ) from error
    if unknown := _UNKNOWN.search(html):
        line = first_line + source[: source.find(f"<{unknown[1]}")].count("\n")
        raise TemplateError(file, line, f"there is no MJML tag <{unknown[1]}>; mend its name")
    if _MANGLED.search(html):
        raise TemplateError(
            file, None, "write a quote in an attribute as &quot; and a no-break space as &nbsp;"
        )
    _check_tags(hidden, html, file, first_line)
    return hidden.restore(html)


class _Nesting(HTMLParser):
    """Finds the tag that is not closed, with its line, which mrml does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, int]] = []
        self.problem: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  the interface's
        if tag not in VOID:
            self.open.append((tag, self.getpos()[0]))

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """<mj-image … /> is closed already."""

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


def _check_nesting(source: str, file: str, first_line: int) -> None:
    source = without_tags(source)
    nesting = _Nesting()
    nesting.feed(source)
    nesting.close()
    problem = nesting.problem
    if problem is None and nesting.open:
        tag, line = nesting.open[-1]
        problem = f"<{tag}> is not closed", line
    if stray := _STRAY.search(source):
        problem = "write a < that begins no tag as &lt;", source.count("\n", 0, stray.start()) + 1
    if problem:
        raise TemplateError(file, first_line - 1 + problem[1], f"MJML: {problem[0]}")


def _check_tags(hidden: Hidden, html: str, file: str, first_line: int) -> None:
    """Every Liquid tag must have come through, and those that steer in their order."""
    came_through = dict.fromkeys(hidden.found(html))
    blocks = [number for number in came_through if hidden.is_block(number)]
    lost = [number for number in range(len(hidden.tags)) if number not in came_through]
    moved = [number for number, next_ in pairwise(blocks) if number > next_]
    for number in lost + moved:
        before = hidden.text[: hidden.text.index(hidden.word(number))]
        raise TemplateError(
            file,
            first_line + hidden.restore(before).count("\n"),
            f"MJML would drop or move {hidden.tags[number]}; a Liquid tag may stand in a text, in "
            "the address of a link or picture, and in an <mj-raw> of its own around sections",
        )
