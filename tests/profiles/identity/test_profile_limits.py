"""The limits of a profile: bytes of attributes and number of identifiers."""

from typing import Any

import orjson
import pytest
from sqlalchemy import event, select

from channels.rules.loaders import load_recipients
from config.clock.times import DAY, Instant, format_instant, parse_instant
from config.database.engine import Database
from config.policy import Policy
from journeys.operations.merge import merge
from profiles.calls.record_calls import Outcome, take_calls
from profiles.calls.segment_calls import CallKind, read_call
from profiles.identity import profile as profiles_account
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import UpsertReport, upsert_people
from profiles.rules import DEFAULT_LIMITS, InputRules, ProfileLimits
from profiles.tables import events, identifiers, profiles
from tests.support.http.receiving import receiving
from tests.support.shop import House

NOW: Instant = parse_instant("2026-03-02T10:00:00Z")
KB = 1024


def upsert(db: Database, *people: Person, limits: ProfileLimits = DEFAULT_LIMITS) -> UpsertReport:
    db.now = NOW if db.now is None else db.now
    with db.transaction() as tx:
        return upsert_people(tx, people, "test", rules=InputRules(limits=limits))


def take(db: Database, *said: tuple[CallKind, dict[str, Any]]) -> list[Outcome]:
    db.now = NOW if db.now is None else db.now
    with db.transaction() as tx:
        return take_calls(tx, [read_call(*one) for one in said], merge)


def attributes(db: Database) -> dict[str, Any]:
    with db.transaction(write=False) as tx:
        found: dict[str, Any] = tx.conn.execute(select(profiles.c.attributes)).scalar_one()
        return found


def known(db: Database, kind: str) -> list[str]:
    with db.transaction(write=False) as tx:
        found = select(identifiers.c.value).where(identifiers.c.kind == kind)
        return sorted(tx.conn.execute(found).scalars())


# Attributes ---------------------------------------------------------------------------------------


def size(db: Database) -> int:
    return len(orjson.dumps(attributes(db)))


def test_an_attribute_over_the_limit_is_ignored_and_the_others_kept(db: Database) -> None:
    full = {f"a{number}": "x" * (30 * KB) for number in range(8)}
    upsert(db, Person(user_id="ann", attributes=full))
    more = {"small": 1, "large": "y" * (20 * KB), "email": "ann@example.com"}
    [outcome] = take(db, ("identify", {"userId": "ann", "traits": more}))
    assert outcome.refused is None
    [warning] = outcome.warnings
    assert warning == (
        "the attribute 'large' is left out: with it the profile would have more than 262144 bytes "
        "of attributes; remove others first"
    )
    assert attributes(db).keys() == {*full, "small"}
    assert known(db, "email") == ["ann@example.com"]
    # what makes room is taken, and so is what fits then
    [outcome] = take(db, ("identify", {"userId": "ann", "traits": {"a0": None, **more}}))
    assert outcome.warnings == []
    assert attributes(db).keys() == {*full, "small", "large"} - {"a0"}
    assert size(db) <= DEFAULT_LIMITS.attributes


def test_the_limit_is_exact(db: Database) -> None:
    exact = len(orjson.dumps({"a": "", "b": 1}))
    limits = ProfileLimits(attributes=exact + 10)
    report = upsert(db, Person(user_id="1", attributes={"b": 1, "a": "x" * 10}), limits=limits)
    assert report.left_out == {}
    report = upsert(db, Person(user_id="1", attributes={"a": "x" * 12}), limits=limits)
    assert list(report.left_out) == [0]
    assert size(db) == exact + 10


def test_removed_attributes_do_not_count(db: Database) -> None:
    """That they were is remembered as long as there is room, and no longer."""
    for number in range(30):
        names = {f"{number:04}-{name}-{'n' * 500}": None for name in range(40)}
        [outcome] = take(db, ("identify", {"userId": "ann", "traits": {**names, "plan": "a"}}))
        assert outcome.warnings == []
    with db.transaction(write=False) as tx:
        times = tx.conn.execute(select(profiles.c.attribute_times)).scalar_one()
    assert times is not None
    assert len(orjson.dumps(times)) < 2 * DEFAULT_LIMITS.attributes
    assert attributes(db) == {"plan": "a"}


def test_twenty_megabytes_of_attributes_are_linear_work(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attribute is looked at a fixed number of times, the whole profile once a transaction."""
    looked = {"whole": 0, "one": 0, "written": 0}
    for name, function in (("attributes_size", "whole"), ("entry_size", "one")):
        original = getattr(profiles_account, name)

        def counting(*given: Any, _of: str = function, _do: Any = original) -> Any:
            looked[_of] += 1
            return _do(*given)

        monkeypatch.setattr(profiles_account, name, counting)
    transactions, stated, megabytes = 0, 0, 0.0
    while megabytes < 20:
        some = []
        for _ in range(32):
            traits = {f"n{stated + place}": "x" * KB for place in range(30)}
            stated += len(traits)
            some.append(Person(user_id="ann", attributes=traits))
            megabytes += len(orjson.dumps(traits)) / KB / KB
        report = upsert(db, *some)
        transactions += 1
    assert report.refused == {}
    assert len(report.left_out) == 32
    assert looked["whole"] <= transactions
    assert looked["one"] <= 3 * stated
    assert size(db) <= DEFAULT_LIMITS.attributes


def test_imports_apply_the_limit_and_report_it(db: Database) -> None:
    report = upsert(
        db,
        Person(user_id="1", attributes={"notes": "x" * (300 * KB)}),
        Person(user_id="2", attributes={"notes": "fine"}),
    )
    assert (report.created, report.refused) == (2, {})
    assert "the attribute 'notes' is left out" in report.left_out[0][0]


# Identifiers --------------------------------------------------------------------------------------


def test_the_oldest_anonymous_id_is_removed_and_no_event_is_refused(db: Database) -> None:
    db.now = NOW
    for number in range(150):
        db.now += 2 * DAY  # so that no week has more than the limit of joins
        said = {"userId": "ann", "anonymousId": f"a{number:03}", "event": "x"}
        [outcome] = take(db, ("track", said))
        assert outcome == Outcome([])
    assert known(db, "user_id") == ["ann"]
    assert known(db, "anonymous_id") == [f"a{number:03}" for number in range(51, 150)]
    with db.transaction(write=False) as tx:
        assert len(tx.conn.execute(select(events.c.id)).all()) == 150


def test_a_batch_of_anonymous_ids_writes_no_more_than_the_limit(db: Database) -> None:
    written: list[int] = []

    @event.listens_for(db.engine, "before_cursor_execute")
    def count(_c: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        if statement.startswith("INSERT INTO identifier"):
            written.append(len(parameters))

    people = [Person(user_id="ann", anonymous_id=f"a{number}") for number in range(3000)]
    report = upsert(db, *people)
    assert report.refused == {}
    assert len(set(report.profile_ids)) == 1
    assert len(known(db, "anonymous_id")) == 99
    assert sum(written) <= 100


def test_devices_are_removed_after_anonymous_ids_dead_ones_first(db: Database) -> None:
    limits = ProfileLimits(identifiers=10)
    db.now = NOW
    for number in range(6):
        db.now += 1
        upsert(db, Person(user_id="ann", push_tokens={f"t{number}": None}), limits=limits)
    seen_at = db.now
    gone = Person(user_id="ann", removed_tokens={"t5"}, seen_at=seen_at)
    upsert(db, gone, Person(user_id="ann", anonymous_id="a1"), limits=limits)
    for number in range(6, 10):
        db.now += 1
        upsert(db, Person(user_id="ann", push_tokens={f"t{number}": None}), limits=limits)
    assert known(db, "anonymous_id") == []
    assert known(db, "push_token") == [f"t{number}" for number in range(10) if number != 5]


def test_an_address_for_which_there_is_no_room_is_left_out(db: Database) -> None:
    limits = ProfileLimits(identifiers=10)
    for number in range(12):
        address = normalise_email(f"a{number}@example.com")
        report = upsert(db, Person(user_id="ann", email=address), limits=limits)
        assert report.refused == {}
    assert report.left_out == {
        0: ["the e-mail address is left out: the profile has 10 identifiers already"]
    }
    assert len(known(db, "email")) == 9
    policy = Policy()
    with db.transaction(write=False) as tx:
        [recipient] = load_recipients(tx, policy, [report.profile_ids[0] or 0]).values()
    assert recipient.situation.addresses == {"email"}


def test_the_limits_come_from_the_settings(house: House) -> None:
    policy = Policy.model_validate({"joins": {"limits": {"anonymous_id": "none"}}})
    house.open(policy=policy, profile_attributes_limit=1024, profile_identifiers_limit=10)
    with receiving(house.segue) as receiver:
        said = {"userId": "ann", "traits": {"notes": "x" * 2000, "plan": "a"}}
        answer = receiver.post("/v1/identify", json=said)
        assert answer.status_code == 200
        assert "'notes' is left out" in answer.json()["warnings"][0]
        for number in range(12):
            said = {"userId": "ann", "anonymousId": f"a{number}", "timestamp": format_instant(NOW)}
            assert receiver.post("/v1/identify", json=said).status_code == 200
    assert len(known(house.db, "anonymous_id")) == 9
    assert attributes(house.db) == {"plan": "a"}
