"""The connections of a database."""

from config.database.engine import Database, Tx


def test_the_connection_that_was_used_last_is_taken_first(postgresql_url: str) -> None:
    """It has prepared most statements."""

    def process(tx: Tx) -> int:
        return int(tx.conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

    def one_more() -> int:
        with database.transaction(write=False) as tx:
            return process(tx)

    database = Database(postgresql_url)
    with database.transaction(write=False) as outer, database.transaction(write=False) as inner:
        last, first = process(outer), process(inner)
    assert last != first
    assert [one_more() for _ in range(3)] == [last] * 3
    database.close()
