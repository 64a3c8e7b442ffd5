"""The definition of a channel, and the registry of all channels.

One module in channels/kinds/ describes one channel; policy, steps, templates, planning, pages and
reports derive from it. docs/decisions/0021-a-channel-is-one-file.md explains why the registry is in
config/, below the modules that it loads.
"""

import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field

from config.clock.times import Seconds
from config.errors import SegueError
from config.text.suggestions import meant

if TYPE_CHECKING:
    from config.settings import Settings

# Kinds of identifiers that are addresses; two channels may share one.
AddressKind = Literal["email", "phone", "push_token"]
# Evidence of what a customer did with a message; recorded as the event `<channel>_<evidence>`.
Evidence = Literal["delivered", "opened", "clicked", "replied"]
# Formats of template files; mjml and html become HTML and plain text.
Format = Literal["mjml", "html", "txt"]


@dataclass(frozen=True, slots=True)
class Content:
    """The rendered content of a message. Each channel has a subclass."""

    @classmethod
    def of(cls, parts: Mapping[str, str], options: Mapping[str, str]) -> Self:  # noqa: ARG003  others use them
        """Create it from the rendered parts of a template and the values of its fixed headers."""
        return cls(**parts)

    def excess(self, settings: "Settings") -> str | None:  # noqa: ARG002  some channels need it
        """Why it is too long, as "4000 bytes; the limit is 3800"; None if it is not."""
        return None

    @property
    def billed_segments(self) -> int | None:
        """The number of billed SMS segments; None on other channels."""
        return None


@dataclass(frozen=True, slots=True)
class Header:
    """A header line of a template file.

    name: as displayed; in lower case the name of the part of the content.
    required: each file must have it. one_line: line ends become spaces.
    may_be_empty: the rendered text may be empty.
    link: the value is a link; `app` also allows the scheme of an app.
    fixed: the value is not rendered and must match this. expects: describes `fixed` for authors.
    numbered: the lines are `name-1`, `name-2` ... replaces_body: a file with it has no body.
    """

    name: str
    _: KW_ONLY
    required: bool = False
    one_line: bool = False
    may_be_empty: bool = False
    link: Literal["web", "app"] | None = None
    fixed: re.Pattern[str] | None = None
    expects: str = ""
    numbered: bool = False
    replaces_body: bool = False

    def is_called(self, part: str) -> bool:
        """Whether a line with this lower-case name is this header."""
        name = self.name.lower()
        if not self.numbered:
            return part == name
        return re.fullmatch(rf"{re.escape(name)}-[1-9][0-9]?", part) is not None


# The language of a template, a BCP 47 tag; for all channels whose files have headers.
LANGUAGE = Header(
    "Language",
    fixed=re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*"),
    expects="a BCP 47 tag, such as en or de-AT",
)


class Masked(NamedTuple):
    """An address as customers' pages show it: a text to translate, and what replaces `{shown}`."""

    text: str
    shown: str = ""

    def __str__(self) -> str:
        return self.text.format(shown=self.shown)


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """The definition of a channel.

    Names
    -----
    name: in policy.toml, rows and events. step: the step's name in journeys, `Email("offer")`.
    order: position among the channels. title: heading on customers' pages. plural: name in a
    sentence, "You get no more ... about offers". short: name in reports for staff.
    icon: SVG path in a box of 24 by 24.

    Addresses
    ---------
    address_kind: the kind of identifier that messages are sent to. address: its name in a sentence,
    "no ... on record". no_address: text on a customer's page if there is none. masked: shortens an
    address so that only its owner recognizes it.

    Consent
    -------
    consent: whether unset consent counts as no (opt-in) or yes (opt-out). consent_fixed: the policy
    can't change it.
    has_stop: a no to the whole channel is a STOP, which also applies to transactional messages and
    overrides a yes to a topic. Without it, a page on which no topic is selected leaves the channel
    unset. stop_label: label of its checkbox on the preferences page.
    double_opt_in: whether topics with `double_opt_in` need a confirmation on this channel.
    unsubscribe_link: marketing messages also have the link outside their text.
    optional: pages show it only if it is used (docs/journeys/templates.md).

    Messages
    --------
    content: the class of rendered content. formats: of template files,
    `<name>.<channel>.<format>`. headers: of these files; empty: a file is only a body.
    evidence: which evidence exists, and who reports it.
    watch_bounces: warn about a high share of bounces, because mailbox providers then block the
    sender. session: seconds after a customer's last message in which free text may be sent; None:
    no limit.
    """

    name: str
    step: str
    order: int
    title: str
    plural: str
    short: str
    icon: str
    address_kind: AddressKind
    address: str
    no_address: str
    masked: Callable[[str], Masked]
    consent: Literal["opt-in", "opt-out"] = "opt-out"
    consent_fixed: bool = False
    has_stop: bool = False
    stop_label: str = ""
    double_opt_in: bool = False
    unsubscribe_link: bool = False
    watch_bounces: bool = False
    optional: bool = False
    content: type[Content]
    formats: tuple[Format, ...]
    headers: tuple[Header, ...] = ()
    evidence: Mapping[Evidence, str] = field(default_factory=dict)
    session: Seconds | None = None

    @property
    def per_device(self) -> bool:
        """Whether a message is sent to all usable addresses (devices), instead of one."""
        return self.address_kind == "push_token"


@cache
def channels() -> Mapping[str, Channel]:
    """All channels in channels/kinds/, by name, in `order`. Raises SegueError."""
    package = import_module("channels.kinds")
    found = [
        _load(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    by_name: dict[str, Channel] = {}
    for one in sorted(found, key=lambda one: (one.order, one.name)):
        if one.name in by_name:
            raise SegueError(
                f"two modules in channels/kinds/ define the channel {one.name}; rename one"
            )
        by_name[one.name] = one
    return MappingProxyType(by_name)


def _load(module: str) -> Channel:
    found = getattr(import_module(module), "CHANNEL", None)
    if not isinstance(found, Channel):
        raise SegueError(f"{module} must define CHANNEL as a Channel (docs/journeys/templates.md)")
    if not re.fullmatch("[a-z][a-z0-9]*", found.name):
        raise SegueError(
            f"{module}: the name {found.name!r} must have only lower-case letters and digits"
        )
    return found


def channel_of(name: str) -> Channel:
    """The channel with this name. Raises ValueError that lists all channels."""
    found = channels().get(name)
    if found is None:
        raise ValueError(
            f"there is no channel {name!r}; {meant(name, channels())}the channels are "
            f"{', '.join(channels())}"
        )
    return found


def by_channel(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts of all channels in order; optional channels only if their count is not 0."""
    return {
        name: counts.get(name, 0)
        for name, one in channels().items()
        if counts.get(name) or not one.optional
    }


def _known(name: str) -> str:
    return channel_of(name).name


def _describe(schema: dict[str, object]) -> None:
    schema["enum"] = list(channels())


# The name of a channel; Pydantic models accept only existing ones.
ChannelName = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_describe)]


def masked_number(number: str) -> Masked:
    """A phone number as customers' pages show it."""
    return Masked("to the number ending in {shown}", number[-3:])
