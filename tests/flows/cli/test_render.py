"""`segue render`: a message as one customer would get it, or what is missing."""

import orjson

from journeys.dsl import SMS, Email, OnEvent, Send
from tests.support.commands import Segue
from tests.support.shop import TEXTS, House, described

GREETING = {
    **TEXTS,
    "hello.email.html": "Subject: For {{ profile.first_name }}\n\n<p>Your {{ event.item }}</p>",
}


def test_a_message_is_rendered_with_the_latest_entry(house: House, segue: Segue) -> None:
    step = Send("s", Email("hello"), SMS("hello", after="1h"))
    house.open(described(step, entry=OnEvent("bought")), texts=GREETING)
    ann = house.customer("ann", attributes={"first_name": "Ann"})
    house.did(ann, "bought", item="lamp")
    house.advance()
    house.run()
    before = house.rows()

    said = segue("render", "j", "s", "--for", "ann@example.com")
    assert said.status == 0
    lines = [line.strip() for line in said.out.splitlines()]
    assert lines[:3] == ["email “hello”", "subject:", "For Ann"]
    assert "Your lamp" in lines
    assert "sms “hello”" in lines
    assert "<p>" not in said.out

    answer = orjson.loads(segue("render", "j", "s", "--for", "ann", "--json").out)
    assert (answer["journey"], answer["step"]) == ("j", "s")
    email, sms = answer["messages"]
    assert (email["channel"], email["template"], email["missing"]) == ("email", "hello", None)
    assert email["content"]["subject"] == "For Ann"
    assert "<p>Your lamp</p>" in email["content"]["html"]
    assert sms["content"]["body"] == "hello"
    assert house.rows() == before, "nothing is planned or sent"


def test_what_is_missing_is_named(house: House, segue: Segue) -> None:
    house.open(described(Send("s", Email("hello")), entry=OnEvent("bought")), texts=GREETING)
    house.customer("bob", attributes={"first_name": "Bob"})
    said = segue("render", "j", "s", "--for", "bob")
    assert said.status == 1
    assert "It can't be rendered." in said.out
    assert "event" in said.out
    assert "the customer was never in the journey" in said.out
    said = segue("render", "j", "s", "--for", "bob", "--json")
    assert said.status == 1
    [email] = orjson.loads(said.out)["messages"]
    assert email["content"] is None
    assert email["never_in_the_journey"] is True
    assert "event" in email["missing"]


def test_an_unknown_step_or_customer_is_an_error(house: House, segue: Segue) -> None:
    house.open(described(Send("s", Email("hello"))))
    house.customer("bob")
    assert "j has no step 't' that sends; those that do are: s" in (
        segue("render", "j", "t", "--for", "bob").err
    )
    assert "no customer has the identifier 'eve'" in segue("render", "j", "s", "--for", "eve").err
    assert segue("render", "k", "s", "--for", "bob").status == 1
