"""Which addresses join profiles, and that nobody takes over a customer by naming their address."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, permutations
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select

from channels.feedback.apply import apply
from channels.providers.webhook import Feedback
from config.channels import ChannelName
from config.clock.times import Instant
from config.database.engine import Database
from config.policy import JoinOn, Policy
from journeys.operations.merge import merge
from profiles.calls.record_calls import Outcome, take_calls
from profiles.calls.segment_calls import CallKind, read_call
from profiles.consent.changes import ConsentChange, change_consent
from profiles.consent.opt_outs import No, take_opt_outs
from profiles.consent.statements import read_statement, take_statements
from profiles.identity.person import Person
from profiles.rules import InputRules
from profiles.tables import (
    ADDRESS_KIND,
    consent_records,
    consents,
    events,
    identifiers,
    identity_records,
    preferences,
    profiles,
)
from tests.support.proof import cases
from tests.support.providers.suppressing import becomes, suppressed
from tests.support.shop import MONDAY, House

Said = tuple[CallKind, dict[str, Any]]
VICTIM, EVIL = "victim@example.com", "m@evil.example"
THEIR_PHONE, EVIL_PHONE = "+447700900111", "+447700900666"


def take(db: Database, *said: Said, at: Instant = MONDAY, join_on: JoinOn = "any") -> list[Outcome]:
    db.now = at
    with db.transaction() as tx:
        calls = [read_call(kind, one) for kind, one in said]
        return take_calls(tx, calls, merge, InputRules(join_on=join_on))


def identify(
    user: str | None = None, anon: str | None = None, token: str | None = None, **traits: Any
) -> Said:
    device = {"device": {"token": token, "type": "ios"}} if token else {}
    return "identify", {"userId": user, "anonymousId": anon, "traits": traits, "context": device}


def track(user: str | None = None, anon: str | None = None, name: str = "x", **more: Any) -> Said:
    return "track", {"userId": user, "anonymousId": anon, "event": name, **more}


def owner(db: Database, kind: str, value: str) -> int:
    with db.transaction(write=False) as tx:
        found = select(identifiers.c.profile_id)
        named = found.where(identifiers.c.kind == kind, identifiers.c.value == value)
        return int(tx.conn.execute(named).scalar_one())


def in_use(db: Database, profile_id: int) -> set[str]:
    """The addresses of a profile that something may be sent to."""
    c = identifiers.c
    with db.transaction(write=False) as tx:
        found = select(c.value).where(
            c.profile_id == profile_id,
            c.kind.in_(tuple(ADDRESS_KIND.values())),
            c.retired_at.is_(None),
        )
        return set(tx.conn.execute(found).scalars())


def says(db: Database, profile_id: int) -> dict[tuple[str, str], bool]:
    with db.transaction(write=False) as tx:
        found = select(consents).where(consents.c.profile_id == profile_id)
        return {(row.channel, row.topic): row.granted for row in tx.conn.execute(found)}


def attributes(db: Database, profile_id: int) -> dict[str, Any]:
    with db.transaction(write=False) as tx:
        found = select(profiles.c.attributes).where(profiles.c.id == profile_id)
        return dict(tx.conn.execute(found).scalar_one())


def happened(db: Database, profile_id: int) -> list[str]:
    with db.transaction(write=False) as tx:
        found = select(events.c.name).where(events.c.profile_id == profile_id)
        return list(tx.conn.execute(found.order_by(events.c.id)).scalars())


def consent(db: Database, profile_id: int, *channels: ChannelName, yes: bool = True) -> None:
    with db.transaction() as tx:
        change_consent(
            tx,
            [
                ConsentChange(
                    profile_id=profile_id, channel=channel, topic="*", granted=yes, just_now=True
                )
                for channel in channels
            ],
            "test",
        )


def warned(outcomes: Iterable[Outcome]) -> list[str]:
    return [warning for one in outcomes for warning in one.warnings]


@pytest.fixture
def victim(db: Database) -> int:
    """A customer with one address of each kind and no recorded consent."""
    take(db, identify("v", email=VICTIM, phone=THEIR_PHONE, token="t-victim", plan="gold"))
    return owner(db, "user_id", "v")


# The attack ---------------------------------------------------------------------------------------

# What the attacker says of the anonymous id m, and the address of the victim among it.
_STEPS: Mapping[str, tuple[dict[str, str], dict[str, str]]] = {
    "email": ({"email": "m{}@evil.example"}, {"email": VICTIM}),
    "phone": ({"phone": "+4477009006{:02}"}, {"phone": THEIR_PHONE}),
    "push_token": ({"token": "t-evil-{}"}, {"token": "t-victim"}),
}


@pytest.mark.parametrize("own", _STEPS)
@pytest.mark.parametrize("stolen", _STEPS)
@pytest.mark.parametrize("at_once", [True, False])
def test_stating_a_customers_address_does_not_take_over_their_profile(
    db: Database, victim: int, own: str, stolen: str, at_once: bool
) -> None:
    before = in_use(db, victim), says(db, victim), attributes(db, victim)
    # the two "own" are alike, so that half of the permutations repeat the others
    orders = sorted(set(permutations(["own", "stolen", "yes", "own"])))
    assert len(orders) == 12
    for number, order in enumerate(orders):
        anon = f"m{number}"
        calls = [track(anon=anon)]
        for step in (*order, "end"):
            if step == "stolen":
                calls.append(identify(anon=anon, **_STEPS[stolen][1]))
            elif step == "own":
                # the attackers are many, each with an address of their own
                mine = {name: value.format(number) for name, value in _STEPS[own][0].items()}
                calls.append(identify(anon=anon, plan="evil", **mine))
            else:
                for some in [calls] if at_once else [[one] for one in calls]:
                    take(db, *some)
                calls = []
                # a profile of their own says yes to everything
                if step == "yes" and (attacker := owner(db, "anonymous_id", anon)) != victim:
                    consent(db, attacker, "email", "sms", "push")
        after = in_use(db, victim), says(db, victim), attributes(db, victim)
        assert after == before, order


def test_an_attacker_with_an_address_of_their_own_stays_apart(db: Database, victim: int) -> None:
    take(db, identify(anon="m", email=EVIL))
    outcomes = take(db, identify(anon="m", email=VICTIM, size=3))
    assert warned(outcomes) == ["traits.email is left out: it belongs to another customer"]
    m = owner(db, "anonymous_id", "m")
    assert m != victim
    assert in_use(db, m) == {EVIL}
    assert attributes(db, m) == {"size": 3}


def test_a_profile_known_by_address_only_is_not_taken_over(db: Database) -> None:
    take(db, identify(anon="p", email=VICTIM, phone=THEIR_PHONE, token="t-victim"))
    subscriber = owner(db, "email", VICTIM)
    take(db, identify(anon="m", phone=EVIL_PHONE, token="t-evil"))
    take(db, identify(anon="m", email=VICTIM))
    take(db, identify(anon="m", email=EVIL))
    assert owner(db, "anonymous_id", "m") == subscriber
    assert in_use(db, subscriber) == {VICTIM, THEIR_PHONE, "t-victim"}


def test_the_owner_gets_their_address_from_a_profile_that_claimed_it_first(db: Database) -> None:
    take(db, identify(anon="m", email=VICTIM, token="t-evil", phone=EVIL_PHONE))
    consent(db, owner(db, "anonymous_id", "m"), "sms", "push")
    take(db, identify("v", email=VICTIM))
    victim = owner(db, "user_id", "v")
    assert in_use(db, victim) == {VICTIM}
    assert says(db, victim) == {}
    take(db, identify(anon="m", token="t-evil", phone=EVIL_PHONE, email=EVIL))
    assert in_use(db, victim) == {VICTIM}


def test_an_opt_in_for_an_address_before_does_not_count_for_the_next_one(db: Database) -> None:
    take(db, identify(anon="m", email=EVIL))
    m = owner(db, "anonymous_id", "m")
    consent(db, m, "email")
    with db.transaction() as tx:  # m states the victim's address, and the one before is replaced
        of = identifiers.c.value == EVIL
        tx.conn.execute(identifiers.update().where(of).values(retired_at=MONDAY))
    take(db, identify(anon="m", email=VICTIM))
    take(db, identify("v", email=VICTIM))
    victim = owner(db, "user_id", "v")
    assert in_use(db, victim) == {VICTIM}
    assert says(db, victim) == {}


def test_a_start_does_not_restore_an_opt_in_of_the_merged_profile(
    db: Database, victim: int
) -> None:
    take(db, track(anon="m"))
    m = owner(db, "anonymous_id", "m")
    consent(db, m, "sms")
    take(db, identify(anon="m", email=VICTIM))
    with db.transaction(write=False) as tx:
        found = select(consent_records.c.granted).where(consent_records.c.profile_id == victim)
        assert list(tx.conn.execute(found).scalars()) == []


# What an address joins ----------------------------------------------------------------------------


def test_the_surviving_profile_gets_history_and_missing_values(db: Database, victim: int) -> None:
    take(db, track(anon="m", name="cart_abandoned"), identify(anon="m", plan="evil", size=3))
    take(db, identify(anon="m", email=VICTIM))
    assert owner(db, "anonymous_id", "m") == victim
    assert attributes(db, victim) == {"plan": "gold", "size": 3}
    assert "cart_abandoned" in happened(db, victim)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_join_by_address_brings_only_what_belongs_to_the_address(
    db: Database, at_once: bool
) -> None:
    known = identify(anon="a", email="ann@example.com", phone="+447700900001", token="t1", size=3)
    take(db, known)
    went = owner(db, "email", "ann@example.com")
    consent(db, went, "email", "sms", "push")
    with db.transaction() as tx:
        tx.conn.execute(preferences.insert().values(profile_id=went, per_week=2, changed_at=1))
    steps = [track("ann"), identify("ann", email="ann@example.com")]
    for some in [steps] if at_once else [[one] for one in steps]:
        take(db, *some)
    ann = owner(db, "user_id", "ann")
    assert owner(db, "email", "ann@example.com") == ann != went
    assert in_use(db, ann) == {"ann@example.com"}
    assert says(db, ann) == {("email", "*"): True}
    assert attributes(db, ann) == {"size": 3}
    with db.transaction(write=False) as tx:
        [chosen] = tx.conn.execute(select(preferences)).all()
    assert (chosen.profile_id, chosen.per_week) == (ann, 2)


def test_each_address_in_the_call_brings_its_opt_in(db: Database) -> None:
    take(db, identify(anon="a", email="ann@example.com", phone="+447700900001", token="t1"))
    consent(db, owner(db, "anonymous_id", "a"), "email", "sms", "push")
    take(db, identify("ann", email="ann@example.com", phone="+447700900001"))
    ann = owner(db, "user_id", "ann")
    assert in_use(db, ann) == {"ann@example.com", "+447700900001"}
    assert says(db, ann) == {("email", "*"): True, ("sms", "*"): True}


@pytest.mark.parametrize("channel", ["email", "sms", "push"])
def test_every_no_of_the_merged_profile_counts(
    db: Database, victim: int, channel: ChannelName
) -> None:
    take(db, track(anon="m"))
    consent(db, owner(db, "anonymous_id", "m"), channel, yes=False)
    consent(db, victim, "email", "sms", "push")
    take(db, identify(anon="m", email=VICTIM))
    said = says(db, victim)
    assert said.pop((channel, "*")) is False
    assert set(said.values()) == {True}


def test_an_address_does_not_join_a_profile_that_has_another_one(db: Database) -> None:
    take(db, identify(anon="a", email="ann@example.com", phone="+447700900001"))
    outcomes = take(db, identify("bob", email="bob@example.com", phone="+447700900001"))
    assert warned(outcomes) == []
    assert owner(db, "phone", "+447700900001") == owner(db, "user_id", "bob")
    take(db, identify(anon="c", email="cyd@example.com", phone="+447700900003"))
    with db.transaction() as tx:
        row = {"kind": "phone", "value": "+447700900004", "seen_at": MONDAY}
        c = owner(db, "anonymous_id", "c")
        tx.conn.execute(identifiers.insert().values(profile_id=c, **row))
    outcomes = take(db, identify("dan", phone="+447700900003"))
    assert warned(outcomes) == ["traits.phone is left out: it belongs to another customer"]


def test_a_retired_address_is_free_for_another_customer(db: Database, victim: int) -> None:
    take(db, identify(anon="m", phone=EVIL_PHONE))
    take(db, identify(anon="m", email=VICTIM))
    assert owner(db, "phone", EVIL_PHONE) == victim
    becomes(db, "sms", EVIL_PHONE, "complained")
    outcomes = take(db, identify("eve", phone=EVIL_PHONE))
    assert warned(outcomes) == []
    assert in_use(db, owner(db, "user_id", "eve")) == {EVIL_PHONE}
    assert suppressed(db) == {("sms", EVIL_PHONE): "complained"}


def test_a_device_that_signs_in_is_moved_and_a_named_one_is_not(db: Database, victim: int) -> None:
    take(db, identify(anon="m", token="t-evil"))
    outcomes = take(db, identify(anon="m", token="t-victim"))
    assert warned(outcomes) == ["context.device.token is left out: it belongs to another customer"]
    assert in_use(db, victim) == {VICTIM, THEIR_PHONE, "t-victim"}
    take(db, identify("bob", token="t-victim"))
    assert in_use(db, owner(db, "user_id", "bob")) == {"t-victim"}


@pytest.mark.parametrize("at_once", [True, False])
def test_ids_join_everything_and_the_survivors_attribute_stays(db: Database, at_once: bool) -> None:
    take(db, identify("ann", plan="gold", email="ann@example.com"))
    steps = [
        identify(anon="a", plan="evil", size=3, email="other@example.com", token="t1"),
        identify("ann", anon="a"),
    ]
    take(db, steps[0])
    consent(db, owner(db, "anonymous_id", "a"), "email", "push")
    for some in [steps] if at_once else [[one] for one in steps]:
        take(db, *some, at=MONDAY + 60)
    ann = owner(db, "user_id", "ann")
    assert attributes(db, ann) == {"plan": "gold", "size": 3}
    assert in_use(db, ann) == {"ann@example.com", "t1"}
    assert says(db, ann) == {("email", "*"): True, ("push", "*"): True}


# Verified addresses -------------------------------------------------------------------------------


def test_the_policy_can_demand_that_addresses_are_verified(db: Database, victim: int) -> None:
    outcomes = take(db, identify(anon="m", email=VICTIM), join_on="verified")
    assert warned(outcomes) == ["traits.email is left out: it belongs to another customer"]
    assert owner(db, "anonymous_id", "m") != victim
    said = identify(anon="m", email=VICTIM, email_verified=True, token="t2")
    take(db, said, join_on="verified")
    assert owner(db, "anonymous_id", "m") == victim
    assert in_use(db, victim) == {VICTIM, THEIR_PHONE, "t-victim", "t2"}
    # a device is an address that nobody can verify: it goes with who signs in, and joins nobody
    take(db, identify(anon="n", token="t-n"), join_on="verified")
    take(db, identify("v", token="t-n"), join_on="verified")
    assert owner(db, "push_token", "t-n") == victim != owner(db, "anonymous_id", "n")


@pytest.mark.parametrize("claim", [True, "true"])
def test_a_verified_address_proves_the_customer(db: Database, victim: int, claim: object) -> None:
    take(db, track(anon="m"))
    consent(db, owner(db, "anonymous_id", "m"), "sms", "email")
    take(db, identify(anon="m", phone=THEIR_PHONE, phone_number_verified=claim, plan="silver"))
    assert owner(db, "anonymous_id", "m") == victim
    assert says(db, victim) == {("sms", "*"): True}
    take(db, identify(anon="m", plan="bronze"))
    assert attributes(db, victim)["plan"] == "bronze"


@pytest.mark.parametrize("claim", [False, "false", "yes", 1, 1.5, None, {}, ["true"]])
def test_other_statements_do_not_verify_an_address(
    db: Database, victim: int, claim: object
) -> None:
    take(db, identify(anon="m", email=VICTIM, email_verified=claim), join_on="verified")
    assert owner(db, "anonymous_id", "m") != victim


def test_a_verification_applies_only_to_the_address_in_the_same_call(
    db: Database, victim: int
) -> None:
    shown = {"traits": {"email": EVIL, "email_verified": True}}
    said = {"anonymousId": "m", "traits": {"email": VICTIM}, "context": shown}
    take(db, ("identify", said), join_on="verified")
    assert owner(db, "anonymous_id", "m") != victim
    shown = {"traits": {"email": VICTIM, "email_verified": True}}
    take(db, ("identify", {"anonymousId": "m", "context": shown}), join_on="verified")
    assert owner(db, "anonymous_id", "m") == victim


def test_an_attackers_own_verified_address_takes_nothing_over(db: Database, victim: int) -> None:
    take(db, identify(anon="m", email=VICTIM))
    take(db, identify(anon="m", email=EVIL, email_verified=True, plan="evil"))
    assert in_use(db, victim) == {VICTIM, THEIR_PHONE, "t-victim"}
    assert attributes(db, victim)["plan"] == "gold"
    assert in_use(db, owner(db, "anonymous_id", "m")) == {EVIL}


# An anonymous id that is not verified -------------------------------------------------------------

_SAYS: Sequence[dict[str, Any]] = [
    {"email": EVIL},
    {"phone": EVIL_PHONE},
    {"token": "t-evil"},
    {"plan": "evil"},
    {"country": "FR", "timezone": "Asia/Tokyo", "language": "ja"},
    {"email": VICTIM, "plan": "evil"},
]


@pytest.mark.parametrize("said", _SAYS, ids=lambda said: "+".join(said))
@pytest.mark.parametrize("kind", ["identify", "track", "group"])
def test_an_unverified_anonymous_id_adds_only_events(
    db: Database, victim: int, said: dict[str, Any], kind: CallKind
) -> None:
    take(db, identify(anon="m", email=VICTIM))
    before = in_use(db, victim), says(db, victim), attributes(db, victim)
    fields = identify(anon="m", **said)[1]
    if kind != "identify":
        shown = {"timezone": "Asia/Tokyo", "locale": "ja", **fields["context"]}
        fields |= {"event": "looked", "groupId": "g", "context": shown}
    [outcome] = take(db, (kind, fields))
    assert outcome.refused is None
    assert outcome.warnings[0].startswith("all but the event is left out")
    assert (in_use(db, victim), says(db, victim), attributes(db, victim)) == before
    with db.transaction(write=False) as tx:
        row = tx.conn.execute(select(profiles).where(profiles.c.id == victim)).one()
    assert (row.country, row.timezone, row.language) == (None, None, None)
    expected = "looked" if kind == "track" else "profile_changed"
    assert happened(db, victim)[-1] == expected


def test_an_unverified_anonymous_id_states_no_consent(db: Database, victim: int) -> None:
    consent(db, victim, "email")
    take(db, identify(anon="m", email=VICTIM))
    before = says(db, victim)
    for granted in (True, False):
        said = {
            **{"anonymousId": "m", "channel": "sms", "granted": granted, "source": "form"},
            **{"wording": "Yes", "evidence": {}},
        }
        with db.transaction() as tx:
            stated = take_statements(tx, {0: read_statement(said, Policy())}, {})
        assert stated.refused[0].field == "anonymousId"
        assert "give the userId or an address" in stated.refused[0].why
    with db.transaction() as tx:
        no = No(
            person=Person(anonymous_id="m"), refuses=[("email", "*")], said_at=None, just_now=True
        )
        assert take_opt_outs(tx, {0: no}, "test") == {}
    mapped = read_call(*identify(anon="m")).person._replace(consent={("email", "*"): False})
    with db.transaction() as tx:
        take_calls(tx, [read_call(*identify(anon="m"))._replace(person=mapped)], merge)
    assert says(db, victim) == before


def test_a_consent_statement_adds_no_user_id(db: Database) -> None:
    take(db, identify(anon="p", email=VICTIM, phone=THEIR_PHONE))
    subscriber = owner(db, "email", VICTIM)
    said = {
        **{"userId": "evil", "email": VICTIM, "channel": "email", "granted": True},
        **{"source": "form", "wording": "Yes", "evidence": {}},
    }
    with db.transaction() as tx:
        take_statements(tx, {0: read_statement(said, Policy())}, {})
    take(db, identify("evil", email=EVIL))
    assert owner(db, "user_id", "evil") != subscriber
    assert says(db, subscriber) == {("email", "*"): True}


def test_all_anonymous_ids_of_the_merged_profile_are_unverified(db: Database) -> None:
    take(db, identify(anon="a", email="ann@example.com"), identify("ann"))
    take(db, ("alias", {"userId": "x", "previousId": "b"}))
    take(db, identify(anon="c", email="ann@example.com"))
    take(db, identify("ann", email="ann@example.com"))
    ann = owner(db, "user_id", "ann")
    for anonymous in ("a", "c"):
        assert owner(db, "anonymous_id", anonymous) == ann
        take(db, identify(anon=anonymous, plan="evil"))
    assert attributes(db, ann) == {}


@pytest.mark.parametrize(
    "proof",
    [identify("v", anon="m"), identify(anon="m", email=VICTIM, email_verified=True)],
    ids=["user id", "verified address"],
)
@pytest.mark.parametrize("before", [True, False])
def test_proof_restores_what_an_address_join_withheld(
    db: Database, victim: int, proof: Said, before: bool
) -> None:
    """Devices and opt-ins are moved, in either order of address and proof."""
    take(db, identify(anon="m", token="t-m", email=None))
    consent(db, owner(db, "anonymous_id", "m"), "push")
    address = identify(anon="m", email=VICTIM)
    verified_first = before and "userId" in proof[1] and proof[1]["userId"]
    for one in (proof, address) if verified_first else (address, proof):
        take(db, one)
    assert owner(db, "anonymous_id", "m") == victim
    assert in_use(db, victim) == {VICTIM, THEIR_PHONE, "t-victim", "t-m"}
    assert says(db, victim) == {("push", "*"): True}
    take(db, identify(anon="m", plan="silver"))
    assert attributes(db, victim)["plan"] == "silver"


@pytest.mark.parametrize("kind", ["identify", "track", "alias"])
def test_another_customer_who_signs_in_takes_their_anonymous_id_with_them(
    db: Database, victim: int, kind: CallKind
) -> None:
    """A profile that named the wrong address is not joined to that customer."""
    take(db, identify(anon="m", email=VICTIM))
    said = {"userId": "bob", "event": "x"}
    take(db, (kind, {**said, "previousId" if kind == "alias" else "anonymousId": "m"}))
    bob = owner(db, "user_id", "bob")
    assert owner(db, "anonymous_id", "m") == bob != victim
    take(db, identify(anon="m", plan="silver"))
    assert attributes(db, bob) == {"plan": "silver"}
    assert attributes(db, victim) == {"plan": "gold"}


def test_a_subscriber_does_not_follow_a_profile_that_stated_their_address(db: Database) -> None:
    take(db, identify(anon="p", email=VICTIM, phone=THEIR_PHONE, token="t-victim"))
    subscriber = owner(db, "email", VICTIM)
    consent(db, subscriber, "email", "sms", "push")
    take(db, identify(anon="m", email=VICTIM))
    take(db, identify("evil", anon="m", email=EVIL))
    evil = owner(db, "user_id", "evil")
    assert in_use(db, evil) == {EVIL}
    assert says(db, evil) == {}
    assert in_use(db, subscriber) == {VICTIM, THEIR_PHONE, "t-victim"}


def test_the_record_of_an_address_join_lists_what_was_withheld(db: Database, victim: int) -> None:
    take(db, identify(anon="m", phone=EVIL_PHONE, token="t-evil"))
    m = owner(db, "anonymous_id", "m")
    consent(db, m, "sms")
    take(db, identify(anon="m", email=VICTIM))
    with db.transaction(write=False) as tx:
        of_joins = select(identity_records).where(identity_records.c.kind == "join")
        [record] = tx.conn.execute(of_joins).all()
    moved = record.data["moved"]
    assert (record.from_id, record.into_id) == (m, victim)
    assert sorted(moved["retired"]) == [["phone", EVIL_PHONE], ["push_token", "t-evil"]]
    assert sorted(moved["withheld"]["addresses"]) == sorted(moved["retired"])
    assert [one["channel"] for one in moved["withheld"]["consents"]] == ["sms"]
    assert moved["unverified"] == ["m"]
    assert moved["profile"]["id"] == m
    assert moved["profile_before"]["attributes"] == {"plan": "gold"}


def test_a_yes_from_a_withheld_address_does_not_count_and_a_no_does(
    db: Database, victim: int
) -> None:
    take(db, identify(anon="m", phone=EVIL_PHONE))
    take(db, identify(anon="m", email=VICTIM))
    consent(db, victim, "sms")
    consent(db, victim, "sms", yes=False)

    def texted(kind: Literal["started", "stopped"], phone: str) -> None:
        said = Feedback(
            id=f"{kind} {phone}", source=f"twilio {kind}", channel="sms", kind=kind, address=phone
        )
        with db.transaction() as tx:
            apply(tx, [said])

    texted("started", EVIL_PHONE)
    assert says(db, victim) == {("sms", "*"): False}
    texted("started", THEIR_PHONE)
    assert says(db, victim) == {("sms", "*"): True}
    texted("stopped", EVIL_PHONE)
    assert says(db, victim) == {("sms", "*"): False}


# Long chains --------------------------------------------------------------------------------------


def statements(db: Database, number: int, at_once: int) -> list[int]:
    """The statements, with all their rows, that each batch of a chain of aliases takes."""
    people = range(number + 1)
    take(db, *(track(f"{number}-{one}", messageId=str(one)) for one in people))
    taken: list[int] = []

    def count_rows(*args: Any) -> None:
        _, _, _, parameters, _, many = args
        taken[-1] += len(parameters) if many else 1

    aliases: list[Said] = [
        ("alias", {"userId": f"{number}-{one + 1}", "previousId": f"{number}-{one}"})
        for one in range(number)
    ]
    event.listen(db.engine, "before_cursor_execute", count_rows)
    for start in range(0, number, at_once):
        taken.append(0)
        take(db, *aliases[start : start + at_once])
    event.remove(db.engine, "before_cursor_execute", count_rows)
    return taken


def test_a_chain_of_aliases_takes_linear_work(db: Database) -> None:
    [few], [many] = statements(db, 50, 50), statements(db, 400, 400)
    assert many < 9 * few
    batches = statements(db, 300, 25)
    assert max(batches[3:]) < 1.5 * min(batches[3:])
    with db.transaction(write=False) as tx:
        c = identifiers.c
        found = select(c.profile_id).where(c.kind == "user_id", c.value.startswith("300-"))
        assert len(set(tx.conn.execute(found).scalars())) == 1


# Calls at once and one after the other ------------------------------------------------------------

_numbers = count()
_USERS, _ANONS = st.sampled_from(["u", "v"]), st.sampled_from(["a", "b", "c"])
_TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from(["x@example.com", "y@example.com"]),
        "phone": st.sampled_from("12"),
        "email_verified": st.booleans(),
        "plan": st.sampled_from(["gold", "silver"]),
    },
)
_CALLS = st.lists(
    st.builds(
        lambda user, anon, token, traits: (user, anon or (None if user else "a"), token, traits),
        st.none() | _USERS,
        st.none() | _ANONS,
        st.none() | st.sampled_from(["t1", "t2"]),
        _TRAITS,
    ),
    min_size=2,
    max_size=7,
)


# `a` joins `u` by an unverified address, and the rest of what `a` has is withheld.
_WITHHELD: list[tuple[Any, ...]] = [
    (None, "a", "t2", {"phone": "1", "email": "x@example.com"}),
    ("u", None, None, {"email": "x@example.com"}),
]
_U_IS_B: tuple[Any, ...] = ("u", "b", None, {})


def _looks(db: Database, mark: str) -> Any:
    """The identifiers and consent of each profile, without profile numbers."""
    people: dict[int, list[Any]] = {}
    with db.transaction(write=False) as tx:
        c = identifiers.c
        whose = select(c.profile_id).where(c.value.contains(mark))
        for row in tx.conn.execute(select(identifiers).where(c.profile_id.in_(whose))):
            theirs = people.setdefault(row.profile_id, [])
            unverified = row.unverified_from is not None
            value = re.sub(f"{mark}|^.4915112[0-9]{{5}}", "", row.value)
            theirs.append((row.kind, value, row.retired_at is None, unverified))
        for row in tx.conn.execute(select(profiles).where(profiles.c.id.in_(people))):
            people[row.id].append(("attributes", sorted(row.attributes.items())))
    return sorted(sorted(map(str, one)) for one in people.values())


@settings(
    max_examples=cases(test=30, prove=2000),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(_CALLS, st.sampled_from(["any", "verified"]))
# the user id confirms `a`: the withheld t2 comes into use, unless somebody took it before
@example([*_WITHHELD, (None, "b", "t2", {}), ("u", "a", None, {})], "any")
@example([*_WITHHELD, ("u", "a", None, {}), (None, "b", "t2", {})], "any")
# of two phone numbers the one that was in use first stays
@example([*_WITHHELD, ("u", None, None, {"phone": "2"}), ("u", "a", None, {})], "any")
@example([*_WITHHELD, (None, "b", None, {"phone": "2"}), ("u", "a", None, {}), _U_IS_B], "any")
@example([*_WITHHELD, (None, "b", None, {"phone": "2"}), _U_IS_B, ("u", "a", None, {})], "any")
def test_concurrent_calls_give_the_same_result_as_sequential_ones(
    sqlite_house: House, calls: list[tuple[Any, ...]], join_on: JoinOn
) -> None:
    looks = []
    for at_once in (True, False):
        number = next(_numbers)
        mark = f"q{number}q"
        said: list[Said] = []
        for user, anon, token, traits in calls:
            marked = {"email": f"{mark}{traits['email']}"} if "email" in traits else {}
            if "phone" in traits:
                marked["phone"] = f"+4915112{number:05}{traits['phone']}"
            ids = (one and f"{mark}{one}" for one in (user, anon, token))
            said.append(identify(*ids, **{**traits, **marked}))
        for some in [said] if at_once else [[one] for one in said]:
            take(sqlite_house.db, *some, join_on=join_on)
        looks.append(_looks(sqlite_house.db, mark))
    assert looks[0] == looks[1]
