"""For each value of a profile, the statement with the latest time is effective. Pure.

`Profile.attribute_times` has the time of the effective statement: under `country`, `timezone`,
`language`, `email` and `phone`, and under `attributes.<name>` for each attribute. A value without a
time comes from a statement of unknown time (an import row without a date, or from before schema
0010). Any statement with a time overrides it; of two without a time the one that arrives later is
effective. A time without a value means that the value was removed.

`Profile.attribute_identifiers` has, by the same keys, the identifier that the statement was about.
Values from before schema 0014 and values set by a journey have none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from config.clock.times import Instant
from profiles.identity.addresses import ONE_AT_A_TIME
from profiles.identity.person import Key

# Values other than attributes, which have their own columns.
FIELDS = ("country", "timezone", "language")
_ATTRIBUTE = "attributes."

Times = dict[str, Instant]
# The identifier that the statement of each value was about.
AttributeIdentifiers = dict[str, Key]


def attribute_key(name: str) -> str:
    """The key of an attribute in `attribute_times`."""
    return _ATTRIBUTE + name


def holds(times: Mapping[str, Instant], key: str, at: Instant | None) -> bool:
    """Whether a statement from `at` (None: unknown) overrides the recorded one.

    Of two from the same second the one that arrives later is effective.
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


def stored_attribute_identifiers(identifiers: Mapping[str, Key]) -> list[Any] | None:
    """`Profile.attribute_identifiers` as it is stored, with each identifier once."""
    keys: dict[Key, list[str]] = {}
    for key in sorted(identifiers):
        keys.setdefault(identifiers[key], []).append(key)
    return [[kind, value, keys[kind, value]] for kind, value in sorted(keys)] or None


def set_attributes(
    row: Mapping[str, Any], changes: Mapping[str, Any], now: Instant
) -> dict[str, Any]:
    """The columns `attributes`, `attribute_times` and `attribute_identifiers` after a change by a
    journey.

    Parameters
    ----------
    row: the same columns before. changes: by name; None removes an attribute.
    """
    merged = {**row["attributes"], **changes}
    keys = {attribute_key(name): now for name in changes}
    identifiers = read_attribute_identifiers(row["attribute_identifiers"])
    return {
        "attributes": {name: value for name, value in merged.items() if value is not None},
        "attribute_times": {**(row["attribute_times"] or {}), **keys},
        "attribute_identifiers": stored_attribute_identifiers(
            {key: whose for key, whose in identifiers.items() if key not in keys}
        ),
    }


def join_profiles(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields and attributes of a profile after another one is merged into it, with their times.

    Its own values and removals stay, whatever their times. The other profile only adds values.

    Parameters
    ----------
    ours, theirs: rows of the table `profile`; ours is the profile that stays.
    """
    our_times, their_times = ours["attribute_times"] or {}, theirs["attribute_times"] or {}
    times = dict(our_times)
    identifiers = read_attribute_identifiers(ours["attribute_identifiers"])
    their_identifiers = read_attribute_identifiers(theirs["attribute_identifiers"])
    joined: dict[str, Any] = {name: ours[name] for name in FIELDS}
    for name in FIELDS:
        if ours[name] is None and name not in our_times:
            joined[name] = theirs[name]
            if name in their_times:
                times[name] = their_times[name]
            if name in their_identifiers:
                identifiers[name] = their_identifiers[name]
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
            if key in their_identifiers:
                identifiers[key] = their_identifiers[key]
    return {
        **joined,
        "attributes": attributes,
        "attribute_times": times,
        "attribute_identifiers": stored_attribute_identifiers(identifiers),
    }
