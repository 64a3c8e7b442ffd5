"""The texts of the customers' pages that need a translation, from the code and the templates.

`python -m tests.support.http.page_texts` adds new ones to the catalogues, without a translation,
and removes those that nothing uses.
"""

from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po
from liquid.messages import extract_from_templates

from config.channels import channels
from config.policy import Policy
from flows.http.pages import texts
from flows.http.pages.choices import topics_of
from flows.http.pages.rendering import page_templates

PAGES = Path(texts.__file__).parent


def wanted() -> Catalog:
    """All texts, with their plural forms."""
    found = Catalog()
    for _, _, text, _, _ in extract_from_dir(PAGES, [("**.py", "python")]):
        found.add(text)
    templates = page_templates("")
    names = [path.stem for path in (PAGES / "templates").glob("*.html")]
    for message in extract_from_templates(*map(templates.get_template, names)):
        if message.id:
            found.add(message.id)
    for channel in channels().values():
        masked = channel.masked("a@example.com").text
        named = (channel.title, channel.plural, channel.no_address, channel.stop_label, masked)
        for one in filter(None, named):
            found.add(one)
    for name in topics_of(Policy()).values():
        found.add(name)
    return found


def catalogue(language: str) -> Catalog:
    """The translations of a language."""
    with path_of(language).open("rb") as file:
        return read_po(file, locale=language)


def path_of(language: str) -> Path:
    """The file of a language's translations."""
    return texts.LOCALES / language / "LC_MESSAGES" / "pages.po"


if __name__ == "__main__":
    for language in texts.languages()[1:]:
        known = catalogue(language)
        known.update(wanted(), no_fuzzy_matching=True)
        with path_of(language).open("wb") as file:
            write_po(file, known, no_location=True, ignore_obsolete=True, width=100)
