"""Records to match, as an Arrow table: one row a record, one column for each that is compared.

The table has `unique_id` (0, 1, ...), `side` (0, or 1 for a record of the second file) and the
columns of COLUMNS that have values. The truth, if it is known, stays apart: it is never matched by.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from config.errors import SegueError
from profiles.imports.rows import open_rows
from profiles.matching.cleaning import cleaned
from profiles.matching.columns import MatchMap

# Rows that are kept as Python objects before they become a part of the table.
_BATCH = 50_000
# Values of a column that are remembered in their cleaned form.
_REMEMBERED = 50_000


class Records:
    """Collects records in little memory; `table` gives them."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._schema = pa.schema(
            [
                ("unique_id", pa.int64()),
                ("side", pa.int8()),
                *((column, pa.string()) for column in self.columns),
            ]
        )
        self._batches: list[Any] = []
        self._waiting: list[list[str | None]] = [[] for _ in self.columns]
        self._sides: list[int] = []
        self._known: list[dict[str | None, str | None]] = [{} for _ in self.columns]
        self.counts = [0, 0]  # by side

    def add(self, cells: Sequence[str | None], side: int = 0) -> None:
        """Add a record: its cells as they were written, in the order of the columns."""
        for column, cell, known, waiting in zip(
            self.columns, cells, self._known, self._waiting, strict=True
        ):
            if cell not in known:
                if len(known) >= _REMEMBERED:
                    known.clear()
                known[cell] = cleaned(column, cell)
            waiting.append(known[cell])
        self._sides.append(side)
        self.counts[side] += 1
        if len(self._sides) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        first = sum(self.counts) - len(self._sides)
        values = [range(first, sum(self.counts)), self._sides, *self._waiting]
        arrays = [
            pa.array(part, field.type) for part, field in zip(values, self._schema, strict=True)
        ]
        self._batches.append(pa.record_batch(arrays, schema=self._schema))
        self._sides = []
        self._waiting = [[] for _ in self.columns]

    def is_uniform(self) -> bool:
        """Whether no column has two different values, so that there is nothing to compare."""
        self._flush()
        return not self._told()

    def _told(self) -> list[str]:
        table = pa.Table.from_batches(self._batches, schema=self._schema)
        return [one for one in self.columns if len(table[one].drop_null().unique()) > 1]

    def table(self) -> Any:
        """The pyarrow table. Columns in which no two values differ are left out: they tell nothing.

        Raises SegueError if no column is left.
        """
        self._flush()
        told = self._told()
        table = pa.Table.from_batches(self._batches, schema=self._schema)
        table = table.select(["unique_id", "side", *told])
        self._batches = []
        if not told:
            raise SegueError(
                "no column to compare has different values: "
                f"{', '.join(self.columns)} are empty or always the same"
            )
        return table


class Truth:
    """A column and a pattern whose group names the person, such as `rec_id:^rec-(\\d+)`."""

    def __init__(self, text: str) -> None:
        column, colon, pattern = text.partition(":")
        self.column = column.strip()
        if not colon or not self.column:
            raise SegueError(
                f"--truth {text!r}: give a column and a pattern, such as 'rec_id:^rec-(\\d+)'"
            )
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise SegueError(f"--truth {text!r}: the pattern can't be read: {error}") from None
        if not self._pattern.groups:
            raise SegueError(
                f"--truth {text!r}: the pattern has no group; put the part that names the person "
                "in parentheses, such as (\\d+)"
            )

    def person(self, cell: str) -> str | None:
        """The person that a cell names; None if the pattern does not fit."""
        found = self._pattern.search(cell)
        return found and found[1]


def read_file(
    path: Path, columns: MatchMap, into: Records, *, side: int = 0, truth: Truth | None = None
) -> list[str]:
    """Add the rows of a CSV or Parquet file. Returns the person of each row, if `truth` is given.

    Raises SegueError that names the file and the fix: not readable, a column is missing, no rows.
    """
    extra = [truth.column] if truth else []
    file = open_rows(
        path,
        [*columns.names(), *extra],
        encoding=columns.encoding,
        delimiter=columns.delimiter,
    )
    missing = [name for name in (*columns.names(), *extra) if name not in file.columns]
    if missing:
        known = ", ".join(name for name in file.columns if name)
        source = "--truth" if missing[0] in extra else "the column map"
        raise SegueError(f"{path} has no column {missing[0]!r} ({source}); its columns are {known}")
    places = [[file.columns.index(name) for name in columns.columns[one]] for one in into.columns]
    people: list[str] = []
    for line, cells in _rows(path, file.rows, file.unit):
        into.add([" ".join(cells[at] for at in where) for where in places], side)
        if truth:
            cell = cells[file.columns.index(truth.column)].strip()
            person = truth.person(cell)
            if person is None:
                raise SegueError(
                    f"{path}, {file.unit} {line}: the pattern of --truth does not fit {cell!r}"
                )
            people.append(person)
    if not into.counts[side]:
        raise SegueError(f"{path} has no rows")
    return people


def _rows(path: Path, rows: Callable[[], Iterator[Any]], unit: str) -> Iterator[tuple[int, Any]]:
    for row in rows():
        if row.fault:
            raise SegueError(f"{path}, {unit} {row.line}: {row.fault}")
        yield row.line, row.cells
