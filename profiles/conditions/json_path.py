"""SQL for values in a JSON column by path, on SQLite and PostgreSQL.

Examples of paths: `address.city` is the member `city` of the object `address`,
`products[].sku` is the member `sku` of every element of the list `products`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, cast, column, func, literal, literal_column, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import Numeric, Text

from config.database.arrays import one_of

# The names of the objects' members from one list to the next.
Path = tuple[tuple[str, ...], ...]

_LISTED = re.compile(r"[^.\[\]]+(\[\])?(\.[^.\[\]]+(\[\])?)*")
_NESTED = re.compile(r"[^.]+(\.[^.]+)+")


def parse_path(name: str) -> Path:
    """Parse a path: `products[].sku` is (("products",), ("sku",)).

    A name without `[]` that has empty parts between dots (".a", "a..b") is the name of one member.
    Raises ValueError for brackets other than `[]` after a name.
    """
    if "[]" in name:
        if not _LISTED.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a path; write the elements of a list as products[].sku or tags[]"
            )
        return tuple(tuple(part.strip(".").split(".")) if part else () for part in name.split("[]"))
    return (tuple(name.split(".")),) if _NESTED.fullmatch(name) else ((name,),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place in a document.

    document: a JSON column, or the value of a list's element. members: the way from there on.
    element: the kind of the list's element that `document` is, on SQLite.
    """

    sqlite: bool
    document: ColumnElement[Any]
    members: tuple[str, ...]
    element: ColumnElement[Any] | None = None

    @property
    def kind(self) -> ColumnElement[str]:
        """The database's name of the value's type; "missing" if there is no value."""
        if not self.sqlite:
            return func.coalesce(func.jsonb_typeof(self._json), "missing")
        if self.element is not None and not self.members:
            return self.element
        return func.coalesce(func.json_type(self._object, self._sqlite_path), "missing")

    def value(self, like: Any) -> ColumnElement[Any]:
        """The value if it has the same type as `like`, else NULL; a bool is 1 or 0."""
        value: ColumnElement[Any]
        if not self.sqlite:
            value = self._json.op("#>>", return_type=Text())(literal_column("'{}'"))
        elif self.element is not None and not self.members:
            value = self.document
        else:
            value = func.json_extract(self._object, self._sqlite_path)
        if isinstance(like, bool):
            truth = value if self.sqlite else case((value == "true", 1), else_=0)
            return case((one_of(self.kind, ["true", "false", "boolean"]), truth))
        if isinstance(like, int | float):
            # PostgreSQL must not cast text: a CASE guards the cast, row by row.
            number = value if self.sqlite else cast(value, Numeric)
            return case((one_of(self.kind, ["integer", "real", "number"]), number))
        return case((one_of(self.kind, ["text", "string"]), value))

    def any_element(
        self, holds: Callable[["Place"], ColumnElement[bool]], members: tuple[str, ...] = ()
    ) -> ColumnElement[bool]:
        """Whether `holds` is true for an element of this list, or for `members` of an element."""
        elements = self._elements()
        element = Place(
            sqlite=self.sqlite,
            document=elements.c.value,
            members=members,
            element=elements.c.type if self.sqlite else None,
        )
        return select(literal(1)).select_from(elements).where(holds(element)).exists()

    def _elements(self) -> TableValuedAlias:
        a_list = self.kind == "array"
        if self.sqlite:
            found = case((a_list, func.json_extract(self._object, self._sqlite_path)), else_="[]")
            return func.json_each(found).table_valued("value", "type", joins_implicitly=True)
        found = case((a_list, self._json), else_=literal([], JSONB))
        return func.jsonb_array_elements(found).table_valued(
            column("value", JSONB), joins_implicitly=True
        )

    @property
    def _json(self) -> ColumnElement[Any]:
        found = self.document
        for member in self.members:
            # With a text on its right, -> finds members of objects only, never elements of lists.
            found = found.op("->", return_type=JSONB())(literal(member, Text))
        return found

    @property
    def _object(self) -> ColumnElement[Any]:
        """The document for SQLite's functions, which fail on a text element that is not JSON."""
        if self.element is None:
            return self.document
        return case((one_of(self.element, ["object", "array"]), self.document))

    @property
    def _sqlite_path(self) -> str:
        return "$" + "".join(f'."{member}"' for member in self.members)


def anywhere(
    document: ColumnElement[Any],
    path: Path,
    holds: Callable[[Place], ColumnElement[bool]],
    *,
    sqlite: bool,
) -> ColumnElement[bool]:
    """Whether `holds` is true at the path; with lists on the path, for at least one element."""
    first, *others = path

    def within(place: Place, rest: list[tuple[str, ...]]) -> ColumnElement[bool]:
        if not rest:
            return holds(place)
        return place.any_element(lambda element: within(element, rest[1:]), rest[0])

    return within(Place(sqlite=sqlite, document=document, members=first), others)
