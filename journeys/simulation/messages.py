"""Find messages and enrollments that inputs are about."""

from collections.abc import Collection, Sequence

from sqlalchemy import or_, select, tuple_

from channels.messages import messages
from config.channels import ChannelName
from config.database.arrays import any_of, rows_of
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.simulation.inputs import MessageKey, Purchase, ShopEvent

_m, _e = messages.c, enrollments.c
KEY_COLUMNS = (_m.profile_id, _m.journey, _e.entered_at, _e.entry_key, _m.step, _m.member)
_KEYS = rows_of("keys", *KEY_COLUMNS)
_IDS = (
    select(_m.id, *KEY_COLUMNS)
    .join_from(messages, enrollments, _e.id == _m.enrollment_id)
    .where(tuple_(*KEY_COLUMNS).in_(select(_KEYS)))
)


def message_ids(tx: Tx, keys: Collection[MessageKey]) -> dict[MessageKey, int]:
    """The ids of these messages; those that do not exist are left out."""
    if not keys:
        return {}
    found = tx.rows(_IDS, {"keys": [tuple(key) for key in keys]})
    return {MessageKey(*key): message_id for message_id, *key in found}


_KEYS_OF = (
    select(_m.id, _m.channel, _e.launch_id, *KEY_COLUMNS)
    .join_from(messages, enrollments, _e.id == _m.enrollment_id)
    .where(any_of(_m.id, "messages"))
)


def message_keys(
    tx: Tx, ids: Collection[int]
) -> dict[int, tuple[ChannelName, str | None, MessageKey]]:
    """The channel, the launch and the key of messages, by id."""
    rows = tx.rows(_KEYS_OF, {"messages": ids})
    return {
        message_id: (channel, launch_id, MessageKey(*key))
        for message_id, channel, launch_id, *key in rows
    }


_CONCERNED = select(_e.profile_id).where(
    any_of(_e.profile_id, "people"), or_(_e.ended_at.is_(None), _e.converted_at.is_(None))
)


def enrolled_or_unconverted(tx: Tx, profile_ids: Collection[int]) -> set[int]:
    """Those of these profiles who have an enrollment on which an event can have an effect."""
    return {profile_id for (profile_id,) in tx.rows(_CONCERNED, {"people": profile_ids})}


_CONTEXTS = (
    select(_m.id, _m.profile_id, _e.context)
    .join_from(messages, enrollments, _e.id == _m.enrollment_id)
    .where(any_of(_m.id, "messages"))
)


def purchase_events(tx: Tx, purchases: Sequence[Purchase]) -> list[ShopEvent]:
    """The events of these purchases, each of the profile that got the message."""
    rows = tx.rows(_CONTEXTS, {"messages": [one.message for one in purchases]})
    known = {message_id: rest for message_id, *rest in rows}
    found = []
    for one in purchases:
        profile_id, context = known[one.message]
        shared = {} if one.same is None else {one.same: context.get(one.same)}
        key = f"simulated {one.message} {one.name}"
        found.append(
            ShopEvent(
                profile_id=profile_id,
                name=one.name,
                properties={**one.properties, **shared},
                dedupe_key=key,
            )
        )
    return found
