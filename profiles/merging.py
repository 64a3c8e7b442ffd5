"""Two profiles that turn out to be one person: all that the one has becomes the other's.

What was moved is written down, so that it can be undone by hand. What journeys and channels keep
of a person is moved by journeys/merging.py, which calls this.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, bindparam, case, delete, insert, select, update

from config.database import Tx
from profiles.attributes import join_profiles
from profiles.bulk import among
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.standing import Statement, standing, withdrawn
from profiles.tables import (
    consent_records,
    consents,
    events,
    identifiers,
    merges,
    preferences,
    profiles,
)

# What is said of consent: a no, nothing any more, a yes.
_WEIGHT: Mapping[bool | None, int] = {False: 2, None: 1, True: 0}


@dataclass(frozen=True, slots=True)
class Merger:
    """A profile that turned out to be another one's, and how it did."""

    from_id: int
    into_id: int
    why: str


def survivors(tx: Tx, profile_ids: Collection[int]) -> dict[int, int]:
    """For those of the profiles that became part of another one: which it is now."""
    found: dict[int, int] = {}
    at = {profile_id: profile_id for profile_id in profile_ids}
    while at:
        found_at = among(tx, merges.c.from_id, set(at.values()))
        rows = select(merges.c.from_id, merges.c.into_id).where(found_at)
        became = {row.from_id: row.into_id for row in tx.conn.execute(rows)}
        at = {profile_id: became[now] for profile_id, now in at.items() if now in became}
        found |= at
    return found


def rounds(mergers: Sequence[Merger]) -> Iterator[list[Merger]]:
    """In groups in which no profile takes in two, so that bulk statements see no chains."""
    left = list(mergers)
    while left:
        now = list({merger.into_id: merger for merger in reversed(left)}.values())
        yield now
        left = [merger for merger in left if merger not in now]


def lock_events(tx: Tx, profile_ids: Collection[int]) -> None:
    """Hold what these profiles did: journeys lock events before anything else, so must we."""
    held = select(events.c.id).where(among(tx, events.c.profile_id, profile_ids))
    tx.conn.execute(held.order_by(events.c.id).with_for_update())


def repoint(tx: Tx, table: Table, mergers: Sequence[Merger]) -> dict[int, list[Any]]:
    """Let the rows of a table be the other profile's; gives their keys, by the profile they left.

    The key of a row is its `id`, or else its primary key.
    """
    keys = [table.c.id] if "id" in table.c else list(table.primary_key)
    moved: dict[int, list[Any]] = {merger.from_id: [] for merger in mergers}
    rows = select(table.c.profile_id.label("whose"), *keys).where(
        among(tx, table.c.profile_id, moved)
    )
    for whose, *key in tx.conn.execute(rows):
        moved[whose].append(key[0] if len(key) == 1 else key)
    tx.conn.execute(
        update(table)
        .where(table.c.profile_id == bindparam("from_id"))
        .values(profile_id=bindparam("into_id")),
        [{"from_id": merger.from_id, "into_id": merger.into_id} for merger in mergers],
    )
    return moved


def merge_profiles(
    tx: Tx, mergers: Sequence[Merger], moved: Mapping[int, Mapping[str, Any]]
) -> dict[int, int]:
    """Merge what profiles keep of a person; the profiles and their events are locked.

    Parameters
    ----------
    mergers: one round of `rounds`.
    moved: what others have moved already, by the profile it left; kept beside our own.

    Returns
    -------
    Events that both had, and that were therefore dropped: their ids, each with that of its twin.
    """
    notes: dict[int, dict[str, Any]] = {
        merger.from_id: dict(moved.get(merger.from_id, {})) for merger in mergers
    }
    twins = _drop_twins(tx, mergers, notes)
    _merge_consents(tx, mergers, notes)
    for name, table in (
        ("events", events),
        ("identifiers", identifiers),
        ("consent_records", consent_records),
    ):
        for from_id, keys in repoint(tx, table, mergers).items():
            notes[from_id][name] = keys
    _merge_preferences(tx, mergers, notes)
    _merge_rows(tx, mergers, notes)
    tx.conn.execute(
        insert(merges),
        [
            {
                "from_id": merger.from_id,
                "into_id": merger.into_id,
                "merged_at": tx.now,
                "why": merger.why,
                "moved": notes[merger.from_id],
            }
            for merger in mergers
        ],
    )
    changed = [
        NewEvent(merger.into_id, PROFILE_CHANGED, tx.now, f"merge of {merger.from_id}", {})
        for merger in mergers
    ]
    record_events(tx, changed, worked=False)
    return twins


def _drop_twins(
    tx: Tx, mergers: Sequence[Merger], notes: Mapping[int, dict[str, Any]]
) -> dict[int, int]:
    """An event that both have is one event."""
    twin = events.alias("twin")
    into = case({m.from_id: m.into_id for m in mergers}, value=events.c.profile_id)
    found = (
        select(events, twin.c.id.label("twin_id"))
        .join(twin, (twin.c.profile_id == into) & (twin.c.dedupe_key == events.c.dedupe_key))
        .where(among(tx, events.c.profile_id, [merger.from_id for merger in mergers]))
    )
    twins: dict[int, int] = {}
    for row in tx.conn.execute(found).mappings():
        event = dict(row)
        twins[row["id"]] = event.pop("twin_id")
        notes[row["profile_id"]].setdefault("events_dropped", []).append(event)
    tx.conn.execute(delete(events).where(among(tx, events.c.id, twins)))
    return twins


def _merge_consents(tx: Tx, mergers: Sequence[Merger], notes: Mapping[int, dict[str, Any]]) -> None:
    """A no outweighs a yes, whenever it was said: two profiles may be joined in error, and nobody
    who said no shall hear from us for that. So does the wish that nothing is said any more. Of two
    that say the same the later one holds."""
    rows = _rows_of(tx, consents, mergers)
    said: dict[int, list[Statement]] = {profile_id: [] for profile_id in rows}
    for one in {**withdrawn(tx, rows), **standing(tx, rows)}.values():
        said[one.profile_id].append(one)
    moving: list[Statement] = []
    turned: list[Statement] = []
    for merger in mergers:
        notes[merger.from_id] |= {
            "consents": rows[merger.from_id],
            "consents_before": rows[merger.into_id],
        }
        here = {(one.channel, one.topic): one for one in said[merger.into_id]}
        for one in said[merger.from_id]:
            rival = here.get((one.channel, one.topic))
            if rival is None or _outweighs(one, rival):
                moving.append(one._replace(profile_id=merger.into_id))
                if rival is not None and rival.granted != one.granted:
                    turned.append(moving[-1])
    _delete(tx, consents, [row for merger in mergers for row in rows[merger.from_id]])
    _delete(tx, consents, [one._asdict() for one in moving])
    if held := [one._asdict() for one in moving if one.granted is not None]:
        tx.conn.execute(insert(consents), held)
    if turned:
        tx.conn.execute(
            insert(consent_records),
            [
                {
                    "profile_id": one.profile_id,
                    "channel": one.channel,
                    "topic": one.topic,
                    "granted": one.granted,
                    "occurred_at": one.changed_at,
                    "recorded_at": tx.now,
                    "source": "two profiles became one: the no holds",
                }
                for one in turned
            ],
        )


def _outweighs(one: Statement, other: Statement) -> bool:
    if one.granted != other.granted:
        return _WEIGHT[one.granted] > _WEIGHT[other.granted]
    return one.changed_at > other.changed_at


def _merge_preferences(
    tx: Tx, mergers: Sequence[Merger], notes: Mapping[int, dict[str, Any]]
) -> None:
    """What was chosen last holds; where that leaves something open, what was chosen before."""
    chosen = _rows_of(tx, preferences, mergers)
    moving: list[dict[str, Any]] = []
    for merger in mergers:
        theirs, ours = chosen[merger.from_id], chosen[merger.into_id]
        notes[merger.from_id] |= {"preferences": theirs, "preferences_before": ours}
        # of two moments that are the same ours is the later one
        in_order = sorted([*theirs, *ours], key=lambda row: row["changed_at"])
        if theirs:
            said = (row.items() for row in in_order)
            held = {name: value for row in said for name, value in row if value is not None}
            moving.append({**theirs[0], **held, "profile_id": merger.into_id})
    _delete(tx, preferences, [row for merger in mergers for row in chosen[merger.from_id]])
    _delete(tx, preferences, moving)
    if moving:
        tx.conn.execute(insert(preferences), moving)


def _merge_rows(tx: Tx, mergers: Sequence[Merger], notes: Mapping[int, dict[str, Any]]) -> None:
    """What the profile that stays knows already counts for more."""
    known = _rows_of(tx, profiles, mergers)
    changed: list[dict[str, Any]] = []
    for merger in mergers:
        [theirs], [ours] = known[merger.from_id], known[merger.into_id]
        notes[merger.from_id] |= {"profile": theirs, "profile_before": ours}
        kept = join_profiles(ours, theirs)
        kept["created_at"] = min(theirs["created_at"], ours["created_at"])
        changed.append({**kept, "updated_at": tx.now, "whose": merger.into_id})
    tx.conn.execute(update(profiles).where(profiles.c.id == bindparam("whose")), changed)
    _delete(tx, profiles, [row for merger in mergers for row in known[merger.from_id]])


def _rows_of(tx: Tx, table: Table, mergers: Sequence[Merger]) -> dict[int, list[dict[str, Any]]]:
    """The rows that the profiles have in a table, by profile."""
    whose = table.c.id if table is profiles else table.c.profile_id
    ids = [one for merger in mergers for one in (merger.from_id, merger.into_id)]
    found: dict[int, list[dict[str, Any]]] = {profile_id: [] for profile_id in ids}
    for row in tx.conn.execute(select(table).where(among(tx, whose, ids))).mappings():
        found[row[whose.name]].append(dict(row))
    return found


def _delete(tx: Tx, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Delete the rows that have these rows' primary keys, as far as there are any."""
    if rows:
        keys = [column.name for column in table.primary_key]
        tx.conn.execute(
            delete(table).where(*(table.c[name] == bindparam(f"of_{name}") for name in keys)),
            [{f"of_{name}": row[name] for name in keys} for row in rows],
        )
