"""Load recipients and message histories for planning and claiming, in bulk."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import select

from channels.messages import COUNTING_STATES, messages
from channels.rules.caps import Counted, reach
from channels.rules.recipient import (
    NO_PREFERENCES,
    Preferences,
    Recipient,
    preferences_of,
    zones_for,
)
from config.clock.times import Instant
from config.database.engine import Tx
from config.policy import Policy
from profiles.bucketing import draw
from profiles.bulk import among
from profiles.identity.addresses import channel_addresses
from profiles.tables import consents, preferences, profiles


class Past(NamedTuple):
    """A message that counts against caps, with what preemption needs."""

    id: int
    counted: Counted
    priority: int
    planned: bool  # state `planned`: not claimed yet
    enrollment_id: int
    step: str
    name: str  # for display: journey / step / member


def load_recipients(tx: Tx, policy: Policy, profile_ids: Collection[int]) -> dict[int, Recipient]:
    """The recipients, by profile id."""
    ids = list(set(profile_ids))
    addresses: dict[int, set[str]] = defaultdict(set)
    usable: dict[int, set[str]] = defaultdict(set)
    phone_country: dict[int, str | None] = {}
    for address in channel_addresses(tx, ids):
        addresses[address.profile_id].add(address.channel)
        if not address.suppressed:
            usable[address.profile_id].add(address.channel)
        if address.country is not None:
            phone_country[address.profile_id] = address.country
    consent: dict[int, dict[tuple[str, str], bool]] = defaultdict(dict)
    for profile_id, channel, topic, granted in tx.conn.execute(
        select(
            consents.c.profile_id, consents.c.channel, consents.c.topic, consents.c.granted
        ).where(among(tx, consents.c.profile_id, ids))
    ):
        consent[profile_id][channel, topic] = granted
    own: dict[int, Preferences] = {}
    own_zone: dict[int, str | None] = {}
    for profile_id, per_week, opens, closes, timezone in tx.conn.execute(
        select(
            preferences.c.profile_id,
            preferences.c.per_week,
            preferences.c.opens,
            preferences.c.closes,
            preferences.c.timezone,
        ).where(among(tx, preferences.c.profile_id, ids))
    ):
        own[profile_id] = preferences_of(per_week, opens, closes)
        own_zone[profile_id] = timezone
    holdout = policy.holdout_percent / 100
    nothing: set[str] = set()
    return {
        profile_id: Recipient(
            zones=zones_for(
                timezone,
                country,
                phone_country.get(profile_id),
                policy.timezone,
                chosen=own_zone.get(profile_id),
            ),
            addresses=addresses.get(profile_id, nothing),
            suppressed=addresses.get(profile_id, nothing) - usable.get(profile_id, nothing),
            consent=consent.get(profile_id, {}),
            held_out=holdout > 0 and draw(profile_id, "holdout") < holdout,
            own=own.get(profile_id, NO_PREFERENCES),
        )
        for profile_id, timezone, country in tx.conn.execute(
            select(profiles.c.id, profiles.c.timezone, profiles.c.country).where(
                among(tx, profiles.c.id, ids)
            )
        )
    }


def load_history(
    tx: Tx, policy: Policy, recipients: Mapping[int, Recipient], latest: Instant
) -> dict[int, list[Past]]:
    """The messages that count against caps for send times from now to `latest`, by profile."""
    found: dict[int, list[Past]] = defaultdict(list)
    own = {recipient.own.per_week for recipient in recipients.values()} - {None}
    caps = [*policy.caps, *(cap for cap in own if cap is not None)]
    if not caps:
        return found
    far = reach(caps)
    columns = messages.c
    for row in tx.conn.execute(
        select(
            columns.profile_id,
            columns.id,
            columns.send_at,
            columns.channel,
            columns.kind,
            columns.topic,
            columns.priority,
            columns.state,
            columns.enrollment_id,
            columns.step,
            columns.journey,
            columns.member,
        ).where(
            among(tx, columns.profile_id, recipients),
            columns.send_at > tx.now - far,
            columns.send_at < latest + far,
            columns.state.in_(COUNTING_STATES),
        )
    ):
        found[row.profile_id].append(
            Past(
                id=row.id,
                counted=Counted(
                    send_at=row.send_at, channel=row.channel, kind=row.kind, topic=row.topic
                ),
                priority=row.priority,
                planned=row.state == "planned",
                enrollment_id=row.enrollment_id,
                step=row.step,
                name=f"{row.journey} / {row.step} / {row.member}",
            )
        )
    return found
