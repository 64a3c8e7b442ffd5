"""Compute what joined profiles would be without some of their joins. Pure.

The history of a profile (history.py) has what each profile was before its first join, the joins,
and all that was said since. A replay applies them again to the origins of one side, with the code
that recorded them: statements whose identifier belongs to the other side, and joins with it, are
left out.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from config.channels import channel_of
from config.clock.times import Instant
from profiles.attributes.latest import join_profiles
from profiles.consent.double_opt_in import CONFIRMED_ON
from profiles.identity.addresses import ONE_AT_A_TIME, is_retired_row
from profiles.identity.history import HistoryRecord, key_rows, read_share, read_stored_person
from profiles.identity.mergers import UsableParts
from profiles.identity.person import Key, Person
from profiles.identity.profile import Account
from profiles.rules import InputRules
from profiles.tables import ADDRESS_KIND, IdentifierKind

_ADDRESSES = frozenset(ADDRESS_KIND.values())
_ROW = ("country", "timezone", "language", "attributes", "attribute_times", "attribute_identifiers")
# Which consent wins when two profiles join: a no, then unset, then a yes.
_WEIGHT: Mapping[bool | None, int] = {False: 2, None: 1, True: 0}

ConsentOf = tuple[str, str]  # channel, topic


class SaidConsent(NamedTuple):
    """A recorded statement of consent, with the origin of the identifier that it is about."""

    origin: int
    key: ConsentOf
    granted: bool | None
    occurred_at: Instant
    recorded_at: Instant


@dataclass(slots=True, eq=False)
class Replayed:
    """A profile during a replay. origins: the profiles that it consists of."""

    account: Account
    created_at: Instant
    origins: set[int]
    consents: dict[ConsentOf, tuple[bool | None, Instant]] = field(default_factory=dict)


def connected(records: Sequence[HistoryRecord], start: int, ignored: Collection[int]) -> set[int]:
    """The origins that are linked to one by joins that stand, without the ignored ones."""
    neighbours: dict[int, set[int]] = {}
    for record in records:
        if record.kind == "join" and record.undone_at is None and record.id not in ignored:
            one, other = record.edge
            neighbours.setdefault(one, set()).add(other)
            neighbours.setdefault(other, set()).add(one)
    found, new = {start}, [start]
    while new:
        for one in neighbours.get(new.pop(), ()):
            if one not in found:
                found.add(one)
                new.append(one)
    return found


def replay(
    records: Sequence[HistoryRecord],
    said: Sequence[SaidConsent],
    side: Collection[int],
    origin_of: Mapping[Key, int],
    rules: InputRules,
    ignored: Collection[int] = (),
) -> Replayed:
    """What the origins of one side are together.

    Parameters
    ----------
    records: the history, oldest first. ignored: joins that count as if they had not been.
    said: the consent that was stated, oldest first.
    origin_of: the origin of each identifier of the profile.
    """
    limits, confirmed = rules.limits, rules.double_opt_in
    parts: dict[int, Replayed] = {}
    consents = [one for one in said if one.origin in side]
    place = 0
    for record in records:
        while place < len(consents) and consents[place].recorded_at < record.at:
            _state(parts, consents[place])
            place += 1
        if record.kind == "start" and record.origin_id in side:
            origin = record.origin_id
            assert origin is not None
            parts.setdefault(origin, _started(origin, record.data))
        elif record.kind == "join" and record.undone_at is None and record.id not in ignored:
            one, other = (parts.get(origin) for origin in record.edge)
            if one is not None and other is not None and one is not other:
                joined = _joined(other, one, read_share(record.data["share"]), record.at)
                parts.update(dict.fromkeys(joined.origins, joined))
        elif record.kind == "said" and record.origin_id in parts:
            part = parts[record.origin_id or 0]
            person = _without_others(read_stored_person(record.data), side, origin_of)
            part.account.take(person._replace(consent={}), record.at, limits, ())
            part.account.settle(record.at, limits)
            part.account = _again(part.account)
            _agree(part, person, record.at, confirmed)
    for statement in consents[place:]:
        _state(parts, statement)
    return next(iter(parts.values()))


def _started(origin: int, data: Mapping[str, Any]) -> Replayed:
    row = data["profile"]
    consents: dict[ConsentOf, tuple[bool | None, Instant]] = {
        (channel, topic): (granted, at) for channel, topic, granted, at in data["consents"]
    }
    in_use: dict[IdentifierKind, Key] = {kind: (kind, value) for kind, value in data["in_use"]}
    account = Account(
        id=None,
        before={name: row[name] for name in _ROW},
        known=key_rows(data["identifiers"]),
        in_use=in_use,
    )
    return Replayed(
        account=account, created_at=row["created_at"], origins={origin}, consents=consents
    )


def _again(account: Account) -> Account:
    """The profile as the next transaction would read it."""
    return Account(
        id=None, before=account.row, known=dict(account.identifiers), in_use=dict(account.in_use)
    )


def _without_others(person: Person, side: Collection[int], origin_of: Mapping[Key, int]) -> Person:
    """The person without the identifiers of other customers."""
    return person.without([key for key in person.keys if origin_of.get(key) not in side])


def _state(parts: Mapping[int, Replayed], one: SaidConsent) -> None:
    part = parts.get(one.origin)
    if part is not None:
        _hold(part, one.key, one.granted, one.occurred_at)


def _hold(part: Replayed, key: ConsentOf, granted: bool | None, at: Instant) -> None:
    """Apply a statement unless a later one holds; of two from the same second the no does."""
    before = part.consents.get(key)
    if before is None or at > before[1] or (at == before[1] and granted is not True):
        part.consents[key] = (granted, at)


def _agree(part: Replayed, person: Person, now: Instant, confirmed: Collection[str]) -> None:
    """Apply the consent of a statement, which has no record if it changed nothing for both.

    A yes that needs a confirmation has a record when it is confirmed.
    """
    at = now if person.seen_at is None else min(person.seen_at, now)
    for (channel, topic), granted in person.consent.items():
        if granted and channel == CONFIRMED_ON and topic in confirmed:
            continue
        if granted and person.seen_at is None and (channel, topic) in part.consents:
            continue  # an old list does not undo what was said since
        _hold(part, (channel, topic), granted, at)
        if not granted and topic == "*" and not channel_of(channel).has_stop:
            for key, (before, _) in list(part.consents.items()):
                if key[0] == channel and before and key not in person.consent:
                    _hold(part, key, granted=False, at=at)


def _joined(ours: Replayed, theirs: Replayed, share: UsableParts | None, at: Instant) -> Replayed:
    """As profiles/identity/merge.py does it: theirs joins ours."""
    identifiers = dict(ours.account.identifiers)
    in_use = dict(ours.account.in_use)
    row = theirs.account.row
    if share is not None:
        shared = {kind for kind, _ in share.addresses}
        times = (row["attribute_times"] or {}).items()
        kept = {name: time for name, time in times if name in shared or name not in ONE_AT_A_TIME}
        row = {**row, "attribute_times": kept}
    has = set(in_use)
    for key, about in theirs.account.identifiers.items():
        withheld = share is not None and key[0] in _ADDRESSES and key not in share.addresses
        retired_at = about["retired_at"]
        if not is_retired_row(about):
            if key[0] in has or withheld:
                retired_at = at
            elif key[0] in ONE_AT_A_TIME:
                in_use[key[0]] = key
        identifiers[key] = {**about, "retired_at": retired_at}
    consents = dict(ours.consents)
    for what, (granted, said_at) in theirs.consents.items():
        if share is None or share.allows(granted, what[0]):
            rival = consents.get(what)
            if rival is None or outweighs((granted, said_at), rival):
                consents[what] = (granted, said_at)
    account = Account(
        id=None,
        before=join_profiles(ours.account.row, row),
        known=identifiers,
        in_use=in_use,
    )
    created_at = min(ours.created_at, theirs.created_at)
    return Replayed(
        account=account,
        created_at=created_at,
        origins=ours.origins | theirs.origins,
        consents=consents,
    )


def outweighs(one: tuple[bool | None, Instant], other: tuple[bool | None, Instant]) -> bool:
    """Whether one consent wins over another when their profiles join."""
    if one[0] != other[0]:
        return _WEIGHT[one[0]] > _WEIGHT[other[0]]
    return one[1] > other[1]


def strictest(
    parts: Iterable[Mapping[ConsentOf, tuple[bool | None, Instant]]],
) -> dict[ConsentOf, Instant]:
    """What at least one of some profiles refused, with the latest time of such a no."""
    noes: dict[ConsentOf, Instant] = {}
    for consents in parts:
        for what, (granted, at) in consents.items():
            if granted is False:
                noes[what] = max(at, noes.get(what, at))
    return noes
