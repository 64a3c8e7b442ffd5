"""Changes of consent: the current state, and the append-only record of statements.

Every change of consent goes through here, whatever brought it: an import, a preference page, STOP.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, delete, insert, or_, select, tuple_

from config.channels import ChannelName, channel_of
from config.clock.times import Instant
from config.database.engine import Tx, insert_into
from profiles.bulk import in_slices, lock_profiles
from profiles.consent.double_opt_in import CONFIRMED_ON, NO_TOPICS, Yes, ask, proof, settle, waiting
from profiles.consent.state import ConsentKey, Statement, consent_statements, withdrawn
from profiles.events import PROFILE_CHANGED, NewEvent, identifier_columns, record_events
from profiles.identity.merge import survivors
from profiles.identity.person import Key as Identifier
from profiles.tables import consent_records, consents


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """A statement of one profile about a channel (topic `*`) or about one topic on it.

    `granted` None: nothing is to be said of it any more. It is no yes, and no STOP either.

    `occurred_at` None: nobody knows when it was said (an export without a date). It then counts
    as said now, but a yes of unknown age never takes back a no that came from elsewhere: the
    shop's old "opted in" must not undo the STOP that was sent last night. And its "no" to text
    messages from somebody who never said yes is an unticked box and no STOP, which would hold back
    news of their orders too: silence already means no there. A date in the future tells no more
    about a yes: nobody has said yes tomorrow.

    `just_now`: they say it themselves, to us, at this moment. It comes after all that is on record,
    from the same second too.

    wording: the words that were shown. evidence: proof as JSON, such as form and IP address.
    identifier: the identifier that names whose it is; None: not known.
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
        """An undated no to a channel with a STOP: without a yes before it, it changes nothing."""
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
    """The results of the changes that are new.

    applied: they hold. overruled: a later statement or a no outweighs them. waiting: they count
    once the person confirms them by e-mail. no_address: so would these, but there is no address.
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
    """Write the effective changes, each with its record. Locks the profiles.

    A yes with wording or evidence is recorded also where the same yes holds already.

    An older statement never overrules a later one; of two from the same second the no holds.
    `changes` has each (profile, channel, topic) at most once. What is said of a profile that became
    part of another one is said of that one: a link in an old mail must still stop the mail.

    Parameters
    ----------
    topics_too: a no to a whole channel is one to its topics too that have a yes of their own.
    double_opt_in: `Policy.double_opt_in`, for whoever may bring a yes: a yes to one of these topics
        on e-mail waits for its confirmation.
    """
    changes = _of_survivors(tx, changes)
    said = consent_statements(tx, {change.profile_id for change in changes})
    if topics_too:
        changes = [*changes, *_of_topics(changes, said)]
    changes = [*changes, *_ending_a_wait(tx, changes)]
    new = {change.profile_id for change in changes if change.key not in said}
    said = {**withdrawn(tx, new), **said}
    differing = [change for change in changes if _differs(change, said.get(change.key))]
    said_by = _last_sources(
        tx, {c.profile_id for c in differing if c.granted is not False and c.of_unknown_age(tx.now)}
    )

    def holds(change: ConsentChange) -> bool:
        before = said.get(change.key)
        if before is None or change.just_now:
            return True
        if change.of_unknown_age(tx.now):
            return change.granted is False or said_by.get(change.key) == source
        if change.at(tx.now) == before.changed_at:
            return change.granted is False
        return change.at(tx.now) > before.changed_at

    holding = [change for change in differing if holds(change)]
    to_confirm = [one for one in holding if _to_confirm(one, double_opt_in)]
    applied = [one for one in holding if not _to_confirm(one, double_opt_in)]
    new_proof = [one for one in changes if _proves_again(one, said.get(one.key))]
    _write(tx, applied)
    _record(tx, [*applied, *new_proof], source)
    unreachable = ask(tx, [_yes(one, source, tx.now) for one in to_confirm], double_opt_in)
    return ConsentOutcome(
        applied=applied,
        overruled=[change for change in differing if not holds(change)],
        waiting=[one for one in to_confirm if (one.profile_id, one.topic) not in unreachable],
        no_address=[one for one in to_confirm if (one.profile_id, one.topic) in unreachable],
    )


def confirm(tx: Tx, profile_id: int, topic: str) -> bool:
    """Confirm the pending yes of this profile; returns False if there is none.

    Journeys are told that the profile has changed. The profile is locked.
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


def given_back(
    tx: Tx, starting: Iterable[tuple[int, ChannelName]]
) -> dict[tuple[int, ChannelName], bool | None]:
    """The consent that a START restores for those of the profiles that stopped the channel.

    That is what they had said of the channel last before the STOP; None: they had said nothing.
    """
    named = sorted(starting)
    c, r = consents.c, consent_records.c
    stopped = select(c.profile_id, c.channel).where(
        tuple_(c.profile_id, c.channel).in_(named), c.topic == "*", c.granted.is_(False)
    )
    before = (
        select(r.profile_id, r.channel, r.granted)
        .where(tuple_(r.profile_id, r.channel).in_(named), r.topic == "*")
        .where(or_(r.granted.is_(True), r.granted.is_(None)))
        .order_by(r.id)
    )
    held = {(row.profile_id, row.channel): row.granted for row in tx.conn.execute(before)}
    return {
        (row.profile_id, row.channel): held.get((row.profile_id, row.channel))
        for row in tx.conn.execute(stopped)
    }


def _differs(change: ConsentChange, before: Statement | None) -> bool:
    """Whether it changes the consent on record."""
    if before is None or before.granted is None:
        return change.granted is not None and not change.unticked_box
    return before.granted != change.granted


def _proves_again(change: ConsentChange, before: Statement | None) -> bool:
    """Whether it adds proof to a statement that already holds."""
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


def _ending_a_wait(tx: Tx, changes: Sequence[ConsentChange]) -> list[ConsentChange]:
    """The noes to topics with a pending yes, which they end.

    A no to e-mail as a whole is a no to each of these topics, so that an old list can't bring the
    yes back.
    """
    noes = {
        (change.profile_id, change.topic): change
        for change in changes
        if change.channel == CONFIRMED_ON and change.granted is False
    }
    named = {change.key for change in changes}
    ended, more = [], []
    for row in waiting(tx, {whose for whose, _ in noes}):
        no = noes.get((row.owner, row.topic)) or noes.get((row.owner, "*"))
        if no is not None and (no.just_now or no.at(tx.now) >= row.said_at):
            ended.append(row)
            implied = replace(no, topic=row.topic)
            if implied.key not in named:
                named.add(implied.key)
                more.append(implied)
    settle(tx, ended)
    return more


def _of_survivors(tx: Tx, changes: Sequence[ConsentChange]) -> Sequence[ConsentChange]:
    """The changes with current profile ids, after merges; the profiles are locked."""
    whose = {change.profile_id for change in changes}
    lock_profiles(tx, whose)
    became = survivors(tx, whose)
    if not became:
        return changes
    lock_profiles(tx, set(became.values()))
    now_theirs: dict[ConsentKey, ConsentChange] = {}
    for one in changes:
        change = replace(one, profile_id=became.get(one.profile_id, one.profile_id))
        if change.key not in now_theirs or change.granted is False:
            now_theirs[change.key] = change
    return list(now_theirs.values())


def _of_topics(
    changes: Sequence[ConsentChange], said: Mapping[ConsentKey, Statement]
) -> Iterator[ConsentChange]:
    """A no to each topic whose own yes would override the no to its channel.

    Nothing outweighs a STOP, and a START has to find what there was.
    """
    refused: dict[tuple[int, str], ConsentChange] = {
        (change.profile_id, change.channel): change
        for change in changes
        if change.topic == "*"
        and change.granted is False
        and not channel_of(change.channel).has_stop
    }
    named = {change.key for change in changes}
    for key, one in said.items():
        no = refused.get((one.profile_id, one.channel))
        if no is not None and one.granted and key not in named:
            yield replace(no, topic=one.topic)


def _last_sources(tx: Tx, profile_ids: Iterable[int]) -> dict[ConsentKey, str]:
    """The source of the newest record of each consent of these profiles."""
    c = consent_records.c
    return {
        (row.profile_id, row.channel, row.topic): row.source
        for some in in_slices(sorted(profile_ids))
        for row in tx.conn.execute(
            select(c.profile_id, c.channel, c.topic, c.source)
            .where(c.profile_id.in_(some))
            .order_by(c.id)
        )
    }


def _write(tx: Tx, changes: Sequence[ConsentChange]) -> None:
    _hold(tx, [change for change in changes if change.granted is not None])
    _forget(tx, [change for change in changes if change.granted is None])


def _record(tx: Tx, changes: Sequence[ConsentChange], source: str) -> None:
    if not changes:
        return
    tx.conn.execute(
        insert(consent_records),
        [
            {
                "profile_id": change.profile_id,
                "channel": change.channel,
                "topic": change.topic,
                "granted": change.granted,
                "occurred_at": change.at(tx.now),
                "recorded_at": tx.now,
                "source": source,
                "wording": change.wording,
                "evidence": change.evidence,
                **identifier_columns(change.identifier),
            }
            for change in changes
        ],
    )


def _hold(tx: Tx, changes: Sequence[ConsentChange]) -> None:
    if not changes:
        return
    upsert = insert_into(tx.conn, consents)
    tx.conn.execute(
        upsert.on_conflict_do_update(
            index_elements=list(consents.primary_key),
            set_={name: upsert.excluded[name] for name in ("granted", "changed_at")},
        ),
        [
            {
                "profile_id": change.profile_id,
                "channel": change.channel,
                "topic": change.topic,
                "granted": change.granted,
                "changed_at": change.at(tx.now),
            }
            for change in changes
        ],
    )


def _forget(tx: Tx, changes: Sequence[ConsentChange]) -> None:
    if not changes:
        return
    c = consents.c
    tx.conn.execute(
        delete(consents).where(
            c.profile_id == bindparam("whose"),
            c.channel == bindparam("on"),
            c.topic == bindparam("about"),
        ),
        [
            {"whose": change.profile_id, "on": change.channel, "about": change.topic}
            for change in changes
        ],
    )
