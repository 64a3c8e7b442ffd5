"""Fifty people who sign in on one tablet have fifty profiles, through real HTTP calls."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select

from profiles.tables import events, identifiers, profiles
from tests.support.http.receiving import receiving
from tests.support.shop import House

PEOPLE = 50
Call = dict[str, Any]


def visit(person: int, device: str, *, token: bool) -> list[Call]:
    """What a shop's app sends while one person uses the tablet."""
    who, context = {"userId": f"u{person}", "anonymousId": device}, {}
    if token:
        context = {"device": {"token": "tablet", "type": "android"}}
    traits = {"email": f"u{person}@example.com", "phone": f"+4477009{person:05}", "number": person}
    calls: list[Call] = [
        {"type": "page", "anonymousId": device, "name": "Home"},
        {"type": "identify", **who, "traits": traits, "context": context},
        {"type": "track", **who, "event": "bought", "properties": {"by": person}},
        {"type": "identify", **who, "traits": {"seen": True}},
    ]
    return [{**call, "messageId": f"{person} {place}"} for place, call in enumerate(calls)]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("reset", "token"), [(True, False), (False, False), (False, True)])
def test_a_shared_tablet_gives_each_person_a_profile(
    house: House, reset: bool, token: bool, together: bool
) -> None:
    """reset: the app takes a new anonymous id when a person leaves."""
    house.open()
    sessions = [
        visit(person, f"tablet-{person}" if reset else "tablet", token=token)
        for person in range(PEOPLE)
    ]
    with receiving(house.segue) as receiver:
        requests: Sequence[tuple[str, Call]] = [
            (f"/v1/{call['type']}", call) for calls in sessions for call in calls
        ]
        if together:
            every = [call for calls in sessions for call in calls]
            requests = [("/v1/batch", {"batch": every[at : at + 70]}) for at in range(0, 200, 70)]
        for path, body in requests:
            assert receiver.post(path, json=body).status_code == 200
    i = identifiers.c
    with house.db.transaction(write=False) as tx:
        found = select(profiles.c.id, profiles.c.attributes).order_by(profiles.c.id)
        people = {row.id: row.attributes for row in tx.conn.execute(found)}
        assert sorted(one["number"] for one in people.values()) == list(range(PEOPLE))
        assert all(one["seen"] for one in people.values())
        owners = {(row.kind, row.value): row.profile_id for row in tx.conn.execute(select(
            i.kind, i.value, i.profile_id))}  # fmt: skip
        for person in range(PEOPLE):
            user = owners["user_id", f"u{person}"]
            assert people[user]["number"] == person
            assert owners["email", f"u{person}@example.com"] == user
            if reset:
                assert owners["anonymous_id", f"tablet-{person}"] == user
        bought = select(events.c.profile_id, events.c.properties).where(events.c.name == "bought")
        for row in tx.conn.execute(bought):
            assert people[row.profile_id]["number"] == row.properties["by"]
        if token:
            assert owners["push_token", "tablet"] == owners["user_id", f"u{PEOPLE - 1}"]
