"""Files with personal data or secrets, which only their owner can read.

Folders are 0700 and files 0600. SQLite gives its -wal and -shm files the mode of the database, so
a private database stays private.
"""

import contextlib
import logging
import os
import stat
from pathlib import Path

from config.errors import SegueError

log = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# The umask of processes that create files themselves, such as Prefect.
UMASK = _OTHERS
# The suffixes of a database and of the files beside it.
_BESIDE = ("", "-wal", "-shm", "-journal", "-queue", "-turn")


def open_private(path: str, flags: int) -> int:
    """An `opener` for open(): sets mode 0600 on new and existing files."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def make_private_folder(folder: Path) -> None:
    """Create a folder and its parents; only the owner gets access.

    Raises SegueError for a folder with the sticky bit, such as /tmp, which others use too.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & stat.S_ISVTX:
        raise SegueError(
            f"{folder} is a shared folder, but Segue stores customer data in a folder that only "
            f"its user can read; set SEGUE_DATA_DIR to another one, such as {folder / 'segue'}"
        )
    _close_to_others(folder)


def tighten_folder(folder: Path) -> None:
    """Make an existing folder and all its content private; links are not followed."""
    make_private_folder(folder)
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _close_to_others(Path(root, name))


def tighten_database(file: Path) -> None:
    """Create a private SQLite database, or make an existing one private, with the files beside it.

    An existing database is not opened: closing a file releases all locks that the process holds on
    it (POSIX), which can damage an SQLite database. If the file cannot be created, SQLite reports
    it on opening.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    for ending in _BESIDE:
        _close_to_others(file.with_name(file.name + ending))


def _close_to_others(path: Path) -> None:
    """Remove the rights of group and others. Missing files and links are ignored."""
    try:
        mode = path.lstat().st_mode
        if mode & _OTHERS and not stat.S_ISLNK(mode) and not stat.S_ISSOCK(mode):
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("others can read %s: %s. Run: chmod go= %s", path, error.strerror, path)
