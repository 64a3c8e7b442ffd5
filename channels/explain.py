"""Explain the decision about a message in a text for staff."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import and_, select

from channels.messages import MessageState, message_devices, messages
from config.channels import ChannelName, channel_of
from config.clock.times import DAY, HOUR, MINUTE, Instant, Seconds, format_instant, parse_instant
from config.database.arrays import any_of
from config.database.engine import Tx
from config.errors import SegueError
from profiles.identity.addresses import DEVICE_KINDS
from profiles.identity.owners import holders_of
from profiles.identity.person import possible_keys
from profiles.identity.placeholders import MEANINGLESS, Meaningless
from profiles.tables import identifiers

_REASON = {
    "no_address": "The customer has no {address} on record.",
    "suppressed": "The {address} bounced, complained or is no longer registered, or its owner was "
    "erased.",
    "no_consent": "The customer has not agreed to {topic} by {channel}.",
    "held_out": "The customer is in the holdout group, which gets no marketing.",
    "capped": "A frequency cap was full.",
    "window_closed": "The channel's window did not open before the latest send time.",
    "no_common_time": "No time fits the windows of all messages in its group.",
    "group_incomplete": "Another message of its group can't be sent; the group is sent as a whole.",
    "not_chosen": "An earlier channel of its group was chosen.",
    "link_refused": "It links to {detail}. Links need https, and a host from customer data must be "
    "in SEGUE_LINK_HOSTS.",
    "no_session": "The customer has not written to us by {channel} in the last 24 hours. Without "
    "that, only an approved template may be sent.",
    "too_long": "It is too long: {detail}.",
    "missing_data": "The template prints {detail}, which has no value for this customer.",
}
# Refusals that depend on the customer's local time.
_BY_LOCAL_TIME = ("capped", "window_closed", "no_common_time")
_SOURCE = {
    "profile": "the customer's record",
    "country": "the customer's country",
    "phone": "the country of the phone number",
    "brand": "the brand's, as the customer's is unknown",
}
_DEVICE = {
    "sending": "being handed over",
    "unknown": "perhaps handed over, never sent again",
    "later": "waiting for a retry",
    "dropped": "not handed over",
    "failed": "refused",
}
_STATE = {
    "planned": "It waits for its send time.",
    "sending": "It is being handed over.",
    "unknown": "The hand-over was interrupted, so it may have been sent. It counts against "
    "frequency caps and is not sent again automatically.",
}


class ExplainedMessage(NamedTuple):
    """The columns of a message that an explanation needs: `select(*EXPLAINED_COLUMNS)`."""

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


def profile_named(tx: Tx, person: str, meaningless: Meaningless = MEANINGLESS) -> int:
    """The id of a profile.

    person: an identifier (user id, e-mail, phone number) in any spelling, or the id of a message.

    Raises SegueError if no profile is found.
    """
    if person in meaningless:
        raise SegueError(f"{person!r} is a placeholder and identifies no customer")
    keys = possible_keys(person)
    owners = {key: holder.profile_id for key, holder in holders_of(tx, keys).items()}
    of_message = select(messages.c.profile_id).where(
        messages.c.id == (int(person) if person.isdecimal() and len(person) < 19 else 0)
    )
    profile_id = next((owners[key] for key in keys if key in owners), None)
    if profile_id is None:
        profile_id = tx.conn.execute(of_message).scalars().first()
    if profile_id is None:
        raise SegueError(f"no customer has the identifier {person!r}, and no message has this id")
    return profile_id


def history_of(tx: Tx, person: str, meaningless: Meaningless = MEANINGLESS) -> list[dict[str, Any]]:
    """All wanted messages of one profile, oldest first, each with its explanation.

    person: as in `profile_named`. Raises SegueError if no profile is found.
    """
    profile_id = profile_named(tx, person, meaningless)
    found = tx.conn.execute(
        select(*EXPLAINED_COLUMNS)
        .where(messages.c.profile_id == profile_id)
        .order_by(messages.c.send_at, messages.c.id)
    )
    rows = [ExplainedMessage._make(row) for row in found]
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
    """The state of pushes on each device, by message id, with shortened tokens."""
    c = message_devices.c
    known = and_(identifiers.c.kind.in_(DEVICE_KINDS), identifiers.c.value == c.token)
    found = (
        select(message_devices, identifiers.c.platform)
        .join_from(message_devices, identifiers, known, isouter=True)
        .where(any_of(c.message_id, "messages"))
        .order_by(c.message_id, c.token)
    )
    devices: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in tx.conn.execute(found, {"messages": message_ids}):
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
    """The last four characters of a token, at most half of it."""
    return "…" + token[max(len(token) - 4, (len(token) + 1) // 2) :]


def explanation(row: ExplainedMessage) -> str:
    """The explanation of a message; empty if it was sent as wanted."""
    decision = row.decision
    delay = _delay(row)
    sentences = [_what(row, delay)]
    if decision.get("rule"):
        sentences.append(f"Rule: {decision['rule']}.")
    if decision.get("gave_way_to"):
        sentences.append(f"It was preempted by {decision['gave_way_to']}.")
    if decision.get("took_place_of"):
        sentences.append(f"It preempted {', '.join(decision['took_place_of'])}.")
    if delay or row.reason in _BY_LOCAL_TIME:
        sentences.append(_time_zone(decision))
    if decision.get("invalid_timezone"):
        sentences.append(f"The recorded time zone {decision['invalid_timezone']} does not exist.")
    return " ".join(filter(None, sentences))


def refusal_words(reason: str, channel: ChannelName, topic: str) -> str:
    """A reason of a message as a sentence; empty if it is a text of its own."""
    code, _, detail = reason.partition(": ")
    if code not in _REASON:
        return ""
    of = channel_of(channel)
    return _REASON[code].format(address=of.address, channel=of.plural, topic=topic, detail=detail)


def _what(row: ExplainedMessage, delay: str) -> str:
    if row.reason and (words := refusal_words(row.reason, row.channel, row.topic)):
        return words
    sentences = [_STATE.get(row.state, ""), delay]
    if row.reason:
        sentences.append(f"Reason: {row.reason.rstrip('.')}.")
    return " ".join(filter(None, sentences))


def _time_zone(decision: Mapping[str, Any]) -> str:
    """The time zone of the decision and its source."""
    zones = decision["timezone"]
    if isinstance(zones, str):
        clock = zones
    else:
        clock = " and ".join(zones) if len(zones) < 4 else f"all {len(zones)} at once"
    if decision.get("timezone_chosen"):
        return f"Time zone: {clock}, which the customer chose."
    return f"Time zone: {clock} ({_SOURCE[decision['timezone_source']]})."


def _delay(row: ExplainedMessage) -> str:
    """By how much windows and caps delayed it; empty if they did not."""
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
    return f"Windows and caps delayed it by {' '.join(parts)}."
