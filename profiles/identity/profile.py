"""One profile in memory: as it was read, and after statements are applied. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from config.channels import ChannelName
from config.clock.times import Instant
from profiles.attributes.latest import (
    FIELDS,
    AttributeIdentifiers,
    Times,
    attribute_key,
    attributes_size,
    entry_size,
    holds,
    read_attribute_identifiers,
    stored_attribute_identifiers,
)
from profiles.consent.changes import ConsentChange
from profiles.identity.addresses import ONE_AT_A_TIME, is_retired_row
from profiles.identity.person import Key, Person, excerpt
from profiles.rules import ProfileLimits
from profiles.tables import IdentifierKind

# The kinds that are dropped when a profile has too many identifiers, in this order.
_DROPPED: tuple[IdentifierKind, ...] = ("anonymous_id", "push_token")
_LABELS: Mapping[IdentifierKind, str] = {"email": "e-mail address", "phone": "phone number"}


# The columns of an identifier without a description.
_BLANK: Mapping[str, Any] = {
    "country": None,
    "platform": None,
    "retired_at": None,
    "origin_id": None,
}


class Applied(NamedTuple):
    """The result of `take`.

    changed: whether it changed the profile, apart from consent and times.
    left_out: messages about ignored values.
    """

    changed: bool
    left_out: list[str]


@dataclass(slots=True, eq=False, kw_only=True)
class Account:
    """One profile in memory: as it was read, and as it will be written.

    in_use: the e-mail address and the phone number that messages are sent to.
    dead: identifiers that are suppressed addresses.
    """

    id: int | None  # None: not stored yet
    before: dict[str, Any]
    known: dict[Key, dict[str, Any]]
    in_use: dict[IdentifierKind, Key]
    dead: Collection[Key] = ()
    after: dict[str, Any] = field(init=False)
    identifiers: dict[Key, dict[str, Any]] = field(init=False)
    used_before: dict[IdentifierKind, Key] = field(init=False)
    attribute_identifiers: AttributeIdentifiers = field(init=False)
    user_id: str | None = field(init=False)  # the first one
    lasting: int = field(init=False)  # number of identifiers that are never dropped
    size: int | None = None  # bytes of the attributes; None until it is needed
    consent: list[Person] = field(default_factory=list)  # whoever stated some, in order

    def __post_init__(self) -> None:
        self.after = {
            **self.before,
            "attributes": dict(self.before["attributes"]),
            "attribute_times": dict(self.before["attribute_times"] or {}),
        }
        self.identifiers = dict(self.known)
        self.user_id = next((value for kind, value in self.known if kind == "user_id"), None)
        self.lasting = sum(1 for kind, _ in self.known if kind not in _DROPPED)
        self.used_before = dict(self.in_use)
        self.attribute_identifiers = read_attribute_identifiers(
            self.before["attribute_identifiers"]
        )

    @property
    def row(self) -> dict[str, Any]:
        """The columns of its row."""
        stored = stored_attribute_identifiers(self.attribute_identifiers)
        return {**self.after, "attribute_identifiers": stored}

    @property
    def differs(self) -> bool:
        before = {**self.before, "attribute_times": self.before["attribute_times"] or {}}
        return before != self.row or self.known != self.identifiers

    def origin(self, person: Person) -> int | None:
        """The origin that a statement is about; None: the profile was never joined."""
        for key in person.keys:
            row = self.identifiers.get(key)
            if row is not None and row["origin_id"] is not None:
                found: int = row["origin_id"]
                return found
        if any(row["origin_id"] is not None for row in self.identifiers.values()):
            return self.id
        return None

    @property
    def is_known(self) -> bool:
        """Whether it has, or had, an identifier other than anonymous ids."""
        return any(kind != "anonymous_id" for kind, _ in self.identifiers)

    @property
    def times(self) -> Times:
        times: Times = self.after["attribute_times"]
        return times

    def uses(self, key: Key) -> bool:
        """Whether the profile has the identifier; for an address, whether it is in use."""
        if key not in self.identifiers:
            return False
        if key[0] in ONE_AT_A_TIME:
            return self.in_use.get(key[0]) == key
        return not is_retired_row(self.identifiers[key])

    def forget(self, key: Key) -> bool:
        """Remove an identifier that another profile takes over. Returns whether it has a row."""
        del self.identifiers[key]
        self.lasting -= key[0] not in _DROPPED
        return self.known.pop(key, None) is not None

    def take(
        self, person: Person, now: Instant, limits: ProfileLimits, elsewhere: Collection[Key]
    ) -> Applied:
        """Apply a source's statements to the profile.

        elsewhere: the person's identifiers that another profile has or had.
        """
        if person.by_public_key and self.is_known:
            return Applied(changed=False, left_out=[])
        # A time in the future counts as unknown; otherwise it would override every later statement.
        at = None if person.seen_at is None or person.seen_at > now else person.seen_at
        left_out: list[str] = []
        changed = False
        identifier = person.named_by
        origin = self.origin(person)
        for name in FIELDS:
            value = getattr(person, name)
            if value is not None or name in person.removed:
                changed |= self._set_field(name, value, at, identifier)
        for name, value in person.attributes.items():
            changed |= self._set_attribute(name, value, at, identifier, limits.attributes, left_out)
        for kind in ONE_AT_A_TIME:
            if kind in person.removed and self._overrules(kind, at):
                changed |= self.in_use.pop(kind, None) is not None
        for key in person.keys:
            if key in self.identifiers or not self._is_full(key, limits.identifiers, left_out):
                about = {**person.described(key), **self._new(key, origin, now)}
                changed |= self._name(key, about, at, now, key in elsewhere)
        for token in person.removed_tokens:
            token_key: Key = ("push_token", token)
            new = self._new(token_key, origin, now)
            changed |= self._sign_out(token_key, at, elsewhere, left_out, new)
        if person.consent:
            self.consent.append(person)
        return Applied(changed, left_out)

    def _overrules(self, key: str, at: Instant | None) -> bool:
        """Whether a statement of this time wins over the recorded one; if so, record its time."""
        if not holds(self.times, key, at):
            return False
        if at is not None:
            self.times[key] = at
        return True

    def _note(self, key: str, identifier: Key | None) -> None:
        """Record the identifier that the statement of a value is about."""
        if identifier is None:
            self.attribute_identifiers.pop(key, None)
        else:
            self.attribute_identifiers[key] = identifier

    def _set_field(
        self, name: str, value: str | None, at: Instant | None, identifier: Key | None
    ) -> bool:
        if not self._overrules(name, at):
            return False
        changed = bool(self.after[name] != value)
        if changed or at is not None:
            self._note(name, identifier)
        self.after[name] = value
        return changed

    def _set_attribute(
        self,
        name: str,
        value: Any,
        at: Instant | None,
        identifier: Key | None,
        limit: int,
        left_out: list[str],
    ) -> bool:
        """Set or remove an attribute, unless all attributes would exceed `limit` bytes.

        Returns whether the value changed. Without room it adds a message to `left_out`.
        """
        attributes: dict[str, Any] = self.after["attributes"]
        key = attribute_key(name)
        if not holds(self.times, key, at):
            return False
        if self.size is None:
            self.size = attributes_size(attributes, self.times)
        before = 0
        if name in attributes or key in self.times:
            before = entry_size(name, attributes.get(name))
        after = entry_size(name, value)
        fits = after <= before or self.size - before + after <= limit
        if value is not None and not fits:
            left_out.append(
                f"the attribute {excerpt(name)} is left out: with it the profile would have more "
                f"than {limit} bytes of attributes; remove others first"
            )
            return False
        changed = bool(attributes.get(name) != value)
        if value is not None:
            attributes[name] = value
        else:
            attributes.pop(name, None)
        if at is not None and fits:
            self.times[key] = at
        kept = name in attributes or key in self.times
        if not kept:
            self._note(key, None)
        elif changed or (at is not None and fits):
            self._note(key, identifier)
        self.size += (after if kept else 0) - before
        return changed

    def _is_full(self, key: Key, limit: int, left_out: list[str]) -> bool:
        """Whether there is no room for another e-mail address or phone number.

        Anonymous ids and push tokens are always accepted, as `settle` drops the oldest of them.
        User ids are always accepted.
        """
        if key[0] not in ONE_AT_A_TIME:
            return False
        if self.lasting < limit:
            return False
        left_out.append(
            f"the {_LABELS[key[0]]} is left out: the profile has {limit} identifiers already"
        )
        return True

    def _new(self, key: Key, origin: int | None, now: Instant) -> dict[str, Any]:
        """The columns that an identifier gets when it is added."""
        return {} if key in self.identifiers else {"added_at": now, "origin_id": origin}

    def _name(
        self, key: Key, about: Mapping[str, Any], at: Instant | None, now: Instant, elsewhere: bool
    ) -> bool:
        """Add or update an identifier. Returns whether this changed the profile.

        An address with an older time does not replace the one in use.
        """
        here = self.identifiers.get(key)
        seen_at = now if at is None else at
        if here is not None:
            seen_at = here["seen_at"] if at is None else max(here["seen_at"], at)
        row = {**(here or _BLANK), **about, "seen_at": seen_at}
        changed = here is None
        if key[0] in ONE_AT_A_TIME:
            if self._overrules(key[0], at):
                changed = self.in_use.get(key[0]) != key
                self.in_use[key[0]] = key
            elif elsewhere:
                return False  # an older statement; the address belongs to another customer now
            else:
                changed = False
        elif is_retired_row(row) and at is not None and at >= row["retired_at"]:
            row["retired_at"] = None
            changed = True
        if here is None and key[0] not in _DROPPED:
            self.lasting += 1
        if key[0] == "user_id" and self.user_id is None:
            self.user_id = key[1]
        self.identifiers[key] = row
        return changed

    def _sign_out(
        self,
        key: Key,
        at: Instant | None,
        elsewhere: Collection[Key],
        left_out: list[str],
        new: Mapping[str, Any],
    ) -> bool:
        """Retire a push token. Returns whether it was in use.

        A token that is not known is stored as retired, so that an earlier statement that arrives
        later does not put it into use.
        """
        if at is None:
            return False
        here = self.identifiers.get(key)
        if here is None:
            if key in elsewhere:
                left_out.append("context.device.token is not removed: another customer has it")
                return False
            self.identifiers[key] = {**_BLANK, **new, "seen_at": at, "retired_at": at}
            return False
        if here["seen_at"] > at:
            return False
        self.identifiers[key] = {**here, "retired_at": max(at, here["retired_at"] or at)}
        return not is_retired_row(here)

    def settle(self, now: Instant, limits: ProfileLimits) -> None:
        """After the last statement: retire addresses not in use, and drop surplus identifiers."""
        for kind in ONE_AT_A_TIME:
            used = self.in_use.get(kind)
            own = [key for key in self.identifiers if key[0] == kind]
            for key in own:
                row = self.identifiers[key]
                retired_at = None if key == used else row["retired_at"] or now
                if retired_at != row["retired_at"]:
                    self.identifiers[key] = {**row, "retired_at": retired_at}
            if used is not None and used != self.used_before.get(kind) and kind not in self.times:
                # An undated statement keeps the time at which the address was first seen, so that a
                # repeated import changes nothing. If another address was in use since, the time
                # becomes `now`.
                latest = max(self.identifiers[key]["seen_at"] for key in own)
                if self.identifiers[used]["seen_at"] < latest <= now:
                    self.identifiers[used] = {**self.identifiers[used], "seen_at": now}
        if len(self.identifiers) > limits.identifiers:
            for key in self._oldest(len(self.identifiers) - limits.identifiers):
                del self.identifiers[key]

    def _oldest(self, number: int) -> list[Key]:
        """The identifiers to drop: anonymous ids, unusable push tokens, others; oldest first."""

        def order(key: Key) -> tuple[int, bool, Instant, str]:
            row = self.identifiers[key]
            live = not is_retired_row(row) and key not in self.dead
            return _DROPPED.index(key[0]), live, row["seen_at"], key[1]

        return sorted((key for key in self.identifiers if key[0] in _DROPPED), key=order)[:number]

    def changes(self, *, in_turn: bool) -> Iterator[list[ConsentChange]]:
        """The statements of consent, by the person that stated them.

        in_turn: all of them. Otherwise only the last of each channel and topic, so that a file that
        is imported again changes nothing.
        """
        last = {} if in_turn else self._last_statements()
        for person in self.consent:
            yield [
                self._change(person, key)
                for key in person.consent
                if in_turn or last[key] is person
            ]

    def _last_statements(self) -> dict[tuple[ChannelName, str], Person]:
        """Who stated the last one of each channel and topic; at the same second the no is last."""
        last: dict[tuple[ChannelName, str], Person] = {}
        for person in self.consent:
            for key in person.consent:
                before = last.get(key)
                if (
                    before is None
                    or before.seen_at is None
                    or person.seen_at is None
                    or before.seen_at < person.seen_at
                    or (before.seen_at == person.seen_at and before.consent[key])
                ):
                    last[key] = person
        return last

    def _change(self, person: Person, key: tuple[ChannelName, str]) -> ConsentChange:
        assert self.id is not None
        channel, topic = key
        return ConsentChange(
            profile_id=self.id,
            channel=channel,
            topic=topic,
            granted=person.consent[key],
            occurred_at=person.seen_at,
            identifier=person.named_by,
        )


def new_account() -> Account:
    unknown = ("country", "timezone", "language", "attribute_times", "attribute_identifiers")
    return Account(
        id=None, before={**dict.fromkeys(unknown), "attributes": {}}, known={}, in_use={}
    )
