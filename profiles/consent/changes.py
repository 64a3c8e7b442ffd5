"""Change consent: the current state and the append-only record of statements.

All changes of consent use this module: imports, pages, webhooks, calls.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.channels import ChannelName, channel_of
from config.clock.times import Instant
from config.database.engine import Tx
from profiles.bulk import lock_profiles
from profiles.consent.double_opt_in import (
    CONFIRMED_ON,
    NO_TOPICS,
    PendingYes,
    Yes,
    ask,
    proof,
    settle,
    waiting,
)
from profiles.consent.state import (
    ConsentKey,
    Statement,
    consent_statements,
    insert_records,
    last_sources,
    withdrawn,
    write_statements,
)
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import OptIn, lift_erased
from profiles.identity.person import Key as Identifier
from profiles.identity.survivors import survivors


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """A statement of one profile about a channel (topic `*`) or about one topic on it.

    granted: None returns consent to unset, which is neither a yes nor a STOP.

    occurred_at: None if unknown, as in an export without dates. The statement then counts as made
    now, with two exceptions. An undated yes does not override a no from another source, because an
    old export must not undo a STOP. An undated no to a channel with a STOP changes nothing without
    a yes before it: it comes from an unticked checkbox, and as a STOP it would also block
    transactional messages. A future time counts as unknown.

    just_now: the customer states it now. It is later than all recorded statements, also of the same
    second.

    wording: the text that was shown. evidence: proof as JSON, such as form and IP address.
    identifier: the identifier that the statement is about; None: unknown.
    """

    profile_id: int
    channel: ChannelName
    topic: str
    granted: bool | None
    occurred_at: Instant | None = None
    just_now: bool = False
    wording: str | None = None
    evidence: Any = None
    identifier: Identifier | None = None

    @property
    def key(self) -> ConsentKey:
        return self.profile_id, self.channel, self.topic

    @property
    def unticked_box(self) -> bool:
        """Whether it is an undated no to a channel with a STOP."""
        whole = channel_of(self.channel).has_stop and self.topic == "*"
        undated = self.occurred_at is None and not self.just_now
        return whole and self.granted is False and undated

    def at(self, now: Instant) -> Instant:
        """The time of the statement, if known."""
        return now if self.occurred_at is None else min(self.occurred_at, now)

    def of_unknown_age(self, now: Instant) -> bool:
        """Whether it may be older than every recorded statement."""
        return not self.just_now and (self.occurred_at is None or self.occurred_at > now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentOutcome:
    """The results of the changes that differ from the current consent.

    applied: effective. overruled: a later statement or a no overrules them. waiting: they count
    after a confirmation by e-mail. no_address: they need one, but there is no e-mail address.
    """

    applied: Sequence[ConsentChange]
    overruled: Sequence[ConsentChange]
    waiting: Sequence[ConsentChange] = ()
    no_address: Sequence[ConsentChange] = ()


def change_consent(
    tx: Tx,
    changes: Sequence[ConsentChange],
    source: str,
    *,
    topics_too: bool = False,
    double_opt_in: Mapping[str, str] = NO_TOPICS,
) -> ConsentOutcome:
    """Write the effective changes, each with a consent record. Locks the profiles.

    A statement with wording or evidence is also recorded if it equals the current consent.

    An older statement never overrules a later one; of two from the same second the no is effective.
    `changes` has each (profile, channel, topic) at most once. A change of a merged profile applies
    to the profile that it was merged into, so that links in old mails still work.

    Parameters
    ----------
    topics_too: a no to a whole channel also applies to its topics that have a yes.
    double_opt_in: `Policy.double_opt_in`; a yes to one of these topics on e-mail is pending until
        it is confirmed.
    """
    return change_consent_in_turn(
        tx, [changes], source, topics_too=topics_too, double_opt_in=double_opt_in
    )


def change_consent_in_turn(
    tx: Tx,
    rounds: Sequence[Sequence[ConsentChange]],
    source: str,
    *,
    topics_too: bool = False,
    double_opt_in: Mapping[str, str] = NO_TOPICS,
) -> ConsentOutcome:
    """`change_consent` of each round, one after the other; the state is read and written once."""
    rounds = _of_survivors(tx, [changes for changes in rounds if changes])
    whose = {change.profile_id for changes in rounds for change in changes}
    ledger = _Ledger(tx, whose, source, double_opt_in=double_opt_in)
    for changes in _passes(rounds):
        ledger.take(changes, topics_too=topics_too)
    ledger.write()
    return ConsentOutcome(
        applied=ledger.applied,
        overruled=ledger.overruled,
        waiting=ledger.waiting,
        no_address=ledger.no_address,
    )


def _passes(rounds: Sequence[Sequence[ConsentChange]]) -> list[list[ConsentChange]]:
    """The same changes in as few rounds as possible: each has the next one of every profile."""
    passes: list[list[ConsentChange]] = []
    taken: Counter[int] = Counter()
    for changes in rounds:
        for change in changes:
            place = taken[change.profile_id]
            if place == len(passes):
                passes.append([])
            passes[place].append(change)
        taken.update({change.profile_id for change in changes})
    return passes


class _Ledger:
    """The consent of some profiles, as it was read and as it will be written."""

    def __init__(
        self, tx: Tx, whose: Collection[int], source: str, *, double_opt_in: Mapping[str, str]
    ) -> None:
        self._tx = tx
        self._whose = whose
        self._source = source
        self._double_opt_in = double_opt_in
        self._current = consent_statements(tx, whose) if whose else {}
        self._pending: list[PendingYes] | None = None  # None: read them when they are needed
        self._last_sources: dict[ConsentKey, str] = {}
        # profiles whose statements without a row, and whose last sources, were read
        self._withdrawn_of: set[int] = set()
        self._sources_of: set[int] = set()
        self._recorded: list[ConsentChange] = []
        self._opt_ins: set[OptIn] = set()
        self.applied: list[ConsentChange] = []
        self.overruled: list[ConsentChange] = []
        self.waiting: list[ConsentChange] = []
        self.no_address: list[ConsentChange] = []

    def take(self, changes: Sequence[ConsentChange], *, topics_too: bool) -> None:
        """Decide about changes that were stated together."""
        if topics_too:
            changes = [*changes, *_of_topics(changes, self._current)]
        changes = [*changes, *self._ending_a_wait(changes)]
        self._note_opt_ins(changes)
        self._read_withdrawn(changes)
        differing = [one for one in changes if _differs(one, self._current.get(one.key))]
        self._read_last_sources(differing)
        new_proof = [one for one in changes if _proves_again(one, self._current.get(one.key))]
        to_confirm: list[ConsentChange] = []
        applied: list[ConsentChange] = []
        for change in differing:
            if not self._holds(change):
                self.overruled.append(change)
            elif _to_confirm(change, self._double_opt_in):
                to_confirm.append(change)
            else:
                applied.append(change)
        for change in applied:
            self._current[change.key] = Statement(
                *change.key, granted=change.granted, changed_at=change.at(self._tx.now)
            )
        for change in [*applied, *new_proof]:
            self._last_sources[change.key] = self._source
            self._recorded.append(change)
        self.applied += applied
        if to_confirm:
            self._ask(to_confirm)

    def write(self) -> None:
        """Write the statements that changed, and the records."""
        applied = dict.fromkeys(change.key for change in self.applied)
        write_statements(self._tx, [self._current[key] for key in applied])
        _record(self._tx, self._recorded, self._source)
        lift_erased(self._tx, self._opt_ins)

    def _note_opt_ins(self, changes: Sequence[ConsentChange]) -> None:
        """Note the opt-ins of a known time. One that waits for a confirmation counts too: the mail
        that asks for it goes to the address.
        """
        now = self._tx.now
        self._opt_ins.update(
            OptIn(one.profile_id, one.channel, now + 1 if one.just_now else one.at(now))
            for one in changes
            if one.granted and not one.of_unknown_age(now)
        )

    def _holds(self, change: ConsentChange) -> bool:
        """Whether it overrules the current consent."""
        before, now = self._current.get(change.key), self._tx.now
        if before is None or change.just_now:
            return True
        if change.of_unknown_age(now):
            return change.granted is False or self._last_sources.get(change.key) == self._source
        if change.at(now) == before.changed_at:
            return change.granted is False
        return change.at(now) > before.changed_at

    def _read_withdrawn(self, changes: Sequence[ConsentChange]) -> None:
        new = {one.profile_id for one in changes if one.key not in self._current}
        new -= self._withdrawn_of
        if new:
            self._withdrawn_of |= new
            self._current = {**withdrawn(self._tx, new), **self._current}

    def _read_last_sources(self, differing: Sequence[ConsentChange]) -> None:
        now = self._tx.now
        new = {
            one.profile_id
            for one in differing
            if one.granted is not False and one.of_unknown_age(now)
        }
        new -= self._sources_of
        if new:
            self._sources_of |= new
            self._last_sources = {**last_sources(self._tx, new), **self._last_sources}

    def _ask(self, to_confirm: Sequence[ConsentChange]) -> None:
        """Request confirmations by e-mail."""
        yeses = [_yes(one, self._source, self._tx.now) for one in to_confirm]
        unreachable = ask(self._tx, yeses, self._double_opt_in)
        self._pending = None
        for one in to_confirm:
            lost = (one.profile_id, one.topic) in unreachable
            (self.no_address if lost else self.waiting).append(one)

    def _ending_a_wait(self, changes: Sequence[ConsentChange]) -> list[ConsentChange]:
        """End the pending yeses to which `changes` has a later no; returns additional noes.

        A no to e-mail as a whole becomes a no to each of these topics, so that an older import
        can't restore the yes.
        """
        noes = {
            (change.profile_id, change.topic): change
            for change in changes
            if change.channel == CONFIRMED_ON and change.granted is False
        }
        if not noes:
            return []
        if self._pending is None:
            self._pending = waiting(self._tx, self._whose)
        named = {change.key for change in changes}
        ended: list[PendingYes] = []
        more: list[ConsentChange] = []
        for row in self._pending:
            no = noes.get((row.owner, row.topic)) or noes.get((row.owner, "*"))
            if no is not None and (no.just_now or no.at(self._tx.now) >= row.said_at):
                ended.append(row)
                implied = replace(no, topic=row.topic)
                if implied.key not in named:
                    named.add(implied.key)
                    more.append(implied)
        if ended:
            settle(self._tx, ended)
            self._pending = [row for row in self._pending if row not in ended]
        return more


def confirm(tx: Tx, profile_id: int, topic: str) -> bool:
    """Confirm the pending yes of this profile; returns False if there is none.

    Records the event PROFILE_CHANGED. The caller has locked the profile.
    """
    rows = [row for row in waiting(tx, [profile_id]) if row.topic == topic]
    if not rows:
        return False
    row = rows[-1]
    yes = ConsentChange(
        profile_id=profile_id,
        channel=CONFIRMED_ON,
        topic=topic,
        granted=True,
        just_now=True,
        wording=row.wording,
        evidence=proof(row),
        identifier=("email", row.address),
    )
    change_consent(tx, [yes], f"{row.source}, confirmed")
    settle(tx, rows)
    key = f"{topic} on {CONFIRMED_ON} confirmed {tx.now}"
    record_events(
        tx,
        [
            NewEvent(
                profile_id=profile_id,
                name=PROFILE_CHANGED,
                occurred_at=tx.now,
                dedupe_key=key,
                properties={},
            )
        ],
        worked=False,
    )
    return True


def _differs(change: ConsentChange, before: Statement | None) -> bool:
    """Whether it changes the current consent."""
    if before is None or before.granted is None:
        return change.granted is not None and not change.unticked_box
    return before.granted != change.granted


def _proves_again(change: ConsentChange, before: Statement | None) -> bool:
    """Whether it adds proof to the current consent."""
    proven = change.wording is not None or change.evidence is not None
    return proven and before is not None and before.granted == change.granted


def _to_confirm(change: ConsentChange, double_opt_in: Mapping[str, str]) -> bool:
    return (
        change.channel == CONFIRMED_ON and change.topic in double_opt_in and change.granted is True
    )


def _yes(change: ConsentChange, source: str, now: Instant) -> Yes:
    said_at = None if change.of_unknown_age(now) else change.at(now)
    whose = change.profile_id
    return Yes(
        profile_id=whose,
        topic=change.topic,
        said_at=said_at,
        source=source,
        wording=change.wording,
        evidence=change.evidence,
    )


def _of_survivors(
    tx: Tx, rounds: Sequence[Sequence[ConsentChange]]
) -> Sequence[Sequence[ConsentChange]]:
    """The rounds with the ids of merged profiles replaced. Locks the profiles."""
    whose = {change.profile_id for changes in rounds for change in changes}
    if not whose:
        return rounds
    lock_profiles(tx, whose)
    merged_into = survivors(tx, whose)
    if not merged_into:
        return rounds
    lock_profiles(tx, set(merged_into.values()))
    return [_of_others(changes, merged_into) for changes in rounds]


def _of_others(
    changes: Sequence[ConsentChange], merged_into: Mapping[int, int]
) -> list[ConsentChange]:
    """The changes of a round; of two of one profile the no is effective."""
    by_key: dict[ConsentKey, ConsentChange] = {}
    for one in changes:
        change = replace(one, profile_id=merged_into.get(one.profile_id, one.profile_id))
        if change.key not in by_key or change.granted is False:
            by_key[change.key] = change
    return list(by_key.values())


def _of_topics(
    changes: Sequence[ConsentChange], current: Mapping[ConsentKey, Statement]
) -> Iterator[ConsentChange]:
    """A no to each topic whose own yes would override the no to its channel.

    Not for a STOP: it overrides topics anyway, and a START must restore them.
    """
    refused: dict[tuple[int, str], ConsentChange] = {
        (change.profile_id, change.channel): change
        for change in changes
        if change.topic == "*"
        and change.granted is False
        and not channel_of(change.channel).has_stop
    }
    if not refused:
        return
    named = {change.key for change in changes}
    for key, one in current.items():
        no = refused.get((one.profile_id, one.channel))
        if no is not None and one.granted and key not in named:
            yield replace(no, topic=one.topic)


def _record(tx: Tx, changes: Sequence[ConsentChange], source: str) -> None:
    insert_records(
        tx,
        [
            (
                *(*change.key, change.granted, change.at(tx.now), tx.now, source),
                *(change.wording, change.evidence, *(change.identifier or (None, None))),
            )
            for change in changes
        ],
    )
