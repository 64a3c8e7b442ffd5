"""The shop that the tests of reports read."""

import pytest

from config.clock.times import DAY
from tests.support.shop import MONDAY, House
from tests.support.worlds.report_rows import SEGMENTS, Rows, trial


@pytest.fixture
def filled(house: House) -> House:
    house.open(
        trial(),
        trial("other"),
        segments=SEGMENTS,
        message_retention=30 * DAY,
        passage_retention=30 * DAY,
        event_retention=30 * DAY,
    )
    with house.db.transaction() as tx:
        Rows(tx, 14).write("trial", "other")
    house.db.now = MONDAY + 48 * DAY
    return house
