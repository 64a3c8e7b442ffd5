"""The states of a message and of a push on one device, and the allowed transitions.

The diagrams in docs/how-it-works/lifecycles.md are generated from these tables.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, or_

MessageState = Literal[
    "planned",  # waits for its send_at; counts against caps
    "sending",  # claimed by a process that is about to hand it over
    "sent",  # accepted by the provider; a push: for at least one device
    "delivered",  # a delivery report arrived
    "unknown",  # perhaps handed over; never sent again automatically
    "skipped",  # refused before the hand-over; `reason` says why
    "cancelled",  # no longer wanted
    "failed",  # permanently refused by the provider
]
# The states of a push on one device.
DeviceState = Literal[
    "sending",  # claimed by a process that is about to hand it over
    "sent",
    "delivered",
    "unknown",  # perhaps handed over; never sent to this device again
    "later",  # not handed over; retried with the message
    "dropped",  # not handed over and not retried
    "failed",
]
# The states that count against caps.
COUNTING_STATES: tuple[MessageState, ...] = ("planned", "sending", "sent", "delivered", "unknown")
# The states that a provider may report; each replaces those before it. `failed` comes after
# `delivered`, because a mail server may accept a mail and return it later.
Reported = Literal["sent", "delivered", "failed"]
REPORTED: tuple[Reported, ...] = ("sent", "delivered", "failed")
# Not handed over according to our records. After a first attempt a report may still say otherwise.
NOT_HANDED_OVER: tuple[MessageState, ...] = ("planned", "cancelled", "skipped")
# The prefix of the reason of an `unknown` message for which no report is expected any more.
CLOSED = "closed as unknown"

# The allowed next states by current state; None: no row yet.
MessageFollow = Mapping[MessageState | None, tuple[MessageState, ...]]
DeviceFollow = Mapping[DeviceState | None, tuple[DeviceState, ...]]

# By transition, named like its function in channels/messages/transitions.py.
UP_TO_CLAIM: Mapping[str, MessageFollow] = {
    "plan": {None: ("planned", "skipped")},
    # In a group with mode "first", the members after the chosen one are `skipped`.
    "replan": {"planned": ("planned", "skipped"), "skipped": ("planned", "skipped")},
    "put_off": {"planned": ("planned", "skipped")},
    "skip": {"planned": ("skipped",)},
    "cancel": {"planned": ("cancelled",)},
    "cancel_of": {"planned": ("cancelled",)},
    "fail": {"planned": ("failed",)},
    "claim": {"planned": ("sending",)},
}
AFTER_CLAIM: Mapping[str, MessageFollow] = {
    # A claim that was marked lost may still be recorded.
    "record": {
        "sending": ("planned", "sent", "failed", "unknown", "skipped"),
        "unknown": ("planned", "sent", "failed", "unknown", "skipped"),
    },
    "lose": {"sending": ("unknown",)},
    # NOT_HANDED_OVER states accept a report only after a first attempt (attempts > 0).
    "report": {
        "sending": REPORTED,
        "unknown": REPORTED,
        "sent": ("delivered", "failed"),
        "delivered": ("failed",),
        **dict.fromkeys(NOT_HANDED_OVER, REPORTED),
    },
    # A push; its state is derived from those of its devices.
    "follow_devices": {
        "sending": ("planned", "unknown", *REPORTED),
        "unknown": ("planned", *REPORTED),
        "sent": ("delivered", "failed"),
        "delivered": ("failed",),
        **dict.fromkeys(NOT_HANDED_OVER, ("unknown", *REPORTED)),
    },
    "resolve": {"unknown": ("sent", "failed")},
    "close": {"unknown": ("unknown",)},
}
ALLOWED: Mapping[str, MessageFollow] = {**UP_TO_CLAIM, **AFTER_CLAIM}

# By transition, named like its function in channels/messages/device_transitions.py.
DEVICE_ALLOWED: Mapping[str, DeviceFollow] = {
    "claim": {None: ("sending",), "later": ("sending",), "dropped": ("sending",)},
    "drop": {"later": ("dropped",), "sending": ("dropped",)},
    "record": {
        "sending": ("sent", "failed", "unknown", "later"),
        "unknown": ("sent", "failed", "unknown", "later"),
    },
    "lose": {"sending": ("unknown",)},
    # As for messages; `later` and `dropped` only after a first attempt.
    "report": {
        "sending": REPORTED,
        "unknown": REPORTED,
        "sent": ("delivered", "failed"),
        "delivered": ("failed",),
        "later": REPORTED,
        "dropped": REPORTED,
    },
}


def may_become(transition: str, was: MessageState, state: MessageState) -> bool:
    """Whether the transition may change `was` to `state`."""
    return state in ALLOWED[transition].get(was, ())


def may_begin(
    column: ColumnElement[str],
    lifecycle: Mapping[str, Mapping[Any, Collection[str]]],
    transition: str,
    after: str | None = None,
) -> ColumnElement[bool]:
    """The SQL condition that a transition is allowed from the state in `column`.

    Parameters
    ----------
    after: only states from which the transition may lead to this one.
    """
    # OR instead of IN: SQLAlchemy can't expand IN in a statement with many rows of parameters.
    return or_(
        *(
            column == state
            for state, following in lifecycle[transition].items()
            if state is not None and (after is None or after in following)
        )
    )
