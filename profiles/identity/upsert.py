"""Find, create and update profiles by their identifiers, in bulk."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, tuple_, update

from config.clock.times import Instant
from config.database.arrays import InsertRows, any_of, rows_of
from config.database.engine import Tx
from profiles.bucketing import bucket_of, identifier_bucket
from profiles.bulk import new_profile_ids
from profiles.consent.changes import change_consent_in_turn
from profiles.identity.addresses import (
    ONE_AT_A_TIME,
    is_in_use,
    is_retired_row,
    is_suppressed_anywhere,
)
from profiles.identity.erased import suppress_erased
from profiles.identity.history import write_statements
from profiles.identity.holdout import Gain, follow_addresses, is_address
from profiles.identity.owners import (
    Holder,
    all_owners_of,
    held_owners_of,
    holders_of,
    lock_identities,
    owners_of,
)
from profiles.identity.person import Key, Person
from profiles.identity.profile import Account, Applied, new_account
from profiles.rules import DEFAULT_RULES, InputRules, ProfileLimits
from profiles.tables import IdentifierKind, identifiers, profiles

_p, _i = profiles.c, identifiers.c
# The columns that describe a profile, and those that describe an identifier.
_DESCRIBED_BY = (
    *(_p.country, _p.timezone, _p.language),
    *(_p.attributes, _p.attribute_times, _p.attribute_identifiers),
)
_DESCRIBING = ("country", "platform", "seen_at", "retired_at", "added_at", "origin_id")
_ROW = (_i.kind, _i.value, _i.profile_id, *(_i[name] for name in _DESCRIBING))

_KEYS = rows_of("keys", _i.kind, _i.value)
_THEIR_IDENTIFIERS = (
    select(identifiers, is_in_use().label("in_use"), is_suppressed_anywhere().label("dead"))
    .where(any_of(_i.profile_id, "profiles"))
    .order_by(_i.seen_at, _i.value)
)
_THEIR_ROWS = select(_p.id, *_DESCRIBED_BY).where(any_of(_p.id, "profiles"))
_INSERT_PROFILES = InsertRows(_p.id, *_DESCRIBED_BY, _p.created_at, _p.updated_at, _p.bucket)
_PROFILES = rows_of("profiles", _p.id, *_DESCRIBED_BY, _p.updated_at)
_UPDATE_PROFILES = (
    update(profiles)
    .where(_p.id == _PROFILES.c.id)
    .values({column.name: column for column in _PROFILES.c if column.name != "id"})
)
_INSERT_IDENTIFIERS = InsertRows(*_ROW, _i.bucket)
_INSERT_REMOVED = InsertRows(*_ROW, _i.bucket, on_conflict="DO NOTHING")
_IDENTIFIERS = rows_of("identifiers", *_ROW)
_UPDATE_IDENTIFIERS = (
    update(identifiers)
    .where(_i.kind == _IDENTIFIERS.c.kind, _i.value == _IDENTIFIERS.c.value)
    .values({column.name: column for column in _IDENTIFIERS.c if column.name not in _KEYS.c})
)
_DROP_IDENTIFIERS = delete(identifiers).where(tuple_(_i.kind, _i.value).in_(select(_KEYS)))


@dataclass(slots=True, kw_only=True)
class UpsertReport:
    """The result of an upsert. Dictionaries and sets are by the person's place in the sequence."""

    profile_ids: list[int | None]  # None: refused
    refused: dict[int, str]  # why
    left_out: dict[int, list[str]]  # messages about ignored values of accepted persons
    effective: set[int]  # persons that changed their profile, apart from consent
    created: int
    updated: int
    unchanged: int
    consent_overruled: int  # statements of consent that a later one or a no overrules


def upsert_people(
    tx: Tx,
    people: Sequence[Person],
    source: str,
    *,
    same: Collection[Collection[Key]] = (),
    owners: Mapping[Key, int] | None = None,
    topics_too: bool = False,
    in_turn: bool = False,
    rules: InputRules = DEFAULT_RULES,
) -> UpsertReport:
    """Find or create each person's profile and update it.

    For each value, the statement with the latest time of its own wins, in whatever order they
    arrive (profiles/attributes/latest.py). Repeating a call changes nothing. A person without
    identifiers, or with identifiers of two customers, is refused.

    A retired address has no owner: it goes to whoever states it with another identifier. A person
    who is named only by retired addresses is the profile that had them.

    Call it at most once per transaction: on PostgreSQL it locks profiles, and the locks of a second
    call could deadlock with another process.

    Parameters
    ----------
    source: stored in the consent records.
    same: sets of identifiers that belong to one customer each, in whatever persons they are.
    owners: the result of `owners_of` for all identifiers, if the caller read it in this transaction
        and has locked these profiles, and `lock_identities` as well if an identifier has no owner.
    topics_too: passed to `change_consent`.
    in_turn: decide about each statement of consent, as if the persons came one by one; otherwise
        about the last one of each profile, channel and topic.
    """
    if not people and not same:
        return UpsertReport(
            profile_ids=[],
            refused={},
            left_out={},
            effective=set(),
            created=0,
            updated=0,
            unchanged=0,
            consent_overruled=0,
        )
    named = {key for person in people for key in person.keys}
    tokens: set[Key] = {("push_token", t) for person in people for t in person.removed_tokens}
    book = _open_book(tx, named.union(*same), tokens, owners)
    for keys in same:
        theirs = next((book.users[key] for key in keys if key in book.users), None)
        book.users.update(dict.fromkeys(keys, theirs or new_account()))
    placed: list[Account | None] = []
    refused: dict[int, str] = {}
    left_out: dict[int, list[str]] = {}
    effective: set[int] = set()
    said: list[tuple[int, Account, int]] = []  # about joined profiles
    for index, person in enumerate(people):
        try:
            account = book.account_of(person)
        except ValueError as error:
            refused[index] = str(error)
            placed.append(None)
        else:
            origin = account.origin(person)
            taken = book.take(account, person, tx.now, rules.limits)
            if origin is not None and person.has_details:
                said.append((index, account, origin))
            if taken.changed:
                effective.add(index)
            if taken.left_out:
                left_out[index] = taken.left_out
            placed.append(account)

    # in the order of `people`, so that the same input gives the same ids
    touched = list({id(account): account for account in placed if account is not None}.values())
    for account in touched:
        account.settle(tx.now, rules.limits)
    fresh = [account for account in touched if account.id is None]
    known = [account for account in touched if account.id is not None]
    _insert_profiles(tx, fresh)
    _write_identifiers(tx, touched, book.free)
    new = {account.id for account in fresh}
    gains = [_gain(account, new) for account in touched]
    follow_addresses(tx, rules.holdout, gains)
    if gained := {gain.profile_id: gain.gained for gain in gains if gain.gained}:
        suppress_erased(tx, rules.erased, gained)
    if said:
        write_statements(
            tx, [(account.id or 0, origin, people[index]) for index, account, origin in said]
        )
    consent = change_consent_in_turn(
        tx,
        [some for account in touched for some in account.changes(in_turn=in_turn)],
        source,
        topics_too=topics_too,
        double_opt_in=rules.double_opt_in,
    )
    consented = {change.profile_id for change in consent.applied}
    changed = [account for account in known if account.differs or account.id in consented]
    _update_profiles(tx, changed)

    changed_ids = {account.id for account in changed}
    updated = sum(1 for account in placed if account is not None and account.id in changed_ids)
    return UpsertReport(
        profile_ids=[None if account is None else account.id for account in placed],
        refused=refused,
        left_out=left_out,
        effective=effective,
        created=len(fresh),
        updated=updated,
        unchanged=len(people) - len(refused) - len(fresh) - updated,
        consent_overruled=len(consent.overruled),
    )


@dataclass(slots=True)
class _Book:
    """The profiles that the persons can be, by identifier.

    users: the profile that has an identifier, or uses an address.
    former: the profile that had a retired address; None: it is not loaded.
    free: identifiers without an owner that have a row.
    """

    users: dict[Key, Account]
    former: dict[Key, Account | None]
    free: set[Key]

    def account_of(self, person: Person) -> Account:
        """The profile that all identifiers lead to, or a new one; afterwards they all lead to it.

        Raises ValueError if the person has no identifiers, or those of two customers.
        """
        keys = person.keys
        if not keys:
            raise ValueError(
                "there is no identifier; give a user id, e-mail address, phone number or push token"
            )
        found = {self.users[key]: key for key in reversed(keys) if key in self.users}
        if len(found) > 1:
            one, other, *_ = reversed(found.values())
            raise ValueError(f"{_shown(one)} and {_shown(other)} belong to two different customers")
        for account, key in found.items():
            theirs = account.user_id
            new = person.user_id is not None and ("user_id", person.user_id) not in self.users
            if new and theirs is not None:
                raise ValueError(f"{_shown(key)} belongs to the customer with user_id {theirs!r}")
        account = next(iter(found), None) or self._who_had(keys) or new_account()
        self.users.update(dict.fromkeys(keys, account))
        return account

    def _who_had(self, keys: Sequence[Key]) -> Account | None:
        """The profile that had all of these retired addresses; None if there is not exactly one."""
        had = {self.former.get(key) for key in keys}
        return had.pop() if len(had) == 1 else None

    def take(
        self, account: Account, person: Person, now: Instant, limits: ProfileLimits
    ) -> Applied:
        """Apply the person's statements, and update which profile uses which address."""
        before = set(account.in_use.values())
        keys: list[Key] = person.keys
        keys += [("push_token", token) for token in person.removed_tokens]
        elsewhere = {
            key
            for key in keys
            for whose in (self.former, self.users)
            if key in whose and whose[key] is not account
        }
        taken = account.take(person, now, limits, elsewhere)
        for key in {*keys, *before}:
            if account.uses(key):
                self.users[key] = account
                had = self.former.pop(key, None)
                if had is not None and had is not account and had.forget(key):
                    self.free.add(key)
            elif key in account.identifiers:
                self.users.pop(key, None)
                self.former[key] = account
            elif self.users.get(key) is account:
                del self.users[key]
        return taken


def _shown(key: Key) -> str:
    return f"{key[0]} {key[1]!r}"


def _open_book(
    tx: Tx, keys: Collection[Key], tokens: Collection[Key], owners: Mapping[Key, int] | None
) -> _Book:
    """Read and lock the profiles of these identifiers, with all their identifiers.

    tokens: push tokens to be removed; they lead to no profile.
    """
    every = {*keys, *tokens}
    if owners is None:
        owners = owners_of(tx, keys)
        if any(key not in owners for key in keys):
            # A profile is new, or takes a free address. One process at a time does this.
            lock_identities(tx)
        # A row of an import can name a profile by retired addresses alone. A call never does.
        held_owners_of(tx, every, all_owners_of(tx, every), read=all_owners_of)
        holders = holders_of(tx, every)
        ids = {holder.profile_id for holder in holders.values()}
    else:
        holders = {key: Holder(owners[key], retired=False) for key in keys if key in owners}
        ids = {holder.profile_id for holder in holders.values()}
        if others := every - holders.keys():
            holders |= holders_of(tx, others)
    accounts = _accounts(tx, ids)
    return _Book(
        users={
            key: accounts[holder.profile_id]
            for key, holder in holders.items()
            if key in keys and not holder.retired
        },
        former={
            key: accounts.get(holder.profile_id)
            for key, holder in holders.items()
            if key not in keys or holder.retired
        },
        free={key for key, holder in holders.items() if holder.retired},
    )


def _accounts(tx: Tx, ids: Collection[int]) -> dict[int, Account]:
    """Read profiles, by id."""
    known: dict[int, dict[Key, dict[str, Any]]] = {profile_id: {} for profile_id in ids}
    in_use: dict[int, dict[IdentifierKind, Key]] = {profile_id: {} for profile_id in ids}
    dead: dict[int, set[Key]] = {profile_id: set() for profile_id in ids}
    for row in tx.conn.execute(_THEIR_IDENTIFIERS, {"profiles": ids}).mappings():
        key: Key = (row["kind"], row["value"])
        known[row["profile_id"]][key] = {name: row[name] for name in _DESCRIBING}
        if row["kind"] in ONE_AT_A_TIME and row["in_use"]:
            in_use[row["profile_id"]][row["kind"]] = key
        if row["dead"]:
            dead[row["profile_id"]].add(key)
    return {
        row["id"]: Account(
            id=row["id"],
            before={column.name: row[column] for column in _DESCRIBED_BY},
            known=known[row["id"]],
            in_use=in_use[row["id"]],
            dead=dead[row["id"]],
        )
        for row in tx.conn.execute(_THEIR_ROWS, {"profiles": ids}).mappings()
    }


def new_profile(tx: Tx) -> int:
    """Create an empty profile, for an identifier that is new. Returns its id."""
    account = new_account()
    _insert_profiles(tx, [account])
    assert account.id is not None
    return account.id


def _insert_profiles(tx: Tx, fresh: Sequence[Account]) -> None:
    if not fresh:
        return
    for account, profile_id in zip(fresh, new_profile_ids(tx, len(fresh)), strict=True):
        account.id = profile_id
    _INSERT_PROFILES(
        tx.conn, [(one.id, *_row(one), tx.now, tx.now, bucket_of(one.id or 0)) for one in fresh]
    )


def _gain(account: Account, new: Collection[int | None]) -> Gain:
    """The addresses that the profile has now, and those that it did not have before.

    new: the ids of profiles that were just created.
    """
    every = [key for key in account.identifiers if is_address(key)]
    assert account.id is not None
    return Gain(
        profile_id=account.id,
        gained=[
            key
            for key in every
            if key not in account.known and not is_retired_row(account.identifiers[key])
        ],
        every=every,
        is_new=account.id in new,
    )


def _update_profiles(tx: Tx, changed: Sequence[Account]) -> None:
    if changed:
        rows = [(account.id, *_row(account), tx.now) for account in changed]
        tx.conn.execute(_UPDATE_PROFILES, {"profiles": rows})


def _row(account: Account) -> tuple[Any, ...]:
    row = account.row
    return tuple(row[column.name] for column in _DESCRIBED_BY)


def _write_identifiers(tx: Tx, accounts: Iterable[Account], free: Collection[Key]) -> None:
    """Write changed identifiers.

    free: identifiers that have a row, which their new profile takes over.
    """
    new: list[tuple[Any, ...]] = []
    removed: list[tuple[Any, ...]] = []
    changed: list[tuple[Any, ...]] = []
    dropped: list[Key] = []
    for account in accounts:
        for key, about in account.identifiers.items():
            if about == account.known.get(key):
                continue
            row = (*key, account.id, *(about[name] for name in _DESCRIBING))
            if key in account.known or key in free:
                changed.append(row)
            else:
                inserted = (*row, identifier_bucket(*key))
                (removed if is_retired_row(about) else new).append(inserted)
        dropped += [key for key in account.known if key not in account.identifiers]
    if dropped:
        tx.conn.execute(_DROP_IDENTIFIERS, {"keys": dropped})
    _INSERT_IDENTIFIERS(tx.conn, new)
    # Removals do not take the identity lock, so another transaction can register the same token
    # now. Its row stays.
    _INSERT_REMOVED(tx.conn, removed)
    if changed:
        tx.conn.execute(_UPDATE_IDENTIFIERS, {"identifiers": changed})
