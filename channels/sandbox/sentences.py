"""A message's decision in plain words: why it waits, why it did not go."""

from typing import Any

from sqlalchemy import Row

from config.times import DAY, HOUR, MINUTE, parse_instant

_ADDRESS = {"email": "e-mail address", "sms": "phone number", "push": "device"}
_CHANNEL = {"email": "e-mail", "sms": "text messages", "push": "push notifications"}
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
    "missing_data": "The text needs something that the customer's record lacks: {detail}.",
}
_STATE = {
    "planned": "It waits for its time.",
    "sending": "It is being handed over.",
    "unknown": "The connection broke during the hand-over, so it may or may not have arrived. "
    "It still counts against the limits and is never sent again by itself.",
}


def explanation(row: Row[Any]) -> str:
    """What to say of one row of the message table; empty when it simply went."""
    decision = row.decision
    sentences = [_what(row)]
    if decision.get("rule"):
        sentences.append(f"Rule: {decision['rule']}.")
    if decision.get("gave_way_to"):
        sentences.append(f"It gave way to {decision['gave_way_to']}.")
    if decision.get("took_place_of"):
        sentences.append(f"It took the place of {', '.join(decision['took_place_of'])}.")
    if decision.get("invalid_timezone"):
        sentences.append(f"The time zone on record, {decision['invalid_timezone']}, is none.")
    return " ".join(filter(None, sentences))


def _what(row: Row[Any]) -> str:
    code, _, detail = (row.reason or "").partition(": ")
    if code in _REASON:
        return _REASON[code].format(
            address=_ADDRESS[row.channel],
            channel=_CHANNEL[row.channel],
            topic=row.topic,
            detail=detail,
        )
    told = [_STATE.get(row.state, ""), _delay(row)]
    if row.reason:
        told.append(f"Reason: {row.reason.rstrip('.')}.")
    return " ".join(filter(None, told))


def _delay(row: Row[Any]) -> str:
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
