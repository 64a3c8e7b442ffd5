"""The texts of the customers' pages in several languages: English in the code, others in `locale/`.

The catalogues are gettext files (.po), compiled in memory when they are first used. The tests find
texts that a catalogue lacks.
"""

import gettext
from functools import cache
from io import BytesIO
from pathlib import Path

from babel import Locale, negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALES = Path(__file__).parent / "locale"
ENGLISH = "en"
# Of an Accept-Language header; browsers send fewer.
_MOST_LANGUAGES = 20


class Texts:
    """The texts of one language. Placeholders are names in braces."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.locale = Locale.parse(language)
        self.translations = _catalogue(language)

    def gettext(self, text: str, **values: object) -> str:
        """The text in this language; itself if the catalogue lacks it."""
        found = self.translations.gettext(text)
        return found.format(**values) if values else found

    def ngettext(self, one: str, many: str, number: int) -> str:
        """The form for a number, which the text has as `{number}`."""
        return self.translations.ngettext(one, many, number).format(number=number)


@cache
def languages() -> tuple[str, ...]:
    """The languages of the pages."""
    return (ENGLISH, *sorted(path.parent.parent.name for path in LOCALES.glob("*/*/pages.po")))


@cache
def texts_in(language: str) -> Texts:
    """The texts of one of `languages`."""
    return Texts(language)


def texts_for(*wanted: str | None) -> Texts:
    """The texts of the first language (a BCP 47 tag) that there are texts for; else English.

    A language without texts of its own region takes those of the language: de-AT those of de.
    """
    tags = [tag.strip().replace("-", "_") for tag in wanted if tag]
    return texts_in(negotiate_locale(tags, languages()) or ENGLISH)


def accepted(header: str) -> list[str]:
    """The language tags of an Accept-Language header (RFC 9110, 12.5.4) by preference."""
    found: list[tuple[float, str]] = []
    for part in header.split(",")[:_MOST_LANGUAGES]:
        tag, _, parameter = part.partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            quality = float(value) if name == "q" else 1.0
        except ValueError:
            continue
        if quality > 0 and tag.strip():
            found.append((quality, tag.strip()))
    return [tag for _, tag in sorted(found, key=lambda one: -one[0])]


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == ENGLISH:
        return gettext.NullTranslations()
    with (LOCALES / language / "LC_MESSAGES" / "pages.po").open("rb") as file:
        catalogue = read_po(file, locale=language)
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def sentence(text: str) -> str:
    """The text with its first letter as a capital."""
    return text[:1].upper() + text[1:]
