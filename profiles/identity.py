"""From what people are known by to their profiles: found, created, brought up to date, in bulk."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from config.database import Tx
from config.errors import SegueError
from config.policy import Channel
from config.times import Instant
from profiles.bulk import among, lock_profiles
from profiles.confirming import NO_TOPICS
from profiles.consent import ConsentChange, change_consent
from profiles.person import Key, Person
from profiles.tables import IdentifierKind, identifiers, profiles

# Any number of our own: who creates identities on PostgreSQL holds this advisory lock.
_IDENTITY_LOCK = 7_334_823


@dataclass(slots=True)
class UpsertReport:
    """What became of the people, by their place in the sequence."""

    profile_ids: list[int | None]  # None: refused
    refused: dict[int, str]  # why
    told_more: set[int]  # those of whom more is known now than before; consent does not count
    created: int
    updated: int
    unchanged: int
    consent_overruled: int  # statements of consent that a later one or a standing no outweighed


def upsert_people(
    tx: Tx,
    people: Sequence[Person],
    source: str,
    *,
    same: Collection[Collection[Key]] = (),
    owners: Mapping[Key, int] | None = None,
    topics_too: bool = False,
    double_opt_in: Mapping[str, str] = NO_TOPICS,
) -> UpsertReport:
    """Find or create each person's profile and bring it up to what is said; later rows win.

    The same people again change nothing. A person without any identifier, or whose identifiers
    belong to two customers, is refused. `source` goes into the consent records; `same` names
    identifiers that are known to be one person's, whichever of the people they stand with; `owners`
    is what `owners_of` says of all these identifiers, where it was asked in this transaction.
    `topics_too` and `double_opt_in` are those of `change_consent`.

    Once a transaction: on PostgreSQL it locks the profiles, and a second call's locks could
    meet another process's in the other order.
    """
    named = {key for person in people for key, _ in person.identifiers()}
    accounts = _accounts(tx, named.union(*same), owners)
    for keys in same:
        theirs = next((accounts[key] for key in keys if key in accounts), None)
        accounts.update(dict.fromkeys(keys, theirs or _nobody_yet()))
    placed: list[_Account | None] = []
    refused: dict[int, str] = {}
    told_more: set[int] = set()
    for index, person in enumerate(people):
        try:
            account = _account_of(person, accounts)
        except ValueError as error:
            refused[index] = str(error)
            placed.append(None)
        else:
            before = account.after, account.identifiers
            account.take(person, tx.now)
            if (account.after, account.identifiers) != before:
                told_more.add(index)
            placed.append(account)

    # in the order of the people, so that the same input gives the same ids
    touched = list({id(account): account for account in placed if account is not None}.values())
    for account in touched:
        account.put_back_into_use(tx.now)
    fresh = [account for account in touched if account.id is None]
    known = [account for account in touched if account.id is not None]
    _insert_profiles(tx, fresh)
    _write_identifiers(tx, touched)
    consent = change_consent(
        tx,
        [change for account in touched for change in account.changes()],
        source,
        topics_too=topics_too,
        double_opt_in=double_opt_in,
    )
    consented = {change.profile_id for change in consent.applied}
    changed = [account for account in known if account.differs or account.id in consented]
    _update_profiles(tx, changed)

    changed_ids = {account.id for account in changed}
    updated = sum(1 for account in placed if account is not None and account.id in changed_ids)
    return UpsertReport(
        profile_ids=[None if account is None else account.id for account in placed],
        refused=refused,
        told_more=told_more,
        created=len(fresh),
        updated=updated,
        unchanged=len(people) - len(refused) - len(fresh) - updated,
        consent_overruled=len(consent.overruled),
    )


@dataclass(slots=True, eq=False)
class _Account:
    """One profile in memory: as it was read, and as it will be."""

    id: int | None  # None: not there yet
    before: dict[str, Any]
    known: dict[Key, dict[str, Any]]
    after: dict[str, Any] = field(init=False)
    identifiers: dict[Key, dict[str, Any]] = field(init=False)
    undated: dict[IdentifierKind, Key] = field(default_factory=dict)  # the last one stated so
    consent: dict[tuple[Channel, str], tuple[bool, Instant | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.after = dict(self.before)
        self.identifiers = dict(self.known)

    @property
    def differs(self) -> bool:
        return self.before != self.after or self.known != self.identifiers

    def take(self, person: Person, now: Instant) -> None:
        """Replaces what was known before, and leaves it as it was."""
        self.after, self.identifiers = dict(self.after), dict(self.identifiers)
        for name in ("country", "timezone", "language"):
            if getattr(person, name) is not None:
                self.after[name] = getattr(person, name)
        merged = {**self.after["attributes"], **person.attributes}
        self.after["attributes"] = {k: v for k, v in merged.items() if v is not None}
        for key, about in person.identifiers():
            stated = now if person.seen_at is None else person.seen_at
            here = self.identifiers.get(key, {"seen_at": stated})
            seen_at = here["seen_at"] if person.seen_at is None else max(here["seen_at"], stated)
            self.identifiers[key] = {**here, **about, "seen_at": seen_at}
            if person.seen_at is None:
                self.undated[key[0]] = key
        for topic, granted in person.consent.items():
            earlier = self.consent.get(topic, (False, None))[1]
            if earlier is None or person.seen_at is None or earlier <= person.seen_at:
                self.consent[topic] = (granted, person.seen_at)

    def put_back_into_use(self, now: Instant) -> None:
        """Of several e-mail addresses or phone numbers the one seen last is in use.

        Stated again without a date a known one keeps its date, so that the same file again changes
        nothing; unless the person had another in the meantime: then it is in use again from now.
        """
        kinds: tuple[IdentifierKind, ...] = ("email", "phone")
        for kind in kinds:
            key = self.undated.get(kind)
            if key is None:
                continue
            here = self.identifiers[key]
            latest = max(
                about["seen_at"] for (k, _), about in self.identifiers.items() if k == kind
            )
            if here["seen_at"] < latest <= now:
                self.identifiers[key] = {**here, "seen_at": now}

    def changes(self) -> Iterator[ConsentChange]:
        assert self.id is not None
        for (channel, topic), (granted, seen_at) in self.consent.items():
            yield ConsentChange(self.id, channel, topic, granted, seen_at)


def _account_of(person: Person, accounts: dict[Key, _Account]) -> _Account:
    """The account that all identifiers lead to, a new one if none does; they all lead there now."""
    keys = [key for key, _ in person.identifiers()]
    if not keys:
        raise ValueError("it names nobody: no user id, e-mail address, phone number or push token")
    found = {accounts[key]: key for key in reversed(keys) if key in accounts}
    if len(found) > 1:
        one, other, *_ = reversed(found.values())
        raise ValueError(f"{_shown(one)} and {_shown(other)} belong to two different customers")
    for account, key in found.items():
        theirs = [value for kind, value in account.identifiers if kind == "user_id"]
        if person.user_id is not None and theirs and ("user_id", person.user_id) not in accounts:
            raise ValueError(f"{_shown(key)} belongs to the customer with user_id {theirs[0]!r}")
    account = next(iter(found), None) or _nobody_yet()
    accounts.update(dict.fromkeys(keys, account))
    return account


def _nobody_yet() -> _Account:
    return _Account(
        None, {"country": None, "timezone": None, "language": None, "attributes": {}}, {}
    )


def _shown(key: Key) -> str:
    return f"{key[0]} {key[1]!r}"


def _accounts(tx: Tx, keys: set[Key], owners: Mapping[Key, int] | None) -> dict[Key, _Account]:
    """The profiles that any of these identifiers belongs to, locked, with all that they have."""
    if owners is None:
        owners = owners_of(tx, keys)
    owners = {key: owners[key] for key in keys if key in owners}
    if len(owners) < len(keys) and tx.conn.dialect.name == "postgresql":
        # Somebody is new. One process at a time creates identities, and looks again first.
        owners = settled_owners_of(tx, keys)
    owners = held_owners_of(tx, keys, owners)
    ids = sorted(set(owners.values()))
    p, i = profiles.c, identifiers.c
    accounts: dict[int, _Account] = {}
    known: dict[int, dict[Key, dict[str, Any]]] = {}
    for row in tx.conn.execute(select(identifiers).where(among(tx, i.profile_id, ids))).mappings():
        about = {name: row[name] for name in ("country", "platform", "seen_at")}
        known.setdefault(row["profile_id"], {})[row["kind"], row["value"]] = about
    columns = (p.country, p.timezone, p.language, p.attributes)
    for row in tx.conn.execute(select(p.id, *columns).where(among(tx, p.id, ids))).mappings():
        values = {column.name: row[column] for column in columns}
        accounts[row["id"]] = _Account(row["id"], values, known[row["id"]])
    return {key: accounts[owner] for key, owner in owners.items()}


def settled_owners_of(tx: Tx, keys: Collection[Key]) -> dict[Key, int]:
    """`owners_of`, and nobody else changes whose identifiers they are until this transaction ends.

    To be called before profiles are locked.
    """
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(select(func.pg_advisory_xact_lock(_IDENTITY_LOCK)))
    return owners_of(tx, keys)


def held_owners_of(tx: Tx, keys: Collection[Key], owners: Mapping[Key, int]) -> Mapping[Key, int]:
    """`owners_of` as it was read, or as it is now that the profiles are locked.

    Raises SegueError when a profile is not there at all.
    """
    while len(lock_profiles(tx, ids := set(owners.values()))) < len(ids):
        # Meanwhile one of them became part of another profile.
        before, owners = owners, owners_of(tx, keys)
        if owners == before:
            raise SegueError(
                f"identifiers say that they belong to one of the profiles {sorted(ids)}, which is "
                "not there; somebody deleted a row of the table profile by hand"
            )
    return owners


def owners_of(tx: Tx, keys: Iterable[Key]) -> dict[Key, int]:
    """The profiles that have these identifiers, as far as there are any."""
    c = identifiers.c
    by_kind: dict[IdentifierKind, list[str]] = {}
    for kind, value in keys:
        by_kind.setdefault(kind, []).append(value)
    return {
        (kind, value): profile_id
        for kind, values in by_kind.items()
        for value, profile_id in tx.conn.execute(
            select(c.value, c.profile_id).where(c.kind == kind, among(tx, c.value, values))
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


def _insert_profiles(tx: Tx, fresh: Sequence[_Account]) -> None:
    if not fresh:
        return
    ids = tx.conn.execute(
        insert(profiles).returning(profiles.c.id, sort_by_parameter_order=True),
        [{**account.after, "created_at": tx.now, "updated_at": tx.now} for account in fresh],
    ).scalars()
    for account, profile_id in zip(fresh, ids, strict=True):
        account.id = profile_id


def _update_profiles(tx: Tx, changed: Sequence[_Account]) -> None:
    if changed:
        tx.conn.execute(
            update(profiles).where(profiles.c.id == bindparam("profile")),
            [{**account.after, "updated_at": tx.now, "profile": account.id} for account in changed],
        )


def _write_identifiers(tx: Tx, accounts: Iterable[_Account]) -> None:
    new, changed = [], []
    for account in accounts:
        for (kind, value), about in account.identifiers.items():
            if (kind, value) not in account.known:
                row = {"country": None, "platform": None, "state": "active", **about}
                new.append({**row, "kind": kind, "value": value, "profile_id": account.id})
            elif about != account.known[kind, value]:
                changed.append({**about, "of_kind": kind, "of_value": value})
    if new:
        tx.conn.execute(insert(identifiers), new)
    if changed:
        c = identifiers.c
        tx.conn.execute(
            update(identifiers).where(
                c.kind == bindparam("of_kind"), c.value == bindparam("of_value")
            ),
            changed,
        )
