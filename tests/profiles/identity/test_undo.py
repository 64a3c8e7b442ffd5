"""Random sequences of calls, joins, undoings and messages end as if no join had ever been.

Each sequence runs twice with other identifiers: once as it is, and once without its joins. Then
both must have the same profiles, except that a no stays with both; each message belongs to whose
address got it.
"""

from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from channels.messages import messages
from config.clock.times import HOUR, Instant, format_instant
from config.database.engine import Database
from config.join_rules import JoinRules
from config.policy import ConsentTrait, Policy
from journeys.dsl import Email, Journey, OnEvent, Send
from journeys.enrollments import enrollments
from journeys.operations.merge import merge
from journeys.operations.unmerge import preview_undo, unmerge
from profiles.calls.record_calls import take_calls
from profiles.calls.segment_calls import CallKind, read_call
from profiles.identity.addresses import is_in_use
from profiles.rules import InputRules
from profiles.tables import consents, events, identifiers, identity_records, profiles
from tests.support.proof import cases
from tests.support.shop import MONDAY, House

# Who there is: two with a user id, three without. Nobody's address is another one's.
_USERS, _ANONS = ("u", "v"), ("a", "b", "c")
_EVERYBODY = (*_USERS, *_ANONS)
_TRAIT = {"news": "news", "mails": "*"}
_RULES = InputRules(
    consent_traits=tuple(
        ConsentTrait(trait=trait, value=yes, channel="email", topic=topic, granted=yes)
        for trait, topic in _TRAIT.items()
        for yes in (True, False)
    ),
    joins=JoinRules.model_validate({"limits": {"email": "none", "anonymous_id": "none"}}),
)
HELLO = Journey(
    "hello",
    entry=OnEvent("signed_up", again="always"),
    topic="news",
    steps=[Send("hello", Email("hello"))],
)
_numbers = count()


class Does(NamedTuple):
    """A call about one person. late: how long ago it says that it was, in seconds."""

    who: str
    kind: CallKind
    traits: dict[str, Any]
    late: int = 0
    signs_up: bool = False


class Joins(NamedTuple):
    """A call that names two persons. by: identify, alias, or a verified address of the second."""

    who: str
    other: str
    by: str


class Undoes(NamedTuple):
    """The undo of one of the joins that stand; place: which one."""

    place: int


Act = Does | Joins | Undoes

_TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from("12"),
        "phone": st.sampled_from("12"),
        "plan": st.sampled_from(["gold", "silver"]),
        "size": st.integers(1, 3),
        "timezone": st.sampled_from(["Europe/Paris", "Asia/Tokyo"]),
        **{trait: st.booleans() for trait in _TRAIT},
    },
)
_WHO = st.sampled_from(_EVERYBODY)
_ACTS: st.SearchStrategy[Act] = (
    st.builds(Does, _WHO, st.just("identify"), _TRAITS, st.sampled_from([0, 0, 150]))
    | st.builds(Does, _WHO, st.just("track"), _TRAITS, st.just(0), st.booleans())
    | st.builds(Joins, st.sampled_from(_USERS), st.sampled_from(_ANONS), st.just("identify"))
    | st.builds(Joins, st.sampled_from(_USERS), _WHO, st.just("alias"))
    | st.builds(Joins, st.just("c"), st.sampled_from("uvab"), st.just("email"))
    | st.builds(Undoes, st.integers(0, 3))
)


class World:
    """One of the two ways in which a sequence runs."""

    def __init__(self, house: House, number: int, *, joined: bool) -> None:
        self.house, self.mark, self.joined = house, f"q{number}q", joined
        self.number = number
        self.places = count()

    def ids(self, who: str) -> dict[str, str]:
        return {"userId" if who in _USERS else "anonymousId": self.mark + who}

    def address(self, who: str, which: str) -> str:
        return f"{self.mark}{who}{which}@example.com"

    def phone(self, who: str, which: str) -> str:
        return f"+4915{self.number:06}{_EVERYBODY.index(who)}{which}"

    def does(self, act: Does) -> None:
        traits = dict(act.traits)
        if "email" in traits:
            traits["email"] = self.address(act.who, traits["email"])
        if "phone" in traits:
            traits["phone"] = self.phone(act.who, traits["phone"])
        fields: dict[str, Any] = {**self.ids(act.who), "event": "x", "context": {"traits": traits}}
        if act.signs_up:
            fields["event"] = "signed_up"
        if act.kind == "identify":
            fields = {**self.ids(act.who), "traits": traits}
        if act.late:
            fields["timestamp"] = format_instant(self.house.now - act.late)
        self.take(act.kind, fields)

    def joins(self, act: Joins) -> None:
        """Without joins, the call is about its first person alone."""
        if act.by == "alias":
            # An alias also makes a profile for each of its ids.
            said = self.ids(act.who)
            if self.joined:
                self.take("alias", {**said, "previousId": self.mark + act.other})
            else:
                self.take("track", {**said, "event": "aliased"})
            return
        fields: dict[str, Any] = dict(self.ids(act.who))
        traits: dict[str, Any] = {"joined": act.other}
        if act.by == "email":
            traits["email_verified"] = True
        if self.joined:
            if act.by == "identify":
                fields |= self.ids(act.other)
            else:
                traits["email"] = self.address(act.other, "1")
        self.take("identify", {**fields, "traits": traits})

    def take(self, kind: CallKind, fields: dict[str, Any]) -> None:
        call = read_call(kind, {**fields, "messageId": f"m{next(self.places)}"}, rules=_RULES)
        with self.house.db.transaction() as tx:
            take_calls(tx, [call], merge, _RULES)

    def uses(self, who: str) -> bool:
        """Whether the address of a person is in use."""
        c = identifiers.c
        with self.house.db.transaction(write=False) as tx:
            found = select(is_in_use()).where(c.value == self.address(who, "1"))
            return bool(tx.conn.execute(found).scalar())

    def people(self) -> dict[str, int]:
        """The profile of each person who was named."""
        c = identifiers.c
        with self.house.db.transaction(write=False) as tx:
            rows = tx.conn.execute(
                select(c.value, c.profile_id).where(
                    c.value.in_([self.mark + w for w in _EVERYBODY])
                )
            )
            return {row.value.removeprefix(self.mark): row.profile_id for row in rows}

    def shown(self, profile_id: int) -> dict[str, Any]:
        """Everything about a person but consent, without the marks of this world."""
        with self.house.db.transaction(write=False) as tx:
            row = (
                tx.conn.execute(select(profiles).where(profiles.c.id == profile_id))
                .mappings()
                .one()
            )
            c, e = identifiers.c, events.c
            mine = [
                (one.kind, one.value, one.used)
                for one in tx.conn.execute(
                    select(c.kind, c.value, is_in_use().label("used"))
                    .where(c.profile_id == profile_id)
                    .order_by(c.kind, c.value)
                )
            ]
            did = [
                (one.name, one.dedupe_key)
                for one in tx.conn.execute(
                    select(e.name, e.dedupe_key)
                    .where(e.profile_id == profile_id, e.name.in_(["x", "signed_up"]))
                    .order_by(e.dedupe_key)
                )
            ]
        described = {
            name: row[name] for name in ("attributes", "attribute_times", "attribute_identifiers")
        } | {name: row[name] for name in ("country", "timezone", "language", "created_at")}
        shown: dict[str, Any] = self.plain({**described, "identifiers": mine, "events": did})
        return shown

    def plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(self.mark, "").replace(f"+4915{self.number:06}", "")
        if isinstance(value, dict):
            return {name: self.plain(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(one) for one in value]
        return value

    def consent(self, profile_id: int) -> dict[tuple[str, str], bool]:
        c = consents.c
        with self.house.db.transaction(write=False) as tx:
            found = tx.conn.execute(
                select(c.channel, c.topic, c.granted).where(c.profile_id == profile_id)
            )
            return {(row.channel, row.topic): row.granted for row in found}


def standing_joins(db: Database, profile_ids: set[int]) -> list[int]:
    c = identity_records.c
    with db.transaction(write=False) as tx:
        return list(
            tx.conn.execute(
                select(c.id)
                .where(c.kind == "join", c.undone_at.is_(None), c.profile_id.in_(profile_ids))
                .order_by(c.id)
            ).scalars()
        )


def undo(house: House, join: int) -> None:
    with house.db.transaction(write=False) as tx:
        planned = preview_undo(tx, join)
    with house.db.transaction() as tx:
        done = unmerge(tx, join, _RULES, "test")
    assert planned == done
    house.run()


def run(house: House, acts: list[Act]) -> None:
    house.db.now = MONDAY + 9 * HOUR
    number = next(_numbers)
    real = World(house, 2 * number, joined=True)
    other = World(house, 2 * number + 1, joined=False)
    refusals: set[tuple[str, str]] = set()
    # A new identifier that a call adds to a profile is no join, so everybody is there before.
    before = [Does(who, "identify", {"email": "1"} if who != "c" else {}) for who in _EVERYBODY]
    for act in [*before, *acts]:
        house.db.now += 100
        if isinstance(act, Undoes):
            standing = standing_joins(house.db, set(real.people().values()))
            if standing:
                undo(house, standing[act.place % len(standing)])
            continue
        if isinstance(act, Joins) and act.by == "email" and not real.uses(act.other):
            continue  # whoever states an address that is not in use takes it over for good
        for world in (real, other):
            world.does(act) if isinstance(act, Does) else world.joins(act)
        if isinstance(act, Does):
            refusals |= {
                ("email", topic)
                for trait, topic in _TRAIT.items()
                if act.traits.get(trait) is False
            }
        check_messages(house, real, house.db.now)
    while standing := standing_joins(house.db, set(real.people().values())):
        house.db.now += 100
        undo(house, standing[-1])
    found, expected = real.people(), other.people()
    assert found.keys() == expected.keys()
    assert len(set(found.values())) == len(found)
    for who, profile_id in found.items():
        here, there = real.shown(profile_id), other.shown(expected[who])
        for name, value in there.items():
            assert here[name] == value, (who, name)
        check_consent(real.consent(profile_id), other.consent(expected[who]), refusals)
    check_owners(house, real, found)


def check_messages(house: House, world: World, now: Instant) -> None:
    """Run journeys. Nobody gets a message against the consent of the profile that they are part
    of."""
    before = {row.id for row in house.rows()}
    house.run()
    for row in house.rows():
        if row.id not in before and row.address and row.address.startswith(world.mark):
            said = world.consent(row.profile_id)
            assert said.get(("email", row.topic), said.get(("email", "*"), True)), (row, now)


def check_consent(
    found: dict[tuple[str, str], bool],
    expected: dict[tuple[str, str], bool],
    refusals: set[tuple[str, str]],
) -> None:
    for key in found.keys() | expected.keys():
        if found.get(key) is False and expected.get(key) is not False:
            # A no stays with both; one to all e-mail also refuses each topic.
            assert key in refusals or ("email", "*") in refusals, key
        else:
            assert found.get(key) == expected.get(key), key


def check_owners(house: House, world: World, people: dict[str, int]) -> None:
    """Messages belong to whose address got them, enrollments to whose event entered them."""
    m, n, e = messages.c, enrollments.c, events.c
    with house.db.transaction(write=False) as tx:
        got = tx.conn.execute(
            select(m.address, m.profile_id).where(m.address.startswith(world.mark))
        ).all()
        entered = tx.conn.execute(
            select(n.profile_id, e.identifier_value)
            .join(events, e.id == n.entry_event_id)
            .where(e.identifier_value.startswith(world.mark))
        ).all()
    for address, profile_id in got:
        assert profile_id == people[address.removeprefix(world.mark)[0]], address
    for profile_id, value in entered:
        assert profile_id == people[value.removeprefix(world.mark)], value


@pytest.fixture
def opened(house: House) -> House:
    house.open(HELLO, policy=Policy())
    return house


@settings(
    max_examples=cases(test=25, prove=10_000),
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(_ACTS, min_size=3, max_size=12))
@example(
    [
        Does("u", "identify", {"plan": "gold", "email": "1"}),
        Does("a", "identify", {"plan": "silver", "email": "1", "news": False}),
        Joins("u", "a", "identify"),
        Does("a", "identify", {"plan": "gold", "email": "2"}),
        Does("u", "track", {"size": 2}, signs_up=True),
        Undoes(0),
        Joins("u", "a", "identify"),
    ]
).via("a join that is undone and stated again")
@example(
    [
        Does("a", "identify", {"plan": "gold", "email": "1"}),
        Does("b", "identify", {"plan": "silver"}),
        Joins("u", "b", "identify"),
        Joins("u", "a", "alias"),
        Joins("v", "u", "alias"),
        Undoes(0),
        Does("b", "identify", {"size": 1}),
        Undoes(1),
    ]
).via("joins of joined profiles, undone in another order")
@example(
    [
        Does("u", "identify", {"email": "1", "phone": "1"}),
        Does("c", "identify", {"phone": "1", "mails": True}),
        Joins("c", "u", "email"),
        Does("c", "track", {"phone": "2"}, signs_up=True),
    ]
).via("a join by a verified address")
def test_an_undone_join_is_as_if_it_had_never_been(opened: House, acts: list[Act]) -> None:
    run(opened, acts)
