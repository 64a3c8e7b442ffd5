"""Find out how each column writes numbers and dates, from all of its cells.

A cell with one reading decides for the whole column. Where none does and the readings differ, or
where cells contradict each other, the import asks for a key of the map: it never guesses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from config.errors import SegueError
from profiles.imports.columns import EventMap, PeopleMap
from profiles.imports.rows import RowFile
from profiles.imports.values import (
    Style,
    Type,
    read_date,
    read_moment,
    read_number,
)

Choice = Literal["decimal", "date_order"]

# The two readings of a cell, by the key of the map that chooses one.
_READINGS: Mapping[Choice, tuple[Style, Style]] = {
    "decimal": (Style(decimal="."), Style(decimal=",")),
    "date_order": (Style(date_order="day-first"), Style(date_order="month-first")),
}
_KINDS: Mapping[Type, tuple[Choice, Callable[[str, Style], Any]]] = {
    # As a number: 1.000 in a column of whole numbers may still be 1 or 1000.
    "integer": ("decimal", read_number),
    "number": ("decimal", read_number),
    "date": ("date_order", read_date),
    "time": ("date_order", read_moment),
}


@dataclass(frozen=True, slots=True)
class ExampleCell:
    """A cell and where it is, such as `line 3`."""

    text: str
    where: str

    def __str__(self) -> str:
        return f"{self.text!r} ({self.where})"


@dataclass(slots=True, kw_only=True)
class _Survey:
    """What the cells of one column show."""

    kind: Choice
    read: Callable[[str, Style], Any]
    only: dict[int, ExampleCell] = field(
        default_factory=dict
    )  # by the reading that alone is possible
    either: ExampleCell | None = None  # both readings are possible, and differ
    zoned: bool = False
    zoneless: ExampleCell | None = None

    def look(self, text: str, where: str) -> None:
        """Take a cell into account. One without any reading shows nothing."""
        is_iso = self.kind == "date_order" and text[4:5] == "-"
        if is_iso and (self.zoned or self.read is not read_moment):
            return  # it has one reading, and shows nothing new
        readings: list[Any] = []
        for style in _READINGS[self.kind]:
            try:
                readings.append(self.read(text, style))
            except ValueError:
                readings.append(None)
        if self.read is read_moment and (moment := readings[0] or readings[1]):
            if moment.tzinfo is None:
                self.zoneless = self.zoneless or ExampleCell(text, where)
            else:
                self.zoned = True
        one, other = readings
        if one == other:
            return
        if one is None or other is None:
            self.only.setdefault(int(one is None), ExampleCell(text, where))
        elif self.either is None:
            self.either = ExampleCell(text, where)


def find_styles(
    mapping: PeopleMap | EventMap, file: RowFile, path: Path, map_file: Path
) -> tuple[dict[str, Style], dict[str, str]]:
    """The style of each column with numbers, dates or times.

    Also, in words by column, those that a cell or the map has decided. Reads the whole file, if the
    map has such columns.

    Raises SegueError for a column that the map has to decide, with an example.
    """
    surveys: dict[str, _Survey] = {}
    for name, kind in mapping.typed():
        if name not in file.typed and kind in _KINDS:
            what, read = _KINDS[kind]
            surveys.setdefault(name, _Survey(kind=what, read=read))
    if surveys:
        _look_at_all(mapping, file, surveys)
    styles: dict[str, Style] = {}
    words: dict[str, str] = {}
    for name, survey in surveys.items():
        if mapping.timezone is None and survey.zoneless and not survey.zoned:
            raise SegueError(
                f"{path}: {name}: {survey.zoneless} has no time zone and the map has no "
                '`timezone`; add for example timezone = "Europe/London" at its top. '
                f"The map is {map_file}"
            )
        chosen = _chosen(mapping, survey, f"{path}: {name}", map_file)
        styles[name] = _READINGS[survey.kind][chosen or 0]
        if chosen is not None:
            words[name] = _in_words(survey.kind, styles[name])
    return styles, words


def _look_at_all(
    mapping: PeopleMap | EventMap, file: RowFile, surveys: Mapping[str, _Survey]
) -> None:
    places = [(file.columns.index(name), survey) for name, survey in surveys.items()]
    for row in file.rows():
        if row.fault:
            continue
        for place, survey in places:
            text = mapping.cell(row.cells[place])
            # Digits alone are the same number in every style, and no date.
            if text and not (text.isascii() and text.isdigit()):
                survey.look(text, f"{file.unit} {row.line}")


def _chosen(
    mapping: PeopleMap | EventMap, survey: _Survey, column: str, map_file: Path
) -> int | None:
    """Which of the two readings holds; None: no cell has two."""
    named = mapping.decimal if survey.kind == "decimal" else mapping.date_order
    if named is not None:
        return _names(survey.kind).index(named)
    if len(survey.only) == 2:
        one, other = (
            f"{place} is {_in_words(survey.kind, _READINGS[survey.kind][reading])}"
            for reading, place in sorted(survey.only.items())
        )
        raise SegueError(
            f"{column}: the cells contradict each other: {one}, {other}. "
            f"{_ask(survey.kind, map_file)}; cells of the other kind are then reported"
        )
    if survey.only:
        return next(iter(survey.only))
    if survey.either is not None:
        one, other = (survey.read(survey.either.text, s) for s in _READINGS[survey.kind])
        raise SegueError(
            f"{column}: {survey.either} can be {one} or {other}, and no cell of the column "
            f"decides. {_ask(survey.kind, map_file)}"
        )
    return None


def _names(kind: Choice) -> list[str]:
    return [getattr(style, kind) for style in _READINGS[kind]]


def _ask(kind: Choice, map_file: Path) -> str:
    one, other = _names(kind)
    return f'Add {kind} = "{one}" or {kind} = "{other}" at the top of the map {map_file}'


def _in_words(kind: Choice, style: Style) -> str:
    if kind == "decimal":
        return f'decimal = "{style.decimal}"'
    return f'date_order = "{style.date_order}"'
