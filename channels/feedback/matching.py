"""Match provider reports to profiles and messages."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, CompoundSelect, not_, select, tuple_, union_all
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from channels.messages import MessageState, message_devices, messages, past_messages
from channels.messages.states import NOT_HANDED_OVER
from channels.providers.webhook import Feedback, FeedbackKind
from config.channels import ChannelName, channel_of
from config.clock.times import Instant
from config.database.arrays import any_of, one_of, rows_of
from config.database.engine import Tx
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles
from profiles.identity.addresses import is_in_use
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND, events, identifiers

# Inbound texts name no message; they are assigned to the last message on the channel.
_BY_TEXT: Collection[FeedbackKind] = {"stopped", "started", "replied"}
# Reports that apply to the address or profile, also without a known message.
_WITHOUT_MESSAGE: Collection[FeedbackKind] = {"bounced", "complained", "unsubscribed", *_BY_TEXT}


class SentMessage(NamedTuple):
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


class MatchedReport(NamedTuple):
    """A report with the profile and message it is about; for a push also the device token."""

    report: Feedback
    profile_id: int
    message: SentMessage | None
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


def match_reports(tx: Tx, feedback: Sequence[Feedback]) -> list[MatchedReport]:
    """The profile and message of each report; reports for unknown profiles are left out.

    Locks the profiles, and limits the transaction to their buckets.
    Profiles may merge while this waits for the locks, so the reports are matched again afterwards.
    """
    held: set[int] = set()
    while True:
        matched = _match(tx, feedback)
        people = {one.profile_id for one in matched}
        if people <= held:
            tx.buckets = buckets_of(people)
            return matched
        lock_profiles(tx, people)
        held |= people


def _match(tx: Tx, feedback: Sequence[Feedback]) -> list[MatchedReport]:
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
            if one.kind in _BY_TEXT and (owner := owners[address_key(one)]) is not None
        },
    )
    matched = []
    for one in feedback:
        owner = owners[address_key(one)]
        row = None if one.message_id is None else rows.get(one.message_id)
        token = None if row is None else _device(one, to.get(row.id, {}))
        if row is not None and (
            row.channel == one.channel
            and (one.address is None or owner == row.profile_id or token is not None)
        ):
            matched.append(
                MatchedReport(
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
            matched.append(MatchedReport(report=one, profile_id=owner, message=row, at=at))
    return matched


_d = message_devices.c
_DEVICES_OF = select(_d.message_id, _d.token, _d.provider_id).where(
    any_of(_d.message_id, "messages")
)


def _devices(tx: Tx, message_ids: Collection[int]) -> dict[int, dict[str, str | None]]:
    """The devices of pushes: by message id, the provider's id of each token."""
    found: dict[int, dict[str, str | None]] = defaultdict(dict)
    if message_ids:
        for row in tx.rows(_DEVICES_OF, {"messages": message_ids}):
            found[row.message_id][row.token] = row.provider_id
    return found


def _device(one: Feedback, known: Mapping[str, str | None]) -> str | None:
    """The device that a report on a push names, by its token or the provider's id."""
    if one.address in known:
        return one.address
    named = (token for token, theirs in known.items() if theirs and theirs == one.provider_id)
    return next(named, None)


def _time_of(tx: Tx, one: Feedback, row: SentMessage) -> Instant:
    """The time of a report, limited to [hand-over, now], because clocks of providers differ."""
    handed_over = row.wanted_at if row.state in NOT_HANDED_OVER else row.send_at
    return min(max(one.at or tx.now, handed_over), tx.now)


def address_key(one: Feedback) -> tuple[str, str | None]:
    """The kind and value of the address that a report names; None: it names none."""
    return ADDRESS_KIND[one.channel], one.address


def _messages(tx: Tx, ids: Collection[int]) -> dict[int, SentMessage]:
    return {row.id: row for row in _sent(tx, _SENT, {"messages": ids})}


def _in_order(
    conditions: Callable[[ReadOnlyColumnCollection[str, Any]], Sequence[ColumnElement[bool]]],
) -> CompoundSelect[Any]:
    """Messages and past messages in the order of their hand-over."""
    found = (
        select(*(columns[name] for name in SentMessage._fields)).where(*conditions(columns))
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


def _sent(tx: Tx, which: CompoundSelect[Any], given: Mapping[str, Any]) -> list[SentMessage]:
    """Messages in the order of their hand-over."""
    return [SentMessage._make(row) for row in tx.rows(which, given)]


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
    owners: dict[tuple[str, str | None], int | None] = dict.fromkeys(map(address_key, feedback))
    named = sorted((kind, address) for kind, address in owners if address is not None)
    found = tx.rows(_OWNERS, {"addresses": named})
    return owners | {(kind, value): owner for kind, value, owner in found}


def retired_addresses(tx: Tx, feedback: Sequence[Feedback]) -> set[tuple[str, str | None]]:
    """The addresses in these reports that are retired."""
    named = sorted(
        {(kind, value) for kind, value in map(address_key, feedback) if value is not None}
    )
    found = tx.rows(_REPLACED, {"addresses": named})
    return {(kind, value) for kind, value in found}


def _last_sent(
    tx: Tx, answered: Collection[tuple[int, ChannelName]]
) -> dict[tuple[int, ChannelName], SentMessage]:
    """The last message handed over to each of these profiles on the channel."""
    if not answered:
        return {}
    found = _sent(tx, _SENT_TO, {"answered": sorted(answered)})
    return {(row.profile_id, row.channel): row for row in found}


def new_reports(tx: Tx, matched: Sequence[MatchedReport]) -> list[MatchedReport]:
    """The reports that are not applied yet, without duplicates in the batch."""
    found = tx.rows(_APPLIED, {"keys": [one.key for one in matched]})
    known = {(profile_id, dedupe_key) for profile_id, dedupe_key in found}
    new = []
    for one in matched:
        if one.key not in known:
            known.add(one.key)
            new.append(one)
    return new
