"""Who is who: which of the people that calls name are one person. Pure.

An anonymous person who signs in, or gives the address of somebody we know, is that somebody. Two
people who both have a user id are two people, unless an alias says otherwise; what they seem to
share then stays with the one who has it, but for a push token, which goes with the device.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from profiles.calls import Call
from profiles.merging import Merger
from profiles.person import Key
from profiles.tables import IdentifierKind


@dataclass(frozen=True, slots=True)
class Joined:
    """What calls say about who is who."""

    mergers: Sequence[Merger]
    # identifiers of one person each, known ones and new ones
    people: Sequence[set[Key]]
    # by the place of the call: identifiers in it that are another customer's
    foreign: Mapping[int, set[Key]]
    # push tokens that leave the customers who had them
    released: set[Key]


def keys_of(call: Call) -> list[Key]:
    """Whatever a call names somebody by, what it is about first."""
    keys = [key for key, _ in call.person.identifiers()]
    if call.previous_id is not None:
        kinds: tuple[IdentifierKind, ...] = ("anonymous_id", "user_id")
        keys += [(kind, call.previous_id) for kind in kinds]
    return keys


def join(
    calls: Mapping[int, Call], owners: Mapping[Key, int], users: Mapping[int, set[str]]
) -> Joined:
    """Find out who is who, call after call.

    Parameters
    ----------
    calls: by their places, in order.
    owners: the profiles that have the identifiers of the calls, as far as there are any.
    users: the user ids of those profiles.
    """
    circle = _Circle(owners, users)
    released: set[Key] = set()
    for call in calls.values():
        first, *others = circle.meant(call)
        circle.group(first)  # an alias later on may mean them
        for key in others:
            if circle.unite(first, key, call.kind):
                continue
            if key[0] == "push_token":
                circle.move(key, first)
                released.add(key)
    foreign: dict[int, set[Key]] = {}
    for place, call in calls.items():
        first, *others = circle.meant(call)
        home = circle.group(first)
        if theirs := {key for key in others if circle.group(key) is not home}:
            foreign[place] = theirs
    groups = list(circle.groups())
    return Joined(
        mergers=[merger for group in groups for merger in group.mergers()],
        people=[group.keys for group in groups if len(group.keys) > 1],
        foreign=foreign,
        released=released & owners.keys(),
    )


@dataclass(slots=True, eq=False)
class _Group:
    """One person, as far as is known."""

    keys: set[Key]
    users: set[str]
    stays: int | None  # the profile that is theirs
    going: dict[int, str] = field(default_factory=dict)  # profiles that become part of it, and why

    def mergers(self) -> Iterator[Merger]:
        if self.stays is not None:
            for from_id, why in sorted(self.going.items()):
                yield Merger(from_id, self.stays, why)


class _Circle:
    """Everybody whom the calls name."""

    def __init__(self, owners: Mapping[Key, int], users: Mapping[int, set[str]]) -> None:
        by_profile: dict[int, _Group] = {}
        for owner in sorted(set(owners.values())):
            by_profile[owner] = _Group(set(), set(users.get(owner, ())), owner)
        self._groups: dict[Key, _Group] = {}
        for key, owner in owners.items():
            by_profile[owner].keys.add(key)
            self._groups[key] = by_profile[owner]

    def group(self, key: Key) -> _Group:
        """The one person that is known by it."""
        if key not in self._groups:
            kind, value = key
            self._groups[key] = _Group({key}, {value} if kind == "user_id" else set(), None)
        return self._groups[key]

    def groups(self) -> Iterator[_Group]:
        """Everybody, each once, in the order in which they were named."""
        yield from {id(group): group for group in self._groups.values()}.values()

    def meant(self, call: Call) -> list[Key]:
        """The identifiers in a call. An alias does not say of what kind the previous id is: the
        kinds it is known as, else an anonymous id."""
        keys = keys_of(call)
        if call.previous_id is None:
            return keys
        *certain, anonymous, user = keys
        known = [key for key in (anonymous, user) if key in self._groups]
        return [*certain, *(known or [anonymous])]

    def unite(self, first: Key, second: Key, kind: str) -> bool:
        """Make one person of two; False when they are two customers, and stay so."""
        one, other = self.group(first), self.group(second)
        if one is other:
            return True
        if one.users and other.users:
            if kind != "alias":
                return False
        elif other.users:
            one, other = other, one
        one.keys |= other.keys
        one.users |= other.users
        one.going |= other.going
        if one.stays is None:
            one.stays = other.stays
        elif other.stays is not None:
            one.going[other.stays] = kind
        self._groups.update(dict.fromkeys(other.keys, one))
        return True

    def move(self, key: Key, to: Key) -> None:
        """Take an identifier from one person to another."""
        self.group(key).keys.discard(key)
        self.group(to).keys.add(key)
        self._groups[key] = self.group(to)
