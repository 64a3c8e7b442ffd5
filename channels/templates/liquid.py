"""The Liquid that templates are written in.

Standard Liquid by python-liquid, with these rules of ours:
- a missing value (or None) can be tested and given a `default`, but is never printed or computed
  with; it equals `blank`; filters return it unchanged, so a default may stand before or after them;
- a property is one that the data has: an object has no `size`, `first` or `last` of its own;
- what it prints of data is marked, so that links made of data can be checked;
- nothing reads the clock: no `now`, and `date` takes whole seconds (shown in UTC) or ISO 8601;
- no `safe` filter, so that customer data is escaped in HTML whatever a template does;
- no `include` and `render`: a template is complete in itself.
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
    """A template that can't be used, found when it is loaded. Names file, line and mend."""

    def __init__(self, file: str, line: int | None, problem: str) -> None:
        super().__init__(f"{file}, line {line}: {problem}" if line else f"{file}: {problem}")


class RenderError(SegueError):
    """One message that can't be rendered, for reasons in its data."""


class MissingData(RenderError):
    """The template would print `field`, and this person has no such value."""

    def __init__(self, file: str, field: str) -> None:
        super().__init__(
            f"{file} needs {field}, which is missing; give it a default: "
            f"{{{{ {field} | default: '…' }}}}"
        )
        self.field = field


class BadLink(RenderError):
    """The message would contain a link that is not allowed; `to` is where it leads."""

    def __init__(self, file: str, to: str) -> None:
        super().__init__(
            f"{file} would link to {to}; a link needs https, and a host that comes from data must "
            "be in SEGUE_LINK_HOSTS"
        )
        self.to = to


@dataclass(frozen=True, slots=True)
class Script:
    """A piece of Liquid, parsed. `html`: whether data is escaped in it."""

    file: str
    variables: frozenset[str]
    liquid: BoundTemplate
    html: bool

    def render(self, context: Mapping[str, Any], rendering: Rendering) -> str:
        """Raises MissingData, BadLink or RenderError."""
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
            # Odd data (an infinite number, an endless nesting) breaks filters in many ways, and
            # one person's odd data must not stop the others of a batch.
            raise RenderError(f"{self.file}: {type(error).__name__}: {error}") from error


def parse(source: str, file: str, first_line: int = 1, *, html: bool = False) -> Script:
    """Parse Liquid; `first_line` is where `source` begins in `file`. Raises TemplateError."""
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
            raise TemplateError(file, line, f"there is no Liquid filter {name!r}; mend its name")
    found = (variable for each in analysis.globals.values() for variable in each)
    variables = frozenset(_dotted(variable.segments) for variable in found)
    try:
        adapt(liquid)
    except Misused as misused:
        line = first_line - 1 + _line(source, misused.index)
        raise TemplateError(file, line, f"Liquid: {misused}") from misused
    return Script(file, variables, liquid, html)


_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


class HiddenTexts:
    """Texts hidden behind plain words, which HTML and MJML tools leave alone.

    source: where the words go; none of them is in it before.
    """

    def __init__(self, source: str, mark: str) -> None:
        while mark in source:
            mark += "x"
        self._mark = mark
        self._word = re.compile(rf"{mark}(\d+)z")
        self.tags: list[str] = []

    def hide(self, text: str) -> str:
        """The word that stands for `text`."""
        self.tags.append(text)
        return self.word(len(self.tags) - 1)

    def word(self, number: int) -> str:
        """What stands for the text of that number."""
        return f"{self._mark}{number}z"

    def restore(self, text: str) -> str:
        """`text` with the hidden texts back."""
        return self._word.sub(lambda word: self.tags[int(word[1])], text)


class Hidden(HiddenTexts):
    """A source whose Liquid tags are hidden behind words."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "liquidtag")
        self.text = _TAG.sub(lambda tag: self.hide(tag[0]), source)

    def split(self, text: str) -> list[str]:
        """`text` cut before and after every word."""
        return re.split(rf"({self._mark}\d+z)", text)

    def found(self, text: str) -> list[int]:
        """The numbers of the tags in `text`, in order, each as often as it is there."""
        return [int(number) for number in self._word.findall(text)]

    def is_block(self, number: int) -> bool:
        """Whether the tag steers (`{% … %}`) rather than prints."""
        return self.tags[number].startswith("{%")


def _line(source: str, index: int) -> int:
    return source.count("\n", 0, index) + 1


def _first_wrong_line(source: str, env: Environment) -> int:
    """Where to look when the parser does not say: the line after which nothing parses."""
    lines = source.splitlines(keepends=True)
    for number in range(len(lines) - 1, 0, -1):
        with suppress(LiquidError):
            env.from_string("".join(lines[:number]))
            return number + 1
    return 1


def _dotted(segments: list[Any]) -> str:
    """`cart.items[0].name` -> "cart.items": what follows belongs to the value, not to its name.

    So do the `size`, `first` and `last` of a list; of an object they are names like others.
    """
    path = [str(segments[0])]
    for segment in segments[1:]:
        if not isinstance(segment, str) or (len(path) > 1 and segment in OF_LISTS):
            break
        path.append(segment)
    return ".".join(path)
