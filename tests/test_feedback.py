"""What the providers say changes states, addresses, consent and journeys: each word once, in any
order, whether it comes before our own record or days after.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, permutations
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from channels import feedback
from channels.callback import Feedback
from channels.feedback import apply
from channels.tables import messages
from config.database import Tx
from config.times import HOUR, MINUTE
from journeys.journey import Journey, OnLaunch
from journeys.journey import journey as describe
from journeys.steps import SMS, Email, Push, Send, Update, Wait, WaitUntil
from profiles.bulk import in_slices, lock_profiles
from profiles.conditions import consented, did, has_address, prop
from profiles.tables import consent_records, consents, events, identifiers
from tests.callback_samples import FromProviders, mail_event
from tests.house import House

NEWS = describe("news", entry=OnLaunch(), topic="news", steps=[Send("hello", Email("hello"))])
TEXTS = describe("texts", entry=OnLaunch(), topic="news", steps=[Send("hello", SMS("hello"))])


class Shop:
    """A house with Ann in it, who is launched into a journey, and the providers outside."""

    def __init__(self, house: House, journey: Journey, **ann: Any) -> None:
        self.house = house
        house.open(journey)
        self.ann = house.customer("ann", **ann)
        [phone] = self.of(identifiers, kind="phone")
        self.phone: str = phone.value
        house.launch(journey.name)
        self.outside = FromProviders(house.segue)

    @property
    def id(self) -> int:
        return int(self.house.rows()[0].id)

    @property
    def state(self) -> str:
        return str(self.house.rows()[0].state)

    def becomes(self, state: str, **columns: Any) -> None:
        """Put the message into a state."""
        with self.house.db.transaction() as tx:
            tx.conn.execute(update(messages).values(state=state, **columns))

    def address_becomes(self, kind: str, state: str) -> None:
        with self.house.db.transaction() as tx:
            changed = update(identifiers).where(identifiers.c.kind == kind)
            tx.conn.execute(changed.values(state=state))

    def of(self, table: Any, **where: Any) -> list[Any]:
        """Ann's rows of a table."""
        found = select(table).where(table.c.profile_id == self.ann)
        for name, value in where.items():
            found = found.where(table.c[name] == value)
        with self.house.db.transaction(write=False) as tx:
            return list(tx.conn.execute(found.order_by(*table.primary_key)))

    def heard(self) -> list[str]:
        return [row.name for row in self.of(events)]

    def mail(self, *names: str, **more: Any) -> None:
        """SendGrid says these things about her mail."""
        said = [mail_event(name, self.id, "Ann@Example.com", **more) for name in names]
        assert self.outside.mail(*said).status_code == 200

    def sms(self, status: str, **more: str) -> None:
        assert self.outside.status(self.id, status, self.phone, **more).status_code == 200

    def says(self, text: str, **more: Any) -> None:
        """She texts back, a second later."""
        assert self.house.db.now is not None
        self.house.db.now += 1
        answer = self.outside.text(self.phone, text, **more)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/xml")
        assert answer.content == b'<?xml version="1.0" encoding="UTF-8"?><Response></Response>'

    def consent(self, channel: str, topic: str = "*") -> bool | None:
        found = self.of(consents, channel=channel, topic=topic)
        return bool(found[0].granted) if found else None


# States ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("journey", "words", "state", "names"),
    [
        (
            NEWS,
            ("processed", "delivered", "open", "click"),
            "delivered",
            ["email_clicked", "email_delivered", "email_opened"],
        ),
        # A mail server may accept first and refuse later; a late word never undoes it.
        (
            NEWS,
            ("processed", "delivered", "bounce"),
            "failed",
            ["email_bounced", "email_delivered", "profile_changed"],
        ),
        (TEXTS, ("queued", "sent", "delivered"), "delivered", ["sms_delivered"]),
    ],
)
def test_words_in_any_order_end_the_same(
    house: House, journey: Journey, words: tuple[str, ...], state: str, names: list[str]
) -> None:
    orders = list(permutations(words))
    house.open(journey)
    people = {f"c{number}": house.customer(f"c{number}") for number in range(len(orders))}
    house.launch(journey.name)
    outside = FromProviders(house.segue)
    sent = {row.profile_id: row for row in house.rows()}
    for number, order in enumerate(orders):
        row = sent[people[f"c{number}"]]
        for word in order:
            if row.channel == "email":
                outside.mail(mail_event(word, row.id, f"c{number}@example.com"))
            else:
                outside.status(row.id, word, f"+447700{900_001 + number}")
    assert {row.state for row in house.rows()} == {state}
    with house.db.transaction(write=False) as tx:
        for person in people.values():
            heard = select(events.c.name).where(events.c.profile_id == person)
            assert sorted(tx.conn.execute(heard).scalars()) == names


def test_a_word_settles_what_is_open(house: House) -> None:
    shop = Shop(house, NEWS)
    for before, word, after in (
        ("sending", "processed", "sent"),
        ("sending", "delivered", "delivered"),
        ("unknown", "processed", "sent"),
        ("unknown", "delivered", "delivered"),
        ("unknown", "open", "delivered"),
        ("unknown", "bounce", "failed"),
        ("unknown", "unsubscribe", "unknown"),
        ("sent", "deferred", "sent"),
        ("sent", "dropped", "failed"),
        ("failed", "processed", "failed"),
        ("failed", "delivered", "failed"),
    ):
        shop.becomes(before, reason="the process died around the hand-over", claimed_by="a process")
        shop.mail(word)
        [row] = house.rows()
        assert row.state == after, (before, word)
        if before != after and after != "failed":
            assert (row.reason, row.claimed_by) == (None, None)


def test_what_was_taken_back_may_have_gone_all_the_same(house: House) -> None:
    """The provider said "try later", and yet it has the message: it must not go twice."""
    shop = Shop(house, NEWS)
    for state in ("cancelled", "skipped", "planned"):
        shop.becomes(state, send_at=house.now + HOUR, attempts=1)
        shop.mail("delivered")
        [row] = house.rows()
        assert (row.state, row.send_at) == ("delivered", house.now)
    house.later("2h")
    assert len(house.providers.accepted) == 1


def test_what_was_never_handed_over_is_not_delivered(house: House) -> None:
    shop = Shop(house, NEWS)
    shop.becomes("planned", send_at=house.now + HOUR, attempts=0)
    shop.mail("delivered")
    assert shop.state == "planned"


def test_a_batch_takes_the_highest_state(house: House) -> None:
    shop = Shop(house, NEWS)
    shop.mail("click", "processed", "delivered", "open", "processed")
    assert shop.state == "delivered"
    assert house.rows()[0].provider_id is not None


def test_a_failed_text_says_why_without_the_number(house: House) -> None:
    shop = Shop(house, TEXTS)
    shop.sms("undelivered", ErrorCode="30007")
    [row] = house.rows()
    assert (row.state, row.reason) == ("failed", "twilio undelivered 30007: filtered as spam")
    [event] = shop.of(events)
    assert (event.name, event.properties["error_code"]) == ("sms_failed", "30007")


def test_a_batch_is_about_many_people(house: House) -> None:
    house.open(NEWS)
    people = {name: house.customer(name) for name in ("ann", "bob", "cleo", "dora", "eve", "finn")}
    house.launch("news")
    ids = {row.profile_id: row.id for row in house.rows()}
    words = {
        **{"ann": "bounce", "bob": "spamreport", "cleo": "unsubscribe"},
        **{"dora": "unsubscribe", "eve": "delivered", "finn": "bounce"},
    }
    said = [
        mail_event(word, ids[people[name]], f"{name}@example.com") for name, word in words.items()
    ]
    assert FromProviders(house.segue).mail(*said).status_code == 200
    states = {row.profile_id: row.state for row in house.rows()}
    assert {name: states[person] for name, person in people.items()} == {
        **{"ann": "failed", "bob": "delivered", "cleo": "sent"},
        **{"dora": "sent", "eve": "delivered", "finn": "failed"},
    }
    with house.db.transaction(write=False) as tx:
        addresses = select(identifiers.c.value, identifiers.c.state).where(
            identifiers.c.kind == "email", identifiers.c.state != "active"
        )
        assert {row.value: row.state for row in tx.conn.execute(addresses)} == {
            "ann@example.com": "bounced",
            "bob@example.com": "complained",
            "finn@example.com": "bounced",
        }
        refused = select(consents.c.profile_id).where(consents.c.granted.is_(False))
        assert set(tx.conn.execute(refused).scalars()) == {people["cleo"], people["dora"]}


def test_a_word_that_is_faster_than_our_own_record_is_the_last(house: House) -> None:
    house.open(NEWS)
    house.customer("ann")

    def delivered() -> None:
        [row] = house.rows()
        assert row.state == "sending"
        word = Feedback("1", "test", "email", "delivered", message_id=row.id, provider_id="X1")
        with house.db.transaction() as tx:
            assert apply(tx, [word]) == {"email_delivered": 1}

    house.providers.meanwhile = delivered
    house.launch("news")
    [row] = house.rows()
    assert (row.state, row.provider_id, row.claimed_by) == ("delivered", "X1", None)


def test_many_hear_the_same_at_once(house: House) -> None:
    house.open(NEWS)
    for number in range(30):
        house.customer(f"c{number}")
    house.launch("news")
    said = [
        Feedback(f"{kind} {row.id}", "sendgrid unsubscribe", "email", kind, message_id=row.id)
        for row in house.rows()
        for kind in ("sent", "delivered", "opened", "unsubscribed")
    ]

    def hear(seed: int) -> Counter[str]:
        some = Random(seed).sample(said, len(said))
        heard: Counter[str] = Counter()
        for batch in in_slices(some, 17):
            with house.db.transaction() as tx:
                heard += apply(tx, batch)
        return heard

    with ThreadPoolExecutor(4) as threads:
        heard = list(threads.map(hear, range(4)))
    for name in ("email_delivered", "email_opened", "email_unsubscribed"):
        assert sum(counts[name] for counts in heard) == 30
    assert {row.state for row in house.rows()} == {"delivered"}
    with house.db.transaction(write=False) as tx:
        refused = select(func.count()).select_from(consent_records)
        assert tx.conn.execute(refused.where(~consent_records.c.granted)).scalar_one() == 30


def test_two_people_who_become_one_while_we_wait(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(house, NEWS)
    bob = house.customer("bob")

    def lock(tx: Tx, ids: set[int]) -> list[int]:
        """Somebody else had the lock until now."""
        for table in (messages, identifiers):
            tx.conn.execute(update(table).values(profile_id=bob))
        return lock_profiles(tx, ids)

    monkeypatch.setattr(feedback, "lock_profiles", lock)
    shop.mail("open")
    assert shop.heard() == []
    shop.ann = bob
    assert shop.heard() == ["email_opened"]
    assert shop.state == "delivered"


# Once, and only ours ----------------------------------------------------------------------------


def test_the_same_event_counts_once(house: House) -> None:
    shop = Shop(house, NEWS)
    opened = mail_event("open", shop.id, "ann@example.com")
    for batch in ([opened, opened], [opened], [mail_event("click", shop.id, None), opened]):
        assert shop.outside.mail(*batch).status_code == 200
    assert shop.heard() == ["email_opened", "email_clicked"]
    assert shop.outside.woken == 3


def test_an_event_without_an_id_counts_once_too(house: House) -> None:
    shop = Shop(house, NEWS)
    opened = mail_event("open", shop.id, "ann@example.com", at=house.now, sg_event_id="")
    shop.outside.mail(opened)
    shop.outside.mail(opened)
    shop.outside.mail({**opened, "timestamp": house.now - 60})
    assert shop.heard() == ["email_opened"] * 2


def test_other_peoples_messages_are_left_alone(house: House) -> None:
    """Another system sends through the same account, and numbers its mails as we do."""
    shop = Shop(house, NEWS)
    house.customer("bob")
    strangers = [
        mail_event("delivered", shop.id, "stranger@example.com"),
        mail_event("delivered", shop.id, "bob@example.com"),
        mail_event("delivered", 4711, "ann@example.com"),
        mail_event("delivered", None, "ann@example.com"),
        mail_event("delivered", None, None),
        {**mail_event("open", None, "ann@example.com"), "message_id": hex(shop.id)},
        {"event": "delivered", "message_id": {"id": shop.id}, "email": ["ann@example.com"]},
        {"event": 7},
        {},
    ]
    assert shop.outside.mail(*strangers).status_code == 200
    assert shop.outside.status(shop.id, "delivered", shop.phone).status_code == 200
    assert (shop.state, shop.heard()) == ("sent", [])


def test_a_bounce_of_the_address_counts_whatever_the_mail(house: House) -> None:
    """Asynchronous bounces come without the ids of the mail that they are about."""
    shop = Shop(house, NEWS)
    shop.outside.mail(mail_event("bounce", None, "ann@example.com", type="bounce"))
    [address] = shop.of(identifiers, kind="email")
    assert (shop.state, address.state) == ("sent", "bounced")


# Addresses --------------------------------------------------------------------------------------


def test_what_becomes_of_an_address(house: House) -> None:
    shop = Shop(house, NEWS)
    for event, more, state in (
        ("deferred", {}, "active"),
        ("bounce", {"type": "blocked", "status": "4.7.0"}, "active"),
        ("dropped", {"reason": "Spam Content"}, "active"),
        ("bounce", {"type": "bounce", "status": "5.1.1"}, "bounced"),
        ("dropped", {"reason": "Bounced Address"}, "bounced"),
        ("dropped", {"reason": "Invalid"}, "bounced"),
        ("dropped", {"reason": "Spam Reporting Address"}, "complained"),
        ("spamreport", {}, "complained"),
    ):
        shop.address_becomes("email", "active")
        shop.mail(event, **more)
        [address] = shop.of(identifiers, kind="email")
        assert address.state == state, (event, more)


def test_what_becomes_of_a_number(house: House) -> None:
    shop = Shop(house, TEXTS)
    for code, state in (("30003", "active"), ("30005", "unregistered"), ("30006", "bounced")):
        shop.address_becomes("phone", "active")
        shop.sms("failed", ErrorCode=code, MessageSid=f"SM{code}")
        [address] = shop.of(identifiers, kind="phone")
        assert address.state == state, code


def test_a_stop_that_twilio_knew_of_is_consent_taken_back(house: House) -> None:
    shop = Shop(house, TEXTS)
    shop.sms("failed", ErrorCode="21610")
    assert (shop.state, shop.consent("sms")) == ("failed", False)
    assert shop.of(consent_records, channel="sms")[-1].source == "twilio 21610"


def test_a_complaint_is_the_last_word_on_an_address(house: House) -> None:
    shop = Shop(house, NEWS)
    shop.mail("spamreport")
    shop.mail("bounce", type="bounce")
    [address] = shop.of(identifiers, kind="email")
    assert address.state == "complained"
    assert shop.state == "failed"


def test_the_reason_of_a_bounce_holds_no_address(house: House) -> None:
    shop = Shop(house, NEWS)
    shop.mail("bounce", type="bounce", status="5.1.1", reason="550 <ANN@example.com> unknown")
    [row] = house.rows()
    assert row.reason == "sendgrid bounce: 5.1.1 550 <…> unknown"
    assert "example.com" not in str(shop.of(events)[0].properties)


# Consent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "topic", "granted"),
    [
        ("unsubscribe", "*", False),
        ("group_unsubscribe", "news", False),
        ("group_resubscribe", "news", True),
    ],
)
def test_unsubscribing_at_sendgrid_is_consent_taken_back(
    house: House, event: str, topic: str, granted: bool
) -> None:
    shop = Shop(house, NEWS)
    shop.mail(event, at=house.now)
    assert shop.consent("email", topic) is granted
    record = shop.of(consent_records, channel="email", topic=topic)[-1]
    assert (record.granted, record.source) == (granted, f"sendgrid {event}")
    assert shop.heard() == [
        "email_unsubscribed" if not granted else "email_resubscribed",
        "profile_changed",
    ]


def test_what_was_said_last_holds_whatever_comes_last(house: House) -> None:
    shop = Shop(house, NEWS)
    house.db.now = house.now + HOUR
    shop.mail("group_resubscribe", at=house.now - MINUTE)
    shop.mail("group_unsubscribe", at=house.now - 2 * MINUTE)
    assert shop.consent("email", "news") is True


def test_every_stop_word_takes_consent_back_and_every_start_word_gives_it_back(
    house: House,
) -> None:
    shop = Shop(house, TEXTS)
    stops = [
        *("STOP", "stopall", "Unsubscribe", "CANCEL", "End", "quit", "REVOKE", "optout"),
        *(" stop \n", "Stop.", '"STOP!"'),
    ]
    for text, start in zip(stops, cycle(["START", "yes", "Unstop"]), strict=False):
        shop.says(text)
        assert shop.consent("sms") is False, text
        [*_, record] = shop.of(consent_records, channel="sms")
        word = text.strip(' .!\n"').upper()
        assert (record.source, record.occurred_at) == (f"twilio {word}", house.now)
        shop.says(start)
        assert shop.consent("sms") is True, start
        [*_, record] = shop.of(consent_records, channel="sms")
        assert record.source == f"twilio {start.upper()}"
    assert Counter(shop.heard()) == {
        "sms_stopped": len(stops),
        "sms_started": len(stops),
        "profile_changed": 2 * len(stops),
    }


def test_advanced_opt_out_speaks_every_language(house: House) -> None:
    shop = Shop(house, TEXTS)
    shop.says("ARRÊT", OptOutType="STOP")
    assert shop.consent("sms") is False
    shop.says("ALLO", OptOutType="START")
    assert shop.consent("sms") is True
    shop.says("AIDE", OptOutType="HELP")
    assert shop.heard()[-1] == "sms_replied"


def test_a_yes_to_something_else_is_no_consent(house: House) -> None:
    shop = Shop(house, TEXTS, consent={})
    shop.says("YES")
    assert shop.consent("sms") is None
    assert shop.heard() == ["sms_started"]


def test_a_stop_and_a_start_within_a_second_hold_in_their_order(house: House) -> None:
    shop = Shop(house, TEXTS)
    for text, granted in (("STOP", False), ("START", True), ("STOP", False)):
        shop.outside.text(shop.phone, text)
        assert shop.consent("sms") is granted


def test_an_old_stop_that_comes_again_does_not_undo_a_start(house: House) -> None:
    shop = Shop(house, TEXTS)
    shop.says("STOP", sid="SM1")
    shop.says("START", sid="SM2")
    shop.says("STOP", sid="SM1")
    assert shop.consent("sms") is True


def test_a_number_that_nobody_has_is_thanked_and_forgotten(house: House) -> None:
    shop = Shop(house, TEXTS)
    answer = shop.outside.text("+12025550199", "STOP")
    assert (answer.status_code, answer.content[-21:]) == (200, b"<Response></Response>")
    assert (shop.heard(), shop.consent("sms")) == ([], True)


def test_an_answer_is_taken_for_one_to_the_last_text(house: House) -> None:
    shop = Shop(house, TEXTS)
    shop.says("Do you deliver on Sundays?")
    [event] = shop.of(events)
    assert event.properties == {
        "text": "Do you deliver on Sundays?",
        "message_id": str(shop.id),
        "journey": "texts",
        "step": "hello",
    }


# Journeys ---------------------------------------------------------------------------------------


def test_a_text_planned_before_a_stop_never_leaves(house: House) -> None:
    steps = [Send("offer", Email("offer"), SMS("offer", after="10m"))]
    shop = Shop(house, describe("offer", entry=OnLaunch(), topic="news", steps=steps))
    [_, planned] = house.rows()
    assert (planned.channel, planned.state) == ("sms", "planned")

    shop.says("STOP")
    # The word alone cancels nothing: the rule is looked at when the message would leave.
    assert house.rows()[1].state == "planned"
    house.later("1h")
    assert [sent.channel for sent in house.providers.accepted] == ["email"]
    assert [(row.state, row.reason) for row in house.rows()] == [
        ("sent", None),
        ("skipped", "no_consent"),
    ]


def test_a_stop_ends_journeys_that_leave_on_it(house: House) -> None:
    shop = Shop(
        house,
        describe(
            "long",
            entry=OnLaunch(),
            topic="news",
            exit_when=~consented("sms", "news"),
            steps=[Wait("30d"), Send("hello", Email("hello"))],
        ),
    )
    shop.says("STOP")
    house.run()
    [person] = house.people()
    assert person.end_reason == "exited: exit rule"


def test_a_bounce_ends_journeys_that_leave_without_an_address(house: House) -> None:
    steps = [Send("hello", Email("hello")), Wait("30d")]
    leaving = ~has_address("email")
    shop = Shop(
        house, describe("j", entry=OnLaunch(), topic="news", exit_when=leaving, steps=steps)
    )
    shop.mail("bounce")
    house.run()
    [person] = house.people()
    assert person.end_reason == "exited: exit rule"


def test_so_does_a_number_that_the_provider_refuses(house: House) -> None:
    steps = [Send("hello", SMS("hello")), Wait("30d")]
    leaving = ~has_address("sms")
    house.providers.answer("sms", httpx.Response(400, json={"code": 21211, "message": "no"}))
    Shop(house, describe("j", entry=OnLaunch(), topic="news", exit_when=leaving, steps=steps))
    house.run()
    [person] = house.people()
    assert person.end_reason == "exited: exit rule"


def _first(unless: str) -> Journey:
    return describe(
        "first",
        entry=OnLaunch(),
        topic="news",
        steps=[
            Send(
                "nudge",
                Email("hello"),
                SMS("hello"),
                mode="first",
                fallback_after="2h",
                unless=unless,
            ),
            Update("done", nudged=True),
        ],
    )


@pytest.mark.parametrize(
    ("unless", "words", "falls_back"),
    [
        ("delivered", ["processed"], True),
        ("delivered", ["processed", "delivered"], False),
        ("opened", ["delivered"], True),
        ("opened", ["delivered", "open"], False),
        ("clicked", ["delivered", "open"], True),
        ("clicked", ["click"], False),
    ],
)
def test_the_next_channel_goes_unless_there_is_evidence(
    house: House, unless: str, words: list[str], falls_back: bool
) -> None:
    shop = Shop(house, _first(unless))
    house.later("30m")
    shop.mail(*words, at=house.now)
    house.run()
    # Who has answered moves on at once.
    assert ("nudged" in house.attributes(shop.ann)) is not falls_back
    house.later("2h")
    assert [sent.channel for sent in house.providers.accepted] == (
        ["email", "sms"] if falls_back else ["email"]
    )
    assert house.attributes(shop.ann)["nudged"] is True


def test_what_was_delivered_and_came_back_is_no_evidence(house: House) -> None:
    shop = Shop(house, _first("delivered"))
    shop.mail("delivered", "bounce")
    house.later("3h")
    assert [sent.channel for sent in house.providers.accepted] == ["email", "sms"]


def test_a_machine_that_opens_is_no_reader(house: House) -> None:
    shop = Shop(house, _first("opened"))
    house.later("30m")
    shop.mail("open", sg_machine_open=True)
    [event] = [row for row in shop.of(events) if row.name.startswith("email")]
    assert (event.name, event.properties["machine"]) == ("email_machine_opened", True)
    house.later("2h")
    assert [sent.channel for sent in house.providers.accepted] == ["email", "sms"]


def test_a_person_who_opens_says_so_explicitly(house: House) -> None:
    shop = Shop(house, _first("opened"))
    shop.mail("open", sg_machine_open=False)
    house.later("3h")
    assert [sent.channel for sent in house.providers.accepted] == ["email"]


@pytest.mark.parametrize("hours", [-9, 9])
def test_a_clock_of_the_providers_that_is_wrong_does_no_harm(house: House, hours: int) -> None:
    shop = Shop(house, _first("opened"))
    house.later("30m")
    shop.mail("open", at=house.now + hours * HOUR)
    house.later("3h")
    assert [sent.channel for sent in house.providers.accepted] == ["email"]


def test_a_click_stops_what_has_not_gone_yet(house: House) -> None:
    steps = [Send("offer", Email("offer"), Push("offer", after="1h"), stop_on="clicked")]
    shop = Shop(house, describe("offer", entry=OnLaunch(), topic="news", steps=steps))
    shop.mail("click", url="https://shop.example/x")
    house.later("2h")
    assert [(row.state, row.reason) for row in house.rows()] == [
        ("delivered", None),
        ("cancelled", "stopped: clicked"),
    ]


def test_journeys_wait_for_what_the_providers_see(house: House) -> None:
    clicked = did("email_clicked", prop("url") == "https://shop.example/a", prop("step") == "hello")
    shop = Shop(
        house,
        describe(
            "waiting",
            entry=OnLaunch(),
            topic="news",
            steps=[
                Send("hello", Email("hello")),
                WaitUntil("the link", clicked, timeout="7d", then=[Update("keen", keen=True)]),
            ],
        ),
    )
    house.run()
    shop.mail("click", url="https://shop.example/b")
    house.run()
    assert "keen" not in house.attributes(shop.ann)
    shop.mail("click", url="https://shop.example/a")
    house.run()
    assert house.attributes(shop.ann)["keen"] is True
