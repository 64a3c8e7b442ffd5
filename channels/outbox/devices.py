"""The devices of a push: which ones it is sent to, their outcomes, and the message's state.

A push is sent to all usable devices of a profile, at most once to each: the row in `message_device`
is committed with the claim, before the request.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Select, and_, bindparam, not_, select

from channels.messages import (
    DeviceState,
    MessageState,
    device_transitions,
    message_devices,
    messages,
    transitions,
)
from channels.messages.device_transitions import DeviceClaim, DeviceOutcome
from channels.messages.states import DEVICE_ALLOWED, NOT_HANDED_OVER, may_become
from channels.messages.transitions import Followed
from channels.outbox.rows import MessageRow
from channels.rules.recipient import Recipient, Target
from config.channels import ChannelName
from config.clock.times import Instant
from config.database.arrays import any_of, one_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import lock_rows
from profiles.bucketing import identifier_buckets
from profiles.identity.addresses import is_usable, suppresses
from profiles.tables import ADDRESS_KIND, identifiers

_GONE = "the device is no longer in use"


def state_of(devices: Collection[str]) -> MessageState:
    """The state of a push with these device states (DeviceState, at least one)."""
    for state in ("delivered", "sent", "sending", "unknown"):
        if state in devices:
            return state
    return "planned" if "later" in devices else "failed"


# Before the hand-over -----------------------------------------------------------------------------


class Devices(NamedTuple):
    """The devices of pushes.

    open: by message id, the devices it may be handed over to, at least one each. spent: messages
    that have no such device left, though the profile has usable devices.
    """

    open: Mapping[int, Sequence[Target]]
    spent: Collection[int]


def look_up(tx: Tx, pushes: Sequence[MessageRow], recipients: Mapping[int, Recipient]) -> Devices:
    """The usable devices of each push that have no outcome for it yet.

    One statement, if any of the pushes was handed over before; otherwise none.

    Parameters
    ----------
    recipients: the recipients of the pushes, by profile id.
    """
    again = [row.id for row in pushes if row.attempts]
    answered = _answered(tx, again) if again else ()
    open_devices: dict[int, list[Target]] = {}
    spent: list[int] = []
    for row in pushes:
        usable = recipients[row.profile_id].targets(row.channel)
        targets = [one for one in usable if (row.id, one.address) not in answered]
        if targets:
            open_devices[row.id] = targets
        elif usable:
            spent.append(row.id)
    return Devices(open_devices, spent)


def _answered(tx: Tx, message_ids: Collection[int]) -> set[tuple[int, str]]:
    """Message id and token of the devices that the message is not handed over to again."""
    found = tx.conn.execute(_ANSWERED, {"messages": message_ids, "buckets": tx.buckets})
    return {(message_id, token) for message_id, token in found}


def usable_devices(tx: Tx, channel: ChannelName, tokens: Collection[str]) -> set[tuple[int, str]]:
    """The usable devices among these, each as (profile id, token). One statement."""
    keys = [(ADDRESS_KIND[channel], token) for token in tokens]
    given = {"tokens": tokens, "buckets": identifier_buckets(keys)}
    found = tx.conn.execute(_usable_devices(channel), given)
    return {(profile_id, token) for profile_id, token in found}


@cache
def _usable_devices(channel: ChannelName) -> Select[tuple[int, str]]:
    c = identifiers.c
    return select(c.profile_id, c.value).where(
        is_usable(channel), any_of(c.value, "tokens"), in_buckets(c.bucket)
    )


def take(tx: Tx, claims: Sequence[DeviceClaim]) -> None:
    """Write the claim of each device, and drop devices of an earlier attempt that are not usable
    any more.

    One statement; a second one if there may be such devices.
    """
    left = device_transitions.claim(tx, claims).left
    if left:
        device_transitions.drop(tx, left, _GONE)


# After the hand-over ------------------------------------------------------------------------------


def record(tx: Tx, outcomes: Sequence[DeviceOutcome]) -> dict[int, MessageState]:
    """Record the outcomes on devices and update their messages. Returns as `follow` does.

    A webhook report that arrived earlier is not overwritten. Three statements, and one more if a
    device was to be tried again and its message is not.
    """
    by_device = {(one.message_id, one.token): one for one in outcomes}
    ids = {one.message_id for one in outcomes}
    held = [_Device._make(row) for row in lock_rows(tx, _HELD_DEVICES, {"messages": ids})]
    device_transitions.record(tx, outcomes)
    after = [_recorded(one, by_device.get((one.message_id, one.token))) for one in held]
    return _follow(tx, after, None)


def hold(tx: Tx, message_ids: Collection[int]) -> None:
    """Lock messages in the order of their ids; needed before their devices change."""
    lock_rows(tx, _HELD, {"messages": message_ids})


def with_dead(tx: Tx, message_ids: Collection[int]) -> set[int]:
    """The messages that were sent to a device whose token is suppressed."""
    return set(
        tx.conn.execute(_WITH_DEAD, {"messages": message_ids, "buckets": tx.buckets}).scalars()
    )


def lose(tx: Tx, before: Instant, reason: str) -> None:
    """Mark devices `unknown` whose claim ended before `before` without an outcome."""
    ids = [row.id for row in lock_rows(tx, _LOST, {"before": before}, find=_WITH_LOST)]
    if ids:
        device_transitions.lose(tx, ids, before, reason)
        follow(tx, ids)


class _Device(NamedTuple):
    """A push on one device. was, send_at: columns of the message."""

    message_id: int
    token: str
    state: DeviceState
    reason: str | None
    attempts: int
    retry_at: Instant | None
    provider_id: str | None
    was: MessageState
    send_at: Instant


def _recorded(device: _Device, outcome: DeviceOutcome | None) -> _Device:
    """The device after device_transitions.record."""
    if outcome is None or outcome.state not in DEVICE_ALLOWED["record"].get(device.state, ()):
        return device
    return device._replace(
        state=outcome.state,
        reason=outcome.reason,
        attempts=outcome.attempts,
        retry_at=outcome.retry_at,
        provider_id=outcome.provider_id,
    )


def follow(
    tx: Tx, message_ids: Collection[int], at: Mapping[int, Instant] | None = None
) -> dict[int, MessageState]:
    """Derive the states of messages from their devices. The caller has locked the messages.

    Parameters
    ----------
    at: hand-over times reported for messages that were released, by message id.

    Returns
    -------
    The new states of the messages that changed, by id.
    """
    found = tx.conn.execute(_DEVICES, {"messages": message_ids, "buckets": tx.buckets})
    return _follow(tx, [_Device._make(row) for row in found], at)


def _follow(
    tx: Tx, rows: Sequence[_Device], at: Mapping[int, Instant] | None
) -> dict[int, MessageState]:
    """rows: all devices of these messages, sorted by message."""
    changes: list[Followed] = []
    waiting: list[int] = []
    for message_id, together in groupby(rows, key=lambda row: row.message_id):
        devices = list(together)
        was = devices[0].was
        state = state_of({one.state for one in devices})
        # A final state does not change: the enrollment has moved on.
        if may_become("follow_devices", was, state):
            change = _change(devices, state)
            if was in NOT_HANDED_OVER and at is not None:
                change = change._replace(send_at=at[message_id])
            changes.append(change)
            was = state
        if was not in ("planned", "sending") and any(one.state == "later" for one in devices):
            waiting.append(message_id)
    transitions.follow_devices(tx, changes)
    if waiting:
        device_transitions.drop(tx, waiting)
    return {change.message_id: change.state for change in changes}


def _change(devices: Sequence[_Device], state: MessageState) -> Followed:
    decisive = [one for one in devices if one.state == ("later" if state == "planned" else state)]
    reasons = {one.reason: None for one in decisive if one.reason is not None}
    send_at = devices[0].send_at
    if state == "planned":
        send_at = max((one.retry_at for one in decisive if one.retry_at), default=send_at)
    return Followed(
        message_id=devices[0].message_id,
        was=devices[0].was,
        state=state,
        reason="; ".join(reasons) or None,
        send_at=send_at,
        attempts=max(one.attempts for one in devices),
        provider_id=next((one.provider_id for one in devices if one.provider_id), None),
    )


# Statements ---------------------------------------------------------------------------------------

_d = message_devices.c
_of_message = and_(_d.message_id == messages.c.id, _d.bucket == messages.c.bucket)
_ANSWERED = select(_d.message_id, _d.token).where(
    any_of(_d.message_id, "messages"),
    in_buckets(_d.bucket),
    not_(one_of(_d.state, ("later", "dropped"))),
)
_HELD = (
    select(messages.c.id)
    .where(any_of(messages.c.id, "messages"), in_buckets(messages.c.bucket))
    .order_by(messages.c.id)
    .with_for_update()
)
_DEVICES = (
    select(
        *(_d[name] for name in _Device._fields[:-2]),
        messages.c.state.label("was"),
        messages.c.send_at,
    )
    .join_from(messages, message_devices, _of_message)
    .where(any_of(messages.c.id, "messages"), in_buckets(messages.c.bucket), in_buckets(_d.bucket))
    .order_by(messages.c.id, _d.token)
)
# Each message is locked before its devices, as everywhere. The devices are locked too, because
# after waiting for a lock PostgreSQL reads only the locked rows again.
_HELD_DEVICES = _DEVICES.with_for_update()
_WITH_DEAD = (
    select(_d.message_id)
    .join_from(message_devices, messages, _of_message)
    .where(
        any_of(_d.message_id, "messages"),
        in_buckets(messages.c.bucket),
        in_buckets(_d.bucket),
        suppresses(messages.c.channel, _d.token),
    )
)
_lost = (_d.state == "sending", _d.not_after < bindparam("before"), in_buckets(_d.bucket))
_WITH_LOST = select(_d.bucket).where(*_lost).distinct()
_LOST = (
    select(messages.c.id)
    .where(messages.c.id.in_(select(_d.message_id).where(*_lost)), in_buckets(messages.c.bucket))
    .with_for_update(skip_locked=True)
)
