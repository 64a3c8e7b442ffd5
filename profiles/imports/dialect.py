"""Find out the encoding and the delimiter of a CSV file.

The encoding is decided by all bytes, in constant memory; the delimiter by the header, which must
have the columns that the map names.
"""

import codecs
import csv
import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from config.errors import SegueError
from config.text.invisible_characters import trimmed

_DELIMITERS = (",", ";", "\t", "|")
# Bytes of the file that the delimiter, and UTF-16 without a mark, are found from.
_SAMPLE = 64 * 1024
_BLOCK = 1024 * 1024
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WINDOWS = "windows-1252"
# Western languages never write three such letters in a row; Greek or Cyrillic ones do.
_NOT_WESTERN = re.compile(rb"[\xc0-\xff]{3}")
# Excel's line that names the delimiter.
_SEP = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_WORD = re.compile(r"\w*[^\W\d_a-zA-Z]\w*")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}


class Dialect(NamedTuple):
    """How a CSV file is written.

    encoding: Python's name. skip: lines before the header (0 or 1). guessed: the encoding is the
    most likely one; the bytes do not prove it. examples: words with letters outside ASCII.
    """

    encoding: str
    delimiter: str
    skip: int
    guessed: bool = False
    examples: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """For the report."""
        name = _NAMES.get(self.delimiter, repr(self.delimiter))
        encoding = self.encoding.removesuffix("-sig")
        shown = f" ({', '.join(self.examples)})" if self.examples else ""
        guess = ", most likely" if self.guessed else ""
        return f"encoding {encoding}{guess}{shown}, delimiter {name}"


def find_dialect(
    path: Path,
    names: Collection[str] = (),
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> Dialect:
    """The dialect of a file. Raises SegueError if its encoding can't be found out, OSError.

    Parameters
    ----------
    names: the columns that the header should have.
    encoding, delimiter: as the map names them. A byte order mark and a line `sep=` override them.
    """
    with path.open("rb") as file:
        sample = file.read(_SAMPLE)
    found, guessed = _marked(sample) or encoding, False
    if found is None:
        found = _unmarked_utf16(sample)
    if found is None:
        found = _by_all_bytes(path)
        guessed = found == WINDOWS
    else:
        _check(path, found)
    # A character or a line may be cut off at the end of the sample.
    text = codecs.getincrementaldecoder(found)(errors="replace").decode(sample)
    first = re.split(r"\r\n|\r|\n", text, maxsplit=1)[0]
    sep = _SEP.fullmatch(first.strip())
    if sep:
        text = text[len(first) :].lstrip("\r\n")
    examples = tuple(dict.fromkeys(_WORD.findall(text)))[:3] if guessed else ()
    return Dialect(
        encoding=found,
        delimiter=sep[1] if sep else delimiter or _delimiter(text, names),
        skip=1 if sep else 0,
        guessed=guessed,
        examples=examples,
    )


def _marked(sample: bytes) -> str | None:
    return next((name for mark, name in _MARKS if sample.startswith(mark)), None)


def _unmarked_utf16(sample: bytes) -> str | None:
    """UTF-16 without a byte order mark: nearly every second byte of Western text is NUL."""
    pairs = len(sample) // 2
    if pairs >= 2:
        for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
            other = sample[1 - first :: 2].count(0)
            if sample[first::2].count(0) > pairs * 0.7 and other < pairs * 0.1:
                return name
    return None


def _by_all_bytes(path: Path) -> str:
    """UTF-8, or Windows-1252 if no line is UTF-8 beyond ASCII.

    Latin-1 is the same as Windows-1252 for every character that text has.
    """
    utf8 = False
    line_number, bad, western = 0, 0, True
    with path.open("rb") as file:
        for line in file:
            line_number += 1
            if line.isascii():
                continue
            try:
                line.decode()
                utf8 = True
            except UnicodeDecodeError:
                bad = bad or line_number
                western = western and not _NOT_WESTERN.search(line) and _is_windows(line)
            if bad and (utf8 or not western):
                break
    if not bad:
        return "utf-8"
    if utf8:
        raise SegueError(
            f"{path} is not UTF-8 (line {bad}), though other lines are; save it as UTF-8"
        )
    if not western:
        raise SegueError(
            f"{path} is neither UTF-8 nor Windows-1252 (line {line_number}); save it as UTF-8 or "
            'name its encoding in the map, for example encoding = "windows-1251"'
        )
    return WINDOWS


def _is_windows(line: bytes) -> bool:
    try:
        line.decode(WINDOWS)
    except UnicodeDecodeError:
        return False
    return True


def _check(path: Path, encoding: str) -> None:
    """Raises SegueError if the file is not in this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 0
    with path.open("rb") as file:
        try:
            while block := file.read(_BLOCK):
                lines += decoder.decode(block).count("\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            lines += error.object[: error.start].decode(encoding, "replace").count("\n")
            shown = encoding.removesuffix("-sig").upper()
            raise SegueError(
                f"{path} is not {shown} (line {lines + 1}); save it as UTF-8, or correct "
                "`encoding` in the map"
            ) from None


def _delimiter(text: str, names: Collection[str]) -> str:
    """The delimiter with which the header has most of the names, else most columns."""

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        columns = [trimmed(cell) for cell in header]
        return sum(name in columns for name in names), len(columns)

    return max(_DELIMITERS, key=fit)
