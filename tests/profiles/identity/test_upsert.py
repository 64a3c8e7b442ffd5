"""Profiles are found, created and updated."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from config.clock.times import DAY, Instant
from config.database.engine import Database, table_of
from profiles.bucketing import bucket_of
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import NewEvent, record_events
from profiles.identity.person import Person, normalise_email, normalise_id
from profiles.identity.phones import Phone
from profiles.identity.upsert import UpsertReport, upsert_people
from profiles.tables import (
    Consent,
    ConsentRecord,
    Event,
    Identifier,
    Profile,
    consent_records,
    consents,
    events,
    identifiers,
    profiles,
)
from tests.support.proof import cases

MONDAY: Instant = 1_772_409_600  # 2026-03-02T00:00:00Z
ANN = normalise_email("ann@example.com")
BOB = normalise_email("bob@example.com")
PHONE = Phone("+447700900001", "GB")


def upsert(
    db: Database, *people: Person, at: Instant = MONDAY, source: str = "test"
) -> UpsertReport:
    db.now = at
    with db.transaction() as tx:
        return upsert_people(tx, people, source)


def state(db: Database) -> list[Sequence[Any]]:
    """Every row of every table of profiles."""
    with db.transaction(write=False) as tx:
        return [
            tuple(row)
            for model in (Profile, Identifier, Consent, ConsentRecord, Event)
            for row in tx.conn.execute(
                select(table_of(model)).order_by(*table_of(model).primary_key)
            )
        ]


def profile(db: Database, profile_id: int | None) -> dict[str, Any]:
    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(profiles).where(profiles.c.id == profile_id))
        return dict(rows.mappings().one())


def consent_of(db: Database, profile_id: int | None) -> dict[tuple[str, str], bool]:
    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(consents).where(consents.c.profile_id == profile_id))
        return {(row.channel, row.topic): row.granted for row in rows}


def records(db: Database) -> list[tuple[bool, Instant, Instant, str]]:
    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(consent_records).order_by(consent_records.c.id))
        return [(row.granted, row.occurred_at, row.recorded_at, row.source) for row in rows]


def test_a_new_person_becomes_a_profile_with_identifiers_and_consent(db: Database) -> None:
    report = upsert(
        db,
        Person(
            user_id="7",
            email=ANN,
            phone=PHONE,
            push_tokens={"t1": "ios"},
            country="GB",
            timezone="Europe/London",
            language="en",
            attributes={"first_name": "Ann"},
            consent={("email", "*"): True},
        ),
        source="import people.csv",
    )
    assert (report.created, report.updated, report.unchanged) == (1, 0, 0)
    assert profile(db, report.profile_ids[0]) == {
        "id": report.profile_ids[0],
        "timezone": "Europe/London",
        "country": "GB",
        "language": "en",
        "attributes": {"first_name": "Ann"},
        "created_at": MONDAY,
        "updated_at": MONDAY,
        "attribute_times": {},
        "attribute_identifiers": [
            ["user_id", "7", ["attributes.first_name", "country", "language", "timezone"]]
        ],
        "bucket": bucket_of(1),
        "computed": None,
        "persona": None,
    }
    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(identifiers).order_by(identifiers.c.kind)).all()
    assert [(r.kind, r.value, r.country, r.platform, r.seen_at) for r in rows] == [
        ("email", "ann@example.com", None, None, MONDAY),
        ("phone", "+447700900001", "GB", None, MONDAY),
        ("push_token", "t1", None, "ios", MONDAY),
        ("user_id", "7", None, None, MONDAY),
    ]
    assert records(db) == [(True, MONDAY, MONDAY, "import people.csv")]


def test_any_identifier_finds_the_profile(db: Database) -> None:
    (first,) = upsert(
        db, Person(user_id="7", anonymous_id="x", email=ANN, phone=PHONE, push_tokens={"t": None})
    ).profile_ids
    for person in (
        Person(user_id="7"),
        Person(anonymous_id="x"),
        Person(email=ANN),
        Person(phone=PHONE),
        Person(push_tokens={"t": None}),
    ):
        assert upsert(db, person).profile_ids == [first]


def test_stated_attributes_change_and_others_stay(db: Database) -> None:
    upsert(
        db, Person(user_id="7", country="GB", language="en", attributes={"a": 1, "b": 2, "c": 3})
    )
    report = upsert(
        db, Person(user_id="7", country="FR", attributes={"b": 5, "c": None}), at=MONDAY + 60
    )
    assert report.updated == 1
    now = profile(db, report.profile_ids[0])
    assert (now["country"], now["language"]) == ("FR", "en")
    assert now["attributes"] == {"a": 1, "b": 5}
    assert (now["created_at"], now["updated_at"]) == (MONDAY, MONDAY + 60)


def test_the_same_again_changes_nothing(db: Database) -> None:
    people = [
        Person(
            user_id=str(number),
            email=normalise_email(f"c{number}@example.com"),
            push_tokens={f"t{number}": "web"},
            country="IE",
            attributes={"n": number, "deep": {"list": [1, 2.5, None]}},
            consent={("email", "*"): number % 2 == 0, ("sms", "*"): False},
        )
        for number in range(50)
    ]
    assert upsert(db, *people).created == 50
    before = state(db)
    report = upsert(db, *people, at=MONDAY + DAY)
    assert (report.created, report.updated, report.unchanged) == (0, 0, 50)
    assert state(db) == before


def test_one_person_twice_in_a_batch_is_one_profile_and_the_later_row_wins(db: Database) -> None:
    rows = [
        Person(user_id="7", country="GB", consent={("email", "*"): True}),
        Person(user_id="7", email=ANN, country="FR", consent={("email", "*"): False}),
    ]
    report = upsert(db, *rows)
    assert report.profile_ids[0] == report.profile_ids[1]
    assert (report.created, report.unchanged) == (1, 1)
    assert profile(db, report.profile_ids[0])["country"] == "FR"
    assert consent_of(db, report.profile_ids[0]) == {("email", "*"): False}
    before = state(db)
    assert upsert(db, *rows, at=MONDAY + DAY).unchanged == 2
    assert state(db) == before


def test_ids_come_in_the_order_of_the_people(db: Database) -> None:
    ids = upsert(db, *(Person(user_id=f"u{number}") for number in range(2500))).profile_ids
    assert ids == sorted(ids, key=lambda known: known or 0)
    again = upsert(db, *(Person(user_id=f"u{number}") for number in reversed(range(2500))))
    assert again.profile_ids == list(reversed(ids))


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        (Person(country="GB"), "there is no identifier"),
        (
            Person(user_id="1", email=BOB),
            "user_id '1' and email 'bob@example.com' belong to two different customers",
        ),
        (Person(user_id="3", email=ANN), "belongs to the customer with user_id '1'"),
    ],
)
def test_a_person_without_one_profile_is_refused_with_the_reason(
    db: Database, person: Person, reason: str
) -> None:
    upsert(db, Person(user_id="1", email=ANN), Person(user_id="2", email=BOB))
    before = state(db)
    report = upsert(db, person, Person(user_id="1"), at=MONDAY + 5)
    assert report.profile_ids[0] is None
    assert reason in report.refused[0]
    assert (report.created, report.updated, report.unchanged) == (0, 0, 1)
    assert state(db) == before


def test_the_second_of_two_new_user_ids_with_one_address_is_refused(db: Database) -> None:
    report = upsert(db, Person(user_id="1", email=ANN), Person(user_id="2", email=ANN))
    assert report.profile_ids[1] is None
    assert "belongs to the customer with user_id '1'" in report.refused[1]
    assert report.created == 1


def test_a_profile_known_by_address_gets_its_user_id(db: Database) -> None:
    (known,) = upsert(db, Person(email=ANN)).profile_ids
    assert upsert(db, Person(user_id="1", email=ANN)).profile_ids == [known]
    assert upsert(db, Person(user_id="1")).profile_ids == [known]


def test_the_address_stated_last_is_the_one_seen_last(db: Database) -> None:
    def latest() -> str:
        with db.transaction(write=False) as tx:
            rows = tx.conn.execute(select(identifiers).where(identifiers.c.kind == "email"))
            return str(max(rows, key=lambda row: row.seen_at).value)

    upsert(db, Person(user_id="1", email=ANN), at=MONDAY)
    upsert(db, Person(user_id="1", email=BOB), at=MONDAY + 10)
    assert latest() == BOB
    upsert(db, Person(user_id="1", email=ANN), at=MONDAY + 20)
    assert latest() == ANN
    before = state(db)
    upsert(db, Person(user_id="1", email=ANN), at=MONDAY + 30)
    assert state(db) == before


class TestConsent:
    """What holds, and the record of how it came to that."""

    def test_only_a_real_change_is_recorded(self, db: Database) -> None:
        yes = Person(user_id="1", consent={("email", "*"): True}, seen_at=MONDAY)
        upsert(db, yes)
        upsert(db, yes)
        later = Person(user_id="1", consent={("email", "*"): True}, seen_at=MONDAY + DAY)
        upsert(db, later)
        assert records(db) == [(True, MONDAY, MONDAY, "test")]

    def test_an_older_statement_never_overrules_a_later_one(self, db: Database) -> None:
        no = Person(user_id="1", consent={("sms", "*"): False}, seen_at=MONDAY + DAY)
        yes = Person(user_id="1", consent={("sms", "*"): True}, seen_at=MONDAY)
        upsert(db, no)
        report = upsert(db, yes, at=MONDAY + 2 * DAY)
        assert (report.updated, report.consent_overruled) == (0, 1)
        assert consent_of(db, report.profile_ids[0]) == {("sms", "*"): False}
        assert len(records(db)) == 1

    def test_a_later_statement_overrules_an_older_one(self, db: Database) -> None:
        no = Person(user_id="1", consent={("sms", "*"): False}, seen_at=MONDAY)
        yes = Person(user_id="1", consent={("sms", "*"): True}, seen_at=MONDAY + 1)
        upsert(db, no)
        report = upsert(db, yes, at=MONDAY + DAY)
        assert report.updated == 1
        assert consent_of(db, report.profile_ids[0]) == {("sms", "*"): True}
        assert records(db) == [
            (False, MONDAY, MONDAY, "test"),
            (True, MONDAY + 1, MONDAY + DAY, "test"),
        ]

    def test_the_no_of_two_statements_of_one_second_applies(self, db: Database) -> None:
        for granted in (True, False, True):
            upsert(db, Person(user_id="1", consent={("sms", "*"): granted}, seen_at=MONDAY))
        assert [record[0] for record in records(db)] == [True, False]

    def test_an_undated_yes_does_not_undo_a_stop(self, db: Database) -> None:
        """The shop's export still contains the opt-in when it is imported again after the STOP."""
        row = Person(user_id="1", consent={("sms", "*"): True})
        (ann,) = upsert(db, row, source="import customers.csv").profile_ids
        assert ann is not None
        db.now = MONDAY + 60
        with db.transaction() as tx:
            change_consent(
                tx,
                [
                    ConsentChange(
                        profile_id=ann, channel="sms", topic="*", granted=False, occurred_at=tx.now
                    )
                ],
                "STOP",
            )
        report = upsert(db, row, at=MONDAY + DAY, source="import customers.csv")
        assert consent_of(db, ann) == {("sms", "*"): False}
        assert (report.unchanged, report.consent_overruled) == (1, 1)

    def test_a_yes_from_the_future_does_not_undo_a_stop(self, db: Database) -> None:
        """Opt-ins with a future date are stored without a date, at each repeated import."""
        row = Person(user_id="1", consent={("sms", "*"): True}, seen_at=MONDAY + 400 * DAY)
        (ann,) = upsert(db, row, source="import customers.csv").profile_ids
        assert ann is not None
        assert records(db) == [(True, MONDAY, MONDAY, "import customers.csv")]
        with db.transaction() as tx:
            no = ConsentChange(
                profile_id=ann, channel="sms", topic="*", granted=False, occurred_at=tx.now
            )
            assert change_consent(tx, [no], "STOP").applied == [no]
        for days in (1, 2):
            report = upsert(db, row, at=MONDAY + days * DAY, source="import customers.csv")
            assert consent_of(db, ann) == {("sms", "*"): False}
            assert report.consent_overruled == 1

    def test_a_no_with_a_future_time_counts_as_now(self, db: Database) -> None:
        no = Person(user_id="1", consent={("sms", "*"): False}, seen_at=MONDAY + 400 * DAY)
        yes = Person(user_id="1", consent={("sms", "*"): True}, seen_at=MONDAY + 1)
        upsert(db, no)
        report = upsert(db, yes, at=MONDAY + DAY)
        assert consent_of(db, report.profile_ids[0]) == {("sms", "*"): True}
        assert [record[:2] for record in records(db)] == [(False, MONDAY), (True, MONDAY + 1)]

    def test_a_file_may_correct_its_own_statements(self, db: Database) -> None:
        for granted in (False, True):
            report = upsert(
                db, Person(user_id="1", consent={("sms", "*"): granted}), source="import a.csv"
            )
        assert consent_of(db, report.profile_ids[0]) == {("sms", "*"): True}

    def test_an_undated_no_always_holds(self, db: Database) -> None:
        yes = Person(user_id="1", consent={("email", "*"): True}, seen_at=MONDAY)
        upsert(db, yes, source="preference page")
        report = upsert(db, Person(user_id="1", consent={("email", "*"): False}), at=MONDAY + 5)
        assert consent_of(db, report.profile_ids[0]) == {("email", "*"): False}
        assert records(db)[-1] == (False, MONDAY + 5, MONDAY + 5, "test")


def test_several_processes_may_create_the_same_people_at_once(db: Database) -> None:
    db.now = MONDAY
    people = [
        Person(user_id=f"u{n}", email=normalise_email(f"u{n}@example.com")) for n in range(99)
    ]
    start = Barrier(4)

    def work(backwards: bool) -> UpsertReport:
        start.wait()
        with db.transaction() as tx:
            return upsert_people(tx, people[::-1] if backwards else people, "test")

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(work, [False, True, False, True]))
    assert sum(report.created for report in reports) == 99
    assert reports[0].profile_ids == reports[1].profile_ids[::-1]


_runs = count()


@settings(
    max_examples=cases(test=15, prove=1000),
    # each example has people of its own in the one database
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", None]),
            st.sampled_from(["a", "b", "c", None]),
            st.sampled_from([None, True, False]),
            st.sampled_from([None, MONDAY - 5, MONDAY - 9]),
        ),
        max_size=6,
    )
)
@example(
    [
        ("a", None, True, MONDAY - 9),
        ("a", None, True, MONDAY - 5),
        ("a", None, False, MONDAY - 9),
    ]
).via("a no that is older than one of two yeses")
def test_every_user_id_has_one_profile_after_any_imports(
    db: Database, drawn: list[tuple[str | None, str | None, bool | None, Instant | None]]
) -> None:
    # An address that one customer replaces is free for another one, so the next time its row is
    # taken that was refused the first time: here each address is stated of one customer.
    customers: dict[str | None, set[str | None]] = {}
    for user, mail, *_ in drawn:
        customers.setdefault(mail, set()).add(user)
    assume(all(len(whose) == 1 for mail, whose in customers.items() if mail))
    run = next(_runs)
    people = [
        Person(
            user_id=user and f"{run}-{user}",
            email=normalise_email(f"{run}-{mail}@example.com") if mail else None,
            consent={} if said is None else {("email", "*"): said},
            seen_at=seen_at,
        )
        for user, mail, said, seen_at in drawn
    ]
    first = upsert(db, *people)
    assert first.created + first.updated + first.unchanged + len(first.refused) == len(people)
    before = state(db)
    second = upsert(db, *people, at=MONDAY + DAY)
    assert second.created == second.updated == 0
    assert second.profile_ids == first.profile_ids
    assert state(db) == before
    placed = [
        (person.user_id, profile_id)
        for person, profile_id in zip(people, first.profile_ids, strict=True)
        if person.user_id and profile_id
    ]
    assert len(set(placed)) == len({user for user, _ in placed}) == len({p for _, p in placed})


def test_an_event_is_written_once_and_history_is_marked_as_worked(db: Database) -> None:
    (ann, bob) = upsert(db, Person(user_id="1"), Person(user_id="2")).profile_ids
    assert ann is not None
    assert bob is not None

    def order(profile_id: int, key: str) -> NewEvent:
        return NewEvent(
            profile_id=profile_id,
            name="order_completed",
            occurred_at=MONDAY - DAY,
            dedupe_key=key,
            properties={"total": 9.5},
        )

    with db.transaction() as tx:
        assert (
            record_events(tx, [order(ann, "1"), order(ann, "1"), order(bob, "1")], worked=True) == 2
        )
        assert record_events(tx, [order(ann, "1"), order(ann, "2")], worked=False) == 1
        assert record_events(tx, [], worked=True) == 0
        rows = tx.conn.execute(select(events).order_by(events.c.id)).all()
    assert [(r.profile_id, r.dedupe_key, r.worked_at) for r in rows] == [
        (ann, "1", MONDAY),
        (bob, "1", MONDAY),
        (ann, "2", None),
    ]
    assert (rows[0].occurred_at, rows[0].received_at) == (MONDAY - DAY, MONDAY)
    assert rows[0].properties == {"total": 9.5}


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("Ann@Example.COM", "ann@example.com"),
        ("  ann+news@example.com ", "ann+news@example.com"),
        ("jürgen@bücher.example.com", "jürgen@xn--bcher-kva.example.com"),
    ],
)
def test_addresses_are_stored_in_lower_case(written: str, stored: str) -> None:
    assert normalise_email(written) == stored


@pytest.mark.parametrize(
    "written", ["", "ann", "ann@", "ann@@example.com", "a b@example.com", "@x"]
)
def test_an_invalid_address_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is not an e-mail address"):
        normalise_email(written)


@pytest.mark.parametrize(
    ("written", "why"),
    [("", "empty"), ("  ", "empty"), ("a\0b", "contains a NUL"), ("x" * 1001, "longer than 1000")],
)
def test_ids_that_no_database_can_hold_are_refused(written: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        normalise_id(written)
