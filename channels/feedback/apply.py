"""Apply provider reports: message states, suppressions, consent, events.

Each report is applied once; the provider's id of it is the `dedupe_key` of its event. Reports may
arrive late and out of order: a message state only moves forward in `REPORTED`, and consent is
ordered by its own times.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

from channels.feedback.matching import (
    MatchedReport,
    address_key,
    match_reports,
    new_reports,
    retired_addresses,
)
from channels.messages import device_transitions, transitions
from channels.messages.device_transitions import DeviceReport
from channels.messages.states import REPORTED, Reported
from channels.messages.transitions import Report
from channels.outbox import devices
from channels.providers.webhook import Feedback, FeedbackKind
from channels.rules.recipient import WHOLE_CHANNEL
from config.channels import ChannelName
from config.database.engine import Tx
from profiles.consent.changes import ConsentChange, change_consent_in_turn
from profiles.consent.double_opt_in import NO_TOPICS
from profiles.consent.state import given_back
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import Suppressed, suppress

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
_GIVES_CONSENT: Collection[FeedbackKind] = {"started", "resubscribed"}
_CHANGES_CONSENT: Collection[FeedbackKind] = {"stopped", "started", "unsubscribed", "resubscribed"}


def apply(
    tx: Tx, feedback: Sequence[Feedback], double_opt_in: Mapping[str, str] = NO_TOPICS
) -> Counter[str]:
    """Apply provider reports; `double_opt_in` is `Policy.double_opt_in`.

    Returns
    -------
    Counts by event name (`email_opened` ...). `known`: applied before. `ignored`: for unknown
    messages or profiles.
    """
    matched = match_reports(tx, feedback)
    new = new_reports(tx, matched)
    record_events(tx, [_event(one) for one in new if one.report.kind != "sent"], worked=False)
    _suppress(tx, new)
    _change_consent(tx, new, double_opt_in)
    _move(tx, new)
    counts = Counter(_name(one.report) for one in new)
    counts["known"] = len(matched) - len(new)
    counts["ignored"] = len(feedback) - len(matched)
    return +counts


def _name(report: Feedback) -> str:
    return f"{report.channel}_{report.kind}"


def _event(one: MatchedReport) -> NewEvent:
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


def _suppress(tx: Tx, new: Sequence[MatchedReport]) -> None:
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


def _change_consent(tx: Tx, new: Sequence[MatchedReport], double_opt_in: Mapping[str, str]) -> None:
    """Apply consent changes in the order of their times; journeys evaluate conditions again."""
    replaced = retired_addresses(
        tx, [one.report for one in new if one.report.kind in _GIVES_CONSENT]
    )
    in_order = sorted(
        (
            one
            for one in new
            if _changes_consent(one.report)
            # an opt-in needs an address in use; an opt-out counts from any address
            and not (one.report.kind in _GIVES_CONSENT and address_key(one.report) in replaced)
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
    one: MatchedReport, back: Mapping[tuple[int, ChannelName], bool | None]
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


def _move(tx: Tx, new: Sequence[MatchedReport]) -> None:
    """Move each message, or device of a push, forward to the highest state reported."""
    highest: dict[tuple[int, str | None], tuple[int, MatchedReport]] = {}
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
