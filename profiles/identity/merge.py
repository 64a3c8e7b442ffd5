"""Merge two profiles of one customer: all rows of the first are moved to the second.

If an address joins them, only the parts in `UsableParts` become usable. The others are stored, but
not used. journeys/operations/merge.py moves the rows of journeys and channels and calls this
module.

`merge.moved` holds what a manual undo of a merge needs:

- `identifiers`, `events`, `consent_records`: the keys of rows that moved
- `retired`: addresses that were in use before
- `unverified`: anonymous ids that were verified before
- `withheld`: addresses and opt-ins that the joining address does not make usable
- `events_dropped`: events that both profiles had
- `profile`, `consents`, `preferences`: rows of the profile that is removed
- the same with `_before`: rows of the profile that stays, before this merge and those in the same
  transaction; only the first of these merges has them
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Column, Table, bindparam, delete, exists, insert, select, tuple_, update

from config.channels import ChannelName
from config.clock.times import Instant
from config.database.engine import Tx
from profiles.attributes.latest import join_profiles
from profiles.bucketing import bucket_of
from profiles.bulk import among, in_slices
from profiles.consent.state import ConsentKey, Statement, consent_statements, withdrawn
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import ONE_AT_A_TIME, is_in_use, is_retired
from profiles.identity.person import Key
from profiles.tables import (
    ADDRESS_KIND,
    consent_records,
    consents,
    events,
    identifiers,
    merges,
    preferences,
    profiles,
)

# Which statement of consent wins in a merge: a no, then unset, then a yes.
_WEIGHT: Mapping[bool | None, int] = {False: 2, None: 1, True: 0}
_ADDRESSES = frozenset(ADDRESS_KIND.values())


@dataclass(frozen=True, slots=True)
class UsableParts:
    """The parts of a profile that become usable after an address joins it to another one.

    addresses: the addresses that were named; the others are retired.
    yes_on: the channels on which its opt-ins count. Opt-outs always count.
    verified: whether calls with its anonymous ids can change the other profile. If not, they only
    add events.
    """

    addresses: frozenset[Key]
    yes_on: frozenset[ChannelName]
    verified: bool

    def within(self, other: "UsableParts") -> "UsableParts":
        """The usable parts after an address joins the other profile to a third one."""
        return UsableParts(
            self.addresses & other.addresses,
            self.yes_on & other.yes_on,
            self.verified and other.verified,
        )

    def allows(self, granted: bool | None, channel: str) -> bool:
        """Whether a consent (None: unset) counts for the other profile."""
        return granted is not True or channel in self.yes_on


@dataclass(frozen=True, slots=True, kw_only=True)
class Merger:
    """A merge of one profile into another.

    why: what joined them. share: the usable parts if an address joined them; None: ids did, and all
    of it is usable.
    """

    from_id: int
    into_id: int
    why: str
    share: UsableParts | None = None


Notes = Mapping[int, dict[str, Any]]  # by the id of the profile that is removed


def survivors(tx: Tx, profile_ids: Collection[int]) -> dict[int, int]:
    """For each profile that was merged into another one: the profile that it is part of now."""
    m = merges.c
    path = (
        select(m.from_id, m.into_id)
        .where(among(tx, m.from_id, set(profile_ids)))
        .cte("path", recursive=True)
    )
    # UNION, unlike UNION ALL, terminates on cycles, which manual changes of the table can create
    path = path.union(select(path.c.from_id, m.into_id).where(m.from_id == path.c.into_id))
    further = merges.alias("further")
    last = select(path.c.from_id, path.c.into_id).where(
        ~exists().where(further.c.from_id == path.c.into_id)
    )
    return {row.from_id: row.into_id for row in tx.conn.execute(last)}


class Survivor(NamedTuple):
    """Where the data of a merged profile is now.

    profile_id: the profile that it is part of.
    addresses: the addresses that it had when it was merged.
    withheld: addresses that a merge on the way did not make usable.
    """

    profile_id: int
    addresses: frozenset[Key]
    withheld: frozenset[Key]


def survivor_of(tx: Tx, profile_id: int) -> Survivor | None:
    """Where the data of a profile is now; None if it was not merged."""
    m = merges.c
    path = select(m.from_id, m.into_id).where(m.from_id == profile_id).cte("path", recursive=True)
    path = path.union(select(m.from_id, m.into_id).where(m.from_id == path.c.into_id))
    found = select(m.from_id, m.into_id, m.moved["withheld"].label("withheld")).where(
        m.from_id.in_(select(path.c.from_id))
    )
    steps = {row.from_id: row for row in tx.conn.execute(found)}
    if profile_id not in steps:
        return None
    had = select(m.moved["identifiers"]).where(m.from_id == profile_id)
    known = tx.conn.execute(had).scalar_one() or ()
    [last] = {row.into_id for row in steps.values()} - steps.keys()
    withheld = [row.withheld["addresses"] for row in steps.values() if row.withheld]
    return Survivor(
        last,
        frozenset((kind, value) for kind, value in known if kind in _ADDRESSES),
        frozenset((kind, value) for addresses in withheld for kind, value in addresses),
    )


def lock_events(tx: Tx, profile_ids: Collection[int]) -> None:
    """Lock the events of these profiles.

    Journeys lock events before anything else, so a merge must use the same order.
    """
    held = select(events.c.id).where(among(tx, events.c.profile_id, profile_ids))
    tx.conn.execute(held.order_by(events.c.id).with_for_update())


def repoint(tx: Tx, table: Table, mergers: Sequence[Merger]) -> dict[int, list[Any]]:
    """Move the rows of a table to the other profile. Returns their keys by the previous profile.

    The key of a row is its `id`, or else its primary key without the bucket.
    """
    keys = [table.c.id] if "id" in table.c else _key_of(table)
    moved: dict[int, list[Any]] = {merger.from_id: [] for merger in mergers}
    rows = select(table.c.profile_id.label("whose"), *keys).where(
        among(tx, table.c.profile_id, moved)
    )
    for whose, *key in tx.conn.execute(rows):
        moved[whose].append(key[0] if len(key) == 1 else key)
    having = [merger for merger in mergers if moved[merger.from_id]]
    if having:
        tx.conn.execute(
            update(table)
            .where(table.c.profile_id == bindparam("from_id"))
            .values(profile_id=bindparam("into_id"), bucket=bindparam("into_bucket")),
            [
                {
                    "from_id": merger.from_id,
                    "into_id": merger.into_id,
                    "into_bucket": bucket_of(merger.into_id),
                }
                for merger in having
            ],
        )
    return moved


def merge_profiles(
    tx: Tx, mergers: Sequence[Merger], moved: Mapping[int, Mapping[str, Any]]
) -> dict[int, int]:
    """Merge the tables of profiles. The profiles and their events must be locked.

    Parameters
    ----------
    mergers: no profile is both removed and merged into. The values of earlier ones win.
    moved: the keys that callers already moved, by the profile that they left; stored in the merge.

    Returns
    -------
    The ids of events that were dropped because both profiles had them, each with the id of the
    event that is kept.
    """
    notes = {merger.from_id: dict(moved.get(merger.from_id, {})) for merger in mergers}
    duplicates = _drop_duplicates(tx, mergers, notes)
    for from_id, keys in repoint(tx, events, mergers).items():
        notes[from_id]["events"] = keys
    _merge_identifiers(tx, mergers, notes)
    _merge_consents(tx, mergers, notes)
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
        NewEvent(
            profile_id=merger.into_id,
            name=PROFILE_CHANGED,
            occurred_at=tx.now,
            dedupe_key=f"merge of {merger.from_id}",
            properties={},
        )
        for merger in mergers
    ]
    record_events(tx, changed, worked=False)
    return duplicates


def _drop_duplicates(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> dict[int, int]:
    """Keep one of several equal events: of the profile that stays, else of the first merger."""
    c = events.c
    into = {merger.from_id: merger.into_id for merger in mergers}
    places = {merger.from_id: place for place, merger in enumerate(mergers)}
    theirs = select(c.id, c.profile_id, c.dedupe_key).where(among(tx, c.profile_id, into))
    rows = sorted(tx.conn.execute(theirs), key=lambda row: (places[row.profile_id], row.id))
    first: dict[tuple[int, str], int] = {}
    pairs = sorted({(into[row.profile_id], row.dedupe_key) for row in rows})
    of_the_other = select(c.profile_id, c.dedupe_key, c.id)
    for some in in_slices(pairs):
        pair = tuple_(c.profile_id, c.dedupe_key).in_(some)
        for profile_id, dedupe_key, event_id in tx.conn.execute(of_the_other.where(pair)):
            first[profile_id, dedupe_key] = event_id
    duplicates: dict[int, int] = {}
    for row in rows:
        kept = first.setdefault((into[row.profile_id], row.dedupe_key), row.id)
        if kept != row.id:
            duplicates[row.id] = kept
    if duplicates:
        for event in tx.conn.execute(select(events).where(among(tx, c.id, duplicates))).mappings():
            notes[event["profile_id"]].setdefault("events_dropped", []).append(dict(event))
        tx.conn.execute(delete(events).where(among(tx, c.id, duplicates)))
    return duplicates


def _merge_identifiers(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> None:
    """Give all identifiers to the profile that stays.

    Its own e-mail address and phone number stay in use; the others are retired. A call that states
    one of the others puts it into use afterwards.
    """
    c = identifiers.c
    ids = {one for merger in mergers for one in (merger.from_id, merger.into_id)}
    in_use = select(c.profile_id, c.kind).where(
        among(tx, c.profile_id, ids),
        c.kind.in_(ONE_AT_A_TIME),
        is_in_use(),
    )
    has = {(row.profile_id, row.kind) for row in tx.conn.execute(in_use)}
    theirs: dict[int, list[Any]] = {merger.from_id: [] for merger in mergers}
    found = select(
        *(c.profile_id, c.kind, c.value, c.retired_at, c.unverified_from),
        is_retired().label("was_retired"),
    )
    found = found.where(among(tx, c.profile_id, theirs)).order_by(c.kind, c.value)
    for row in tx.conn.execute(found):
        theirs[row.profile_id].append(row)
    changes: list[dict[str, Any]] = []
    for merger in mergers:
        share = merger.share
        retired: list[Key] = []
        withheld: list[Key] = []
        unverified: list[str] = []
        for row in theirs[merger.from_id]:
            key: Key = (row.kind, row.value)
            if share is not None and row.kind in _ADDRESSES and key not in share.addresses:
                withheld.append(key)
            retired_at, unverified_from = row.retired_at, row.unverified_from
            replaced = (merger.into_id, row.kind) in has
            if not row.was_retired and (replaced or key in withheld):
                retired_at = tx.now
                retired.append(key)
            silent = share is not None and not share.verified
            if unverified_from is None and silent and row.kind == "anonymous_id":
                unverified_from = merger.from_id
                unverified.append(row.value)
            changes.append(
                {
                    "of_kind": row.kind,
                    "of_value": row.value,
                    "into": merger.into_id,
                    "retired": retired_at,
                    "came_from": unverified_from,
                }
            )
        kept = {row.kind for row in theirs[merger.from_id] if not row.was_retired} - {
            kind for kind, _ in retired
        }
        has |= {(merger.into_id, kind) for kind in kept.intersection(ONE_AT_A_TIME)}
        notes[merger.from_id] |= {
            "identifiers": [(row.kind, row.value) for row in theirs[merger.from_id]],
            "retired": retired,
            "unverified": unverified,
            "withheld": {"addresses": withheld},
        }
    if changes:
        tx.conn.execute(
            update(identifiers)
            .where(c.kind == bindparam("of_kind"), c.value == bindparam("of_value"))
            .values(
                profile_id=bindparam("into"),
                retired_at=bindparam("retired"),
                unverified_from=bindparam("came_from"),
            ),
            changes,
        )


def _merge_consents(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> None:
    """Merge consent: a no wins over unset, and unset over a yes, whatever their times.

    Two profiles can be joined in error, and a customer who said no must not get messages for that.
    Of two equal statements the later one is kept.

    Records of opt-ins that do not count for the profile that stays keep the id of the removed one,
    so that a START does not restore another customer's opt-in.
    """
    rows = _rows_of(tx, consents, mergers)
    statements_of: dict[int, list[Statement]] = {profile_id: [] for profile_id in rows}
    for one in {**withdrawn(tx, rows), **consent_statements(tx, rows)}.values():
        statements_of[one.profile_id].append(one)
    before = {one.key: one for merger in mergers for one in statements_of[merger.into_id]}
    now = dict(before)
    for merger in mergers:
        withheld: list[Statement] = []
        for one in statements_of[merger.from_id]:
            if merger.share is None or merger.share.allows(one.granted, one.channel):
                _weigh(now, one._replace(profile_id=merger.into_id))
            else:
                withheld.append(one)
        notes[merger.from_id]["consents"] = rows[merger.from_id]
        notes[merger.from_id]["withheld"]["consents"] = [one._asdict() for one in withheld]
    for merger in _firsts(mergers):
        notes[merger.from_id]["consents_before"] = rows[merger.into_id]
    _delete(tx, consents, [row for merger in mergers for row in rows[merger.from_id]])
    _write_consents(tx, before, now)
    c = consent_records.c
    shares = {merger.from_id: merger.share for merger in mergers}
    into = {merger.from_id: merger.into_id for merger in mergers}
    moving: list[dict[str, int]] = []
    theirs = select(c.id, c.profile_id, c.channel, c.granted).where(among(tx, c.profile_id, into))
    for merger in mergers:
        notes[merger.from_id]["consent_records"] = []
    for row in tx.conn.execute(theirs.order_by(c.id)):
        share = shares[row.profile_id]
        if share is None or share.allows(row.granted, row.channel):
            notes[row.profile_id]["consent_records"].append(row.id)
            stays = into[row.profile_id]
            moving.append({"record": row.id, "into": stays, "into_bucket": bucket_of(stays)})
    if moving:
        moved = update(consent_records).where(c.id == bindparam("record"))
        tx.conn.execute(
            moved.values(profile_id=bindparam("into"), bucket=bindparam("into_bucket")), moving
        )


def _weigh(now: dict[ConsentKey, Statement], one: Statement) -> None:
    """Add a statement if it wins over the current one."""
    rival = now.get(one.key)
    if rival is None or _outweighs(one, rival):
        now[one.key] = one


def _outweighs(one: Statement, other: Statement) -> bool:
    if one.granted != other.granted:
        return _WEIGHT[one.granted] > _WEIGHT[other.granted]
    return one.changed_at > other.changed_at


def _write_consents(
    tx: Tx, before: Mapping[ConsentKey, Statement], now: Mapping[ConsentKey, Statement]
) -> None:
    """Write changed statements, and a consent record for each whose value changed."""
    new = [one for key, one in now.items() if one != before.get(key)]
    _delete(tx, consents, [one._asdict() for one in new])
    if held := [one._asdict() for one in new if one.granted is not None]:
        tx.conn.execute(insert(consents), held)
    turned = [one for one in new if one.key in before and one.granted != before[one.key].granted]
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


def _merge_preferences(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> None:
    """Merge preferences: the later choice wins; the earlier one fills in what is open.

    If an address joins them, the choices of the profile that stays win. Those of the other one fill
    in what is open, if they were made at this address.
    """
    chosen = _rows_of(tx, preferences, mergers)
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
    for merger in _firsts(mergers):
        notes[merger.from_id]["preferences_before"] = chosen[merger.into_id]
    moving = [row for profile_id in sorted(moved) for row in now[profile_id]]
    _delete(tx, preferences, [row for merger in mergers for row in chosen[merger.from_id]])
    _delete(tx, preferences, moving)
    if moving:
        tx.conn.execute(insert(preferences), moving)


def _merge_rows(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> None:
    """Merge attributes and fields. The values of the profile that stays win, whatever their
    times."""
    known = _rows_of(tx, profiles, mergers)
    now: dict[int, dict[str, Any]] = {}
    for merger in _firsts(mergers):
        [now[merger.into_id]] = known[merger.into_id]
        notes[merger.from_id]["profile_before"] = now[merger.into_id]
    for merger in mergers:
        [theirs], ours = known[merger.from_id], now[merger.into_id]
        notes[merger.from_id]["profile"] = theirs
        now[merger.into_id] = {
            **join_profiles(ours, _with_shared_times(theirs, merger.share)),
            "created_at": min(theirs["created_at"], ours["created_at"]),
        }
    changed = [
        {**row, "updated_at": tx.now, "whose": profile_id} for profile_id, row in now.items()
    ]
    tx.conn.execute(update(profiles).where(profiles.c.id == bindparam("whose")), changed)
    _delete(tx, profiles, [row for merger in mergers for row in known[merger.from_id]])


def _with_shared_times(row: dict[str, Any], share: UsableParts | None) -> dict[str, Any]:
    """The profile's row without the times of addresses that do not become usable."""
    if share is None:
        return row
    shared = {kind for kind, _ in share.addresses}
    times = (row["attribute_times"] or {}).items()
    kept = {name: at for name, at in times if name in shared or name not in ONE_AT_A_TIME}
    return {**row, "attribute_times": kept}


def _firsts(mergers: Sequence[Merger]) -> list[Merger]:
    """The first merger of each profile that stays."""
    return list({merger.into_id: merger for merger in reversed(mergers)}.values())


# Verification of withheld parts ---------------------------------------------------------------


def verify(tx: Tx, anonymous_ids: Collection[str]) -> None:
    """Mark anonymous ids as verified: a call named them with proof of their owner.

    Whatever an earlier merge withheld because that proof was missing becomes usable, as if ids had
    joined the profiles.
    """
    c = identifiers.c
    unverified = select(c.value, c.profile_id, c.unverified_from).where(
        c.kind == "anonymous_id", among(tx, c.value, anonymous_ids), c.unverified_from.is_not(None)
    )
    whose = {
        row.unverified_from: row.profile_id for row in tx.conn.execute(unverified.order_by(c.value))
    }
    named = (c.kind == "anonymous_id") & among(tx, c.value, anonymous_ids)
    tx.conn.execute(update(identifiers).where(named).values(unverified_from=None))
    records = select(merges.c.from_id, merges.c.merged_at, merges.c.moved["withheld"])
    found = tx.conn.execute(records.where(among(tx, merges.c.from_id, whose))).all()
    for from_id, merged_at, withheld in found:
        _use_addresses(tx, whose[from_id], withheld["addresses"], merged_at)
    statements = [
        Statement(**{**one, "profile_id": whose[from_id]})
        for from_id, _, withheld in found
        for one in withheld["consents"]
    ]
    if statements:
        people = {one.profile_id for one in statements}
        before = {**withdrawn(tx, people), **consent_statements(tx, people)}
        now = dict(before)
        for one in statements:
            _weigh(now, one)
        _write_consents(tx, before, now)
    r = consent_records.c
    moved = update(consent_records).where(r.profile_id == bindparam("from_id"))
    if found:
        tx.conn.execute(
            moved.values(profile_id=bindparam("into"), bucket=bindparam("into_bucket")),
            [
                {
                    "from_id": from_id,
                    "into": whose[from_id],
                    "into_bucket": bucket_of(whose[from_id]),
                }
                for from_id, *_ in found
            ],
        )


def _use_addresses(
    tx: Tx, profile_id: int, addresses: Sequence[Sequence[str]], since: Instant
) -> None:
    """Put withheld addresses into use.

    An e-mail address or phone number is only used if the profile uses no other one.
    """
    c = identifiers.c
    in_use = select(c.kind).where(c.profile_id == profile_id, is_in_use())
    has = set(tx.conn.execute(in_use).scalars())
    usable = [
        {"of_kind": kind, "of_value": value}
        for kind, value in addresses
        if kind not in ONE_AT_A_TIME or kind not in has
    ]
    if usable:
        tx.conn.execute(
            update(identifiers)
            .where(
                c.kind == bindparam("of_kind"),
                c.value == bindparam("of_value"),
                c.profile_id == profile_id,
                c.retired_at == since,
            )
            .values(retired_at=None),
            usable,
        )


# Rows ---------------------------------------------------------------------------------------------


def _rows_of(tx: Tx, table: Table, mergers: Sequence[Merger]) -> dict[int, list[dict[str, Any]]]:
    """The rows of the mergers' profiles in a table, by profile."""
    whose = table.c.id if table is profiles else table.c.profile_id
    ids = {one for merger in mergers for one in (merger.from_id, merger.into_id)}
    found: dict[int, list[dict[str, Any]]] = {profile_id: [] for profile_id in ids}
    for row in tx.conn.execute(select(table).where(among(tx, whose, ids))).mappings():
        found[row[whose.name]].append(dict(row))
    return found


def _key_of(table: Table) -> list[Column[Any]]:
    """The primary key without the bucket, which is derived from it."""
    return [column for column in table.primary_key if column.name != "bucket"]


def _delete(tx: Tx, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Delete the rows with the primary keys of `rows`; missing ones are ignored."""
    if rows:
        keys = [column.name for column in _key_of(table)]
        tx.conn.execute(
            delete(table).where(*(table.c[name] == bindparam(f"of_{name}") for name in keys)),
            [{f"of_{name}": row[name] for name in keys} for row in rows],
        )
