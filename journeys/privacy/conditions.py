"""Which rows of each table are about a person."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Table, or_
from sqlmodel import SQLModel

# Also the tables that only the channels and journeys define.
import journeys.tables  # noqa: F401  tables
from channels.messages import nameless as _messages  # noqa: F401  tables
from config.database.arrays import any_of
from journeys.enrollments import nameless as _enrollments  # noqa: F401  tables
from journeys.privacy.people import DataSubject
from journeys.privacy.registry import PERSONAL
from profiles.identity.holdout import is_address
from profiles.tables import duplicates, email_confirmations, merges, profiles


def condition_of(table: Table) -> ColumnElement[bool]:
    """Which rows of a table are the person's: parameters `profiles`, `addresses`, `values`."""
    if table is profiles:
        return any_of(profiles.c.id, "profiles")
    if table is merges:
        return or_(any_of(merges.c.from_id, "profiles"), any_of(merges.c.into_id, "profiles"))
    if table is duplicates:
        d = duplicates.c
        return or_(any_of(d.left_id, "profiles"), any_of(d.right_id, "profiles"))
    if table.name == "join_limit_hit":
        # One about somebody else can have an identifier of this person.
        return or_(
            any_of(table.c.profile_id, "profiles"),
            any_of(table.c.value, "values"),
        )
    if table.name == "suppression":
        return any_of(table.c.address, "addresses")
    if table is email_confirmations:
        c = email_confirmations.c
        return or_(any_of(c.profile_id, "profiles"), any_of(c.address, "addresses"))
    return any_of(table.c.profile_id, "profiles")


THEIRS: Mapping[str, Table] = {
    name: table
    for name, table in sorted(SQLModel.metadata.tables.items())
    if name in PERSONAL and PERSONAL[name].erasure != "hashed"
}


def parameters_of(person: DataSubject) -> dict[str, Any]:
    """The parameters of these conditions."""
    addresses = [value for kind, value in person.identifiers if is_address((kind, value))]
    values = [value for _, value in person.identifiers]
    return {"profiles": person.every, "addresses": addresses, "values": values}
