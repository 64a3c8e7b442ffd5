"""Choices in the preference center: consent, frequency, hours, zone and language.

A choice takes effect now and is later than all recorded statements, also than those that an import
dated in the future. Choices are stored separately from the profile and override its values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from sqlalchemy import bindparam, select

from config.channels import ChannelName
from config.clock.times import Seconds
from config.database.arrays import insert_or_update
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.bulk import lock_profiles
from profiles.consent.changes import ConsentChange, change_consent
from profiles.consent.double_opt_in import NO_TOPICS, can_be_confirmed, waiting
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import channel_addresses
from profiles.tables import consents, preferences, profiles

_CHOICES = ("per_week", "opens", "closes", "timezone", "language")
_p, _f, _c = profiles.c, preferences.c, consents.c
_ABOUT = (
    select(
        _p.timezone.label("known_timezone"),
        _p.language.label("known_language"),
        _p.country,
        *(_f[name] for name in _CHOICES),
    )
    .join_from(profiles, preferences, _f.profile_id == _p.id, isouter=True)
    .where(_p.id == bindparam("whose"))
)
_CONSENT = select(_c.channel, _c.topic, _c.granted).where(_c.profile_id == bindparam("whose"))
_PUT = insert_or_update(_f.profile_id, *(_f[name] for name in _CHOICES), _f.changed_at, _f.bucket)

Topics = Mapping[tuple[ChannelName, str], bool]  # channel and topic (or `*`) -> granted
# The wanted state; None returns consent to unset.
TopicChanges = Mapping[tuple[ChannelName, str], bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The values of one profile that the preference center shows.

    opens, closes: the chosen hours, in seconds of the local day; both or neither.
    known_timezone, known_language: the values of the profile, used without a choice.
    addresses: the usable address of each channel; of several devices the one seen last.
    unconfirmed: the address of each topic on e-mail with a pending yes.
    """

    profile_id: int
    consent: Topics
    per_week: int | None
    opens: Seconds | None
    closes: Seconds | None
    timezone: str | None
    language: str | None
    known_timezone: str | None
    known_language: str | None
    country: str | None
    phone_country: str | None
    addresses: Mapping[ChannelName, str]
    unconfirmed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that a customer makes; other values stay."""

    consent: TopicChanges = field(default_factory=dict)
    # per_week, opens, closes, timezone, language; None removes a choice
    choices: Mapping[str, int | str | None] = field(default_factory=dict)


def read_chosen(tx: Tx, profile_id: int, *, lock: bool = False) -> Chosen | None:
    """The values of a profile; None if there is no such profile.

    lock: lock the profile until the transaction ends.
    """
    if lock:
        lock_profiles(tx, [profile_id])
    whose = {"whose": profile_id}
    about = tx.conn.execute(_ABOUT, whose).one_or_none()
    if about is None:
        return None
    consent = {(row.channel, row.topic): row.granted for row in tx.conn.execute(_CONSENT, whose)}
    usable = [one for one in channel_addresses(tx, [profile_id]) if not one.suppressed]
    countries = [one.country for one in usable if one.country is not None]
    return Chosen(
        profile_id=profile_id,
        consent=consent,
        per_week=about.per_week,
        opens=about.opens,
        closes=about.closes,
        timezone=about.timezone,
        language=about.language,
        known_timezone=about.known_timezone,
        known_language=about.known_language,
        country=about.country,
        phone_country=countries[0] if countries else None,
        addresses={one.channel: one.value for one in reversed(usable)},
        unconfirmed={
            row.topic: row.address
            for row in waiting(tx, [profile_id])
            if can_be_confirmed(row, tx.now)
        },
    )


def save(
    tx: Tx,
    before: Chosen,
    changes: Changes,
    source: str,
    double_opt_in: Mapping[str, str] = NO_TOPICS,
) -> bool:
    """Write the effective changes and the event that journeys react to.

    Parameters
    ----------
    before: read with `lock` in this transaction.
    source: the page, for the consent record.
    double_opt_in: `Policy.double_opt_in`.

    Returns
    -------
    Whether a value changed, or a yes is now pending.
    """
    whose = before.profile_id
    statements = [
        ConsentChange(
            profile_id=whose, channel=channel, topic=topic, granted=granted, just_now=True
        )
        for (channel, topic), granted in changes.consent.items()
    ]
    outcome = change_consent(tx, statements, source, double_opt_in=double_opt_in)
    choices = {name: to for name, to in changes.choices.items() if getattr(before, name) != to}
    if choices:
        row = (choices.get(name, getattr(before, name)) for name in _CHOICES)
        _PUT(tx.conn, [(whose, *row, tx.now, bucket_of(whose))])
    if not (outcome.applied or choices):
        return bool(outcome.waiting)
    event = NewEvent(
        profile_id=whose,
        name=PROFILE_CHANGED,
        occurred_at=tx.now,
        dedupe_key=f"{source} {uuid4()}",
        properties={},
    )
    record_events(tx, [event], worked=False)
    return True
