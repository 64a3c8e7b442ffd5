"""Where one profile stands in each journey: what it waits for, how it left, why it is not in it."""

from collections import defaultdict
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, bindparam, select

from channels.explain import EXPLAINED_COLUMNS, ExplainedMessage
from channels.messages import messages
from channels.rules.loaders import load_recipients
from channels.rules.recipient import Zones
from config.clock.times import Instant, format_instant
from config.clock.zones import format_local
from config.database.arrays import one_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.policy import Policy
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.definition.steps import NO_DATE
from journeys.engine.exits import EXITED
from journeys.enrollments import enrollments
from journeys.enrollments.states import UNDONE, UNDONE_AFTER_SENDING
from journeys.explain.not_entered import not_entered
from journeys.explain.waiting_for import Enrolled, Local, waiting_for
from journeys.operations.control import PAUSED, STOPPED, STOPPED_REASON, held
from journeys.operations.counts import AHEAD
from journeys.operations.merge import MERGED
from profiles.bucketing import bucket_of
from profiles.conditions.words import in_words

_PROFILE = bindparam("profile", type_=BigInteger)
_ENROLLMENTS = (
    select(*(enrollments.c[name] for name in Enrolled._fields))
    .where(enrollments.c.profile_id == _PROFILE, in_buckets(enrollments.c.bucket))
    .order_by(enrollments.c.entered_at, enrollments.c.id)
)
_AHEAD = (
    select(*EXPLAINED_COLUMNS, messages.c.enrollment_id)
    .where(
        messages.c.profile_id == _PROFILE,
        in_buckets(messages.c.bucket),
        one_of(messages.c.state, AHEAD),
    )
    .order_by(messages.c.send_at, messages.c.id)
)
_HELD = {
    PAUSED: "The journey is paused: nothing moves and nothing is sent until it is resumed.",
    STOPPED: "The journey is stopped: this enrollment ends.",
}
_HELD_OUT = "The customer is in the holdout group, so the journey sends no marketing to them."


class Standing(NamedTuple):
    """One profile's place in one journey, or why it has none.

    state: `waiting` (one for each current enrollment), `left` or `never entered`. reason: a code of
    `waiting_for` or `not_entered`, or `paused`, `stopped` or `not_in_library`. step: where it waits
    or left. since: when it arrived there or left. until: when the wait or the reason ends, if that
    is known.
    """

    journey: str
    state: str
    reason: str
    why: str
    step: str | None = None
    since: Instant | None = None
    until: Instant | None = None


class Standings(NamedTuple):
    """One profile's place in each journey, by name. zone: that of the times in the texts."""

    zone: str
    about_zone: str
    held_out: bool
    journeys: list[Standing]

    def as_json(self) -> list[dict[str, Any]]:
        """One object for each journey, with the keys that explained messages have, and more."""
        return [
            {
                **{"message": None, "channel": None, "decision": {}},
                "at": _iso(one.since),
                "journey": one.journey,
                "step": one.step,
                "state": one.state,
                "reason": one.reason,
                "why": one.why,
                "until": _iso(one.until),
                "timezone": self.zone,
                "held_out": self.held_out,
            }
            for one in self.journeys
        ]


def _iso(instant: Instant | None) -> str | None:
    return None if instant is None else format_instant(instant)


def standings_of(tx: Tx, catalog: Catalog, policy: Policy, profile_id: int) -> Standings:
    """Where a profile stands in each journey of the catalog and in each it was in."""
    given = {"profile": profile_id, "buckets": [bucket_of(profile_id)]}
    entered: dict[str, list[Enrolled]] = defaultdict(list)
    for person in map(Enrolled._make, tx.conn.execute(_ENROLLMENTS, given)):
        entered[person.journey].append(person)
    catalog.learn(tx, {(one.journey, one.version) for some in entered.values() for one in some})
    ahead: dict[tuple[int, str], list[ExplainedMessage]] = defaultdict(list)
    for *columns, enrollment_id in tx.conn.execute(_AHEAD, given):
        message = ExplainedMessage._make(columns)
        ahead[enrollment_id, message.step].append(message)
    situation = load_recipients(tx, policy, [profile_id])[profile_id].situation
    zone, about_zone = _shown_zone(situation.zones, policy)

    def local(instant: Instant) -> str:
        return format_local(instant, zone)

    found: list[Standing] = []
    for journey in sorted({*catalog.current, *entered}):
        current = [one for one in entered[journey] if one.ended_at is None]
        here = [
            _waiting(tx, catalog.version(journey, one.version), one, ahead[one.id, one.step], local)
            for one in current
        ] or [_outside(tx, catalog, journey, profile_id, entered[journey], local)]
        if situation.held_out:
            here = [one._replace(why=f"{one.why} {_HELD_OUT}") for one in here]
        found += here
    return Standings(zone=zone, about_zone=about_zone, held_out=situation.held_out, journeys=found)


def _shown_zone(zones: Zones, policy: Policy) -> tuple[str, str]:
    """The zone in which times are shown, and a sentence about it."""
    if len(zones.names) == 1:
        [name] = zones.names
        source = "the brand's, as the customer's is unknown" if zones.source == "brand" else ""
        sources = {"profile": "the customer's", "country": "that of the customer's country"}
        sources["phone"] = "that of the phone number's country"
        return name, f"Times are in the zone {name}, {source or sources[zones.source]}."
    return policy.timezone, (
        f"Times are in the zone {policy.timezone}, the brand's: the customer's may be any of "
        f"{len(zones.names)} zones."
    )


def _waiting(
    tx: Tx, version: Version, person: Enrolled, ahead: list[ExplainedMessage], local: Local
) -> Standing:
    reason, why = waiting_for(person, version, ahead, tx.now, local)
    if (state := held(tx).get(person.journey)) is not None:
        reason, why = state, f"{_HELD[state]} {why}"
    key = f" with {person.entry_key!r}" if person.entry_key else ""
    return Standing(
        journey=person.journey,
        state="waiting",
        reason=reason,
        why=f"In it{key} since {local(person.entered_at)}, at the step {person.step!r}. {why}",
        step=person.step,
        since=person.arrived_at,
        until=person.due_at,
    )


def _outside(
    tx: Tx,
    catalog: Catalog,
    journey: str,
    profile_id: int,
    before: list[Enrolled],
    local: Local,
) -> Standing:
    """How a profile left a journey, and why it is not in it now."""
    version = catalog.current.get(journey)
    if version is None:
        reason, until = "not_in_library", None
        why = "The journey is not in the library any more, so nobody enters."
    else:
        reason, why, until = not_entered(tx, catalog, version, profile_id, local)
    if not before:
        return Standing(
            journey=journey,
            state="never entered",
            reason=reason,
            why=f"Never in it. {why}",
            until=until,
        )
    last = max(before, key=lambda one: (one.ended_at or 0, one.id))
    assert last.ended_at is not None  # none of them is current
    how = _how_it_left(last, catalog.version(journey, last.version))
    return Standing(
        journey=journey,
        state="left",
        reason=reason,
        why=f"Not in it any more: {how}, on {local(last.ended_at)}. {why}",
        step=last.step,
        since=last.ended_at,
        until=until,
    )


def _how_it_left(person: Enrolled, version: Version) -> str:
    reason = person.end_reason or ""
    rule = version.journey.exit_when
    if reason == "completed":
        return f"it went through to its end, the last step was {person.step!r}"
    if reason == EXITED and rule is not None:
        return f"the exit rule ended it at {person.step!r} ({in_words(rule)})"
    if reason == NO_DATE:
        return f"at {person.step!r} the customer had no readable date"
    if reason == MERGED:
        return "two profiles were joined, and the other's enrollment went on"
    if reason in (UNDONE, UNDONE_AFTER_SENDING):
        return f"at {person.step!r} the launch was undone"
    if reason == STOPPED_REASON:
        return f"at {person.step!r} the journey was stopped"
    return f"it left at {person.step!r} ({reason.removeprefix('exit: ')})"
