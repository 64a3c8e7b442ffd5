"""A failing enrollment, event or message does not delay the others."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from sqlalchemy.exc import OperationalError

import journeys.engine.advance
from channels.outbox.claim import EVALUATE_AGAIN_AFTER
from channels.outbox.outcomes import record
from channels.outbox.render import Renderer
from channels.providers.sendgrid import SendGrid
from config.clock.times import MINUTE
from config.policy import Policy
from journeys.dsl import (
    SMS,
    Call,
    Email,
    Exit,
    Experiment,
    Journey,
    OnEvent,
    OnLaunch,
    Send,
    Split,
    Update,
    Wait,
    WaitUntil,
    arm,
    attribute,
    did,
    when,
)
from journeys.engine.advance import Engine
from journeys.engine.due import lock_due
from journeys.engine.entry import enter_people
from journeys.engine.hand_over import CatalogJourneys
from journeys.engine.handlers import Cohort
from journeys.engine.reactor import Reactor
from journeys.engine.retry import FIRST_RETRY, TRIES
from journeys.operations.migration import migrate_people
from profiles.bulk import lock_profiles
from profiles.tables import events
from tests.support.shop import MONDAY, House, described


def failing_on(*people: int, step: str = "bad") -> Any:
    """A step that no chunk gets through in which one of these people is."""
    handle: Callable[[Cohort], Any] = journeys.engine.move._handle

    def fails(cohort: Cohort) -> Any:
        moves = handle(cohort)
        if cohort.step.name == step and {one.profile_id for one in cohort.people} & {*people}:
            raise ValueError("ann@example.com can't be read")
        return moves

    return patch("journeys.engine.move._handle", fails)


# Steps --------------------------------------------------------------------------------------------


def test_a_failing_enrollment_does_not_delay_the_others(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.open(described(Update("bad", seen=True), Send("s", Email("hello")), Wait("30d")))
    people = [house.customer() for _ in range(20)]
    bad = {people[3], people[11], people[12]}
    with failing_on(*bad):
        house.launch("j")
        assert {sent.to for sent in house.providers.accepted} == {
            f"c{number}@example.com" for number, person in enumerate(people, 1) if person not in bad
        }
        for person in house.people():
            standing = (person.step, person.attempts, person.due_at)
            if person.profile_id in bad:
                assert standing == ("bad", 1, MONDAY + FIRST_RETRY)
                assert "seen" not in house.attributes(person.profile_id)
        house.later("1d")
    assert caplog.text.count("attempt 1 of 5") == caplog.text.count("attempt 5 of 5") == len(bad)
    failing = next(one.id for one in house.people() if one.profile_id in bad)
    said = f"journey j, step 'bad' failed for enrollment {failing}, attempt 1 of 5: ValueError at"
    assert said in caplog.text
    assert "test_retry.py" in caplog.text
    assert "@" not in caplog.text
    # in the end they go on without it
    assert {(person.step, person.attempts) for person in house.people()} == {("wait 30d", 0)}
    assert len(house.providers.accepted) == 20
    assert [house.passed(person)[0] for person in sorted(bad)] == [("bad", "failed")] * 3
    pauses = sum(FIRST_RETRY * 2**tried for tried in range(TRIES - 1))
    for person in house.people():
        if person.profile_id in bad:
            assert person.arrived_at == MONDAY + pauses


def test_an_enrollment_migrated_at_its_last_attempt_continues_in_the_new_version(
    house: House,
) -> None:
    house.open(described(Update("bad", x=1), Update("old", x=1)))
    ann = house.customer()
    retry_later = Engine._retry_later

    def moved_first(*given: Any) -> Any:
        house.open(described(Update("bad", x=2), Update("new", x=2)))
        with house.db.transaction() as tx:
            migrate_people(tx, house.segue.catalog, "j")
        return retry_later(*given)

    with failing_on(ann):
        house.launch("j")
        house.later("14m")
        [person] = house.people()
        assert (person.step, person.attempts) == ("bad", TRIES - 1)
        house.db.now = person.due_at
        with patch.object(Engine, "_retry_later", moved_first):
            house.advance()
    [person] = house.people()
    assert (person.step, person.attempts, house.passed()) == ("bad", TRIES - 1, [])
    house.run()
    assert house.passed() == [("bad", "next"), ("new", "next")]


def test_a_failure_that_passes_resets_the_attempts(house: House) -> None:
    house.open(described(Send("bad", Email("hello")), Wait("30d")))
    ann = house.customer()
    with failing_on(ann):
        house.launch("j")
    assert house.rows() == []
    house.later("1h")
    assert house.passed(ann) == [("bad", "next")]
    [person] = house.people()
    assert (person.step, person.attempts) == ("wait 30d", 0)
    assert [row.wanted_at for row in house.rows()] == [MONDAY + FIRST_RETRY]


@pytest.mark.parametrize(
    ("step", "then", "ended"),
    [
        (Send("bad", Email("hello")), "next", None),
        (Wait("1h", name="bad"), "next", None),
        (Split("bad", when(attribute("x") == 1, [Exit("e1")])), "next", None),
        (
            Split("bad", when(attribute("x") == 1, [Exit("e1")]), otherwise=[Wait("9d", name="o")]),
            "o",
            None,
        ),
        (
            WaitUntil("bad", did("x"), timeout="1d", on_timeout=[Wait("9d", name="o")]),
            "o",
            None,
        ),
        (Experiment("bad", arm("a", 1, [Exit("e1")]), holdout=10), "next", None),
        (Experiment("bad", arm("a", 1, [Wait("9d", name="o")])), None, "failed"),
        (Exit("bad"), None, "failed"),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_where_enrollments_continue_after_the_last_attempt(
    house: House, step: Any, then: str | None, ended: str | None
) -> None:
    rest = [] if isinstance(step, type(Exit("x"))) else [Wait("9d", name="next")]
    house.open(described(step, *rest))
    ann = house.customer()
    with failing_on(ann):
        house.launch("j")
        house.later("1d")
    [person] = house.people()
    assert person.end_reason == ended
    assert house.passed(ann)[0] == ("bad", "failed")
    if then:
        assert person.step == then


@pytest.mark.parametrize("on_error", ["continue", "exit"])
def test_a_call_that_cannot_be_built_continues_at_its_on_error(house: House, on_error: str) -> None:
    call = Call("bad", "https://shop.example/x", on_error=on_error)
    house.open(described(call, Wait("9d", name="next")))
    house.customer()
    with patch("journeys.engine.advance.payloads_of", side_effect=KeyError("ann@example.com")):
        house.launch("j")
        house.later("1d")
    [person] = house.people()
    if on_error == "exit":
        assert person.end_reason == "exit: the step failed"
    else:
        assert person.step == "next"


def test_any_error_of_a_call_fails_only_that_call(house: House) -> None:
    house.open(described(Call("call", "https://shop.example/x", tries=1), Wait("9d", name="next")))
    ann, bob = house.customer("ann"), house.customer("bob")

    def odd(request: httpx.Request) -> httpx.Response:
        if b'"ann"' in request.content:
            raise ValueError("ann@example.com")
        return httpx.Response(200)

    house.providers.hosts["shop.example"] = odd
    with patch("journeys.engine.call_step._refusal", return_value=None):
        house.launch("j")
    assert house.passed(ann) == [("call", "failed")]
    assert house.passed(bob) == [("call", "next")]


def test_a_database_error_blames_no_enrollment(house: House) -> None:
    house.open(described(Update("bad", seen=True)))
    ann = house.customer()
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
    trouble = OperationalError("", {}, Exception("disk I/O error"))
    with (
        patch("journeys.engine.move._handle", side_effect=trouble),
        pytest.raises(OperationalError),
    ):
        house.run()
    [person] = house.people()
    assert (person.attempts, person.due_at) == (0, MONDAY)


def test_a_step_that_cannot_be_loaded_comes_after_the_others(house: House) -> None:
    house.open(described(Update("bad", seen=True)), Journey("k", entry=OnLaunch(), topic="n",
        steps=[Update("good", done=True)]))  # fmt: skip
    ann = house.customer()

    def odd(tx: Any, version: Any, step: str, *rest: Any) -> Any:
        if step == "bad":
            raise ValueError(step)
        return lock_due(tx, version, step, *rest)

    with house.db.transaction() as tx:
        for name in "jk":
            version = house.segue.catalog.journey(name)
            enter_people(tx, version, [ann], None)
    with patch("journeys.engine.advance.lock_due", odd), pytest.raises(ValueError, match="bad"):
        house.advance()
    assert house.attributes(ann) == {"done": True}


# Events -------------------------------------------------------------------------------------------


def test_an_event_that_cannot_be_processed_does_not_delay_others(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.open(described(Wait("9d"), entry=OnEvent("came")))
    people = [house.customer() for _ in range(30)]
    for person in people:
        house.did(person, "came")
    bad = {people[7], people[20]}

    def odd(tx: Any, some: set[int]) -> None:
        if bad & some:
            raise KeyError("ann@example.com")
        lock_profiles(tx, some)

    def waiting() -> int:
        with house.db.transaction() as tx:
            found = tx.conn.execute(events.select().where(events.c.worked_at.is_(None)))
            return len(found.all())

    reactor = Reactor(house.segue.engine)
    with patch("journeys.engine.events.lock_profiles", odd):
        while reactor.work().reaction.events:
            pass
        assert {person.profile_id for person in house.people()} == {*people} - bad
        assert caplog.text.count("failed and will be retried: KeyError at") == 2
        assert "@" not in caplog.text
        assert waiting() == 2
        # what comes later is worked
        house.did(people[0], "other")
        assert reactor.work().reaction.events == 1
        reactor.try_again()
        assert reactor.work().reaction.events == 0
        assert waiting() == 2
    reactor.try_again()
    while reactor.work().reaction.events:
        pass
    assert waiting() == 0
    assert len(house.people()) == 30


# Messages -----------------------------------------------------------------------------------------


def sending(house: House, number: int, **options: Any) -> list[int]:
    house.open(described(Send("s", Email("hello"), SMS("hello"))), **options)
    return [house.customer() for _ in range(number)]


def fates(house: House) -> dict[tuple[int, str], tuple[str, str | None]]:
    return {(row.profile_id, row.channel): (row.state, row.reason) for row in house.rows()}


def all_but(people: list[int], bad: int, channel: str, fate: tuple[str, str | None]) -> Any:
    """Everything was sent, with one exception."""
    sent: dict[tuple[int, str], tuple[str, str | None]] = {
        (person, one): ("sent", None) for person in people for one in ("email", "sms")
    }
    return sent | {(bad, channel): fate}


def test_a_claim_whose_evaluation_fails(house: House, caplog: pytest.LogCaptureFixture) -> None:
    people = sending(house, 9, policy=Policy.model_validate({"max_delay": "2h"}))
    bad = people[4]
    unwanted = CatalogJourneys.unwanted

    def odd(self: CatalogJourneys, tx: Any, rows: Any) -> Any:
        if any((row.profile_id, row.channel) == (bad, "sms") for row in rows):
            raise KeyError("ann@example.com")
        return unwanted(self, tx, rows)

    with patch.object(CatalogJourneys, "unwanted", odd):
        house.launch("j")
        assert fates(house) == all_but(people, bad, "sms", ("planned", "error: KeyError"))
        [late] = [row for row in house.rows() if row.state == "planned"]
        assert late.send_at == MONDAY + EVALUATE_AGAIN_AFTER
        assert f"message {late.id} can't be claimed, to be tried again later" in caplog.text
        assert "@" not in caplog.text
        house.until(late.latest_anchor - 10 * MINUTE)
        assert fates(house)[bad, "sms"] == ("planned", "error: KeyError")
        house.later("1h")
    # its time is over
    assert fates(house) == all_but(people, bad, "sms", ("skipped", "error: KeyError"))
    assert {person.end_reason for person in house.people()} == {"completed"}


def test_a_claim_whose_evaluation_failed_for_a_while(house: House) -> None:
    people = sending(house, 2)
    with patch.object(CatalogJourneys, "unwanted", side_effect=KeyError):
        house.launch("j")
    assert house.providers.requests == []
    house.later("1h")
    assert fates(house) == all_but(people, people[0], "sms", ("sent", None))


def test_a_template_that_fails_in_an_unforeseen_way(house: House) -> None:
    people = sending(house, 5)
    render = Renderer._rendered

    def odd(self: Renderer, one: Any, template: Any) -> Any:
        if (one.profile_id, one.channel) == (people[2], "email"):
            raise ZeroDivisionError("ann@example.com")
        return render(self, one, template)

    with patch.object(Renderer, "_rendered", odd):
        house.launch("j")
    fate = ("skipped", "render_error: ZeroDivisionError")
    assert fates(house) == all_but(people, people[2], "email", fate)


def test_a_request_that_cannot_be_built_for_one_message_of_many(house: House) -> None:
    people = sending(house, 9, sendgrid_template_id="d-1")
    prepare = SendGrid.prepare

    def odd(self: SendGrid, batch: Any) -> Any:
        if any(one.to == "c5@example.com" for one in batch):
            raise TypeError("c5@example.com")
        return prepare(self, batch)

    with patch.object(SendGrid, "prepare", odd):
        house.launch("j")
    fate = ("failed", "can't build the request: TypeError")
    assert fates(house) == all_but(people, people[4], "email", fate)


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (KeyError("ann@example.com"), "unreadable answer: KeyError"),
        (lambda *_: [], "no answer about it"),
    ],
)
def test_a_message_with_an_unreadable_response_is_not_sent_again(
    house: House, read: Any, reason: str
) -> None:
    people = sending(house, 1)
    with patch.object(SendGrid, "read", side_effect=read):
        house.launch("j")
    house.later("2d")
    assert fates(house) == all_but(people, people[0], "email", ("unknown", reason))
    assert len(house.providers.accepted) == 2


def test_an_outcome_that_cannot_be_recorded(house: House, caplog: pytest.LogCaptureFixture) -> None:
    people = sending(house, 9)

    def odd(tx: Any, asked: Any, done: Any, **options: Any) -> Any:
        if any((one.claim.profile_id, one.claim.channel) == (people[1], "sms") for one in done):
            raise ValueError("ann@example.com")
        return record(tx, asked, done, **options)

    with patch("channels.outbox.dispatch.record", odd):
        house.launch("j")
    assert fates(house) == all_but(people, people[1], "sms", ("sending", None))
    assert "the outcome of message" in caplog.text
    assert "@" not in caplog.text


def test_a_providers_error_text_may_contain_anything(house: House) -> None:
    people = sending(house, 2)
    odd = {"errors": [{"message": "no\x00 \N{SNOWMAN}", "field": None}]}
    house.providers.answer("email", httpx.Response(400, json=odd))
    house.launch("j")
    failed = [fate for fate in fates(house).values() if fate[0] == "failed"]
    assert failed == [("failed", "sendgrid 400: no \N{SNOWMAN}")]
    assert len(people) == 2


def test_the_log_text_of_an_error() -> None:
    from config.database.failures import reason_of

    def deep() -> None:
        raise ValueError("ann@example.com")

    with pytest.raises(ValueError, match="ann") as caught:
        deep()
    said = reason_of(caught.value)
    assert said.startswith("ValueError at test_retry.py:")
    assert "@" not in said
