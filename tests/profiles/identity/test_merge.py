"""Merging two profiles: events, consent, enrollments, messages, and the record that undoes it."""

from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import Table, delete, insert, select, update

from channels.messages import messages
from config.clock.times import DAY, HOUR, days
from config.database.engine import Database, Tx
from config.policy import Policy
from journeys.dsl import (
    SMS,
    Email,
    Journey,
    OnEvent,
    OnLaunch,
    Send,
    Wait,
    WaitUntil,
    attribute,
    did,
)
from journeys.engine.advance import Engine
from journeys.engine.events import react
from journeys.enrollments import enrollments
from journeys.operations.merge import merge
from journeys.operations.unmerge import unmerge
from journeys.tables import passages
from profiles.bucketing import bucket_of
from profiles.calls.record_calls import take_calls
from profiles.calls.segment_calls import read_call
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import NewEvent, record_events
from profiles.identity.mergers import Merger
from profiles.identity.survivors import survivors
from profiles.rules import DEFAULT_RULES
from profiles.tables import (
    consent_records,
    consents,
    events,
    identifiers,
    identity_records,
    merges,
    preferences,
    profiles,
)
from tests.support.shop import MONDAY, House, advance

ONE_A_DAY = Policy.model_validate({"caps": [{"channels": ["email"], "limit": 1, "per": "day"}]})
HELLO = Journey(
    "hello",
    entry=OnEvent("signed_up", again="always"),
    topic="news",
    steps=[Send("hello", Email("hello"))],
)
CART = Journey(
    "cart",
    entry=OnEvent("cart_abandoned", key="cart_id", again=days(7)),
    exit_when=did("order_completed"),
    topic="news",
    steps=[Wait("1d", "a day"), Send("offer", SMS("offer"))],
)
LAUNCHED = Journey(
    "launched", entry=OnLaunch(again="always"), topic="news", steps=[Wait("1d", "a day")]
)


@pytest.fixture
def house(db: Database) -> House:
    house = House(db)
    house.open(HELLO, CART, LAUNCHED, policy=ONE_A_DAY)
    return house


def nobody(house: House, name: str = "anon") -> int:
    """An anonymous profile."""
    return house.customer(name, user_id=None, anonymous_id=f"a-{name}")


def merged(house: House, *pairs: tuple[int, int]) -> None:
    with house.db.transaction() as tx:
        merge(
            tx, [Merger(from_id=from_id, into_id=into_id, why="test") for from_id, into_id in pairs]
        )


def rows(db: Database, table: Table) -> list[dict[str, Any]]:
    with db.transaction(write=False) as tx:
        found = tx.conn.execute(select(table).order_by(*table.primary_key)).mappings()
        return [
            {name: value for name, value in row.items() if name != "origin_id"} for row in found
        ]


def moved_by(house: House) -> dict[str, Any]:
    """What the only join moved."""
    [record] = [row for row in rows(house.db, identity_records) if row["kind"] == "join"]
    moved: dict[str, Any] = record["data"]["moved"]
    return moved


# One person in journeys and caps ------------------------------------------------------------------


def test_caps_count_messages_of_both_profiles(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann")
    house.did(anon, "signed_up")
    house.run()
    merged(house, (anon, ann))
    house.did(ann, "signed_up")
    house.run()
    assert [(one.state, one.reason) for one in house.outbox(ann)] == [
        ("sent", None),
        ("skipped", "capped"),
    ]


def test_the_later_of_two_enrollments_in_one_journey_ends(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann")
    house.did(anon, "cart_abandoned", cart_id="c1")
    house.run()
    house.later("1h")
    house.did(ann, "cart_abandoned", cart_id="c1")
    house.did(ann, "cart_abandoned", cart_id="c2")
    house.run()
    merged(house, (anon, ann))
    [first, later, other] = house.people(ann)
    assert (first.ended_at, other.ended_at) == (None, None)
    assert (later.ended_at, later.end_reason, later.due_at) == (MONDAY + HOUR, "merged", None)
    house.later("2d")
    texts = [one.to for one in house.providers.accepted]
    assert len(texts) == 2
    assert house.people(ann)[0].end_reason == "completed"


def test_the_later_enrollment_ends_whichever_profile_it_was(house: House) -> None:
    ann = house.customer("ann")
    house.did(ann, "cart_abandoned", cart_id="c1")
    house.run()
    house.later("1h")
    anon = nobody(house)
    house.did(anon, "cart_abandoned", cart_id="c1")
    house.run()
    merged(house, (anon, ann))
    assert [one.end_reason for one in house.people(ann)] == [None, "merged"]


def test_messages_planned_by_the_ended_enrollment_are_cancelled(house: House) -> None:
    policy = Policy.model_validate(
        {"channels": {"email": {"windows": [{"days": "tue", "from": "09:00", "to": "12:00"}]}}}
    )
    waiting = Journey(
        "hello",
        entry=OnEvent("signed_up", again="always"),
        topic="news",
        steps=[Send("hello", Email("hello")), Wait("9d", "long")],
    )
    house.open(waiting, policy=policy)
    anon, ann = nobody(house), house.customer("ann")
    for one in (ann, anon):
        house.did(one, "signed_up")
        house.run()
        house.later("1h")
    merged(house, (anon, ann))
    assert [(one.state, one.reason) for one in house.outbox(ann)] == [
        ("planned", None),
        ("cancelled", "merged"),
    ]


def test_events_of_one_profile_end_journeys_of_the_other(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann")
    house.did(anon, "cart_abandoned", cart_id="c1")
    house.run()
    house.later("1h")
    house.did(ann, "order_completed")
    house.run()
    merged(house, (anon, ann))
    house.run()
    assert [one.end_reason for one in house.people(ann)] == ["exited: exit rule"]


def test_the_reentry_rule_counts_both_profiles(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann")
    house.did(anon, "cart_abandoned", cart_id="c1")
    house.later("2d")
    merged(house, (anon, ann))
    house.did(ann, "cart_abandoned", cart_id="c1")
    house.run()
    assert len(house.people(ann)) == 1


def test_a_merged_profile_does_not_enter_a_launch_again(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann")
    house.launch("launched", launch_id="spring")
    merged(house, (anon, ann))
    assert [(one.launch_id, one.end_reason) for one in house.people(ann)] == [
        (None, None),
        ("spring", "merged"),
    ]
    assert moved_by(house)["launches"] == [[1, "spring"]]
    house.launch("launched", launch_id="spring")
    assert len(house.people(ann)) == 2


def test_an_event_of_both_profiles_is_kept_once(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann")
    with house.db.transaction() as tx:
        for one in (anon, ann):
            event = NewEvent(
                profile_id=one,
                name="cart_abandoned",
                occurred_at=MONDAY,
                dedupe_key="m1",
                properties={"cart_id": f"c-{one}"},
            )
            record_events(tx, [event], worked=False)
    house.run()
    merged(house, (anon, ann))
    [kept, _] = rows(house.db, events)
    assert (kept["profile_id"], kept["dedupe_key"]) == (ann, "m1")
    assert [one["dedupe_key"] for one in moved_by(house)["events_dropped"]] == ["m1"]
    assert {one.entry_event_id for one in house.people(ann)} == {kept["id"]}


# One person on record -----------------------------------------------------------------------------


def consent(house: House, profile_id: int, when: int, *, yes: bool, topic: str = "news") -> None:
    with house.db.transaction() as tx:
        said = ConsentChange(
            profile_id=profile_id, channel="email", topic=topic, granted=yes, occurred_at=when
        )
        change_consent(tx, [said], "test")


@pytest.mark.parametrize("no_is_later", [True, False])
@pytest.mark.parametrize("no_is_theirs", [True, False])
def test_a_no_wins(house: House, no_is_later: bool, no_is_theirs: bool) -> None:
    anon, ann = nobody(house), house.customer("ann")
    said_no, said_yes = (anon, ann) if no_is_theirs else (ann, anon)
    consent(house, said_no, MONDAY + (DAY if no_is_later else -DAY), yes=False)
    consent(house, said_yes, MONDAY, yes=True)
    merged(house, (anon, ann))
    [row] = [row for row in rows(house.db, consents) if row["topic"] == "news"]
    assert (row["profile_id"], row["granted"]) == (ann, False)
    said = [one for one in rows(house.db, consent_records) if one["topic"] == "news"]
    assert {one["profile_id"] for one in said} == {ann}
    turned = [one for one in said if one["source"] == "two profiles became one: the no holds"]
    assert [one["granted"] for one in turned] == ([False] if no_is_theirs else [])


@pytest.mark.parametrize("granted", [True, False, None])
@pytest.mark.parametrize("taken_back_is_theirs", [True, False])
def test_a_withdrawn_yes_stays_withdrawn_after_a_merge(
    house: House, taken_back_is_theirs: bool, granted: bool | None
) -> None:
    """It outweighs a yes, and a no outweighs it."""
    anon, ann = nobody(house), house.customer("ann", consent={})
    took_back, other = (anon, ann) if taken_back_is_theirs else (ann, anon)
    for who, said in ((took_back, True), (took_back, None), (other, granted)):
        house.db.now = house.now + 1
        with house.db.transaction() as tx:
            change = ConsentChange(
                profile_id=who, channel="sms", topic="*", granted=said, just_now=True
            )
            change_consent(tx, [change], "test")
    merged(house, (anon, ann))
    texts = [row for row in rows(house.db, consents) if row["channel"] == "sms"]
    left = [(row["profile_id"], row["granted"]) for row in texts]
    assert left == ([(ann, False)] if granted is False else [])
    with house.db.transaction() as tx:
        yes = ConsentChange(profile_id=ann, channel="sms", topic="*", granted=True)
        assert change_consent(tx, [yes], "an old list").overruled == [yes]


def test_the_later_of_two_equal_statements_is_kept(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann")
    consent(house, anon, MONDAY - 5, yes=True)
    consent(house, ann, MONDAY - 10, yes=True)
    consent(house, anon, MONDAY, yes=False, topic="promotions")
    merged(house, (anon, ann))
    said = {row["topic"]: row for row in rows(house.db, consents) if row["channel"] == "email"}
    assert said["news"]["changed_at"] == MONDAY - 5
    assert said["promotions"]["granted"] is False
    assert {row["profile_id"] for row in said.values()} == {ann}


def test_values_of_the_surviving_profile_win(house: House) -> None:
    anon = nobody(house)
    ann = house.customer("ann", timezone=None, country="GB", attributes={"plan": "a", "size": 1})
    house.change(anon, plan="b", colour="red")
    merged(house, (anon, ann))
    [row] = rows(house.db, profiles)
    assert row["attributes"] == {"plan": "a", "size": 1, "colour": "red"}
    assert (row["id"], row["timezone"], row["country"]) == (ann, "UTC", "GB")
    assert {one["profile_id"] for one in rows(house.db, identifiers)} == {ann}


@pytest.mark.parametrize(("theirs", "ours", "holds"), [(1, 2, 20), (2, 1, 10), (1, None, 10)])
def test_the_latest_preferences_win(
    house: House, theirs: int, ours: int | None, holds: int
) -> None:
    anon, ann = nobody(house), house.customer("ann")
    with house.db.transaction() as tx:
        chosen = [{"profile_id": anon, "per_week": 10, "changed_at": theirs}]
        if ours is not None:
            chosen.append({"profile_id": ann, "per_week": 20, "changed_at": ours})
        tx.conn.execute(insert(preferences), chosen)
    merged(house, (anon, ann))
    [row] = rows(house.db, preferences)
    assert (row["profile_id"], row["per_week"]) == (ann, holds)


def test_a_preference_that_the_later_profile_does_not_set_is_kept(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann", language="en")
    tokyo = {"timezone": "Asia/Tokyo", "language": None, "opens": 1, "closes": 2, "changed_at": 1}
    german = {"timezone": None, "language": "de", "opens": None, "closes": None, "changed_at": 2}
    for before, after in ((tokyo, german), (german, tokyo)):
        with house.db.transaction() as tx:
            tx.conn.execute(delete(preferences))
            for whose, row in ((anon, before), (ann, after)):
                tx.conn.execute(insert(preferences).values(profile_id=whose, **row))
        merged(house, (anon, ann))
        both = {"timezone": "Asia/Tokyo", "language": "de", "opens": 1, "closes": 2}
        expected = {"profile_id": ann, "per_week": None, **both, "changed_at": 2} | {
            "bucket": bucket_of(ann)
        }
        assert rows(house.db, preferences) == [expected]
        anon = nobody(house, "again")


def test_several_profiles_merge_at_once(house: House) -> None:
    ann = house.customer("ann")
    others = [nobody(house, f"n{number}") for number in range(3)]
    bob, bobs = house.customer("bob"), nobody(house, "n9")
    for one in (*others, bobs):
        house.did(one, "cart_abandoned", cart_id="c1")
    house.run()
    merged(house, *((one, ann) for one in others), (bobs, bob))
    assert {row["id"] for row in rows(house.db, profiles)} == {ann, bob}
    assert sorted(str(one.end_reason) for one in house.people(ann)) == ["None", "merged", "merged"]
    assert [one.end_reason for one in house.people(bob)] == [None]


def test_the_id_of_a_merged_profile_leads_to_the_survivor(house: House) -> None:
    first, second, third = nobody(house, "x"), nobody(house, "y"), house.customer("z")
    merged(house, (first, second))
    merged(house, (second, third))
    with house.db.transaction() as tx:
        assert survivors(tx, [first, second, third, 99]) == {first: third, second: third}


def newest_join(tx: Tx) -> int:
    c = identity_records.c
    found = select(c.id).where(c.kind == "join").order_by(c.id.desc()).limit(1)
    return int(tx.conn.execute(found).scalar_one())


# Undoing ------------------------------------------------------------------------------------------


def test_an_undo_leaves_the_rows_from_before_the_join(house: House) -> None:
    anon, ann = nobody(house), house.customer("ann", attributes={"plan": "a"})
    consent(house, anon, MONDAY, yes=False)
    consent(house, ann, MONDAY + 1, yes=True)
    house.did(anon, "signed_up")
    house.did(ann, "cart_abandoned", cart_id="c1")
    house.did(anon, "cart_abandoned", cart_id="c2")
    house.run()
    house.launch("launched", launch_id="spring")
    with house.db.transaction() as tx:
        tx.conn.execute(
            update(enrollments)
            .where(enrollments.c.profile_id == anon, enrollments.c.journey == "launched")
            .values(ended_at=tx.now, due_at=None, end_reason="completed")
        )
        chosen = [
            {"profile_id": one, "per_week": one, "language": f"l{one}", "changed_at": MONDAY - one}
            for one in (anon, ann)
        ]
        tx.conn.execute(insert(preferences), chosen)
        for one in (anon, ann):
            record_events(
                tx,
                [
                    NewEvent(
                        profile_id=one,
                        name="y",
                        occurred_at=MONDAY,
                        dedupe_key="both",
                        properties={"of": one},
                    )
                ],
                worked=True,
            )
    tables = [
        *(profiles, identifiers, consents, consent_records, preferences, events),
        *(enrollments, passages, messages),
    ]

    def stored() -> dict[str, list[dict[str, Any]]]:
        """The rows, without the statements and events that joins and their undoing add."""
        added = ("two profiles became one", "the join ", "undo of join")
        return {
            table.name: [
                {name: value for name, value in row.items() if name != "updated_at"}
                for row in rows(house.db, table)
                if not str(row.get("source", row.get("dedupe_key"))).startswith(added)
            ]
            for table in tables
        }

    before = stored()
    merged(house, (anon, ann))
    assert before != stored()
    with house.db.transaction() as tx:
        unmerge(tx, newest_join(tx), DEFAULT_RULES, "test")
    after = stored()
    for row in before["consent"]:
        if (row["profile_id"], row["channel"], row["topic"]) == (ann, "email", "news"):
            row |= {"granted": False, "changed_at": MONDAY}  # the other one's no stays with both
    assert before == after


# At once with everything else ---------------------------------------------------------------------


def test_merges_concurrent_with_running_journeys(db: Database) -> None:
    """Reactions, moves and merges at once: no deadlock, and no row without a profile."""
    journey = Journey(
        "busy",
        entry=OnEvent("came", again="always"),
        exit_when=did("left"),
        topic="news",
        steps=[
            WaitUntil("a plan", attribute("plan") == "a", timeout=days(1)),
            Send("hello", Email("hello")),
            Wait("1d", "a day"),
        ],
    )
    house = House(db)
    segue = house.open(journey, policy=ONE_A_DAY)
    people = [house.customer(f"u{number}") for number in range(12)]
    stop, trouble = Event(), []

    def work() -> None:
        engine = Engine(db, segue.catalog, segue.engine.planner)
        while not stop.is_set():
            try:
                with db.transaction() as tx:
                    react(tx, segue.catalog, 20)
                advance(engine)
            except Exception as error:
                trouble.append(error)

    def sign_in(number: int) -> None:
        said: list[dict[str, Any]] = []
        for who in range(len(people)):
            anonymous = f"a{number}-{who}"
            said += [
                {"kind": "track", "anonymousId": anonymous, "event": "came"},
                {"kind": "track", "userId": f"u{who}", "event": "came"},
                {
                    "kind": "identify",
                    "userId": f"u{who}",
                    "anonymousId": anonymous,
                    "traits": {"plan": "ab"[who % 2]},
                },
                {"kind": "track", "userId": f"u{who}", "event": "left" if who % 3 == 0 else "x"},
            ]
        for start in range(0, len(said), 2):
            calls = [
                read_call(one["kind"], {**one, "messageId": f"{number} {start} {place}"})
                for place, one in enumerate(said[start : start + 2])
            ]
            with db.transaction() as tx:
                take_calls(tx, calls, merge)

    workers = [Thread(target=work) for _ in range(2)]
    visitors = [Thread(target=sign_in, args=(number,)) for number in range(2)]
    for thread in (*workers, *visitors):
        thread.start()
    for thread in visitors:
        thread.join()
    stop.set()
    for thread in workers:
        thread.join()
    house.run()

    assert trouble == []
    assert {row["id"] for row in rows(db, profiles)} == set(people)
    for table in (events, enrollments, passages, messages, identifiers, consents):
        owners = {row["profile_id"] for row in rows(db, table)}
        assert owners
        assert owners <= set(people)
    current = [row["profile_id"] for row in rows(db, enrollments) if row["ended_at"] is None]
    assert len(current) == len(set(current))
    assert len(rows(db, merges)) == 2 * len(people)
