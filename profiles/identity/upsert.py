"""Find, create and update profiles by their identifiers, in bulk."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select, update

from config.clock.times import Instant
from config.database.engine import Tx, insert_ignoring_conflicts
from config.errors import SegueError
from profiles.bulk import among, lock_profiles, new_profile_ids
from profiles.consent.changes import change_consent
from profiles.identity.addresses import (
    ONE_AT_A_TIME,
    is_in_use,
    is_retired,
    is_retired_row,
    is_suppressed_anywhere,
)
from profiles.identity.person import Key, Person
from profiles.identity.profile import Account, Applied, new_account
from profiles.rules import DEFAULT_RULES, InputRules, ProfileLimits
from profiles.tables import IdentifierKind, identifiers, profiles

# The key of PostgreSQL's advisory lock for creating and moving identifiers; an arbitrary number.
_IDENTITY_LOCK = 7_334_823


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
    owners: the result of `owners_of` for all identifiers, if it was read in this transaction.
    topics_too: passed to `change_consent`.
    """
    named = {key for person in people for key, _ in person.identifiers()}
    tokens: set[Key] = {("push_token", t) for person in people for t in person.removed_tokens}
    book = _open_book(tx, named.union(*same), tokens, owners)
    for keys in same:
        theirs = next((book.users[key] for key in keys if key in book.users), None)
        book.users.update(dict.fromkeys(keys, theirs or new_account()))
    placed: list[Account | None] = []
    refused: dict[int, str] = {}
    left_out: dict[int, list[str]] = {}
    effective: set[int] = set()
    for index, person in enumerate(people):
        try:
            account = book.account_of(person)
        except ValueError as error:
            refused[index] = str(error)
            placed.append(None)
        else:
            taken = book.take(account, person, tx.now, rules.limits)
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
    consent = change_consent(
        tx,
        [change for account in touched for change in account.changes()],
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
        keys = [key for key, _ in person.identifiers()]
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
        keys: list[Key] = [key for key, _ in person.identifiers()]
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
    named = owners_of(tx, keys) if owners is None else owners
    if any(key not in named for key in keys):
        # A profile is new, or takes a free address. One process at a time does this.
        named = settled_owners_of(tx, keys)
    if owners is None:
        # A row of an import can name a profile by retired addresses alone. A call never does.
        held_owners_of(tx, every, _all_owners_of(tx, every), read=_all_owners_of)
        holders = holders_of(tx, every)
        ids = {holder.profile_id for holder in holders.values()}
    else:
        mine = {key: named[key] for key in keys if key in named}
        mine = dict(held_owners_of(tx, keys, mine))
        holders = {key: Holder(owner, retired=False) for key, owner in mine.items()}
        ids = set(mine.values())
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
    p, i = profiles.c, identifiers.c
    known: dict[int, dict[Key, dict[str, Any]]] = {profile_id: {} for profile_id in ids}
    in_use: dict[int, dict[IdentifierKind, Key]] = {profile_id: {} for profile_id in ids}
    dead: dict[int, set[Key]] = {profile_id: set() for profile_id in ids}
    rows = select(
        identifiers, is_in_use().label("in_use"), is_suppressed_anywhere().label("dead")
    ).where(among(tx, i.profile_id, ids))
    for row in tx.conn.execute(rows.order_by(i.seen_at, i.value)).mappings():
        key: Key = (row["kind"], row["value"])
        known[row["profile_id"]][key] = {name: row[name] for name in _DESCRIBING}
        if row["kind"] in ONE_AT_A_TIME and row["in_use"]:
            in_use[row["profile_id"]][row["kind"]] = key
        if row["dead"]:
            dead[row["profile_id"]].add(key)
    columns = (
        *(p.country, p.timezone, p.language),
        *(p.attributes, p.attribute_times, p.attribute_identifiers),
    )
    return {
        row["id"]: Account(
            id=row["id"],
            before={column.name: row[column] for column in columns},
            known=known[row["id"]],
            in_use=in_use[row["id"]],
            dead=dead[row["id"]],
        )
        for row in tx.conn.execute(select(p.id, *columns).where(among(tx, p.id, ids))).mappings()
    }


def settled_owners_of(tx: Tx, keys: Collection[Key]) -> dict[Key, int]:
    """`owners_of`, under `lock_identities`. Call it before profiles are locked."""
    lock_identities(tx)
    return owners_of(tx, keys)


def lock_identities(tx: Tx) -> None:
    """Let no other transaction create or move identifiers until this one ends.

    Call it before profiles are locked. SQLite needs no lock, as it has one writer.
    """
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(select(func.pg_advisory_xact_lock(_IDENTITY_LOCK)))


def held_owners_of(
    tx: Tx,
    keys: Collection[Key],
    owners: Mapping[Key, int],
    *,
    read: Callable[[Tx, Collection[Key]], dict[Key, int]] | None = None,
) -> Mapping[Key, int]:
    """Lock the profiles of `owners`. Returns the owners, read again if a profile was merged.

    read: reads owners again; None means `owners_of`. Raises SegueError when an identifier names a
    profile that does not exist.
    """
    read = read or owners_of
    while len(lock_profiles(tx, ids := set(owners.values()))) < len(ids):
        # one of them was merged into another profile meanwhile
        before, owners = owners, read(tx, keys)
        if owners == before:
            raise SegueError(
                f"identifiers refer to the profiles {sorted(ids)}, of which at least one does not "
                "exist; restore the deleted rows of the table profile from a backup"
            )
    return owners


class Holder(NamedTuple):
    """The profile that has an identifier or, of a retired address, had it last.

    unverified: an anonymous id whose calls only add events (profiles/identity/resolve.py).
    """

    profile_id: int
    retired: bool
    unverified: bool = False


def holders_of(tx: Tx, keys: Collection[Key]) -> dict[Key, Holder]:
    """The profiles that have or had these identifiers."""
    c = identifiers.c
    by_kind: dict[IdentifierKind, list[str]] = {}
    for kind, value in keys:
        by_kind.setdefault(kind, []).append(value)
    return {
        (kind, row.value): Holder(row.profile_id, row.retired, row.unverified_from is not None)
        for kind, values in by_kind.items()
        for row in tx.conn.execute(
            select(c.value, c.profile_id, is_retired().label("retired"), c.unverified_from).where(
                c.kind == kind, among(tx, c.value, values)
            )
        )
    }


def users_of(tx: Tx, profile_ids: Collection[int]) -> dict[int, set[str]]:
    """The user ids of each profile that has one."""
    c = identifiers.c
    users: dict[int, set[str]] = {}
    found = select(c.profile_id, c.value).where(
        c.kind == "user_id", among(tx, c.profile_id, profile_ids)
    )
    for profile_id, user_id in tx.conn.execute(found):
        users.setdefault(profile_id, set()).add(user_id)
    return users


def owners_of(tx: Tx, keys: Collection[Key]) -> dict[Key, int]:
    """The profiles that have these identifiers. A retired address has none."""
    return {
        key: holder.profile_id for key, holder in holders_of(tx, keys).items() if not holder.retired
    }


def _all_owners_of(tx: Tx, keys: Collection[Key]) -> dict[Key, int]:
    """As `owners_of`, and for retired addresses the profile that had it last."""
    return {key: holder.profile_id for key, holder in holders_of(tx, keys).items()}


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
    tx.conn.execute(
        insert(profiles),
        [
            {"id": account.id, **account.row, "created_at": tx.now, "updated_at": tx.now}
            for account in fresh
        ],
    )


def _update_profiles(tx: Tx, changed: Sequence[Account]) -> None:
    if changed:
        tx.conn.execute(
            update(profiles).where(profiles.c.id == bindparam("profile")),
            [{**account.row, "updated_at": tx.now, "profile": account.id} for account in changed],
        )


# The columns that describe an identifier.
_DESCRIBING = ("country", "platform", "seen_at", "retired_at")


def _write_identifiers(tx: Tx, accounts: Iterable[Account], free: Collection[Key]) -> None:
    """Write changed identifiers.

    free: identifiers that have a row, which their new profile takes over.
    """
    new: list[dict[str, Any]] = []
    removed: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    dropped: list[Key] = []
    for account in accounts:
        for key, about in account.identifiers.items():
            if about == account.known.get(key):
                continue
            row = {name: about[name] for name in _DESCRIBING}
            named = {"of_kind": key[0], "of_value": key[1], "profile_id": account.id}
            if key in account.known or key in free:
                changed.append({**row, **named})
            else:
                inserted = {**about, "kind": key[0], "value": key[1], "profile_id": account.id}
                (removed if is_retired_row(about) else new).append(inserted)
        dropped += [key for key in account.known if key not in account.identifiers]
    c = identifiers.c
    one = (c.kind == bindparam("of_kind"), c.value == bindparam("of_value"))
    if dropped:
        tx.conn.execute(
            delete(identifiers).where(*one),
            [{"of_kind": kind, "of_value": value} for kind, value in dropped],
        )
    if new:
        tx.conn.execute(insert(identifiers), new)
    # Removals do not take the identity lock, so another transaction can register the same token
    # now. Its row stays.
    insert_ignoring_conflicts(tx.conn, identifiers, removed)
    if changed:
        tx.conn.execute(update(identifiers).where(*one), changed)
