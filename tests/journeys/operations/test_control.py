"""Pause, resume and stop: a paused journey sends nothing and loses no enrollment."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from channels.messages import messages
from channels.outbox.claims import Claim
from channels.outbox.dispatch import Dispatcher
from config.clock.times import DAY, HOUR, format_instant
from config.policy import Policy
from journeys.definition.steps import MessageSpec
from journeys.dsl import Email, Journey, OnEvent, Push, Send, Update, Wait, WaitUntil, did
from journeys.engine.chunks import Chunk
from journeys.engine.entry import enter_people
from journeys.operations import control
from journeys.operations.control import PAUSED, STOPPED, held
from journeys.tables import journey_controls
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import upsert_people
from profiles.tables import profiles
from tests.support.providers.dispatching import DAYTIME
from tests.support.shop import MONDAY, House, described

POLICY = Policy.model_validate(
    {
        "channels": {"email": DAYTIME, "push": DAYTIME},
        "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
    }
)


def sending(name: str, *wanted: MessageSpec, **parts: Any) -> Journey:
    step = Send("s", *(wanted or (Email("hello", after="1h"),)))
    return described(step, name=name, **parts)


def pause(house: House, name: str = "j") -> None:
    control.pause(house.db, name)


def resume(house: House, name: str = "j") -> None:
    control.resume(house.db, name)


def stop(house: House, name: str = "j") -> int:
    return control.stop(house.db, name)


def reported(house: House) -> list[tuple[str, str | None]]:
    return [(one.state, one.reason and one.reason.split(":")[0]) for one in house.outbox()]


# Pause --------------------------------------------------------------------------------------------


def test_a_paused_journey_loses_no_enrollment(house: House) -> None:
    """People at every kind of place when it is paused, and some who come only then."""
    steps = [
        Wait("1h"),
        Send("first", Push("hello", after="1h")),
        WaitUntil("back", did("looked"), timeout="2h"),
        Update("mark", seen=True),
        Send("second", Push("offer")),
    ]
    house.open(sending("j", entry=OnEvent("came"), steps=steps), sending("k", Push("reminder")))
    people = []
    for _ in range(6):
        people.append(house.customer())
        house.did(people[-1], "came")
        house.later("50m")
    assert {person.step for person in house.people()} >= {"wait 1h", "first", "back"}
    assert {person.end_reason for person in house.people()} == {None, "completed"}
    sent = len(house.providers.accepted)
    pause(house)
    for _ in range(2):
        people.append(house.customer())
        house.did(people[-1], "came")
    before = [(person.id, person.step, person.due_at) for person in house.people()]
    house.later("3d")
    # they have come in, and stand where they are; nobody waits for them to fall due
    assert [(one.id, one.step, one.due_at) for one in house.people()[:6]] == before
    assert len(house.people()) == 8
    assert house.segue.engine.next_due() is None
    assert len(house.providers.accepted) == sent
    # another journey goes on
    assert house.launch("k")["sent"]["push"] == 8
    resume(house)
    house.later("1d")
    assert {person.end_reason for person in house.people()} == {"completed"}
    assert [house.attributes(person) for person in people] == [{"seen": True}] * 8
    assert [len(house.outbox(person)) for person in people] == [3] * 8
    assert {one.state for one in house.outbox()} == {"sent"}


def no_consent(house: House) -> None:
    house.say(1, "email", "news", granted=False)


def bought(house: House) -> None:
    house.did(1, "bought")


def another_mail(house: House) -> None:
    house.db.now = MONDAY + 5 * HOUR
    house.launch("k")


def nothing(house: House) -> None:
    """Only time passes."""


@pytest.mark.parametrize(
    ("meanwhile", "message", "resumed", "fate", "went"),
    [
        (nothing, Email("hello", after="1h"), 3 * HOUR, ("sent", None), "2026-03-02T13:00:00Z"),
        # at night it is moved to the morning
        (nothing, Email("hello", after="1h"), 12 * HOUR, ("sent", None), "2026-03-03T08:00:00Z"),
        (nothing, Email("hello", after="1h", max_delay="2h"), 4 * HOUR, ("skipped", "expired"), ""),
        (nothing, Email("hello", after="1h"), 8 * DAY, ("skipped", "expired"), ""),
        (no_consent, Email("hello", after="1h"), 3 * HOUR, ("skipped", "no_consent"), ""),
        (bought, Email("hello", after="1h"), 3 * HOUR, ("cancelled", "exited"), ""),
        (another_mail, Email("hello", after="1h"), 6 * HOUR, ("skipped", "capped"), ""),
        (
            another_mail,
            Email("hello", after="1h", on_cap="defer"),
            6 * HOUR,
            ("sent", None),
            "2026-03-03T08:00:00Z",
        ),
    ],
    ids=["sent", "night", "short delay", "a week", "no consent", "exit", "capped", "deferred"],
)
def test_messages_due_during_a_pause_are_evaluated_again_on_resume(
    house: House,
    meanwhile: Callable[[House], None],
    message: MessageSpec,
    resumed: int,
    fate: tuple[str, str | None],
    went: str,
) -> None:
    rival = sending("k", Email("offer"), priority=90)
    house.open(sending("j", message, exit_when=did("bought")), rival, policy=POLICY)
    house.customer()
    house.launch("j")
    pause(house)
    meanwhile(house)
    house.until(MONDAY + resumed)
    assert reported(house)[0][0] != "sent"
    resume(house)
    house.until(MONDAY + 9 * DAY)
    assert reported(house)[0] == fate
    row = house.rows()[0]
    assert not went or format_instant(row.send_at) == went
    if fate[1] == "expired":
        assert row.reason == "expired: it could not leave within its max_delay"
    assert [one.ended_at is not None for one in house.people()] == [True] * len(house.people())


def test_events_during_a_pause_count(house: House) -> None:
    """The event came in time, but was processed after the timeout."""
    steps = [WaitUntil("back", did("looked"), timeout="2h", then=[Update("yes", looked=True)])]
    house.open(sending("j", steps=steps))
    ann, bob = house.customer(), house.customer()
    house.launch("j")
    pause(house)
    house.later("1h")
    house.did(ann, "looked")
    house.later("5h")
    resume(house)
    house.run()
    assert house.passed(ann)[0] == ("back", "next")
    assert house.passed(bob)[0] == ("back", "timeout")


def test_pausing_twice_and_concurrently(house: House) -> None:
    house.open(sending("j"))
    pause(house)
    house.db.now = MONDAY + 60
    pause(house)
    with house.db.transaction() as tx:
        assert held(tx) == {"j": PAUSED}
        [row] = tx.conn.execute(select(journey_controls))
        assert row.changed_at == MONDAY + 60
    stop(house)
    with house.db.transaction() as tx:
        assert held(tx) == {"j": STOPPED}
    resume(house)
    resume(house)
    with house.db.transaction() as tx:
        assert held(tx) == {}


# Stop ---------------------------------------------------------------------------------------------


def test_stop_ends_all_enrollments_and_refuses_entries(house: House) -> None:
    house.open(sending("j", Push("hello"), Email("hello", after="1h"), entry=OnEvent("came")),
               sending("k"))  # fmt: skip
    ann, bob = house.customer(), house.customer()
    house.did(ann, "came")
    house.run()
    house.launch("k")
    assert stop(house) == 1
    assert stop(house) == 0
    house.did(bob, "came")
    house.later("1d")
    theirs = [person for person in house.people() if person.journey == "j"]
    assert [(one.profile_id, one.end_reason) for one in theirs] == [
        (ann, "the journey was stopped")
    ]
    assert [(row.state, row.reason) for row in house.rows() if row.journey == "j"] == [
        ("sent", None),
        ("cancelled", "the journey was stopped"),
    ]
    # the other journey was let be
    assert {row.state for row in house.rows() if row.journey == "k"} == {"sent"}
    resume(house)
    house.did(bob, "came")
    house.later("1d")
    assert [row.state for row in house.rows(bob) if row.journey == "j"] == ["sent", "sent"]


def test_an_enrollment_that_entered_during_the_stop_ends_at_the_resume(house: House) -> None:
    """Their entry was committed a moment after the stop."""
    house.open(sending("j", Push("hello")))
    ann = house.customer()
    version = house.segue.catalog.journey("j")
    with house.db.transaction() as tx:
        enter_people(tx, version, [ann], None)
    control._hold(house.db, "j", STOPPED)
    house.later("1d")
    assert house.rows() == []
    resume(house)
    house.later("1d")
    assert house.rows() == []
    assert [person.end_reason for person in house.people()] == ["the journey was stopped"]


def test_a_message_being_handed_over_at_a_stop_keeps_its_outcome(house: House) -> None:
    house.open(sending("j", Email("hello")))
    house.customer()

    def stopped() -> None:
        assert stop(house) == 1

    house.providers.meanwhile = stopped
    house.launch("j")
    assert reported(house) == [("sent", None)]
    assert [person.end_reason for person in house.people()] == ["the journey was stopped"]


@pytest.fixture
def half_stopped(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A stop that was killed when it had ended one of three."""
    house.open(sending("j", Push("hello", after="1h")))
    for _ in range(3):
        house.customer()
    house.launch("j")
    end_some = control._end_some
    alive = iter([True, False])

    def killed(chunk: Chunk, name: str) -> int | None:
        if not next(alive):
            raise KeyboardInterrupt
        return end_some(chunk, name)

    with monkeypatch.context() as killing:
        killing.setattr(control, "_end_some", killed)
        killing.setattr("journeys.engine.chunks.LARGEST", 1)
        with pytest.raises(KeyboardInterrupt):
            stop(house)
    assert sorted(reported(house)) == [
        ("cancelled", "the journey was stopped"),
        ("planned", None),
        ("planned", None),
    ]
    return house


def test_a_killed_stop_still_refuses_entries(half_stopped: House) -> None:
    house = half_stopped
    house.later("1d")
    assert house.launch("j", people=1)["entered"] == 0
    assert house.providers.accepted == []
    assert len([one for one in house.people() if one.ended_at is None]) == 2


@pytest.mark.parametrize("then", ["stop", "resume", "a worker"])
def test_a_killed_stop_is_completed_later(half_stopped: House, then: str) -> None:
    house = half_stopped
    match then:
        case "stop":
            assert stop(house) == 2
        case "resume":
            resume(house)
        case _:
            control.finish_stops(house.db)
    house.later("1d")
    assert {one.end_reason for one in house.people()} == {"the journey was stopped"}
    assert reported(house) == [("cancelled", "the journey was stopped")] * 3
    with house.db.transaction() as tx:
        assert held(tx) == ({} if then == "resume" else {"j": STOPPED})


def test_finishing_stops_ends_only_stopped_journeys(house: House) -> None:
    """The journey is resumed during the stop: later entries are kept."""
    house.open(sending("j", Push("hello")), sending("k"))
    house.customer()
    house.launch("j")
    pause(house, "k")
    house.launch("k")
    before = house.people()
    assert control._end_all(house.db, "j") == 0
    control.finish_stops(house.db)
    assert house.people() == before


PEOPLE = 3000


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_stops_concurrent_with_claims(house: House) -> None:
    """Claims lock messages in an order of their own: neither may wait for what the other holds."""
    for name in ("a", "b", "c"):
        claimed = stop_beside_claims(house, name)
        fates = Counter(row.state for row in house.rows() if row.journey == name)
        assert fates == {"sending": claimed, "cancelled": PEOPLE - claimed}
    assert {one.end_reason for one in house.people()} == {"the journey was stopped"}
    assert "cancelled" in fates


def stop_beside_claims(house: House, name: str) -> int:
    """Stop a journey while its messages are claimed; returns how many were claimed."""
    house.open(sending(name))
    people = [
        Person(
            user_id=f"{name}{number}",
            email=normalise_email(f"{name}{number}@example.com"),
            timezone="UTC",
            consent={("email", "*"): True},
        )
        for number in range(PEOPLE)
    ]
    with house.db.transaction() as tx:
        upsert_people(tx, people, "test")
        who = tx.conn.execute(select(profiles.c.id).order_by(profiles.c.id.desc()).limit(PEOPLE))
        enter_people(tx, house.segue.catalog.journey(name), who.scalars().all(), None)
    house.advance()
    # due at different moments, as with windows in many zones
    mixed = update(messages).values(send_at=messages.c.send_at + messages.c.id * 7919 % HOUR)
    with house.db.transaction() as tx:
        tx.conn.execute(mixed.where(messages.c.journey == name))
    house.db.now = house.now + 3 * HOUR
    claimed: list[Claim] = []

    async def work(dispatcher: Dispatcher) -> None:
        def claim() -> None:
            while found := dispatcher._claim(["email"], None).claims:
                claimed.extend(found)

        claiming = asyncio.create_task(asyncio.to_thread(claim))
        while not claimed:
            await asyncio.sleep(0.001)
        assert await asyncio.to_thread(stop, house, name) == PEOPLE
        await claiming

    house.dispatching(work)
    return len(claimed)
