"""What remains of a call with a public key."""

from typing import Any

import pytest

from config.policy import ConsentTrait
from profiles.calls.public_calls import as_public
from profiles.calls.segment_calls import CallKind, CallRefused, SegmentCall, read_call
from profiles.identity.person import Person
from profiles.rules import InputRules

NEWS = ConsentTrait(trait="news", value=True, channel="email", topic="news", granted=True)
RULES = InputRules(consent_traits=(NEWS,))


def public(kind: CallKind, *, signed_in: str | None = None, **said: Any) -> SegmentCall:
    """The call with a public key; `signed_in`: the user whom its token names."""

    def fault(user_id: str) -> str | None:
        return None if user_id == signed_in else "no token"

    return as_public(read_call(kind, said, rules=RULES), fault)


def test_an_anonymous_visitor_states_events_and_attributes() -> None:
    said: dict[str, Any] = {
        "anonymousId": "a1",
        "traits": {"plan": "b", "country": "GB", "gone": None},
        "context": {"timezone": "Europe/London", "locale": "en-GB"},
    }
    call = public("identify", **said)
    assert call.person == Person(
        anonymous_id="a1",
        country="GB",
        timezone="Europe/London",
        language="en-GB",
        attributes={"plan": "b", "gone": None},
        by_public_key=True,
    )
    assert call.warnings == ()
    viewed = public("page", anonymousId="a1", context={"page": {"url": "https://shop.example/a"}})
    assert (viewed.event, viewed.properties) == (
        "page_viewed",
        {"url": "https://shop.example/a"},
    )


def test_a_user_id_is_left_out_without_its_token() -> None:
    for signed_in in (None, "u2"):
        call = public("track", anonymousId="a1", userId="u1", event="x", signed_in=signed_in)
        assert call.person == Person(anonymous_id="a1", by_public_key=True)
        assert call.warnings == ("userId is left out: no token",)
    with pytest.raises(CallRefused, match="no token; give anonymousId"):
        public("track", userId="u1", event="x")


def test_a_token_names_the_user_for_events_alone() -> None:
    """The anonymous id stays with its own profile: nothing is joined."""
    said = {"traits": {"plan": "b", "email": "ann@example.com"}, "context": {"locale": "en"}}
    call = public("identify", userId="u1", anonymousId="a1", signed_in="u1", **said)
    assert call.person == Person(user_id="u1", by_public_key=True)
    assert call.warnings == ("traits are left out: those of a known person need a server key",)


def test_addresses_devices_consent_and_groups_are_not_taken() -> None:
    said: dict[str, Any] = {
        "traits": {"email": "Ann@example.com", "phone": "+447700900123", "news": True},
        "context": {"device": {"token": "t1", "type": "android"}},
    }
    call = public("identify", anonymousId="a1", **said)
    assert call.person.keys == [("anonymous_id", "a1")]
    assert (call.person.consent, call.person.verified) == ({}, frozenset())
    assert call.person.attributes == {
        "news": True,
        "unconfirmed_email": "ann@example.com",
        "unconfirmed_phone": "+447700900123",
    }
    assert call.warnings == (
        "context.device.token is left out: it needs a server key",
        "consent is left out: it needs a server key",
    )
    removed = {"email": None, "phone": None, "country": None, "group_id": "g1"}
    assert public("identify", anonymousId="a1", traits=removed).person == Person(
        anonymous_id="a1", removed=frozenset({"country"}), by_public_key=True
    )
    group = public("group", anonymousId="a1", groupId="g1", traits={"plan": "premium"})
    assert group.person == Person(anonymous_id="a1", by_public_key=True)
    assert group.warnings == ("the group is left out: it needs a server key",)


def test_aliases_and_segues_own_events_are_refused() -> None:
    with pytest.raises(CallRefused, match="an alias needs a server key"):
        public("alias", userId="u1", previousId="a1", signed_in="u1")
    for event in (
        *("profile_changed", "email_confirmation_requested", "email_opened", "sms_failed"),
        *("push_failed", "whatsapp_replied"),
    ):
        with pytest.raises(CallRefused, match="an event of Segue's own"):
            public("track", anonymousId="a1", event=event)
    for event in ("push_opened", "sms_clicked", "email_form", "Email Opened"):
        assert public("track", anonymousId="a1", event=event).event == event
