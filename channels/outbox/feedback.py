"""Apply provider reports: message states, suppressions, consent, events.

Each report is applied once; the provider's id of it is the `dedupe_key` of its event. Reports may
arrive late and out of order: a message state only moves forward in `REPORTED`, and consent is
ordered by its own times.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, CompoundSelect, not_, select, tuple_, union_all
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from channels.messages import (
    MessageState,
    device_transitions,
    message_devices,
    messages,
    past_messages,
    transitions,
)
from channels.messages.device_transitions import DeviceReport
from channels.messages.states import NOT_HANDED_OVER, REPORTED, Reported
from channels.messages.transitions import Report
from channels.outbox import devices
from channels.providers.webhook import Feedback, FeedbackKind
from channels.rules.recipient import WHOLE_CHANNEL
from config.channels import ChannelName, channel_of
from config.clock.times import Instant
from config.database.arrays import any_of, one_of, rows_of
from config.database.engine import Tx
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles
from profiles.consent.changes import ConsentChange, change_consent_in_turn
from profiles.consent.double_opt_in import NO_TOPICS
from profiles.consent.state import given_back
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import Suppressed, is_in_use, suppress
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND, events, identifiers

# The message state that each kind of report implies.
_STATE: Mapping[FeedbackKind, Reported] = {
    "sent": "sent",
    "delivered": "delivered",
    "opened": "delivered",
    "machine_opened": "delivered",
    "clicked": "delivered",
    "complained": "delivered",
    "failed": "failed",
    "bounced": "failed",
}
# Inbound texts name no message; they are assigned to the last message on the channel.
_BY_TEXT: Collection[FeedbackKind] = {"stopped", "started", "replied"}
_GIVES_CONSENT: Collection[FeedbackKind] = {"started", "resubscribed"}
_CHANGES_CONSENT: Collection[FeedbackKind] = {"stopped", "started", "unsubscribed", "resubscribed"}
# Reports that apply to the address or profile, also without a known message.
_WITHOUT_MESSAGE: Collection[FeedbackKind] = {"bounced", "complained", "unsubscribed", *_BY_TEXT}


class _SentMessage(NamedTuple):
    """The columns of the message that a report is about."""

    id: int
    profile_id: int
    channel: ChannelName
    topic: str
    journey: str
    step: str
    state: MessageState
    send_at: Instant
    wanted_at: Instant
    address: str | None


class _Resolved(NamedTuple):
    """A report with the profile and message it is about; for a push also the device token."""

    report: Feedback
    profile_id: int
    message: _SentMessage | None
    at: Instant
    token: str | None = None

    @property
    def key(self) -> tuple[int, str]:
        return self.profile_id, self.report.id

    @property
    def address(self) -> Key | None:
        """The address that the report is about; None: unknown."""
        sent_to = None if self.message is None else self.message.address
        address = self.report.address or self.token or sent_to
        return None if address is None else (ADDRESS_KIND[self.report.channel], address)


def apply(
    tx: Tx, feedback: Sequence[Feedback], double_opt_in: Mapping[str, str] = NO_TOPICS
) -> Counter[str]:
    """Apply provider reports; `double_opt_in` is `Policy.double_opt_in`.

    Returns
    -------
    Counts by event name (`email_opened` ...). `known`: applied before. `ignored`: for unknown
    messages or profiles.
    """
    resolved = _locked(tx, feedback)
    new = _new(tx, resolved)
    record_events(tx, [_event(one) for one in new if one.report.kind != "sent"], worked=False)
    _suppress(tx, new)
    _change_consent(tx, new, double_opt_in)
    _move(tx, new)
    counts = Counter(_name(one.report) for one in new)
    counts["known"] = len(resolved) - len(new)
    counts["ignored"] = len(feedback) - len(resolved)
    return +counts


# Resolving reports --------------------------------------------------------------------------------


def _locked(tx: Tx, feedback: Sequence[Feedback]) -> list[_Resolved]:
    """Resolve the reports and lock their profiles.

    Profiles may merge while this waits for the locks, so the reports are resolved again afterwards.
    """
    held: set[int] = set()
    while True:
        resolved = _resolve(tx, feedback)
        people = {one.profile_id for one in resolved}
        if people <= held:
            tx.buckets = buckets_of(people)
            return resolved
        lock_profiles(tx, people)
        held |= people


def _resolve(tx: Tx, feedback: Sequence[Feedback]) -> list[_Resolved]:
    """The profile and message of each report; reports for unknown profiles are left out.

    Other systems may send through the same provider account with message ids that equal ours. So a
    message id counts only if the message's profile has the address that the provider names.
    """
    rows = _messages(tx, {one.message_id for one in feedback if one.message_id is not None})
    to = _devices(tx, [row.id for row in rows.values() if channel_of(row.channel).per_device])
    owners = _owners(tx, feedback)
    last = _last_sent(
        tx,
        {
            (owner, one.channel)
            for one in feedback
            if one.kind in _BY_TEXT and (owner := owners[_address(one)]) is not None
        },
    )
    resolved = []
    for one in feedback:
        owner = owners[_address(one)]
        row = None if one.message_id is None else rows.get(one.message_id)
        token = None if row is None else _device(one, to.get(row.id, {}))
        if row is not None and (
            row.channel == one.channel
            and (one.address is None or owner == row.profile_id or token is not None)
        ):
            resolved.append(
                _Resolved(
                    report=one,
                    profile_id=row.profile_id,
                    message=row,
                    at=_time_of(tx, one, row),
                    token=token,
                )
            )
        elif owner is not None and one.kind in _WITHOUT_MESSAGE:
            at = min(one.at or tx.now, tx.now)
            row = last.get((owner, one.channel)) if one.kind in _BY_TEXT else None
            resolved.append(_Resolved(report=one, profile_id=owner, message=row, at=at))
    return resolved


_d = message_devices.c
_DEVICES_OF = select(_d.message_id, _d.token, _d.provider_id).where(
    any_of(_d.message_id, "messages")
)


def _devices(tx: Tx, message_ids: Collection[int]) -> dict[int, dict[str, str | None]]:
    """The devices of pushes: by message id, the provider's id of each token."""
    found: dict[int, dict[str, str | None]] = defaultdict(dict)
    if message_ids:
        for row in tx.conn.execute(_DEVICES_OF, {"messages": message_ids}):
            found[row.message_id][row.token] = row.provider_id
    return found


def _device(one: Feedback, known: Mapping[str, str | None]) -> str | None:
    """The device that a report on a push names, by its token or the provider's id."""
    if one.address in known:
        return one.address
    named = (token for token, theirs in known.items() if theirs and theirs == one.provider_id)
    return next(named, None)


def _time_of(tx: Tx, one: Feedback, row: _SentMessage) -> Instant:
    """The time of a report, limited to [hand-over, now], because clocks of providers differ."""
    handed_over = row.wanted_at if row.state in NOT_HANDED_OVER else row.send_at
    return min(max(one.at or tx.now, handed_over), tx.now)


def _address(one: Feedback) -> tuple[str, str | None]:
    return ADDRESS_KIND[one.channel], one.address


def _messages(tx: Tx, ids: Collection[int]) -> dict[int, _SentMessage]:
    return {row.id: row for row in _sent(tx, _SENT, {"messages": ids})}


def _in_order(
    conditions: Callable[[ReadOnlyColumnCollection[str, Any]], Sequence[ColumnElement[bool]]],
) -> CompoundSelect[Any]:
    """Messages and past messages in the order of their hand-over."""
    found = (
        select(*(columns[name] for name in _SentMessage._fields)).where(*conditions(columns))
        for columns in (messages.c, past_messages.c)
    )
    return union_all(*found).order_by("send_at", "id")


_SENT = _in_order(lambda columns: [any_of(columns.id, "messages")])
_SENT_TO = _in_order(
    lambda columns: [
        tuple_(columns.profile_id, columns.channel).in_(
            select(rows_of("answered", messages.c.profile_id, messages.c.channel))
        ),
        one_of(columns.state, ("sending", "unknown", "sent", "delivered")),
    ]
)


def _sent(tx: Tx, which: CompoundSelect[Any], given: Mapping[str, Any]) -> list[_SentMessage]:
    """Messages in the order of their hand-over."""
    return [_SentMessage._make(row) for row in tx.conn.execute(which, given)]


_i = identifiers.c
_ADDRESS = tuple_(_i.kind, _i.value).in_(select(rows_of("addresses", _i.kind, _i.value)))
_OWNERS = select(_i.kind, _i.value, _i.profile_id).where(_ADDRESS)
_REPLACED = select(_i.kind, _i.value).where(_ADDRESS, not_(is_in_use()))
_e = events.c
_APPLIED = select(_e.profile_id, _e.dedupe_key).where(
    tuple_(_e.profile_id, _e.dedupe_key).in_(select(rows_of("keys", _e.profile_id, _e.dedupe_key)))
)


def _owners(tx: Tx, feedback: Sequence[Feedback]) -> dict[tuple[str, str | None], int | None]:
    """The profile of each address; None: unknown."""
    owners: dict[tuple[str, str | None], int | None] = dict.fromkeys(map(_address, feedback))
    named = sorted((kind, address) for kind, address in owners if address is not None)
    found = tx.conn.execute(_OWNERS, {"addresses": named})
    return owners | {(kind, value): owner for kind, value, owner in found}


def _not_in_use(tx: Tx, feedback: Sequence[Feedback]) -> set[tuple[str, str | None]]:
    """The addresses that are retired."""
    named = sorted({(kind, value) for kind, value in map(_address, feedback) if value is not None})
    found = tx.conn.execute(_REPLACED, {"addresses": named})
    return {(kind, value) for kind, value in found}


def _last_sent(
    tx: Tx, answered: Collection[tuple[int, ChannelName]]
) -> dict[tuple[int, ChannelName], _SentMessage]:
    """The last message handed over to each of these profiles on the channel."""
    if not answered:
        return {}
    found = _sent(tx, _SENT_TO, {"answered": sorted(answered)})
    return {(row.profile_id, row.channel): row for row in found}


def _new(tx: Tx, resolved: Sequence[_Resolved]) -> list[_Resolved]:
    """The reports that are not applied yet, without duplicates in the batch."""
    found = tx.conn.execute(_APPLIED, {"keys": [one.key for one in resolved]})
    known = {(profile_id, dedupe_key) for profile_id, dedupe_key in found}
    new = []
    for one in resolved:
        if one.key not in known:
            known.add(one.key)
            new.append(one)
    return new


# Applying reports ---------------------------------------------------------------------------------


def _name(report: Feedback) -> str:
    return f"{report.channel}_{report.kind}"


def _event(one: _Resolved) -> NewEvent:
    """The event that journeys react to. Its message id is text, as in the request that sent it."""
    report, row = one.report, one.message
    properties = dict(report.properties)
    if report.reason is not None:
        properties["reason"] = report.reason
    if row is not None:
        properties |= {"message_id": str(row.id), "journey": row.journey, "step": row.step}
    return NewEvent(
        profile_id=one.profile_id,
        name=_name(report),
        occurred_at=one.at,
        dedupe_key=report.id,
        properties=properties,
        identifier=one.address,
    )


def _suppress(tx: Tx, new: Sequence[_Resolved]) -> None:
    """Suppress addresses on the channel of the report.

    Journeys evaluate conditions on addresses again.
    """
    dead: dict[int, str] = {}
    found: list[Suppressed] = []
    for one in new:
        report = one.report
        if report.address is None or report.suppress is None or report.suppress == "opted_out":
            continue
        found.append(Suppressed(report.channel, report.address, report.suppress))
        dead[one.profile_id] = f"{report.id} changed the address"
    suppress(tx, found)
    if dead:
        _record_changes(tx, dead)


def _change_consent(tx: Tx, new: Sequence[_Resolved], double_opt_in: Mapping[str, str]) -> None:
    """Apply consent changes in the order of their times; journeys evaluate conditions again."""
    replaced = _not_in_use(tx, [one.report for one in new if one.report.kind in _GIVES_CONSENT])
    in_order = sorted(
        (
            one
            for one in new
            if _changes_consent(one.report)
            # an opt-in needs an address in use; an opt-out counts from any address
            and not (one.report.kind in _GIVES_CONSENT and _address(one.report) in replaced)
        ),
        key=lambda one: one.at,
    )
    changed: set[int] = set()
    for source, together in groupby(in_order, key=lambda one: one.report.source):
        resolved = list(together)
        starting = {
            (one.profile_id, one.report.channel) for one in resolved if one.report.kind == "started"
        }
        back = given_back(tx, starting) if starting else {}
        changes = [[change] for one in resolved if (change := _consent(one, back))]
        applied = change_consent_in_turn(
            tx, changes, source, topics_too=True, double_opt_in=double_opt_in
        ).applied
        changed |= {change.profile_id for change in applied}
    by = {one.profile_id: one for one in new}
    keys = {one: f"{by[one].report.id} changed consent" for one in sorted(changed)}
    _record_changes(tx, keys)


def _record_changes(tx: Tx, changed: Mapping[int, str]) -> None:
    """Record the event that a profile changed. changed: dedupe keys by profile id."""
    changes = [
        NewEvent(
            profile_id=profile_id,
            name=PROFILE_CHANGED,
            occurred_at=tx.now,
            dedupe_key=key,
            properties={},
        )
        for profile_id, key in changed.items()
    ]
    record_events(tx, changes, worked=False)


def _changes_consent(report: Feedback) -> bool:
    return report.suppress == "opted_out" or report.kind in _CHANGES_CONSENT


def _consent(
    one: _Resolved, back: Mapping[tuple[int, ChannelName], bool | None]
) -> ConsentChange | None:
    """The consent change of a report, if any. back: the consent that a START restores."""
    report, profile_id = one.report, one.profile_id
    # Text messages carry no time; their order of arrival counts.
    if report.kind == "stopped":
        return ConsentChange(
            profile_id=profile_id,
            channel=report.channel,
            topic=WHOLE_CHANNEL,
            granted=False,
            just_now=True,
            identifier=one.address,
        )
    if report.kind == "started":
        # START only restores consent from before a STOP: "YES" may answer another question.
        if (profile_id, report.channel) not in back:
            return None
        before = back[profile_id, report.channel]
        return ConsentChange(
            profile_id=profile_id,
            channel=report.channel,
            topic=WHOLE_CHANNEL,
            granted=before,
            just_now=True,
            identifier=one.address,
        )
    granted = report.kind == "resubscribed"
    whole = report.suppress == "opted_out" or report.whole_channel
    topic = WHOLE_CHANNEL if one.message is None or whole else one.message.topic
    return ConsentChange(
        profile_id=profile_id,
        channel=report.channel,
        topic=topic,
        granted=granted,
        occurred_at=one.at,
        identifier=one.address,
    )


def _move(tx: Tx, new: Sequence[_Resolved]) -> None:
    """Move each message, or device of a push, forward to the highest state reported."""
    highest: dict[tuple[int, str | None], tuple[int, _Resolved]] = {}
    for one in new:
        if one.message is not None and one.report.kind in _STATE:
            rank = REPORTED.index(_STATE[one.report.kind])
            key = one.message.id, one.token
            if key not in highest or rank > highest[key][0]:
                highest[key] = rank, one
    reached = sorted(highest.items(), key=lambda item: (item[0][0], item[0][1] or ""))
    pushes = {message_id: one.at for (message_id, token), (_, one) in reached if token is not None}
    if pushes:
        devices.hold(tx, pushes)
    for rank, state in enumerate(REPORTED):
        whole: list[Report] = []
        of_devices: list[DeviceReport] = []
        for (message_id, token), (its_rank, one) in reached:
            if its_rank == rank:
                why = one.report.reason if state == "failed" else None
                if token is None:
                    whole.append(
                        Report(
                            message_id=message_id,
                            reason=why,
                            provider_id=one.report.provider_id,
                            at=one.at,
                        )
                    )
                else:
                    named = one.report.provider_id
                    of_devices.append(
                        DeviceReport(
                            message_id=message_id, token=token, reason=why, provider_id=named
                        )
                    )
        transitions.report(tx, state, whole)
        device_transitions.report(tx, state, of_devices)
    if pushes:
        devices.follow(tx, pushes, pushes)
