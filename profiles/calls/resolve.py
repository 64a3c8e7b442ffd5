"""Decide which profiles in calls belong to one customer. Pure.

Ids join profiles: a user id and an anonymous id in one call, or the two ids of an alias. Two
profiles that both have a user id stay separate, unless an alias names both.

An address joins less (docs/decisions/0012). The profile that is removed has no user id and uses no
other address of that kind. Only its `UsableParts` become usable for the other profile. If the call
does not state that the address is verified, the anonymous ids of the removed profile become
unverified: their calls only add events, until one names them with a user id or a verified address.

A join that exceeds a limit of the policy leaves out the weakest identifier of the call
(limits.py, docs/decisions/0039). That can be the anonymous id that the call is about; the call is
then about an address, and adds only an event if others may have stated the address.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from config.join_rules import DEFAULT_JOIN_RULES, JoinKind, JoinRules
from config.policy import JoinOn
from profiles.calls.limits import LimitHit, exceeded
from profiles.calls.segment_calls import SegmentCall
from profiles.identity.addresses import CHANNELS_TO, ONE_AT_A_TIME
from profiles.identity.mergers import Merger, UsableParts
from profiles.identity.person import Key

# In an alias of two customers the profile of userId stays, unless the other one has this many more
# identifiers. Otherwise each alias in a long chain would move all of them.
_MANY_MORE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRecord:
    """The stored data about the profiles in the calls.

    owners: the profile of each identifier in the calls; a retired address has none.
    unverified: the anonymous ids whose calls only add events.
    users: the profiles that have a user id.
    addresses: the addresses of each profile, and whether each is in use.
    sizes: the number of identifiers of each profile.
    counting: the number of those that count for a limit, by kind.
    uncounted: the identifiers in the calls that do not count any more.
    apart: pairs of profiles whose join was undone.
    """

    owners: Mapping[Key, int]
    unverified: Set[Key] = frozenset()
    users: Set[int] = frozenset()
    addresses: Mapping[int, Mapping[Key, bool]] = field(default_factory=dict)
    sizes: Mapping[int, int] = field(default_factory=dict)
    counting: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    uncounted: Set[Key] = frozenset()
    apart: Set[frozenset[int]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The joins that calls state. Calls are given by their places."""

    mergers: Sequence[Merger]
    # sets of identifiers, stored and new ones, of one customer each
    people: Sequence[set[Key]]
    # identifiers in a call that belong to another customer
    foreign: Mapping[int, set[Key]]
    # identifiers that leave their profiles
    released: set[Key]
    # calls with an unverified anonymous id: they only add events
    events_only: set[int]
    # calls that joined their anonymous id to a customer: they only fill in unknown values
    filling: set[int]
    # anonymous ids that became unverified, and those that became verified
    unverified: set[Key]
    confirmed: set[Key]
    # calls that are not about their first identifier, which a limit leaves out: about which one
    about: Mapping[int, Key]
    # limits that calls met
    hits: Mapping[int, Sequence[LimitHit]]
    # calls from this place on must wait until the calls before it are written; None: all are read
    stopped_at: int | None


def join(
    calls: Mapping[int, SegmentCall],
    on_record: OnRecord,
    join_on: JoinOn,
    new_profile: Callable[[], int],
    double_opt_in: Collection[str] = (),
    rules: JoinRules = DEFAULT_JOIN_RULES,
) -> Joined:
    """Decide which identifiers belong to one customer, call by call.

    A call must wait if it joins two profiles of which an earlier call changes one: in a merge the
    values of the profile that stays win, so the earlier call must be written first. It also waits
    if it changes the e-mail address that an earlier call needs for a confirmation. The first call
    never waits.

    Parameters
    ----------
    calls: by their places, in order.
    new_profile: creates an empty profile and returns its id.
    double_opt_in: the topics whose yes on e-mail needs a confirmation.
    rules: how many identifiers of a kind one profile takes.
    """
    customers = _Customers(on_record, join_on=join_on, double_opt_in=double_opt_in, rules=rules)
    stopped_at = next(
        (place for place, call in calls.items() if not customers.read(place, call)), None
    )
    if stopped_at is not None:
        # The call that must wait has changed the groups. Without it, none of the others waits.
        calls = {place: call for place, call in calls.items() if place < stopped_at}
        customers = _Customers(on_record, join_on=join_on, double_opt_in=double_opt_in, rules=rules)
        for place, call in calls.items():
            customers.read(place, call)
    for place, call in calls.items():
        customers.note_foreign(place, call)
    groups = list(customers.groups())
    for group in groups:
        if group.stays is None and group.going:
            group.stays = new_profile()
    return Joined(
        mergers=[merger for group in groups for merger in group.mergers()],
        people=[group.keys for group in groups if len(group.keys) > 1],
        foreign=customers.foreign,
        released=customers.left(on_record.owners),
        events_only=customers.events_only,
        filling=customers.filling,
        unverified=customers.new_unverified,
        confirmed=customers.confirmed,
        about=customers.about,
        hits=customers.hits,
        stopped_at=stopped_at,
    )


@dataclass(slots=True, eq=False, kw_only=True)
class _Group:
    """The identifiers of one customer, as far as is known."""

    keys: set[Key]
    has_user: bool
    stays: int | None  # the customer's profile
    size: int = 0  # number of stored identifiers
    counting: dict[str, int] = field(default_factory=dict)  # those that count for limits, by kind
    in_use: dict[str, set[Key]] = field(default_factory=dict)  # addresses by kind
    ever: dict[str, set[Key]] = field(default_factory=dict)  # as in_use, with retired addresses
    # profiles merged into this one, whose values win over those of the next ones
    going: deque["_Going"] = field(default_factory=deque)
    described: bool = False  # a call of this batch states more than ids
    joined: bool = False  # a call of this batch joined two groups into this one
    # consent in a call of this batch depends on the e-mail address in use
    depends_on_address: bool = False

    @property
    def is_bare(self) -> bool:
        """Whether it is a single new identifier without any statement."""
        return self.stays is None and not self.going and len(self.keys) == 1 and not self.described

    def has(self, key: Key, *, alone: bool = False) -> bool:
        """Whether an address is in use here; `alone`: and it is the only one there ever was."""
        return key in self.in_use.get(key[0], ()) and not (alone and len(self.ever[key[0]]) > 1)

    def has_other(self, key: Key) -> bool:
        """Whether another address of that kind is in use."""
        return bool(self.in_use.get(key[0], set()) - {key})

    @property
    def retired(self) -> set[Key]:
        """The retired addresses."""
        return {
            key for kind, keys in self.ever.items() for key in keys - self.in_use.get(kind, set())
        }

    def state(self, key: Key) -> None:
        """Put an address into use."""
        self.in_use.setdefault(key[0], set()).add(key)
        self.ever.setdefault(key[0], set()).add(key)

    def lose(self, key: Key) -> None:
        """Remove an identifier."""
        self.keys.discard(key)
        for addresses in (self.in_use, self.ever):
            addresses.get(key[0], set()).discard(key)

    def mergers(self) -> Iterator[Merger]:
        if self.stays is not None:
            for one in self.going:
                yield Merger(
                    from_id=one.profile_id,
                    into_id=self.stays,
                    why=one.why,
                    share=one.share,
                    via=one.via,
                )

    @property
    def profiles(self) -> set[int]:
        """The stored profiles of the customer."""
        going = {one.profile_id for one in self.going}
        return going if self.stays is None else going | {self.stays}


class _Going(NamedTuple):
    """A profile that is merged into another one: what joined them, its usable parts (None: all),
    and the two identifiers that linked them."""

    profile_id: int
    why: str
    share: UsableParts | None
    via: tuple[Key, Key]


@dataclass(slots=True)
class _Proven:
    """An unverified anonymous id in a call that proves its owner.

    group: the customer that had it. others: the other identifiers of that customer. must_wait:
    whether earlier calls must be written before its withheld addresses come into use.
    """

    key: Key
    group: _Group
    others: set[Key] = field(default_factory=set)
    must_wait: bool = False


class _Customers:
    """The customers that the calls name."""

    def __init__(
        self,
        on_record: OnRecord,
        *,
        join_on: JoinOn,
        double_opt_in: Collection[str],
        rules: JoinRules,
    ) -> None:
        self._join_on = join_on
        self._double_opt_in = double_opt_in
        self._rules = rules
        self._uncounted = set(on_record.uncounted)
        self._apart = on_record.apart
        self._retired: set[Key] = set()  # addresses that joins retired
        self._groups: dict[Key, _Group] = {}
        by_profile: dict[int, _Group] = {}
        for owner in sorted(set(on_record.owners.values())):
            size = on_record.sizes.get(owner, 0)
            group = by_profile[owner] = _Group(
                keys=set(),
                has_user=owner in on_record.users,
                stays=owner,
                size=size,
                counting=dict(on_record.counting.get(owner, {})),
            )
            for key, in_use in on_record.addresses.get(owner, {}).items():
                group.ever.setdefault(key[0], set()).add(key)
                if in_use:
                    group.in_use.setdefault(key[0], set()).add(key)
        for key, owner in on_record.owners.items():
            by_profile[owner].keys.add(key)
            self._groups[key] = by_profile[owner]
        self._unverified = set(on_record.unverified)
        self._only_events: set[Key] = set()  # identifiers in calls that only add events
        self.new_unverified: set[Key] = set()
        self.confirmed: set[Key] = set()
        self.foreign: dict[int, set[Key]] = {}
        self.released: set[Key] = set()
        self.events_only: set[int] = set()
        self.filling: set[int] = set()
        self.about: dict[int, Key] = {}
        self.hits: dict[int, list[LimitHit]] = {}

    def group(self, key: Key) -> _Group:
        """The group of an identifier, created if it is new."""
        if key not in self._groups:
            self._groups[key] = _Group(
                keys={key}, has_user=key[0] == "user_id", stays=None, counting={key[0]: 1}
            )
            self._uncounted.discard(key)  # its customer gets it now
        return self._groups[key]

    def groups(self) -> Iterator[_Group]:
        """Each group once, in the order in which they were named."""
        yield from {id(group): group for group in self._groups.values()}.values()

    def left(self, owners: Mapping[Key, int]) -> set[Key]:
        """The identifiers that leave their profiles. Some were moved and then joined again."""

        homes: dict[int | None, _Group] = {}
        for group in self.groups():
            homes[group.stays] = group
            homes.update((one.profile_id, group) for one in group.going)
        return {
            key
            for key in self.released
            if key in owners and homes.get(owners[key]) is not self.group(key)
        }

    def read(self, place: int, call: SegmentCall) -> bool:
        """Apply the joins of a call. False: the calls before it must be written first."""
        keys = self._meant(call)
        proofs = call.person.proofs
        new = [key for key in keys if key in self.new_unverified]
        unverified = [key for key in keys if key in self._unverified]
        if (new or unverified) and not proofs:
            self.events_only.add(place)
            self._only_events.update(keys)
            return True
        if new:
            return False
        proven = [_Proven(key, self.group(key)) for key in unverified]
        if not self._verify(proven, proofs):
            return False
        first, *others = keys
        self.group(first)  # creates the group: a later alias can name it
        # Ids come first, then verified addresses, because their owner may state the others. New
        # addresses come last: an anonymous id that another address joins to a customer states none.
        others.sort(
            key=lambda key: (
                key[0] in CHANNELS_TO,
                key[0] not in call.person.verified,
                key not in self._groups,
            )
        )
        for key in others:
            about = self.about.get(place, first)
            if key[0] not in CHANNELS_TO:
                if not self._join_ids(place, about, key, call):
                    return False
            elif not self._join_address(place, about, key, call):
                return False
            if place in self.filling:
                break  # an unverified anonymous id states no address
            if place in self.events_only:
                self._only_events.add(self.about[place])
                return True
        home = self.group(self.about.get(place, first))
        changes_address = call.person.email is not None or "email" in call.person.removed
        if home.depends_on_address and changes_address:
            return False
        home.depends_on_address |= call.depends_on_address(self._double_opt_in)
        home.described |= call.person.has_details
        self.note_foreign(place, call)
        return self._confirm(proven)

    def note_foreign(self, place: int, call: SegmentCall) -> None:
        """Record which identifiers in a call belong to another customer.

        It is asked when the call is read, because a later call can move them to this customer, and
        again when all are read, because a later call can move them away.
        """
        if place in self.events_only or place in self.filling:
            return
        first, *others = self._meant(call)
        if place in self.about:
            first, others = self.about[place], [first, *others]
        home = self.group(first)
        if theirs := {key for key in others if self.group(key) is not home}:
            self.foreign.setdefault(place, set()).update(theirs)

    def _meant(self, call: SegmentCall) -> list[Key]:
        """The identifiers in a call.

        An alias does not say the kind of the previous id: it is each kind that is known, else an
        anonymous id.
        """
        keys = call.keys
        if call.previous_id is None:
            return keys
        *certain, anonymous, user = keys
        known = [key for key in (anonymous, user) if key in self._groups]
        return [*certain, *(known or [anonymous])]

    def _verify(self, proven: Sequence["_Proven"], proofs: Sequence[Key]) -> bool:
        """Move anonymous ids to the customer whom a call proves. False: the call must wait."""
        for one in proven:
            if proofs[0] in self._retired:
                return False
            # Withheld addresses come into use before any call is written. So earlier calls that
            # change the profile or take one of its retired addresses are written first.
            one.must_wait = (
                one.group.described
                or one.group.joined
                or not one.group.retired.isdisjoint(self._groups)
            )
            if self.group(proofs[0]) is not one.group and not self._move(one.key, proofs[0]):
                return False
            one.others = set(one.group.keys) - {one.key}
            self._unverified.discard(one.key)
        return True

    def _confirm(self, proven: Sequence["_Proven"]) -> bool:
        """Note whose profiles change: those that the anonymous ids left for nobody else's.

        Withheld addresses come into use there. Later calls that depend on these addresses wait
        until that is written. False: the call must wait.
        """
        for one in proven:
            group = self.group(one.key)
            if not any(self.group(key) is group for key in one.others):
                # It went to another customer. A later call that joins the two waits until then.
                group.described = True
                continue
            if one.must_wait:
                return False
            self.confirmed.add(one.key)
            group.described = True
            self._retired |= group.retired
        return True

    def _join_ids(self, place: int, first: Key, key: Key, call: SegmentCall) -> bool:
        """Join the profiles of two ids, unless they are two customers. False: the call must
        wait."""
        one, other = self.group(first), self.group(key)
        if one is other or self._kept_apart(one, other):
            return True
        is_alias = call.kind == "alias"
        limited = self._exceeded(one, other, is_alias=is_alias)
        if limited is not None:
            self._leave_out(place, first, key, call, limited)
            return True
        beyond = self._exceeded(one, other) if is_alias else None
        larger = other.size - one.size > _MANY_MORE
        via = (key, first)
        if other.has_user and (not one.has_user or larger):
            one, other, via = other, one, (first, key)
        if (other.described and not one.is_bare) or (one.described and not other.is_bare):
            return False
        self._take_in(one, other, call.kind, None, via)
        if beyond is not None:
            self._hit(place, LimitHit(key, beyond, call.kind, exempt=True))
        return True

    def _join_address(self, place: int, first: Key, key: Key, call: SegmentCall) -> bool:
        """Join two profiles if the address may. False: the call must wait."""
        one = self.group(first)
        other = self.group(key)
        if other is one:
            one.state(key)
            return True
        if key in self._retired:
            return False
        if other.is_bare:
            if key not in one.ever.get(key[0], ()):
                limited = self._exceeded(one, other)
                if limited is not None:
                    self._leave_out(place, first, key, call, limited)
                    return True
                self._add_counts(one, other)
            one.keys.add(key)
            self._groups[key] = one
            one.state(key)
            return True
        # The profile with a user id stays; otherwise the one that had the address before.
        staying, going = (one, other) if one.has_user else (other, one)
        if other.described or going.described:
            return False  # writing the earlier call can change which addresses they use
        may_join = self._may_join(key, call) and not self._kept_apart(one, other)
        if may_join and not going.has_user and not going.has_other(key):
            if staying.described:
                return False
            limited = self._exceeded(one, other)
            if limited is not None:
                self._leave_out(place, first, key, call, limited)
                return True
            share = self._share(going, key, call, speaks=going is other)
            if not share.verified:
                self.new_unverified |= {
                    key
                    for key in going.keys
                    if key[0] == "anonymous_id" and key not in self._unverified
                }
                if going is one:
                    self.filling.add(place)
            via = (key, first) if going is other else (first, key)
            stayed = self._take_in(staying, going, call.kind, share, via)
            if place not in self.filling:
                stayed.state(key)
        elif key[0] == "push_token" and call.person.user_id is not None:
            # the device belongs to the customer who signs in on it
            if not self._move(key, first):
                return False
            self.group(first).state(key)
        return True

    def _kept_apart(self, one: _Group, other: _Group) -> bool:
        """Whether the join of two profiles of these customers was undone."""
        return bool(self._apart) and any(
            frozenset((mine, theirs)) in self._apart
            for mine in one.profiles
            for theirs in other.profiles
        )

    def _exceeded(self, one: _Group, other: _Group, *, is_alias: bool = False) -> JoinKind | None:
        return exceeded(self._rules, one.counting, other.counting, is_alias=is_alias)

    def _leave_out(
        self, place: int, first: Key, key: Key, call: SegmentCall, limited: JoinKind
    ) -> None:
        """Leave out the weaker of two identifiers whose profiles a limit keeps apart.

        The first one stays if other identifiers of the call have joined it.
        """
        weaker = key
        joined = {one for one in call.keys if self._groups.get(one) is self.group(first)}
        if self._rules.strength(key[0]) < self._rules.strength(first[0]) and joined == {first}:
            weaker = first
            self.about[place] = key
            proven = key[0] not in CHANNELS_TO or key[0] in call.person.verified
            if not proven and not self.group(key).is_bare:
                # Others may have stated the address, and it proves nothing.
                self.events_only.add(place)
        self._hit(place, LimitHit(weaker, limited, call.kind))

    def _hit(self, place: int, hit: LimitHit) -> None:
        self.hits.setdefault(place, []).append(hit)

    def _add_counts(self, one: _Group, other: _Group) -> None:
        for kind, number in other.counting.items():
            one.counting[kind] = one.counting.get(kind, 0) + number

    def _may_join(self, key: Key, call: SegmentCall) -> bool:
        return self._join_on == "any" or key[0] in call.person.verified

    def _share(self, going: _Group, key: Key, call: SegmentCall, *, speaks: bool) -> UsableParts:
        """The parts of the removed profile that become usable.

        speaks: the call is about the profile that stays, so it states all its addresses for it.
        """
        verified = call.person.verified
        named = {
            one
            for one in call.person.keys
            if one == key
            or (going.has(one) and (speaks or one[0] in verified) and self._may_join(one, call))
        }
        # An opt-in counts only if the profile never had another address that it could be for.
        meant = {one for one in named if one[0] in verified or going.has(one, alone=True)}
        return UsableParts(
            frozenset(named),
            frozenset(channel for one in meant for channel in CHANNELS_TO[one[0]]),
            verified=key[0] in verified,
        )

    def _take_in(
        self,
        one: _Group,
        other: _Group,
        why: str,
        share: UsableParts | None,
        via: tuple[Key, Key],
    ) -> _Group:
        """Join the second group to the first. Returns the joined group.

        via: the identifiers of the second and of the first that link them.
        """
        going = other.going
        if share is not None:
            going = deque(
                each._replace(share=share if each.share is None else each.share.within(share))
                for each in going
            )
        if one.stays is None and share is None:
            one.stays = other.stays
        elif other.stays is not None:
            going.appendleft(_Going(profile_id=other.stays, why=why, share=share, via=via))
        if share is None:
            usable = {
                k: v
                for k, v in other.in_use.items()
                if k not in ONE_AT_A_TIME or not one.in_use.get(k)
            }
        else:
            usable = {kind: keys & share.addresses for kind, keys in other.in_use.items()}
        for kind, keys in other.in_use.items():
            if usable.get(kind) is not keys:
                self._retired |= keys - usable.get(kind, set())
        other.in_use = usable
        # The smaller sets are added to the larger ones, so long chains stay linear.
        big, small = (one, other) if len(one.keys) >= len(other.keys) else (other, one)
        self._groups.update(dict.fromkeys(small.keys, big))
        big.keys |= small.keys
        big.has_user, big.stays = one.has_user or other.has_user, one.stays
        big.described, big.size = one.described or other.described, one.size + other.size
        self._add_counts(big, small)
        big.depends_on_address = one.depends_on_address or other.depends_on_address
        big.joined = True
        big.going = _in_order(one.going, going)
        for ever in {*one.ever, *other.ever}:
            for mine, theirs in ((big.in_use, small.in_use), (big.ever, small.ever)):
                mine[ever] = _union(mine.get(ever, set()), theirs.get(ever, set()))
        return big

    def _move(self, key: Key, to: Key) -> bool:
        """Move an identifier to another customer.

        False: the call must wait, because an earlier call may name a customer by this id alone.
        """
        if self.group(key).joined or key in self._only_events:
            return False
        left, takes = self.group(key), self.group(to)
        left.lose(key)
        if key not in self._uncounted:
            left.counting[key[0]] = max(0, left.counting.get(key[0], 0) - 1)
        takes.counting[key[0]] = takes.counting.get(key[0], 0) + 1
        self._uncounted.discard(key)
        takes.keys.add(key)
        self._groups[key] = self.group(to)
        self.released.add(key)
        return True


def _union(one: set[Key], other: set[Key]) -> set[Key]:
    """The union, stored in the larger of the two."""
    big, small = (one, other) if len(one) >= len(other) else (other, one)
    big |= small
    return big


def _in_order(first: deque[_Going], second: deque[_Going]) -> deque[_Going]:
    """The first followed by the second, stored in the longer of the two."""
    if len(first) >= len(second):
        first.extend(second)
        return first
    second.extendleft(reversed(first))
    return second
