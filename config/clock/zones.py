"""Time zones and the zones of each country, from the pinned tzdata package.

The system's `/usr/share/zoneinfo` and PYTHONTZPATH are not used, so that all machines have the same
zone rules.
"""

from datetime import datetime
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from config.clock.times import Instant
from config.text.invisible_characters import trimmed

_DATABASE = files("tzdata").joinpath("zoneinfo")


@cache
def zone_names() -> frozenset[str]:
    """All zone names in tzdata, including links such as `US/Eastern`."""
    text = files("tzdata").joinpath("zones").read_text(encoding="ascii")
    return frozenset(text.split())


def zone_name(text: str | None) -> str | None:
    """The zone name in a text, without surrounding blanks; None if the zone does not exist."""
    name = trimmed(text) if text else None
    return name if name in zone_names() else None


@cache
def zone(name: str) -> ZoneInfo:
    """The zone with this IANA name. Raises KeyError."""
    if name not in zone_names():
        raise KeyError(name)
    with _DATABASE.joinpath(*name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def _zones_by_country() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for line in _DATABASE.joinpath("zone.tab").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            country, _coordinates, name = line.split("\t")[:3]
            table[country] = (*table.get(country, ()), name)
    return table


def zones_of_country(country: str) -> tuple[str, ...]:
    """The zones of an ISO 3166 alpha-2 country, in the order of zone.tab; empty if unknown."""
    return _zones_by_country().get(country, ())


def format_local(instant: Instant, zone_name: str) -> str:
    """An instant for people, in a zone: `Mon 2026-03-02 11:00 CET`. Raises KeyError."""
    return datetime.fromtimestamp(instant, zone(zone_name)).strftime("%a %Y-%m-%d %H:%M %Z")
