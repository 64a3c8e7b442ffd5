"""The catalog: loads and checks the journeys and segments of `library/`.

A journey has a folder with `journey.py`, which sets `journey = Journey(...)`, and its templates.
Segue does not start with an invalid journey; the error names the journey, the step and the fix.
"""

import importlib.util
import inspect
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Select, select, tuple_

from channels.templates.compile import template_suffixes
from config.database.arrays import InsertRows, rows_of
from config.database.engine import Tx
from config.errors import SegueError
from config.policy import Policy
from config.text.files import read_text
from config.text.strict import describe_errors
from config.text.suggestions import alike, meant
from journeys import dsl
from journeys.definition import segment_file
from journeys.definition.journey import Journey, SegmentEntry, Version
from journeys.definition.nesting import nest, with_segments
from journeys.definition.persona_file import FILE as PERSONAS_FILE
from journeys.definition.persona_file import read_personas
from journeys.definition.segment import Segment
from journeys.definition.trait_names import unknown_traits
from journeys.definition.validation import asks_to_confirm, find_faults
from journeys.tables import journey_versions, promotions
from profiles.computed.definitions import FILE as TRAITS_FILE
from profiles.computed.definitions import ComputedTraits, read_traits
from profiles.conditions.language import Condition, everyone

LIBRARY = Path(__file__).parents[1] / "library"
# The journey that sends double opt-in e-mails, if the library has none that does.
CONFIRM = Path(__file__).parents[1] / "confirm_subscription" / "journey.py"
_EVERYONE = Segment("everyone", "Every customer", everyone())
_ONE_MODULE = "; a journey imports what it needs with `from journeys.dsl import ...`"
# What Python says of a call with a wrong argument, and of one without a needed one.
_CALLED = r"(\w+?)(?:\.__(?:init|new)__)?\(\) "
_ARGUMENT = re.compile(_CALLED + r"got an unexpected keyword argument '(\w+)'")
_MISSING = re.compile(_CALLED + r"missing \d+ required (?:\w+[- ])*arguments?: (.+)")


_v = journey_versions.c
_INSERT = InsertRows(_v.journey, _v.version, _v.definition, _v.created_at, on_conflict="DO NOTHING")
_r = promotions.c
_PROMOTIONS = select(_r.journey, _r.step, _r.arm)
_ALL = select(_v.journey, _v.version, _v.definition)
_KEYS = select(_v.journey, _v.version)
_OF_KEYS = _ALL.where(
    tuple_(_v.journey, _v.version).in_(select(rows_of("keys", _v.journey, _v.version)))
)


class Catalog:
    """The current version of each journey, the segments, and older versions from the database.

    traits: the computed traits. personas: in their order. promotions: whether promoted arms change
    the current versions.
    """

    def __init__(
        self,
        current: Mapping[str, Version],
        segments: Mapping[str, Segment],
        *,
        traits: ComputedTraits | None = None,
        personas: Sequence[Segment] = (),
        promotions: bool = True,
    ) -> None:
        self.traits = traits or ComputedTraits()
        self.personas = tuple(personas)
        self._promotions = promotions
        self.current = dict(current)
        # As the files have them, without promoted arms.
        self._files = dict(current)
        self.segments = dict(segments)
        self._known = {(name, version.digest): version for name, version in self.current.items()}

    def journey(self, name: str) -> Version:
        """The current version of a journey. Raises SegueError if there is none."""
        if name not in self.current:
            raise SegueError(
                f"there is no journey {name!r}; {meant(name, self.current)}there are: "
                f"{', '.join(sorted(self.current))}"
            )
        return self.current[name]

    def segment(self, name: str) -> Segment:
        """The segment of that name. Raises SegueError if there is none."""
        if name not in self.segments:
            raise SegueError(
                f"there is no segment {name!r}; {meant(name, self.segments)}there are: "
                f"{', '.join(sorted(self.segments))}"
            )
        return self.segments[name]

    def entry_segment(self, version: Version) -> Condition | None:
        """The condition of the segment that a version enters on; None for other entry types."""
        entry = version.journey.entry
        return self.segment(entry.segment).condition if isinstance(entry, SegmentEntry) else None

    def register(self, tx: Tx) -> None:
        """Store the current versions, and load all stored versions of all journeys.

        The current version of a journey is the one in its file, with the arms that are promoted.
        Enrollments finish on the version they entered, so versions are stored and never deleted.
        """
        self.current = self._with_promotions(tx)
        self._known.update(
            {(name, version.digest): version for name, version in self.current.items()}
        )
        _INSERT(
            tx.conn,
            [
                (name, version.digest, version.definition, tx.now)
                for name, version in sorted(self.current.items())
            ],
        )
        self._load(tx, _ALL, {})

    def learn(self, tx: Tx, wanted: Iterable[tuple[str, str]]) -> None:
        """Load the given versions (journey, digest) that another process has since registered."""
        missing = [key for key in wanted if key not in self._known]
        if missing:
            self._load(tx, _OF_KEYS, {"keys": missing})

    def catch_up(self, tx: Tx) -> None:
        """Load all versions that other processes have since registered, and follow promotions.

        A promoted version that nobody has stored, because the promoting process had another
        library, becomes current when a process registers its library.
        """
        self.learn(tx, [(row.journey, row.version) for row in tx.conn.execute(_KEYS)])
        for name, version in self._with_promotions(tx).items():
            if (stored := self._known.get((name, version.digest))) is not None:
                self.current[name] = stored

    def _with_promotions(self, tx: Tx) -> dict[str, Version]:
        """The journeys of the files, with their promoted arms; others are ignored."""
        arms = tx.cached("promotion", _read_promotions) if self._promotions else {}
        return {
            name: version.with_promotions(arms[name]) if name in arms else version
            for name, version in self._files.items()
        }

    def _load(
        self, tx: Tx, stored: Select[tuple[str, str, dict[str, Any]]], given: Mapping[str, Any]
    ) -> None:
        for journey, digest, definition in tx.conn.execute(stored, given):
            if (journey, digest) not in self._known:
                self._known[journey, digest] = Version.from_definition(definition, digest)

    def version(self, journey: str, digest: str) -> Version:
        """A version by its digest. Raises KeyError if this catalog has not loaded it."""
        return self._known[journey, digest]

    def versions(self, journey: str) -> list[Version]:
        """Every version of a journey, the current one first."""
        current = self.current.get(journey)
        # A copy, because another thread may call `learn`.
        known = list(self._known.items())
        found = [version for (name, _), version in known if name == journey]
        return sorted(found, key=lambda version: version is not current)

    def awaited_traits(self) -> set[str]:
        """The attributes that segment entries, WaitUntil steps and exit rules read."""
        return {name for one in self._awaited() for name in one.trait_names()}

    def awaited_computed(self) -> set[str]:
        """The computed traits that they read."""
        return {name for one in self._awaited() for name in one.computed_names()}

    def _awaited(self) -> list[Condition]:
        conditions = [
            condition
            for version in list(self._known.values())
            for condition in version.journey.awaited()
        ]
        segments = map(self.entry_segment, list(self.current.values()))
        conditions += [condition for condition in segments if condition is not None]
        return conditions

    def journeys(self) -> list[str]:
        """The names of all loaded journeys, including those with only older versions."""
        return sorted({name for name, _ in list(self._known)})


def _read_promotions(tx: Tx) -> dict[str, dict[str, str]]:
    """The promoted arm of each step, by journey."""
    arms: dict[str, dict[str, str]] = {}
    for journey, step, arm in tx.conn.execute(_PROMOTIONS):
        arms.setdefault(journey, {})[step] = arm
    return arms


def load_catalog(
    policy: Policy, library: Path = LIBRARY, definitions: Path | None = None
) -> Catalog:
    """Load every journey folder, `segments.py` and `segments.toml`. Raises SegueError on the first
    error.

    With double opt-in, adds the confirmation journey if the library has none.
    definitions: the folder with `segments.toml`; None: there is none.
    """
    catalog, faults = read_library(policy, library, definitions)
    for fault in faults:
        raise fault
    return catalog


def read_library(
    policy: Policy, library: Path = LIBRARY, definitions: Path | None = None
) -> tuple[Catalog, list[SegueError]]:
    """The valid part of a library, and its errors. As `load_catalog`, but never raises SegueError.

    Whether journeys fit each other is examined once each of them is valid.
    """
    faults: list[SegueError] = []
    segments = {_EVERYONE.name: _EVERYONE}
    try:
        segments = _load_segments(library / "segments.py")
    except SegueError as error:
        faults.append(error)
    if definitions is not None:
        faults += _add_segments(segments, definitions / segment_file.FILE)
    traits = ComputedTraits()
    if definitions is not None:
        traits, unreadable = read_traits(definitions / TRAITS_FILE)
        faults += unreadable
    segments, unnested = nest(segments)
    if not faults:  # a segment that can't be read would be missed by those that name it
        faults += unnested
    personas: list[Segment] = []
    if definitions is not None and not faults:
        personas, faults = read_personas(definitions / PERSONAS_FILE, segments)
    current: dict[str, Version] = {}
    for file in sorted(library.glob("*/journey.py")):
        try:
            _add(current, file)
        except SegueError as error:
            faults.append(error)
    if policy.double_opt_in and not any(asks_to_confirm(one.journey) for one in current.values()):
        _add(current, CONFIRM)
    if not faults:
        current, faults = _with_segments(current, segments)
    if not faults:
        faults += unknown_traits(segments, personas, current, traits.all)
        faults += find_faults(current, segments, policy)
    return Catalog(current, segments, traits=traits, personas=personas), faults


def _add(current: dict[str, Version], file: Path) -> None:
    version = _load_version(file)
    name = version.journey.name
    if name in current:
        raise SegueError(f"{file}: there is another journey named {name!r}; rename one of them")
    current[name] = version


def _load_version(file: Path) -> Version:
    folder = file.parent
    found = getattr(_execute(file), "journey", None)
    if not isinstance(found, Journey):
        raise SegueError(f"{file}: it must set journey = Journey(...)")
    sources = {
        path.name: read_text(path)
        for path in sorted(folder.iterdir())
        if path.name.endswith(template_suffixes())
    }
    return Version(found, sources)


def _load_segments(file: Path) -> dict[str, Segment]:
    segments = {_EVERYONE.name: _EVERYONE}
    found = getattr(_execute(file), "segments", None) if file.exists() else []
    if not isinstance(found, list) or not all(isinstance(one, Segment) for one in found):
        raise SegueError(f"{file}: it must set segments = [Segment(...), ...]")
    for segment in found:
        if segment.name in segments:
            raise SegueError(f"{file}: the segment {segment.name!r} is defined twice; rename one")
        segments[segment.name] = segment
    return segments


def _add_segments(segments: dict[str, Segment], file: Path) -> list[SegueError]:
    """Add the segments of a data file. Returns the errors in it."""
    faults = []
    for found in segment_file.read_segments(file):
        if isinstance(found, SegueError):
            faults.append(found)
        elif found.name in segments:
            other = "Segue itself" if found.name == _EVERYONE.name else "segments.py"
            faults.append(
                SegueError(
                    f"{file}, segment {found.name!r}: {other} has a segment of this name; "
                    "rename one of them"
                )
            )
        else:
            segments[found.name] = found
    return faults


def _with_segments(
    versions: Mapping[str, Version], segments: Mapping[str, Segment]
) -> tuple[dict[str, Version], list[SegueError]]:
    """The versions with the conditions of the segments that they name, and the errors."""
    filled, faults = dict(versions), list[SegueError]()
    for name, version in versions.items():
        try:
            filled[name] = with_segments(version, segments)
        except SegueError as error:
            faults.append(error)
    return filled, faults


def _execute(file: Path) -> ModuleType:
    name = f"segue_library_{file.parent.name}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        raise SegueError(f"{_place(file, error)}: {describe_errors(error)}") from error
    except SegueError as error:
        raise SegueError(f"{_place(file, error)}: {error}") from error
    except ImportError as error:
        raise SegueError(f"{_place(file, error)}: it can't be loaded: {_import(error)}") from error
    except Exception as error:
        what = _in_own_words(error) or f"{type(error).__name__}: {error}"
        raise SegueError(f"{_place(file, error)}: it can't be loaded: {what}") from error
    return module


def _in_own_words(error: Exception) -> str | None:
    """What is wrong with a name or an argument in a library file; None: something else is."""
    text = str(error)
    if isinstance(error, NameError) and error.name:
        found = alike(error.name, dsl.__all__)
        advice = f"; did you mean {found!r}? Import it: from journeys.dsl import {found}"
        return f"there is no {error.name!r} here{advice if found else _ONE_MODULE}"
    if not isinstance(error, TypeError):
        return None
    if match := _ARGUMENT.search(text):
        called, name = match.groups()
        known = _arguments(called)
        return (
            f"{called} has no argument {name!r}; {meant(name, known)}"
            f"it has: {', '.join(known) or 'none'}"
        )
    if match := _MISSING.search(text):
        return f"{match[1]} also needs {match[2].strip()}"
    return None


def _arguments(called: str) -> list[str]:
    """The arguments of something in journeys.dsl."""
    found = getattr(dsl, called, None)
    if not callable(found):
        return []
    return [name for name in inspect.signature(found).parameters if not name.startswith("_")]


def _import(error: ImportError) -> str:
    """Describe a failed import in a library file, and suggest the right name or module."""
    module = error.name or ""
    match = re.match(r"cannot import name '(\w+)' from", error.msg)
    if match is None:
        advice = _ONE_MODULE if module.startswith("journeys") else ""
        return f"there is no module {module!r}{advice}" if module else error.msg
    name = match[1]
    if module != dsl.__name__:
        advice = _ONE_MODULE if module.startswith(("journeys", "profiles", "config")) else ""
        return f"there is no {name!r} in {module}{advice}"
    found = alike(name, dsl.__all__)
    if found:
        return f"there is no {name!r} in {module}; did you mean {found!r}?"
    return f"there is no {name!r} in {module}; there are: {', '.join(sorted(dsl.__all__))}"


def _place(file: Path, error: Exception) -> str:
    """The file, with the line number of the error if the traceback has one in this file."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f"{file}, line {lines[-1]}" if lines else str(file)
