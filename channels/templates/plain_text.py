"""Convert HTML to the plain text part of a mail; Liquid tags keep their places.

It runs once, when a template is compiled; the result is a template too.
"""

import re
from html.parser import HTMLParser

from channels.templates.liquid import Hidden

_SPACE = re.compile(r"\s+")
_UNSEEN = frozenset({"head", "script", "style", "template", "title"})
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_PARAGRAPH = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote"})
_LINE = frozenset({"div", "section", "header", "footer", "article", "tr", "li"})
_ENDS = re.compile(r"\{%-?\s*(end|else|elsif|when)")
# The elements of HTML that have no closing tag.
VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"})


def to_text(html: str) -> str:
    """Paragraphs and lines as rendered; links as `text (url)`, images as their alt text."""
    hidden = Hidden(html)
    reader = _Reader(hidden)
    reader.feed(hidden.text)
    reader.close()
    return hidden.restore("".join(reader.out)).strip()


class _Reader(HTMLParser):
    def __init__(self, hidden: Hidden) -> None:
        super().__init__(convert_charrefs=True)
        self.hidden = hidden
        self.out: list[str] = []
        self.breaks = 0  # line ends to write before the next word
        self.space = False  # whether to write a space before the next word
        self.unseen: list[str] = []  # the open invisible element, and elements of its name in it
        self.links: list[
            tuple[str, int]
        ] = []  # href of open links, and the start of their text in `out`

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if self.unseen:
            if tag == self.unseen[0]:
                self.unseen.append(tag)
        elif tag in _UNSEEN or (
            tag not in VOID and _HIDDEN_STYLE.search(values.get("style") or "")
        ):
            self.unseen.append(tag)
        elif tag == "a":
            self.links.append((values.get("href") or "", len(self.out)))
        elif tag == "img":
            self._write(values.get("alt") or "")
        elif tag == "br":
            self._break(self.breaks + 1)
        elif tag == "td":
            self.space = True
        else:
            self._break_around(tag)
            if tag == "li":
                self._write("- ")

    def handle_endtag(self, tag: str) -> None:
        if self.unseen:
            if tag == self.unseen[0]:
                self.unseen.pop()
        elif tag == "a" and self.links:
            url, start = self.links.pop()
            shown = self.hidden.restore("".join(self.out[start:])).strip()
            if (
                not url
                or self.hidden.restore(url) == shown
                or url.startswith(("#", "mailto:", "tel:"))
            ):
                return
            self._write(f" ({url})" if shown else url)
        else:
            self._break_around(tag)

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self._write(data)

    def handle_comment(self, data: str) -> None:
        # A comment for Outlook may contain the start or end of a loop.
        for number in self.hidden.found(data):
            if self.hidden.is_block(number) and not self.unseen:
                self._write_block_tag(self.hidden.word(number))

    def _break_around(self, tag: str) -> None:
        self._break(2 if tag in _PARAGRAPH else 1 if tag in _LINE else 0)

    def _break(self, lines: int) -> None:
        self.breaks = max(self.breaks, min(lines, 2))

    def _write(self, data: str) -> None:
        for piece in self.hidden.split(data):
            number = self.hidden.found(piece)
            if number and self.hidden.is_block(number[0]):
                self._write_block_tag(piece)
                continue
            text = _SPACE.sub(" ", piece)
            self.space |= text.startswith(" ")
            if words := text.strip():
                self._write_pending()
                self.out.append(words)
            self.space |= text.endswith(" ")

    def _write_block_tag(self, word: str) -> None:
        # Pending line ends go before the start of a block and after its end; inside, each pass of
        # a loop would repeat them.
        if not self.breaks or not _ENDS.match(self.hidden.restore(word)):
            self._write_pending()
        self.out.append(word)

    def _write_pending(self) -> None:
        if self.breaks:
            self.out.append("\n" * self.breaks)
        elif self.space:
            self.out.append(" ")
        self.breaks, self.space = 0, False
