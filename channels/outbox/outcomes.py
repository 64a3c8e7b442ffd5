"""Record the outcomes of hand-overs: message states, suppressions, waiting enrollments, events."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from channels.messages import device_transitions, transitions
from channels.messages.device_transitions import DeviceOutcome
from channels.messages.transitions import Recorded, RecordedState
from channels.outbox import devices
from channels.outbox.claims import Claim, Journeys
from channels.providers.sending import Outgoing, SendOutcome, Suppress
from channels.rules.recipient import WHOLE_CHANNEL
from config.channels import ChannelName, channel_of
from config.clock.times import Seconds
from config.database.engine import Tx
from config.timing import Timing
from profiles.bucketing import draw
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import Suppressed, suppress
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND

# Messages by journey, channel and state or reason.
Tally = Counter[tuple[str, ChannelName, str]]


class Done(NamedTuple):
    """The outcome of a claim at one of its targets.

    address: the target; None: nothing had to be posted.
    suppress: why the address must not be used again.
    wait: seconds until the retry, from the time of recording: the answer itself may take longer
        than the wait that the provider asks for.
    """

    claim: Claim
    change: Recorded
    address: str | None = None
    suppress: Suppress | None = None
    wait: Seconds | None = None

    @property
    def identifier(self) -> Key | None:
        """The address as an identifier."""
        if self.address is None:
            return None
        return ADDRESS_KIND[self.claim.channel], self.address

    @property
    def device(self) -> str | None:
        """The device token of a push; None on other channels."""
        return self.address if channel_of(self.claim.channel).per_device else None


def settled(
    claimed: Claim, outgoing: Outgoing, outcome: SendOutcome | None, timing: Timing
) -> Done:
    """The outcome of one hand-over. `outcome` None: nothing was posted; the claim is released."""
    if outcome is None or outcome.result == "stopped":
        change = _change(claimed, state="planned", attempts=claimed.attempts - 1)
        return Done(claimed, change, address=outgoing.to)
    if outcome.result == "retry":
        change = _change(claimed, state="planned", reason=outcome.reason)
        return Done(claimed, change, address=outgoing.to, wait=_wait(claimed, outcome, timing))
    change = _change(
        claimed,
        state=outcome.result,
        reason=outcome.reason,
        provider_id=outcome.provider_id,
        segments=outgoing.content.billed_segments,
    )
    return Done(claimed, change, address=outgoing.to, suppress=outcome.suppress)


def _wait(claimed: Claim, outcome: SendOutcome, timing: Timing) -> Seconds:
    """The wait until the retry: at least what the provider asks for, plus up to 50 % jitter."""
    wait = outcome.retry_after
    if wait is None:
        first = outcome.first_wait or timing.first_retry
        wait = min(first * 2 ** (claimed.attempts - 1), timing.last_retry)
    return wait + int(wait / 2 * draw(claimed.message_id, f"try {claimed.attempts}"))


def skipped(one: Claim, reason: str) -> Done:
    """The outcome of a claim for which nothing is posted."""
    return Done(one, _change(one, state="skipped", reason=reason))


def count_name(state: str, reason: str | None) -> str:
    """The name under which a message is counted: its state, or the code of its reason."""
    if state == "planned":
        return "to be tried again"
    if state == "skipped" and reason is not None:
        return reason.split(":")[0]
    return state


class Outcomes(NamedTuple):
    """What was recorded.

    tally: the messages whose outcome is known; a push counts when it is sent, or when the last of
    its devices has answered. more: whether enrollments or messages are due now.
    """

    tally: Tally
    more: bool


def record(tx: Tx, journeys: Journeys, done: Sequence[Done], *, move: bool = True) -> Outcomes:
    """Write at least one outcome, and move the enrollments on that wait for it.

    Outcomes of messages whose customer was erased meanwhile are ignored.

    move: False only makes them due.
    """
    pushed = [one for one in done if one.device is not None]
    whole = [one for one in done if one.device is None]
    gone = [one for one in whole if one.change.state != "planned"]
    # Enrollments before profiles, as the engine locks them. What becomes of a push is known later.
    waiting = {one.claim.enrollment_id for one in [*gone, *pushed]}
    people = {one.claim.profile_id for one in done}
    with journeys.following(tx, waiting, people, move=move) as following:
        if tx.is_sqlite or following.more:  # a profile may not exist any more
            there = transitions.existing(tx, {one.claim.message_id for one in done})
            done = [one for one in done if one.claim.message_id in there]
        tally, events = _record(tx, done)
    return Outcomes(tally, following.more or bool(events))


def _record(tx: Tx, done: Sequence[Done]) -> tuple[Tally, Sequence[NewEvent]]:
    """Write outcomes; returns their counts, and the events that journeys may wait for."""
    pushed = [one for one in done if one.device is not None]
    whole = [one for one in done if one.device is None]
    suppressing = [one for one in done if one.suppress is not None]
    _suppress(tx, suppressing)
    counts = Counter(_counted(one, one.change.state, one.change.reason) for one in whole)
    refused = [one for one in suppressing if one.device is None]
    if whole:
        _record_whole(tx, whole)
    if pushed:
        states = devices.record(tx, [_of_device(tx, one) for one in pushed])
        last_outcome = {one.claim.message_id: one for one in pushed}
        counts.update(
            _counted(last_outcome[message], state, None) for message, state in states.items()
        )
        failed = [message for message, state in states.items() if state == "failed"]
        refused += [
            last_outcome[message] for message in (devices.with_dead(tx, failed) if failed else ())
        ]
    events = [_failed(tx, one) for one in refused] + [_changed(tx, one) for one in suppressing]
    record_events(tx, events, worked=False)
    return counts, events


def _counted(one: Done, state: str, reason: str | None) -> tuple[str, ChannelName, str]:
    return one.claim.journey, one.claim.channel, count_name(state, reason)


def _record_whole(tx: Tx, done: Sequence[Done]) -> None:
    """Record messages with one address, and pushes of which nothing was posted."""
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
    assert state != "skipped"  # a skipped message has no address
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
    """Suppress addresses that the provider refuses; an opt-out there withdraws consent.

    The caller holds the profiles, so that no other process claims messages to the address.
    """
    stopped: list[ConsentChange] = []
    dead: list[Suppressed] = []
    for one in found:
        claim = one.claim
        assert one.address is not None
        if one.suppress == "opted_out":
            stop = ConsentChange(
                profile_id=claim.profile_id,
                channel=claim.channel,
                topic=WHOLE_CHANNEL,
                granted=False,
                occurred_at=tx.now,
                identifier=one.identifier,
            )
            stopped.append(stop)
        elif one.suppress is not None:
            dead.append(Suppressed(claim.channel, one.address, one.suppress))
    suppress(tx, dead)
    if stopped:
        change_consent(tx, stopped, source="the provider reports a STOP", topics_too=True)


def _failed(tx: Tx, one: Done) -> NewEvent:
    """The `<channel>_failed` event, once for each message. It does not contain the address."""
    claim = one.claim
    return NewEvent(
        profile_id=claim.profile_id,
        name=f"{claim.channel}_failed",
        occurred_at=tx.now,
        dedupe_key=f"message {claim.message_id} failed",
        properties={
            "reason": one.change.reason,
            "message_id": str(claim.message_id),
            "journey": claim.journey,
            "step": claim.step,
        },
        identifier=one.identifier,
    )


def _changed(tx: Tx, one: Done) -> NewEvent:
    """The event on which journeys evaluate conditions on addresses and consent again."""
    claim = one.claim
    place = [target.address for target in claim.targets].index(str(one.address))
    key = f"message {claim.message_id} {one.suppress} {claim.attempts}.{place}"
    return NewEvent(
        profile_id=claim.profile_id,
        name=PROFILE_CHANGED,
        occurred_at=tx.now,
        dedupe_key=key,
        properties={},
        identifier=one.identifier,
    )


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
        profile_id=one.profile_id,
        state=state,
        # PostgreSQL can't store the NUL that a provider's text may contain
        reason=None if reason is None else reason.replace("\0", ""),
        send_at=one.send_at,
        attempts=one.attempts if attempts is None else attempts,
        provider_id=provider_id,
        segments=segments,
    )
