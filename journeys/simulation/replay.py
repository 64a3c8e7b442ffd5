"""The inputs that a database recorded, to be replayed on a snapshot from before them.

Inputs are events, answers to messages, statements of consent and launches, each at the time at
which it was worked. What the engine itself wrote (decisions, messages, enrollments, its own events)
is not read, except to name the messages that were answered.

Changes of attributes and addresses are not recorded one by one, so they are not replayed.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from sqlalchemy import Select, and_, bindparam, cast, exists, not_, or_, select
from sqlalchemy.types import Text

from channels.messages import messages
from channels.providers.webhook import FeedbackKind
from config.channels import ChannelName
from config.clock.times import Instant
from config.database.arrays import one_of
from config.database.engine import Tx
from config.policy import CHANNELS
from journeys.enrollments import enrollments
from journeys.launches.api_start import API_AUDIENCE
from journeys.simulation.inputs import (
    AnswerInput,
    ConsentInput,
    Input,
    Inputs,
    LaunchOf,
    MessageKey,
    ShopEvent,
    StartOf,
)
from journeys.simulation.messages import KEY_COLUMNS
from journeys.tables import launches
from profiles.events import PROFILE_CHANGED
from profiles.identity.addresses import suppressed_since
from profiles.tables import SuppressionState, consent_records, events

# Inbound texts name no message; the profile is found by the address.
_BY_TEXT = ("stopped", "started", "replied")
_ANSWERS: Mapping[str, tuple[ChannelName, FeedbackKind]] = {
    f"{channel}_{kind}": (channel, kind) for channel in CHANNELS for kind in get_args(FeedbackKind)
}
# What a report adds to the properties of its event.
_OF_REPORT = ("message_id", "journey", "step", "reason")
_e, _r, _l = events.c, consent_records.c, launches.c
_STARTED = (
    select(enrollments.c.profile_id, enrollments.c.context)
    .where(
        enrollments.c.launch_id == bindparam("launch"),
        enrollments.c.journey == bindparam("of_journey"),
    )
    .order_by(enrollments.c.profile_id)
)


def recorded_inputs(tx: Tx, since: Instant, until: Instant) -> Inputs:
    """The inputs that were worked from `since` on, before `until`."""
    inputs = Inputs()
    for at, one in recorded(tx, since, until):
        inputs.add(at, [one])
    return inputs


def recorded(tx: Tx, since: Instant, until: Instant) -> Iterator[tuple[Instant, Input]]:
    """The inputs of `recorded_inputs`, each with its time; of one kind in the order of time."""
    suppressed = suppressed_since(tx, since)
    for row in tx.conn.execute(_events(since, until)).mappings():
        yield row["worked_at"], _event_or_answer(dict(row), suppressed)
    for row in tx.conn.execute(_statements(since, until)).mappings():
        yield (
            row["recorded_at"],
            ConsentInput(
                profile_id=row["profile_id"],
                channel=row["channel"],
                topic=row["topic"],
                granted=row["granted"],
                occurred_at=row["occurred_at"],
                source=row["source"],
            ),
        )
    started = select(_l.started_at, _l.id, _l.journey, _l.audience, _l.people).where(
        _l.started_at >= since, _l.started_at < until
    )
    rows = tx.conn.execute(started.order_by(_l.started_at, _l.id)).tuples().all()
    for started_at, launch_id, journey, audience, people in rows:
        if audience == API_AUDIENCE:
            entered = tx.conn.execute(_STARTED, {"launch": launch_id, "of_journey": journey})
            each = tuple((profile_id, context) for profile_id, context in entered)
            yield started_at, StartOf(launch_id, journey, each)
        else:
            yield (
                started_at,
                LaunchOf(id=launch_id, journey=journey, audience=audience, people=people),
            )


def _events(since: Instant, until: Instant) -> Select[Any]:
    """The events that came from outside, in the order in which they were recorded."""
    about = _e.properties["message_id"].as_string()
    its_message = and_(
        messages.c.profile_id == _e.profile_id, cast(messages.c.id, Text) == cast(about, Text)
    )
    by_engine = or_(
        and_(_e.name == PROFILE_CHANGED, _e.dedupe_key.startswith("update ")),
        and_(
            one_of(_e.name, [f"{channel}_failed" for channel in CHANNELS]),
            _e.dedupe_key.startswith("message "),
        ),
    )
    return (
        select(
            *(_e.profile_id.label("who"), _e.name, _e.properties, _e.dedupe_key, _e.occurred_at),
            *(_e.received_at, _e.worked_at, _e.identifier_value),
            *KEY_COLUMNS,
        )
        .join_from(events, messages, its_message, isouter=True)
        .join(enrollments, enrollments.c.id == messages.c.enrollment_id, isouter=True)
        .where(_e.worked_at >= since, _e.worked_at < until, not_(by_engine))
        .where(_e.received_at >= since)
        .order_by(_e.worked_at, _e.id)
    )


def _event_or_answer(
    row: Mapping[str, Any], suppressed: Mapping[tuple[str, str], SuppressionState]
) -> Input:
    answer = _ANSWERS.get(row["name"])
    if answer is None or (row["member"] is None and answer[1] not in _BY_TEXT):
        return ShopEvent(
            profile_id=row["who"],
            name=row["name"],
            properties=row["properties"],
            dedupe_key=row["dedupe_key"],
            occurred_at=row["occurred_at"],
            waited=row["worked_at"] - row["received_at"],
        )
    channel, kind = answer
    key = None
    if kind not in _BY_TEXT:
        key = MessageKey(*(row[column.name] for column in KEY_COLUMNS))
    address = row["identifier_value"]
    properties = {
        name: value for name, value in row["properties"].items() if name not in _OF_REPORT
    }
    return AnswerInput(
        id=row["dedupe_key"],
        channel=channel,
        kind=kind,
        message=key,
        address=address,
        at=row["occurred_at"],
        reason=row["properties"].get("reason"),
        suppress=suppressed.get((address, channel)) if kind in ("bounced", "complained") else None,
        properties=properties,
    )


def _statements(since: Instant, until: Instant) -> Select[Any]:
    """The statements of consent that no answer caused."""
    kinds = ("stopped", "started", "unsubscribed", "resubscribed")
    of_answer = exists().where(
        _e.profile_id == _r.profile_id,
        or_(*(_e.name == _r.channel + f"_{kind}" for kind in kinds)),
        _e.occurred_at == _r.occurred_at,
    )
    return (
        select(consent_records)
        .where(_r.recorded_at >= since, _r.recorded_at < until, not_(of_answer))
        .order_by(_r.recorded_at, _r.id)
    )
