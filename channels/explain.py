"""A message's decision in plain words: why it waits, why it did not go."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import and_, select

from channels.messages import MessageState, message_devices, messages
from config.channels import ChannelName, channel_of
from config.clock.times import DAY, HOUR, MINUTE, Instant, Seconds, format_instant, parse_instant
from config.database.engine import Tx
from config.errors import SegueError
from profiles.bulk import among
from profiles.identity.addresses import DEVICE_KINDS
from profiles.identity.person import possible_keys
from profiles.identity.placeholders import MEANINGLESS, Meaningless
from profiles.identity.upsert import holders_of
from profiles.tables import identifiers

_REASON = {
    "no_address": "The customer has no {address} on record.",
    "suppressed": "The {address} bounced, complained or is no longer registered.",
    "no_consent": "The customer has not agreed to {topic} by {channel}.",
    "held_out": "The customer is in the holdout group, which gets no marketing.",
    "capped": "A limit on the number of messages was full.",
    "window_closed": "The channel did not open in time.",
    "no_common_time": "No moment suited every message of its group.",
    "group_incomplete": "Another message of its group could not go, and they go together or not.",
    "not_chosen": "An earlier channel of its group was chosen.",
    "link_refused": "It would link to {detail}. Links need https, and a host that comes from "
    "customer data must be in SEGUE_LINK_HOSTS.",
    "no_session": "The customer has not written to us by {channel} within the last 24 hours. Until "
    "they do, only an approved template may go.",
    "too_long": "It is longer than the channel takes: {detail}.",
    "missing_data": "The text needs something that the customer's record lacks: {detail}.",
}
# Refused because of when it was, in the customer's own time.
_BY_THE_CLOCK = ("capped", "window_closed", "no_common_time")
_SOURCE = {
    "profile": "the customer's record",
    "country": "the customer's country",
    "phone": "the country of the phone number",
    "brand": "the brand's own, as no other is known",
}
_DEVICE = {
    "sending": "being handed over",
    "unknown": "perhaps handed over, never tried again",
    "later": "to be tried again",
    "dropped": "not handed over",
    "failed": "refused",
}
_STATE = {
    "planned": "It waits for its time.",
    "sending": "It is being handed over.",
    "unknown": "The connection broke during the hand-over, so it may or may not have arrived. "
    "It still counts against the limits and is never sent again by itself.",
}


class ExplainedMessage(NamedTuple):
    """What an explanation reads of a message; made of a row of `select(*EXPLAINED_COLUMNS)`."""

    id: int
    journey: str
    step: str
    channel: ChannelName
    topic: str
    state: MessageState
    reason: str | None
    decision: Mapping[str, Any]
    send_at: Instant
    wanted_at: Instant
    after: Seconds


EXPLAINED_COLUMNS = [messages.c[name] for name in ExplainedMessage._fields]


def history_of(tx: Tx, person: str, meaningless: Meaningless = MEANINGLESS) -> list[dict[str, Any]]:
    """Every message wanted for one person, oldest first, each with why it went or did not.

    Parameters
    ----------
    person: any identifier of theirs (user id, e-mail, phone number) in any spelling, or a message's
        id.

    Raises SegueError when nobody is known by it.
    """
    if person in meaningless:
        raise SegueError(f"{person!r} means nothing, so nobody is known by it")
    keys = possible_keys(person)
    owners = {key: holder.profile_id for key, holder in holders_of(tx, keys).items()}
    of_message = select(messages.c.profile_id).where(
        messages.c.id == (int(person) if person.isdecimal() and len(person) < 19 else 0)
    )
    profile_id = next((owners[key] for key in keys if key in owners), None)
    if profile_id is None:
        profile_id = tx.conn.execute(of_message).scalars().first()
    if profile_id is None:
        raise SegueError(f"nobody is known as {person!r}, and no message has that id")
    found = tx.conn.execute(
        select(*EXPLAINED_COLUMNS)
        .where(messages.c.profile_id == profile_id)
        .order_by(messages.c.send_at, messages.c.id)
    )
    rows = [ExplainedMessage(*row) for row in found]
    devices = _devices(tx, [row.id for row in rows if channel_of(row.channel).per_device])
    return [
        {
            "message": row.id,
            "at": format_instant(row.send_at),
            "journey": row.journey,
            "step": row.step,
            "channel": row.channel,
            "state": row.state,
            "reason": row.reason,
            "why": explanation(row) or f"It was {row.state}.",
            "decision": row.decision,
            **({"devices": devices[row.id]} if row.id in devices else {}),
        }
        for row in rows
    ]


def _devices(tx: Tx, message_ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """What became of pushes on each device, by message; the tokens cut short."""
    c = message_devices.c
    known = and_(identifiers.c.kind.in_(DEVICE_KINDS), identifiers.c.value == c.token)
    found = (
        select(message_devices, identifiers.c.platform)
        .join_from(message_devices, identifiers, known, isouter=True)
        .where(among(tx, c.message_id, message_ids))
        .order_by(c.message_id, c.token)
    )
    devices: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in tx.conn.execute(found):
        why = _DEVICE.get(row.state, row.state)
        devices[row.message_id].append(
            {
                "device": f"{row.platform or 'device'} {_short(row.token)}",
                "state": row.state,
                "reason": row.reason,
                "why": why + (f": {row.reason}" if row.reason else ""),
            }
        )
    return devices


def _short(token: str) -> str:
    """Its last four characters, but never more than half of it."""
    return "…" + token[max(len(token) - 4, (len(token) + 1) // 2) :]


def explanation(row: ExplainedMessage) -> str:
    """What to say of one row of the message table; empty when it simply went."""
    decision = row.decision
    moved = _delay(row)
    sentences = [_what(row, moved)]
    if decision.get("rule"):
        sentences.append(f"Rule: {decision['rule']}.")
    if decision.get("gave_way_to"):
        sentences.append(f"It gave way to {decision['gave_way_to']}.")
    if decision.get("took_place_of"):
        sentences.append(f"It took the place of {', '.join(decision['took_place_of'])}.")
    if moved or row.reason in _BY_THE_CLOCK:
        sentences.append(_whose_time(decision))
    if decision.get("invalid_timezone"):
        sentences.append(f"The time zone on record, {decision['invalid_timezone']}, is none.")
    return " ".join(filter(None, sentences))


def _what(row: ExplainedMessage, moved: str) -> str:
    code, _, detail = (row.reason or "").partition(": ")
    if code in _REASON:
        channel = channel_of(row.channel)
        return _REASON[code].format(
            address=channel.address,
            channel=channel.plural,
            topic=row.topic,
            detail=detail,
        )
    told = [_STATE.get(row.state, ""), moved]
    if row.reason:
        told.append(f"Reason: {row.reason.rstrip('.')}.")
    return " ".join(filter(None, told))


def _whose_time(decision: Mapping[str, Any]) -> str:
    """By which clock, and where that came from."""
    zones = decision["timezone"]
    if isinstance(zones, str):
        clock = zones
    else:
        clock = " and ".join(zones) if len(zones) < 4 else f"all {len(zones)} at once"
    if decision.get("timezone_chosen"):
        return f"Time zone: {clock}, which the customer chose."
    return f"Time zone: {clock} ({_SOURCE[decision['timezone_source']]})."


def _delay(row: ExplainedMessage) -> str:
    """How far hours and limits pushed it from when it was wanted."""
    decided = row.decision.get("send_at")
    minutes = (parse_instant(decided) - row.wanted_at - row.after) // MINUTE if decided else 0
    if minutes <= 0:
        return ""
    days, minutes = divmod(minutes, DAY // MINUTE)
    hours, minutes = divmod(minutes, HOUR // MINUTE)
    parts = [
        f"{number} {unit}{'' if number == 1 else 's'}"
        for number, unit in ((days, "day"), (hours, "hour"), (minutes, "minute"))
        if number
    ]
    return f"Opening hours and limits moved it by {' '.join(parts)}."
