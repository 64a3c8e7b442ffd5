"""Merge consent and preferences of two profiles of one customer."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select, update

from config.database.arrays import InsertRows, any_of, rows_of
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.consent.state import (
    ConsentKey,
    Statement,
    consent_statements,
    insert_records,
    withdrawn,
)
from profiles.identity.mergers import Merger, Notes, delete_rows, firsts, rows_by_profile
from profiles.tables import consent_records, consents, preferences

# Which statement of consent wins in a merge: a no, then unset, then a yes.
_WEIGHT: Mapping[bool | None, int] = {False: 2, None: 1, True: 0}
TWO_BECAME_ONE = "two profiles became one: the no holds"

_c, _r = consents.c, consent_records.c
_RECORDS = (
    select(_r.id, _r.profile_id, _r.channel, _r.granted)
    .where(any_of(_r.profile_id, "profiles"))
    .order_by(_r.id)
)
_MOVING = rows_of("moving", _r.id, _r.profile_id, _r.bucket)
_MOVE_RECORDS = (
    update(consent_records)
    .where(_r.id == _MOVING.c.id)
    .values(profile_id=_MOVING.c.profile_id, bucket=_MOVING.c.bucket)
)
_INSERT_CONSENTS = InsertRows(
    _c.profile_id, _c.channel, _c.topic, _c.granted, _c.changed_at, _c.bucket
)
_CHOICES = [column.name for column in preferences.c]
_INSERT_PREFERENCES = InsertRows(*preferences.c)


def merge_consents(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> None:
    """Merge consent: a no wins over unset, and unset over a yes, whatever their times.

    Two profiles can be joined in error, and a customer who said no must not get messages for that.
    Of two equal statements the later one is kept.

    Records of opt-ins that do not count for the profile that stays keep the id of the removed one,
    so that a START does not restore another customer's opt-in.
    """
    rows = rows_by_profile(tx, consents, mergers)
    statements_of: dict[int, list[Statement]] = {profile_id: [] for profile_id in rows}
    for one in {**withdrawn(tx, rows), **consent_statements(tx, rows)}.values():
        statements_of[one.profile_id].append(one)
    before = {one.key: one for merger in mergers for one in statements_of[merger.into_id]}
    now = dict(before)
    for merger in mergers:
        withheld: list[Statement] = []
        for one in statements_of[merger.from_id]:
            if merger.share is None or merger.share.allows(one.granted, one.channel):
                weigh(now, one._replace(profile_id=merger.into_id))
            else:
                withheld.append(one)
        notes[merger.from_id]["consents"] = rows[merger.from_id]
        notes[merger.from_id]["withheld"]["consents"] = [one._asdict() for one in withheld]
    for merger in firsts(mergers):
        notes[merger.from_id]["consents_before"] = rows[merger.into_id]
    delete_rows(tx, consents, [row for merger in mergers for row in rows[merger.from_id]])
    write_consents(tx, before, now)
    shares = {merger.from_id: merger.share for merger in mergers}
    into = {merger.from_id: merger.into_id for merger in mergers}
    moving: list[tuple[int, int, int]] = []
    for merger in mergers:
        notes[merger.from_id]["consent_records"] = []
    for row in tx.conn.execute(_RECORDS, {"profiles": into}):
        share = shares[row.profile_id]
        if share is None or share.allows(row.granted, row.channel):
            notes[row.profile_id]["consent_records"].append(row.id)
            stays = into[row.profile_id]
            moving.append((row.id, stays, bucket_of(stays)))
    if moving:
        tx.conn.execute(_MOVE_RECORDS, {"moving": moving})


def weigh(now: dict[ConsentKey, Statement], one: Statement) -> None:
    """Add a statement if it wins over the current one."""
    rival = now.get(one.key)
    if rival is None or _outweighs(one, rival):
        now[one.key] = one


def _outweighs(one: Statement, other: Statement) -> bool:
    if one.granted != other.granted:
        return _WEIGHT[one.granted] > _WEIGHT[other.granted]
    return one.changed_at > other.changed_at


def write_consents(
    tx: Tx, before: Mapping[ConsentKey, Statement], now: Mapping[ConsentKey, Statement]
) -> None:
    """Write changed statements, and a consent record for each whose value changed."""
    new = [one for key, one in now.items() if one != before.get(key)]
    delete_rows(tx, consents, [one._asdict() for one in new])
    _INSERT_CONSENTS(
        tx.conn,
        [
            (*one.key, one.granted, one.changed_at, bucket_of(one.profile_id))
            for one in new
            if one.granted is not None
        ],
    )
    turned = [one for one in new if one.key in before and one.granted != before[one.key].granted]
    insert_records(
        tx,
        [
            (*one.key, one.granted, one.changed_at, tx.now, TWO_BECAME_ONE, *[None] * 4)
            for one in turned
        ],
    )


def merge_preferences(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> None:
    """Merge preferences: the later choice wins; the earlier one fills in what is open.

    If an address joins them, the choices of the profile that stays win. Those of the other one fill
    in what is open, if they were made at this address.
    """
    chosen = rows_by_profile(tx, preferences, mergers)
    now = {merger.into_id: chosen[merger.into_id] for merger in mergers}
    moved: set[int] = set()
    for merger in mergers:
        theirs, ours = chosen[merger.from_id], now[merger.into_id]
        notes[merger.from_id]["preferences"] = theirs
        if not theirs or not (merger.share is None or merger.share.yes_on):
            continue
        in_order = [*theirs, *ours]
        if merger.share is None:
            # the sort is stable, so at equal times ours counts as later
            in_order.sort(key=lambda row: row["changed_at"])
        columns = (row.items() for row in in_order)
        held = {name: value for row in columns for name, value in row if value is not None}
        now[merger.into_id] = [
            {
                **theirs[0],
                **held,
                "profile_id": merger.into_id,
                "bucket": bucket_of(merger.into_id),
            }
        ]
        moved.add(merger.into_id)
    for merger in firsts(mergers):
        notes[merger.from_id]["preferences_before"] = chosen[merger.into_id]
    moving = [row for profile_id in sorted(moved) for row in now[profile_id]]
    delete_rows(tx, preferences, [row for merger in mergers for row in chosen[merger.from_id]])
    delete_rows(tx, preferences, moving)
    _INSERT_PREFERENCES(tx.conn, [tuple(row[name] for name in _CHOICES) for row in moving])
