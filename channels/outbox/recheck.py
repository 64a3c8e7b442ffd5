"""Check claims that waited for their turn against what has changed since they were taken."""

from collections.abc import Sequence

from sqlalchemy import bindparam, select

from channels.messages import messages
from channels.outbox import devices
from channels.outbox.claims import Claim, Journeys
from config.channels import channel_of
from config.database.arrays import any_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from profiles.bucketing import buckets_of
from profiles.tables import consent_records, events

# A message id and the address or token it is sent to.
HandOver = tuple[int, str]

_PROFILES_OF = select(messages.c.id, messages.c.profile_id).where(
    any_of(messages.c.id, "messages"), in_buckets(messages.c.bucket)
)
_NEWER_EVENTS, _NEWER_CONSENTS = (
    select(table.c.profile_id).where(
        table.c.id > bindparam("mark"),
        any_of(table.c.profile_id, "profiles"),
        in_buckets(table.c.bucket),
    )
    for table in (events, consent_records)
)


def outdated(tx: Tx, journeys: Journeys, claims: Sequence[Claim]) -> set[HandOver]:
    """The hand-overs that must be evaluated again, because something changed since the claim.

    The profile has a new event or consent record, was merged, or its journey was paused; or the
    device is no longer in use or belongs to another profile.
    """
    held = set(journeys.held(tx))
    buckets = buckets_of(one.profile_id for one in claims)
    these = {"messages": [one.message_id for one in claims], "buckets": buckets}
    # A merge may have moved a message to another bucket.
    now_of = {row.id: row.profile_id for row in tx.rows(_PROFILES_OF, these)}
    people = set(now_of.values())
    active: set[int] = set()
    for newer, mark in (
        (_NEWER_EVENTS, min(one.marks.event_id for one in claims)),
        (_NEWER_CONSENTS, min(one.marks.consent_record_id for one in claims)),
    ):
        newest = {"mark": mark, "profiles": people, "buckets": buckets}
        active.update(row.profile_id for row in tx.rows(newer, newest))
    pushes = [one for one in claims if channel_of(one.channel).per_device]
    live = {
        (channel, *device)
        for channel in {one.channel for one in pushes}
        for device in devices.usable_devices(
            tx,
            channel,
            {to.address for one in pushes if one.channel == channel for to in one.targets},
        )
    }
    return {
        (one.message_id, target.address)
        for one in claims
        for target in one.targets
        if one.journey in held
        or now_of.get(one.message_id) != one.profile_id
        or one.profile_id in active
        or (
            channel_of(one.channel).per_device
            and (one.channel, one.profile_id, target.address) not in live
        )
    }
