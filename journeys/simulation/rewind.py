"""Take a copy of a database back to a past moment.

Enrollments that began before stay as they went, with their messages. Of the journeys in question
those that began later are removed, and begin again by the same events and launches (past.py).

This is the only module of simulations that writes messages and enrollments apart from the copy.
"""

from collections.abc import Collection, Iterator

from sqlalchemy import delete, exists, or_, select, update

from channels.messages import message_devices, messages
from config.clock.times import Instant
from config.database.arrays import one_of
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.operations.counts import AHEAD
from journeys.simulation.inputs import ConsentInput, Input, Inputs, NewProfile, ShopEvent, StartOf
from journeys.tables import journey_controls, passages, segment_members
from profiles.consent.state import consents_at, write_statements
from profiles.identity.addresses import forget_suppressions
from profiles.tables import consent_records, events, profiles

_m, _e = messages.c, enrollments.c


def rewind(
    copied: Tx,
    source: Tx,
    journeys: Collection[str],
    inputs: Inputs,
    *,
    since: Instant,
    until: Instant,
) -> None:
    """Take a copy back to `since`. Customers who came in the period become inputs."""
    conn = copied.conn
    conn.execute(delete(events).where(events.c.received_at >= since))
    again = select(_e.id).where(one_of(_e.journey, sorted(journeys)), _e.entered_at >= since)
    for table in (messages, passages):
        conn.execute(delete(table).where(table.c.enrollment_id.in_(again)))
    conn.execute(delete(enrollments).where(_e.id.in_(again)))
    # The results count what is wanted from `since` on; these messages count for caps only.
    conn.execute(delete(messages).where(or_(_m.wanted_at >= until, one_of(_m.state, AHEAD))))
    conn.execute(update(messages).where(_m.wanted_at >= since).values(wanted_at=since - 1))
    gone = ~exists().where(_m.id == message_devices.c.message_id)
    conn.execute(delete(message_devices).where(gone))
    conn.execute(update(enrollments).where(_e.converted_at >= since).values(converted_at=None))
    conn.execute(delete(consent_records).where(consent_records.c.recorded_at >= since))
    write_statements(copied, consents_at(source, since))
    forget_suppressions(copied, since)
    s = segment_members.c
    conn.execute(
        delete(segment_members).where(s.since >= since, one_of(s.journey, sorted(journeys)))
    )
    held = one_of(journey_controls.c.journey, sorted(journeys))
    conn.execute(delete(journey_controls).where(held))
    _arrive_later(copied, inputs, since, until)


def _arrive_later(copied: Tx, inputs: Inputs, since: Instant, until: Instant) -> None:
    """Take the profiles out of the copy that did not exist yet."""
    later = profiles.c.created_at >= since
    rows = [dict(row) for row in copied.conn.execute(select(profiles).where(later)).mappings()]
    copied.conn.execute(delete(profiles).where(later))
    # A profile that joined others can be younger than its events.
    first: dict[int, Instant] = {}
    for at in sorted(inputs.at):
        for profile_id in (one for each in inputs.at[at] for one in _whose(each)):
            first.setdefault(profile_id, at)
    for row in rows:
        at = min(row["created_at"], first.get(row["id"], until))
        if at < until:
            inputs.at.setdefault(at, []).insert(0, NewProfile(row))


def _whose(one: Input) -> Iterator[int]:
    if isinstance(one, ShopEvent | ConsentInput):
        yield one.profile_id
    elif isinstance(one, StartOf):
        yield from (profile_id for profile_id, _ in one.each)
