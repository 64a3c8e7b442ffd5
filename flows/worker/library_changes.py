"""Log that a file of the library or the policy has changed since this process read it."""

import logging
from collections.abc import Iterator
from pathlib import Path

from config.settings import Settings

log = logging.getLogger(__name__)

# Files with definitions beside the policy.
_DATA = ("segments.toml", "traits.toml", "personas.toml")

_Files = dict[Path, tuple[int, int]]


class LibraryChanges:
    """Compares the files with those at its creation.

    A process keeps the versions with which it has started: people in a journey would otherwise
    change their version in the middle of a step.
    """

    def __init__(self, settings: Settings) -> None:
        self._library, self._definitions = settings.library, settings.definitions
        self._policy = settings.policy_file
        self._seen = dict(self._files())

    def warn(self) -> None:
        """Log each change once."""
        now: _Files = dict(self._files())
        changed = {path for path in (*self._seen, *now) if self._seen.get(path) != now.get(path)}
        self._seen = now
        for path in sorted(changed):
            log.warning(
                "%s has changed; restart the workers, the staff site and Prefect's runner to take "
                "it up (segue check examines it first)",
                path,
            )

    def _files(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        data = [self._definitions / name for name in _DATA]
        found = [self._policy, *data, *self._library.glob("*.py"), *self._library.glob("*/*")]
        for path in found:
            if path.is_file() and not path.name.startswith("."):
                about = path.stat()
                yield path, (about.st_mtime_ns, about.st_size)
