"""What came of a hand-over, written down: the message's state, its address, who waited for it."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from channels.messages import device_transitions, transitions
from channels.messages.device_transitions import DeviceOutcome
from channels.messages.transitions import Recorded, RecordedState
from channels.outbox import devices
from channels.outbox.claim import Claim, Journeys
from channels.providers.sending import Outgoing, SendOutcome, Suppress
from channels.rules.recipient import WHOLE_CHANNEL
from config.channels import ChannelName, channel_of
from config.clock.times import Seconds
from config.database.engine import Tx
from config.timing import Timing
from profiles.bucketing import draw
from profiles.bulk import lock_profiles
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import Suppressed, suppress
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND

# Messages by journey, channel and state or reason.
Tally = Counter[tuple[str, ChannelName, str]]


class Done(NamedTuple):
    """What became of a claim at one of its targets, and of its address.

    address: where it was to go; None: nothing was to be posted. wait: it is tried again so long
    after this is written down, for the answer may have taken longer than the provider asks us to
    wait.
    """

    claim: Claim
    change: Recorded
    address: str | None = None
    suppress: Suppress | None = None
    wait: Seconds | None = None

    @property
    def said_of(self) -> Key | None:
        """The address as an identifier."""
        if self.address is None:
            return None
        return ADDRESS_KIND[self.claim.channel], self.address

    @property
    def device(self) -> str | None:
        """The token of a push, whose message follows from all its devices."""
        return self.address if channel_of(self.claim.channel).per_device else None


def settled(
    claimed: Claim, outgoing: Outgoing, outcome: SendOutcome | None, timing: Timing
) -> Done:
    """By the provider's word; without one nothing was posted, and the claim is given back."""
    if outcome is None or outcome.result == "stopped":
        change = _change(claimed, state="planned", attempts=claimed.attempts - 1)
        return Done(claimed, change, outgoing.to)
    if outcome.result == "retry":
        change = _change(claimed, state="planned", reason=outcome.reason)
        return Done(claimed, change, outgoing.to, wait=_wait(claimed, outcome, timing))
    change = _change(
        claimed,
        state=outcome.result,
        reason=outcome.reason,
        provider_id=outcome.provider_id,
        segments=outgoing.content.billed_segments,
    )
    return Done(claimed, change, outgoing.to, outcome.suppress)


def _wait(claimed: Claim, outcome: SendOutcome, timing: Timing) -> Seconds:
    """Never shorter than the provider asks for, and up to half as much again, so that what was
    refused together does not come back together.
    """
    wait = outcome.retry_after
    if wait is None:
        first = outcome.first_wait or timing.first_retry
        wait = min(first * 2 ** (claimed.attempts - 1), timing.last_retry)
    return wait + int(wait / 2 * draw(claimed.message_id, f"try {claimed.attempts}"))


def skipped(one: Claim, reason: str) -> Done:
    """There was nothing to post."""
    return Done(one, _change(one, state="skipped", reason=reason))


def filed_under(state: str, reason: str | None) -> str:
    """What a message is counted as: the state, or why it was not sent."""
    if state == "planned":
        return "to be tried again"
    if state == "skipped" and reason is not None:
        return reason.split(":")[0]
    return state


def record(tx: Tx, journeys: Journeys, done: Sequence[Done]) -> Tally:
    """Write down at least one.

    Returns
    -------
    The messages whose fate is known by it: a push is counted when it is sent, or when the last of
    its devices has answered.
    """
    pushed = [one for one in done if one.device is not None]
    whole = [one for one in done if one.device is None]
    gone = [one for one in whole if one.change.state != "planned"]
    # Enrollments before profiles, as the engine locks them. What becomes of a push is known later.
    journeys.settled(tx, [one.claim.enrollment_id for one in [*gone, *pushed]])
    suppressing = [one for one in done if one.suppress is not None]
    _suppress(tx, suppressing)
    counts = Counter(_counted(one, one.change.state, one.change.reason) for one in whole)
    refused = [one for one in suppressing if one.device is None]
    if whole:
        _record_whole(tx, whole)
    if pushed:
        became = devices.record(tx, [_of_device(tx, one) for one in pushed])
        last = {one.claim.message_id: one for one in pushed}
        counts.update(_counted(last[message], state, None) for message, state in became.items())
        failed = [message for message, state in became.items() if state == "failed"]
        refused += [last[message] for message in (devices.with_dead(tx, failed) if failed else ())]
    events = [_failed(tx, one) for one in refused] + [_changed(tx, one) for one in suppressing]
    record_events(tx, events, worked=False)
    return counts


def _counted(one: Done, state: str, reason: str | None) -> tuple[str, ChannelName, str]:
    return one.claim.journey, one.claim.channel, filed_under(state, reason)


def _record_whole(tx: Tx, done: Sequence[Done]) -> None:
    """Messages that have one address, and pushes of which nothing was posted."""
    transitions.record(
        tx,
        [
            one.change if one.wait is None else one.change._replace(send_at=tx.now + one.wait)
            for one in done
        ],
    )
    if pushes := [one.claim.message_id for one in done if channel_of(one.claim.channel).per_device]:
        device_transitions.drop(tx, pushes, claimed=True)


def _of_device(tx: Tx, one: Done) -> DeviceOutcome:
    state = one.change.state
    assert one.device is not None
    assert state != "skipped"  # there was something to post
    return DeviceOutcome(
        message_id=one.claim.message_id,
        token=one.device,
        state="later" if state == "planned" else state,
        reason=one.change.reason,
        attempts=one.change.attempts,
        retry_at=None if one.wait is None else tx.now + one.wait,
        provider_id=one.change.provider_id,
    )


def _suppress(tx: Tx, found: Sequence[Done]) -> None:
    """Never again to this address; a STOP that the provider knows of is consent taken back.

    Under the profiles' locks, so that nobody else is about to claim for the same address.
    """
    lock_profiles(tx, {one.claim.profile_id for one in found})
    stopped: list[ConsentChange] = []
    dead: list[Suppressed] = []
    for one in found:
        claim = one.claim
        assert one.address is not None
        if one.suppress == "opted_out":
            stop = ConsentChange(
                claim.profile_id,
                claim.channel,
                WHOLE_CHANNEL,
                granted=False,
                occurred_at=tx.now,
                said_of=one.said_of,
            )
            stopped.append(stop)
        elif one.suppress is not None:
            dead.append(Suppressed(claim.channel, one.address, one.suppress))
    suppress(tx, dead)
    if stopped:
        change_consent(tx, stopped, source="the provider reports a STOP", topics_too=True)


def _failed(tx: Tx, one: Done) -> NewEvent:
    """Once a message, and without its address."""
    claim = one.claim
    return NewEvent(
        claim.profile_id,
        f"{claim.channel}_failed",
        tx.now,
        f"message {claim.message_id} failed",
        {
            "reason": one.change.reason,
            "message_id": str(claim.message_id),
            "journey": claim.journey,
            "step": claim.step,
        },
        said_of=one.said_of,
    )


def _changed(tx: Tx, one: Done) -> NewEvent:
    """Journeys that ask for an address or for consent look again: after each device of a push."""
    claim = one.claim
    place = [target.address for target in claim.targets].index(str(one.address))
    key = f"message {claim.message_id} {one.suppress} {claim.attempts}.{place}"
    return NewEvent(claim.profile_id, PROFILE_CHANGED, tx.now, key, {}, said_of=one.said_of)


def _change(
    one: Claim,
    *,
    state: RecordedState,
    reason: str | None = None,
    attempts: int | None = None,
    provider_id: str | None = None,
    segments: int | None = None,
) -> Recorded:
    return Recorded(
        message_id=one.message_id,
        state=state,
        # what providers say may hold a NUL, which PostgreSQL can't store
        reason=None if reason is None else reason.replace("\0", ""),
        send_at=one.send_at,
        attempts=one.attempts if attempts is None else attempts,
        provider_id=provider_id,
        segments=segments,
    )
