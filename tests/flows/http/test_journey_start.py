"""Signed calls that start journeys: valid ones, and every kind of invalid one."""

import hmac
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import pytest

from config.access.signatures import SIGNATURE, TIMESTAMP, sign
from config.database.engine import Database
from config.settings import Settings
from flows.http.hooks.journey_start import BODY_LIMIT, PEOPLE_LIMIT
from journeys.dsl import Email, Journey, OnEvent, OnLaunch, Send, Wait
from journeys.operations.control import pause, resume, stop
from tests.support.http.receiving import Receiving, problem, receiving
from tests.support.shop import MONDAY, TEXTS, House

SHIPPED = Journey(
    "shipped",
    entry=OnEvent("order_shipped", key="order_id", again="always"),
    topic="news",
    steps=[Send("on its way", Email("shipped"))],
)
ONCE = Journey("once", entry=OnLaunch(), topic="news", steps=[Wait("1d", "a day")])
LONGER = Journey("once", entry=OnLaunch(), topic="news", steps=[Wait("2d", "two days")])
TEXT = {"shipped.email.html": "Subject: Order {{ event.order_id }}\n\n<p>By {{ event.by }}</p>"}


@pytest.fixture
def house(db: Database) -> House:
    house = House(db)
    house.open(SHIPPED, ONCE, texts={**TEXTS, **TEXT})
    return house


@pytest.fixture
def hooks(house: House) -> Iterator[Receiving]:
    with receiving(house.segue) as receiver:
        yield receiver


def signed(
    body: bytes, at: int | str = MONDAY, path: str = "/hooks/journeys/shipped"
) -> dict[str, str]:
    return {TIMESTAMP: str(at), SIGNATURE: sign(Settings().hook_secret, str(at), path, body)}


def start(
    receiver: Receiving, said: Any, journey: str = "shipped", at: int = MONDAY
) -> httpx.Response:
    body = orjson.dumps(said)
    path = f"/hooks/journeys/{journey}"
    return receiver.client.post(path, content=body, headers=signed(body, at, path))


def of(user_id: object, **context: Any) -> dict[str, Any]:
    return {"user_id": user_id, "context": context}


def test_a_call_starts_a_journey_with_its_context(house: House, hooks: Receiving) -> None:
    ann, bob = house.customer("ann"), house.customer("bob")
    people = [of("ann", order_id=7731, by="Post"), of("bob", order_id="7732", by="Bike")]
    answer = start(hooks, {"people": [*people, of("nobody")], "id": "evening"})
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "success": True,
            "journey": "shipped",
            "launch": "evening",
            "entered": 2,
            "unknown": ["nobody"],
            "not_entered": [],
        },
    )
    assert hooks.told == 1
    [one] = house.people(ann)
    assert (one.entry_key, one.context) == ("7731", {"order_id": 7731, "by": "Post"})
    assert (one.launch_id, one.since, one.entry_event_id) == ("evening", MONDAY, None)
    house.run()
    assert sorted(mail.text for mail in house.providers.accepted) == ["Order 7731", "Order 7732"]
    assert len(house.people(bob)) == 1


def test_user_ids_are_read_as_in_events(house: House, hooks: Receiving) -> None:
    """A number is the same id as its text; a placeholder names no profile."""
    house.customer("1042")
    people = [of(1042.0, order_id=1, by="x"), of("undefined"), of(0)]
    said = start(hooks, {"people": people}).json()
    assert (said["entered"], said["unknown"]) == (1, ["undefined", "0"])
    answer = start(hooks, {"people": [of(2.0**53)]})
    assert (answer.status_code, answer.json()["field"]) == (400, "people.0.user_id")


def test_the_same_launch_enters_nobody_twice(house: House, hooks: Receiving) -> None:
    house.customer("ann"), house.customer("bob")
    assert start(hooks, {"people": [of("ann")], "id": "l1"}).json()["entered"] == 1
    house.run()
    again = {"people": [of("ann"), of("bob")], "id": "l1"}
    assert start(hooks, again, at=MONDAY + 1).json()["entered"] == 1
    assert start(hooks, again, at=MONDAY + 2).json()["entered"] == 0
    # without an id each call is a launch of its own
    house.run()
    assert start(hooks, {"people": [of("ann")]}, at=MONDAY + 3).json()["entered"] == 1
    assert len(house.people()) == 3


def test_a_launch_continues_with_a_version_from_another_worker(
    house: House, hooks: Receiving
) -> None:
    newer = House(house.db)
    newer.open(LONGER)
    house.customer("ann")
    house.customer("bob")
    with receiving(newer.segue) as their_receiver:
        start(their_receiver, {"people": [of("ann")], "id": "evening"}, "once")
    answer = start(hooks, {"people": [of("ann"), of("bob")], "id": "evening"}, "once", MONDAY + 1)
    assert (answer.status_code, answer.json()["entered"]) == (200, 1)
    assert {row.step for row in house.people()} == {"two days"}


def test_the_reentry_rule_holds(house: House, hooks: Receiving) -> None:
    house.customer("ann"), house.customer("bob")
    start(hooks, {"people": [of("ann")]}, journey="once")
    said = start(hooks, {"people": [of("ann"), of("bob")]}, journey="once").json()
    assert (said["entered"], said["not_entered"]) == (1, ["ann"])


def test_a_person_may_be_named_with_two_carts(house: House, hooks: Receiving) -> None:
    ann = house.customer("ann")
    people = [of("ann", order_id="1"), of("ann", order_id="1"), of("ann", order_id="2")]
    for at, one in enumerate(people):
        start(hooks, {"people": [one]}, at=MONDAY + at)
    assert [one.entry_key for one in house.people(ann)] == ["1", "2"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"{}", "people"),
        (b'{"people": []}', "people"),
        (b'{"people": "ann"}', "people"),
        (b'{"people": [{}]}', "people.0.user_id"),
        (b'{"people": [{"user_id": ""}]}', "people.0.user_id"),
        (b'{"people": [{"user_id": {}}]}', "people.0.user_id"),
        (b'{"people": [{"user_id": "ann", "context": []}]}', "people.0.context"),
        (b'{"people": [{"user_id": "ann", "kontext": {}}]}', "people.0.kontext"),
        (b'{"people": [{"user_id": "ann"}], "id": 7}', "id"),
        (b'{"people": [{"user_id": "ann"}], "id": ""}', "id"),
        (b'{"people": [{"user_id": "ann"}], "who": 1}', "who"),
        (orjson.dumps({"people": [{"user_id": "ann"}] * (PEOPLE_LIMIT + 1)}), "people"),
    ],
)
def test_an_invalid_call_is_refused(
    house: House, hooks: Receiving, body: bytes, field: str | None
) -> None:
    house.customer("ann")
    answer = hooks.client.post("/hooks/journeys/shipped", content=body, headers=signed(body))
    said = problem(answer, 400, "invalid")
    assert said.get("field") == field
    assert house.people() == []


def test_an_unknown_journey_is_named_with_those_there_are(hooks: Receiving) -> None:
    answer = start(hooks, {"people": [of("ann")]}, journey="shiped")
    said = problem(answer, 404, "not_found")
    assert said["message"] == "there is no such journey; there are: once, shipped"


def test_a_launch_id_of_another_journey_is_refused(house: House, hooks: Receiving) -> None:
    house.customer("ann")
    start(hooks, {"people": [of("ann")], "id": "l1"}, journey="once")
    answer = start(hooks, {"people": [of("ann")], "id": "l1"}, at=MONDAY + 1)
    assert "exists, of the journey once" in problem(answer, 409, "not_started")["message"]


def test_a_stopped_journey_refuses_entries(house: House, hooks: Receiving) -> None:
    ann = house.customer("ann")
    stop(house.db, "once")
    said = {"people": [of("ann")]}
    problem(start(hooks, said, journey="once"), 409, "not_started")
    resume(house.db, "once")
    # nothing of the refused call was kept: the very same one is good now
    assert start(hooks, said, journey="once").json()["entered"] == 1
    assert len(house.people(ann)) == 1


# Signatures ---------------------------------------------------------------------------------------

BODY = orjson.dumps({"people": [of("ann", order_id="1", by="Post")]})


def test_the_signature_is_what_the_docs_say() -> None:
    """openssl dgst -sha256 -hmac hook-secret-for-the-sandbox-only, of that text."""
    text = b"1772445600./hooks/journeys/welcome.{}"
    theirs = hmac.new(b"hook-secret-for-the-sandbox-only", text, "sha256").hexdigest()
    assert sign(Settings().hook_secret, "1772445600", "/hooks/journeys/welcome", b"{}") == theirs


GOOD = signed(BODY)


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({}, BODY, "not_signed"),
        ({TIMESTAMP: GOOD[TIMESTAMP]}, BODY, "not_signed"),
        ({SIGNATURE: GOOD[SIGNATURE]}, BODY, "not_signed"),
        # forged
        ({**GOOD, SIGNATURE: "0" * 64}, BODY, "not_signed"),
        ({**GOOD, SIGNATURE: "ä"}, BODY, "not_signed"),
        ({**GOOD, TIMESTAMP: str(MONDAY + 1)}, BODY, "not_signed"),
        (GOOD, BODY.replace(b"ann", b"bob"), "not_signed"),
        # truncated
        (GOOD, BODY[:-1], "not_signed"),
        (GOOD, b"", "not_signed"),
        ({**GOOD, SIGNATURE: GOOD[SIGNATURE][:-2]}, BODY, "not_signed"),
        # of another path
        (signed(BODY, path="/hooks/journeys/once"), BODY, "not_signed"),
        (signed(BODY, path="/segue/hooks/journeys/shipped"), BODY, "not_signed"),
        (signed(BODY, path="shipped"), BODY, "not_signed"),
        (signed(BODY, path=""), BODY, "not_signed"),
        # stale, or signed in the future
        (signed(BODY, MONDAY - 301), BODY, "stale"),
        (signed(BODY, MONDAY + 301), BODY, "stale"),
        # signed, but of no time
        (signed(BODY, "soon"), BODY, "not_signed"),
        (signed(BODY, "-5"), BODY, "not_signed"),
        (signed(BODY, "٣"), BODY, "not_signed"),
        (signed(BODY, ""), BODY, "not_signed"),
        (signed(BODY, "9" * 400), BODY, "not_signed"),
    ],
)
def test_a_call_with_an_invalid_signature_changes_nothing(
    house: House, hooks: Receiving, headers: dict[str, str], body: bytes, code: str
) -> None:
    house.customer("ann"), house.customer("bob")
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    answer = hooks.client.post("/hooks/journeys/shipped", content=body, headers=encoded)
    problem(answer, 401, code)
    assert house.people() == []
    assert hooks.told == 0


@pytest.mark.parametrize("late", [-300, 0, 300])
def test_a_signature_is_accepted_for_five_minutes(
    house: House, hooks: Receiving, late: int
) -> None:
    house.customer("ann")
    answer = hooks.client.post(
        "/hooks/journeys/shipped", content=BODY, headers=signed(BODY, MONDAY + late)
    )
    assert answer.status_code == 200


def test_a_signature_is_accepted_once(house: House, hooks: Receiving) -> None:
    house.customer("ann")
    headers = signed(BODY, MONDAY + 300)

    def post(**changed: str) -> httpx.Response:
        return hooks.client.post("/hooks/journeys/shipped", content=BODY, headers=headers | changed)

    assert post().status_code == 200
    house.run()
    problem(post(), 409, "replayed")
    problem(post(**{SIGNATURE: headers[SIGNATURE].upper()}), 409, "replayed")
    house.db.now = MONDAY + 600  # the last moment at which it is not stale
    problem(post(), 409, "replayed")
    house.db.now = MONDAY + 3600
    problem(post(), 401, "stale")
    assert len(house.people()) == 1


def test_a_signature_is_accepted_for_its_journey_only(house: House, hooks: Receiving) -> None:
    """Whether the call was accepted or refused, its signature is useless for another journey."""
    house.customer("ann")
    stop(house.db, "shipped")
    headers = signed(BODY)

    def post(journey: str) -> httpx.Response:
        path = f"/hooks/journeys/{journey}"
        return hooks.client.post(path, content=BODY, headers=headers)

    problem(post("shipped"), 409, "not_started")
    problem(post("once"), 401, "not_signed")
    resume(house.db, "shipped")
    assert post("shipped").status_code == 200
    problem(post("once"), 401, "not_signed")
    problem(post("%73hipped"), 409, "replayed")
    assert [one.journey for one in house.people()] == ["shipped"]


def test_one_of_many_concurrent_copies_is_accepted(house: House, hooks: Receiving) -> None:
    house.customer("ann")
    headers = signed(BODY)

    def post(_: int) -> int:
        answer = hooks.client.post("/hooks/journeys/shipped", content=BODY, headers=headers)
        return answer.status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(post, range(6))) == [200, 409, 409, 409, 409, 409]
    assert len(house.people()) == 1


def test_a_call_that_is_too_large_is_not_read(hooks: Receiving) -> None:
    body = b" " * (BODY_LIMIT + 1)
    answer = hooks.client.post("/hooks/journeys/shipped", content=body, headers=signed(body))
    problem(answer, 413, "too_large")


def slowed(answer: httpx.Response) -> None:
    problem(answer, 429, "too_many")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_flood_of_events_slows_starts(db: Database) -> None:
    house = House(db)
    house.open(SHIPPED, texts=TEXT, backlog_limit=1)
    ann = house.customer("ann")
    for _ in range(2):
        house.did(ann, "x")
    with receiving(house.segue) as receiver:
        slowed(start(receiver, {"people": [of("ann")]}))
    assert house.people() == []


def test_a_flood_of_starts_is_limited_without_loss(db: Database) -> None:
    house = House(db)
    house.shorten(backlog_every=0)  # counted at every call
    house.open(SHIPPED, ONCE, texts={**TEXTS, **TEXT}, backlog_limit=3)
    for name in "abcde":
        house.customer(name)
    with receiving(house.segue) as receiver:
        house.run()

        def flood(at: int) -> list[int]:
            """Each customer's parcel, again until there is room for it."""
            calls = (
                {"id": name, "people": [of(name, order_id=name, by="Post")]} for name in "abcde"
            )
            return [start(receiver, call, at=MONDAY + at).status_code for call in calls]

        assert flood(0) == [200, 200, 200, 200, 429]
        slowed(start(receiver, {"people": [of("a", order_id="8")]}, at=MONDAY + 5))
        # who waits in one journey is in nobody's way to another, nor in that of events
        assert start(receiver, {"people": [of("a")]}, journey="once").status_code == 200
        event = {"userId": "a", "event": "x", "messageId": "m1"}
        assert receiver.post("/v1/track", json=event).status_code == 200
        house.run()
        assert flood(10) == [200] * 5
    assert [one.entry_key for one in house.people() if one.journey == "shipped"] == list("abcde")
    assert len(house.rows()) == 4


def test_enrollments_not_due_or_paused_do_not_count_as_backlog(db: Database) -> None:
    house = House(db)
    house.shorten(backlog_every=0)
    house.open(SHIPPED, ONCE, texts={**TEXTS, **TEXT}, backlog_limit=1)
    names = "abcd"
    for name in names:
        house.customer(name)
    with receiving(house.segue) as receiver:
        for at, name in enumerate(names):
            house.run()  # they wait for tomorrow
            said = {"people": [of(name)]}
            assert start(receiver, said, journey="once", at=MONDAY + at).status_code == 200
        pause(house.db, "shipped")
        for at, name in enumerate(names):
            said = {"people": [of(name, order_id=name, by="Post")]}
            assert start(receiver, said, at=MONDAY + 10 + at).status_code == 200
        resume(house.db, "shipped")
        slowed(start(receiver, {"people": [of("a", order_id="8")]}, at=MONDAY + 20))
