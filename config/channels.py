"""What a channel is, and which channels there are.

One file in channels/kinds/ describes one channel; policy, steps, templates, planning, pages and
reports derive from it. docs/decisions/0021-a-channel-is-one-file.md says why the registry stands
here, below the files that it loads.
"""

import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field

from config.clock.times import Seconds
from config.errors import SegueError

if TYPE_CHECKING:
    from config.settings import Settings

# Kinds of identifiers that are addresses; two channels may share one.
AddressKind = Literal["email", "phone", "push_token"]
# What becomes known of a message: each is an event, `<channel>_<evidence>`.
Evidence = Literal["delivered", "opened", "clicked", "replied"]
# What a template file is made of; mjml and html become HTML and a plain text.
Format = Literal["mjml", "html", "txt"]


@dataclass(frozen=True, slots=True)
class Content:
    """What a message says once it is rendered. Each channel has its own."""

    @classmethod
    def of(cls, parts: Mapping[str, str], options: Mapping[str, str]) -> Self:  # noqa: ARG003
        """From the rendered parts of a template and the values of its fixed headers."""
        return cls(**parts)

    def excess(self, settings: "Settings") -> str | None:  # noqa: ARG002  some channels need it
        """How far it exceeds what the channel takes, as "4000 bytes, and 3800 fit"; or None."""
        return None

    @property
    def billed_segments(self) -> int | None:
        """How many segments a text message is billed as; None on other channels."""
        return None


@dataclass(frozen=True, slots=True)
class Header:
    """A header line that a template file may begin with.

    name: as it is shown; in lower case it is the name of the part of the content. required: the
    file needs it. one_line: line ends become spaces. may_be_empty: the rendered text may be empty.
    link: it holds a link, `app`: which may have the scheme of an app. fixed: it is not rendered
    but must match this; `expects` describes the form for authors. numbered: `name-1`, `name-2` ...
    replaces_body: a file with it has no body.
    """

    name: str
    required: bool = False
    one_line: bool = False
    may_be_empty: bool = False
    link: Literal["web", "app"] | None = None
    fixed: re.Pattern[str] | None = None
    expects: str = ""
    numbered: bool = False
    replaces_body: bool = False

    def is_called(self, part: str) -> bool:
        """Whether a line with this name, in lower case, is this header."""
        name = self.name.lower()
        if not self.numbered:
            return part == name
        return re.fullmatch(rf"{re.escape(name)}-[1-9][0-9]?", part) is not None


# The language of a template, as a BCP 47 tag; on every channel whose files have headers.
LANGUAGE = Header(
    "Language",
    fixed=re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*"),
    expects="a BCP 47 tag, such as en or de-AT",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """Everything that is said of a channel.

    Names
    -----
    name: in policy.toml, rows and events. step: what journeys write, `Email("offer")`.
    order: its place among the channels. title: heading on customers' pages. plural: the same in a
    sentence, "You get no more ... about offers". short: in counts and reports for staff.
    icon: an SVG path for a box of 24 by 24.

    Addresses
    ---------
    address_kind: the kind of identifier that messages go to. address: in a sentence, "no ... on
    record". no_address: what a customer's page says without one. masked: an address, so that only
    its owner recognises it.

    Consent
    -------
    consent: whether silence is a no; consent_fixed: the policy can't change that.
    has_stop: a no to the whole channel is a STOP. It binds transactional messages too and outweighs
    a yes to a topic; without a STOP, no topic ticked leaves the channel unset. stop_label: the box
    for it on the preferences page. double_opt_in: a yes to topics with `double_opt_in` counts from
    its confirmation on. unsubscribe_link: marketing carries the link outside its text too.
    optional: pages show it only where it is used (docs/channels.md).

    Messages
    --------
    content: what the provider gets. formats: of template files, `<name>.<channel>.<format>`.
    headers: of these files; none: a file is its body. evidence: what becomes known, each with who
    reports it. watch_bounces: a high share of bounces is reported, since mailbox providers then
    stop taking the sender's mail. session: how long after a customer's last message free text may
    be sent; None: at any time.
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
    masked: Callable[[str], str]
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
        """Whether a message goes to every address in use: devices are several, others one."""
        return self.address_kind == "push_token"


@cache
def channels() -> Mapping[str, Channel]:
    """Every channel in channels/kinds/ by its name, in their order. Raises SegueError."""
    package = import_module("channels.kinds")
    found = [
        _load(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    by_name: dict[str, Channel] = {}
    for one in sorted(found, key=lambda one: (one.order, one.name)):
        if one.name in by_name:
            raise SegueError(f"two files in channels/kinds/ are called {one.name}; rename one")
        by_name[one.name] = one
    return MappingProxyType(by_name)


def _load(module: str) -> Channel:
    found = getattr(import_module(module), "CHANNEL", None)
    if not isinstance(found, Channel):
        raise SegueError(f"{module} has no CHANNEL that is a Channel (docs/channels.md)")
    if not re.fullmatch("[a-z][a-z0-9]*", found.name):
        raise SegueError(f"{module}: the name {found.name!r} is not lower-case letters and digits")
    return found


def channel_of(name: str) -> Channel:
    """The channel with this name. Raises ValueError that lists what there is."""
    found = channels().get(name)
    if found is None:
        raise ValueError(f"there is no channel {name!r}; there are: {', '.join(channels())}")
    return found


def by_channel(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts of all channels in their order; of an optional one only where there is something."""
    return {
        name: counts.get(name, 0)
        for name, one in channels().items()
        if counts.get(name) or not one.optional
    }


def _known(name: str) -> str:
    return channel_of(name).name


def _describe(schema: dict[str, object]) -> None:
    schema["enum"] = list(channels())


# A channel's name; Pydantic models accept only those that there are.
ChannelName = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_describe)]
