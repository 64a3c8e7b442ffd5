"""Consent given and taken back: what holds now, and the append-only proof of how it came to that.

Every change of consent goes through here, whatever brought it: an import, a preference page, STOP.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Row, insert, select

from config.database import Tx, insert_into
from config.policy import Channel
from config.times import Instant
from profiles.bulk import in_slices, lock_profiles
from profiles.merging import survivors
from profiles.tables import consent_records, consents

_Key = tuple[int, str, str]  # profile, channel, topic


@dataclass(frozen=True, slots=True)
class ConsentChange:
    """What one profile says about a channel (topic `*`) or about one topic on it.

    `occurred_at` None: nobody knows when it was said (an export without a date). It then counts
    as said now, but a yes of unknown age never takes back a no that came from elsewhere: the
    shop's old "opted in" must not undo the STOP that was sent last night. And its "no" to text
    messages from somebody who never said yes is an unticked box and no STOP, which would hold back
    news of their orders too: silence already means no there.
    """

    profile_id: int
    channel: Channel
    topic: str
    granted: bool
    occurred_at: Instant | None = None

    @property
    def key(self) -> _Key:
        return self.profile_id, self.channel, self.topic

    @property
    def unticked_box(self) -> bool:
        """An undated no to all texts: it can take back a yes, and says nothing new without one."""
        whole = self.channel == "sms" and self.topic == "*"
        return whole and not self.granted and self.occurred_at is None


@dataclass(frozen=True, slots=True)
class ConsentOutcome:
    """Which changes took effect; `overruled` are those that a later statement or a no outweighs."""

    applied: Sequence[ConsentChange]
    overruled: Sequence[ConsentChange]


def change_consent(tx: Tx, changes: Sequence[ConsentChange], source: str) -> ConsentOutcome:
    """Write what really changes, each change with its record. Locks the profiles.

    An older statement never overrules a later one; of two from the same second the no holds.
    `changes` has each (profile, channel, topic) at most once. What is said of a profile that became
    part of another one is said of that one: a link in an old mail must still stop the mail.
    """
    changes = _of_survivors(tx, changes)
    now_valid = _now_valid(tx, {change.profile_id for change in changes})
    differing = [
        change
        for change in changes
        if (
            now_valid[change.key].granted != change.granted
            if change.key in now_valid
            else not change.unticked_box
        )
    ]
    said_by = _last_sources(
        tx, {c.profile_id for c in differing if c.granted and c.occurred_at is None}
    )

    def holds(change: ConsentChange) -> bool:
        if change.key not in now_valid:
            return True
        if change.occurred_at is None:
            return not change.granted or said_by.get(change.key) == source
        changed_at: Instant = now_valid[change.key].changed_at
        if change.occurred_at == changed_at:
            return not change.granted
        return change.occurred_at > changed_at

    applied = [change for change in differing if holds(change)]
    if applied:
        _write(tx, applied, source)
    return ConsentOutcome(applied, [change for change in differing if not holds(change)])


def _of_survivors(tx: Tx, changes: Sequence[ConsentChange]) -> Sequence[ConsentChange]:
    """The changes as those of the profiles that there are now, which are locked."""
    whose = {change.profile_id for change in changes}
    lock_profiles(tx, whose)
    became = survivors(tx, whose)
    if not became:
        return changes
    lock_profiles(tx, set(became.values()))
    now_theirs: dict[_Key, ConsentChange] = {}
    for one in changes:
        change = replace(one, profile_id=became.get(one.profile_id, one.profile_id))
        if change.key not in now_theirs or not change.granted:
            now_theirs[change.key] = change
    return list(now_theirs.values())


def _now_valid(tx: Tx, profile_ids: Iterable[int]) -> dict[_Key, Row[tuple[object, ...]]]:
    c = consents.c
    return {
        (row.profile_id, row.channel, row.topic): row
        for some in in_slices(sorted(profile_ids))
        for row in tx.conn.execute(select(consents).where(c.profile_id.in_(some)))
    }


def _last_sources(tx: Tx, profile_ids: Iterable[int]) -> dict[_Key, str]:
    """Where the newest record of each consent of these profiles came from."""
    c = consent_records.c
    return {
        (row.profile_id, row.channel, row.topic): row.source
        for some in in_slices(sorted(profile_ids))
        for row in tx.conn.execute(
            select(c.profile_id, c.channel, c.topic, c.source)
            .where(c.profile_id.in_(some))
            .order_by(c.id)
        )
    }


def _write(tx: Tx, changes: Sequence[ConsentChange], source: str) -> None:
    upsert = insert_into(tx.conn, consents)
    tx.conn.execute(
        upsert.on_conflict_do_update(
            index_elements=list(consents.primary_key),
            set_={name: upsert.excluded[name] for name in ("granted", "changed_at")},
        ),
        [
            {
                "profile_id": change.profile_id,
                "channel": change.channel,
                "topic": change.topic,
                "granted": change.granted,
                "changed_at": tx.now if change.occurred_at is None else change.occurred_at,
            }
            for change in changes
        ],
    )
    tx.conn.execute(
        insert(consent_records),
        [
            {
                "profile_id": change.profile_id,
                "channel": change.channel,
                "topic": change.topic,
                "granted": change.granted,
                "occurred_at": tx.now if change.occurred_at is None else change.occurred_at,
                "recorded_at": tx.now,
                "source": source,
            }
            for change in changes
        ],
    )
