"""Read text and TOML files; errors name the file, the line and the fix."""

import re
import tomllib
from pathlib import Path
from typing import Any

from config.errors import SegueError

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def read_text(path: Path) -> str:
    """The text of a file. Raises SegueError if there is none, or if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SegueError(f"the file {path} does not exist") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise SegueError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise SegueError(f"the file {path} can't be read: {error.strerror}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and keys of a TOML file. Raises SegueError naming the line that is wrong."""
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        lines = text.splitlines() or [""]
        place = _PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else len(lines)
        what = _PLACE.sub("", str(error))
        raise SegueError(
            f"{path}, line {line}: not valid TOML ({what}): {lines[line - 1].strip()!r}; write "
            'name = value, with text in quotes: timezone = "Europe/London"'
        ) from error
