"""Parse and render the Liquid of templates.

Standard Liquid by python-liquid, with these differences:
- A missing value (or None) can be tested and replaced with `default`; printing it or computing with
  it is an error. It equals `blank`. Filters return it unchanged, so `default` may come before or
  after them.
- Objects have only the properties of the data, no `size`, `first` or `last`.
- Printed data is marked, so that links from data can be checked.
- Nothing reads the clock: there is no `now`, and `date` needs whole seconds (shown in UTC) or ISO
  8601.
- There is no `safe` filter, so customer data is always escaped in HTML.
- There is no `include` or `render`: a template has no other files.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from liquid import BoundTemplate, Environment
from liquid.exceptions import LiquidError, UndefinedError

from channels.templates.dialect import HTML, OF_LISTS, RENDERING, TEXT, Misused, Rendering, adapt
from channels.templates.link_check import LinkRefused, check_text
from config.errors import SegueError


class TemplateError(SegueError):
    """An invalid template, found when it is loaded. The text names file, line and fix."""

    def __init__(self, file: str, line: int | None, problem: str) -> None:
        super().__init__(f"{file}, line {line}: {problem}" if line else f"{file}: {problem}")


class RenderError(SegueError):
    """A message can't be rendered because of its data."""


class MissingData(RenderError):
    """The template prints `field`, which has no value for this profile."""

    def __init__(self, file: str, field: str) -> None:
        super().__init__(
            f"{file} prints {field}, which has no value; add a default: "
            f"{{{{ {field} | default: '…' }}}}"
        )
        self.field = field


class BadLink(RenderError):
    """The message would contain a link that is not allowed. to: its scheme and host."""

    def __init__(self, file: str, to: str) -> None:
        super().__init__(
            f"{file} links to {to}; links need https, and a host from data must be in "
            "SEGUE_LINK_HOSTS"
        )
        self.to = to


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Parsed Liquid. html: whether data is escaped."""

    file: str
    variables: frozenset[str]
    liquid: BoundTemplate
    html: bool

    def render(self, context: Mapping[str, Any], rendering: Rendering) -> str:
        """The rendered text. Raises MissingData, BadLink or RenderError."""
        try:
            marked = self.liquid.render(context, **{RENDERING: rendering})
            return check_text(marked, rendering.rules, html=self.html)
        except UndefinedError as error:
            raise MissingData(self.file, str(error.message)) from error
        except LinkRefused as error:
            raise BadLink(self.file, str(error)) from error
        except LiquidError as error:
            raise RenderError(f"{self.file}: {error.message}") from error
        except Exception as error:
            # Unusual data (an infinite number, deep nesting) makes filters raise many types. The
            # other messages of the batch must not fail with it.
            raise RenderError(f"{self.file}: {type(error).__name__}: {error}") from error


def parse(source: str, file: str, first_line: int = 1, *, html: bool = False) -> Script:
    """Parse Liquid that begins at `first_line` of `file`. Raises TemplateError."""
    env = HTML if html else TEXT
    try:
        liquid = env.from_string(source)
        analysis = liquid.analyze(include_partials=False)
    except LiquidError as error:
        index = error.token.start_index if error.token else -1
        line = _line(source, index) if index >= 0 else _first_wrong_line(source, env)
        raise TemplateError(file, first_line - 1 + line, f"Liquid: {error.message}") from error
    for name, spans in analysis.filters.items():
        if name not in env.filters:
            line = first_line - 1 + _line(source, spans[0].index)
            raise TemplateError(file, line, f"there is no Liquid filter {name!r}; correct the name")
    found = (variable for each in analysis.globals.values() for variable in each)
    variables = frozenset(_dotted(variable.segments) for variable in found)
    try:
        adapt(liquid)
    except Misused as misused:
        line = first_line - 1 + _line(source, misused.index)
        raise TemplateError(file, line, f"Liquid: {misused}") from misused
    return Script(file=file, variables=variables, liquid=liquid, html=html)


_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


class HiddenTexts:
    """Replaces texts with placeholder words, which HTML and MJML tools do not change.

    source: the text that gets the words; the words are chosen so that it has none of them.
    """

    def __init__(self, source: str, mark: str) -> None:
        while mark in source:
            mark += "x"
        self._mark = mark
        self._word = re.compile(rf"{mark}(\d+)z")
        self.tags: list[str] = []

    def hide(self, text: str) -> str:
        """Store `text`; returns its word."""
        self.tags.append(text)
        return self.word(len(self.tags) - 1)

    def word(self, number: int) -> str:
        """The word of a stored text."""
        return f"{self._mark}{number}z"

    def restore(self, text: str) -> str:
        """`text` with the stored texts in place of their words."""
        return self._word.sub(lambda word: self.tags[int(word[1])], text)


class Hidden(HiddenTexts):
    """A source whose Liquid tags are replaced with words."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "liquidtag")
        self.text = _TAG.sub(lambda tag: self.hide(tag[0]), source)

    def split(self, text: str) -> list[str]:
        """`text` split before and after each word."""
        return re.split(rf"({self._mark}\d+z)", text)

    def found(self, text: str) -> list[int]:
        """The numbers of the tags in `text`, in order, with repetitions."""
        return [int(number) for number in self._word.findall(text)]

    def is_block(self, number: int) -> bool:
        """Whether the tag is `{% … %}`, which controls, and not `{{ … }}`, which prints."""
        return self.tags[number].startswith("{%")


def _line(source: str, index: int) -> int:
    return source.count("\n", 0, index) + 1


def _first_wrong_line(source: str, env: Environment) -> int:
    """The line of an error without a position: the first line after the longest valid prefix."""
    lines = source.splitlines(keepends=True)
    for number in range(len(lines) - 1, 0, -1):
        with suppress(LiquidError):
            env.from_string("".join(lines[:number]))
            return number + 1
    return 1


def _dotted(segments: list[Any]) -> str:
    """`cart.items[0].name` -> "cart.items": the name ends before an index.

    It also ends before `size`, `first` and `last`, except directly after the first name.
    """
    path = [str(segments[0])]
    for segment in segments[1:]:
        if not isinstance(segment, str) or (len(path) > 1 and segment in OF_LISTS):
            break
        path.append(segment)
    return ".".join(path)
