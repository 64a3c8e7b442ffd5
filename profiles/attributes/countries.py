"""Parse country names and codes, such as "EIRE", "usa" and "Germany", to ISO 3166 alpha-2.

Names and codes come from pycountry, names in other languages from CLDR (Babel). The table below
adds common names that ISO does not have.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import cache, lru_cache

import pycountry
from babel import Locale

from config.text.invisible_characters import trimmed

_USUAL = {
    # ISO 3166 has no codes for the parts of the United Kingdom
    "UK": "GB",
    "Great Britain": "GB",
    "Britain": "GB",
    "England": "GB",
    "Scotland": "GB",
    "Wales": "GB",
    "Northern Ireland": "GB",
    # Jersey for both bailiwicks: Guernsey has the same time zone and calling code.
    "Channel Islands": "JE",
    "EIRE": "IE",
    "Republic of Ireland": "IE",
    "Holland": "NL",
    "Turkey": "TR",
    "Russia": "RU",
    "Macedonia": "MK",
    "Vatican": "VA",
    "America": "US",
    "Korea": "KR",
    "Macau": "MO",
    "Burma": "MM",
    "Brunei": "BN",
    "East Timor": "TL",
    "UAE": "AE",
    "Emirates": "AE",
    "Palestine": "PS",
    "RSA": "ZA",
    "Ivory Coast": "CI",
    "Cape Verde": "CV",
    "Swaziland": "SZ",
    "DR Congo": "CD",
    "Democratic Republic of the Congo": "CD",
    "Reunion Island": "RE",
}


# Languages whose names of countries are known: "Deutschland", "Allemagne", "Alemania".
_LANGUAGES = (
    *("en", "de", "fr", "es", "it", "pt", "nl", "pl", "cs", "sk", "hu", "ro", "hr", "sl", "bg"),
    *("sv", "da", "nb", "fi", "et", "lv", "lt", "el", "tr", "uk", "ru", "ca", "ja", "zh", "ko"),
)

# Longer than any name; longer text is neither parsed nor cached.
_LONGEST = 200


def country_code(text: str | None) -> str | None:
    """The ISO alpha-2 code of a country's name or code, in any case; None if there is none.

    It is None for "European Community", "Unspecified" and similar texts.
    """
    return _code(trimmed(text)) if text and len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _code(text: str) -> str | None:
    return _codes().get(_folded(text))


def _folded(text: str) -> str:
    """A normal form without case, accents, dots, a leading "the" and extra space."""
    letters = unicodedata.normalize("NFKD", text.replace(".", "")).casefold()
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(plain.replace("’", "'").replace("&", " and ").split()).removeprefix("the ")


@cache
def _codes() -> dict[str, str]:
    codes = {_folded(spelling): code for spelling, code in _spellings()}
    return {**_foreign({*codes.values()}), **codes}


def _foreign(codes: Collection[str]) -> dict[str, str]:
    """The names in other languages, without those that name two countries, such as Kongo."""
    found: dict[str, set[str]] = defaultdict(set)
    for language in _LANGUAGES:
        for code, name in Locale(language).territories.items():
            if code in codes:
                found[_folded(name)].add(code)
    return {name: next(iter(named)) for name, named in found.items() if len(named) == 1}


def _spellings() -> Iterator[tuple[str, str]]:
    for country in pycountry.countries:
        for field in ("alpha_2", "alpha_3", "name", "official_name", "common_name"):
            spelling = getattr(country, field, None)
            if spelling:
                yield spelling, country.alpha_2
    yield from _USUAL.items()
