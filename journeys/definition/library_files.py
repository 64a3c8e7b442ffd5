"""Warn of files in a library that are not read, which their names may be the reason of."""

from collections.abc import Iterator
from pathlib import Path

from channels.templates.compile import template_suffixes
from config.text.suggestions import alike
from journeys.definition.catalog import Catalog

_JOURNEY, _SEGMENTS = "journey.py", "segments.py"
_NO_PART = ("__init__.py", "README.md")


def unread_files(library: Path, catalog: Catalog) -> Iterator[str]:
    """A warning for each such file. catalog: what was read from the library."""
    # A journey's name need not be that of its folder, but it has read the folder's templates.
    used = {
        frozenset(version.sources): {
            message.template for step in version.journey.sends() for message in step.messages
        }
        for version in catalog.current.values()
    }
    for path in sorted(library.iterdir()):
        if path.name.startswith((".", "__")) or path.name in (_SEGMENTS, *_NO_PART):
            continue
        if path.is_file():
            yield _unread(path, alike(path.name, [_SEGMENTS]))
            continue
        if not (path / _JOURNEY).exists() and any(path.iterdir()):
            programs = [one.name for one in path.glob("*.py")]
            near = next((one for one in programs if alike(one, [_JOURNEY])), None)
            advice = f"; rename {near}" if near else ""
            yield f"{path} has no {_JOURNEY}, so it is no journey{advice}"
            continue
        yield from _in_journey(path, used)


def _in_journey(folder: Path, used: dict[frozenset[str], set[str]]) -> Iterator[str]:
    suffixes = template_suffixes()
    sources = frozenset(one.name for one in folder.iterdir() if one.name.endswith(suffixes))
    for path in sorted(folder.iterdir()):
        if path.is_dir() or path.name.startswith(".") or path.name in (_JOURNEY, *_NO_PART):
            continue
        template, dot, rest = path.name.partition(".")
        if not path.name.endswith(suffixes):
            suffix = alike(dot + rest, suffixes)
            yield _unread(path, suffix and template + suffix)
        elif sources in used and template not in used[sources]:
            instead = alike(template, used[sources])
            yield _unread(path, instead and path.name.replace(template, instead, 1))


def _unread(path: Path, instead: str | None) -> str:
    advice = f"; did you mean {instead}?" if instead else ""
    return f"{path} is not used{advice}"
