"""The pages about journeys: steps in words, control, and messages as customers get them."""

import re
from datetime import timedelta
from urllib.parse import urlencode

import httpx
import pytest

from channels.links import read_unsubscribe
from config.access.staff_acts import record_act
from journeys.dsl import (
    SMS,
    Call,
    Email,
    Enter,
    Exit,
    Experiment,
    Goal,
    OnEvent,
    Push,
    Send,
    Split,
    Update,
    Wait,
    WaitUntil,
    arm,
    attribute,
    days,
    did,
    when,
)
from journeys.operations.control import held
from tests.support.http.staff import URL, Staff, words_of
from tests.support.shop import House, described

TEXTS = {
    "cart.email.html": "Subject: Your {{ event.product }}\n\n<p style='color: red'>Dear "
    "{{ profile.first_name | default: 'you' }}</p><a href='{{ links.unsubscribe }}'>stop</a>",
    "cart.sms.txt": "{{ event.product }} waits",
    "cart.push.txt": "Title: Cart\n\nIt waits",
}
EVERYTHING = described(
    Send("nudge", Push("cart"), Email("cart"), mode="first", fallback_after="2h", unless="clicked"),
    WaitUntil("came back", did("cart_viewed"), timeout=days(1), then=[Exit("bought")]),
    Wait(time="09:30", days="mon"),
    Wait(date="birthday", before=days(2), missing=[Wait("3h")]),
    Experiment(
        "which",
        arm("short", 1, [Send("text", SMS("cart", after="10m"))]),
        arm("none", 3, []),
        holdout=20,
    ),
    Split("rich?", when(attribute("ltv") > 200, [Send("mail", Email("cart", on_cap="defer"))])),
    Update("mark", lapsed=True),
    Call("crm", "https://crm.example/x"),
    Enter("next", "other"),
    name="carts",
    entry=OnEvent("cart_abandoned", key="cart_id", again=days(7)),
    goal=Goal(did=did("order_completed"), within=timedelta(days=5)),
    exit_when=did("order_completed"),
)


def opened(house: House, role: str) -> Staff:
    house.open(EVERYTHING, described(Wait("1d"), name="other"), texts=TEXTS, staff_url=URL)
    return Staff(house, role)


def test_a_journey_in_words(house: House) -> None:
    staff = opened(house, "viewer")
    for _ in range(3):
        house.did(house.customer(), "cart_abandoned", cart_id="7", product="lamp")
    house.run()
    listed = staff.read("/journeys")
    assert "carts running event cart_abandoned 3 3 3 0" in listed
    page = staff.read("/journeys/carts")
    for words in (
        "carts running",
        "who enters event cart_abandoned, each cart_id apart how often again after 7 days",
        "leaves at once did order_completed",
        "goal did order_completed, within 5 days after entry topic news",
        "nudge Send: the first message that can be sent; the next one after 2 hours, unless",
        "Push “cart” : 3 sent",
        "came back Wait until: did cart_viewed; for 1 day at most",
        "↳ it happened",
        "bought Leave",
        "↳ not within 1 day goes on",
        "until Monday 9:30 in the customer’s time zone",
        "until 2 days before the date birthday",
        "↳ the date is not known",
        "↳ short: 20 %",
        "SMS “cart” , 10 minutes later",
        "↳ none: 60 % goes on",
        "↳ no arm: 20 % goes on",
        "↳ otherwise goes on",
        "waits if a frequency cap is full",
        "lapsed = True",
        "crm.example, 3 attempts at most",
        "Enter another journey: other",
        "3 people are here , 0 went on",
        "Version Since People in it",
        "It was never launched",
    ):
        assert words in page, words
    assert "Pause" not in page
    svg = staff.get("/journeys/carts").text.partition("<svg")[2].partition("</svg>")[0]
    for drawn in ("event cart_abandoned", "3 entered", "3 people are here", "not within 1 day"):
        assert f">{drawn}</text>" in svg, drawn
    assert "/message?step=nudge&amp;member=push%3Acart" in svg
    assert "/experiment?step=which" in svg
    there = staff.read("/journeys/carts/people?step=nudge")
    assert there.count("…\u2060@example.com") == 3
    assert "Nobody is there now" in staff.read("/journeys/carts/people?step=mark")
    assert staff.get("/journeys/nothing").status_code == 400
    assert staff.get("/journeys/carts/stop").status_code == 403


def test_an_editor_pauses_resumes_and_stops(house: House) -> None:
    staff = opened(house, "editor")
    house.did(house.customer(), "cart_abandoned", cart_id="7", product="lamp")
    house.run()

    def state() -> str:
        with house.db.transaction(write=False) as tx:
            return held(tx).get("carts", "running")

    def act(action: str) -> str:
        answer = staff.post("/journeys/carts/control", {"action": action})
        assert answer.status_code in (200, 303)
        return words_of(answer.text) if answer.status_code == 200 else ""

    assert "carts is paused: 1 active enrollments wait" in act("pause")
    assert state() == "paused"
    assert act("pause") == "", "a form that is sent twice does nothing"
    page = staff.read("/journeys/carts")
    assert "nothing moves and nothing is sent" in page
    assert "Resume" in page
    act("resume")
    assert state() == "running"
    assert "1 person leaves the journey at once" in staff.read("/journeys/carts/stop")
    assert "have ended" in act("stop")
    assert state() == "stopped"
    assert "In it now 0" in staff.read("/journeys/carts")
    assert staff.post("/journeys/carts/control", {"action": "burn"}).status_code == 400
    act("resume")

    # Everything at once, from the first page.
    assert "2 journeys run: carts, other" in staff.read("/stop")
    assert "Every journey is paused" in words_of(staff.post("/stop", {"action": "pause"}).text)
    assert "No journey runs" in staff.read("/stop")
    assert "carts is paused" in staff.read("/")
    acts = [(one.act, one.about) for one in reversed(staff.acts())]
    assert acts == [
        ("paused", "carts"),
        ("resumed", "carts"),
        ("stopped", "carts"),
        ("resumed", "carts"),
        ("paused", "carts"),
        ("paused", "other"),
    ]


def test_a_message_as_a_customer_gets_it(house: House) -> None:
    staff = opened(house, "viewer")
    ann = house.customer("ann", attributes={"first_name": "<i>Ann</i>"})
    bob = house.customer("bob", phone=None)
    mail = "/journeys/carts/message?step=mail&member=email%3Acart"
    assert "Nobody has entered this journey yet" in staff.read(mail)
    house.did(ann, "cart_abandoned", cart_id="7", product="lamp")
    house.run()
    assert f"person={ann}" in staff.get(mail).text
    assert staff.acts() == []
    chosen = {"person": "ANN@example.com", "width": "phone"}
    answer = staff.post(mail, chosen, page=mail)
    assert answer.headers["location"] == f"{mail}&person={ann}&width=phone"
    page = staff.get(answer.headers["location"])
    assert "subject Your lamp" in words_of(page.text)
    [frame] = re.findall('<iframe class="message phone" src="([^"]*)"', page.text)
    bare = staff.get(frame.replace("&amp;", "&"))
    assert "&lt;i&gt;Ann&lt;/i&gt;" in bare.text
    policy = bare.headers["content-security-policy"]
    assert policy.endswith("frame-ancestors 'self'; sandbox")
    assert "script" not in policy
    [link] = re.findall("/u/([^'\"]*)", bare.text)
    assert read_unsubscribe(house.segue.settings, link) is None, "the link does nothing"
    looks = [(one.act, one.profile_id, one.about) for one in staff.acts()]
    assert looks == [("previewed a message", ann, "carts, step mail")] * 2, "the mail as well"

    text = "/journeys/carts/message?step=text&member=sms%3Acart"
    assert "body lamp waits" in staff.read(f"{text}&person={ann}")
    missing = staff.read(f"{text}&person={bob}")
    assert "was never in the journey" in missing
    assert "The template prints event.product, which has no value" in missing
    assert staff.post(text, {"person": f"#{bob}"}, page=text).status_code == 303
    for person in ("zoe", "#999", "#x", "undefined", ""):
        assert 'role="alert"' in staff.post(text, {"person": person}, page=text).text
    assert "As this customer would get it" in staff.read(f"{text}&person=999")
    assert staff.get("/journeys/carts/message?step=text&member=x").status_code == 400
    assert staff.get("/journeys/carts/mail?step=text&member=sms%3Acart").status_code == 404


@pytest.mark.parametrize("path", ["/journeys/x'><script>", "/journeys/%00"])
def test_an_odd_name_is_no_journey(sqlite_house: House, path: str) -> None:
    staff = opened(sqlite_house, "viewer")
    answer = staff.get(path)
    assert answer.status_code == 400
    assert "<script>" not in answer.text


ME, PHONE = "me@shop.example", "+447700900009"
TESTERS = {"email": (ME,), "sms": (PHONE,), "push": ("ios:token-of-mine", "nokia:3310")}


def message(step: str, member: str, person: int, what: str = "message") -> str:
    query = {"step": step, "member": member, "person": person}
    return f"/journeys/carts/{what}?{urlencode(query)}"


def test_a_test_goes_to_a_tester_and_counts_nowhere(house: House) -> None:
    house.open(EVERYTHING, texts=TEXTS, staff_url=URL, testers=TESTERS)
    ann = house.customer("ann", consent={("email", "*"): False})
    house.did(ann, "cart_abandoned", cart_id="c1", product="A <kettle>")
    house.run()
    sent, rows = list(house.providers.accepted), house.rows()
    staff = Staff(house, "editor")
    page = message("mail", "email:cart", ann)
    assert ME in staff.read(page)

    def send(step: str, member: str, to: str) -> str:
        with house.providers.listening():
            done = staff.post(message(step, member, ann, "test"), {"to": to}, page=page)
        return words_of(done.text)

    assert "The provider has accepted it." in send("mail", "email:cart", ME)
    [test] = house.providers.accepted[len(sent) :]
    assert (test.channel, test.to) == ("email", ME)
    assert test.text == "[Test] Your A <kettle>"
    assert "has accepted it" in send("text", "sms:cart", PHONE)
    house.providers.answer("push", httpx.Response(400, json={"error": {"message": "bad"}}))
    refused = send("nudge", "push:cart", "ios:token-of-mine")
    assert "The test is not sent The provider has refused it: " in refused
    assert [one.to for one in house.providers.accepted[len(sent) :]] == [
        ME,
        PHONE,
    ]
    assert house.rows() == rows, "no message, no cap, no report"
    acts = [one for one in staff.acts() if one.act == "sent a test"]
    assert [(one.profile_id, one.about) for one in acts] == [
        (ann, "carts, step nudge"),
        (ann, "carts, step text"),
        (ann, "carts, step mail"),
    ]


def test_tests_are_limited_by_hour_and_user(sqlite_house: House) -> None:
    house = sqlite_house
    house.open(EVERYTHING, texts=TEXTS, staff_url=URL, testers=TESTERS)
    ann = house.customer("ann")
    house.did(ann, "cart_abandoned", cart_id="c1", product="A kettle")
    house.run()
    already = len(house.providers.accepted)
    with house.db.transaction() as tx:
        for _ in range(60):
            record_act(tx, "zoe", "sent a test", about="carts, step mail")

    def send(staff: Staff) -> httpx.Response:
        with house.providers.listening():
            return staff.post(message("mail", "email:cart", ann, "test"), {"to": ME})

    zoe, amy = Staff(house, "editor"), Staff(house, "editor", "amy")
    refused = send(zoe)
    assert refused.status_code == 400
    assert "you have sent 60 tests in an hour; try again later" in words_of(refused.text).lower()
    assert len(house.providers.accepted) == already
    assert "The test is sent" in words_of(send(amy).text)
    house.later("61m")
    assert "The test is sent" in words_of(send(zoe).text)


@pytest.mark.parametrize(
    ("step", "member", "to", "why"),
    [
        ("mail", "email:cart", "ann@example.com", "is no tester of e-mail"),
        ("mail", "email:cart", "", "is no tester"),
        ("text", "sms:cart", ME, "is no tester of text messages"),
        ("nudge", "push:cart", "nokia:3310", "such as ios:TOKEN"),
    ],
)
def test_nobody_else_gets_a_test(
    sqlite_house: House, step: str, member: str, to: str, why: str
) -> None:
    house = sqlite_house
    house.open(EVERYTHING, texts=TEXTS, staff_url=URL, testers=TESTERS)
    ann = house.customer("ann")
    house.did(ann, "cart_abandoned", cart_id="c1", product="A kettle")
    staff = Staff(house, "editor")
    answer = staff.post(message(step, member, ann, "test"), {"to": to})
    assert answer.status_code == 400
    assert why in words_of(answer.text)
    viewer = Staff(house, "viewer", "vic")
    assert viewer.post(message(step, member, ann, "test"), {"to": to}).status_code == 403
    assert house.providers.accepted == []


def test_an_unknown_channel_of_testers_is_named(sqlite_house: House) -> None:
    sqlite_house.open(EVERYTHING, texts=TEXTS, staff_url=URL, testers={"mail": (ME,)})
    ann = sqlite_house.customer("ann")
    answer = Staff(sqlite_house, "editor").get(message("mail", "email:cart", ann))
    assert answer.status_code == 400
    assert "SEGUE_TESTERS names 'mail', which is no channel" in words_of(answer.text)


def test_a_message_that_lacks_data_is_no_test(sqlite_house: House) -> None:
    house = sqlite_house
    house.open(EVERYTHING, texts=TEXTS, staff_url=URL, testers=TESTERS)
    ann = house.customer("ann")
    answer = Staff(house, "editor").post(message("mail", "email:cart", ann, "test"), {"to": ME})
    assert "can't be sent as a test: The template prints event.product" in words_of(answer.text)
    assert answer.status_code == 400
    assert house.providers.accepted == []


def test_the_graph_counts_who_takes_each_edge_and_who_converts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = described(
        WaitUntil("came back", did("cart_viewed"), timeout=days(1), then=[Exit("here again")]),
        Wait("3d"),
        goal=Goal(did=did("order_completed"), within=days(9)),
    )
    house.open(asked, staff_url=URL)
    people = [house.customer() for _ in range(4)]
    house.launch("j")
    house.later("1m")
    house.did(people[0], "cart_viewed")
    house.later("2d")
    house.did(people[1], "order_completed")
    house.run()
    staff = Staff(house)
    page = staff.read("/journeys/j")
    assert "1 (25 %) 0.0 % converted" in page
    assert "3 (75 %) 33.3 % converted" in page
    assert "↳ not within 1 day (3, 75 %; 33.3 % converted)" in page
    monkeypatch.setattr("flows.http.staff.journeys.journey.is_large", lambda *_: True)
    page = staff.read("/journeys/j")
    assert "33.3 % converted" not in page
    assert "more than 100,000 messages, so only its report counts who reached the goal" in page
