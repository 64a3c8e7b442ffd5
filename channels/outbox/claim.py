"""Claiming: evaluate due messages again and reserve them for one process.

All rules are evaluated again for the current time, under the locks of the profiles. A message that
may be sent is claimed (state `sending`, `send_at` now). The claim is committed before the request,
so a crash leaves the message `unknown` and never sends it twice. A message that may no longer be
sent is rescheduled or refused.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, select, tuple_

from channels.messages import device_transitions, messages, transitions
from channels.messages.device_transitions import DeviceClaim
from channels.outbox import devices
from channels.outbox.claims import Claim, Claimed, ClaimFailed, Journeys, PlannedNow
from channels.outbox.devices import Devices
from channels.outbox.due import lock_due
from channels.outbox.plan import decide_again
from channels.outbox.rows import MESSAGE_COLUMNS, MessageRow, RefusedMessage
from channels.outbox.sessions import session_ends
from channels.providers.registry import Route
from channels.rules.caps import Counted
from channels.rules.loaders import load_contents, load_history, load_recipients
from channels.rules.planner import Planner, Reason, Wanted
from channels.rules.recipient import Recipient, Situation
from config.channels import ChannelName, channel_of
from config.clock.times import MINUTE, Instant, Seconds
from config.database.arrays import any_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.failures import of_the_database
from profiles.bucketing import buckets_of

# A message whose evaluation raises an error is evaluated again after this time.
EVALUATE_AGAIN_AFTER: Seconds = 5 * MINUTE


def claim(
    tx: Tx,
    planner: Planner,
    journeys: Journeys,
    *,
    claimed_by: str,
    routes: Mapping[ChannelName, Route],
    limits: Mapping[str, int],
    journey: str | None = None,
    only: Sequence[int] | None = None,
) -> Claimed:
    """Claim due messages of the transaction's buckets, the earliest first, up to the limit of each
    provider.

    Parameters
    ----------
    routes: the channels to claim on, with their providers.
    limits: the most hand-overs by provider name; nothing is claimed for a provider without an
        entry. A push counts once for each device; a push to more devices than the limit is claimed
        alone.
    journey: claim only messages of this journey. only: claim only messages with these ids.

    Raises ClaimFailed.
    """
    rows, more = lock_due(tx, journeys, routes=routes, limits=limits, journey=journey, only=only)
    if not rows:
        return Claimed([], more=False, refused=Counter())
    tx.buckets = buckets_of(row.profile_id for row in rows)
    try:
        recipients = load_recipients(tx, planner.policy, {row.profile_id for row in rows})
        pushes = [row for row in rows if channel_of(row.channel).per_device]
        known = devices.look_up(tx, pushes, recipients)
        later = _too_many(pushes, known, routes, limits)
        more |= bool(later)
        rows = [row for row in rows if row.id not in later]
        claims, refused = _claim_rows(tx, planner, journeys, rows, known, recipients, claimed_by)
    except Exception as error:
        if of_the_database(error):
            raise
        raise ClaimFailed([row.id for row in rows]) from error
    # The group of a refused message may be sent on another channel now.
    return Claimed(claims, more or len(claims) < len(rows), refused)


def claim_planned(
    tx: Tx,
    planner: Planner,
    journeys: Journeys,
    planned_now: PlannedNow,
    *,
    claimed_by: str,
    routes: Mapping[ChannelName, Route],
    limits: Mapping[str, int],
) -> list[Claim]:
    """Claim messages that this transaction planned for now, and whose rules it has just evaluated.

    The caller holds their profiles and enrollments. Messages over a limit, and those of channels
    with sessions, stay planned.

    Raises ClaimFailed.
    """
    given = {
        "enrollments": {enrollment for enrollment, _ in planned_now},
        "now": tx.now,
        "buckets": tx.buckets,
    }
    rows = [
        row
        for row in map(MessageRow._make, tx.rows(_PLANNED, given))
        if (row.enrollment_id, row.step) in planned_now
        and row.channel in routes
        and channel_of(row.channel).session is None
    ]
    if not rows:
        return []
    try:
        pushes = [row for row in rows if channel_of(row.channel).per_device]
        recipients = {row.profile_id: planned_now[row.enrollment_id, row.step] for row in rows}
        known = devices.look_up(tx, pushes, recipients)
        rows = _within(rows, known, routes, limits)
        fit = [
            (row, _closes(planner, recipients[row.profile_id].situation, row, tx.now))
            for row in rows
        ]
        claims = with_content(tx, journeys, fit, known, recipients) if fit else []
        _write_claims(tx, claims, claimed_by)
    except Exception as error:
        if of_the_database(error):
            raise
        raise ClaimFailed([row.id for row in rows]) from error
    return claims


_PLANNED = (
    select(*MESSAGE_COLUMNS)
    .where(
        any_of(messages.c.enrollment_id, "enrollments"),
        in_buckets(messages.c.bucket),
        messages.c.state == "planned",
        messages.c.send_at <= bindparam("now"),
    )
    .order_by(messages.c.priority.desc(), messages.c.id)
)


def _within(
    rows: Sequence[MessageRow],
    known: Devices,
    routes: Mapping[ChannelName, Route],
    limits: Mapping[str, int],
) -> list[MessageRow]:
    """The messages that fit into the limits of their providers."""
    posts: Counter[str] = Counter()
    fit: list[MessageRow] = []
    for row in rows:
        number = 1
        if channel_of(row.channel).per_device:
            number = len(known.open.get(row.id, ()))
        provider = routes[row.channel].provider(row.kind, row.topic)
        if number and posts[provider] + number <= limits.get(provider, 0):
            posts[provider] += number
            fit.append(row)
    return fit


def _too_many(
    pushes: Sequence[MessageRow],
    known: Devices,
    routes: Mapping[ChannelName, Route],
    limits: Mapping[str, int],
) -> set[int]:
    """The ids of pushes whose hand-overs exceed the limit of their provider. The first push of each
    provider is always within the limit.
    """
    posts: Counter[str] = Counter()
    later: set[int] = set()
    for row in pushes:
        provider = routes[row.channel].provider(row.kind, row.topic)
        number = len(known.open.get(row.id, ()))
        if posts[provider] and posts[provider] + number > limits[provider]:
            later.add(row.id)
        else:
            posts[provider] += number
    return later


def _claim_rows(
    tx: Tx,
    planner: Planner,
    journeys: Journeys,
    rows: Sequence[MessageRow],
    known: Devices,
    recipients: Mapping[int, Recipient],
    claimed_by: str,
) -> tuple[list[Claim], Counter[tuple[str, ChannelName, str]]]:
    unwanted = journeys.unwanted(tx, rows)
    transitions.cancel(tx, unwanted)
    # A pause or a failing provider delayed these beyond their max_delay. `claim_lasts` is added
    # because a message that is planned for the last allowed second is claimed shortly after it.
    expired = {
        row.id: "expired: it could not leave within its max_delay"
        for row in rows
        if tx.now > row.latest_anchor + row.after + tx.timing.claim_lasts and row.id not in unwanted
    }
    transitions.skip(tx, expired)
    spent = {
        row.id: "every device has refused it"
        for row in rows
        if row.id in known.spent and row.id not in unwanted and row.id not in expired
    }
    if spent:
        transitions.fail(tx, spent)
        device_transitions.drop(tx, spent)
    refused = [RefusedMessage(row, "cancelled") for row in rows if row.id in unwanted]
    refused += [RefusedMessage(row, "expired") for row in rows if row.id in expired]
    refused += [RefusedMessage(row, "failed") for row in rows if row.id in spent]
    out = {one.message.id for one in refused}
    wanted_rows = [row for row in rows if row.id not in out]
    together = _all_or_none(tx, wanted_rows)
    ends = session_ends(tx, journeys, [*wanted_rows, *together])
    no_session: dict[int, Reason] = {
        message_id: "no_session" for message_id, end in ends.items() if end <= tx.now
    }
    fit, unfit = _evaluate(tx, planner, wanted_rows, together, recipients, ends, no_session)
    claims = with_content(tx, journeys, fit, known, recipients)
    _write_claims(tx, claims, claimed_by)
    if unfit:
        groups = {(row.enrollment_id, row.step) for row in unfit}
        note = {"looked_at_again": "at dispatch"}
        refused += decide_again(tx, planner, groups, note, no_session)
    journeys.settled(tx, [one.message.enrollment_id for one in refused])
    return claims, Counter((row.journey, row.channel, why) for row, why in refused)


def _write_claims(tx: Tx, claims: Sequence[Claim], claimed_by: str) -> None:
    """Write the claims, with one statement for each `not_after`; most claims share it."""
    ending: dict[Instant, dict[int, str | None]] = defaultdict(dict)
    for one in claims:
        to = None if channel_of(one.channel).per_device else one.targets[0].address
        ending[one.not_after][one.message_id] = to
    for not_after, addresses in ending.items():
        transitions.claim(tx, addresses, not_after=not_after, claimed_by=claimed_by)
    pushes = [
        DeviceClaim(
            message_id=one.message_id,
            token=device.address,
            profile_id=one.profile_id,
            attempts=one.attempts,
            not_after=one.not_after,
        )
        for one in claims
        if channel_of(one.channel).per_device
        for device in one.targets
    ]
    if pushes:
        devices.take(tx, pushes)


def _evaluate(
    tx: Tx,
    planner: Planner,
    rows: Sequence[MessageRow],
    together: Sequence[MessageRow],
    recipients: Mapping[int, Recipient],
    ends: Mapping[int, Instant],
    no_session: Mapping[int, Reason],
) -> tuple[list[tuple[MessageRow, Instant | None]], list[MessageRow]]:
    """The rows that may be sent now, each with the end of that permission, and the other rows."""
    people = {row.profile_id: recipients[row.profile_id] for row in rows}
    histories = load_history(tx, planner.policy, people, tx.now)
    # Only handed-over messages count here; planned ones are evaluated at their own claim.
    handed_over: dict[int, list[Counted]] = defaultdict(list)
    for profile_id, history in histories.items():
        handed_over[profile_id] = [past.counted for past in history if not past.planned]
    fit: list[tuple[MessageRow, Instant | None]] = []
    unfit: list[MessageRow] = []
    # Groups with mode "all" of which a member can't be sent: one that is due later, or on another
    # channel.
    incomplete = {
        (row.enrollment_id, row.step)
        for row in together
        if row.id in no_session
        or recipients[row.profile_id].situation.refusal(
            planner.policy, row.channel, row.kind, row.topic
        )
    }
    for row in rows:
        situation = recipients[row.profile_id].situation
        before = handed_over[row.profile_id]
        refused = no_session.get(row.id)
        wanted = Wanted(
            channel=row.channel,
            kind=row.kind,
            topic=row.topic,
            offset=0,
            on_cap="skip",
            max_delay=0,
            refused=refused,
        )
        [decision] = planner.decide(situation, "any", [wanted], before, tx.now)
        if decision.reason:
            unfit.append(row)
            if row.mode == "all":
                incomplete.add((row.enrollment_id, row.step))
        else:
            before.append(
                Counted(send_at=tx.now, channel=row.channel, kind=row.kind, topic=row.topic)
            )
            until = (_closes(planner, situation, row, tx.now), ends.get(row.id))
            fit.append((row, min((one for one in until if one is not None), default=None)))
    unfit += [row for row, _ in fit if (row.enrollment_id, row.step) in incomplete]
    fit = [one for one in fit if (one[0].enrollment_id, one[0].step) not in incomplete]
    return fit, unfit


def _all_or_none(tx: Tx, rows: Sequence[MessageRow]) -> Sequence[MessageRow]:
    """The planned members of the rows' groups with mode "all"."""
    groups = {(row.enrollment_id, row.step) for row in rows if row.mode == "all"}
    if not groups:
        return []
    given = {"groups": sorted(groups), "buckets": tx.buckets}
    waiting = tx.rows(_PLANNED_OF_GROUPS, given)
    return [MessageRow._make(row) for row in waiting]


_PLANNED_OF_GROUPS = select(*MESSAGE_COLUMNS).where(
    messages.c.state == "planned",
    in_buckets(messages.c.bucket),
    tuple_(messages.c.enrollment_id, messages.c.step).in_(
        select(rows_of("groups", messages.c.enrollment_id, messages.c.step))
    ),
)


def _closes(
    planner: Planner, situation: Situation, row: MessageRow, now: Instant
) -> Instant | None:
    if row.kind == "transactional":
        return None
    return planner.hours(row.channel, situation).closes(now)


def with_content(
    tx: Tx,
    journeys: Journeys,
    fit: Sequence[tuple[MessageRow, Instant | None]],
    known: Devices,
    recipients: Mapping[int, Recipient],
) -> list[Claim]:
    """The claims of messages, with what templates see. fit: when the window closes, of each."""
    rows = [row for row, _ in fit]
    contexts = journeys.contexts(tx, list({row.enrollment_id for row in rows}))
    contents = load_contents(tx, {row.profile_id for row in rows})
    return [
        Claim(
            message_id=row.id,
            profile_id=row.profile_id,
            enrollment_id=row.enrollment_id,
            journey=row.journey,
            version=row.version,
            step=row.step,
            member=row.member,
            channel=row.channel,
            kind=row.kind,
            topic=row.topic,
            attempts=row.attempts + 1,
            send_at=tx.now,
            not_after=tx.now + tx.timing.claim_lasts
            if closes is None
            else min(tx.now + tx.timing.claim_lasts, closes),
            closes=closes,
            targets=known.open[row.id]
            if channel_of(row.channel).per_device
            else recipients[row.profile_id].targets(row.channel),
            context={
                **contents.context(row.profile_id),
                **contexts[row.enrollment_id],
            },
            marks=contents.marks,
        )
        for row, closes in fit
    ]


def put_off(tx: Tx, message_id: int, reason: str) -> None:
    """Postpone a message whose evaluation failed; skip it once its latest send time is over."""
    transitions.put_off(tx, message_id, tx.now + EVALUATE_AGAIN_AFTER, reason)
