"""What went out today, what is due, and why it does not go now."""

from collections import Counter

from config.clock.times import DAY
from config.policy import Policy
from journeys.dsl import Email, Send, Wait
from journeys.explain.today import Today, today
from journeys.operations.control import pause
from tests.support.shop import MONDAY, House, described

POLICY = Policy.model_validate(
    {
        "timezone": "Europe/London",
        "channels": {
            channel: {
                "consent": "opt-in" if channel == "sms" else "opt-out",
                "windows": [{"days": "mon-sun", "from": "09:00", "to": "20:00"}],
            }
            for channel in ("email", "sms")
        },
    }
)


def read(house: House) -> Today:
    with house.db.transaction(write=False) as tx:
        return today(tx, house.segue.catalog.current, "Europe/London")


def test_counts_and_reasons(house: House) -> None:
    hello = described(Send("hello", Email("hello")), Wait("40d"))
    house.open(hello, described(Wait("1d"), name="quiet"), policy=POLICY)
    everywhere = {"Europe/London": 2, "Asia/Tokyo": 3, "America/New_York": 1}
    for zone, number in everywhere.items():
        for _ in range(number):
            house.customer(timezone=zone)
    house.customer(country="US", timezone=None, phone=None)
    house.launch("j")
    # 10:00 in London, where the window is open, 19:00 in Tokyo, 05:00 in New York.
    found = read(house)
    assert [(one.name, one.state, one.people) for one in found.journeys] == [
        ("j", "running", 7),
        ("quiet", "running", 0),
    ]
    assert (found.total("sent"), found.total("day")) == (
        Counter(email=5),
        Counter(email=2),
    )
    assert [(one.channel, one.number, one.why) for one in found.waiting] == [
        (
            "email",
            2,
            "wait: 1 for 9:00 in the customer’s time zone, 1 until sending hours are open in "
            "every time zone of the customer’s country",
        ),
    ]
    pause(house.db, "j")
    found = read(house)
    assert found.journeys[0].state == "paused"
    assert {one.why for one in found.waiting} == {"wait until the journey is resumed"}
    # The next day nothing has been sent yet.
    house.db.now = MONDAY + DAY
    assert read(house).total("sent") == Counter()


def test_what_waits_for_its_offset_is_planned_by_the_journey(house: House) -> None:
    house.open(described(Send("hello", Email("hello", after="3d"))), policy=POLICY)
    house.customer(timezone="Europe/London")
    house.launch("j")
    found = read(house)
    assert (found.total("day").total(), found.total("month")) == (0, Counter(email=1))
    [one] = found.waiting
    assert one.why == "are planned for later, as the journey says"
    assert found.journeys[0].moving == 0


def test_one_clock_needs_no_list(house: House) -> None:
    house.open(described(Send("hello", Email("hello"))), policy=POLICY)
    for zone in ("America/New_York", "America/Chicago"):
        house.customer(timezone=zone)
    house.launch("j")
    [one] = read(house).waiting
    assert (one.number, one.why) == (2, "wait for 9:00 in the customer’s time zone")
