"""Who is in the holdout stays in it: by profile, by each address, and after joins."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select

from channels.rules.loaders import load_recipients
from config.database.engine import Database
from config.policy import Policy
from journeys.dsl import Email, Send
from journeys.operations.holdout import hold_out_drawn
from journeys.operations.merge import merge
from profiles.calls.record_calls import take_calls
from profiles.calls.segment_calls import read_call
from profiles.identity.holdout import Holdout, held_among
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import upsert_people
from profiles.rules import InputRules
from profiles.tables import held_out, held_out_addresses, identifiers, identity_records
from tests.support.counting import statements
from tests.support.shop import MONDAY, House, described

HOLDOUT = Holdout(percent=30, keys=(b"a key that is long enough",))
RULES = InputRules(holdout=HOLDOUT)
POLICY = Policy(holdout_percent=30)


def state(db: Database, *people: dict[str, Any], rules: InputRules = RULES) -> list[int]:
    """Upsert these people; returns their profiles."""
    db.now = MONDAY if db.now is None else db.now + 60
    said = [Person(seen_at=db.now, **person) for person in people]
    with db.transaction() as tx:
        ids = upsert_people(tx, said, "test", rules=rules).profile_ids
    return [one for one in ids if one is not None]


def call(db: Database, rules: InputRules = RULES, **said: Any) -> None:
    db.now = MONDAY if db.now is None else db.now + 60
    with db.transaction() as tx:
        take_calls(tx, [read_call("identify", said)], merge, rules)


def held(db: Database, ids: Sequence[int]) -> list[bool]:
    """Whether each profile is held out, as the planner sees it."""
    with db.transaction(write=False) as tx:
        found = load_recipients(tx, POLICY, ids)
    return [found[one].situation.held_out for one in ids]


def stored(db: Database) -> set[int]:
    with db.transaction(write=False) as tx:
        return set(tx.conn.execute(select(held_out.c.profile_id)).scalars())


def owner(db: Database, kind: str, value: str) -> int:
    named = select(identifiers.c.profile_id).where(
        identifiers.c.kind == kind, identifiers.c.value == value
    )
    with db.transaction(write=False) as tx:
        return int(tx.conn.execute(named).scalar_one())


def make(db: Database, *names: str, drawn: bool) -> list[str]:
    """User ids of new customers that are, or are not, in the holdout by their number.

    Each has the address `NAME@example.com` and the device `token-NAME`.
    """
    made = []
    for name in names:
        for number in range(100):
            [one] = state(db, {"user_id": f"{name}{number}"})
            if HOLDOUT.draws(one) == drawn:
                user_id = f"{name}{number}"
                address, token = f"{name}@example.com", f"token-{name}"
                state(db, {"user_id": user_id, "email": address, "push_tokens": {token: "ios"}})
                made.append(user_id)
                break
    assert len(made) == len(names)
    return made


def is_held(db: Database, user_id: str) -> bool:
    return held(db, [owner(db, "user_id", user_id)]) == [True]


def test_the_drawn_are_stored_with_their_addresses(db: Database) -> None:
    ids = state(db, *({"user_id": f"u{n}", "email": f"u{n}@example.com"} for n in range(60)))
    drawn = {one for one in ids if HOLDOUT.draws(one)}
    assert 5 < len(drawn) < 35
    assert stored(db) == drawn
    assert held(db, ids) == [one in drawn for one in ids]
    with db.transaction(write=False) as tx:
        hashes = set(tx.conn.execute(select(held_out_addresses.c.hash)).scalars())
        buckets = tx.conn.execute(select(held_out_addresses)).all()
    assert len(hashes) == len(drawn)
    assert all(row.bucket == int(row.hash[:2], 16) for row in buckets)
    expected = {
        HOLDOUT.hashes(("email", f"u{number}@example.com"))[0]
        for number, one in enumerate(ids)
        if one in drawn
    }
    assert hashes == expected
    # again: nothing changes
    state(db, *({"user_id": f"u{n}", "email": f"u{n}@example.com"} for n in range(60)))
    assert stored(db) == drawn


def test_whoever_has_an_address_of_the_holdout_later_is_held_out(db: Database) -> None:
    [ann] = make(db, "ann", drawn=True)
    bob, cem, dan = make(db, "bob", "cem", "dan", drawn=False)
    assert [is_held(db, one) for one in (ann, bob, cem, dan)] == [True, False, False, False]
    # Ann replaces her address; Bob gets it later.
    state(db, {"user_id": ann, "email": "new@example.com"})
    state(db, {"user_id": bob, "email": "ann@example.com"})
    assert is_held(db, bob)
    # Cem gets the device that was Bob's before Bob was held out.
    state(db, {"user_id": bob, "removed_tokens": ("token-bob",)})
    assert not is_held(db, cem)
    state(db, {"user_id": cem, "push_tokens": {"token-bob": "ios"}})
    assert is_held(db, cem)
    # Also a new customer with Ann's second address, which she removes.
    state(db, {"user_id": ann, "removed": ("email",)})
    state(db, {"user_id": "eve", "email": "new@example.com"})
    assert is_held(db, "eve")
    # An address of nobody in the holdout changes nothing.
    state(db, {"user_id": dan, "email": "dans@example.com"})
    assert not is_held(db, dan)


@pytest.mark.parametrize("survivor_is_drawn", [False, True])
def test_whoever_joins_a_held_out_profile_is_held_out(
    db: Database, survivor_is_drawn: bool
) -> None:
    anonymous = f"visitor-{survivor_is_drawn}"
    for number in range(100):
        call(db, anonymousId=f"{anonymous}-{number}", traits={"page": "/"})
        visitor = owner(db, "anonymous_id", f"{anonymous}-{number}")
        if HOLDOUT.draws(visitor) != survivor_is_drawn:
            break
    [ann] = make(db, "ann", drawn=survivor_is_drawn)
    call(db, userId=ann, anonymousId=f"{anonymous}-{number}", traits={})
    assert owner(db, "anonymous_id", f"{anonymous}-{number}") == owner(db, "user_id", ann)
    assert is_held(db, ann)
    assert visitor not in stored(db)
    with db.transaction(write=False) as tx:
        of_joins = select(identity_records.c.data).where(identity_records.c.kind == "join")
        [data] = tx.conn.execute(of_joins).scalars()
        moved = data["moved"]
    expected = None if survivor_is_drawn else {"survivor_was": False}
    assert moved.get("held_out") == expected
    # From then on Ann's address holds out whoever has it.
    [bob] = make(db, "bob", drawn=False)
    state(db, {"user_id": ann, "email": "other@example.com"})
    state(db, {"user_id": bob, "email": "ann@example.com"})
    assert is_held(db, bob)


def test_a_hash_by_an_earlier_key_counts(db: Database) -> None:
    [ann] = make(db, "ann", drawn=True)
    [bob] = make(db, "bob", drawn=False)
    state(db, {"user_id": ann, "email": "new@example.com"})
    after = HOLDOUT._replace(keys=(b"another key that is long", *HOLDOUT.keys))
    others = HOLDOUT._replace(keys=(b"another key that is long",))
    assert HOLDOUT.hashes(("email", "a@b.c")) != others.hashes(("email", "a@b.c"))
    state(db, {"user_id": bob, "email": "ann@example.com"}, rules=InputRules(holdout=after))
    assert is_held(db, bob)


def test_profiles_from_before_are_put_into_it(db: Database) -> None:
    people = ({"user_id": f"u{n}", "email": f"u{n}@example.com"} for n in range(40))
    ids = state(db, *people, rules=InputRules())
    assert stored(db) == set()
    assert hold_out_drawn(db, Holdout()) == 0
    drawn = {one for one in ids if HOLDOUT.draws(one)}
    assert hold_out_drawn(db, HOLDOUT, chunk=7) == len(drawn)
    assert stored(db) == drawn
    with db.transaction(write=False) as tx:
        addresses = select(func.count()).select_from(held_out_addresses)
        assert tx.conn.execute(addresses).scalar_one() == len(drawn)
    # again nothing; a higher percentage holds out more, a lower one releases nobody
    assert hold_out_drawn(db, HOLDOUT, chunk=7) == 0
    more = HOLDOUT._replace(percent=60)
    assert hold_out_drawn(db, more) == sum(more.draws(one) for one in ids) - len(drawn)
    assert stored(db) == {one for one in ids if more.draws(one)}
    with db.transaction(write=False) as tx:
        found = load_recipients(tx, Policy(holdout_percent=10), ids)
        off = load_recipients(tx, Policy(), ids)
    assert {one for one in ids if found[one].situation.held_out} == stored(db)
    assert not any(one.situation.held_out for one in off.values())


def test_profiles_that_other_calls_create_are_put_into_it(db: Database) -> None:
    [ann] = make(db, "ann", drawn=True)
    state(db, {"user_id": ann, "email": "new@example.com"})
    for number in range(100):
        [one] = state(db, {"user_id": f"n{number}"}, rules=InputRules())
        if not HOLDOUT.draws(one):
            break
    state(db, {"user_id": f"n{number}", "email": "ann@example.com"}, rules=InputRules())
    assert not is_held(db, f"n{number}")
    hold_out_drawn(db, HOLDOUT)
    assert is_held(db, f"n{number}")


def test_the_held_out_get_no_marketing(house: House) -> None:
    house.open(described(Send("s", Email("hello"))), policy=POLICY)
    with house.db.transaction() as tx:
        report = upsert_people(
            tx,
            [
                Person(user_id=f"u{n}", email=normalise_email(f"u{n}@example.com"))
                for n in range(20)
            ],
            "test",
            rules=house.segue.rules,
        )
        drawn = held_among(tx, [one for one in report.profile_ids if one is not None])
    house.launch("j")
    refused = {row.profile_id for row in house.rows() if row.reason == "held_out"}
    assert refused == drawn
    assert 0 < len(drawn) < 20
    assert len(house.providers.accepted) == 20 - len(drawn)


def test_without_a_holdout_nothing_is_read_or_stored(db: Database) -> None:
    db.now = MONDAY
    with statements(db) as executed:
        state(db, {"user_id": "ann", "email": "ann@example.com"}, rules=InputRules())
    assert not [one for one in executed if "held_out" in one]
    assert stored(db) == set()
