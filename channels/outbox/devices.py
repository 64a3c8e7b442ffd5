"""The devices of a push: which ones it is sent to, their outcomes, and the message's state.

A push is sent to all usable devices of a profile, at most once to each: the row in `message_device`
is committed with the claim, before the request.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import and_, select

from channels.messages import (
    DeviceState,
    MessageState,
    device_transitions,
    message_devices,
    messages,
    transitions,
)
from channels.messages.device_transitions import DeviceClaim, DeviceOutcome
from channels.messages.states import NOT_HANDED_OVER, may_become
from channels.messages.transitions import Followed
from channels.outbox.rows import MessageRow
from config.channels import ChannelName
from config.clock.times import Instant
from config.database.engine import Tx
from profiles.bulk import among
from profiles.identity.addresses import is_usable, suppresses
from profiles.tables import identifiers

_GONE = "the device is no longer in use"


class Target(NamedTuple):
    """The address that a message is sent to; for a push, one device."""

    address: str
    platform: str | None


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


NONE = Devices({}, ())


def look_up(tx: Tx, pushes: Sequence[MessageRow]) -> Devices:
    """The usable devices of each push that have no outcome for it yet."""
    live: dict[tuple[int, ChannelName], list[Target]] = defaultdict(list)
    c = identifiers.c
    for channel in {row.channel for row in pushes}:
        people = {row.profile_id for row in pushes if row.channel == channel}
        found = select(c.profile_id, c.value, c.platform).where(
            is_usable(channel), among(tx, c.profile_id, people)
        )
        # The device that was seen last comes first.
        for profile_id, *target in tx.conn.execute(found.order_by(c.seen_at.desc(), c.value)):
            live[profile_id, channel].append(Target(*target))
    answered = _answered(tx, [row.id for row in pushes])
    open_devices: dict[int, list[Target]] = {}
    spent: list[int] = []
    for row in pushes:
        usable = live[row.profile_id, row.channel]
        targets = [one for one in usable if (row.id, one.address) not in answered]
        if targets:
            open_devices[row.id] = targets
        elif usable:
            spent.append(row.id)
    return Devices(open_devices, spent)


def _answered(tx: Tx, message_ids: Collection[int]) -> set[tuple[int, str]]:
    """Message id and token of the devices that the message is not handed over to again."""
    c = message_devices.c
    found = select(c.message_id, c.token).where(
        among(tx, c.message_id, message_ids), c.state.notin_(("later", "dropped"))
    )
    return {(row.message_id, row.token) for row in tx.conn.execute(found)}


def usable_devices(tx: Tx, channel: ChannelName, tokens: Collection[str]) -> set[tuple[int, str]]:
    """The usable devices among these, each as (profile id, token)."""
    c = identifiers.c
    found = select(c.profile_id, c.value).where(is_usable(channel), among(tx, c.value, tokens))
    return {(row.profile_id, row.value) for row in tx.conn.execute(found)}


def take(tx: Tx, claims: Sequence[DeviceClaim]) -> None:
    """Write the claim of each device."""
    device_transitions.claim(tx, claims)
    # Devices of an earlier attempt that are not usable any more.
    device_transitions.drop(tx, {one.message_id for one in claims}, _GONE)


# After the hand-over ------------------------------------------------------------------------------


def record(tx: Tx, outcomes: Sequence[DeviceOutcome]) -> dict[int, MessageState]:
    """Record the outcomes on devices and update their messages. Returns as `follow` does.

    A webhook report that arrived earlier is not overwritten.
    """
    ids = {one.message_id for one in outcomes}
    hold(tx, ids)
    device_transitions.record(tx, outcomes)
    return follow(tx, ids)


def hold(tx: Tx, message_ids: Collection[int]) -> None:
    """Lock messages in the order of their ids; needed before their devices change."""
    held = select(messages.c.id).where(among(tx, messages.c.id, message_ids))
    tx.conn.execute(held.order_by(messages.c.id).with_for_update())


def with_dead(tx: Tx, message_ids: Collection[int]) -> set[int]:
    """The messages that were sent to a device whose token is suppressed."""
    c = message_devices.c
    found = (
        select(c.message_id)
        .join_from(message_devices, messages, messages.c.id == c.message_id)
        .where(among(tx, c.message_id, message_ids), suppresses(messages.c.channel, c.token))
    )
    return set(tx.conn.execute(found).scalars())


def lose(tx: Tx, before: Instant, reason: str) -> None:
    """Mark devices `unknown` whose claim ended before `before` without an outcome."""
    c = message_devices.c
    lost = and_(c.state == "sending", c.not_after < before)
    found = select(messages.c.id).where(messages.c.id.in_(select(c.message_id).where(lost)))
    ids = tx.conn.execute(found.with_for_update(skip_locked=True)).scalars().all()
    if ids:
        device_transitions.lose(tx, ids, before, reason)
        follow(tx, ids)


class _Device(NamedTuple):
    """A push on one device. was, send_at: columns of the message."""

    message_id: int
    state: DeviceState
    reason: str | None
    attempts: int
    retry_at: Instant | None
    provider_id: str | None
    was: MessageState
    send_at: Instant


_OF_DEVICE = [
    *(message_devices.c[name] for name in _Device._fields[:-2]),
    messages.c.state.label("was"),
    messages.c.send_at,
]


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
    c = message_devices.c
    found = (
        select(*_OF_DEVICE)
        .join_from(message_devices, messages, messages.c.id == c.message_id)
        .where(among(tx, c.message_id, message_ids))
        .order_by(c.message_id, c.token)
    )
    changes: list[Followed] = []
    waiting: list[int] = []
    rows = [_Device._make(row) for row in tx.conn.execute(found)]
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
