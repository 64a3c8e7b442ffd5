"""One time line of a customer: events, messages and non-sends, consent with its proof, joins."""

from collections import Counter

from sqlalchemy import insert

from config.clock.times import DAY, HOUR
from config.policy import Policy
from journeys.dsl import SMS, Email, Send
from journeys.explain.timeline import TimeLine, time_line
from profiles.consent.changes import ConsentChange, change_consent
from profiles.tables import merges
from tests.support.shop import MONDAY, House, described

POLICY = Policy.model_validate({"topics": {"news": "News & offers"}})


def read(house: House, profile_id: int, most: int = 50, before: int | None = None) -> TimeLine:
    with house.db.transaction(write=False) as tx:
        return time_line(tx, house.segue.policy, profile_id, most, before)


def test_everything_is_told_in_words(house: House) -> None:
    house.open(described(Send("hello", Email("hello"), SMS("hello"))), policy=POLICY)
    ann, bob = house.customer("ann"), house.customer("bob")
    house.did(ann, "order_completed", MONDAY - DAY, total=12.5, items=[{"sku": "a"}, {"sku": "b"}])
    house.did(ann, "email_opened", MONDAY + HOUR, message_id="1")
    house.did(bob, "email_opened", MONDAY + HOUR, message_id="1")
    no = ConsentChange(
        profile_id=ann,
        channel="sms",
        topic="news",
        granted=False,
        occurred_at=MONDAY - HOUR,
        wording="No texts",
        evidence={"ip": "192.0.2.1"},
        identifier=("phone", "+447700900001"),
    )
    with house.db.transaction() as tx:
        change_consent(tx, [no], "form")
        row = {"from_id": 99, "into_id": ann, "merged_at": MONDAY - 2 * DAY, "why": "alias"}
        tx.conn.execute(insert(merges), {**row, "moved": {}})
    house.launch("j")
    line = read(house, ann)
    assert line.older is None
    told = {one.what: one for one in line.entries}
    opened = told["Opened the e-mail"]
    assert (opened.at, opened.kind) == (MONDAY + HOUR, "event")
    order = told["Order completed"]
    # PostgreSQL does not keep the order of the properties.
    assert dict(order.details) == {"total": "12.5", "items[1].sku": "a", "items[2].sku": "b"}
    mail = told["E-mail sent: j, step hello"]
    assert (mail.kind, mail.tone, list(mail.details)) == (
        "message",
        "ok",
        [("to", "ann@example.com")],
    )
    text = told["SMS not sent: j, step hello"]
    assert text.tone == "warn"
    assert text.why == "The customer has not agreed to news by text messages."
    said = told["Said no to text messages about “News & offers”"]
    assert (said.at, said.tone) == (MONDAY - HOUR, "bad")
    assert list(said.details) == [
        ("source", "form"),
        ("about", "+447700900001"),
        ("wording", "No texts"),
        ("proof: ip", "192.0.2.1"),
    ]
    join = told["Found to be one person with customer 99"]
    assert list(join.details) == [("by", "alias")]
    assert "profile changed" not in str(line).lower()
    assert [one.at for one in line.entries] == sorted((e.at for e in line.entries), reverse=True)
    bobs = Counter(one.kind for one in read(house, bob).entries)
    assert bobs == Counter(event=1, message=2, consent=2)


def test_older_entries_are_on_the_next_pages(house: House) -> None:
    house.open(described(Send("hello", Email("hello"))))
    ann = house.customer("ann", consent={})
    for number in range(7):
        house.did(ann, f"event {number}", MONDAY - number // 2 * HOUR)
    pages, before = [], None
    while True:
        line = read(house, ann, 2, before)
        pages.append([one.what for one in line.entries])
        if line.older is None:
            break
        before = line.older
    assert [sorted(page) for page in pages] == [
        ["Event 0", "Event 1"],
        ["Event 2", "Event 3"],
        ["Event 4", "Event 5"],
        ["Event 6"],
    ]
