"""Of each value of a profile the statement with the latest own time holds. Pure.

`Profile.attribute_times` keeps the time of the statement that holds: under `country`, `timezone`,
`language`, `email` and `phone`, and under `attributes.<name>` for each attribute. A value without
a time there comes from a statement of unknown time (an import row without a date, or a release
before 0010): any statement with a time is later, and of two without the one that arrives later
holds. A time without a value says that the value was taken away.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from config.times import Instant
from profiles.identity.addresses import ONE_AT_A_TIME

# The values beside the attributes; they have columns of their own.
FIELDS = ("country", "timezone", "language")
_ATTRIBUTE = "attributes."

Times = dict[str, Instant]


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
    """The bytes of all attributes as JSON; one that was taken away counts as null."""
    gone = (key.removeprefix(_ATTRIBUTE) for key in times if key.startswith(_ATTRIBUTE))
    nulls = sum(entry_size(name, None) for name in gone if name not in attributes)
    # "{}" has no comma to save: an object of n entries has n - 1 commas and two braces
    return len(orjson.dumps(attributes)) - (not attributes) + nulls


def set_attributes(
    attributes: Mapping[str, Any],
    times: Mapping[str, Instant] | None,
    said: Mapping[str, Any],
    now: Instant,
) -> tuple[dict[str, Any], Times]:
    """Attributes and their times after a statement made now; None takes an attribute away."""
    merged = {**attributes, **said}
    after = {name: value for name, value in merged.items() if value is not None}
    return after, {**(times or {}), **{attribute_key(name): now for name in said}}


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
    joined: dict[str, Any] = {name: ours[name] for name in FIELDS}
    for name in FIELDS:
        if ours[name] is None and name not in our_times:
            joined[name] = theirs[name]
            if name in their_times:
                times[name] = their_times[name]
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
    return {**joined, "attributes": attributes, "attribute_times": times}
