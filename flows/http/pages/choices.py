"""From the boxes that a customer ticked to consent. Pure.

A box is a channel and a topic, and is ticked while messages about it may go. Consent says more than
boxes do: `*` is the whole channel, and on texts a no to it is a STOP, which has a box of its own.
Nothing said of it is no STOP, and a no all the same: texts want a yes.
"""

from collections.abc import Iterable, Mapping

from channels.rules.recipient import WHOLE_CHANNEL, Recipient, Zones
from config.policy import CHANNELS, Channel, Policy
from profiles.consent.preferences import TopicChanges, Topics

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
    named = {topic: one.name for topic, one in policy.topics.items()}
    return named or {WHOLE_CHANNEL: "News and offers"}


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
) -> dict[tuple[Channel, str], bool | None]:
    """What has to be said anew so that the boxes are ticked as wanted, and no others.

    Parameters
    ----------
    ticked: the boxes that change; the others stay.
    stop_texts: set or lift the STOP; None leaves it.
    """
    before = boxes(policy, said)
    wanted = {**before, **ticked}
    changes: dict[tuple[Channel, str], bool | None] = {}
    if stop_texts is not None and stop_texts != texts_stopped(said):
        changes[_ALL_TEXTS] = False if stop_texts else None
    for channel in CHANNELS:
        of_channel = [box for box in before if box[0] == channel]
        if channel == "sms" and texts_stopped(_after(said, changes)):
            # What is beneath a STOP changes only where the person changed it; the STOP does not.
            of_channel = [box for box in of_channel if box in ticked and box != _ALL_TEXTS]
        elif not any(wanted[box] for box in of_channel):
            if any(before[box] for box in of_channel):
                changes |= _nothing_ticked(channel, said, of_channel)
            continue
        for box in of_channel:
            if allowed(policy, _without_stop(_after(said, changes)), *box) != wanted[box]:
                changes[box] = wanted[box]
    return changes


def nothing_at_all(said: Topics) -> dict[tuple[Channel, str], bool | None]:
    """A no to every channel, so that a topic of next year finds it; on texts it is a STOP.

    And to every topic that has a yes, for that would override it.
    """
    return {
        **{box: False for box, yes in said.items() if yes},
        **{(channel, WHOLE_CHANNEL): False for channel in CHANNELS},
    }


def nothing_on(
    policy: Policy, said: Topics, channel: Channel
) -> dict[tuple[Channel, str], bool | None]:
    """A no to all of a channel. On texts it is a no to every topic, and a STOP only if it was."""
    stopped = channel == "sms" and texts_stopped(said)
    of_channel = [box for box in boxes(policy, said) if box[0] == channel]
    changes = _nothing_ticked(channel, said, of_channel)
    return {box: granted for box, granted in changes.items() if not (stopped and box == _ALL_TEXTS)}


def _nothing_ticked(
    channel: Channel, said: Topics, of_channel: Iterable[tuple[Channel, str]]
) -> dict[tuple[Channel, str], bool | None]:
    """What the last box that is unticked on a channel says: as `nothing_at_all`, but for a STOP.

    On texts nothing is said of the whole any more, for silence is a no there; so each box says its
    own, whatever an import should say of it.
    """
    taken_back = {box: False for box, yes in said.items() if box[0] == channel and yes}
    if channel == "sms":
        return {**dict.fromkeys(of_channel, False), **taken_back, _ALL_TEXTS: None}
    return {**taken_back, (channel, WHOLE_CHANNEL): False}


def _after(said: Topics, changes: TopicChanges) -> Topics:
    return {box: granted for box, granted in {**said, **changes}.items() if granted is not None}


def _without_stop(said: Topics) -> Topics:
    return {box: granted for box, granted in said.items() if box != _ALL_TEXTS or granted}
