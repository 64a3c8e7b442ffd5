"""Pairs of profiles that are probably one person: what matching suggests, and what was decided.

A refusal is kept, and holds for the profiles that its two become part of.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, bindparam, delete, select, update

from config.clock.times import Instant, format_instant
from config.database.arrays import InsertRows, any_of, one_of
from config.database.engine import Tx
from config.errors import SegueError
from profiles.bucketing import bucket_of
from profiles.identity.addresses import is_in_use
from profiles.identity.survivors import survivors
from profiles.tables import duplicates, identifiers, profiles

SUGGESTED, ACCEPTED, REFUSED = "suggested", "accepted", "refused"
_PAGE = 5_000

_d, _p, _i = duplicates.c, profiles.c, identifiers.c
_COLUMNS = (_d.left_id, _d.right_id, _d.weight, _d.bars, _d.found_at, _d.state, _d.decided_at)
_READ = (*_COLUMNS, _d.decided_by)
_OPEN = select(*_READ).where(_d.state == SUGGESTED).order_by(_d.weight.desc(), _d.left_id)
_ONE = select(*_READ).where(
    _d.left_id == bindparam("left", type_=Integer), _d.right_id == bindparam("right", type_=Integer)
)
_DECIDED = select(_d.left_id, _d.right_id).where(_d.state != SUGGESTED)
_FORGET = delete(duplicates).where(_d.state == SUGGESTED)
_INSERT = InsertRows(_d.left_id, _d.right_id, _d.bucket, _d.weight, _d.bars, _d.found_at, _d.state)
_DECIDE = (
    update(duplicates)
    .where(
        _d.left_id == bindparam("left", type_=Integer),
        _d.right_id == bindparam("right", type_=Integer),
    )
    .values(
        state=bindparam("new_state"), decided_at=bindparam("at"), decided_by=bindparam("by_whom")
    )
)
_PROFILES = (
    select(_p.id, _p.attributes)
    .where(_p.id > bindparam("after", type_=Integer))
    .order_by(_p.id)
    .limit(_PAGE)
)
_ADDRESSES = select(_i.profile_id, _i.kind, _i.value).where(
    any_of(_i.profile_id, "profiles"), one_of(_i.kind, ("email", "phone")), is_in_use()
)
_NAMED = select(_i.profile_id).where(any_of(_i.profile_id, "profiles"), _i.kind == "user_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Two profiles that are probably one person. bars: as in the table."""

    left_id: int
    right_id: int
    weight: float
    bars: list[list[Any]]
    found_at: Instant
    state: str = SUGGESTED
    decided_at: Instant | None = None
    decided_by: str | None = None

    @property
    def id(self) -> str:
        """How commands and pages name it: 12-57."""
        return f"{self.left_id}-{self.right_id}"

    @property
    def probability(self) -> float:
        """How likely the two are one person."""
        return float(1 / (1 + 2 ** -max(min(self.weight, 500.0), -500.0)))

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "id": self.id,
            "profiles": [self.left_id, self.right_id],
            "probability": round(self.probability, 6),
            "weight": round(self.weight, 3),
            "columns": [
                {"column": column, "level": level, "weight": round(weight, 3)}
                for column, level, weight in self.bars
            ],
            "found_at": format_instant(self.found_at),
            "state": self.state,
        }


def suggestions(tx: Tx) -> list[Suggestion]:
    """What waits for a decision, the most likely first."""
    return [Suggestion(**row) for row in tx.conn.execute(_OPEN).mappings()]


def suggestion(tx: Tx, name: str) -> Suggestion:
    """A suggestion by its id. Raises SegueError if there is none."""
    left, _, right = name.partition("-")
    if left.isdecimal() and right.isdecimal() and max(len(left), len(right)) <= 18:
        row = tx.conn.execute(_ONE, {"left": int(left), "right": int(right)}).mappings().first()
        if row is not None:
            return Suggestion(**row)
    raise SegueError(
        f"there is no suggestion {name!r}; `segue duplicates` lists them, such as 12-57"
    )


def decide(tx: Tx, found: Suggestion, state: str, by: str) -> None:
    """Record a decision, and who took it."""
    values = {"left": found.left_id, "right": found.right_id, "new_state": state}
    tx.conn.execute(_DECIDE, {**values, "at": tx.now, "by_whom": by})


def replace_suggestions(tx: Tx, found: Sequence[Suggestion]) -> list[Suggestion]:
    """Store what a run found instead of what waited; pairs that were decided about stay.

    Returns what was stored.
    """
    decided = list(tx.conn.execute(_DECIDED).tuples())
    now = survivors(tx, {one for pair in decided for one in pair})
    closed = {frozenset(now.get(one, one) for one in pair) for pair in decided}
    stored = [one for one in found if frozenset((one.left_id, one.right_id)) not in closed]
    tx.conn.execute(_FORGET)
    if stored:
        _INSERT(tx.conn, [_row(one) for one in stored])
    return stored


def people(tx: Tx) -> Iterator[tuple[int, Mapping[str, str | None]]]:
    """Every profile with what matching compares: profiles.matching.columns.COLUMNS."""
    after = 0
    while rows := tx.conn.execute(_PROFILES, {"after": after}).all():
        after = rows[-1].id
        addresses: dict[tuple[int, str], str] = {}
        for profile_id, kind, value in tx.conn.execute(
            _ADDRESSES, {"profiles": [row.id for row in rows]}
        ):
            addresses[profile_id, kind] = value
        for row in rows:
            found = _described(row.attributes or {})
            found["email"] = addresses.get((row.id, "email"))
            found["phone"] = addresses.get((row.id, "phone"))
            yield row.id, found


def with_user_ids(tx: Tx, profile_ids: Sequence[int]) -> set[int]:
    """Those of the profiles that have a user id."""
    return set(tx.conn.execute(_NAMED, {"profiles": profile_ids}).scalars())


# The attributes that imports and clients use, the first that is stated.
_NAMES = {
    "given_name": ("first_name", "firstName", "given_name"),
    "surname": ("last_name", "lastName", "surname"),
    "birth_date": ("birthday", "birth_date", "date_of_birth"),
    "street": ("street",),
    "suburb": ("suburb",),
    "postcode": ("postcode", "postal_code", "postalCode", "zip"),
    "state": ("state",),
    "city": ("city",),
    "national_id": ("national_id",),
}


def _described(attributes: Mapping[str, Any]) -> dict[str, str | None]:
    address = attributes.get("address")
    stated = {**(address if isinstance(address, dict) else {}), **attributes}
    found: dict[str, str | None] = {
        column: next((str(stated[name]) for name in names if stated.get(name)), None)
        for column, names in _NAMES.items()
    }
    if not found["given_name"] and not found["surname"] and stated.get("name"):
        first, _, last = str(stated["name"]).strip().rpartition(" ")
        found["given_name"], found["surname"] = first or None, last or None
    return found


def _row(one: Suggestion) -> tuple[Any, ...]:
    bucket = bucket_of(one.left_id)
    return (one.left_id, one.right_id, bucket, one.weight, one.bars, one.found_at, SUGGESTED)
