"""Consent and preferences of two customers after the join that made them one is undone."""

from collections.abc import Mapping

from sqlalchemy import BigInteger, bindparam, select

from config.clock.times import Instant
from config.database.arrays import InsertRows
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.consent.merge import TWO_BECAME_ONE
from profiles.consent.state import consent_statements, insert_records
from profiles.identity.history import HistoryRecord
from profiles.identity.mergers import delete_rows
from profiles.identity.person import Key
from profiles.identity.replay import ConsentOf, SaidConsent, strictest
from profiles.tables import consent_records, consents, preferences

_c, _r = consents.c, consent_records.c
_WHY = "the join {} was undone: a no holds for both"
# Of records that no customer stated.
_OWN = (TWO_BECAME_ONE, _WHY.split("{}", maxsplit=1)[0])
_SAID = (
    select(
        *(_r.id, _r.channel, _r.topic, _r.granted, _r.occurred_at, _r.recorded_at, _r.source),
        *(_r.identifier_kind, _r.identifier_value),
    )
    .where(_r.profile_id == bindparam("profile", type_=BigInteger))
    .order_by(_r.id)
)
_INSERT_CONSENTS = InsertRows(
    _c.profile_id, _c.channel, _c.topic, _c.granted, _c.changed_at, _c.bucket
)
_CHOSEN = select(preferences).where(
    preferences.c.profile_id == bindparam("profile", type_=BigInteger)
)
_CHOICES = [column.name for column in preferences.c]
_INSERT_PREFERENCES = InsertRows(*preferences.c)

AgreedAlone = Mapping[ConsentOf, tuple[bool | None, Instant]]


def said_consents(
    tx: Tx, holder: int, origin_of: Mapping[Key, int], join: HistoryRecord
) -> list[SaidConsent]:
    """The statements of consent on record, oldest first, by the origin that they were said of.

    One without an identifier is the removed profile's if the join moved it, else the holder's.
    """
    moved = set(join.data["moved"].get("consent_records", ()))
    found: list[SaidConsent] = []
    for row in tx.conn.execute(_SAID, {"profile": holder}):
        if row.source.startswith(_OWN):
            continue
        origin = origin_of.get((row.identifier_kind, row.identifier_value))
        if origin is None:
            one, other = join.edge
            origin = one if row.id in moved else other
        found.append(
            SaidConsent(
                origin=origin,
                key=(row.channel, row.topic),
                granted=row.granted,
                occurred_at=row.occurred_at,
                recorded_at=row.recorded_at,
            )
        )
    return found


def restore_consents(
    tx: Tx, holder: int, leaves: int, stays: AgreedAlone, goes: AgreedAlone, join_id: int
) -> None:
    """Write what each customer agreed to alone. A no of either, or of both, stays with both.

    stays, goes: the consent of the holder and of the profile that is there again.
    """
    current = consent_statements(tx, [holder])
    together: AgreedAlone = {
        (one.channel, one.topic): (one.granted, one.changed_at) for one in current.values()
    }
    noes = strictest([stays, goes, together])
    delete_rows(tx, consents, [one._asdict() for one in current.values()])
    rows: list[tuple[int, str, str, bool, Instant, int]] = []
    refused: list[tuple[int, str, str, Instant]] = []
    for profile_id, own in ((holder, stays), (leaves, goes)):
        bucket = bucket_of(profile_id)
        for (channel, topic), (granted, at) in own.items():
            if granted is not None and (channel, topic) not in noes:
                rows.append((profile_id, channel, topic, granted, at, bucket))
        for (channel, topic), at in noes.items():
            rows.append((profile_id, channel, topic, False, at, bucket))
            if own.get((channel, topic), (None, 0))[0] is not False:
                refused.append((profile_id, channel, topic, at))
    _INSERT_CONSENTS(tx.conn, rows)
    why = _WHY.format(join_id)
    insert_records(tx, [(*one[:3], False, one[3], tx.now, why, *[None] * 4) for one in refused])


def restore_preferences(tx: Tx, holder: int, theirs: int, ours: int, join: HistoryRecord) -> None:
    """Give each customer the choices from before the join; if they changed since, both keep them.

    theirs, ours: the profiles of the two sides now; theirs was removed by the join.
    """
    now = [dict(row) for row in tx.conn.execute(_CHOSEN, {"profile": holder}).mappings()]
    moved = join.data["moved"]
    before = {theirs: moved.get("preferences", []), ours: moved.get("preferences_before", now)}
    if now and now[0]["changed_at"] > join.at:
        before = {theirs: now, ours: now}
    delete_rows(tx, preferences, now)
    rows = [
        {**row, "profile_id": profile_id, "bucket": bucket_of(profile_id)}
        for profile_id, chosen in before.items()
        for row in chosen
    ]
    _INSERT_PREFERENCES(tx.conn, [tuple(row[name] for name in _CHOICES) for row in rows])
