"""Prefect's server of the tests: a copy of its database, and this process as its client."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from config.access.private_files import make_private_folder
from config.settings import Settings


def keep_database(settings: Settings, template: Path) -> None:
    """Copy the database of a server that runs."""
    with (
        closing(sqlite3.connect(_database(settings))) as ours,
        closing(sqlite3.connect(template)) as copy,
    ):
        ours.backup(copy)
    template.chmod(0o600)


def give_database(settings: Settings, template: Path) -> None:
    """Let the server begin with the copy, if there is one.

    With an empty database it takes 5 s of CPU time to make its tables.
    """
    if template.exists():
        make_private_folder(settings.data_dir)
        make_private_folder(_database(settings).parent)
        shutil.copy(template, _database(settings))


def _database(settings: Settings) -> Path:
    return settings.data_dir / "prefect" / "prefect.db"


@contextmanager
def client_of(settings: Settings) -> Iterator[None]:
    """This process talks to the server with these settings."""
    ours = {
        PREFECT_API_URL: f"{settings.prefect_url}/api",
        PREFECT_HOME: settings.data_dir / "client",
    }
    with temporary_settings(ours):
        yield
