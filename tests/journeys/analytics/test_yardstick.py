"""The yardstick is what an independent recomputation in SQL gives, on both engines."""

import csv
import shutil
from math import isnan
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest
from sqlalchemy import insert

from channels.messages import messages
from config.clock.times import DAY, Instant, parse_instant
from config.clock.zones import zone
from config.database.engine import Database
from config.policy import Policy
from flows.orchestration.yardstick_flow import yardstick_text
from flows.yardstick import read_day, yardstick
from journeys.analytics.periods import Period, periods
from journeys.analytics.statistics import compare, mean
from journeys.analytics.yardstick import History, PeriodReport
from journeys.analytics.yardstick_views import HEADINGS, as_json, left_out, rows
from journeys.dsl import Exit, Segment, attribute, did
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import NewEvent, record_events
from profiles.identity.addresses import Suppressed, suppress
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import upsert_people
from profiles.imports.importer import import_file
from profiles.sample.shop import load_sample_shop
from tests.journeys.analytics.recomputed import MEASURES, recomputed
from tests.support.shared_data import DATA, needs_orders
from tests.support.shop import House, bare_message, described

NOW: Instant = parse_instant("2026-03-02T10:00:00Z")
POLICY = Policy(holdout_percent=30)
SEGMENTS = {
    "big": Segment("big", "Spent a lot", attribute("size") > 5),
    "loyal": Segment("loyal", "Ordered twice", did("order_completed", at_least=2)),
}


def opened(db: Database, policy: Policy = POLICY, **settings: Any) -> House:
    house = House(db, now=NOW)
    house.open(
        described(Exit("out", "over")),
        policy=policy,
        segments=SEGMENTS,
        satisfaction_event="nps_answered",
        **settings,
    )
    return house


def event(profile_id: int, name: str, at: Instant, key: str, **properties: Any) -> NewEvent:
    return NewEvent(
        profile_id=profile_id, name=name, occurred_at=at, dedupe_key=key, properties=properties
    )


def invent(house: House, number: int) -> list[int]:
    """Customers with two years of orders, messages, complaints and answers."""
    rng = Random(14)
    db = house.db
    ids: list[int] = []
    for one in range(number):
        db.now = NOW - rng.randrange(900) * DAY
        name = f"c{one}"
        person = Person(
            user_id=name if one % 5 else None,
            anonymous_id=None if one % 5 else name,
            email=normalise_email(f"{name}@example.com") if one % 5 else None,
            push_tokens={f"token-{name}": "ios"} if one % 3 else {},
            consent={("email", "*"): True} if one % 5 else {},
            attributes={"size": rng.randrange(12)},
            seen_at=db.now,
        )
        with db.transaction() as tx:
            [profile_id] = upsert_people(tx, [person], "test", rules=house.segue.rules).profile_ids
        assert profile_id is not None
        ids.append(profile_id)
    invented: list[NewEvent] = []
    mails = []
    for place, profile_id in enumerate(ids):

        def moment() -> Instant:
            return NOW - rng.randrange(800 * DAY)

        for at in range(rng.randrange(6)):
            amount = rng.randrange(-3000, 20_000) / 100
            key = f"order {at}"
            invented.append(event(profile_id, "order_completed", moment(), key, total_gbp=amount))
        for at in range(rng.randrange(3)):
            score = rng.choice([0, 3, 6, 7, 8, 9, 10, 11, -1, None])
            key = f"answer {at}"
            invented.append(event(profile_id, "nps_answered", moment(), key, score=score))
        if rng.random() < 0.2:
            invented.append(event(profile_id, "email_complained", moment(), "complaint"))
        if rng.random() < 0.15:
            db.now = moment()
            token = f"token-c{place}"
            with db.transaction() as tx:
                suppress(tx, [Suppressed("push", token, "unregistered")])
        for at in range(rng.randrange(4)):
            state = rng.choice(["sent", "delivered", "failed", "skipped", "unknown"])
            kind = rng.choice(["marketing", "marketing", "transactional"])
            mail = bare_message("j", 1000 * place + at, state, moment())
            mails.append({**mail, "profile_id": profile_id, "kind": kind})
    db.now = NOW
    with db.transaction() as tx:
        record_events(tx, invented, worked=True)
        tx.conn.execute(insert(messages), mails)
        noes = [
            ConsentChange(
                profile_id=profile_id,
                channel="email",
                topic="*",
                granted=False,
                occurred_at=NOW - rng.randrange(700) * DAY,
            )
            for profile_id in ids[::4]
        ]
        change_consent(tx, noes, "test")
    return ids


def assert_as_recomputed(
    db: Database, history: History, reports: list[PeriodReport]
) -> dict[str, int]:
    """Every figure, of all customers and by segment; returns how many people the groups of all
    customers had together.
    """
    seen = {"held_out": 0, "others": 0, "mixed": 0}
    for report in reports:
        assert [one.measure for one in report.figures] == list(MEASURES)
        for figure in report.figures:
            with db.transaction(write=False) as tx:
                sums = recomputed(tx, figure.measure, report.period, report.segment)
            where = f"{figure.measure} in {report.period.name}, {report.segment}"
            people = {place: sums[place].people if place in sums else 0 for place in seen}
            for place, number in people.items():
                seen[place] += number if report.segment is None else 0
            assert figure.everybody.people == sum(people.values()), where
            if figure.measure == "revenue":
                assert report.customers == figure.everybody.people
                assert report.mixed == people["mixed"]
            total = sum(one.total for one in sums.values())
            if figure.measure != "satisfaction":
                assert figure.total == pytest.approx(total, abs=1e-6), where
            for place, group in (("held_out", figure.held_out), ("others", figure.others)):
                assert group.people == people[place], where
                if group.people:
                    average = sums[place].total / group.people
                    assert group.each == pytest.approx(average, abs=1e-9), where
                else:
                    assert isnan(group.each)
            assert (figure.difference is not None) == (people["held_out"] > 0)
            if figure.difference is not None and people["others"]:
                expected = compare(
                    *(
                        mean(sums[place].people, sums[place].total, sums[place].squares)
                        for place in ("held_out", "others")
                    )
                )
                for key in ("absolute_fixed", "absolute_sequential"):
                    ours, theirs = getattr(figure.difference, key), getattr(expected, key)
                    for part in ("difference", "low", "high", "p"):
                        assert float(getattr(ours, part)) == pytest.approx(
                            float(getattr(theirs, part)), abs=1e-6, nan_ok=True
                        ), where
    return seen


def test_invented_customers(db: Database) -> None:
    house = opened(db)
    invent(house, 80)
    history, reports = yardstick(house.segue, read_day("2024-01-01"), by_segment=True)
    names = [one.period.name for one in reports if one.segment is None]
    assert {one.segment for one in reports} == {None, *SEGMENTS}
    # Each segment has some of the customers, and people in both groups of the differences.
    for segment in SEGMENTS:
        last = [one for one in reports if one.segment == segment][-1]
        assert 0 < last.customers < reports[-1 - len(SEGMENTS)].customers
        assert last.figures[0].held_out.people
        assert last.figures[0].others.people
    assert names[0] == "2024 Q1"
    assert names[-3:] == ["2024", "2025", "2026"]
    seen = assert_as_recomputed(db, history, list(reports))
    assert min(seen.values()) > 20


def test_the_sample_shop(db: Database) -> None:
    house = opened(db)
    load_sample_shop(db, NOW, customers=300)
    history, reports = yardstick(house.segue)
    seen = assert_as_recomputed(db, history, list(reports))
    assert seen["held_out"] > 500


@needs_orders
@pytest.mark.long
def test_a_real_year_of_orders(db: Database, tmp_path: Path) -> None:
    house = opened(db)
    db.now = parse_instant("2011-12-10T00:00:00Z")
    for name, as_event in (("customers.csv", None), ("orders.csv", "order_completed")):
        shutil.copyfile(DATA / name, tmp_path / name)
        import_file(db, tmp_path / name, as_event=as_event, rules=house.segue.rules)
    history, reports = yardstick(house.segue, read_day("2010-10-01"))
    assert [one.period.name for one in reports] == [
        *("2010 Q4", "2011 Q1", "2011 Q2", "2011 Q3", "2011 Q4", "2010", "2011"),
    ]
    assert_as_recomputed(db, history, list(reports))
    with (DATA / "orders.csv").open(encoding="utf-8", newline="") as file:
        cents = sum(round(float(row["total_gbp"]) * 100) for row in csv.DictReader(file))
    years = [one.figures[0].total for one in reports[-2:]]
    assert sum(years) == pytest.approx(cents / 100)


def test_a_segment_has_its_members_and_all_has_everybody(db: Database) -> None:
    house = opened(db)
    ids = invent(house, 40)
    _, reports = yardstick(house.segue, by_segment=True)
    assert {one.segment for one in reports} == {None, "big", "loyal"}
    big = [one for one in ids if house.attributes(one)["size"] > 5]
    for everybody, some in zip(reports[::3], reports[1::3], strict=True):
        assert everybody.period == some.period
        assert some.customers <= everybody.customers
    assert reports[-2].customers <= len(big) < len(ids)
    known = reports[-2].figures[0].everybody.people
    assert known == reports[-2].customers > 0


def test_without_a_holdout_nothing_is_compared(db: Database) -> None:
    house = opened(db, Policy())
    invent(house, 20)
    history, reports = yardstick(house.segue)
    assert all(one.difference is None for report in reports for one in report.figures)
    assert any("nobody is in the holdout" in line for line in left_out(history))
    assert np.isnan([one.held_out.each for one in reports[0].figures]).all()


def test_it_is_shown_as_json_table_and_artifact(db: Database) -> None:
    house = opened(db)
    invent(house, 30)
    history, reports = yardstick(house.segue)
    shown = orjson.loads(orjson.dumps(as_json(history, reports)))
    assert shown["currency"] == "GBP"
    assert [one["measure"] for one in shown["periods"][0]["measures"]] == list(MEASURES)
    assert any("answers without a score" in line for line in shown["left_out"])
    assert all(len(row) == len(HEADINGS) for row in rows(reports))
    text = yardstick_text(house.segue)
    assert text.startswith("# The yardstick\n\n- ")
    assert text.count("](data:image/svg+xml;base64,") == 3
    assert "| 2026 Q1 | all | revenue | " in text


def test_periods_are_local_quarters_and_years() -> None:
    berlin = zone("Europe/Berlin")
    since, until = parse_instant("2025-12-31T23:30:00Z"), parse_instant("2026-04-01T00:00:00Z")
    found = periods(since, until, berlin)
    assert [one.name for one in found] == ["2026 Q1", "2026 Q2", "2026"]
    assert found[0] == Period(
        name="2026 Q1",
        start=parse_instant("2025-12-31T23:00:00Z"),
        end=parse_instant("2026-03-31T22:00:00Z"),
    )
    assert found[2].end == parse_instant("2026-12-31T23:00:00Z")
