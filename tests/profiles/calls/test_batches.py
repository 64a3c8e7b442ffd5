"""Calls of one batch leave the same rows as the same calls one after the other."""

import re
from collections import Counter
from itertools import count
from typing import Any

import orjson
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, select

from config.channels import ChannelName
from config.clock.times import Instant, format_instant
from config.database.engine import Database
from config.join_rules import JoinRules
from config.policy import ConsentTrait, JoinOn
from journeys.operations.merge import merge
from profiles.calls.record_calls import take_calls
from profiles.calls.segment_calls import CallKind, SegmentCall, read_call
from profiles.identity.survivors import survivors
from profiles.rules import InputRules
from profiles.tables import (
    consent_records,
    consents,
    email_confirmations,
    events,
    identifiers,
    preferences,
    profiles,
)
from tests.support.proof import cases
from tests.support.shop import MONDAY, House

Said = tuple[CallKind, dict[str, Any]]

# A trait, and the consent that it states.
_CONSENT: list[tuple[str, ChannelName, str]] = [
    ("news", "email", "news"),
    ("mails", "email", "*"),
    ("texts", "sms", "*"),
]
_RULES = InputRules(
    consent_traits=tuple(
        ConsentTrait(trait=trait, value=yes, channel=channel, topic=topic, granted=yes)
        for trait, channel, topic in _CONSENT
        for yes in (True, False)
    )
)
_numbers = count()
# Limits that few calls reach, and none.
_LIMITS: list[dict[str, Any]] = [
    {},
    {"anonymous_id": {"limit": 1, "within": "7d"}, "email": {"limit": 1}, "phone": {"limit": 1}},
    {"anonymous_id": {"limit": 2}, "push_token": {"limit": 1}},
    {"user_id": {"limit": 2}, "email": {"limit": 1, "within": "1h"}},
]
_USERS, _ANONS = st.sampled_from(["u", "v"]), st.sampled_from(["a", "b", "c"])
_TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from(["x@example.com", "y@example.com"]),
        "email_verified": st.booleans(),
        "phone": st.sampled_from("12"),
        "plan": st.sampled_from(["gold", "silver"]),
        "timezone": st.sampled_from(["Europe/Paris", "Asia/Tokyo"]),
        **{trait: st.booleans() for trait, *_ in _CONSENT},
    },
)
# None: when it is received.
_TIMES = st.none() | st.sampled_from([MONDAY - 300, MONDAY - 200, MONDAY - 100])


def _fields(user: str | None, anon: str | None, at: Instant | None) -> dict[str, Any]:
    dated = {} if at is None else {"timestamp": format_instant(at)}
    return {"userId": user, "anonymousId": anon or (None if user else "a"), **dated}


def _about(kind: CallKind, ids: dict[str, Any], traits: dict[str, Any], token: str | None) -> Said:
    context: dict[str, Any] = {"device": {"token": token, "type": "ios"}} if token else {}
    if kind == "identify":
        return kind, {**ids, "traits": traits, "context": context}
    return kind, {**ids, "event": "x", "context": {**context, "traits": traits}}


def _identify(
    user: str | None,
    anon: str | None,
    at: Instant | None,
    *,
    token: str | None = None,
    **traits: Any,
) -> Said:
    return _about("identify", _fields(user, anon, at), traits, token)


def _track(
    user: str | None,
    anon: str | None,
    at: Instant | None = None,
    *,
    token: str | None = None,
    **traits: Any,
) -> Said:
    return _about("track", _fields(user, anon, at), traits, token)


_IDS = st.builds(_fields, st.none() | _USERS, st.none() | _ANONS, _TIMES)
_TOKENS = st.none() | st.sampled_from(["t1", "t2"])
_KINDS: st.SearchStrategy[CallKind] = st.sampled_from(["identify", "track"])
_CALL = (
    st.builds(_about, _KINDS, _IDS, st.just({}), st.none())
    | st.builds(_about, _KINDS, _IDS, _TRAITS, _TOKENS)
    | st.builds(
        lambda ids, previous: ("alias", {**ids, "userId": ids["userId"] or "u", **previous}),
        _IDS,
        st.fixed_dictionaries({"previousId": _ANONS | _USERS}),
    )
)


def _marked(said: Said, number: int, place: int) -> SegmentCall:
    """A call whose identifiers no other example has."""
    kind, fields = said
    mark = f"q{number}q"
    fields = {**fields, "messageId": f"m{place}"}
    for name in ("userId", "anonymousId", "previousId"):
        if fields.get(name) is not None:
            fields[name] = mark + fields[name]
    context = fields["context"] = dict(fields.get("context", {}))
    if "device" in context:
        context["device"] = {**context["device"], "token": mark + context["device"]["token"]}
    for holder in (fields, context):
        if "traits" in holder:
            traits = holder["traits"] = dict(holder["traits"])
            if "email" in traits:
                traits["email"] = mark + traits["email"]
            if "phone" in traits:
                traits["phone"] = f"+4915112{number:05}{traits['phone']}"
    return read_call(kind, fields, rules=_RULES)


def _record(
    db: Database, batches: list[list[Said]], number: int, rules: InputRules
) -> list[tuple[str, Any]]:
    """Record batches of calls. Returns the rows of each profile."""
    db.now = MONDAY
    places = count()
    for batch in batches:
        calls = [_marked(said, number, next(places)) for said in batch]
        with db.transaction() as tx:
            take_calls(tx, calls, merge, rules)
    return _rows(db, number)


# Numbers of rows, and times of joins.
_LEFT_OUT = {
    "id",
    "profile_id",
    "bucket",
    "retired_at",
    "unverified_from",
    "updated_at",
    "origin_id",
}


def _rows(db: Database, number: int) -> list[Any]:
    """The rows of each profile, without the numbers that both ways of recording choose."""
    people: dict[int, list[Any]] = {}
    mark = f"q{number}q"

    def shown(row: Any) -> str:
        told = {name: value for name, value in row.items() if name not in _LEFT_OUT}
        if row.get("kind") in ("user_id", "anonymous_id"):
            del told["seen_at"]  # only addresses are compared by it
        return re.sub(
            f"{mark}|4915112{number:05}",
            "",
            orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode(),
        )

    with db.transaction(write=False) as tx:
        c = identifiers.c
        whose = select(c.profile_id).where(c.value.contains(mark))
        ids = set(tx.conn.execute(whose).scalars())
        for row in tx.conn.execute(select(identifiers).where(c.profile_id.in_(ids))).mappings():
            people.setdefault(row["profile_id"], []).append(
                (
                    "identifier",
                    shown(row),
                    row["retired_at"] is None,
                    row["unverified_from"] is None,
                )
            )
        table: Table
        for table in (profiles, consents, preferences, events):
            column = table.c.id if table is profiles else table.c.profile_id
            for row in tx.conn.execute(select(table).where(column.in_(ids))).mappings():
                if not str(row.get("dedupe_key")).startswith("merge of"):
                    people[row[column.name]].append((table.name, shown(row)))
        # A pending yes belongs to whoever has the address, if that customer said it.
        e = email_confirmations.c
        for row in tx.conn.execute(
            select(c.profile_id.label("owner"), email_confirmations)
            .join(identifiers, (c.kind == "email") & (c.value == e.address))
            .where(c.profile_id.in_(ids))
        ).mappings():
            said_by = survivors(tx, [row["profile_id"]]).get(row["profile_id"], row["profile_id"])
            told = {name: value for name, value in row.items() if name != "owner"}
            people[row["owner"]].append(
                ("email_confirmation", shown(told), said_by == row["owner"])
            )
        # The order of the records of a profile counts: the last one says whence consent comes.
        r = consent_records.c
        before: Counter[tuple[Any, ...]] = Counter()
        for row in tx.conn.execute(
            select(consent_records).where(r.profile_id.in_(ids)).order_by(r.id)
        ).mappings():
            key = row["identifier_value"], row["channel"], row["topic"]
            people[row["profile_id"]].append(("consent_record", before[key], shown(row)))
            before[key] += 1
    return sorted(sorted(map(str, one)) for one in people.values())


@settings(
    max_examples=cases(test=60, prove=5000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(_CALL, max_size=3),
    st.lists(_CALL, min_size=2, max_size=6),
    st.sampled_from(["any", "verified"]),
    st.sampled_from([{}, {"news": "News"}]),
    st.sampled_from(_LIMITS),
)
@example(
    [_identify(None, "a", None, plan="gold")],
    [_identify("u", None, MONDAY - 300, plan="silver"), _track("u", "a")],
    "any",
    {},
    {},
).via("a value of the profile that stays wins over a later one of the profile that goes")
@example(
    [_identify(None, "a", MONDAY - 300, news=False)],
    [_identify("u", None, None, news=True), _track("u", "a")],
    "any",
    {},
    {},
).via("a no of the profile that goes wins over a later yes")
@example(
    [],
    [_identify("u", None, None, news=False), _identify("u", None, None, news=True)],
    "any",
    {},
    {},
).via("a no outweighs a yes from the same second")
@example(
    [
        _identify("u", None, None, email="x@example.com"),
        _track(None, "a"),
        _identify(None, "a", None, email="x@example.com"),
    ],
    [_track(None, "a"), _track("v", "a"), _track(None, "a")],
    "any",
    {},
    {},
).via("an event of an anonymous id that the next call moves to another customer")
@example(
    [
        _identify("u", None, MONDAY - 100, token="t2", email="y@example.com", email_verified=True),
        _track(None, "a", MONDAY - 100, token="t2", email="x@example.com", email_verified=True),
    ],
    [
        _identify("u", None, MONDAY - 100, token="t2", email="y@example.com", email_verified=True),
        _track(None, "a", MONDAY - 100, token="t2", email="x@example.com", email_verified=True),
        _track(None, "a", MONDAY - 200),
    ],
    "any",
    {},
    {},
).via("a call that must wait changes nothing before it is written")
@example(
    [
        _track(None, "a"),
        _identify(None, "b", None, email="y@example.com"),
        _identify("v", None, None, email="x@example.com"),
    ],
    [_track("v", "b"), ("alias", {"userId": "u", "anonymousId": "a", "previousId": "v"})],
    "any",
    {},
    {},
).via("a profile takes in another one before both go into a third")
@example(
    [],
    [
        _identify("u", None, None, email="x@example.com", news=True),
        _identify("u", None, None, email="y@example.com"),
    ],
    "any",
    {"news": "News"},
    {},
).via("the e-mail address changes after a confirmation was requested")
@example(
    [_identify("u", "a", None), _identify("v", None, MONDAY - 300, token="t1")],
    [
        _identify(None, "a", MONDAY - 100, token="t1"),
        _identify("u", None, MONDAY - 200, token="t1"),
    ],
    "any",
    {},
    {},
).via("a call names another customer's token, which the next call moves to this customer")
@example(
    [
        _identify(None, "a", None, email="x@example.com"),
        _identify("u", None, None, email="x@example.com"),
    ],
    [
        ("alias", {"userId": "v", "previousId": "a"}),
        ("alias", {"userId": "u", "previousId": "a"}),
    ],
    "any",
    {},
    {},
).via("an unverified anonymous id goes to another customer, who is then joined to the previous one")
def test_a_batch_leaves_the_rows_that_its_calls_leave_one_by_one(
    house: House,
    before: list[Said],
    calls: list[Said],
    join_on: JoinOn,
    double_opt_in: dict[str, str],
    limits: dict[str, Any],
) -> None:
    """Some calls before it are recorded one by one, so the batch meets stored profiles."""
    db, one_by_one = house.db, [[call] for call in [*before, *calls]]
    together = [*one_by_one[: len(before)], calls]
    joins = JoinRules.model_validate({"limits": limits})
    rules = InputRules(join_on=join_on, double_opt_in=double_opt_in, joins=joins)
    assert _record(db, together, next(_numbers), rules) == _record(
        db, one_by_one, next(_numbers), rules
    )
