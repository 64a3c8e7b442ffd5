"""The engine: what each step does, who enters, what a crash leaves behind, when waits end."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from config.database import Database
from config.errors import SegueError
from config.policy import Policy
from config.times import DAY, HOUR, Instant, days, format_instant, hours, parse_instant
from journeys.catalog import Segment
from journeys.engine import Engine
from journeys.entry import enter_people
from journeys.journey import Entry, Goal, Journey, OnEvent, OnLaunch, journey
from journeys.leaving import end
from journeys.steps import (
    SMS,
    Call,
    Email,
    Enter,
    Exit,
    Experiment,
    Push,
    Send,
    Split,
    Step,
    Update,
    Wait,
    WaitUntil,
    arm,
    when,
)
from journeys.tables import enrollments
from profiles.conditions import did, prop, trait
from profiles.tables import events
from tests.house import MONDAY, TEXTS, House


@pytest.fixture
def house(db: Database) -> House:
    return House(db)


@pytest.fixture
def sqlite_house(sqlite_url: str) -> Iterator[House]:
    """For what the database has no say in."""
    db = Database(sqlite_url)
    yield House(db)
    db.close()


def described(*steps: Step, name: str = "j", entry: Entry | None = None, **parts: Any) -> Journey:
    return journey(name, entry=entry or OnLaunch(), topic="news", steps=steps, **parts)


# One step after the other -------------------------------------------------------------------------


def test_split_takes_the_first_way_that_fits(house: House) -> None:
    fork = Split(
        "fork",
        when(trait("x") > 5, [Update("big", is_="big")], "big"),
        when(trait("x") > 1, [Update("small", is_="small")], "small"),
        otherwise=[Update("none", is_="none")],
    )
    house.open(described(fork, Update("end", done=True)))
    people = [house.customer(attributes={"x": x} if x else {}) for x in (9, 3, 1, None)]
    house.launch("j")
    assert [house.attributes(person)["is_"] for person in people] == [
        "big",
        "small",
        "none",
        "none",
    ]
    assert all(house.attributes(person)["done"] is True for person in people)
    assert house.passed(people[0]) == [("fork", "big"), ("big", "next"), ("end", "next")]


def test_update_merges_and_takes_away(house: House) -> None:
    house.open(described(Update("u", a=2, b=None, c="new")))
    ann = house.customer(attributes={"a": 1, "b": 1, "z": 1})
    house.launch("j")
    assert house.attributes(ann) == {"a": 2, "c": "new", "z": 1}


def test_an_update_wakes_whoever_waits_for_it(house: House) -> None:
    """In every journey, at once; nobody is told where nobody asks or nothing changes."""
    is_vip = trait("vip") == True  # noqa: E712
    waits = WaitUntil("w", is_vip, timeout="9d", then=[Update("u", seen=True)])
    house.open(
        described(waits, name="waits"),
        described(Wait("9d"), name="leaves", exit_when=did("x") | ~~is_vip),
        described(Update("mark", vip=True), Update("again", vip=True), Update("y", y=1)),
    )
    ann = house.customer()
    for name in ("waits", "leaves", "j"):
        house.launch(name)
    house.run()
    assert house.attributes(ann) == {"vip": True, "seen": True, "y": 1}
    ended = {person.journey: person.end_reason for person in house.people(ann)}
    assert ended == {"waits": "completed", "leaves": "exited: exit rule", "j": "completed"}
    with house.db.transaction(write=False) as tx:
        told = tx.conn.execute(select(events.c.name)).scalars().all()
    assert told == ["profile_changed"]


def test_exit_ends_with_its_reason(house: House) -> None:
    house.open(described(Split("f", when(trait("x") == 1, [Exit("x", reason="enough")]))))
    ann, bob = house.customer(attributes={"x": 1}), house.customer()
    house.launch("j")
    [[anns], [bobs]] = house.people(ann), house.people(bob)
    assert (anns.end_reason, anns.ended_at, anns.due_at) == ("exit: enough", MONDAY, None)
    assert bobs.end_reason == "completed"


def test_an_outcome_may_be_called_exit(house: House) -> None:
    test = Experiment("e", arm("exit-poll", 1, []))
    house.open(described(Send("s", Email("hello", after="1h"), mode="any"), test))
    house.customer()
    house.launch("j")
    house.later("2h")
    [person] = house.people()
    assert person.end_reason == "completed"


def test_enter_goes_by_the_other_journeys_own_rule(house: House) -> None:
    other = described(Update("u", visits=1), name="other", entry=OnLaunch(again="once"))
    here = described(Enter("go", "other"), Wait("1d"), Enter("go again", "other"), name="here")
    house.open(here, other)
    ann = house.customer()
    house.launch("here")
    house.later("3d")
    entered = [(person.journey, person.end_reason) for person in house.people(ann)]
    assert entered == [("here", "completed"), ("other", "completed")]


def test_a_journey_that_is_gone_is_not_entered_and_nobody_is_stuck(house: House) -> None:
    here = described(Wait("1d"), Enter("go", "other"), Update("u", end=True), name="here")
    house.open(here, described(Exit("x"), name="other"))
    ann = house.customer()
    house.launch("here")
    # the library changed: `other` was removed, and `here` no longer asks for it
    house.open(described(Exit("x"), name="here"))
    house.later("1d")
    [person] = house.people(ann)
    assert person.end_reason == "completed"
    assert house.attributes(ann)["end"] is True


def test_journeys_that_enter_each_other_for_ever_hang_nobody(house: House) -> None:
    """No library may say so, but an older version may with a newer one: once a minute, then."""
    always = OnLaunch(again="always")
    there = described(Enter("go", "back"), name="there", entry=always)
    back = described(Enter("go", "there"), name="back", entry=always)
    other = described(Update("u", x=1), name="other")
    house.open(there, back, other)
    ann = house.customer()
    house.launch("there")
    house.run()
    house.launch("other")
    assert house.attributes(ann) == {"x": 1}
    turns = [person.journey for person in house.people(ann)]
    assert turns == ["there", "back", "there", "other"]
    # who comes for the first time in a while begins at once
    [waiting] = [person for person in house.people(ann) if person.ended_at is None]
    assert (waiting.journey, waiting.due_at) == ("there", MONDAY + 60)
    house.later("3m")
    assert 4 < len(house.people(ann)) < 20


def test_a_turn_comes_to_its_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may bring new people as fast as we move them: events and messages want their turn."""
    house.open(described(Update("u", x=1), entry=OnLaunch(again="always")))
    ann = house.customer()
    version = house.segue.catalog.journey("j")
    original = Engine.advance_round

    def meanwhile(self: Engine) -> Any:
        moved = original(self)
        with house.db.transaction() as tx:
            enter_people(tx, version, [ann], None)
        return moved

    monkeypatch.setattr(Engine, "advance_round", meanwhile)
    with house.db.transaction() as tx:
        enter_people(tx, version, [ann], None)
    moved = house.segue.engine.advance_due()
    assert 1 < moved["j"] < 1000
    assert len([person for person in house.people() if person.ended_at is None]) == 1


def test_an_experiment_leaves_its_holdout_alone(house: House) -> None:
    halves = Experiment("e", arm("a", 1, [Update("u", arm="a")]), holdout=50)
    house.open(described(halves, Update("all", done=True)))
    people = [house.customer() for _ in range(60)]
    house.launch("j")
    arms = {dict(house.passed(person))["e"] for person in people}
    assert arms == {"a", "holdout"}
    for person in people:
        arm_taken = dict(house.passed(person))["e"]
        assert house.attributes(person).get("arm") == (None if arm_taken == "holdout" else "a")
        assert house.attributes(person)["done"] is True


def test_who_was_in_an_experiment_stays_in_their_arm(house: House) -> None:
    """Though its weights have changed since; an arm that is gone is drawn anew."""
    always = OnLaunch(again="always")

    def drawn(*arms: Any, **options: Any) -> list[str]:
        house.open(described(Experiment("e", *arms, **options), entry=always))
        house.launch("j")
        return [house.passed(person)[-1][1] for person in people]

    people = [house.customer() for _ in range(30)]
    first = drawn(arm("a", 1, []), arm("b", 1, []), holdout=30)
    assert set(first) == {"a", "b", "holdout"}
    assert drawn(arm("a", 1, []), arm("b", 99, []), holdout=1) == first
    people.append(house.customer())
    without = drawn(arm("b", 1, []))
    assert set(without) == {"b"}


# Waiting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait", "zone", "entered", "resumes"),
    [
        (Wait("36h"), "UTC", "2026-03-02T10:00:00Z", "2026-03-03T22:00:00Z"),
        # until a local time: today if it is still to come, or comes this second
        (Wait(time="12:00"), "Europe/Berlin", "2026-03-02T10:00:00Z", "2026-03-02T11:00:00Z"),
        (Wait(time="11:00"), "Europe/Berlin", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        (Wait(time="09:00"), "Europe/Berlin", "2026-03-02T10:00:00Z", "2026-03-03T08:00:00Z"),
        (Wait(time="09:00"), "Asia/Tokyo", "2026-03-02T10:00:00Z", "2026-03-03T00:00:00Z"),
        # until a weekday: at once on such a day, else when it begins
        (Wait(days="mon"), "UTC", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        (Wait(days="sat"), "Europe/Berlin", "2026-03-02T10:00:00Z", "2026-03-06T23:00:00Z"),
        # both
        (
            Wait(time="09:00", days="mon-fri"),
            "UTC",
            "2026-03-06T18:00:00Z",
            "2026-03-09T09:00:00Z",
        ),
        (Wait(time="09:00", days="mon"), "UTC", "2026-03-02T09:00:01Z", "2026-03-09T09:00:00Z"),
        # the clock that is put forward has no 02:30 that day; put back, it has two
        (Wait(time="02:30"), "Europe/Berlin", "2026-03-28T23:30:00Z", "2026-03-29T01:00:00Z"),
        (Wait(time="02:30"), "Europe/Berlin", "2026-10-24T22:30:00Z", "2026-10-25T00:30:00Z"),
        # between the two, the second is the next
        (Wait(time="02:30"), "Europe/Berlin", "2026-10-25T00:45:00Z", "2026-10-25T01:30:00Z"),
        (Wait(time="09:00"), "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T07:00:00Z"),
        # a day is 24 hours, whatever the clocks do
        (Wait("1d"), "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
    ],
)
def test_waits(sqlite_house: House, wait: Step, zone: str, entered: str, resumes: str) -> None:
    house = sqlite_house
    house.open(described(wait, Update("u", x=1)))
    ann = house.customer(timezone=zone)
    house.db.now = parse_instant(entered)
    house.launch("j")
    house.until(parse_instant(resumes) + 30 * DAY)
    [person] = house.people(ann)
    assert format_instant(person.ended_at) == resumes


@pytest.mark.parametrize(
    ("wait", "attribute", "entered", "resumes"),
    [
        (Wait(date="d"), "2026-03-10", "2026-03-02T10:00:00Z", "2026-03-09T23:00:00Z"),
        (
            Wait(date="d", time="09:00"),
            "2026-03-10T17:00:00Z",
            "2026-03-02T10:00:00Z",
            "2026-03-10T08:00:00Z",
        ),
        # three days before at the same local time, though the clocks change in between
        (
            Wait(date="d", time="09:00", before="3d"),
            "2026-03-30",
            "2026-03-02T10:00:00Z",
            "2026-03-27T08:00:00Z",
        ),
        (
            Wait(date="d", time="09:00", before="90m"),
            "2026-03-10",
            "2026-03-02T10:00:00Z",
            "2026-03-10T06:30:00Z",
        ),
        # and three days after it, though the date itself is over
        (
            Wait(date="d", time="09:00", after="3d"),
            "2026-03-28",
            "2026-03-28T20:00:00Z",
            "2026-03-31T07:00:00Z",
        ),
        (Wait(date="d", after="90m"), "2026-03-10", "2026-03-02T10:00:00Z", "2026-03-10T00:30:00Z"),
        (Wait(date="d", after="1d"), "2026-03-01", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        # what is over, missing or no date is not waited for
        (Wait(date="d"), "2026-03-01", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        (Wait(date="d"), None, "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        (Wait(date="d"), "soon", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        (Wait(date="d", yearly=True), [1], "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        # birthdays: this year's, next year's, in advance of next year's, on the day itself
        (
            Wait(date="d", yearly=True, time="09:00"),
            "1990-07-01",
            "2026-03-02T10:00:00Z",
            "2026-07-01T07:00:00Z",
        ),
        (
            Wait(date="d", yearly=True, time="09:00"),
            "1990-01-05",
            "2026-03-02T10:00:00Z",
            "2027-01-05T08:00:00Z",
        ),
        (
            Wait(date="d", yearly=True, time="09:00", before="10d"),
            "1990-01-05",
            "2026-12-27T00:00:00Z",
            "2027-12-26T08:00:00Z",
        ),
        (
            Wait(date="d", yearly=True, time="11:00"),
            "1990-03-02",
            "2026-03-02T10:00:00Z",
            "2026-03-02T10:00:00Z",
        ),
        # last year's has not been so long ago
        (
            Wait(date="d", yearly=True, after="10d", time="09:00"),
            "1990-12-27",
            "2027-01-02T10:00:00Z",
            "2027-01-06T08:00:00Z",
        ),
        # who was born on 29 February
        (
            Wait(date="d", yearly=True, time="09:00"),
            "1992-02-29",
            "2026-03-02T10:00:00Z",
            "2027-02-28T08:00:00Z",
        ),
        (
            Wait(date="d", yearly=True, time="09:00"),
            "1992-02-29",
            "2027-03-02T10:00:00Z",
            "2028-02-29T08:00:00Z",
        ),
    ],
)
def test_waits_until_a_date_of_the_customers(
    sqlite_house: House, wait: Step, attribute: Any, entered: str, resumes: str
) -> None:
    house = sqlite_house
    house.open(described(wait, Update("u", x=1)))
    ann = house.customer(timezone="Europe/Berlin", attributes={"d": attribute})
    house.db.now = parse_instant(entered)
    house.launch("j")
    house.until(parse_instant(resumes) + 400 * DAY)
    [person] = house.people(ann)
    assert format_instant(person.ended_at) == resumes


def test_a_wait_in_several_zones_is_over_in_all_of_them(house: House) -> None:
    house.open(described(Wait(days="tue"), Update("u", x=1)))
    ann = house.customer(timezone=None, country="AU", phone=None)
    house.db.now = parse_instant("2026-03-02T03:00:00Z")
    house.launch("j")
    house.later("3d")
    [person] = house.people(ann)
    # Tuesday has begun in Sydney for three hours when it does in Perth
    assert format_instant(person.ended_at) == "2026-03-02T16:00:00Z"


def test_a_day_that_comes_in_the_last_zone_is_not_over_in_the_first(house: House) -> None:
    """It is Wednesday in Sydney and still Tuesday in Perth: this Tuesday is over for them."""
    house.open(described(Wait(days="tue"), Update("u", x=1)))
    ann = house.customer(timezone=None, country="AU", phone=None)
    house.db.now = parse_instant("2026-03-03T14:00:00Z")
    house.launch("j")
    house.later("20d")
    [person] = house.people(ann)
    assert format_instant(person.ended_at) == "2026-03-09T16:00:00Z"


def test_two_day_waits_across_the_change_of_clocks(house: House) -> None:
    """Mon-Fri 9-17 in Berlin: Thu 18:00 CET + 2 days is closed, so Monday 09:00 CEST."""
    hours_of_work = [{"days": "mon-fri", "from": "09:00", "to": "17:00"}]
    policy = Policy.model_validate({"channels": {"email": {"windows": hours_of_work}}})
    steps = (Wait("2d"), Send("s", Email("hello")), Wait("2d", "w"), Send("t", Email("offer")))
    house.open(described(*steps), policy=policy)
    house.customer(timezone="Europe/Berlin")
    house.db.now = parse_instant("2026-03-26T17:00:00Z")
    house.launch("j")
    house.later("10d")
    assert [(one.state, one.send_at) for one in house.outbox()] == [
        ("sent", "2026-03-30T07:00:00Z"),
        ("sent", "2026-04-01T07:00:00Z"),
    ]


WAITING = WaitUntil(
    "w",
    did("came") | (trait("vip") == "yes"),
    timeout="2d",
    then=[Update("yes", came=True)],
    on_timeout=[Update("no", came=False)],
)


def test_wait_until(house: House) -> None:
    house.open(described(Wait("1h"), WAITING))
    before, during, late, never, vip, becomes = (house.customer() for _ in range(6))
    house.change(vip, vip="yes")
    house.launch("j")
    house.did(before, "came")  # before the wait began: that does not count
    house.later("2h")
    house.did(during, "came")
    house.run()
    house.change(becomes, vip="yes")
    house.did(becomes, "profile_changed")
    house.later("2d")
    house.did(late, "came")
    house.later("1d")
    ended = {person.profile_id: person.ended_at - MONDAY for person in house.people()}
    came = {person: house.attributes(person)["came"] for person in ended}
    assert came == {
        before: False,
        during: True,
        late: False,
        never: False,
        vip: True,
        becomes: True,
    }
    over = HOUR + 2 * DAY
    assert ended == {
        before: over,
        during: 2 * HOUR,
        late: over,
        never: over,
        vip: HOUR,
        becomes: 2 * HOUR,
    }


def test_the_entry_event_does_not_end_the_wait_that_follows(house: House) -> None:
    until_again = WaitUntil("again", did("viewed"), timeout="1d", then=[Update("u", again=True)])
    house.open(described(until_again, entry=OnEvent("viewed")))
    ann, bob = house.customer(), house.customer()
    house.did(ann, "viewed")
    house.did(bob, "viewed")
    house.run()
    assert [person.ended_at for person in house.people()] == [None, None]
    house.did(bob, "viewed")
    house.run()
    assert house.attributes(bob) == {"again": True}
    house.later("2d")
    assert house.attributes(ann) == {}


# Calls --------------------------------------------------------------------------------------------


class Receiver:
    """An endpoint that answers as it is told, and keeps what it got."""

    def __init__(self) -> None:
        self.answers: list[int | BaseException] = []
        self.got: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, BaseException):
            raise answer
        return httpx.Response(answer)


@pytest.fixture
def receiver(house: House, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    monkeypatch.setenv("SEGUE_CALL_HOSTS", '["crm.shop.test"]')
    receiver = Receiver()
    house.providers.hosts["crm.shop.test"] = receiver
    return receiver


CALL = Call("tell", "https://crm.shop.test/came")


def test_a_call_posts_the_person(house: House, receiver: Receiver) -> None:
    house.open(described(CALL, entry=OnEvent("signed_up")))
    ann = house.customer("ann")
    house.did(ann, "signed_up", plan="gold")
    house.run()
    [request] = receiver.got
    [enrollment] = house.people()
    assert orjson.loads(request.content) == {
        "journey": "j",
        "step": "tell",
        "enrollment_id": enrollment.id,
        "user_id": "ann",
        "event": {"plan": "gold"},
    }
    assert request.headers["idempotency-key"] == f"{enrollment.id}:tell"
    assert enrollment.end_reason == "completed"


def test_a_call_is_tried_again_later(house: House, receiver: Receiver) -> None:
    receiver.answers = [503, httpx.ConnectError("no"), 200]
    house.open(described(CALL))
    house.customer()
    house.launch("j")
    house.later("1d")
    [person] = house.people()
    # after a minute, then after two
    assert (person.ended_at - MONDAY, person.end_reason) == (180, "completed")
    assert len({request.headers["idempotency-key"] for request in receiver.got}) == 1


@pytest.mark.parametrize(
    ("on_error", "ended", "passed"),
    [
        ("continue", "completed", [("tell", "failed"), ("u", "next")]),
        (
            "exit",
            "exit: call failed, status 500",
            [("tell", "exit: call failed, status 500")],
        ),
    ],
)
def test_what_comes_of_a_call_that_fails(
    house: House, receiver: Receiver, on_error: str, ended: str, passed: list[tuple[str, str]]
) -> None:
    receiver.answers = [500, 500]
    call = Call("tell", "https://crm.shop.test/", tries=2, on_error=on_error)
    house.open(described(call, Update("u", x=1)))
    house.customer()
    house.launch("j")
    house.later("1d")
    [person] = house.people()
    assert person.end_reason == ended
    assert house.passed() == passed
    assert len(receiver.got) == 2


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[2002:7f00:1::]", "[64:ff9b::7f00:1]", "224.0.0.1"),
    ],
)
def test_our_own_network_is_not_called(house: House, receiver: Receiver, host: str) -> None:
    house.providers.hosts[host.strip("[]")] = receiver
    house.open(described(Call("tell", f"http://{host}/", tries=1), Update("u", x=1)))
    ann = house.customer()
    house.launch("j")
    assert receiver.got == []
    assert house.providers.requests == []
    assert house.passed(ann) == [("tell", "failed"), ("u", "next")]


def test_a_name_that_leads_home_once_it_was_looked_at_is_not_called(
    sqlite_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = sqlite_house
    house.open(described(Call("tell", "http://shop.example/", tries=1), Update("u", x=1)))
    ann = house.customer()
    with socket.create_server(("127.0.0.1", 0)) as ours:
        ours.settimeout(30)
        places = [("93.184.215.14", 80), ours.getsockname()]  # as it is looked at, and called
        asked = []

        def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
            asked.append(host)
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, places[len(asked) - 1])]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        engine, journey = house.segue.engine, house.segue.catalog.journey("j")
        with house.db.transaction() as tx:
            enter_people(tx, journey, [ann], None)
        engine.advance_due()
        assert asked == ["shop.example", "shop.example"]
        reached, _ = ours.accept()
        assert reached.recv(100) == b""  # the connection was given up before a word was said
        reached.close()
    assert house.passed(ann) == [("tell", "failed"), ("u", "next")]


def test_who_has_left_is_not_called(house: House, receiver: Receiver) -> None:
    bought = did("bought")
    house.open(described(Wait("1h"), CALL, exit_when=bought))
    ann, _bob = house.customer("ann"), house.customer("bob")
    house.launch("j")
    house.db.now = house.now + HOUR
    # it came, and nobody has worked it yet
    house.did(ann, "bought")
    with house.providers.listening():
        house.segue.engine.advance_due()
    assert [orjson.loads(request.content)["user_id"] for request in receiver.got] == ["bob"]
    [anns] = house.people(ann)
    assert anns.end_reason == "exited: exit rule"


# Entering -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("again", "entered"),
    [
        ("once", [True, False, False, False]),
        (days(3), [True, False, False, True]),
        ("always", [True, False, True, True]),
    ],
)
def test_entering_again(house: House, again: Any, entered: list[bool]) -> None:
    """On day 0, in mid-journey, a day after it ended, and on day 3."""
    house.open(described(Wait("1d"), entry=OnLaunch(again=again)))
    house.customer()
    seen = []
    for moment in (0, HOUR, 2 * DAY, 3 * DAY + HOUR):
        house.until(MONDAY + moment)
        before = len(house.people())
        house.launch("j")
        seen.append(len(house.people()) > before)
    assert seen == entered


def test_entry_keys_keep_carts_apart(house: House) -> None:
    entry = OnEvent("cart", prop("total") > 10, key="cart_id", again=days(7))
    house.open(described(Wait("1d"), entry=entry))
    ann = house.customer()
    for cart, total in (("a", 20), ("a", 30), ("b", 20), ("c", 5), ("d", "20"), (None, 20)):
        house.did(ann, "cart", cart_id=cart, total=total)
    house.did(ann, "other", cart_id="e", total=99)
    house.run()
    people = house.people(ann)
    assert [(person.entry_key, person.context["total"]) for person in people] == [
        ("a", 20),
        ("b", 20),
        ("", 20),
    ]
    # a is over, but seven days are not
    house.later("2d")
    house.did(ann, "cart", cart_id="a", total=20)
    house.run()
    assert len(house.people(ann)) == 3
    house.later("6d")
    house.did(ann, "cart", cart_id="a", total=20)
    house.run()
    assert len(house.people(ann)) == 4


def test_of_two_events_at_once_the_first_brings_them_in(house: House) -> None:
    house.open(described(Wait("1d"), entry=OnEvent("cart", again="always")))
    ann = house.customer()
    for at, number in ((30, 3), (10, 1), (20, 2)):
        house.did(ann, "cart", at=MONDAY + at, number=number)
    house.db.now = MONDAY + 40
    house.run()
    [person] = house.people(ann)
    assert (person.context, person.since) == ({"number": 1}, MONDAY + 10)


def test_a_launch_enters_once_even_where_always_is_the_rule(house: House) -> None:
    house.open(described(Update("u", x=1), entry=OnLaunch(again="always")))
    house.customer()
    assert house.launch("j", launch_id="l")["entered"] == 1
    assert house.launch("j", launch_id="l")["entered"] == 1
    assert len(house.people()) == 1
    house.launch("j", launch_id="m")
    assert len(house.people()) == 2


def test_once_is_once_though_two_processes_enter_at_once(house: House) -> None:
    """The other's person has come and gone before it commits."""
    house.open(described(Exit("x")))
    ann = house.customer()
    version = house.segue.catalog.journey("j")

    def enter(launch_id: str) -> int:
        with house.db.transaction() as tx:
            return enter_people(tx, version, [ann], launch_id)

    with ThreadPoolExecutor(1) as threads:
        with house.db.transaction() as tx:
            assert enter_people(tx, version, [ann], "first") == 1
            end(tx, list(tx.conn.execute(select(enrollments.c.id)).scalars()), "completed")
            second = threads.submit(enter, "second")
            # it has to wait for us
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
        assert second.result(timeout=20) == 0
    assert len(house.people()) == 1


def test_a_launch_has_a_limit(house: House) -> None:
    house.open(described(Update("u", x=1)))
    people = [house.customer() for _ in range(5)]
    assert house.launch("j", people=2, launch_id="l")["entered"] == 2
    assert house.launch("j", people=2, launch_id="l")["entered"] == 2
    assert [person.profile_id for person in house.people()] == people[:2]


def test_a_limit_skips_those_who_may_not_enter(house: House) -> None:
    house.open(described(Update("u", x=1)))
    people = [house.customer() for _ in range(5)]
    house.launch("j", people=2)
    assert house.launch("j", people=2, launch_id="l")["entered"] == 2
    assert [person.profile_id for person in house.people()] == people[:4]


def test_a_launch_id_is_of_one_journey_and_audience(house: House) -> None:
    vips = {"vips": Segment("vips", "The best", trait("x") == 1)}
    house.open(described(Exit("x")), described(Exit("x"), name="k"), segments=vips)
    house.customer()
    house.launch("j", launch_id="l")
    with pytest.raises(SegueError, match=r"'l' .*of the journey j .*another id"):
        house.launch("k", launch_id="l")
    with pytest.raises(SegueError, match=r"'l' .*for everyone; .*another id"):
        house.launch("j", "vips", launch_id="l")


def test_an_unknown_audience_leaves_no_launch_behind(house: House) -> None:
    house.open(described(Exit("x")))
    with pytest.raises(SegueError, match="no segment 'vips'"):
        house.launch("j", "vips", launch_id="l")
    with pytest.raises(SegueError, match="no journey 'k'"):
        house.launch("k", launch_id="l")
    assert house.launch("j", launch_id="l")["entered"] == 0


def test_audiences_larger_than_a_chunk(house: House) -> None:
    odd = {"odd": Segment("odd", "Every other", trait("odd") == True)}  # noqa: E712
    house.open(described(Update("u", x=1)), segments=odd)
    people = [house.customer(attributes={"odd": bool(number % 2)}) for number in range(23)]
    house.segue.engine.chunks.largest = 4
    assert house.segue.engine.audience_size("odd") == 11
    assert house.launch("j", "odd")["entered"] == 11
    assert [person.profile_id for person in house.people()] == people[1::2]


# Versions -----------------------------------------------------------------------------------------


def test_people_finish_on_what_they_entered(house: House) -> None:
    old = described(Wait("1d"), Send("s", SMS("hello")), Send("gone", SMS("offer")))
    house.open(old)
    ann = house.customer()
    house.launch("j")

    # The journey is rewritten, and one of its texts as well.
    texts = {**TEXTS, "hello.sms.txt": "a new hello"}
    house.open(described(Wait("2d"), Send("s", SMS("hello"))), texts=texts)
    bob = house.customer()
    house.launch("j")
    house.later("3d")
    sent = {row.id: row.profile_id for row in house.rows()}
    assert [(sent[one.message_id], one.text) for one in house.providers.accepted] == [
        (ann, "hello"),
        (ann, "offer"),
        (bob, "a new hello"),
    ]
    assert {person.end_reason for person in house.people()} == {"completed"}


def test_a_launch_goes_on_with_the_version_it_began_with(house: House) -> None:
    house.open(described(Update("u", version="old")))
    house.customer()
    house.launch("j", launch_id="l")
    house.open(described(Update("u", version="new")))
    bob = house.customer()
    house.launch("j", launch_id="l")
    assert house.attributes(bob) == {"version": "old"}


def test_what_another_process_brought_is_learnt(house: House) -> None:
    """A newer Segue runs beside this one: what it plans is handed over all the same."""
    mine = house.open(described(Exit("x")))
    newer = described(Send("s", Email("hello")), exit_when=did("bought"))
    house.open(newer)
    ann = house.customer()
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
    house.segue.engine.advance_due()
    house.segue = mine
    house.did(ann, "something")
    assert house.run() == {("j", "email", "sent"): 1}


def test_versions_that_another_process_brought_and_left_behind(house: House) -> None:
    """It entered people and died. Whoever is left learns of the version, and they go on."""
    mine = house.open(described(Exit("x")))
    newer = described(Update("u", x=1), Wait("1h"))
    house.open(newer)
    ann = house.customer()
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
    assert mine.engine.advance_due().total() == 0
    with house.db.transaction(write=False) as tx:
        mine.catalog.catch_up(tx)
    assert mine.engine.advance_due().total() > 0
    assert house.attributes(ann) == {"x": 1}


def test_a_launch_that_another_process_began_goes_on(house: House) -> None:
    mine = house.open(described(Exit("x")))
    newer = described(Update("u", x=1))
    house.open(newer).engine.start_launch("theirs", "j", "everyone")
    assert mine.engine.start_launch("theirs", "j", "everyone").journey == newer


# Crashes ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process died here."""


@pytest.mark.parametrize("where", ["_apply", "_staying"])
def test_a_crash_in_mid_chunk_changes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It dies in every chunk of every step once, always with the work done but not committed."""
    steps = (
        Send("s", Email("hello"), Push("hello")),
        Wait("1d"),
        Split("f", when(trait("odd") == 1, [Update("u", x=1)])),
    )
    house.open(described(*steps, exit_when=did("bought")))
    people = [house.customer(attributes={"odd": number % 2}) for number in range(5)]
    house.segue.engine.chunks.largest = 2
    original, calls = getattr(Engine, where), count()

    def dying(self: Engine, *args: Any) -> Any:
        done = original(self, *args)
        if next(calls) % 2 == 0:
            raise Killed
        return done

    monkeypatch.setattr(Engine, where, dying)

    def until_it_lives(work: Any) -> None:
        while True:
            try:
                work()
            except Killed:
                continue
            return

    until_it_lives(lambda: house.launch("j", launch_id="l"))
    until_it_lives(lambda: house.later("2d"))
    assert next(calls) >= 20
    for number, person in enumerate(people):
        assert [(one.channel, one.state) for one in house.outbox(person)] == [
            ("email", "sent"),
            ("push", "sent"),
        ]
        way = ["s", "wait 1d", "f"] + ["u"] * (number % 2)
        assert [step for step, _ in house.passed(person)] == way
        assert house.attributes(person).get("x") == (1 if number % 2 else None)
    assert len(house.providers.accepted) == 10
    assert {person.end_reason for person in house.people()} == {"completed"}


def test_a_crash_while_entering_enters_nobody_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    import journeys.engine

    house.open(described(Send("s", Email("hello")), entry=OnLaunch(again="always")))
    people = [house.customer() for _ in range(6)]
    chunks = 0

    def dying(*args: Any) -> int:
        nonlocal chunks
        entered = enter_people(*args)
        chunks += 1
        if chunks in (1, 3):
            raise Killed
        return entered

    monkeypatch.setattr(journeys.engine, "enter_people", dying)
    for _ in range(2):
        house.segue.engine.chunks.largest = 2
        with pytest.raises(Killed):
            house.launch("j", launch_id="l")
    house.launch("j", launch_id="l")
    assert [person.profile_id for person in house.people()] == people
    assert len(house.providers.accepted) == 6


def test_a_call_that_died_is_made_again_with_the_same_key(house: House, receiver: Receiver) -> None:
    receiver.answers = [KeyboardInterrupt()]
    house.open(described(CALL))
    house.customer()
    with pytest.raises(KeyboardInterrupt):
        house.launch("j")
    house.run()
    # leased: nobody else calls for now
    assert len(receiver.got) == 1
    house.later("10m")
    assert len(receiver.got) == 2
    assert len({request.headers["idempotency-key"] for request in receiver.got}) == 1
    [person] = house.people()
    assert person.end_reason == "completed"


@pytest.mark.parametrize(
    ("answer", "step", "passed"),
    [(200, "wait 1d", [("tell", "next"), ("u", "next")]), (500, "tell", [])],
)
def test_a_call_that_took_longer_than_its_lease_moves_nobody(
    house: House,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    answer: int,
    step: str,
    passed: list[tuple[str, str]],
) -> None:
    """While one process sleeps at the call another makes it: what comes of that counts."""
    receiver.answers = [answer]
    house.open(described(CALL, Update("u", x=1), Wait("1d")))
    ann = house.customer()

    def post_slowly(*_: Any) -> dict[int, str]:
        monkeypatch.undo()
        monkeypatch.setenv("SEGUE_CALL_HOSTS", '["crm.shop.test"]')
        house.db.now = house.now + HOUR
        Engine(house.db, house.segue.catalog, house.segue.engine.planner).advance_due()
        return {}

    monkeypatch.setattr("journeys.engine.post_all", post_slowly)
    house.launch("j")
    [person] = house.people(ann)
    assert person.step == step
    assert house.passed(ann) == passed


@pytest.mark.parametrize(
    ("due_at", "ended_at"), [(None, None), (MONDAY, MONDAY)], ids=["neither", "both"]
)
def test_nobody_is_stuck(house: House, due_at: Instant | None, ended_at: Instant | None) -> None:
    """The table itself refuses an enrollment that is neither due nor over."""
    house.open(described(Wait("1d")))
    house.customer()
    house.launch("j")
    [person] = house.people()
    values = {**person._mapping, "id": None, "entry_key": "x", "due_at": due_at}
    del values["id"]
    with pytest.raises(IntegrityError, match="due_or_ended"), house.db.transaction() as tx:
        tx.conn.execute(insert(enrollments).values(**(values | {"ended_at": ended_at})))


# Goals and exits ----------------------------------------------------------------------------------


def test_a_conversion_is_counted_once_and_in_time(house: House) -> None:
    goal = Goal(did=did("bought", prop("total") > 10), within="2d")
    house.open(described(Wait("5d"), entry=OnEvent("came"), goal=goal))
    early, twice, late, small, before = (house.customer() for _ in range(5))
    house.did(before, "bought", total=50)
    house.run()
    house.later("1h")
    for person in (early, twice, late, small, before):
        house.did(person, "came")
    house.run()
    house.later("1d")
    house.did(early, "bought", total=20)
    house.did(twice, "bought", total=20)
    house.did(small, "bought", total=5)
    house.run()
    converted = house.now
    house.later("1h")
    house.did(twice, "bought", total=20)
    house.later("1d")
    house.did(late, "bought", total=20)
    house.later("1d")
    found = {person.profile_id: person.converted_at for person in house.people()}
    assert found == {early: converted, twice: converted, late: None, small: None, before: None}
    assert house.segue.engine.count_goals("j") == 0


def test_a_goal_within_a_time_after_a_message(house: House) -> None:
    goal = Goal(did=did("bought", at_least=2), within="1h", after="message")
    steps = Wait("5h"), Send("s", Email("hello")), Wait("5h", "w"), Send("t", SMS("hello"))
    house.open(described(*steps, Wait("5d"), goal=goal))
    early, after_mail, after_text, apart, none = (house.customer() for _ in range(5))
    silent = house.customer(email=None, phone=None)
    house.launch("j")
    said = {
        early: (4, 4),
        after_mail: (5.5, 6),
        after_text: (10.5, 10.6),
        apart: (5.5, 10.5),
        none: (7, 7),
        silent: (5.5, 5.6),
    }
    for hour in range(13):
        house.until(MONDAY + hour * HOUR)
        for person, moments in said.items():
            for at in moments:
                if hour - 1 < at <= hour:
                    house.did(person, "bought", at=MONDAY + int(at * HOUR))
        house.run()
    converted = {person.profile_id for person in house.people() if person.converted_at}
    assert converted == {after_mail, after_text}
    assert house.segue.engine.count_goals("j") == 0


def test_goals_are_found_without_anybody_telling(house: House) -> None:
    goal = Goal(did=did("bought"), within="2d")
    house.open(described(Wait("5d"), goal=goal))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + HOUR
    house.did(ann, "bought")
    assert house.segue.engine.count_goals("j") == 1
    assert house.segue.engine.count_goals("j") == 0


def test_the_exit_rule_looks_back_to_the_entry(house: House) -> None:
    house.open(described(Wait("5d"), exit_when=did("bought")))
    ann, bob = house.customer(), house.customer()
    house.did(ann, "bought")
    house.run()
    house.later("1s")
    house.launch("j")
    house.later("1h")
    house.did(bob, "bought")
    house.run()
    [anns], [bobs] = house.people(ann), house.people(bob)
    assert anns.ended_at is None
    assert (bobs.ended_at, bobs.end_reason) == (house.now, "exited: exit rule")


def test_what_brought_them_in_does_not_take_them_out(house: House) -> None:
    house.open(described(Wait("1d"), entry=OnEvent("cart"), exit_when=did("cart")))
    ann, bob = house.customer(), house.customer()
    house.did(ann, "cart")
    house.did(bob, "cart")
    house.run()
    assert [person.ended_at for person in house.people()] == [None, None]
    house.did(bob, "cart")
    house.run()
    assert [person.ended_at for person in house.people()] == [None, MONDAY]


def test_an_exit_rule_on_the_profile(house: House) -> None:
    house.open(described(Wait("1h"), Send("s", Email("hello")), exit_when=trait("gone") == 1))
    ann, bob = house.customer("ann"), house.customer("bob")
    house.launch("j")
    house.change(ann, gone=1)
    house.later("2h")
    assert [mail.to for mail in house.providers.accepted] == ["bob@example.com"]
    assert house.people(ann)[0].end_reason == "exited: exit rule"
    assert house.people(bob)[0].end_reason == "completed"


# Rehearsal ----------------------------------------------------------------------------------------


def test_a_rehearsal_tells_and_keeps_nothing(house: House, receiver: Receiver) -> None:
    steps = (
        CALL,
        Split("f", when(trait("odd") == 1, [Send("s", Email("hello"), SMS("hello"))], "odd")),
        Wait("1d"),
    )
    house.open(described(*steps))
    for number in range(7):
        house.customer(attributes={"odd": number % 2}, consent={("email", "*"): number != 1})
    house.segue.engine.chunks.largest = 2
    version = house.segue.catalog.journey("j")
    reports = house.segue.engine.rehearse(version, "everyone", None, "l")
    assert reports["f"].outcomes == {"odd": 3, "otherwise": 4}
    assert reports["s"].messages == {
        ("email", "planned"): 2,
        ("email", "no_consent"): 1,
        ("sms", "no_consent"): 3,
    }
    assert reports["wait 1d"].waiting == 5
    assert house.people() == house.rows() == receiver.got == []
    few = house.segue.engine.rehearse(version, "everyone", 3, "l")
    assert few["f"].outcomes == {"odd": 1, "otherwise": 2}


def test_somebody_elses_people_are_left_alone(house: House) -> None:
    """Who is in the journey already is neither entered nor moved by a rehearsal."""
    house.open(described(Wait("1h"), Update("u", x=1)))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + hours(2).seconds
    version = house.segue.catalog.journey("j")
    reports = house.segue.engine.rehearse(version, "everyone", None, "l")
    assert all(not report.outcomes for report in reports.values())
    assert house.people(ann)[0].step == "wait 1h"


def test_a_round_moves_a_chunk_and_gives_the_others_their_turn(house: House) -> None:
    house.open(described(Wait("1h"), Update("u", x=1)))
    house.segue.engine.chunks.largest = 2
    engine, version = house.segue.engine, house.segue.catalog.journey("j")
    people = [house.customer() for _ in range(5)]
    with house.db.transaction() as tx:
        assert enter_people(tx, version, people, "launch") == 5
    assert [engine.advance_round() for _ in range(4)] == [{"j": 2}, {"j": 2}, {"j": 1}, {}]
    house.db.now = house.now + HOUR
    assert engine.advance_due() == {"j": 10}
