"""What came of a hand-over, written down: the message's state, its address, who waited for it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, or_, update

from channels.claiming import Claim, Journeys
from channels.content import SMSContent, segments
from channels.provider import Outcome, Outgoing
from channels.recipient import WHOLE_CHANNEL
from channels.tables import messages
from config.database import Tx
from config.times import HOUR, Seconds
from profiles.bulk import lock_profiles
from profiles.consent import ConsentChange, change_consent
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.sticky import draw
from profiles.tables import ADDRESS_KIND, identifiers

# "Try later" without a Retry-After: 30 s, unless the provider asks for something else, doubled each
# time, an hour at most.
FIRST_RETRY: Seconds = 30
LAST_RETRY: Seconds = HOUR


class Done(NamedTuple):
    """What became of a claim: the new values of its row, and of its address.

    wait: it is tried again so long after this is written down, for the answer may have taken longer
    than the provider asks us to wait.
    """

    claim: Claim
    change: Mapping[str, Any]
    suppress: str | None = None
    wait: Seconds | None = None


def settled(claimed: Claim, outgoing: Outgoing, outcome: Outcome | None) -> Done:
    """By the provider's word; without one nothing was posted, and the claim is given back."""
    if outcome is None or outcome.result == "stopped":
        return Done(claimed, _change(claimed, state="planned", attempts=claimed.attempts - 1))
    if outcome.result == "retry":
        change = _change(claimed, state="planned", reason=outcome.reason)
        return Done(claimed, change, wait=_wait(claimed, outcome))
    content = outgoing.content
    change = _change(
        claimed,
        state=outcome.result,
        reason=outcome.reason,
        provider_id=outcome.provider_id,
        segments=segments(content.body) if isinstance(content, SMSContent) else None,
    )
    return Done(claimed, change, outcome.suppress)


def _wait(claimed: Claim, outcome: Outcome) -> Seconds:
    """Never shorter than the provider asks for, and up to half as much again, so that what was
    refused together does not come back together.
    """
    wait = outcome.retry_after
    if wait is None:
        first = outcome.first_wait or FIRST_RETRY
        wait = min(first * 2 ** (claimed.attempts - 1), LAST_RETRY)
    return wait + int(wait / 2 * draw(claimed.message_id, f"try {claimed.attempts}"))


def skipped(one: Claim, reason: str) -> Done:
    """There was nothing to post."""
    return Done(one, _change(one, state="skipped", reason=reason))


def filed_under(one: Done) -> str:
    """What it is counted as: the state, or why it was not sent."""
    state, reason = one.change["state"], one.change["reason"]
    if state == "planned":
        return "to be tried again"
    if state == "skipped" and reason is not None:
        return str(reason).split(":")[0]
    return str(state)


def record(tx: Tx, journeys: Journeys, done: Sequence[Done]) -> None:
    """Write down at least one."""
    gone = [one.claim.enrollment_id for one in done if one.change["state"] != "planned"]
    # Enrollments before profiles, as the engine locks them.
    journeys.settled(tx, gone)
    _suppress(tx, [one for one in done if one.suppress is not None])
    changes = [
        one.change if one.wait is None else {**one.change, "send_at": tx.now + one.wait}
        for one in done
    ]
    columns: dict[str, Any] = {name: bindparam(name) for name in changes[0] if name != "row"}
    # A call-back that was faster than this record has the last word.
    tx.conn.execute(
        update(messages)
        .where(
            messages.c.id == bindparam("row"),
            or_(messages.c.state == "sending", messages.c.state == "unknown"),
        )
        .values(columns),
        changes,
    )


def _suppress(tx: Tx, found: Sequence[Done]) -> None:
    """Never again to this address; a STOP that the provider knows of is consent taken back.

    Under the profiles' locks, so that nobody else is about to claim for the same address. Journeys
    see that the message failed, and those that ask for an address or for consent look again.
    """
    lock_profiles(tx, {one.claim.profile_id for one in found})
    stopped = []
    for claim, _, state, _ in found:
        if state == "opted_out":
            stopped.append(
                ConsentChange(
                    claim.profile_id,
                    claim.channel,
                    WHOLE_CHANNEL,
                    granted=False,
                    occurred_at=tx.now,
                )
            )
        else:
            tx.conn.execute(
                update(identifiers)
                .where(
                    identifiers.c.kind == ADDRESS_KIND[claim.channel],
                    identifiers.c.value == claim.address,
                )
                .values(state=state)
            )
    if stopped:
        change_consent(tx, stopped, source="the provider reports a STOP", topics_too=True)
    record_events(tx, [event for one in found for event in _told(tx, one)], worked=False)


def _told(tx: Tx, one: Done) -> Iterator[NewEvent]:
    """Once a message, and without its address."""
    claim, key = one.claim, f"message {one.claim.message_id}"
    yield NewEvent(
        claim.profile_id,
        f"{claim.channel}_failed",
        tx.now,
        f"{key} failed",
        {
            "reason": one.change["reason"],
            "message_id": str(claim.message_id),
            "journey": claim.journey,
            "step": claim.step,
        },
    )
    yield NewEvent(claim.profile_id, PROFILE_CHANGED, tx.now, f"{key} {one.suppress}", {})


def _change(
    one: Claim,
    *,
    state: str,
    reason: str | None = None,
    attempts: int | None = None,
    provider_id: str | None = None,
    segments: int | None = None,
) -> dict[str, Any]:
    """All columns every time, so that a batch is one bulk statement."""
    return {
        "row": one.message_id,
        "state": state,
        # what providers say may hold a NUL, which PostgreSQL can't store
        "reason": None if reason is None else reason.replace("\0", ""),
        "send_at": one.send_at,
        "attempts": one.attempts if attempts is None else attempts,
        "provider_id": provider_id,
        "segments": segments,
        "claimed_by": None,
        "not_after": None,
    }
