"""Translate between the checkboxes of the preference center and consent. Pure.

A checkbox is a channel and a topic. It is ticked while consent allows marketing about the topic.
Consent has more states than checkboxes: `*` is the whole channel, and on channels with a STOP a no
to `*` is a STOP, which has its own checkbox. Unset consent on these channels is not a STOP, but
counts as no, because they are opt-in.
"""

from collections.abc import Iterable, Mapping

from channels.rules.recipient import WHOLE_CHANNEL, Situation, StatedConsent, Zones
from config.channels import ChannelName, channel_of, channels
from config.policy import CHANNELS, Policy
from profiles.consent.preferences import TopicChanges, Topics

_ANYWHERE = Zones((), "brand")
_NO_CONSENT: Topics = {}


def offered(policy: Policy, consent: Topics = _NO_CONSENT) -> list[ChannelName]:
    """The channels that pages show: optional ones only if the policy or the consent has them."""
    named = {*policy.channels, *(channel for channel, _ in consent)}
    return [name for name, one in channels().items() if not one.optional or name in named]


def allowed(policy: Policy, consent: Topics, channel: ChannelName, topic: str) -> bool:
    """Whether consent allows marketing about the topic on the channel."""
    situation = Situation(
        zones=_ANYWHERE,
        addresses=frozenset(CHANNELS),
        consent=StatedConsent.of((on, to, yes) for (on, to), yes in consent.items()),
    )
    return situation.refusal(policy, channel, "marketing", topic) is None


def stopped(consent: Topics, channel: ChannelName) -> bool:
    """Whether a STOP is in force on the channel."""
    return channel_of(channel).has_stop and consent.get((channel, WHOLE_CHANNEL)) is False


def topics_of(policy: Policy) -> Mapping[str, str]:
    """The topics that a customer can choose, with their names in the policy."""
    named = {topic: one.name for topic, one in policy.topics.items()}
    return named or {WHOLE_CHANNEL: "News and offers"}


def boxes(policy: Policy, consent: Topics) -> dict[tuple[ChannelName, str], bool]:
    """Every checkbox and whether it is ticked. A STOP does not change it."""
    without_stops = _without_stops(consent)
    return {
        (channel, topic): allowed(policy, without_stops, channel, topic)
        for channel in offered(policy, consent)
        for topic in topics_of(policy)
    }


def consent_of(
    policy: Policy, consent: Topics, ticked: Topics, stops: Mapping[ChannelName, bool] | None = None
) -> dict[tuple[ChannelName, str], bool | None]:
    """The changes of consent that give the checkboxes their new values.

    Parameters
    ----------
    ticked: the checkboxes to change, with the new value.
    stops: the channels whose STOP to set (True) or lift (False).
    """
    before = boxes(policy, consent)
    wanted = {**before, **ticked}
    changes: dict[tuple[ChannelName, str], bool | None] = {}
    for channel, stop in (stops or {}).items():
        if stop != stopped(consent, channel):
            changes[channel, WHOLE_CHANNEL] = False if stop else None
    for channel in offered(policy, consent):
        of_channel = [box for box in before if box[0] == channel]
        if stopped(_after(consent, changes), channel):
            # During a STOP only topics that the customer changed get a new value. The STOP stays.
            of_channel = [box for box in of_channel if box in ticked and box[1] != WHOLE_CHANNEL]
        elif not any(wanted[box] for box in of_channel):
            if any(before[box] for box in of_channel):
                changes |= _nothing_ticked(channel, consent, of_channel)
            continue
        for box in of_channel:
            if allowed(policy, _without_stops(_after(consent, changes)), *box) != wanted[box]:
                changes[box] = wanted[box]
    return changes


def nothing_at_all(policy: Policy, consent: Topics) -> dict[tuple[ChannelName, str], bool | None]:
    """Opt out of every channel, which covers topics added later; sets a STOP where there is one.

    Also opt out of each topic with a yes, because a topic's yes overrides the channel's no.
    """
    return {
        **{box: False for box, yes in consent.items() if yes},
        **{(channel, WHOLE_CHANNEL): False for channel in offered(policy, consent)},
    }


def nothing_on(
    policy: Policy, consent: Topics, channel: ChannelName
) -> dict[tuple[ChannelName, str], bool | None]:
    """Opt out of one channel.

    On channels with a STOP this is a no to every topic. A STOP in force stays; none is set.
    """
    of_channel = [(channel, topic) for topic in topics_of(policy)]
    changes = _nothing_ticked(channel, consent, of_channel)
    if stopped(consent, channel):
        del changes[channel, WHOLE_CHANNEL]
    return changes


def _nothing_ticked(
    channel: ChannelName, consent: Topics, of_channel: Iterable[tuple[ChannelName, str]]
) -> dict[tuple[ChannelName, str], bool | None]:
    """The changes when the last ticked checkbox of a channel is cleared. They set no STOP.

    On a channel with a STOP, consent to `*` becomes unset, which counts as no. Each topic gets its
    own no, so that a later import that states consent to the channel does not override it.
    """
    withdrawn = {box: False for box, yes in consent.items() if box[0] == channel and yes}
    if channel_of(channel).has_stop:
        unset = {(channel, WHOLE_CHANNEL): None}
        return {**dict.fromkeys(of_channel, False), **withdrawn, **unset}
    return {**withdrawn, (channel, WHOLE_CHANNEL): False}


def _after(consent: Topics, changes: TopicChanges) -> Topics:
    return {box: granted for box, granted in {**consent, **changes}.items() if granted is not None}


def _without_stops(consent: Topics) -> Topics:
    return {
        (channel, topic): granted
        for (channel, topic), granted in consent.items()
        if granted or topic != WHOLE_CHANNEL or not channel_of(channel).has_stop
    }
