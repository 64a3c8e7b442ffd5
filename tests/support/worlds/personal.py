"""A shop in which people leave data in every table, and a search for traces of one of them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

from sqlalchemy import Text, cast, func, insert, select
from sqlmodel import SQLModel

from channels.feedback.apply import apply
from channels.messages import messages
from channels.providers.webhook import Feedback
from config.access.staff_acts import record_act
from config.clock.times import DAY
from config.database.engine import Database
from config.policy import Policy
from journeys.analytics.reports.figures import By
from journeys.analytics.reports.period import ever
from journeys.analytics.reports.report import report_journey
from journeys.analytics.revenue import RevenueMapping
from journeys.dsl import (
    SMS,
    Email,
    Experiment,
    Goal,
    Journey,
    OnEvent,
    OnLaunch,
    OnSegment,
    Push,
    Segment,
    Send,
    Wait,
    arm,
    days,
    did,
    everyone,
)
from journeys.operations.merge import merge
from journeys.privacy.erase import Erased, erase
from journeys.privacy.people import person_of
from profiles.consent.changes import ConsentChange, change_consent
from profiles.identity.addresses import Suppressed, suppress
from profiles.identity.mergers import Merger
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import upsert_people
from profiles.tables import email_confirmations, preferences
from tests.support.shop import House, described

POLICY = Policy.model_validate({"topics": {"news": "News"}, "holdout_percent": 20})
JOURNEYS: tuple[Journey, ...] = (
    described(
        Experiment(
            "subject",
            arm("short", 1, [Send("short mail", Email("hello"), Push("hello"))]),
            arm("long", 1, [Send("long mail", Email("offer"), SMS("offer", after="1d"))]),
        ),
        Wait("2d", "rest"),
        Send("last", Email("reminder")),
        name="trial",
        entry=OnLaunch(again="always"),
        goal=Goal(did=did("order_completed"), within=days(30), after="message"),
    ),
    described(
        Send("hi", Email("hello")),
        Wait("3d", "rest"),
        Send("bye", Push("hello")),
        name="cart",
        entry=OnEvent("left_cart", key="cart_id", again="always"),
        exit_when=did("order_completed"),
    ),
    described(Send("welcome", SMS("hello")), name="joined", entry=OnSegment("everyone")),
)
SEGMENTS = {"everyone": Segment("everyone", "Every customer", everyone())}


_GROUPINGS: tuple[By, ...] = ("step", "week", "launch")


def erase_from(house: House, profile_id: int) -> Erased:
    """Erase a person."""
    segue = house.segue
    with segue.db.transaction() as tx:
        return erase(
            tx,
            lambda tx: person_of(tx, profile_id),
            catalog=segue.catalog,
            settings=segue.settings,
            erased=segue.rules.erased,
            asked_by="test",
        )


class PersonalShop:
    """People whose every text has their mark, such as `qz7x`, in it."""

    def __init__(self, db: Database, seed: int = 0, house: House | None = None) -> None:
        self.house = house or House(db)
        self.house.open(
            *JOURNEYS,
            policy=POLICY,
            segments=SEGMENTS,
            satisfaction_event="answered",
            message_retention=30 * DAY,
            passage_retention=30 * DAY,
        )
        self.random = Random(seed)
        # by profile id: the mark, and those of the profiles that were joined into it
        self.marks: dict[int, str] = {}
        self.also: dict[int, list[str]] = {}

    def arrive(self, number: int) -> int:
        """Create a person; returns the profile id."""
        mark = f"qz{number}x"
        person = Person(
            user_id=f"{mark}-user",
            anonymous_id=f"{mark}-anonymous",
            email=normalise_email(f"{mark}@{self.random.choice(['gmail.com', f'{mark}.example'])}"),
            push_tokens={f"{mark}-token": "ios", f"{mark}-second": "web"},
            timezone="UTC",
            attributes={"first_name": f"Mr {mark}", "tags": [{"of": mark}]},
            consent={("sms", "*"): True, ("email", "*"): True},
        )
        with self.house.db.transaction() as tx:
            report = upsert_people(tx, [person], f"import {mark}.csv", rules=self.house.segue.rules)
        [profile_id] = report.profile_ids
        assert profile_id is not None, report
        self.marks[profile_id] = mark
        return profile_id

    def live(self, profile_id: int) -> None:
        """Leave data in every table that holds data of people."""
        house, mark = self.house, self.marks[profile_id]
        house.did(profile_id, "left_cart", cart_id=f"cart {mark}", note={"for": mark})
        house.did(profile_id, "answered", score=9, comment=mark)
        house.did(profile_id, f"saw_{mark}"[:20])
        with house.db.transaction() as tx:
            no = ConsentChange(
                profile_id=profile_id,
                channel="push",
                topic="news",
                granted=False,
                occurred_at=tx.now,
                wording=f"No, says {mark}",
                evidence={"ip": mark},
                identifier=("push_token", f"{mark}-token"),
            )
            change_consent(tx, [no], f"form of {mark}")
            suppress(tx, [Suppressed("push", f"{mark}-second", "unregistered")])
            tx.conn.execute(
                insert(email_confirmations),
                {
                    "address": f"{mark}@gmail.com",
                    "topic": "news",
                    "profile_id": profile_id,
                    "said_at": tx.now,
                    "asked_at": tx.now,
                    "source": mark,
                },
            )
            tx.conn.execute(
                insert(preferences),
                {"profile_id": profile_id, "per_week": 3, "changed_at": tx.now},
            )
            record_act(tx, "zoe", "looked at a customer", profile_id=profile_id)

    def order(self, profile_id: int) -> None:
        self.house.did(
            profile_id, "order_completed", total_gbp=12.5, to={"name": self.marks[profile_id]}
        )

    def hear(self, profile_id: int) -> None:
        """Providers report on the messages to a person."""
        mark = self.marks[profile_id]
        found = select(messages.c.id, messages.c.channel).where(
            messages.c.profile_id == profile_id, messages.c.state == "sent"
        )
        with self.house.db.transaction() as tx:
            sent = tx.conn.execute(found).all()
            apply(tx, list(self._reports(sent, mark)))

    def _reports(self, sent: Any, mark: str) -> Iterator[Feedback]:
        for row in sent:
            for kind, url in (("opened", ""), ("clicked", f"https://shop.example/{mark}")):
                if row.channel == "email":
                    yield Feedback(
                        id=f"{mark} {kind} {row.id}",
                        source=f"sendgrid {mark}",
                        channel="email",
                        kind="opened" if kind == "opened" else "clicked",
                        message_id=row.id,
                        provider_id=f"{mark}-provider",
                        reason=f"550: {mark}",
                        properties={"url": url or f"https://shop.example/?{mark}"},
                    )

    def join(self, goes: int, stays: int) -> None:
        """Find two profiles to be one person."""
        with self.house.db.transaction() as tx:
            merge(tx, [Merger(from_id=goes, into_id=stays, why="test")])
        self.marks.pop(goes)

    def erase(self, profile_id: int) -> Erased:
        """Erase a person."""
        return erase_from(self.house, profile_id)

    def reports(self) -> dict[str, Any]:
        """The reports of all journeys. Links count together: one that only the erased person
        clicked loses its URL.
        """
        segue = self.house.segue
        mapping = RevenueMapping.of(segue.settings)
        found: dict[str, Any] = {}
        with segue.db.transaction(write=False) as tx:
            for journey in JOURNEYS:
                for by in _GROUPINGS:
                    report = report_journey(
                        tx, segue.catalog, journey.name, mapping, ever("UTC"), by=by
                    )
                    clicks = Counter[str]()
                    for link in report.links:
                        clicks[link.step] += link.clicked
                    found[f"{journey.name} by {by}"] = (clicks, replace(report, links=[]))
        return found


def traces(db: Database, mark: str) -> set[str]:
    """The columns of all tables that contain a text, as table.column."""
    found: set[str] = set()
    with db.transaction(write=False) as tx:
        for name, table in SQLModel.metadata.tables.items():
            for column in table.columns:
                text = func.lower(cast(column, Text))
                holding = select(func.count()).select_from(table)
                if tx.conn.execute(holding.where(text.contains(mark, autoescape=True))).scalar():
                    found.add(f"{name}.{column.name}")
    return found


def tables_of(db: Database, profile_id: int) -> set[str]:
    """The tables with a row of a profile."""
    found: set[str] = set()
    with db.transaction(write=False) as tx:
        for name, table in SQLModel.metadata.tables.items():
            for column in table.columns:
                is_profile = column.name in ("profile_id", "from_id", "into_id") or (
                    name == "profile" and column.name == "id"
                )
                if is_profile:
                    rows = select(func.count()).select_from(table).where(column == profile_id)
                    if tx.conn.execute(rows).scalar():
                        found.add(name)
    return found
