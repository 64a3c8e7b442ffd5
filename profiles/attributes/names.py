"""A customer's name, from the attributes that imports and Segment clients set."""

from collections.abc import Mapping
from typing import Any

# By preference; the values of one tuple are joined by a blank.
NAME_ATTRIBUTES = (("name",), ("first_name", "last_name"), ("firstName", "lastName"))


def full_name(attributes: Mapping[str, Any]) -> str:
    """The name; empty if no attribute has one."""
    for keys in NAME_ATTRIBUTES:
        name = " ".join(str(attributes[key]) for key in keys if attributes.get(key))
        if name:
            return name
    return ""
