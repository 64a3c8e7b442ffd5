"""From the boxes that a customer ticked to consent. Pure.

A box is a channel and a topic, and is ticked while messages about it may go. Consent says more than
boxes do: `*` is the whole channel, and on texts a no to it is a STOP, which has a box of its own.
"""

from collections.abc import Mapping

from channels.recipient import WHOLE_CHANNEL, Recipient, Zones
from config.policy import CHANNELS, Channel, Policy
from profiles.preferences import Topics

_ANYWHERE = Zones((), "brand")
_ALL_TEXTS: tuple[Channel, str] = ("sms", WHOLE_CHANNEL)


def allowed(policy: Policy, said: Topics, channel: Channel, topic: str) -> bool:
    """Whether marketing about the topic may go on the channel, by consent alone."""
    consent: dict[tuple[str, str], bool] = {(on, to): yes for (on, to), yes in said.items()}
    somebody = Recipient(_ANYWHERE, addresses=frozenset(CHANNELS), consent=consent)
    return somebody.refusal(policy, channel, "marketing", topic) is None


def texts_stopped(said: Topics) -> bool:
    """Whether a STOP is in force."""
    return said.get(_ALL_TEXTS) is False


def topics_of(policy: Policy) -> Mapping[str, str]:
    """What a customer may choose from, in the policy's words."""
    return policy.topics or {WHOLE_CHANNEL: "News and offers"}


def boxes(policy: Policy, said: Topics) -> dict[tuple[Channel, str], bool]:
    """Every box, and whether it is ticked; for texts, what would hold without the STOP."""
    beneath = _without_stop(said)
    return {
        (channel, topic): allowed(policy, beneath, channel, topic)
        for channel in CHANNELS
        for topic in topics_of(policy)
    }


def consent_of(
    policy: Policy, said: Topics, ticked: Topics, *, stop_texts: bool | None = None
) -> dict[tuple[Channel, str], bool]:
    """What has to be said anew so that the boxes are ticked as wanted, and no others.

    Parameters
    ----------
    ticked: the boxes that change; the others stay.
    stop_texts: set or lift the STOP; None leaves it.
    """
    before = boxes(policy, said)
    wanted = {**before, **ticked}
    changes: dict[tuple[Channel, str], bool] = {}
    if stop_texts is not None and stop_texts != texts_stopped(said):
        changes[_ALL_TEXTS] = not stop_texts
    for channel in CHANNELS:
        of_channel = [box for box in before if box[0] == channel]
        if channel != "sms" and not any(wanted[box] for box in of_channel):
            # A no to the whole channel, so that a topic of next year finds it; and to every topic
            # that has a yes, for that would override it.
            if any(before[box] for box in of_channel):
                changes[channel, WHOLE_CHANNEL] = False
                changes |= {box: False for box, yes in said.items() if box[0] == channel and yes}
            continue
        if channel == "sms" and texts_stopped({**said, **changes}):
            # What is beneath a STOP changes only where the person changed it.
            of_channel = [box for box in of_channel if box in ticked]
        for box in of_channel:
            if allowed(policy, _without_stop({**said, **changes}), *box) != wanted[box]:
                changes[box] = wanted[box]
    return changes


def _without_stop(said: Topics) -> Topics:
    return {box: granted for box, granted in said.items() if box != _ALL_TEXTS or granted}
