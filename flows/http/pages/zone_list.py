"""The time zones that a customer can choose, by region, then by country and city.

Names of countries and cities come from Babel (Unicode CLDR).
"""

from functools import cache
from unicodedata import normalize

import pycountry
from babel.dates import get_timezone_location

from config.clock.zones import zones_of_country
from flows.http.pages.texts import Texts, texts_in


def _regions(texts: Texts) -> dict[str, str]:
    return {
        "Africa": texts.gettext("Africa"),
        "America": texts.gettext("Americas"),
        "Antarctica": texts.gettext("Antarctica"),
        "Arctic": texts.gettext("Arctic"),
        "Asia": texts.gettext("Asia"),
        "Atlantic": texts.gettext("Atlantic Ocean"),
        "Australia": texts.gettext("Australia"),
        "Europe": texts.gettext("Europe"),
        "Indian": texts.gettext("Indian Ocean"),
        "Pacific": texts.gettext("Pacific Ocean"),
    }


@cache
def zone_labels(language: str) -> dict[str, str]:
    """Every zone of every country with its label: Europe/Berlin -> "Germany, Berlin"."""
    texts = texts_in(language)
    countries = texts.locale.territories
    labels = {
        name: _label(countries.get(country.alpha_2, country.name), city_of(name, language))
        for country in pycountry.countries
        for name in zones_of_country(country.alpha_2)
    }
    return labels | {"UTC": texts.gettext("Universal time (UTC)")}


@cache
def zones_by_region(language: str) -> dict[str, list[tuple[str, str]]]:
    """The zones as (name, label) by region, in alphabetical order of their labels."""
    texts = texts_in(language)
    regions = _regions(texts)
    found: dict[str, list[tuple[str, str]]] = {region: [] for region in regions.values()}
    for name, label in sorted(zone_labels(language).items(), key=lambda zone: _plain(zone[1])):
        region = regions.get(name.split("/")[0], texts.gettext("Everywhere"))
        found.setdefault(region, []).append((name, label))
    return found


@cache
def city_of(zone: str, language: str) -> str:
    """The city of a time zone."""
    if "/" not in zone:
        return zone
    return get_timezone_location(zone, locale=texts_in(language).locale, return_city=True)


def _label(country: str, city: str) -> str:
    return country if city == country else f"{country}, {city}"


def _plain(label: str) -> str:
    """The label in ASCII, for sorting: Åland is listed under A."""
    return normalize("NFKD", label).encode("ascii", "ignore").decode()
