"""Read `segments.toml`: segments as data, beside the policy file.

Each table is a segment: its name, a description and one condition
(profiles/conditions/reading.py).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config.errors import SegueError
from config.text.files import read_toml
from journeys.definition.segment import Segment
from profiles.conditions.reading import read_condition

FILE = "segments.toml"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def read_tables(file: Path) -> dict[str, Any]:
    """The content of a TOML file; nothing if it does not exist. Raises SegueError."""
    return read_toml(file) if file.exists() else {}


def read_segments(file: Path) -> Iterator[Segment | SegueError]:
    """Each segment of the file, or what is wrong with it; nothing if there is no file."""
    try:
        tables = read_tables(file)
    except SegueError as error:
        yield error
        return
    for name, table in tables.items():
        try:
            yield read_one(name, table, f"{file}, segment {name!r}")
        except SegueError as error:
            yield error


def read_one(name: str, table: object, place: str) -> Segment:
    """The segment of a table. Raises SegueError that begins with `place`."""
    if not _NAME.fullmatch(name):
        raise SegueError(
            f"{place}: a name has lower-case letters, digits, - and _, such as lapsed-germans"
        )
    if not isinstance(table, dict):
        raise SegueError(f'{place}: write a table: [{name}], and under it description = "..."')
    description = table.get("description")
    if not isinstance(description, str) or not description:
        raise SegueError(f'{place}: it needs description = "...", which the forms show')
    conditions = {key: value for key, value in table.items() if key != "description"}
    return Segment(name, description, read_condition(conditions, place))
