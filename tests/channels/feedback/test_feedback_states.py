"""Provider reports change a message's state in any order, once each, and only for our messages."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from random import Random

import pytest
from sqlalchemy import func, select, update

from channels.feedback import matching
from channels.feedback.apply import apply
from channels.messages import messages
from channels.providers.webhook import Feedback
from config.clock.times import HOUR
from config.database.engine import Tx
from journeys.dsl import Journey
from profiles.bulk import in_slices, lock_profiles
from profiles.tables import consent_records, consents, events, identifiers
from tests.support.providers.callback_samples import FromProviders, mail_event
from tests.support.providers.feedback_shop import NEWS, TEXTS, AnnsShop
from tests.support.providers.suppressing import suppressed
from tests.support.shop import House


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
def test_reports_in_any_order_give_the_same_state(
    house: House, journey: Journey, words: tuple[str, ...], state: str, names: list[str]
) -> None:
    orders = list(permutations(words))
    house.open(journey)
    people = [house.customer() for _ in orders]
    house.launch(journey.name)
    outside = FromProviders(house.segue)
    to = {one.message_id: one.to for one in house.providers.accepted}
    for row, order in zip(house.rows(), orders, strict=True):
        for word in order:
            if row.channel == "email":
                answer = outside.mail(mail_event(word, row.id, to[row.id]))
            else:
                answer = outside.status(row.id, word, to[row.id])
            assert answer.status_code == 200
    assert {row.state for row in house.rows()} == {state}
    with house.db.transaction(write=False) as tx:
        for person in people:
            heard = select(events.c.name).where(events.c.profile_id == person)
            assert sorted(tx.conn.execute(heard).scalars()) == names


def test_a_report_resolves_an_unknown_message(house: House) -> None:
    shop = AnnsShop(house, NEWS)
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


def test_a_report_marks_a_withdrawn_message_with_an_attempt_as_delivered(house: House) -> None:
    """The provider responded "try later" but accepted the message: it must not be sent twice."""
    shop = AnnsShop(house, NEWS)
    for state in ("cancelled", "skipped", "planned"):
        shop.becomes(state, send_at=house.now + HOUR, attempts=1)
        shop.mail("delivered")
        [row] = house.rows()
        assert (row.state, row.send_at) == ("delivered", house.now)
    house.later("2h")
    assert len(house.providers.accepted) == 1


def test_a_report_on_a_message_without_an_attempt_changes_nothing(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    shop.becomes("planned", send_at=house.now + HOUR, attempts=0)
    shop.mail("delivered")
    assert shop.state == "planned"


def test_a_batch_takes_the_highest_state(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    shop.mail("click", "processed", "delivered", "open", "processed")
    assert shop.state == "delivered"
    assert house.rows()[0].provider_id is not None


def test_a_failed_text_has_a_reason_without_the_number(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
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
        assert suppressed(house.db) == {
            ("email", "ann@example.com"): "bounced",
            ("email", "bob@example.com"): "complained",
            ("email", "finn@example.com"): "bounced",
        }
        refused = select(consents.c.profile_id).where(consents.c.granted.is_(False))
        assert set(tx.conn.execute(refused).scalars()) == {people["cleo"], people["dora"]}


def test_a_report_before_the_recorded_outcome_wins(house: House) -> None:
    house.open(NEWS)
    house.customer("ann")

    def delivered() -> None:
        [row] = house.rows()
        assert row.state == "sending"
        word = Feedback(
            id="1",
            source="test",
            channel="email",
            kind="delivered",
            message_id=row.id,
            provider_id="X1",
        )
        with house.db.transaction() as tx:
            assert apply(tx, [word]) == {"email_delivered": 1}

    house.providers.meanwhile = delivered
    house.launch("news")
    [row] = house.rows()
    assert (row.state, row.provider_id, row.claimed_by) == ("delivered", "X1", None)


def test_concurrent_copies_of_a_report_count_once(house: House) -> None:
    house.open(NEWS)
    for number in range(30):
        house.customer(f"c{number}")
    house.launch("news")
    said = [
        Feedback(
            id=f"{kind} {row.id}",
            source="sendgrid unsubscribe",
            channel="email",
            kind=kind,
            message_id=row.id,
        )
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


def test_profiles_merged_while_a_report_waits_for_the_lock(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = AnnsShop(house, NEWS)
    bob = house.customer("bob")

    def lock(tx: Tx, ids: set[int]) -> list[int]:
        """Another process held the lock until now."""
        for table in (messages, identifiers):
            tx.conn.execute(update(table).values(profile_id=bob))
        return lock_profiles(tx, ids)

    monkeypatch.setattr(matching, "lock_profiles", lock)
    shop.mail("open")
    assert shop.heard() == []
    shop.ann = bob
    assert shop.heard() == ["email_opened"]
    assert shop.state == "delivered"


# Once, and only ours ----------------------------------------------------------------------------


def test_the_same_event_counts_once(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    opened = mail_event("open", shop.id, "ann@example.com")
    for batch in ([opened, opened], [opened], [mail_event("click", shop.id, None), opened]):
        assert shop.outside.mail(*batch).status_code == 200
    assert shop.heard() == ["email_opened", "email_clicked"]
    assert shop.outside.woken == 3


def test_an_event_without_an_id_counts_once_too(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    opened = mail_event("open", shop.id, "ann@example.com", at=house.now, sg_event_id="")
    shop.outside.mail(opened)
    shop.outside.mail(opened)
    shop.outside.mail({**opened, "timestamp": house.now - 60})
    assert shop.heard() == ["email_opened"] * 2


def test_other_peoples_messages_are_left_alone(house: House) -> None:
    """Another system sends through the same account, and numbers its mails as we do."""
    shop = AnnsShop(house, NEWS)
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


def test_any_bounce_suppresses_the_address(house: House) -> None:
    """Asynchronous bounces come without the ids of the mail that they are about."""
    shop = AnnsShop(house, NEWS)
    shop.outside.mail(mail_event("bounce", None, "ann@example.com", type="bounce"))
    assert (shop.state, shop.suppressed("email")) == ("sent", "bounced")


def test_postmarks_events_change_states_and_consent(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    ann = {"Recipient": "Ann@Example.com"}
    for record, state in (("Open", "delivered"), ("Delivery", "delivered")):
        assert shop.outside.event(record, shop.id, **ann).status_code == 200
        assert shop.state == state
    left = {"SuppressSending": True, "SuppressionReason": "ManualSuppression"}
    answer = shop.outside.event("SubscriptionChange", None, Origin="Recipient", **left, **ann)
    assert answer.status_code == 200
    assert shop.consent("email") is False
    bounce = {"Type": "HardBounce", "ID": 7, "Email": "ann@example.com"}
    for _ in range(2):
        assert shop.outside.event("Bounce", shop.id, **bounce).status_code == 200
    assert shop.state == "failed"
    assert shop.heard().count("email_bounced") == 1
    assert shop.suppressed("email") == "bounced"
