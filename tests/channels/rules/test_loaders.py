"""What planning and dispatch read about profiles, and with how many statements."""

from channels.rules.loaders import load_history, load_recipients
from config.database.engine import Database
from config.policy import Policy
from tests.support.counting import statements
from tests.support.shop import House

CAPPED = Policy.model_validate({"caps": [{"channels": "all", "limit": 1, "per": "day"}]})


def test_the_history_is_one_statement(house: House, db: Database) -> None:
    house.open()
    people = [house.customer(), house.customer()]
    with db.transaction() as tx:
        recipients = load_recipients(tx, CAPPED, people)
        with statements(db) as executed:
            assert load_history(tx, CAPPED, recipients, tx.now) == {}
    assert len(executed) == 1


def test_without_caps_no_history_is_read(house: House, db: Database) -> None:
    house.open()
    ann = house.customer()
    with db.transaction() as tx:
        recipients = load_recipients(tx, Policy(), [ann])
        with statements(db) as executed:
            assert load_history(tx, Policy(), recipients, tx.now) == {}
    assert executed == []
