"""Segue's Liquid: python-liquid with own filters, tags and handling of missing values."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TextIO

from liquid import (
    BoundTemplate,
    Environment,
    FalsyStrictUndefined,
    Markup,
    Node,
    RenderContext,
    Token,
)
from liquid.ast import BlockNode
from liquid.builtin.expressions import Filter, FilteredExpression, Path, StringLiteral
from liquid.builtin.expressions.logical import EqExpression, NeExpression
from liquid.builtin.expressions.primitive import Blank
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.assign_tag import AssignNode
from liquid.builtin.tags.case_tag import MultiExpressionBlockNode
from liquid.builtin.tags.cycle_tag import CycleNode
from liquid.builtin.tags.echo_tag import EchoNode, EchoTag
from liquid.exceptions import FilterArgumentError, UndefinedError
from liquid.expression import Expression
from liquid.filter import with_context
from liquid.parser import get_parser
from liquid.stream import TokenStream
from liquid.stringify import to_liquid_string
from liquid.tag import Tag
from liquid.token import TOKEN_EOF, TOKEN_TAG
from liquid.undefined import UNDEFINED, is_undefined
from liquid.utils import ReadOnlyChainMap
from typing_extensions import override

from channels.templates.link_check import (
    CLOSE,
    OPEN,
    LinkRules,
    check_link,
    check_style,
    without_marks,
)
from channels.templates.localized import (
    currency_of,
    length_of,
    local_date,
    locale_of,
    moment,
    money,
)

# The variables that Segue provides to every template; they contain no customer data.
PROVIDED = frozenset({"brand", "links"})
# Liquid's built-in properties of lists.
OF_LISTS = frozenset({"size", "first", "last"})
# The key of `Rendering` in the context; no template can write this name.
RENDERING = "segue rendering"
# Filters that parse a time or an amount; they return the text of a `default` unchanged.
_READERS = frozenset({"date", "local_date", "money"})
# No-break spaces in Babel's output.
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " "})


class Rendering(NamedTuple):
    """Parameters of rendering a message.

    language: BCP 47 tag for money and dates. rules: the allowed links.
    """

    language: str
    rules: LinkRules


class Misused(Exception):
    """A construct that templates must not use. index: its position in the source."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(problem)
        self.index = index


class _AuthorsText(str):
    """A literal of the template: not data, and not escaped in HTML."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


class _DefaultText(_AuthorsText):
    """A literal with which `default` replaced a missing value."""

    __slots__ = ()


class Context(RenderContext):
    """A render context that looks up only properties of the data, and tracks missing values."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Without Liquid's own `now` and `today`.
        self.scope = ReadOnlyChainMap(self.locals, self.globals, self.counters)

    @property
    def rendering(self) -> Rendering:
        """The parameters of this rendering."""
        rendering = self.globals[RENDERING]
        assert isinstance(rendering, Rendering)
        return rendering

    def get(
        self, path: list[object], *, token: Token | None, default: object = UNDEFINED
    ) -> object:
        """The value at a path; undefined if it is missing or None."""
        if default is not UNDEFINED:
            return super().get(path, token=token, default=default)
        found = super().get(path, token=token, default=None)
        return self.missing(".".join(map(str, path)), token) if found is None else found

    def missing(self, name: str, token: Token | None) -> object:
        """An undefined value: it can be tested and replaced; printing it raises with `name`."""
        return self.env.undefined(name, hint=name, token=token)

    def get_item(self, obj: Any, key: Any) -> Any:
        """Raises KeyError for a property that an object does not have."""
        if isinstance(obj, dict) and key in OF_LISTS:
            return obj[key]
        return super().get_item(obj, key)

    def assign(self, key: str, val: Any) -> None:
        """Assign a variable. The output of `capture` counts as data when it is printed."""
        if isinstance(val, str) and OPEN in val:
            val = type(val)(without_marks(val))
        super().assign(key, val)

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """A filter that returns a missing value unchanged, so that a `default` may follow."""
        function = super().filter(name, token)

        def default(left: object, *args: object, **kwargs: object) -> object:
            found = function(left, *args, **kwargs)
            is_default = isinstance(found, _AuthorsText) and found is not left
            return _DefaultText(found) if is_default else found

        def strict(left: object, *args: object, **kwargs: object) -> object:
            for value in (*args, *kwargs.values()):
                if isinstance(value, FalsyStrictUndefined):
                    raise UndefinedError(value.msg, token=token)
            if is_undefined(left):
                return left
            if left is None or (name in _READERS and _is_blank(left)):
                return self.missing(f"… | {name}", token)
            if name == "join" and isinstance(left, list) and None in left:
                raise UndefinedError(f"… | {name}", token=token)
            plain = self._plain(left)
            try:
                return function(plain, *map(self._plain, args), **kwargs)
            except FilterArgumentError:
                if name in _READERS and isinstance(left, _DefaultText):
                    return left
                raise

        return default if name == "default" else strict

    def _plain(self, value: object) -> object:
        """A literal as str or Markup, as filters expect."""
        if not isinstance(value, _AuthorsText):
            return value
        return Markup(value) if self.autoescape else str(value)


def _is_blank(value: object) -> bool:
    """Liquid's `blank`: missing, false, an empty list, object or text, or only spaces."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is False or is_undefined(value) or value in ([], {})


class StrictTemplate(BoundTemplate):
    """A template that is rendered with a Context."""

    context_class = Context


# Parts of a parsed template ---------------------------------------------------------------------


class _AuthorsLiteral(StringLiteral):
    __slots__ = ()

    def evaluate(self, _: RenderContext) -> str:
        return _AuthorsText(self.value)


def _equal(left: Expression, right: Expression, context: RenderContext) -> bool | None:
    """The result of a comparison with `blank`; None if neither operand is `blank`."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Blank):
            return isinstance(other, Blank) or _is_blank(other.evaluate(context))
    return None


class _Equal(EqExpression):
    __slots__ = ()

    def evaluate(self, context: RenderContext) -> object:
        blank = _equal(self.left, self.right, context)
        return super().evaluate(context) if blank is None else blank


class _Unequal(NeExpression):
    __slots__ = ()

    def evaluate(self, context: RenderContext) -> object:
        blank = _equal(self.left, self.right, context)
        return super().evaluate(context) if blank is None else not blank


class _Print(OutputNode):
    """`{{ … }}`; marks printed data with OPEN and CLOSE."""

    __slots__ = ("trusted",)
    trusted: bool  # whether it prints only PROVIDED variables and literals

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        value = self.expression.evaluate(context)
        if value is None:
            raise UndefinedError(str(self.expression), token=self.token)
        text = to_liquid_string(value, context.autoescape)
        if self.trusted or isinstance(value, _AuthorsText):
            return buffer.write(text)
        return buffer.write(f"{OPEN}{without_marks(text)}{CLOSE}")


class _Echo(_Print, EchoNode):
    __slots__ = ()


class _PrintTag(Output):
    node_class = _Print


class _EchoTag(EchoTag):
    node_class = _Echo


class _CheckNode(Node):
    """A block whose output `check` verifies and returns."""

    __slots__ = ("block", "check")

    def __init__(
        self, token: Token, block: BlockNode, check: Callable[[str, Context], str]
    ) -> None:
        super().__init__(token)
        self.block = block
        self.check = check
        self.blank = False

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        inside = context.get_buffer(buffer)
        self.block.render(context, inside)
        assert isinstance(context, Context)
        return buffer.write(self.check(inside.getvalue(), context))

    @override
    def children(
        self, static_context: RenderContext, *, include_partials: bool = True
    ) -> Iterable[Node]:
        yield self.block


class _CheckTag(Tag):
    """A block that the compiler puts around a part of a template."""

    block = True

    def parse(self, stream: TokenStream) -> Node:
        token = stream.eat(TOKEN_TAG)
        end = f"end{self.name}"
        block = get_parser(self.env).parse_block(stream, frozenset({end, TOKEN_EOF}))
        stream.expect(TOKEN_TAG, value=end)
        return _CheckNode(token, block, self.check)

    @abstractmethod
    def check(self, marked: str, context: Context) -> str:
        """The output without marks. Raises LinkRefused."""


class _LinkTag(_CheckTag):
    name = "segue_link"

    def check(self, marked: str, context: Context) -> str:
        return check_link(marked, context.rendering.rules, html=context.autoescape)


class _AppLinkTag(_CheckTag):
    """The link of a push, which may have the scheme of an app."""

    name = "segue_app_link"

    def check(self, marked: str, context: Context) -> str:
        return check_link(marked, context.rendering.rules, own_schemes=True)


class _StyleTag(_CheckTag):
    name = "segue_style"

    def check(self, marked: str, context: Context) -> str:
        return check_style(marked, context.rendering.rules)


class _LanguageNode(Node):
    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        assert isinstance(context, Context)
        return buffer.write(context.rendering.language)


class _LanguageTag(Tag):
    """Prints the language of the message."""

    name = "segue_language"
    block = False

    def parse(self, stream: TokenStream) -> Node:
        return _LanguageNode(stream.current)


def adapt(template: BoundTemplate) -> None:
    """Apply the rules of this module to a parsed template. Raises Misused.

    python-liquid's parser cannot be given other classes for expressions, so their classes are
    replaced here.
    """
    for node in _nodes(template):
        for name in (*node.template_scope(), *node.block_scope()):
            if name in PROVIDED:
                problem = f"Segue provides {name!r} to every template; use another name"
                raise Misused(node.token.start_index, problem)
        expressions = [one for top in node.expressions() for one in _within(top)]
        paths = [one for one in expressions if isinstance(one, Path)]
        if isinstance(node, CycleNode) and paths:
            raise Misused(
                node.token.start_index, "cycle accepts only quoted texts; print values with {{ }}"
            )
        if isinstance(node, _Print):
            node.trusted = all(path.path[0] in PROVIDED for path in paths)
        if isinstance(node, AssignNode) and isinstance(node.expression, FilteredExpression):
            left = node.expression.left
            if isinstance(left, StringLiteral) and not node.expression.filters:
                left.__class__ = _AuthorsLiteral
        for one in expressions:
            if isinstance(one, EqExpression):
                one.__class__ = _Equal
            elif isinstance(one, NeExpression):
                one.__class__ = _Unequal
            elif isinstance(one, FilteredExpression):
                for used in one.filters or ():
                    _adapt_filter(used)
        if isinstance(node, MultiExpressionBlockNode):
            _adapt_when(node)


def _nodes(template: BoundTemplate) -> Iterator[Node]:
    static = Context(template)
    waiting = list(template.nodes)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children(static, include_partials=False)


def _within(expression: Expression) -> Iterator[Expression]:
    yield expression
    for child in expression.children():
        yield from _within(child)


def _adapt_filter(used: Filter) -> None:
    texts = [arg.value for arg in used.args if isinstance(arg.value, StringLiteral)]
    try:
        for text in texts:
            if used.name == "default":
                text.__class__ = _AuthorsLiteral
            elif used.name == "money":
                currency_of(text.value)
            elif used.name == "local_date":
                length_of(text.value)
    except ValueError as error:
        raise Misused(used.token.start_index, str(error)) from error


def _adapt_when(node: MultiExpressionBlockNode) -> None:
    """Make `when blank` compare as `== blank` does."""
    choice = node.expression
    choice.expressions = [
        _BlankTest(one, choice.left) if isinstance(one, Blank) else one
        for one in choice.expressions
    ]


class _BlankTest(Expression):
    """Evaluates to the compared value if that is blank, else to a value that equals nothing."""

    __slots__ = ("left",)

    def __init__(self, blank: Blank, left: Expression) -> None:
        super().__init__(blank.token)
        self.left = left

    def evaluate(self, context: RenderContext) -> object:
        left = self.left.evaluate(context)
        return left if _is_blank(left) else object()

    def children(self) -> list[Expression]:
        return [self.left]


# Filters ----------------------------------------------------------------------------------------


def _date(value: object, form: object) -> str:
    """`value` formatted with strftime's `form`; times as in `moment`."""
    try:
        return moment(value).strftime(str(form))
    except (ValueError, OverflowError, OSError):
        raise FilterArgumentError(
            "date needs whole seconds or ISO 8601, and a format such as '%d %B'", token=None
        ) from None


@with_context
def _local_date(value: object, length: object = "long", *, context: Context) -> str:
    try:
        return _spaced(local_date(value, length, locale_of(context.rendering.language)), context)
    except (ValueError, OverflowError, OSError):
        raise FilterArgumentError(
            "local_date needs whole seconds or ISO 8601, and short, medium, long or full",
            token=None,
        ) from None


@with_context
def _money(value: object, currency: object = None, *, context: Context) -> str:
    if currency is None:
        # Segment's e-commerce events have the currency as a property.
        currency = context.get(["event", "currency"], token=None)
    if isinstance(currency, FalsyStrictUndefined):
        raise UndefinedError(currency.msg, token=None)
    try:
        return _spaced(money(value, currency, locale_of(context.rendering.language)), context)
    except ValueError as error:
        raise FilterArgumentError(f"money: {error}", token=None) from None


def _spaced(text: str, context: Context) -> str:
    """Replace Babel's no-break spaces outside HTML: in an SMS one of them forces UCS-2."""
    return text if context.autoescape else text.translate(_SPACES)


class _Environment(Environment):
    template_class = StrictTemplate
    # Limits against mistakes such as nested loops over long lists.
    loop_iteration_limit = 10_000
    local_namespace_limit = 1_000_000

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        super().setup_tags_and_filters(extra=extra)
        for tag in (_PrintTag, _EchoTag, _LinkTag, _AppLinkTag, _StyleTag, _LanguageTag):
            self.add_tag(tag)
        self.add_filter("date", _date)
        self.add_filter("local_date", _local_date)
        self.add_filter("money", _money)
        del self.filters["safe"], self.tags["include"], self.tags["render"]


TEXT = _Environment(undefined=FalsyStrictUndefined)
HTML = _Environment(undefined=FalsyStrictUndefined, autoescape=True)
