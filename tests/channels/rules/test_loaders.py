"""What planning and dispatch read about profiles, and with how many statements."""

from typing import Any

from sqlalchemy import func, insert, select, update

from channels.messages import messages
from channels.rules.loaders import Marks, load_contents, load_history, load_recipients
from channels.rules.recipient import (
    NO_CONSENT,
    NO_PREFERENCES,
    StatedConsent,
    Target,
    preferences_of,
)
from config.clock.times import HOUR, MINUTE
from config.database.engine import Database
from config.policy import CHANNELS, Policy
from profiles.bucketing import draw
from profiles.identity.addresses import channel_addresses
from profiles.tables import consent_records, events, identifiers, preferences, profiles
from tests.support.counting import statements
from tests.support.providers.suppressing import becomes
from tests.support.shop import MONDAY, House, bare_message

CAPPED = Policy.model_validate({"caps": [{"channels": "all", "limit": 1, "per": "day"}]})


def prefer(db: Database, profile_id: int, **values: Any) -> None:
    """Write what the preference center keeps of a customer."""
    row = {"profile_id": profile_id, "changed_at": MONDAY, **values}
    with db.transaction() as tx:
        tx.conn.execute(insert(preferences), [row])


def test_all_that_is_known_of_people_is_one_statement(house: House, db: Database) -> None:
    ann = house.customer("ann", timezone=None, country="ES")
    house.say(ann, "email", "news", granted=False)
    prefer(db, ann, per_week=2, opens=9 * HOUR, closes=12 * HOUR)
    bob = house.customer("bob", email=None, phone=None, push_tokens={}, consent={})
    prefer(db, bob, timezone="Asia/Tokyo")
    with db.transaction() as tx, statements(db) as executed:
        found = load_recipients(tx, Policy(), [ann, bob, ann, 1_000_000])
    assert len(executed) == 1
    assert found.keys() == {ann, bob}
    anns, bobs = found[ann].situation, found[bob].situation
    assert anns.zones.source == "country"
    assert anns.addresses == {"email", "sms", "whatsapp", "push"}
    assert anns.suppressed == set()
    assert anns.consent == StatedConsent(
        frozenset({("sms", "*"), ("email", "*")}), frozenset({("email", "news")})
    )
    assert anns.own == preferences_of(2, 9 * HOUR, 12 * HOUR)
    assert bobs.zones.names == ("Asia/Tokyo",)
    assert (bobs.addresses, bobs.consent) == (frozenset(), NO_CONSENT)
    assert (found[bob].in_use, bobs.own) == ((), NO_PREFERENCES)


def test_profiles_share_a_situation_only_if_nothing_of_it_differs(
    house: House, db: Database
) -> None:
    ann, bob = house.customer("ann", country="ES"), house.customer("bob", country="ES")
    others = [
        house.customer("cem", country="ES", timezone="Asia/Tokyo"),
        house.customer("dan", country="FR"),
        house.customer("eva", country="ES", phone=None),
        house.customer("fay", country="ES", consent={}),
        house.customer("gil", country="ES"),
        house.customer("hal", country="ES"),
    ]
    prefer(db, others[-2], per_week=2)
    becomes(db, "email", "hal@example.com", "bounced")
    with db.transaction() as tx:
        found = load_recipients(tx, Policy(), [ann, bob, *others])
        halves = load_recipients(tx, Policy(holdout_percent=50), [ann, bob, *others])
    assert found[ann].situation is found[bob].situation
    assert len({one.situation for one in found.values()}) == 1 + len(others)
    for profile_id, one in halves.items():
        assert one.situation.held_out == (draw(profile_id, "holdout") < 0.5)


def test_of_nobody_nothing_is_read(db: Database) -> None:
    db.now = MONDAY
    with db.transaction() as tx, statements(db) as executed:
        assert load_recipients(tx, CAPPED, []) == {}
        assert load_history(tx, CAPPED, {}, tx.now) == {}
        assert load_contents(tx, []) == (Marks(0, 0), {}, {}, {})
    assert executed == []


def test_messages_go_to_what_is_in_use_and_not_suppressed(house: House, db: Database) -> None:
    ann = house.customer("ann", push_tokens={"old": "ios", "new": "web", "dead": "android"})
    becomes(db, "email", "ann@example.com", "bounced")
    becomes(db, "push", "dead", "unregistered")
    c = identifiers.c
    with db.transaction() as tx:
        [phone] = tx.conn.execute(select(c.value).where(c.kind == "phone")).scalars()
        tx.conn.execute(update(identifiers).where(c.value == "new").values(seen_at=MONDAY + MINUTE))
        retired = {"kind": "push_token", "value": "gone", "profile_id": ann, "platform": "ios"}
        tx.conn.execute(
            insert(identifiers).values(**retired, seen_at=MONDAY + HOUR, retired_at=MONDAY + HOUR)
        )
        [found] = load_recipients(tx, Policy(), [ann]).values()
    assert {channel: found.targets(channel) for channel in CHANNELS} == {
        "email": [],
        "sms": [Target(phone, None)],
        "whatsapp": [Target(phone, None)],
        "push": [Target("new", "web"), Target("old", "ios")],
    }
    assert found.situation.suppressed == {"email"}


def test_addresses_in_distributed_tables_are_the_same(house: House, db: Database) -> None:
    """They are read by a statement of their own, which joins nothing in other buckets."""
    ann = house.customer("ann", push_tokens={"a": "ios", "b": "web"})
    bob = house.customer("bob", email=None, phone=None, push_tokens={})
    becomes(db, "email", "ann@example.com", "bounced")
    c = identifiers.c
    row = {"kind": "phone", "profile_id": ann, "country": "GB"}
    with db.transaction() as tx:
        # Two numbers, as a merge of an earlier release left them, and a retired one.
        for number, at in (("+447700900998", MONDAY - HOUR), ("+447700900999", MONDAY + HOUR)):
            tx.conn.execute(insert(identifiers).values(**row, value=number, seen_at=at))
        tx.conn.execute(update(identifiers).where(c.value == "b").values(retired_at=MONDAY))
        found = load_recipients(tx, Policy(), [ann, bob])
        addresses = channel_addresses(tx, [ann, bob])
        tx.distributed = True
        apart = load_recipients(tx, Policy(), [ann, bob])
        addresses_apart = channel_addresses(tx, [ann, bob])
    for one in (ann, bob):
        ours, theirs = apart[one].situation, found[one].situation
        assert (ours.zones, ours.addresses) == (theirs.zones, theirs.addresses)
        assert ours.suppressed == theirs.suppressed
        for channel in CHANNELS:
            assert apart[one].targets(channel) == found[one].targets(channel)
    assert sorted(addresses_apart) == sorted(addresses)
    assert [one.value for one in addresses if one.channel == "sms"] == ["+447700900999"]


def test_an_address_that_is_suppressed_on_one_channel_is_used_on_the_other(
    house: House, db: Database
) -> None:
    ann = house.customer("ann")
    with db.transaction() as tx:
        [phone] = tx.conn.execute(
            select(identifiers.c.value).where(identifiers.c.kind == "phone")
        ).scalars()
    becomes(db, "whatsapp", phone, "unregistered")
    with db.transaction() as tx:
        [found] = load_recipients(tx, Policy(), [ann]).values()
    assert found.situation.suppressed == {"whatsapp"}
    assert found.targets("sms") == [Target(phone, None)]


def test_addresses_on_every_channel_are_one_statement(house: House, db: Database) -> None:
    people = [house.customer(), house.customer()]
    with db.transaction() as tx, statements(db) as executed:
        found = channel_addresses(tx, people)
    assert len(executed) == 1
    assert {one.profile_id for one in found} == set(people)
    assert len(found) == 8  # each has one on four channels


def test_the_history_is_one_statement(house: House, db: Database) -> None:
    people = [house.customer(), house.customer()]
    with db.transaction() as tx:
        rows = [
            {**bare_message("j", 1, state, at), "profile_id": people[0], "step": f"s{number}"}
            for number, (state, at) in enumerate(
                [
                    ("sent", MONDAY - HOUR),
                    ("planned", MONDAY + HOUR),
                    ("cancelled", MONDAY),
                    ("sent", MONDAY - 1000 * HOUR),
                ]
            )
        ]
        tx.conn.execute(insert(messages), rows)
        recipients = load_recipients(tx, CAPPED, people)
        with statements(db) as executed:
            found = load_history(tx, CAPPED, recipients, tx.now)
    assert len(executed) == 1
    theirs = sorted(found[people[0]], key=lambda past: past.name)
    assert [(past.name, past.counted.send_at, past.planned) for past in theirs] == [
        ("j / s0 / email", MONDAY - HOUR, False),
        ("j / s1 / email", MONDAY + HOUR, True),
    ]
    assert people[1] not in found


def test_without_caps_no_history_is_read(house: House, db: Database) -> None:
    ann = house.customer()
    with db.transaction() as tx:
        recipients = load_recipients(tx, Policy(), [ann])
        with statements(db) as executed:
            assert load_history(tx, Policy(), recipients, tx.now) == {}
    assert executed == []


def test_what_templates_see_and_the_marks_are_one_statement(house: House, db: Database) -> None:
    ann = house.customer("ann", language="de", country="DE")
    bob = house.customer("bob", language="en")
    prefer(db, bob, language="fr")
    house.did(ann, "bought")
    with db.transaction() as tx:
        stated = {"first_name": "Ann", "nickname": None}
        tx.conn.execute(update(profiles).where(profiles.c.id == ann).values(attributes=stated))
        last = [
            tx.conn.execute(select(func.max(log.c.id))).scalar_one()
            for log in (events, consent_records)
        ]
        with statements(db) as executed:
            found = load_contents(tx, [ann, bob])
    assert len(executed) == 1
    assert found.marks == Marks(*last)
    assert found.profiles == {
        ann: {"first_name": "Ann", "country": "DE", "language": "de"},
        bob: {"country": None, "language": "fr"},
    }


def test_the_marks_are_0_where_nothing_was_said_or_done(db: Database) -> None:
    row = {"id": 1, "attributes": {}, "created_at": MONDAY, "updated_at": MONDAY}
    with db.transaction() as tx:
        tx.conn.execute(insert(profiles), [row])
        assert load_contents(tx, [1]).marks == Marks(0, 0)
