"""Pause, resume, stop: a paused journey sends nothing and loses nobody."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from config.policy import Policy
from config.times import DAY, HOUR, format_instant
from journeys import control
from journeys.control import PAUSED, STOPPED, held
from journeys.entry import enter_people
from journeys.journey import Journey, OnEvent, OnLaunch, journey
from journeys.steps import Email, Message, Push, Send, Update, Wait, WaitUntil
from journeys.tables import journey_controls
from profiles.conditions import did
from profiles.consent import ConsentChange, change_consent
from tests.house import MONDAY, House

DAYTIME = {"windows": [{"days": "mon-sun", "from": "08:00", "to": "20:00"}]}
POLICY = Policy.model_validate(
    {
        "channels": {"email": DAYTIME, "push": DAYTIME},
        "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
    }
)


def sending(name: str, *wanted: Message, **options: object) -> Journey:
    steps = [Send("s", *(wanted or (Email("hello", after="1h"),)))]
    parts = {"entry": OnLaunch(), "topic": "news", "steps": steps}
    return journey(name, **{**parts, **options})


def pause(house: House, name: str = "j") -> None:
    with house.db.transaction() as tx:
        control.pause(tx, name)


def resume(house: House, name: str = "j") -> None:
    with house.db.transaction() as tx:
        control.resume(tx, name)


def stop(house: House, name: str = "j") -> int:
    with house.db.transaction() as tx:
        return control.stop(tx, name)


def told(house: House) -> list[tuple[str, str | None]]:
    return [(one.state, one.reason and one.reason.split(":")[0]) for one in house.outbox()]


# Pause --------------------------------------------------------------------------------------------


def test_a_paused_journey_loses_nobody(house: House) -> None:
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
    with house.db.transaction() as tx:
        change_consent(tx, [ConsentChange(1, "email", "news", False, tx.now)], "test")  # noqa: FBT003


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
def test_what_came_due_meanwhile_is_looked_at_again_on_resume(
    house: House,
    meanwhile: Callable[[House], None],
    message: Message,
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
    assert told(house)[0][0] != "sent"
    resume(house)
    house.until(MONDAY + 9 * DAY)
    assert told(house)[0] == fate
    row = house.rows()[0]
    assert not went or format_instant(row.send_at) == went
    if fate[1] == "expired":
        assert row.reason == "expired: it could not leave within its max_delay"
    assert [one.ended_at is not None for one in house.people()] == [True] * len(house.people())


def test_what_people_did_meanwhile_counts(house: House) -> None:
    """The event came in time; nobody looked until it was too late."""
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


def test_holding_again_and_by_two_at_once(house: House) -> None:
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


def test_stop_ends_everybody_and_lets_nobody_in(house: House) -> None:
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


def test_who_came_in_as_it_was_stopped_does_not_go_on_when_it_runs_again(house: House) -> None:
    """Their entry was committed a moment after the stop."""
    house.open(sending("j", Push("hello")))
    ann = house.customer()
    version = house.segue.catalog.journey("j")
    with house.db.transaction() as tx:
        enter_people(tx, version, [ann], None)
    with house.db.transaction() as tx:
        control._hold(tx, "j", STOPPED)
    house.later("1d")
    assert house.rows() == []
    resume(house)
    house.later("1d")
    assert house.rows() == []
    assert [person.end_reason for person in house.people()] == ["the journey was stopped"]


def test_what_is_being_handed_over_at_a_stop_is_recorded_as_it_went(house: House) -> None:
    house.open(sending("j", Email("hello")))
    house.customer()

    def stopped() -> None:
        assert stop(house) == 1

    house.providers.meanwhile = stopped
    house.launch("j")
    assert told(house) == [("sent", None)]
    assert [person.end_reason for person in house.people()] == ["the journey was stopped"]
