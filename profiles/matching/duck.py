"""An embedded DuckDB for one match. It uses no network, little memory, and a private folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

# What DuckDB uses before it writes to its folder; Python and Splink need the rest of 2 GB.
_MEMORY = "900MB"
_SETTINGS: dict[str, Any] = {
    "memory_limit": _MEMORY,
    "preserve_insertion_order": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


class Duck:
    """A connection; each statement is finished before the next."""

    def __init__(self, folder: Path) -> None:
        self.connection: Any = duckdb.connect(
            ":memory:", config={**_SETTINGS, "temp_directory": str(folder)}
        )

    def run(self, sql: str) -> None:
        self.connection.execute(sql).fetchall()

    def rows(self, sql: str) -> list[Any]:
        found: list[Any] = self.connection.execute(sql).fetchall()
        return found


@contextmanager
def duck() -> Iterator[Duck]:
    """A database that ends with the block; what it wrote is deleted."""
    with TemporaryDirectory(prefix="segue-match-") as folder:
        opened = Duck(Path(folder))
        try:
            yield opened
        finally:
            opened.connection.close()
