"""Guess the column map of a file of customers from its header; a person reads it before its use."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from profiles.imports.rows import open_rows

# What each column may be called, in English, German, French and Spanish, without blanks and marks.
_KNOWN = {
    "user_id": ("userid", "customerid", "customer", "id", "kundennummer", "kundenid", "client"),
    "email": ("email", "mail", "emailaddress", "emailadresse", "courriel", "correo"),
    "phone": (
        "phone",
        "mobile",
        "phonenumber",
        "telephone",
        "telefon",
        "handy",
        "portable",
        "movil",
    ),
    "push_token": ("pushtoken", "devicetoken", "fcmtoken"),
    "country": ("country", "land", "pays", "pais"),
    "timezone": ("timezone", "zeitzone", "fuseauhoraire"),
    "language": ("language", "locale", "sprache", "langue", "idioma"),
}
_CONSENT = {
    "email.*": ("newsletter", "emailoptin", "emailconsent", "marketing", "optin", "subscribed"),
    "sms.*": ("smsoptin", "smsconsent", "textoptin"),
}
_ATTRIBUTES = {
    "first_name": ("firstname", "givenname", "vorname", "prenom", "nombre"),
    "last_name": ("lastname", "surname", "familyname", "nachname", "nom", "apellido", "apellidos"),
    "birthday": ("birthday", "birthdate", "dateofbirth", "geburtstag", "geburtsdatum", "naissance"),
}


def guessed_map(file: Path) -> str:
    """A column map in TOML for a file of customers, with what it does not know as comments.

    Raises SegueError for a file that can't be read.
    """
    header = _header(file)
    left = list(header)
    parts = [
        f"# What the columns of {file.name} mean: docs/start/import.md. Correct what is wrong."
    ]
    for section, known in (("columns", _KNOWN), ("attributes", _ATTRIBUTES), ("consent", _CONSENT)):
        parts += ["", f"[{section}]"]
        for key, column in _found(known, left):
            left.remove(column)
            parts.append(f"{_key(key)} = {_quoted(column)}")
    if left:
        parts += ["", "# Columns that are not read. For an attribute, add a line above."]
        parts += [f"# {_key(_plain(column) or 'x')} = {_quoted(column)}" for column in left]
    return "\n".join(parts) + "\n"


def _header(file: Path) -> Sequence[str]:
    return [name for name in open_rows(file).columns if name]


def _found(known: dict[str, tuple[str, ...]], header: Sequence[str]) -> Iterator[tuple[str, str]]:
    columns = {re.sub(r"[\W_]", "", column.casefold()): column for column in reversed(header)}
    for key, names in known.items():
        column = next((columns[name] for name in names if name in columns), None)
        if column is not None:
            yield key, column


def _plain(column: str) -> str:
    return re.sub(r"\W+", "_", column.casefold()).strip("_")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
