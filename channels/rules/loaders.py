"""Load recipients, message histories and template data, many at once, in one statement each."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Text, and_, bindparam, cast, exists, false, func, null, select

from channels.messages import COUNTING_STATES, messages
from channels.rules.caps import Counted, reach
from channels.rules.recipient import (
    Recipient,
    Situation,
    StatedConsent,
    preferences_of,
    zones_for,
)
from config.channels import ChannelName
from config.clock.times import Instant
from config.database.aggregates import rows_as_json
from config.database.arrays import any_of, one_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.policy import Policy
from profiles.attributes.companies import IS_COMPANY_OF_PROFILE
from profiles.bucketing import buckets_of, draw
from profiles.identity.addresses import ADDRESSES_IN_USE, CHANNELS_TO, addresses_in_use
from profiles.tables import (
    IdentifierKind,
    companies,
    consent_records,
    consents,
    events,
    held_out,
    preferences,
    profiles,
)


class Past(NamedTuple):
    """A message that counts against caps, with what preemption needs."""

    id: int
    counted: Counted
    priority: int
    planned: bool  # state `planned`: not claimed yet
    enrollment_id: int
    step: str
    name: str  # for display: journey / step / member


class Marks(NamedTuple):
    """The highest ids of events and consent records in the profiles' buckets when contents were
    read.

    If the profiles are locked then, rows of these profiles with a higher id are newer.
    """

    event_id: int
    consent_record_id: int


class Contents(NamedTuple):
    """What templates see of each profile, of its computed traits and of its company, by the
    profile's id, and the marks of that moment."""

    marks: Marks
    profiles: Mapping[int, Mapping[str, Any]]
    traits: Mapping[int, Mapping[str, Any]]
    groups: Mapping[int, Mapping[str, Any]]

    def context(self, profile_id: int) -> dict[str, Any]:
        """What the templates of a message to the profile see, without its entry."""
        return {
            "profile": self.profiles[profile_id],
            "trait": self.traits[profile_id],
            "group": self.groups[profile_id],
        }


_of_profile = and_(
    preferences.c.profile_id == profiles.c.id,
    preferences.c.bucket == profiles.c.bucket,
    in_buckets(preferences.c.bucket),
)
# As text, which is equal for many profiles and decoded once for them.
_CONSENT = (
    select(cast(rows_as_json(consents.c.channel, consents.c.topic, consents.c.granted), Text))
    .where(
        consents.c.profile_id == profiles.c.id,
        consents.c.bucket == profiles.c.bucket,
        in_buckets(consents.c.bucket),
    )
    .correlate(profiles)
    .scalar_subquery()
)
_IS_HELD_OUT = exists().where(
    held_out.c.profile_id == profiles.c.id,
    held_out.c.bucket == profiles.c.bucket,
    in_buckets(held_out.c.bucket),
)
# By whether tables are distributed, and whether the policy has a holdout.
_RECIPIENTS = {
    (distributed, holds_out): select(
        *(profiles.c[name] for name in ("id", "timezone", "country")),
        *(preferences.c[name] for name in ("timezone", "per_week", "opens", "closes")),
        _IS_HELD_OUT if holds_out else false(),
        null() if distributed else ADDRESSES_IN_USE,
        _CONSENT,
    )
    .join_from(profiles, preferences, _of_profile, isouter=True)
    .where(any_of(profiles.c.id, "profile_ids"), in_buckets(profiles.c.bucket))
    for distributed in (False, True)
    for holds_out in (False, True)
}
_HISTORY = select(
    *(
        messages.c[name]
        for name in (
            *("profile_id", "id", "send_at", "channel", "kind", "topic", "priority", "state"),
            *("enrollment_id", "step", "journey", "member"),
        )
    )
).where(
    any_of(messages.c.profile_id, "profile_ids"),
    in_buckets(messages.c.bucket),
    messages.c.send_at > bindparam("since"),
    messages.c.send_at < bindparam("until"),
    one_of(messages.c.state, COUNTING_STATES),
)
_CONTENTS = (
    select(
        *(
            func.coalesce(
                select(func.max(log.c.id)).where(in_buckets(log.c.bucket)).scalar_subquery(), 0
            )
            for log in (events, consent_records)
        ),
        profiles.c.id,
        profiles.c.attributes,
        profiles.c.computed,
        profiles.c.country,
        # a language chosen in the preference center takes precedence
        func.coalesce(preferences.c.language, profiles.c.language),
        companies.c.id,
        companies.c.traits,
    )
    .join_from(profiles, preferences, _of_profile, isouter=True)
    .join(companies, IS_COMPANY_OF_PROFILE, isouter=True)
    .where(any_of(profiles.c.id, "profile_ids"), in_buckets(profiles.c.bucket))
)


def load_recipients(tx: Tx, policy: Policy, profile_ids: Collection[int]) -> dict[int, Recipient]:
    """The recipients, by profile id. Profiles that do not exist are left out.

    One statement, and another one for addresses in distributed tables; none without profiles.
    """
    if not profile_ids:
        return {}
    holdout = policy.holdout_percent / 100
    reading = _RECIPIENTS[tx.distributed, holdout > 0]
    given = {"profile_ids": profile_ids, "buckets": buckets_of(profile_ids)}
    rows = tx.rows(reading, given)
    apart = addresses_in_use(tx, profile_ids) if tx.distributed else {}
    situations: dict[_Stated, Situation] = {}
    found: dict[int, Recipient] = {}
    for profile_id, *zones_and_preferences, stored, together, said in rows:
        in_use = apart.get(profile_id, together or ())
        stated = (
            *zones_and_preferences,
            # `stored` is 0 or 1 on SQLite. A profile that nothing has stored yet is drawn.
            bool(stored) or (holdout > 0 and draw(profile_id, "holdout") < holdout),
            # Without the addresses themselves, unless suppressed, and without their order: only
            # phone numbers have a country, and only one of them is in use.
            tuple(
                [
                    (kind, country, None if on is None else value, on)
                    for kind, value, country, _, _, on in in_use
                ]
            ),
            said,
        )
        situation = situations.get(stated)
        if situation is None:
            situation = situations[stated] = _situation(policy, *stated)
        found[profile_id] = Recipient(situation, in_use)
    return found


# The parameters of `_situation` behind the policy.
_Stated = tuple[Any, ...]


def _situation(
    policy: Policy,
    timezone: str | None,
    country: str | None,
    chosen: str | None,
    per_week: int | None,
    opens: int | None,
    closes: int | None,
    held_out: bool,
    addresses: Collection[tuple[IdentifierKind, str | None, str | None, ChannelName | None]],
    said: str | None,
) -> Situation:
    """The situation of profiles that all this is stated of.

    addresses: for each address in use its kind and country; for one that is suppressed also the
    address and a channel on which it is, one element for each channel.
    said: JSON of the rows that `StatedConsent.of` takes.
    """
    suppressed_on: dict[tuple[IdentifierKind, str | None], set[ChannelName]] = defaultdict(set)
    for kind, _, value, on in addresses:
        suppressed_on[kind, value].update([] if on is None else [on])
    usable = {
        name
        for (kind, _), on in suppressed_on.items()
        for name in CHANNELS_TO[kind]
        if name not in on
    }
    reached = {name for kind, *_ in addresses for name in CHANNELS_TO[kind]}
    return Situation(
        zones=zones_for(
            timezone,
            country,
            next((country for _, country, *_ in addresses if country is not None), None),
            policy.timezone,
            chosen=chosen,
        ),
        addresses=frozenset(reached),
        suppressed=frozenset(reached - usable),
        consent=StatedConsent.of(orjson.loads(said) if said else ()),
        held_out=held_out,
        own=preferences_of(per_week, opens, closes),
    )


def load_history(
    tx: Tx, policy: Policy, recipients: Mapping[int, Recipient], latest: Instant
) -> dict[int, list[Past]]:
    """The messages that count against caps for send times from now to `latest`, by profile.

    Profiles without such messages have an empty list. One statement; none if there are no caps.
    """
    found: dict[int, list[Past]] = defaultdict(list)
    own = {recipient.situation.own.per_week for recipient in recipients.values()} - {None}
    caps = [*policy.caps, *(cap for cap in own if cap is not None)]
    if not recipients or not caps:
        return found
    far = reach(caps)
    given = {
        "profile_ids": recipients,
        "since": tx.now - far,
        "until": latest + far,
        "buckets": buckets_of(recipients),
    }
    for (
        profile_id,
        message_id,
        send_at,
        channel,
        kind,
        topic,
        priority,
        state,
        enrollment_id,
        step,
        journey,
        member,
    ) in tx.rows(_HISTORY, given):
        found[profile_id].append(
            Past(
                id=message_id,
                counted=Counted(send_at=send_at, channel=channel, kind=kind, topic=topic),
                priority=priority,
                planned=state == "planned",
                enrollment_id=enrollment_id,
                step=step,
                name=f"{journey} / {step} / {member}",
            )
        )
    return found


def load_contents(tx: Tx, profile_ids: Collection[int]) -> Contents:
    """What templates see of each profile: its attributes, `country` and `language`, its computed
    traits, and of its company: its traits and `id`.

    One statement. Without profiles there is none, and the marks are 0.
    """
    marks = Marks(0, 0)
    about: dict[int, dict[str, Any]] = {}
    computed: dict[int, dict[str, Any]] = {}
    groups: dict[int, dict[str, Any]] = {}
    if profile_ids:
        given = {"profile_ids": profile_ids, "buckets": buckets_of(profile_ids)}
        for (
            event_id,
            consent_record_id,
            profile_id,
            attributes,
            computed_traits,
            country,
            language,
            company_id,
            traits,
        ) in tx.rows(_CONTENTS, given):
            marks = Marks(event_id, consent_record_id)
            stated = {name: value for name, value in attributes.items() if value is not None}
            about[profile_id] = {**stated, "country": country, "language": language}
            computed[profile_id] = computed_traits or {}
            groups[profile_id] = {} if company_id is None else {"id": company_id, **traits}
    return Contents(marks=marks, profiles=about, traits=computed, groups=groups)
