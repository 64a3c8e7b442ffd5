"""The Liquid that templates are written in.

Standard Liquid by python-liquid, with these rules of ours:
- what is missing (or None) can be tested and given a `default`, but never printed or computed with;
- nothing reads the clock: no `now`, and `date` takes whole seconds (shown in UTC) or ISO 8601;
- no `safe` filter, so that customer data is escaped in HTML whatever a template does;
- no `include` and `render`: a template is complete in itself.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from liquid import BoundTemplate, Environment, FalsyStrictUndefined, RenderContext, Token
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.echo_tag import EchoNode, EchoTag
from liquid.exceptions import FilterArgumentError, LiquidError, UndefinedError
from liquid.stringify import to_liquid_string
from liquid.undefined import UNDEFINED
from liquid.utils import ReadOnlyChainMap

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


@dataclass(frozen=True, slots=True)
class Script:
    """A piece of Liquid, parsed."""

    file: str
    variables: frozenset[str]
    liquid: BoundTemplate

    def render(self, context: Mapping[str, Any]) -> str:
        """Raises MissingData or RenderError."""
        try:
            return self.liquid.render(context)
        except UndefinedError as error:
            raise MissingData(self.file, str(error.message)) from error
        except LiquidError as error:
            raise RenderError(f"{self.file}: {error.message}") from error
        except Exception as error:
            # Odd data (an infinite number, an endless nesting) breaks filters in many ways, and
            # one person's odd data must not stop the others of a batch.
            raise RenderError(f"{self.file}: {type(error).__name__}: {error}") from error


def parse(source: str, file: str, first_line: int = 1, *, html: bool = False) -> Script:
    """Parse Liquid; `first_line` is where `source` begins in `file`. Raises TemplateError."""
    env = _HTML if html else _TEXT
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
    return Script(file, frozenset(_dotted(variable.segments) for variable in found), liquid)


_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


class Words:
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


class Hidden(Words):
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
    """`cart.items[0].name` -> "cart.items": what follows belongs to the value, not to its name."""
    path = [str(segments[0])]
    for segment in segments[1:]:
        if not isinstance(segment, str) or segment in ("size", "first", "last"):
            break
        path.append(segment)
    return ".".join(path)


class _Context(RenderContext):
    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Without Liquid's own `now` and `today`.
        self.scope = ReadOnlyChainMap(self.locals, self.globals, self.counters)

    def get(
        self, path: list[object], *, token: Token | None, default: object = UNDEFINED
    ) -> object:
        if default is not UNDEFINED:
            return super().get(path, token=token, default=default)
        found = super().get(path, token=token, default=None)
        if found is None:
            name = ".".join(map(str, path))
            return self.env.undefined(name, hint=name, token=token)
        return found

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        function = super().filter(name, token)
        if name == "default":
            return function

        def strict(left: object, *args: object, **kwargs: object) -> object:
            # Many filters take a missing value for 0 or for nothing, and print that.
            for value in (left, *args, *kwargs.values()):
                if isinstance(value, FalsyStrictUndefined):
                    raise UndefinedError(value.msg, token=token)
            if left is None or (name == "join" and isinstance(left, list) and None in left):
                raise UndefinedError(f"… | {name}", token=token)
            return function(left, *args, **kwargs)

        return strict


class _Template(BoundTemplate):
    context_class = _Context


class _OutputNode(OutputNode):
    __slots__ = ()

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        value = self.expression.evaluate(context)
        if value is None:
            raise UndefinedError(str(self.expression), token=self.token)
        return buffer.write(to_liquid_string(value, context.autoescape))


class _EchoNode(_OutputNode, EchoNode):
    pass


class _Output(Output):
    node_class = _OutputNode


class _EchoTag(EchoTag):
    node_class = _EchoNode


def _date(value: object, form: object) -> str:
    """`value` by strftime's `form`; whole seconds are shown in UTC, ISO 8601 as it is written."""
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC).strftime(str(form))
        return datetime.fromisoformat(str(value)).strftime(str(form))
    except (ValueError, OverflowError, OSError):
        raise FilterArgumentError(
            "date takes whole seconds or ISO 8601, and a format such as '%d %B'", token=None
        ) from None


class _Environment(Environment):
    template_class = _Template
    # What no template needs and a slip can reach: loops in loops, texts that double.
    loop_iteration_limit = 10_000
    local_namespace_limit = 1_000_000

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        super().setup_tags_and_filters(extra=extra)
        self.add_tag(_Output)
        self.add_tag(_EchoTag)
        self.add_filter("date", _date)
        del self.filters["safe"], self.tags["include"], self.tags["render"]


_TEXT = _Environment(undefined=FalsyStrictUndefined)
_HTML = _Environment(undefined=FalsyStrictUndefined, autoescape=True)
