"""What a provider's word does to our rows: message states, addresses, consent, events.

A word is taken once (the event's `dedupe_key` is the provider's id of it) and may come late or out
of order: a message only ever moves up `RANK`, and consent goes by its own dates.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, not_, select, tuple_

from channels.messages import (
    MessageState,
    device_transitions,
    message_devices,
    messages,
    transitions,
)
from channels.messages.device_transitions import DeviceReport
from channels.messages.states import REPORTED, TAKEN_BACK, Reported
from channels.messages.transitions import Report
from channels.outbox import devices
from channels.providers.webhook import Feedback, FeedbackKind
from channels.rules.recipient import WHOLE_CHANNEL
from config.channels import ChannelName, channel_of
from config.clock.times import Instant
from config.database.engine import Tx
from profiles.bulk import among, in_slices, lock_profiles
from profiles.consent.changes import ConsentChange, change_consent, given_back
from profiles.consent.double_opt_in import NO_TOPICS
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import Suppressed, is_in_use, suppress
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND, events, identifiers

# What each says about the message.
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
# What a person answers by text names no message: it is taken for the last that they got.
_BY_TEXT: Collection[FeedbackKind] = {"stopped", "started", "replied"}
_GIVES_CONSENT: Collection[FeedbackKind] = {"started", "resubscribed"}
_OF_CONSENT: Collection[FeedbackKind] = {"stopped", "started", "unsubscribed", "resubscribed"}
# True of the address or the person, whichever message it is about.
_OF_THE_ADDRESS: Collection[FeedbackKind] = {"bounced", "complained", "unsubscribed", *_BY_TEXT}


class _SentMessage(NamedTuple):
    """What is read of the message that a report is about."""

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


_COLUMNS = [messages.c[name] for name in _SentMessage._fields]


class _Heard(NamedTuple):
    """A word with the person and the message that it is about; of a push also the device."""

    said: Feedback
    profile_id: int
    message: _SentMessage | None
    at: Instant
    token: str | None = None

    @property
    def key(self) -> tuple[int, str]:
        return self.profile_id, self.said.id

    @property
    def address(self) -> Key | None:
        """The address that it is about; None: not known."""
        sent_to = None if self.message is None else self.message.address
        address = self.said.address or self.token or sent_to
        return None if address is None else (ADDRESS_KIND[self.said.channel], address)


def apply(
    tx: Tx, feedback: Sequence[Feedback], double_opt_in: Mapping[str, str] = NO_TOPICS
) -> Counter[str]:
    """Write what the providers say; `double_opt_in` is `Policy.double_opt_in`.

    Returns
    -------
    Counts by event (`email_opened` ...). `known`: had come before. `ignored`: about messages or
    people that are not ours.
    """
    heard = _locked(tx, feedback)
    new = _new(tx, heard)
    record_events(tx, [_event(one) for one in new if one.said.kind != "sent"], worked=False)
    _suppress(tx, new)
    _change_consent(tx, new, double_opt_in)
    _move(tx, new)
    counts = Counter(_name(one.said) for one in new)
    counts["known"] = len(heard) - len(new)
    counts["ignored"] = len(feedback) - len(heard)
    return +counts


# Whose and what -----------------------------------------------------------------------------------


def _locked(tx: Tx, feedback: Sequence[Feedback]) -> list[_Heard]:
    """The words that are about somebody of ours, whose profiles are held from now on.

    Two profiles may become one while we wait for them: so who it is is asked again afterwards.
    """
    held: set[int] = set()
    while True:
        heard = _resolve(tx, feedback)
        people = {one.profile_id for one in heard}
        if people <= held:
            return heard
        lock_profiles(tx, people)
        held |= people


def _resolve(tx: Tx, feedback: Sequence[Feedback]) -> list[_Heard]:
    """Whom and what each word is about; those about nobody of ours are left out.

    Other systems may send through the same account and number their messages as they like: a
    message is ours when it went to the person whose address the provider names.
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
    heard = []
    for one in feedback:
        owner = owners[_address(one)]
        row = None if one.message_id is None else rows.get(one.message_id)
        token = None if row is None else _device(one, to.get(row.id, {}))
        if row is not None and (
            row.channel == one.channel
            and (one.address is None or owner == row.profile_id or token is not None)
        ):
            heard.append(_Heard(one, row.profile_id, row, _moment(tx, one, row), token))
        elif owner is not None and one.kind in _OF_THE_ADDRESS:
            at = min(one.at or tx.now, tx.now)
            row = last.get((owner, one.channel)) if one.kind in _BY_TEXT else None
            heard.append(_Heard(one, owner, row, at))
    return heard


def _devices(tx: Tx, message_ids: Collection[int]) -> dict[int, dict[str, str | None]]:
    """Where pushes went: the provider's ids by token, by message."""
    c = message_devices.c
    found: dict[int, dict[str, str | None]] = defaultdict(dict)
    if message_ids:
        columns = select(c.message_id, c.token, c.provider_id)
        for row in tx.conn.execute(columns.where(among(tx, c.message_id, message_ids))):
            found[row.message_id][row.token] = row.provider_id
    return found


def _device(one: Feedback, known: Mapping[str, str | None]) -> str | None:
    """The device that a word about a push names, by its token or by the provider's id."""
    if one.address in known:
        return one.address
    named = (token for token, theirs in known.items() if theirs and theirs == one.provider_id)
    return next(named, None)


def _moment(tx: Tx, one: Feedback, row: _SentMessage) -> Instant:
    """The provider's clock is not ours: it was after the hand-over, and is not in the future."""
    handed_over = row.wanted_at if row.state in TAKEN_BACK else row.send_at
    return min(max(one.at or tx.now, handed_over), tx.now)


def _address(one: Feedback) -> tuple[str, str | None]:
    return ADDRESS_KIND[one.channel], one.address


def _messages(tx: Tx, ids: Collection[int]) -> dict[int, _SentMessage]:
    return {
        row.id: row for some in in_slices(sorted(ids)) for row in _sent(tx, messages.c.id.in_(some))
    }


def _sent(tx: Tx, which: ColumnElement[bool]) -> list[_SentMessage]:
    """Messages, in the order in which they went."""
    found = select(*_COLUMNS).where(which).order_by(messages.c.send_at, messages.c.id)
    return [_SentMessage(*row) for row in tx.conn.execute(found)]


def _owners(tx: Tx, feedback: Sequence[Feedback]) -> dict[tuple[str, str | None], int | None]:
    """Whose the addresses are; None: nobody's that we know."""
    c = identifiers.c
    owners: dict[tuple[str, str | None], int | None] = dict.fromkeys(map(_address, feedback))
    named = sorted((kind, address) for kind, address in owners if address is not None)
    for some in in_slices(named, 500):
        found = select(c.kind, c.value, c.profile_id).where(tuple_(c.kind, c.value).in_(some))
        owners |= {(kind, value): owner for kind, value, owner in tx.conn.execute(found)}
    return owners


def _not_in_use(tx: Tx, feedback: Sequence[Feedback]) -> set[tuple[str, str | None]]:
    """Which of the addresses are not in use any more."""
    c = identifiers.c
    named = sorted({(kind, value) for kind, value in map(_address, feedback) if value is not None})
    replaced: set[tuple[str, str | None]] = set()
    for some in in_slices(named, 500):
        found = select(c.kind, c.value).where(tuple_(c.kind, c.value).in_(some), not_(is_in_use()))
        replaced.update((row.kind, row.value) for row in tx.conn.execute(found))
    return replaced


def _last_sent(
    tx: Tx, answered: Collection[tuple[int, ChannelName]]
) -> dict[tuple[int, ChannelName], _SentMessage]:
    """The last message that each of these profiles was sent on the channel."""
    if not answered:
        return {}
    theirs = and_(
        tuple_(messages.c.profile_id, messages.c.channel).in_(sorted(answered)),
        messages.c.state.in_(("sending", "unknown", "sent", "delivered")),
    )
    return {(row.profile_id, row.channel): row for row in _sent(tx, theirs)}


def _new(tx: Tx, heard: Sequence[_Heard]) -> list[_Heard]:
    """Those that had not come before; what comes twice at once counts once."""
    columns = events.c.profile_id, events.c.dedupe_key
    known = {
        (profile_id, dedupe_key)
        for some in in_slices([one.key for one in heard], 500)
        for profile_id, dedupe_key in tx.conn.execute(
            select(*columns).where(tuple_(*columns).in_(some))
        )
    }
    new = []
    for one in heard:
        if one.key not in known:
            known.add(one.key)
            new.append(one)
    return new


# What it does -------------------------------------------------------------------------------------


def _name(said: Feedback) -> str:
    return f"{said.channel}_{said.kind}"


def _event(one: _Heard) -> NewEvent:
    """What journeys see. The message's id is text, as it was on its way out."""
    said, row = one.said, one.message
    properties = dict(said.properties)
    if said.reason is not None:
        properties["reason"] = said.reason
    if row is not None:
        properties |= {"message_id": str(row.id), "journey": row.journey, "step": row.step}
    return NewEvent(one.profile_id, _name(said), one.at, said.id, properties, said_of=one.address)


def _suppress(tx: Tx, new: Sequence[_Heard]) -> None:
    """Never again to this address, on the channel that the report is about.

    Journeys that ask for an address in good standing look again.
    """
    dead: dict[int, str] = {}
    found: list[Suppressed] = []
    for one in new:
        said = one.said
        if said.address is None or said.suppress is None or said.suppress == "opted_out":
            continue
        found.append(Suppressed(said.channel, said.address, said.suppress))
        dead[one.profile_id] = f"{said.id} changed the address"
    suppress(tx, found)
    if dead:
        _tell(tx, dead)


def _change_consent(tx: Tx, new: Sequence[_Heard], double_opt_in: Mapping[str, str]) -> None:
    """Consent given and taken back, in its order; journeys that ask for it look again."""
    replaced = _not_in_use(tx, [one.said for one in new if one.said.kind in _GIVES_CONSENT])
    speaking = sorted(
        (
            one
            for one in new
            if _is_of_consent(one.said)
            # an opt-in is for an address in use; an opt-out counts from any
            and not (one.said.kind in _GIVES_CONSENT and _address(one.said) in replaced)
        ),
        key=lambda one: one.at,
    )
    changed: set[int] = set()
    for source, together in groupby(speaking, key=lambda one: one.said.source):
        heard = list(together)
        starting = {
            (one.profile_id, one.said.channel) for one in heard if one.said.kind == "started"
        }
        back = given_back(tx, starting) if starting else {}
        changes = {change.key: change for one in heard if (change := _consent(one, back))}
        applied = change_consent(
            tx, list(changes.values()), source, topics_too=True, double_opt_in=double_opt_in
        ).applied
        changed |= {change.profile_id for change in applied}
    by = {one.profile_id: one for one in new}
    _tell(tx, {person: f"{by[person].said.id} changed consent" for person in sorted(changed)})


def _tell(tx: Tx, changed: Mapping[int, str]) -> None:
    """Say of these profiles that they are different; by the key under which each is said once."""
    told = [NewEvent(person, PROFILE_CHANGED, tx.now, key, {}) for person, key in changed.items()]
    record_events(tx, told, worked=False)


def _is_of_consent(said: Feedback) -> bool:
    return said.suppress == "opted_out" or said.kind in _OF_CONSENT


def _consent(
    one: _Heard, back: Mapping[tuple[int, ChannelName], bool | None]
) -> ConsentChange | None:
    """What a word says about consent, if anything; `back`: what a START gives back, and to whom."""
    said, person = one.said, one.profile_id
    # A text message carries no time: what comes later was said later.
    if said.kind == "stopped":
        return ConsentChange(
            person,
            said.channel,
            WHOLE_CHANNEL,
            granted=False,
            just_now=True,
            said_of=one.address,
        )
    if said.kind == "started":
        # It is no first consent: YES may answer anything.
        if (person, said.channel) not in back:
            return None
        before = back[person, said.channel]
        return ConsentChange(
            person, said.channel, WHOLE_CHANNEL, before, just_now=True, said_of=one.address
        )
    granted = said.kind == "resubscribed"
    whole = said.suppress == "opted_out" or said.whole_channel
    topic = WHOLE_CHANNEL if one.message is None or whole else one.message.topic
    return ConsentChange(person, said.channel, topic, granted, one.at, said_of=one.address)


def _move(tx: Tx, new: Sequence[_Heard]) -> None:
    """Each message, or device of a push, to the highest of the states reported, where that is above
    its own."""
    highest: dict[tuple[int, str | None], tuple[int, _Heard]] = {}
    for one in new:
        if one.message is not None and one.said.kind in _STATE:
            rank = REPORTED.index(_STATE[one.said.kind])
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
                why = one.said.reason if state == "failed" else None
                if token is None:
                    whole.append(Report(message_id, why, one.said.provider_id, one.at))
                else:
                    named = one.said.provider_id
                    of_devices.append(DeviceReport(message_id, token, why, named))
        transitions.report(tx, state, whole)
        device_transitions.report(tx, state, of_devices)
    if pushes:
        devices.follow(tx, pushes, pushes)
