"""For each value of a profile, the statement with the latest time of its own holds. Pure.

`Profile.attribute_times` keeps the time of the statement that holds: under `country`, `timezone`,
`language`, `email` and `phone`, and under `attributes.<name>` for each attribute. A value without
a time there comes from a statement of unknown time (an import row without a date, or a release
before 0010): any statement with a time is later, and of two without the one that arrives later
holds. A time without a value says that the value was taken away.

`Profile.attribute_identifiers` keeps, by the same keys, the identifier that the statement named.
There is none for values from a release before 0014, or that a journey has set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from config.clock.times import Instant
from profiles.identity.addresses import ONE_AT_A_TIME
from profiles.identity.person import Key

# The values beside the attributes; they have their own columns.
FIELDS = ("country", "timezone", "language")
_ATTRIBUTE = "attributes."

Times = dict[str, Instant]
# The identifier that each value was said of.
AttributeIdentifiers = dict[str, Key]


def attribute_key(name: str) -> str:
    """The key of an attribute in `attribute_times`."""
    return _ATTRIBUTE + name


def holds(times: Mapping[str, Instant], key: str, at: Instant | None) -> bool:
    """Whether a statement made at `at` (None: unknown) holds against the one on record.

    Of two from the same second the one that arrives later holds.
    """
    before = times.get(key)
    return before is None or (at is not None and at >= before)


def entry_size(name: str, value: Any) -> int:
    """The bytes of an attribute in the JSON object of all attributes."""
    return len(orjson.dumps(name)) + len(orjson.dumps(value)) + len(":,")


def attributes_size(attributes: Mapping[str, Any], times: Mapping[str, Instant]) -> int:
    """The bytes of all attributes as JSON; a removed one counts as null."""
    gone = (key.removeprefix(_ATTRIBUTE) for key in times if key.startswith(_ATTRIBUTE))
    nulls = sum(entry_size(name, None) for name in gone if name not in attributes)
    # "{}" has no comma to save: an object of n entries has n - 1 commas and two braces
    return len(orjson.dumps(attributes)) - (not attributes) + nulls


def read_attribute_identifiers(stored: Sequence[Any] | None) -> AttributeIdentifiers:
    """`Profile.attribute_identifiers` by key."""
    return {key: (kind, value) for kind, value, keys in stored or () for key in keys}


def stored_attribute_identifiers(said_of: Mapping[str, Key]) -> list[Any] | None:
    """`Profile.attribute_identifiers` as it is stored: each identifier once, for brevity."""
    keys: dict[Key, list[str]] = {}
    for key in sorted(said_of):
        keys.setdefault(said_of[key], []).append(key)
    return [[kind, value, keys[kind, value]] for kind, value in sorted(keys)] or None


def set_attributes(row: Mapping[str, Any], said: Mapping[str, Any], now: Instant) -> dict[str, Any]:
    """The columns `attributes`, `attribute_times` and `attribute_identifiers` after a statement of
    nobody, made now; None takes an attribute away.

    Parameters
    ----------
    row: the same columns before.
    """
    merged = {**row["attributes"], **said}
    keys = {attribute_key(name): now for name in said}
    said_of = read_attribute_identifiers(row["attribute_identifiers"])
    return {
        "attributes": {name: value for name, value in merged.items() if value is not None},
        "attribute_times": {**(row["attribute_times"] or {}), **keys},
        "attribute_identifiers": stored_attribute_identifiers(
            {key: whose for key, whose in said_of.items() if key not in keys}
        ),
    }


def join_profiles(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields and attributes of a profile that takes in another one, with their times.

    Ours stay, whatever their times, and what was taken away from ours stays away. The others come
    from theirs, with their times.

    Parameters
    ----------
    ours, theirs: rows of the table `profile`.
    """
    our_times, their_times = ours["attribute_times"] or {}, theirs["attribute_times"] or {}
    times = dict(our_times)
    said_of = read_attribute_identifiers(ours["attribute_identifiers"])
    their_said_of = read_attribute_identifiers(theirs["attribute_identifiers"])
    joined: dict[str, Any] = {name: ours[name] for name in FIELDS}
    for name in FIELDS:
        if ours[name] is None and name not in our_times:
            joined[name] = theirs[name]
            if name in their_times:
                times[name] = their_times[name]
            if name in their_said_of:
                said_of[name] = their_said_of[name]
    for kind in ONE_AT_A_TIME:
        if kind in their_times:
            times.setdefault(kind, their_times[kind])
    attributes = dict(ours["attributes"])
    for name, value in theirs["attributes"].items():
        key = attribute_key(name)
        if name not in attributes and key not in our_times:
            attributes[name] = value
            if key in their_times:
                times[key] = their_times[key]
            if key in their_said_of:
                said_of[key] = their_said_of[key]
    return {
        **joined,
        "attributes": attributes,
        "attribute_times": times,
        "attribute_identifiers": stored_attribute_identifiers(said_of),
    }
