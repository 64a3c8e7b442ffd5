"""Identity resolution: which identifiers are joined, and which are kept apart."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.channels import ChannelName
from profiles.calls.resolve import Joined, OnRecord, join
from profiles.calls.segment_calls import CallKind, SegmentCall, read_call
from profiles.identity.mergers import Merger, UsableParts
from profiles.identity.person import Key


def call(kind: CallKind = "track", **said: Any) -> SegmentCall:
    return read_call(kind, {"event": "x", "traits": {}, **said})


def token(value: str, **said: Any) -> SegmentCall:
    return call(context={"device": {"token": value, "type": "ios"}}, **said)


ANON, ANN, BOB = 1, 2, 3
OWNERS: dict[Key, int] = {
    ("anonymous_id", "a1"): ANON,
    ("user_id", "ann"): ANN,
    ("email", "ann@example.com"): ANN,
    ("anonymous_id", "a-of-ann"): ANN,
    ("push_token", "t-of-ann"): ANN,
    ("user_id", "bob"): BOB,
}
USERS = {ANN, BOB}
# Numbers of profiles that `join` has made.
NEW = 100


def read(calls: Sequence[SegmentCall], owners: Mapping[Key, int], **known: Any) -> Joined:
    """Join the calls where the profiles have no addresses but those in `owners`, all in use."""
    addresses: dict[int, dict[Key, bool]] = {}
    for key, owner in owners.items():
        if key[0] in ("email", "phone", "push_token"):
            addresses.setdefault(owner, {})[key] = True
    join_on = known.pop("join_on", "any")
    named = {key: owners[key] for one in calls for key in one.keys if key in owners}
    counting: dict[int, Counter[str]] = defaultdict(Counter)
    for key, owner in owners.items():
        counting[owner][key[0]] += 1
    stored = {"users": USERS, "addresses": addresses, "counting": counting, **known}
    on_record = OnRecord(owners=named, **stored)
    return join(dict(enumerate(calls)), on_record, join_on, count(NEW).__next__)


def joined(*calls: SegmentCall, **known: Any) -> Joined:
    return read(calls, OWNERS, **known)


def share(
    *addresses: Key, yes_on: Sequence[ChannelName] = (), verified: bool = False
) -> UsableParts:
    return UsableParts(frozenset(addresses), frozenset(yes_on), verified)


EMAIL: Key = ("email", "ann@example.com")


def test_an_anonymous_person_who_signs_in_is_the_customer() -> None:
    found = joined(call("identify", userId="ann", anonymousId="a1"))
    assert found.mergers == [Merger(from_id=ANON, into_id=ANN, why="identify")]
    assert found.foreign == {}


def test_an_anonymous_person_who_gives_a_known_address_is_that_customer() -> None:
    found = joined(call("identify", anonymousId="a1", traits={"email": "ann@example.com"}))
    assert found.mergers == [Merger(from_id=ANON, into_id=ANN, why="identify", share=share(EMAIL))]


def test_two_customers_are_not_joined() -> None:
    found = joined(call("identify", userId="bob", anonymousId="a-of-ann"))
    assert found.mergers == []
    assert found.foreign == {0: {("anonymous_id", "a-of-ann")}}


def test_a_call_counts_without_the_anonymous_id_of_another_customer() -> None:
    other: dict[Key, int] = {("email", "c@example.com"): ANON}
    said = call("identify", userId="bob", anonymousId="a-of-ann", traits={"email": "c@example.com"})
    found = read([said], OWNERS | other)
    theirs = share(("email", "c@example.com"), yes_on=["email"])
    assert found.mergers == [Merger(from_id=ANON, into_id=BOB, why="identify", share=theirs)]
    assert found.foreign == {0: {("anonymous_id", "a-of-ann")}}


def test_the_address_of_another_customer_stays_with_them() -> None:
    found = joined(call("identify", userId="bob", traits={"email": "ann@example.com"}))
    assert found.mergers == []
    assert found.foreign == {0: {("email", "ann@example.com")}}


def test_an_alias_joins_two_customers() -> None:
    found = joined(call("alias", userId="bob", previousId="ann"))
    assert found.mergers == [Merger(from_id=ANN, into_id=BOB, why="alias")]


def test_an_alias_to_a_new_id_keeps_the_profile() -> None:
    found = joined(call("alias", userId="ann-2", previousId="ann"))
    assert found.mergers == []
    assert found.people == [{("user_id", "ann"), ("user_id", "ann-2")}]


def test_an_alias_refers_to_the_customer_of_an_earlier_call() -> None:
    found = joined(call(userId="cyd"), call("alias", userId="dan", previousId="cyd"))
    assert found.people == [{("user_id", "cyd"), ("user_id", "dan")}]


def test_an_alias_of_an_unknown_id_takes_it_for_an_anonymous_one() -> None:
    found = joined(call("alias", userId="ann", previousId="new"))
    assert found.people == [{("user_id", "ann"), ("anonymous_id", "new")}]


def test_the_first_of_two_to_sign_in_with_an_anonymous_id_keeps_it() -> None:
    found = joined(call(userId="ann", anonymousId="a1"), call(userId="bob", anonymousId="a1"))
    assert found.mergers == [Merger(from_id=ANON, into_id=ANN, why="track")]
    assert found.foreign == {1: {("anonymous_id", "a1")}}


def test_new_identifiers_join_in_any_order() -> None:
    calls = [
        call(anonymousId="n1"),
        call(anonymousId="n2"),
        call("identify", userId="new", anonymousId="n1"),
        call("identify", userId="new", anonymousId="n2"),
    ]
    found = joined(*calls)
    assert found.mergers == []
    assert found.people == [{("anonymous_id", "n1"), ("anonymous_id", "n2"), ("user_id", "new")}]


def test_a_push_token_moves_with_the_device() -> None:
    found = joined(token("t-of-ann", userId="bob"))
    assert found.mergers == []
    assert found.released == {("push_token", "t-of-ann")}
    assert found.foreign == {}


def test_a_call_waits_for_the_writes_to_the_other_profile() -> None:
    found = joined(token("t-of-ann", userId="ann"), token("t-of-ann", userId="bob"))
    assert found.stopped_at == 1
    assert (found.mergers, found.released, found.foreign) == ([], set(), {})
    found = joined(
        call("identify", anonymousId="a1", traits={"plan": "a"}),
        call("identify", userId="ann", anonymousId="a1"),
    )
    assert found.stopped_at == 1
    # events tell nothing of the profile
    found = joined(call(anonymousId="a1"), call("identify", userId="ann", anonymousId="a1"))
    assert found.stopped_at is None
    assert found.mergers == [Merger(from_id=ANON, into_id=ANN, why="identify")]


@pytest.mark.parametrize(("size", "stays"), [(21, BOB), (22, ANN)])
def test_of_two_customers_in_an_alias_a_much_larger_one_stays(size: int, stays: int) -> None:
    found = joined(call("alias", userId="bob", previousId="ann"), sizes={ANN: size, BOB: 1})
    [merger] = found.mergers
    assert merger.into_id == stays


def test_an_anonymous_profile_of_a_device_joins_the_customer_who_states_it() -> None:
    owners: dict[Key, int] = {("push_token", "t1"): ANON, ("user_id", "ann"): ANN}
    found = read([token("t1", userId="ann")], owners)
    theirs = share(("push_token", "t1"), yes_on=["push"])
    assert found.mergers == [Merger(from_id=ANON, into_id=ANN, why="track", share=theirs)]


IDS = st.sampled_from(["1", "2", "3"])
CALLS = st.lists(
    st.one_of(
        st.builds(lambda u, a: call(userId=u, anonymousId=a), IDS, st.none() | IDS),
        st.builds(
            lambda u, a, e: call(
                "identify", userId=u, anonymousId=a, traits={"email": f"{e}@example.com"}
            ),
            st.none() | IDS,
            IDS,
            IDS,
        ),
        st.builds(lambda u, p: call("alias", userId=u, previousId=p), IDS, IDS),
        st.builds(lambda u, t: token(t, userId=u), IDS, IDS),
    ),
    min_size=1,
    max_size=8,
)
KINDS = st.sampled_from(["user_id", "anonymous_id", "email", "push_token"])


@given(CALLS, st.data())
def test_no_profile_is_split_and_no_two_customers_are_joined(
    calls: list[SegmentCall], data: st.DataObject
) -> None:
    keys = sorted({key for one in calls for key in one.keys})
    owners = {
        key: owner
        for key in keys
        if (owner := data.draw(st.none() | st.integers(1, 4), label=str(key))) is not None
    }
    users = {owner for (kind, _), owner in owners.items() if kind == "user_id"}
    found = read(calls, owners, users=users)

    going = [merger.from_id for merger in found.mergers]
    assert len(set(going)) == len(going)
    assert not set(going) & {merger.into_id for merger in found.mergers}
    now = {merger.from_id: merger.into_id for merger in found.mergers}

    def owner_of(key: Key) -> int | None:
        if key in found.released or key not in owners:
            return None
        return now.get(owners[key], owners[key])

    for group in found.people:
        assert len({owner_of(key) for key in group} - {None}) <= 1
    for place, one in enumerate(calls[: found.stopped_at]):
        if place in found.events_only:
            continue  # only its anonymous id counts
        named = set(one.keys) - found.foreign.get(place, set())
        assert len({owner_of(key) for key in named} - {None}) <= 1 or one.kind == "alias"
    if not any(one.kind == "alias" for one in calls):
        for merger in found.mergers:
            assert merger.from_id not in users
