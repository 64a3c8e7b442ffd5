"""The time zones that a customer can choose, by region, then by country and city."""

from functools import cache
from typing import Any
from unicodedata import normalize

import pycountry

from config.clock.zones import zones_of_country

_REGIONS = {
    "Africa": "Africa",
    "America": "Americas",
    "Antarctica": "Antarctica",
    "Arctic": "Arctic",
    "Asia": "Asia",
    "Atlantic": "Atlantic Ocean",
    "Australia": "Australia",
    "Europe": "Europe",
    "Indian": "Indian Ocean",
    "Pacific": "Pacific Ocean",
}


@cache
def zone_labels() -> dict[str, str]:
    """Every zone of every country with its label: Europe/Berlin -> "Germany, Berlin"."""
    labels = {
        name: _label(_name(country), name)
        for country in pycountry.countries
        for name in zones_of_country(country.alpha_2)
    }
    return labels | {"UTC": "Universal time (UTC)"}


@cache
def zones_by_region() -> dict[str, list[tuple[str, str]]]:
    """The zones as (name, label) by region, in alphabetical order of their labels."""
    found: dict[str, list[tuple[str, str]]] = {region: [] for region in _REGIONS.values()}
    for name, label in sorted(zone_labels().items(), key=lambda zone: _plain(zone[1])):
        region = _REGIONS.get(name.split("/")[0], "Everywhere")
        found.setdefault(region, []).append((name, label))
    return found


def _label(country: str, name: str) -> str:
    city = name.rsplit("/", 1)[1].replace("_", " ")
    return country if city == country else f"{country}, {city}"


def _name(country: Any) -> str:
    """The common name: "Iran", not "Iran, Islamic Republic of"."""
    name: str = getattr(country, "common_name", country.name)
    return name.partition(",")[0].partition(" (")[0]


def _plain(label: str) -> str:
    """The label in ASCII, for sorting: Åland is listed under A."""
    return normalize("NFKD", label).encode("ascii", "ignore").decode()
