"""Read rows of CSV files with a header, in a dialect of dialect.py, and of Parquet files as text.

An invalid row is returned with its fault and does not affect the others. An invalid file raises
SegueError before its first row.

RefusedRows writes refused rows to a CSV file that can be imported again. Cells that begin like a
formula get an apostrophe there, because a spreadsheet would execute them; reading the file removes
it.
"""

import csv
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from config.access.private_files import open_private
from config.errors import SegueError
from config.text.invisible_characters import trimmed
from profiles.imports.dialect import Dialect, find_dialect

_BATCH = 2_000
# From this number on a float represents several whole numbers.
_EXACT = 2**53
# Characters that start a formula in spreadsheets (OWASP, "CSV Injection"), with any apostrophes
# before them.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
# The name of the first column in the file of refused rows.
_REASON = ("reason", "refused")
_PLACE = re.compile(r"(line|row) [0-9]+: ")


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: its place (line of a CSV file, number of a Parquet row) and its cells as text."""

    line: int
    cells: list[str]  # one for each column, unless there is an error
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """An open file: its columns, the number of rows, and the rows."""

    unit: str  # what FileRow.line counts: "line" or "row"
    columns: list[str]
    total: int
    rows: Callable[[], Iterator[FileRow]]
    dialect: Dialect | None = None  # of a CSV file
    typed: frozenset[str] = frozenset()  # columns whose values have a type in the file itself


def open_rows(
    path: Path,
    names: Collection[str] = (),
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> RowFile:
    """Open a file and count its rows. Raises SegueError if it is not readable as a whole.

    The parameters are those of `find_dialect`.
    """
    if not path.is_file():
        raise SegueError(f"the file {path} does not exist")
    try:
        file = (
            _parquet(path)
            if path.suffix in (".parquet", ".pq")
            else _csv(path, find_dialect(path, names, encoding=encoding, delimiter=delimiter))
        )
    except OSError as error:
        raise SegueError(f"{path} can't be read: {error.strerror}") from error
    twice = [name for name, times in Counter(file.columns).items() if name and times > 1]
    if twice:
        raise SegueError(f"{path} has the column {twice[0]!r} twice; rename one of them")
    return file


def _csv(path: Path, dialect: Dialect) -> RowFile:
    records = _records(path, dialect)
    header = next(records, None)
    total = sum(1 for _ in records)
    if header is None:
        raise SegueError(f"{path} is empty; its first line must name the columns")
    if header.fault:
        raise SegueError(f"{path} has no header that can be read: {header.fault}")

    names = header.cells
    refused = names[0] in _REASON
    if refused:
        names = [_unprotected(name) for name in names]

    def rows() -> Iterator[FileRow]:
        records = _records(path, dialect)
        next(records)
        for row in records:
            if refused and row.cells and _PLACE.match(row.cells[0]):
                place, *cells = row.cells
                row = replace(row, cells=[place, *map(_unprotected, cells)])
            yield row

    return RowFile(
        unit="line",
        columns=[trimmed(name) for name in names],
        total=total,
        rows=rows,
        dialect=dialect,
    )


def _protected(cell: str) -> str:
    """The cell, with an apostrophe if a spreadsheet would execute it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _unprotected(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class _Lines:
    """The lines of a file; all but the first of the current record can be read again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._back: deque[str] = deque()
        self.record: list[str] = []  # the lines of the current record
        self.before = 0  # the number of lines before it

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._file)
        self.record.append(line)
        return line

    def next_record(self) -> None:
        self.before += len(self.record)
        self.record.clear()

    def keep_only_first(self) -> str:
        """Return the record's first line; the others are read again."""
        self._back.extendleft(reversed(self.record[1:]))
        del self.record[1:]
        return self.record[0].rstrip("\r\n")


def _records(path: Path, dialect: Dialect) -> Iterator[FileRow]:
    """The header, then the rows, without those that have no text in any cell.

    Spreadsheets add empty cells to the end of rows, and leave them out. A row may have more of them
    than the header, or fewer if the header has no name for them.

    A stray quote makes one record of all lines up to the next quote. So if a record of several
    lines is invalid, only its first line is refused and reading continues at the second.
    """
    with path.open(encoding=dialect.encoding, newline="") as file:
        lines = _Lines(file)
        for _ in range(dialect.skip):
            next(lines)
        reader = csv.reader(lines, delimiter=dialect.delimiter, strict=True)
        width = named = 0
        while True:
            lines.next_record()
            fault = None
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault, cells = f"the row is not valid CSV ({error})", []
            if not fault and not any(map(trimmed, cells)):
                continue
            if not width:
                width, named = len(cells), _named(cells)
            if not fault and len(cells) != width and not any(map(trimmed, cells[width:])):
                cells = cells[:width]
                if len(cells) >= named:
                    cells += [""] * (width - len(cells))
            if not fault and len(cells) != width:
                fault = f"the row has {len(cells)} fields, the header {width}"
            if fault and (not cells or len(lines.record) > 1):
                if len(lines.record) > 1:
                    fault = "a quote is not closed"
                cells = [lines.keep_only_first()]
            if not fault and any("\0" in cell for cell in cells):
                fault = "the row contains a NUL character"
            yield FileRow(lines.before + 1, cells, fault)


def _named(header: Sequence[str]) -> int:
    """The number of columns up to the last one with a name."""
    return max((place for place, name in enumerate(header, 1) if trimmed(name)), default=0)


def _parquet(path: Path) -> RowFile:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise SegueError(f"{path} is not a Parquet file: {error}") from error

    def rows() -> Iterator[FileRow]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=_BATCH):
                columns = [_plain(column).to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    cells = [_text(value) for value in values]
                    nul = any("\0" in cell for cell in cells)
                    fault = "the row contains a NUL character" if nul else None
                    yield FileRow(number, cells, fault)
        except (pa.ArrowException, OSError) as error:
            raise SegueError(f"{path} can't be read after row {number}: {error}") from error

    return RowFile(
        unit="row",
        columns=list(file.schema_arrow.names),
        total=file.metadata.num_rows,
        rows=rows,
        typed=frozenset(one.name for one in file.schema_arrow if not _is_text(one.type)),
    )


def _is_text(kind: Any) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
    )


def _plain(column: Any) -> Any:
    """Convert timestamps to Python's precision: microseconds; UTC if they have a zone."""
    if not pa.types.is_timestamp(column.type):
        return column
    return column.cast(pa.timestamp("us", tz="UTC" if column.type.tz else None), safe=False)


def _text(value: Any) -> str:
    """A Parquet value as the text of a CSV cell."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        # pandas stores integer columns with missing values as floats: 12346.0 is customer 12346.
        # From 2^53 on a float represents several whole numbers, so it is not converted.
        return str(int(value)) if abs(value) < 2**53 else f"{value:.17e}"
    if isinstance(value, date):  # datetimes are dates
        return value.isoformat()
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    return orjson.dumps(value, default=str).decode()  # true, false, lists, structures


class RefusedRows:
    """Writes `<input>.refused.csv`: the reason, then the original cells.

    The reason comes first because a row may have more fields than the header. Only the owner can
    read the file.
    """

    def __init__(self, source: Path, file: RowFile) -> None:
        self.path = source.with_name(source.name + ".refused.csv")
        self._source = file
        self._started = False
        dialect = file.dialect
        # The byte order mark overrides an encoding that the map names.
        self._encoding = "utf-8" if dialect is None or dialect.encoding == "utf-8" else "utf-8-sig"
        self._delimiter = "," if dialect is None else dialect.delimiter
        with self._writable():
            self.path.unlink(missing_ok=True)

    def write(self, refused: Sequence[tuple[FileRow, str]]) -> None:
        if not refused:
            return
        with (
            self._writable(),
            open(self.path, "a", encoding=self._encoding, newline="", opener=open_private) as out,
        ):
            writer = csv.writer(out, delimiter=self._delimiter)
            if not self._started:
                taken = _REASON[0] in self._source.columns
                names = map(_protected, self._source.columns)
                writer.writerow([_REASON[taken], *names])
                self._started = True
            for row, reason in refused:
                place = f"{self._source.unit} {row.line}"
                writer.writerow([f"{place}: {reason}", *map(_protected, row.cells)])

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SegueError(
                f"the refused rows can't be written to {self.path}: {error.strerror}; "
                "move the input to a writable directory"
            ) from error
