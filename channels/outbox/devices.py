"""A push goes to every live device of a person: which ones, what became of it on each, and what the
message is by them.

At most once to each device: its row of `message_device` is committed in the claim, before the post.
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
from channels.messages.states import TAKEN_BACK, may_become
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
    """Where a message goes: an address; of a push, one of the devices."""

    address: str
    platform: str | None


def state_of(devices: Collection[str]) -> MessageState:
    """What a push is by the states of its devices (DeviceState), of which there is at least one."""
    for state in ("delivered", "sent", "sending", "unknown"):
        if state in devices:
            return state
    return "planned" if "later" in devices else "failed"


# Before the hand-over -----------------------------------------------------------------------------


class Devices(NamedTuple):
    """The devices of the people whom pushes are for.

    open: by message id, those that it may be handed over to; at least one each. spent: messages
    that all live devices have refused.
    """

    open: Mapping[int, Sequence[Target]]
    spent: Collection[int]


NONE = Devices({}, ())


def look_up(tx: Tx, pushes: Sequence[MessageRow]) -> Devices:
    """Where rows of the message table go: to all live devices that have had no answer to it yet."""
    live: dict[tuple[int, ChannelName], list[Target]] = defaultdict(list)
    c = identifiers.c
    for channel in {row.channel for row in pushes}:
        people = {row.profile_id for row in pushes if row.channel == channel}
        found = select(c.profile_id, c.value, c.platform).where(
            is_usable(channel), among(tx, c.profile_id, people)
        )
        # The one seen last comes first.
        for profile_id, *target in tx.conn.execute(found.order_by(c.seen_at.desc(), c.value)):
            live[profile_id, channel].append(Target(*target))
    answered = _answered(tx, [row.id for row in pushes])
    open_devices: dict[int, list[Target]] = {}
    spent: list[int] = []
    for row in pushes:
        theirs = live[row.profile_id, row.channel]
        targets = [one for one in theirs if (row.id, one.address) not in answered]
        if targets:
            open_devices[row.id] = targets
        elif theirs:
            spent.append(row.id)
    return Devices(open_devices, spent)


def _answered(tx: Tx, message_ids: Collection[int]) -> set[tuple[int, str]]:
    """The devices, by message, to which it is not handed over again."""
    c = message_devices.c
    found = select(c.message_id, c.token).where(
        among(tx, c.message_id, message_ids), c.state.notin_(("later", "dropped"))
    )
    return {(row.message_id, row.token) for row in tx.conn.execute(found)}


def still_live(tx: Tx, channel: ChannelName, tokens: Collection[str]) -> set[tuple[int, str]]:
    """Those of the devices that may be sent to, each with the profile whose it is."""
    c = identifiers.c
    found = select(c.profile_id, c.value).where(is_usable(channel), among(tx, c.value, tokens))
    return {(row.profile_id, row.value) for row in tx.conn.execute(found)}


def take(tx: Tx, claims: Sequence[DeviceClaim]) -> None:
    """Write the claim of each device."""
    device_transitions.claim(tx, claims)
    # What is left of an earlier try.
    device_transitions.drop(tx, {one.message_id for one in claims}, _GONE)


# After the hand-over ------------------------------------------------------------------------------


def record(tx: Tx, outcomes: Sequence[DeviceOutcome]) -> dict[int, MessageState]:
    """Write down what the provider answered, and what the messages are by it.

    A call-back that was faster has the last word. Returns as `follow` does.
    """
    ids = {one.message_id for one in outcomes}
    hold(tx, ids)
    device_transitions.record(tx, outcomes)
    return follow(tx, ids)


def hold(tx: Tx, message_ids: Collection[int]) -> None:
    """Lock messages, in the order of their ids, before their devices change."""
    held = select(messages.c.id).where(among(tx, messages.c.id, message_ids))
    tx.conn.execute(held.order_by(messages.c.id).with_for_update())


def with_dead(tx: Tx, message_ids: Collection[int]) -> set[int]:
    """Those of the messages that went to a device which is not registered any more."""
    c = message_devices.c
    found = (
        select(c.message_id)
        .join_from(message_devices, messages, messages.c.id == c.message_id)
        .where(among(tx, c.message_id, message_ids), suppresses(messages.c.channel, c.token))
    )
    return set(tx.conn.execute(found).scalars())


def lose(tx: Tx, before: Instant, reason: str) -> None:
    """Of a claim that ended before then, and came to nothing, nobody knows what became."""
    c = message_devices.c
    lost = and_(c.state == "sending", c.not_after < before)
    theirs = select(messages.c.id).where(messages.c.id.in_(select(c.message_id).where(lost)))
    ids = tx.conn.execute(theirs.with_for_update(skip_locked=True)).scalars().all()
    if ids:
        device_transitions.lose(tx, ids, before, reason)
        follow(tx, ids)


class _Device(NamedTuple):
    """What became of a push on a device. was, send_at: the state and time of the message."""

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
    """Let messages, which the caller holds, be what their devices say.

    Parameters
    ----------
    at: when a message went that we had taken back.

    Returns
    -------
    The messages whose state changed, with the new one.
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
    rows = [_Device(*row) for row in tx.conn.execute(found)]
    for message_id, together in groupby(rows, key=lambda row: row.message_id):
        devices = list(together)
        was = devices[0].was
        state = state_of({one.state for one in devices})
        # People have gone on from what is final.
        if may_become("follow_devices", was, state):
            change = _change(devices, state)
            if was in TAKEN_BACK and at is not None:
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
