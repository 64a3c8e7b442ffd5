"""Words and numbers of the staff's pages: filters and functions of their templates. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from config.channels import channel_of
from config.clock.times import DAY, HOUR, MINUTE, Instant, Seconds
from config.clock.zones import zone


def number(value: int) -> str:
    """`1,234`."""
    return f"{value:,}"


def counted(value: int, one: str, many: str = "") -> str:
    """`1 person`, `1,234 people`; `many` is by default `one` with an s."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def duration(seconds: Seconds) -> str:
    """A duration to two units: `3 days 2 hours`, `5 minutes`, `less than a minute`."""
    parts = []
    for size, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        value, seconds = divmod(seconds, size)
        if value:
            parts.append(counted(value, name))
    return " ".join(parts[:2]) or "less than a minute"


def channel(name: str) -> str:
    """A channel's name: `e-mail`, `SMS`."""
    return channel_of(name).short


def channel_heading(name: str) -> str:
    """A channel's name at the start of a line: `E-mail`, `SMS`."""
    short = channel(name)
    return short[:1].upper() + short[1:]


def by_channel(counts: Mapping[str, int]) -> str:
    """`12 e-mail, 3 SMS`, the largest first."""
    return ", ".join(f"{n:,} {channel(name)}" for name, n in Counter(counts).most_common())


def plain(code: str) -> str:
    """A code as text: `no_consent` -> `no consent`."""
    return code.replace("_", " ")


def sentence(text: str) -> str:
    """An error's text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}".removesuffix(".") + "."


def masked(address: str, name: str) -> str:
    """An address of a channel in a list: only who knows it recognises it."""
    return str(channel_of(name).masked(address)).removeprefix("to ") if address else ""


def masked_name(name: str) -> str:
    """A customer's name in a list: `Ann M.`"""
    first, *others = name.split()[:1] + name.split()[1:][-1:] or [""]
    return " ".join([first, *(f"{other[:1]}." for other in others)])


def filters(zone_name: str) -> dict[str, Callable[..., str]]:
    """The filters of the templates; times are in this zone."""
    here = zone(zone_name)

    def moment(instant: Instant) -> str:
        local = datetime.fromtimestamp(instant, here)
        return f"{local:%a} {local.day} {local:%b %Y}, {local:%H:%M}"

    def iso(instant: Instant) -> str:
        return datetime.fromtimestamp(instant, here).isoformat()

    plains = (number, counted, duration, channel, by_channel, plain, masked, masked_name)
    return {"moment": moment, "iso": iso, **{one.__name__: one for one in plains}}


# The sections of the site, with the role that sees them.
SECTIONS = (
    ("Today", "/", "viewer"),
    ("People", "/people", "viewer"),
    ("Journeys", "/journeys", "viewer"),
    ("Segments", "/segments", "viewer"),
    ("Approvals", "/approvals", "viewer"),
    ("Yardstick", "/yardstick", "viewer"),
    ("Staff", "/staff", "admin"),
)
GLOBALS: Mapping[str, Any] = {"sections": SECTIONS}
