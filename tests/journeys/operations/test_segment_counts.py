"""The people in each segment, counted once a day of the brand."""

from config.clock.zones import zone
from journeys.dsl import Segment, attribute
from journeys.operations.nightly import Nightly
from journeys.operations.segment_counts import DayCount, count_segments, latest_counts
from tests.support.shop import House

RICH = Segment("rich", "Spent a lot", attribute("ltv") > 200)


def days(house: House, segment: str = "rich", most: int = 9) -> list[DayCount]:
    with house.db.transaction(write=False) as tx:
        return latest_counts(tx, segment, most)


def test_a_segment_is_counted_once_a_day_of_the_brand(house: House) -> None:
    house.open(segments={"rich": RICH})
    tokyo = zone("Asia/Tokyo")
    house.customer(attributes={"ltv": 300})
    assert count_segments(house.db, [RICH], tokyo) == 1
    house.customer(attributes={"ltv": 300})
    house.later("4h")  # 23:00 in Tokyo
    assert count_segments(house.db, [RICH], tokyo) == 0
    house.later("1h")
    assert count_segments(house.db, [RICH], tokyo) == 1
    assert days(house) == [DayCount("2026-03-03", 2), DayCount("2026-03-02", 1)]
    assert days(house, most=1) == [DayCount("2026-03-03", 2)]


def test_a_new_segment_is_counted_on_its_first_day(house: House) -> None:
    house.open()
    every = house.segue.catalog.segment("everyone")
    assert count_segments(house.db, [every], zone("UTC")) == 1
    assert count_segments(house.db, [every, RICH], zone("UTC")) == 1


def test_a_night_counts(house: House) -> None:
    segue = house.open(segments={"rich": RICH})
    house.customer(attributes={"ltv": 300})
    Nightly(segue.engine).work(lambda: True)
    assert days(house) == [], "it was stopped"
    Nightly(segue.engine).work()
    assert days(house) == [DayCount("2026-03-02", 1)]
