"""The Liquid of templates: python-liquid, with our filters, tags and meaning of what is missing."""

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

from channels.linkcheck import CLOSE, OPEN, LinkRules, check_link, check_style, without_marks
from channels.localized import currency_of, length_of, local_date, locale_of, moment, money

# What every template sees and no customer says: nothing of it is data.
OURS = frozenset({"brand", "links"})
# Liquid's own properties of a list.
OF_LISTS = frozenset({"size", "first", "last"})
# Under this name templates are given `Told`; no template can write it.
TOLD = "what is told"
# Filters that read a moment or an amount: a text that stands in for it stays as it is.
_READERS = frozenset({"date", "local_date", "money"})
# Spaces that Babel writes.
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " "})


class Told(NamedTuple):
    """What a template is told of a message beside its data.

    language: in which it is written, as a BCP 47 tag. rules: which links it may hold.
    """

    language: str
    rules: LinkRules


class Misused(Exception):
    """What a template may not do, and where in its source."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(problem)
        self.index = index


class _AuthorsText(str):
    """A text from the template itself, which is neither data nor to be escaped."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


class _StandIn(_AuthorsText):
    """What the template gives by `default`."""

    __slots__ = ()


class Context(RenderContext):
    """Finds only what the data has, and leaves missing what is missing."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Without Liquid's own `now` and `today`.
        self.scope = ReadOnlyChainMap(self.locals, self.globals, self.counters)

    @property
    def told(self) -> Told:
        """What this template is told of the message."""
        told = self.globals[TOLD]
        assert isinstance(told, Told)
        return told

    def get(
        self, path: list[object], *, token: Token | None, default: object = UNDEFINED
    ) -> object:
        """An undefined value for what is missing or None."""
        if default is not UNDEFINED:
            return super().get(path, token=token, default=default)
        found = super().get(path, token=token, default=None)
        return self.missing(".".join(map(str, path)), token) if found is None else found

    def missing(self, name: str, token: Token | None) -> object:
        """A value that can be tested and replaced, and names itself when it is printed."""
        return self.env.undefined(name, hint=name, token=token)

    def get_item(self, obj: Any, key: Any) -> Any:
        """Raises KeyError for a property that an object does not have."""
        if isinstance(obj, dict) and key in OF_LISTS:
            return obj[key]
        return super().get_item(obj, key)

    def assign(self, key: str, val: Any) -> None:
        """What `capture` caught counts as data where it is printed."""
        if isinstance(val, str) and OPEN in val:
            val = type(val)(without_marks(val))
        super().assign(key, val)

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """The filter; what is missing stays missing, so that a `default` may follow."""
        function = super().filter(name, token)

        def default(left: object, *args: object, **kwargs: object) -> object:
            found = function(left, *args, **kwargs)
            stands_in = isinstance(found, _AuthorsText) and found is not left
            return _StandIn(found) if stands_in else found

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
                if name in _READERS and isinstance(left, _StandIn):
                    return left
                raise

        return default if name == "default" else strict

    def _plain(self, value: object) -> object:
        """A text of the author's, as the filters know it."""
        if not isinstance(value, _AuthorsText):
            return value
        return Markup(value) if self.autoescape else str(value)


def _is_blank(value: object) -> bool:
    """As Liquid has it: nothing, false, an empty list or object, a text of spaces."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is False or is_undefined(value) or value in ([], {})


class Template(BoundTemplate):
    """Rendered with a Context."""

    context_class = Context


# Parts of a parsed template ---------------------------------------------------------------------


class _AuthorsLiteral(StringLiteral):
    __slots__ = ()

    def evaluate(self, _: RenderContext) -> str:
        return _AuthorsText(self.value)


def _equal(left: Expression, right: Expression, context: RenderContext) -> bool | None:
    """Whether one is `blank` and the other is blank; None if neither is."""
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
    """`{{ … }}`; marks what comes from data."""

    __slots__ = ("ours",)
    ours: bool  # whether no data has a part in it

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        value = self.expression.evaluate(context)
        if value is None:
            raise UndefinedError(str(self.expression), token=self.token)
        text = to_liquid_string(value, context.autoescape)
        if self.ours or isinstance(value, _AuthorsText):
            return buffer.write(text)
        return buffer.write(f"{OPEN}{without_marks(text)}{CLOSE}")


class _Echo(_Print, EchoNode):
    __slots__ = ()


class _PrintTag(Output):
    node_class = _Print


class _EchoTag(EchoTag):
    node_class = _Echo


class _CheckNode(Node):
    """What stands between two tags, once `check` has passed it."""

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

    def children(
        self,
        static_context: RenderContext,  # noqa: ARG002  the interface's
        *,
        include_partials: bool = True,  # noqa: ARG002
    ) -> Iterable[Node]:
        yield self.block


class _CheckTag(Tag):
    """A block that Segue writes around a part of a template when it compiles it."""

    block = True

    def parse(self, stream: TokenStream) -> Node:
        token = stream.eat(TOKEN_TAG)
        end = f"end{self.name}"
        block = get_parser(self.env).parse_block(stream, frozenset({end, TOKEN_EOF}))
        stream.expect(TOKEN_TAG, value=end)
        return _CheckNode(token, block, self.check)

    def check(self, marked: str, context: Context) -> str:
        raise NotImplementedError


class _LinkTag(_CheckTag):
    name = "segue_link"

    def check(self, marked: str, context: Context) -> str:
        return check_link(marked, context.told.rules, html=context.autoescape)


class _AppLinkTag(_CheckTag):
    """Where the author may lead into an app."""

    name = "segue_app_link"

    def check(self, marked: str, context: Context) -> str:
        return check_link(marked, context.told.rules, own_schemes=True)


class _StyleTag(_CheckTag):
    name = "segue_style"

    def check(self, marked: str, context: Context) -> str:
        return check_style(marked, context.told.rules)


class _LanguageNode(Node):
    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        assert isinstance(context, Context)
        return buffer.write(context.told.language)


class _LanguageTag(Tag):
    """Prints the language of the message."""

    name = "segue_language"
    block = False

    def parse(self, stream: TokenStream) -> Node:
        return _LanguageNode(stream.current)


def adapt(template: BoundTemplate) -> None:
    """Give a parsed template the meanings of this module. Raises Misused.

    The parser takes no other classes for the parts of an expression, so they get theirs here.
    """
    for node in _nodes(template):
        for name in (*node.template_scope(), *node.block_scope()):
            if name in OURS:
                problem = f"{name!r} is what every template sees; take another name"
                raise Misused(node.token.start_index, problem)
        expressions = [one for top in node.expressions() for one in _within(top)]
        paths = [one for one in expressions if isinstance(one, Path)]
        if isinstance(node, CycleNode) and paths:
            raise Misused(node.token.start_index, "cycle takes texts; print values with {{ }}")
        if isinstance(node, _Print):
            node.ours = all(path.path[0] in OURS for path in paths)
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
    """`when blank` compares as `== blank` does."""
    choice = node.expression
    choice.expressions = [
        _BlankTest(one, choice.left) if isinstance(one, Blank) else one
        for one in choice.expressions
    ]


class _BlankTest(Expression):
    """Equal to what is compared with it if that is blank."""

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
    """`value` by strftime's `form`; whole seconds are shown in UTC, ISO 8601 as it is written."""
    try:
        return moment(value).strftime(str(form))
    except (ValueError, OverflowError, OSError):
        raise FilterArgumentError(
            "date takes whole seconds or ISO 8601, and a format such as '%d %B'", token=None
        ) from None


@with_context
def _local_date(value: object, length: object = "long", *, context: Context) -> str:
    try:
        return _spaced(local_date(value, length, locale_of(context.told.language)), context)
    except (ValueError, OverflowError, OSError):
        raise FilterArgumentError(
            "local_date takes whole seconds or ISO 8601, and short, medium, long or full",
            token=None,
        ) from None


@with_context
def _money(value: object, currency: object = None, *, context: Context) -> str:
    if currency is None:
        # Where Segment's clients say it, beside the amounts of an event.
        currency = context.get(["event", "currency"], token=None)
    if isinstance(currency, FalsyStrictUndefined):
        raise UndefinedError(currency.msg, token=None)
    try:
        return _spaced(money(value, currency, locale_of(context.told.language)), context)
    except ValueError as error:
        raise FilterArgumentError(f"money: {error}", token=None) from None


def _spaced(text: str, context: Context) -> str:
    """A no-break space would make an SMS one of 70 characters, so it is one in HTML only."""
    return text if context.autoescape else text.translate(_SPACES)


class _Environment(Environment):
    template_class = Template
    # What no template needs and a slip can reach: loops in loops, texts that double.
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
