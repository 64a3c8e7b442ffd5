"""The consent that ticked checkboxes stand for, and the changes that a filled form requests."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from channels.rules.recipient import Situation, StatedConsent, Zones
from config.channels import ChannelName
from config.clock.times import DAY, HOUR
from config.policy import CHANNELS, Policy
from flows.http.pages.choices import boxes, consent_of, nothing_at_all, offered, stopped
from flows.http.pages.form import (
    SHOWN,
    RequestedChanges,
    fields_of,
    hours_offered,
    numbers_offered,
    read_filled,
    requested_changes,
)
from flows.http.pages.preferences_view import notes
from flows.http.pages.texts import texts_in
from flows.http.pages.zone_list import zone_labels, zones_by_region
from profiles.consent.preferences import Changes, Chosen, TopicChanges

ENGLISH = texts_in("en")

# A machine under load may be slow.
however_slow = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TOPICS = {"news": "News", "offers": "Offers", "orders": "Your orders"}


def policy(**channels: Any) -> Policy:
    return Policy.model_validate({"topics": TOPICS, "channels": {"whatsapp": {}, **channels}})


OPT_OUT = policy()
OPT_IN = policy(email={"consent": "opt-in"}, push={"consent": "opt-in"})
NO_TOPICS = Policy.model_validate({"channels": {"whatsapp": {}}})

channels = st.sampled_from(CHANNELS)
said = st.dictionaries(
    st.tuples(channels, st.sampled_from([*TOPICS, "*", "a topic of last year"])), st.booleans()
)
ticked = st.dictionaries(st.tuples(channels, st.sampled_from([*TOPICS])), st.booleans())
policies = st.sampled_from([OPT_OUT, OPT_IN])
a_stop = st.sampled_from([None, True, False])

Said = dict[tuple[ChannelName, str], bool]


def after(said: Said, changes: TopicChanges) -> Said:
    """What is on record once the changes are saved."""
    return {box: yes for box, yes in {**said, **changes}.items() if yes is not None}


def saved(policy: Policy, said: Said, ticked: Said | None = None, stop: bool | None = None) -> Said:
    """What is on record once the form is saved with these boxes changed."""
    return after(
        said, consent_of(policy, said, ticked or {}, {} if stop is None else {"sms": stop})
    )


def texts_stopped(said: Said) -> bool:
    return stopped(said, "sms")


def situation(said: Said) -> Situation:
    consent = StatedConsent.of((channel, topic, yes) for (channel, topic), yes in said.items())
    zones = Zones(("UTC",), "brand")
    return Situation(zones=zones, addresses=frozenset(CHANNELS), consent=consent)


@however_slow
@given(policies, said, ticked, a_stop)
def test_exactly_the_boxes_that_were_ticked_are_ticked_afterwards(
    policy: Policy, said: Said, ticked: Said, stop: bool | None
) -> None:
    now_said = saved(policy, said, ticked, stop)
    is_stopped = texts_stopped(said) if stop is None else stop
    assert texts_stopped(now_said) == is_stopped
    for box, wanted in {**boxes(policy, said), **ticked}.items():
        # What lies beneath a STOP and was not touched may be read anew once it is lifted.
        if not stopped(now_said, box[0]) or box in ticked:
            assert boxes(policy, now_said)[box] == wanted, box


@however_slow
@given(policies, said, ticked, a_stop)
def test_planning_agrees_with_the_checkboxes(
    policy: Policy, said: Said, ticked: Said, stop: bool | None
) -> None:
    now_said = saved(policy, said, ticked, stop)
    somebody = situation(now_said)
    for (channel, topic), wanted in boxes(policy, now_said).items():
        goes = wanted and not stopped(now_said, channel)
        reason = somebody.refusal(policy, channel, "marketing", topic)
        assert reason == (None if goes else "no_consent")
    receipt = somebody.refusal(policy, "sms", "transactional", "orders")
    assert receipt == ("no_consent" if texts_stopped(now_said) else None)


@however_slow
@given(policies, said)
def test_boxes_left_alone_change_nothing(policy: Policy, said: Said) -> None:
    assert consent_of(policy, said, {}) == {}
    assert consent_of(policy, said, boxes(policy, said)) == {}


EVER = (*TOPICS, "a topic of last year", "one of next year")


@however_slow
@given(policies, said, channels)
def test_unticking_the_last_box_of_a_channel_opts_out_of_future_topics(
    policy: Policy, said: Said, channel: ChannelName
) -> None:
    before = {box: yes for box, yes in boxes(policy, said).items() if box[0] == channel}
    now_said = saved(policy, said, dict.fromkeys(before, False))
    if any(before.values()) or stopped(said, channel):
        for topic in EVER:
            why = situation(now_said).refusal(policy, channel, "marketing", topic)
            assert why == "no_consent", topic
    assert texts_stopped(now_said) == texts_stopped(said)


@however_slow
@given(policies, said)
def test_stop_everything_opts_out_of_future_topics(policy: Policy, said: Said) -> None:
    now_said = after(said, nothing_at_all(policy, said))
    for channel in CHANNELS:
        for topic in EVER:
            why = situation(now_said).refusal(policy, channel, "marketing", topic)
            assert why == "no_consent", (channel, topic)
    assert texts_stopped(now_said)
    assert not any(boxes(policy, now_said).values())


@however_slow
@given(policies, said, ticked)
def test_lifting_a_stop_gives_no_consent(policy: Policy, said: Said, ticked: Said) -> None:
    now_said = saved(policy, {**said, ("sms", "*"): False}, ticked, stop=False)
    why = situation(now_said).refusal(policy, "sms", "marketing", "one of next year")
    assert why == "no_consent"
    assert situation(now_said).refusal(policy, "sms", "transactional", "orders") is None


@pytest.mark.parametrize(
    ("before", "change", "stop", "expected"),
    [
        ({}, {("email", "offers"): False}, None, {("email", "offers"): False}),
        ({}, {("sms", "offers"): True}, None, {("sms", "offers"): True}),
        ({("sms", "*"): True}, {}, True, {("sms", "*"): False}),
        # Without the STOP nothing is said of texts, and silence is a no.
        ({("sms", "*"): False, ("sms", "offers"): True}, {}, False, {("sms", "*"): None}),
        (
            {("sms", "*"): False, ("sms", "offers"): True},
            {("sms", "offers"): False, ("sms", "news"): True},
            False,
            {("sms", "*"): None, ("sms", "offers"): False, ("sms", "news"): True},
        ),
        # Beneath a STOP only what was touched.
        ({("sms", "*"): False}, {("sms", "news"): True}, None, {("sms", "news"): True}),
        (
            {("push", "news"): True},
            {("push", topic): False for topic in TOPICS},
            None,
            {("push", "*"): False, ("push", "news"): False},
        ),
        # Nothing ticked is no STOP, which has a box of its own.
        (
            {("sms", "*"): True, ("sms", "a topic of last year"): True},
            {("sms", topic): False for topic in TOPICS},
            None,
            {
                ("sms", "*"): None,
                **{("sms", topic): False for topic in (*TOPICS, "a topic of last year")},
            },
        ),
    ],
)  # fmt: skip
def test_what_is_said(
    before: Said, change: Said, stop: bool | None, expected: TopicChanges
) -> None:
    assert consent_of(OPT_OUT, before, change, {} if stop is None else {"sms": stop}) == expected


without_topics = said.map(
    lambda all_said: {box: yes for box, yes in all_said.items() if box[1] not in TOPICS}
)


@however_slow
@given(without_topics)
def test_without_topics_there_is_one_box_a_channel(said: Said) -> None:
    assert list(boxes(NO_TOPICS, said)) == [(channel, "*") for channel in CHANNELS]
    for wanted in (True, False):
        change = dict.fromkeys(boxes(NO_TOPICS, said), wanted)
        now_said = saved(NO_TOPICS, said, change)
        for channel, _ in change:
            if stopped(said, channel):  # and a tick beside the STOP does not lift it
                change[channel, "*"] = False
        assert boxes(NO_TOPICS, now_said) == change


@however_slow
@given(without_topics, a_stop)
def test_without_topics_only_no_texts_at_all_is_a_stop(said: Said, stop: bool | None) -> None:
    before = boxes(NO_TOPICS, said)
    for wanted in (True, False):
        now_said = saved(NO_TOPICS, said, dict.fromkeys(before, wanted), stop)
        assert texts_stopped(now_said) == (texts_stopped(said) if stop is None else stop)
        somebody = situation(now_said)
        receipt = somebody.refusal(NO_TOPICS, "sms", "transactional", "orders")
        assert receipt == ("no_consent" if texts_stopped(now_said) else None)
        if before["sms", "*"] and not wanted:
            for topic in EVER:
                assert somebody.refusal(NO_TOPICS, "sms", "marketing", topic) == "no_consent"


# The form ----------------------------------------------------------------------------------------

NOBODY = Chosen(
    profile_id=1,
    consent={},
    per_week=None,
    opens=None,
    closes=None,
    timezone=None,
    language=None,
    known_timezone=None,
    known_language=None,
    country=None,
    phone_country=None,
    addresses={},
)
HOURS = {"windows": [{"days": "mon-fri", "from": "09:00", "to": "20:00"}]}
LATE = {"windows": [{"days": "mon-sun", "from": "17:00", "to": "22:00"}]}
SHOP = Policy.model_validate(
    {
        "topics": TOPICS,
        "channels": {"email": HOURS, "sms": HOURS, "push": LATE},
        "caps": [{"channels": "all", "limit": 4, "within": "7d"}],
    }
)
LANGUAGES = {"en": "English", "de": "Deutsch"}


def answered(chosen: Chosen = NOBODY, /, **filled_in: str) -> RequestedChanges:
    fields = fields_of(SHOP, chosen)
    posted = {**fields, **filled_in, **{SHOWN + name: value for name, value in fields.items()}}
    return requested_changes(SHOP, LANGUAGES, chosen, read_filled(posted, fields), ENGLISH)


@pytest.mark.parametrize(
    ("filled_in", "choices"),
    [
        ({"per_week": "2"}, {"per_week": 2}),
        ({"opens": "10:00", "closes": "12:00"}, {"opens": 10 * HOUR, "closes": 12 * HOUR}),
        ({"opens": "18:00"}, {"opens": 18 * HOUR, "closes": DAY}),
        ({"closes": "12:00"}, {"opens": 0, "closes": 12 * HOUR}),
        ({"opens": "19:00", "closes": "10:00"}, {"opens": 19 * HOUR, "closes": 10 * HOUR}),
        ({"opens": "00:00", "closes": "24:00"}, {"opens": None, "closes": None}),
        ({"opens": "09:00", "closes": "00:00"}, {"opens": 9 * HOUR, "closes": DAY}),
        ({"timezone": "Asia/Tokyo"}, {"timezone": "Asia/Tokyo"}),
        ({"language": "de"}, {"language": "de"}),
    ],
)
def test_choices(filled_in: dict[str, str], choices: dict[str, int | str | None]) -> None:
    known = replace(NOBODY, known_timezone="Europe/Rome", known_language="it")
    assert answered(**filled_in) == (Changes(choices=choices), {})
    assert answered(known, **filled_in) == (Changes(choices=choices), {})


def test_a_known_value_can_be_saved_as_a_choice() -> None:
    known = replace(NOBODY, known_timezone="Asia/Tokyo", known_language="de")
    choices = {"timezone": "Asia/Tokyo", "language": "de"}
    assert answered(known, **choices) == (Changes(choices=choices), {})


def test_choices_can_be_removed() -> None:
    chosen = replace(NOBODY, per_week=2, opens=10 * HOUR, closes=12 * HOUR, timezone="Asia/Tokyo")
    empty = {"per_week": "", "opens": "", "closes": "", "timezone": ""}
    assert answered(chosen, **empty) == (Changes(choices=dict.fromkeys(empty)), {})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("per_week", "0", "Choose one from the list"),
        ("per_week", "-1", "Choose one from the list"),
        ("per_week", "²", "Choose one from the list"),
        ("per_week", "1000000", "Choose one from the list"),
        ("opens", "soon", "not a time of day"),
        ("closes", "25:00", "not a time of day"),
        ("opens", "24:00", "later than 24:00"),
        ("timezone", "Mars/Olympus", "do not know this time zone"),
        ("language", "tlh", "do not send messages in this language"),
    ],
)
def test_a_form_with_an_error_saves_nothing(name: str, value: str, words: str) -> None:
    changes, errors = answered(**{name: value, "email.news": ""})
    [(field, text)] = errors.items()
    assert field == ("closes" if value == "24:00" else name)
    assert words in text
    assert changes == Changes()


def test_hours_need_an_end_and_must_overlap_the_policys_windows() -> None:
    assert "later than 10:00" in answered(opens="10:00", closes="10:00").errors["closes"]
    assert "between 09:00 and 22:00" in answered(opens="03:00", closes="05:00").errors["closes"]
    assert answered(opens="21:00", closes="22:00").errors == {}  # by push


def test_an_unchanged_field_is_not_validated() -> None:
    odd = replace(NOBODY, language="<script>", per_week=4711, opens=3 * HOUR, closes=5 * HOUR)
    assert answered(odd, timezone="Asia/Tokyo") == (Changes(choices={"timezone": "Asia/Tokyo"}), {})


def test_a_form_without_what_was_shown_changes_only_what_it_names() -> None:
    chosen = replace(NOBODY, per_week=3, language="de", consent={("sms", "offers"): True})
    answer = read_filled({"opens": "10:00", "sms.news": "on"}, fields_of(SHOP, chosen))
    changes, errors = requested_changes(SHOP, LANGUAGES, chosen, answer, ENGLISH)
    assert errors == {}
    assert changes.consent == {("sms", "news"): True}
    assert changes.choices == {"opens": 10 * HOUR, "closes": DAY}


def test_offered_choices_are_within_the_policys_limits_and_windows() -> None:
    assert numbers_offered(SHOP) == [1, 2, 3]
    assert numbers_offered(Policy()) == [1, 2, 3, 4, 5, 6, 7]
    assert hours_offered(SHOP) == [hour * HOUR for hour in range(9, 22)]
    assert len(hours_offered(Policy())) == 24


def test_a_channel_without_a_window_in_the_chosen_hours_is_named() -> None:
    everywhere: dict[ChannelName, str] = {"email": "a@example.com", "sms": "+44770", "push": "t"}
    morning = replace(NOBODY, opens=9 * HOUR, closes=12 * HOUR, addresses=everywhere)
    [note] = notes(SHOP, morning, ENGLISH)
    assert "You get no notifications in the app at the hours" in note
    assert "17:00 to 22:00" in note
    assert notes(SHOP, replace(morning, addresses={"email": "a@example.com"}), ENGLISH) == []
    evening = replace(morning, opens=21 * HOUR, closes=22 * HOUR)
    assert len(notes(SHOP, evening, ENGLISH)) == 1  # no texts are wanted
    stopped: Said = {("sms", "*"): False, ("sms", "news"): True}
    assert len(notes(SHOP, replace(evening, consent=stopped), ENGLISH)) == 1
    assert len(notes(SHOP, replace(evening, consent={("sms", "news"): True}), ENGLISH)) == 2


def test_every_zone_of_every_country_is_offered_once_and_by_name() -> None:
    offered = [zone for zones in zones_by_region("en").values() for zone in zones]
    assert dict(offered) == zone_labels("en")
    assert len(offered) == len(set(offered)) == len({label for _, label in offered}) > 400
    assert ("Europe/Berlin", "Germany, Berlin") in zones_by_region("en")["Europe"]
    assert ("America/New_York", "United States, New York") in zones_by_region("en")["Americas"]
    assert ("Asia/Tehran", "Iran, Tehran") in zones_by_region("en")["Asia"]
    europe = [label for _, label in zones_by_region("en")["Europe"]]
    assert europe.index("Åland Islands, Mariehamn") < europe.index("Belgium, Brussels")


def test_an_optional_channel_is_shown_where_the_policy_or_the_customer_names_it() -> None:
    usual = ["email", "sms", "push"]
    assert offered(Policy()) == usual
    assert offered(Policy(), {("whatsapp", "news"): True}) == [*usual, "whatsapp"]
    named = Policy.model_validate({"channels": {"whatsapp": {}}})
    assert offered(named) == [*usual, "whatsapp"]
    every = Policy.model_validate({"caps": [{"channels": "all", "limit": 1, "per": "day"}]})
    assert every.caps[0].channels == ("email", "sms", "push", "whatsapp")
    assert offered(every) == usual
    assert ("whatsapp", "*") not in nothing_at_all(Policy(), {})
    assert nothing_at_all(named, {})["whatsapp", "*"] is False


def test_each_channel_with_a_stop_has_a_box_for_it() -> None:
    policy = Policy.model_validate({"channels": {"whatsapp": {}}, "topics": {"news": "News"}})
    said = {("whatsapp", "*"): True, ("sms", "*"): True}
    changes = consent_of(policy, said, {}, {"whatsapp": True})
    assert changes == {("whatsapp", "*"): False}
    now_said = after(said, changes)
    assert (stopped(now_said, "whatsapp"), stopped(now_said, "sms")) == (True, False)
    assert consent_of(policy, now_said, {}, {"whatsapp": False}) == {("whatsapp", "*"): None}
