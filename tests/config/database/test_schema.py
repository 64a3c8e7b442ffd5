"""The migrations create the schema that the models describe."""

from pathlib import Path

import pytest
from sqlalchemy import text

from config.database.engine import Database
from config.database.schema import differences, migrate
from config.errors import SegueError


def test_the_migrated_schema_equals_the_models(db: Database) -> None:
    with db.transaction() as tx:
        assert differences(tx.conn) == []


def test_migrating_again_changes_nothing(db: Database) -> None:
    migrate(db)
    with db.transaction() as tx:
        assert differences(tx.conn) == []


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'other.db'}")
    with db.transaction() as tx:
        tx.conn.execute(text("CREATE TABLE theirs (id INTEGER)"))
    with pytest.raises(SegueError, match="has tables that are not Segue's"):
        migrate(db)


def test_a_newer_database_is_left_alone(db: Database) -> None:
    with db.transaction() as tx:
        tx.conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SegueError, match="newer Segue"):
        migrate(db)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "segue.db"
    file.write_bytes(b"SQLite format 3\x00" + b"half a file" * 500)
    with pytest.raises(SegueError, match=r"segue\.db"):
        migrate(Database(f"sqlite:///{file}"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@127.0.0.1:port/segue",
        "postgresql://me:sec@ret@127.0.0.1:1/segue",
        "postgresql+psycopg://127.0.0.1:1/segue?user=me&password=secret",
        "me:secret@127.0.0.1/segue",
    ],
)
def test_a_password_is_masked_everywhere_in_a_url(url: str) -> None:
    with pytest.raises(SegueError) as caught:
        migrate(Database(url))
    assert "127.0.0.1" in str(caught.value)
    assert "ret" not in str(caught.value)
    # nor in the error that is shown with it
    error = caught.value
    shown = error.__cause__ if error.__suppress_context__ else error.__context__
    assert "ret" not in str(shown)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    db = Database("postgresql+psycopg://me:secret@127.0.0.1:1/segue")
    with pytest.raises(SegueError, match="can't be reached") as caught:
        migrate(db)
    assert "secret" not in str(caught.value)
