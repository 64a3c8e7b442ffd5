"""The states of a message, and of a push on one device; and which state may follow which.

docs/lifecycles.md has the pictures, made from these tables.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, or_

MessageState = Literal[
    "planned",  # waits for its send_at, and holds its place in the caps
    "sending",  # claimed by a process that is about to hand it over
    "sent",  # the provider accepted it; a push: for one device at least
    "delivered",  # the provider says that it arrived
    "unknown",  # handed over, perhaps: never sent again on its own
    "skipped",  # refused before it was ever handed over; `reason` says why
    "cancelled",  # no longer wanted
    "failed",  # the provider refused it for good
]
# What became of a push on one device.
DeviceState = Literal[
    "sending",  # claimed by a process that is about to hand it over
    "sent",
    "delivered",
    "unknown",  # handed over, perhaps: never sent to this device again
    "later",  # not handed over: tried again with the message
    "dropped",  # not handed over, and not tried again
    "failed",
]
# What holds a place in the caps.
COUNTING_STATES: tuple[MessageState, ...] = ("planned", "sending", "sent", "delivered", "unknown")
# What a provider may report. Each replaces those before it: a mail server may accept a mail and
# return it later, so `failed` stands above `delivered`.
Reported = Literal["sent", "delivered", "failed"]
REPORTED: tuple[Reported, ...] = ("sent", "delivered", "failed")
# Not handed over, as far as we know. After a first try a report may say that it was, all the same.
TAKEN_BACK: tuple[MessageState, ...] = ("planned", "cancelled", "skipped")
# Begins the reason of an `unknown` message for which no report is expected any more.
CLOSED = "closed as unknown"

# The states that may follow each state; None: there is no row yet.
MessageFollow = Mapping[MessageState | None, tuple[MessageState, ...]]
DeviceFollow = Mapping[DeviceState | None, tuple[DeviceState, ...]]

# By transition: a function of channels/messages/transitions.py.
UP_TO_CLAIM: Mapping[str, MessageFollow] = {
    "plan": {None: ("planned", "skipped")},
    # Of a group of which the first that can be sent goes, those after it are `skipped`.
    "replan": {"planned": ("planned", "skipped"), "skipped": ("planned", "skipped")},
    "put_off": {"planned": ("planned", "skipped")},
    "skip": {"planned": ("skipped",)},
    "cancel": {"planned": ("cancelled",)},
    "cancel_of": {"planned": ("cancelled",)},
    "fail": {"planned": ("failed",)},
    "claim": {"planned": ("sending",)},
}
AFTER_CLAIM: Mapping[str, MessageFollow] = {
    # A claim that was taken for lost may still get its record.
    "record": {
        "sending": ("planned", "sent", "failed", "unknown", "skipped"),
        "unknown": ("planned", "sent", "failed", "unknown", "skipped"),
    },
    "lose": {"sending": ("unknown",)},
    # Only what has been tried once (attempts > 0) can be reported after it was taken back.
    "report": {
        "sending": REPORTED,
        "unknown": REPORTED,
        "sent": ("delivered", "failed"),
        "delivered": ("failed",),
        **dict.fromkeys(TAKEN_BACK, REPORTED),
    },
    # A push, by what became of it on its devices.
    "follow_devices": {
        "sending": ("planned", "unknown", *REPORTED),
        "unknown": ("planned", *REPORTED),
        "sent": ("delivered", "failed"),
        "delivered": ("failed",),
        **dict.fromkeys(TAKEN_BACK, ("unknown", *REPORTED)),
    },
    "resolve": {"unknown": ("sent", "failed")},
    "close": {"unknown": ("unknown",)},
}
ALLOWED: Mapping[str, MessageFollow] = {**UP_TO_CLAIM, **AFTER_CLAIM}

# By transition: a function of channels/messages/device_transitions.py.
DEVICE_ALLOWED: Mapping[str, DeviceFollow] = {
    "claim": {None: ("sending",), "later": ("sending",), "dropped": ("sending",)},
    "drop": {"later": ("dropped",), "sending": ("dropped",)},
    "record": {
        "sending": ("sent", "failed", "unknown", "later"),
        "unknown": ("sent", "failed", "unknown", "later"),
    },
    "lose": {"sending": ("unknown",)},
    # As of a message; `later` and `dropped` only after a first try.
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
    """Whether the transition may lead from one state to the other."""
    return state in ALLOWED[transition].get(was, ())


def may_begin(
    column: ColumnElement[str],
    lifecycle: Mapping[str, Mapping[Any, Collection[str]]],
    transition: str,
    after: str | None = None,
) -> ColumnElement[bool]:
    """The SQL condition that a transition may begin from the state in `column`.

    Parameters
    ----------
    after: of the states that the transition may begin from, only those that may become this one.
    """
    # OR and not IN: a statement that is executed with many rows of parameters takes no IN.
    return or_(
        *(
            column == state
            for state, following in lifecycle[transition].items()
            if state is not None and (after is None or after in following)
        )
    )
