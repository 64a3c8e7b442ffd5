"""From the boxes that a customer ticked to consent. Pure.

A box is a channel and a topic, and is ticked while messages about it may go. Consent says more than
boxes do: `*` is the whole channel, and on some channels a no to it is a STOP, which has a box of
its own. Nothing said of such a channel is no STOP, and a no all the same: it is opt-in.
"""

from collections.abc import Iterable, Mapping

from channels.rules.recipient import WHOLE_CHANNEL, Recipient, Zones
from config.channels import ChannelName, channel_of, channels
from config.policy import CHANNELS, Policy
from profiles.consent.preferences import TopicChanges, Topics

_ANYWHERE = Zones((), "brand")
_NOTHING_SAID: Topics = {}


def offered(policy: Policy, said: Topics = _NOTHING_SAID) -> list[ChannelName]:
    """The channels that pages show: an optional one where the policy or the customer names it."""
    named = {*policy.channels, *(channel for channel, _ in said)}
    return [name for name, one in channels().items() if not one.optional or name in named]


def allowed(policy: Policy, said: Topics, channel: ChannelName, topic: str) -> bool:
    """Whether marketing about the topic may go on the channel, by consent alone."""
    consent: dict[tuple[str, str], bool] = {(on, to): yes for (on, to), yes in said.items()}
    somebody = Recipient(_ANYWHERE, addresses=frozenset(CHANNELS), consent=consent)
    return somebody.refusal(policy, channel, "marketing", topic) is None


def stopped(said: Topics, channel: ChannelName) -> bool:
    """Whether a STOP is in force on the channel."""
    return channel_of(channel).has_stop and said.get((channel, WHOLE_CHANNEL)) is False


def topics_of(policy: Policy) -> Mapping[str, str]:
    """What a customer may choose from, in the policy's words."""
    named = {topic: one.name for topic, one in policy.topics.items()}
    return named or {WHOLE_CHANNEL: "News and offers"}


def boxes(policy: Policy, said: Topics) -> dict[tuple[ChannelName, str], bool]:
    """Every box, and whether it is ticked; after a STOP, what would hold without it."""
    beneath = _without_stops(said)
    return {
        (channel, topic): allowed(policy, beneath, channel, topic)
        for channel in offered(policy, said)
        for topic in topics_of(policy)
    }


def consent_of(
    policy: Policy, said: Topics, ticked: Topics, stops: Mapping[ChannelName, bool] | None = None
) -> dict[tuple[ChannelName, str], bool | None]:
    """What has to be said anew so that the boxes are ticked as wanted, and no others.

    Parameters
    ----------
    ticked: the boxes that change; the others stay.
    stops: set or lift the STOP of a channel; the others stay.
    """
    before = boxes(policy, said)
    wanted = {**before, **ticked}
    changes: dict[tuple[ChannelName, str], bool | None] = {}
    for channel, stop in (stops or {}).items():
        if stop != stopped(said, channel):
            changes[channel, WHOLE_CHANNEL] = False if stop else None
    for channel in offered(policy, said):
        of_channel = [box for box in before if box[0] == channel]
        if stopped(_after(said, changes), channel):
            # What is beneath a STOP changes only where the person changed it; the STOP does not.
            of_channel = [box for box in of_channel if box in ticked and box[1] != WHOLE_CHANNEL]
        elif not any(wanted[box] for box in of_channel):
            if any(before[box] for box in of_channel):
                changes |= _nothing_ticked(channel, said, of_channel)
            continue
        for box in of_channel:
            if allowed(policy, _without_stops(_after(said, changes)), *box) != wanted[box]:
                changes[box] = wanted[box]
    return changes


def nothing_at_all(policy: Policy, said: Topics) -> dict[tuple[ChannelName, str], bool | None]:
    """A no to every channel, so that a topic of next year finds it; where there is one, a STOP.

    And to every topic that has a yes, for that would override it.
    """
    return {
        **{box: False for box, yes in said.items() if yes},
        **{(channel, WHOLE_CHANNEL): False for channel in offered(policy, said)},
    }


def nothing_on(
    policy: Policy, said: Topics, channel: ChannelName
) -> dict[tuple[ChannelName, str], bool | None]:
    """A no to all of a channel. Where there is a STOP it is a no to every topic, and a STOP only if
    it was."""
    of_channel = [(channel, topic) for topic in topics_of(policy)]
    changes = _nothing_ticked(channel, said, of_channel)
    if stopped(said, channel):
        del changes[channel, WHOLE_CHANNEL]
    return changes


def _nothing_ticked(
    channel: ChannelName, said: Topics, of_channel: Iterable[tuple[ChannelName, str]]
) -> dict[tuple[ChannelName, str], bool | None]:
    """What the last box that is unticked on a channel says: as `nothing_at_all`, but for a STOP.

    On a channel with a STOP nothing is said of the whole any more, for silence is a no there; so
    each box says its own, whatever an import should say of it.
    """
    taken_back = {box: False for box, yes in said.items() if box[0] == channel and yes}
    if channel_of(channel).has_stop:
        unset = {(channel, WHOLE_CHANNEL): None}
        return {**dict.fromkeys(of_channel, False), **taken_back, **unset}
    return {**taken_back, (channel, WHOLE_CHANNEL): False}


def _after(said: Topics, changes: TopicChanges) -> Topics:
    return {box: granted for box, granted in {**said, **changes}.items() if granted is not None}


def _without_stops(said: Topics) -> Topics:
    return {
        (channel, topic): granted
        for (channel, topic), granted in said.items()
        if granted or topic != WHOLE_CHANNEL or not channel_of(channel).has_stop
    }
