"""Segment's calls in the database: profiles, events, and each call once."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from config.clock.times import Instant, parse_instant
from config.database.engine import Database
from config.errors import SegueError
from config.join_rules import JoinRules
from journeys.operations.merge import merge
from profiles.calls.record_calls import Outcome, take_calls
from profiles.calls.segment_calls import CallKind, read_call
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import PROFILE_CHANGED
from profiles.rules import InputRules
from profiles.tables import consents, events, identifiers, merges, profiles

NOW: Instant = parse_instant("2026-03-02T10:00:00Z")
Said = tuple[CallKind, dict[str, Any]]


def take(db: Database, *said: Said, at: Instant = NOW) -> list[Outcome]:
    db.now = at
    with db.transaction() as tx:
        return take_calls(tx, [read_call(kind, fields) for kind, fields in said], merge)


def track(who: str, **said: Any) -> Said:
    return "track", {"userId": who, "event": "x", **said}


def identify(who: str | None, **said: Any) -> Said:
    return "identify", {"userId": who, **said}


def known_as(db: Database) -> dict[tuple[str, str], int]:
    with db.transaction(write=False) as tx:
        return {
            (row.kind, row.value): row.profile_id for row in tx.conn.execute(select(identifiers))
        }


def happened(db: Database) -> list[tuple[int, str, str]]:
    """(profile, event, key) in order."""
    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(events).order_by(events.c.id))
        return [(row.profile_id, row.name, row.dedupe_key) for row in rows]


def attributes(db: Database, profile_id: int) -> dict[str, Any]:
    with db.transaction(write=False) as tx:
        found = select(profiles.c.attributes).where(profiles.c.id == profile_id)
        said: dict[str, Any] = tx.conn.execute(found).scalar_one()
        return said


def count(db: Database, table: Any) -> int:
    with db.transaction(write=False) as tx:
        return tx.conn.execute(select(func.count()).select_from(table)).scalar_one()


def refused(outcomes: Iterable[Outcome]) -> list[str]:
    return [one.refused.field for one in outcomes if one.refused is not None]


def test_an_event_creates_its_profile(db: Database) -> None:
    [outcome] = take(
        db,
        track(
            "u1",
            anonymousId="a1",
            event="cart_abandoned",
            properties={"cart_id": "c1", "text": "Grüße 🎉"},
            timestamp="2026-03-02T09:59:00Z",
            messageId="m1",
        ),
    )
    assert outcome == Outcome([])
    with db.transaction(write=False) as tx:
        [event] = tx.conn.execute(select(events)).all()
    assert (event.name, event.dedupe_key) == ("cart_abandoned", "m1")
    assert (event.occurred_at, event.received_at, event.worked_at) == (NOW - 60, NOW, None)
    assert event.properties == {"cart_id": "c1", "text": "Grüße 🎉"}
    assert known_as(db) == {
        ("user_id", "u1"): event.profile_id,
        ("anonymous_id", "a1"): event.profile_id,
    }


def test_the_same_call_again_changes_nothing(db: Database) -> None:
    calls = [
        track("u1", messageId="m1"),
        identify("u1", traits={"plan": "a"}, messageId="m2"),
        ("alias", {"userId": "u1", "previousId": "a1", "messageId": "m3"}),
        ("page", {"userId": "u1", "name": "Cart", "timestamp": "2026-03-02T09:00:00Z"}),
    ]
    take(db, *calls)
    before = happened(db), known_as(db), count(db, merges)
    take(db, *calls, *calls, at=NOW + 100)
    assert (happened(db), known_as(db), count(db, merges)) == before
    assert len(before[0]) == 4


def test_a_repeated_call_does_not_undo_later_ones(db: Database) -> None:
    first = identify("u1", traits={"plan": "a"}, messageId="m1")
    second = identify("u1", traits={"plan": "b"}, messageId="m2")
    take(db, first)
    take(db, second, first)
    take(db, first)
    assert attributes(db, known_as(db)["user_id", "u1"]) == {"plan": "b"}
    # nor do events, which tell of people in their context
    before = track("u3", messageId="m5", context={"timezone": "Europe/Paris", "locale": "fr"})
    take(db, before)
    take(db, identify("u3", messageId="m6", traits={"timezone": "Asia/Tokyo", "language": "ja"}))
    take(db, before)
    with db.transaction(write=False) as tx:
        u3 = tx.conn.execute(
            select(profiles).where(profiles.c.id == known_as(db)["user_id", "u3"])
        ).one()
    assert (u3.timezone, u3.language) == ("Asia/Tokyo", "ja")
    # nor within one transaction
    take(
        db,
        identify("u2", traits={"plan": "a"}, messageId="m3"),
        identify("u2", traits={"plan": "b"}, messageId="m4"),
        identify("u2", traits={"plan": "a"}, messageId="m3"),
    )
    assert attributes(db, known_as(db)["user_id", "u2"]) == {"plan": "b"}


def test_identify_makes_journeys_evaluate_conditions_again(db: Database) -> None:
    take(db, identify("u1", traits={"plan": "a"}, messageId="m1"))
    [(_, name, key)] = happened(db)
    assert (name, key) == (PROFILE_CHANGED, "m1")


@pytest.mark.parametrize("kind", ["track", "page", "screen"])
@pytest.mark.parametrize(
    "context",
    [
        {"device": {"token": "t1", "type": "ios"}},
        {"locale": "de-DE"},
        {"timezone": "Asia/Tokyo"},
    ],
    ids=lambda context: next(iter(context)),
)
def test_traits_in_an_event_make_journeys_evaluate_again(
    db: Database, kind: CallKind, context: dict[str, Any]
) -> None:
    said = {"userId": "u1", "event": "x", "context": context}
    take(db, identify("u1", messageId="m0"))
    take(db, (kind, said | {"messageId": "m1"}))
    changed = [key for _, name, key in happened(db) if name == PROFILE_CHANGED]
    assert changed == ["m0", "m1 changed the profile"]
    # neither the same call again, nor one that says what is known, beside another or alone
    before = len(happened(db))
    take(db, (kind, said | {"messageId": "m1"}), (kind, said | {"messageId": "m2"}))
    take(db, identify("u1", traits={"plan": "a"}), (kind, said | {"messageId": "m3"}), at=NOW + 60)
    assert len(happened(db)) == before + 3


def test_traits_in_an_event_of_a_new_profile_are_a_change(db: Database) -> None:
    take(db, track("u1", messageId="m1"), track("u2", messageId="m2", context={"locale": "de"}))
    assert [(name, key) for _, name, key in happened(db)] == [
        ("x", "m1"),
        ("x", "m2"),
        (PROFILE_CHANGED, "m2 changed the profile"),
    ]


def test_a_null_trait_removes_the_attribute(db: Database) -> None:
    take(db, identify("u1", traits={"plan": "a", "size": 3}, messageId="m1"))
    take(db, identify("u1", traits={"plan": None}, messageId="m2"))
    assert attributes(db, known_as(db)["user_id", "u1"]) == {"size": 3}


def test_an_anonymous_customer_who_signs_in_brings_what_they_did(db: Database) -> None:
    take(db, track("u1", messageId="m1"))
    take(db, ("track", {"anonymousId": "a1", "event": "y", "messageId": "m2"}))
    take(db, identify("u1", anonymousId="a1", messageId="m3"))
    customer = known_as(db)["user_id", "u1"]
    assert known_as(db)["anonymous_id", "a1"] == customer
    assert {profile_id for profile_id, _, _ in happened(db)} == {customer}
    assert count(db, profiles) == 1
    assert ("y", "m2") in [(name, key) for _, name, key in happened(db)]


def test_calls_of_one_batch_are_recorded_in_order(db: Database) -> None:
    take(db, track("u1", messageId="m0"))
    outcomes = take(
        db,
        ("track", {"anonymousId": "a1", "event": "y", "messageId": "m1"}),
        ("track", {"anonymousId": "a2", "event": "y", "messageId": "m2"}),
        identify("u1", anonymousId="a1", messageId="m3"),
        identify("u1", anonymousId="a2", traits={"email": "ann@example.com"}, messageId="m4"),
        ("track", {"anonymousId": "a2", "event": "z", "messageId": "m5"}),
    )
    assert refused(outcomes) == []
    assert len(set(known_as(db).values())) == 1
    assert len(happened(db)) == 6


def test_two_customers_are_not_joined_by_an_anonymous_id(db: Database) -> None:
    take(db, identify("ann", anonymousId="a1", messageId="m1"))
    [kept, told] = take(
        db,
        track("bob", anonymousId="a1", messageId="m2"),
        identify("bob", anonymousId="a1", traits={"plan": "b"}, messageId="m3"),
    )
    left_out = ["anonymousId is left out: it belongs to another customer"]
    assert kept == told == Outcome(left_out)
    known = known_as(db)
    assert known["user_id", "ann"] == known["anonymous_id", "a1"] != known["user_id", "bob"]
    bob = known["user_id", "bob"]
    assert happened(db)[1:] == [(bob, "x", "m2"), (bob, PROFILE_CHANGED, "m3")]
    assert attributes(db, bob) == {"plan": "b"}


def test_the_address_of_another_profile_is_ignored(db: Database) -> None:
    take(db, identify("ann", traits={"email": "ann@example.com", "phone": "+447700900001"}))
    [outcome] = take(
        db,
        identify(
            "bob",
            traits={"email": "ANN@example.com", "phone": "+44 7700 900001", "plan": "b"},
        ),
    )
    assert outcome.warnings == [
        "traits.email is left out: it belongs to another customer",
        "traits.phone is left out: it belongs to another customer",
    ]
    assert attributes(db, known_as(db)["user_id", "bob"]) == {"plan": "b"}
    assert known_as(db)["email", "ann@example.com"] == known_as(db)["user_id", "ann"]


def test_a_device_belongs_to_the_last_profile_that_signed_in(db: Database) -> None:
    device = {"device": {"token": "t1", "type": "android"}}
    take(db, track("ann", context=device))
    take(db, track("bob", context=device))
    assert known_as(db)["push_token", "t1"] == known_as(db)["user_id", "bob"]
    outcomes = take(
        db, track("bob", context=device, messageId="1"), track("ann", context=device, messageId="2")
    )
    assert refused(outcomes) == []
    assert known_as(db)["push_token", "t1"] == known_as(db)["user_id", "ann"]


def test_a_repeated_call_does_not_move_identifiers_back(db: Database) -> None:
    device = {"device": {"token": "t1", "type": "android"}}
    take(db, track("ann", context=device, messageId="1"))
    take(db, track("bob", context=device, messageId="2"))
    take(db, track("ann", context=device, messageId="1"))
    assert known_as(db)["push_token", "t1"] == known_as(db)["user_id", "bob"]


def test_after_an_alias_both_ids_name_the_profile(db: Database) -> None:
    take(db, track("old", messageId="m1"), track("new", messageId="m2"))
    take(db, ("alias", {"userId": "new", "previousId": "old", "messageId": "m3"}))
    take(db, track("old", messageId="m4"), track("new", messageId="m5"))
    assert len(set(known_as(db).values())) == 1
    assert [key for _, _, key in happened(db)] == ["m1", "m2", "merge of 1", "m3", "m4", "m5"]
    assert count(db, profiles) == 1


def test_an_alias_may_name_an_unknown_id(db: Database) -> None:
    take(db, track("old", messageId="m1"))
    take(db, ("alias", {"userId": "new", "previousId": "old", "anonymousId": "a1"}))
    take(db, ("alias", {"userId": "new", "previousId": "older"}))
    take(db, ("track", {"anonymousId": "older", "event": "y"}))
    assert set(known_as(db)) == {
        ("user_id", "old"),
        ("user_id", "new"),
        ("anonymous_id", "a1"),
        ("anonymous_id", "older"),
    }
    assert len(set(known_as(db).values())) == 1


def test_an_alias_may_name_a_profile_created_in_the_same_batch(db: Database) -> None:
    alias: Said = "alias", {"userId": "new", "previousId": "old", "messageId": "m3"}
    take(db, track("new", messageId="m1"), track("old", messageId="m2"), alias)
    assert set(known_as(db)) == {("user_id", "new"), ("user_id", "old")}
    assert len(set(known_as(db).values())) == 1
    before = happened(db)
    take(db, track("old", messageId="m2"), alias)
    assert happened(db) == before


def test_an_opt_out_by_an_old_link_reaches_the_surviving_profile(db: Database) -> None:
    take(db, ("track", {"anonymousId": "a1", "event": "y"}), track("u1"))
    before = known_as(db)["anonymous_id", "a1"]
    take(db, identify("u1", anonymousId="a1"))
    after = known_as(db)["user_id", "u1"]
    with db.transaction() as tx:
        stop = ConsentChange(
            profile_id=before, channel="sms", topic="*", granted=False, occurred_at=NOW
        )
        here_too = ConsentChange(
            profile_id=after, channel="sms", topic="*", granted=True, occurred_at=NOW
        )
        change_consent(tx, [stop, here_too], "test")
        said = tx.conn.execute(select(consents)).all()
    assert [(row.profile_id, row.granted) for row in said] == [(after, False)]


def test_the_number_of_a_merged_profile_is_not_reused(db: Database) -> None:
    take(db, track("u1"))
    take(db, ("track", {"anonymousId": "a1", "event": "y"}))
    gone = known_as(db)["anonymous_id", "a1"]
    take(db, identify("u1", anonymousId="a1"))
    take(db, track("u2"))
    assert known_as(db)["user_id", "u2"] != gone


_NO_LIMITS = InputRules(joins=JoinRules.model_validate({"limits": {"anonymous_id": "none"}}))


def test_concurrent_processes_may_join_the_same_profiles(db: Database) -> None:
    """Anonymous profiles sign in, in any order, while their events arrive: no profile is split."""
    people = range(6)
    take(db, *(track(f"u{n}", messageId=f"first {n}") for n in people))
    db.now = NOW

    def one_process(process: int) -> list[str]:
        found: list[str] = []
        for turn in range(8):
            n = (process * 5 + turn) % len(people)
            calls: list[Said] = [
                (
                    "track",
                    {"anonymousId": f"a{n}-{turn}", "event": "y", "messageId": f"{process} {turn}"},
                ),
                identify(f"u{n}", anonymousId=f"a{n}-{turn}", messageId=f"in {process} {turn}"),
                track(
                    f"u{(n + 1) % len(people)}",
                    anonymousId=f"a{(n + 1) % len(people)}-{turn}",
                    messageId=f"on {process} {turn}",
                ),
            ]
            for some in (calls[:1], calls[1:]):
                with db.transaction() as tx:
                    read = [read_call(*said) for said in some]
                    found += refused(take_calls(tx, read, merge, _NO_LIMITS))
        return found

    with ThreadPoolExecutor(4) as pool:
        assert [one for found in pool.map(one_process, range(4)) for one in found] == []
    known = known_as(db)
    for (kind, value), owner in known.items():
        if kind == "anonymous_id":
            assert owner == known["user_id", f"u{value[1]}"]
    assert count(db, profiles) == len(people)
    keys = [key for _, _, key in happened(db) if not key.startswith("merge of")]
    assert len(keys) == len(set(keys)) == len(people) + 4 * 8 * 3
    assert {owner for owner, _, _ in happened(db)} == set(known.values())


def test_a_profile_deleted_by_hand_is_reported(postgresql_url: str) -> None:
    db = Database(postgresql_url)
    take(db, track("u1"))
    with db.transaction() as tx:
        tx.conn.execute(delete(profiles))
    with pytest.raises(
        SegueError, match=r"refer to the profiles \[1\], of which at least one does not exist"
    ):
        take(db, track("u1"))
    db.close()
