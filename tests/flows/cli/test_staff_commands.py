"""`segue staff`: users are added, listed and removed, and the log says so."""

import re

import orjson
import pytest
from typer.testing import CliRunner, Result

from config.access.staff_acts import COMMAND_LINE, latest_acts
from config.access.staff_sessions import session_user, start_session
from config.access.staff_users import knows_password, stored_hash
from config.errors import SegueError
from flows.cli.main import app
from tests.support.shop import House


def staff(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(app, ["staff", *arguments], input=said)


@pytest.fixture(autouse=True)
def _database(sqlite_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_DATABASE_URL", sqlite_house.db.url)
    monkeypatch.setenv("COLUMNS", "200")


def test_users_are_added_and_removed(sqlite_house: House) -> None:
    added = staff("add", "Zoe", "--role", "editor")
    assert added.exit_code == 0, added.output
    password = re.findall("one-time password: (\\S+)\n", added.stdout)[0]
    db = sqlite_house.db
    with db.transaction() as tx:
        assert knows_password(stored_hash(tx, "zoe"), {"password": password})
        session = start_session(tx, "zoe")
    typed = "a long password\n"
    chosen = staff("password", "zoe", "--ask", said=typed * 2)
    assert "the password is set" in chosen.stdout
    assert typed.strip() not in chosen.stdout
    with db.transaction() as tx:
        assert session_user(tx, session) is None
        assert knows_password(stored_hash(tx, "zoe"), {"password": typed.strip()})
    [listed] = orjson.loads(staff("list", "--json").stdout)["users"]
    assert (listed["name"], listed["role"]) == ("zoe", "editor")
    assert "editor" in staff("list").stdout
    assert "Zoe is admin now" in staff("role", "Zoe", "admin").stdout
    assert orjson.loads(staff("list", "--json").stdout)["users"][0]["role"] == "admin"
    assert "zoe sees times in Asia/Tokyo" in staff("timezone", "zoe", "Asia/Tokyo").stdout
    assert orjson.loads(staff("list", "--json").stdout)["users"][0]["timezone"] == "Asia/Tokyo"
    unknown = staff("timezone", "zoe", "Tokyo")
    assert "'Tokyo' is not a time zone" in str(unknown.exception)
    assert "that of the policy" in staff("timezone", "--help").stdout
    staff("timezone", "zoe", "policy")
    assert orjson.loads(staff("list", "--json").stdout)["users"][0]["timezone"] is None
    assert "zoe is removed" in staff("remove", "zoe").stdout
    assert orjson.loads(staff("list", "--json").stdout) == {"users": []}
    with db.transaction() as tx:
        acts = [(one.name, one.act, one.about) for one in latest_acts(tx, 9)]
    assert acts == [
        (COMMAND_LINE, "removed a user", "zoe"),
        (COMMAND_LINE, "set a time zone", "zoe, policy"),
        (COMMAND_LINE, "set a time zone", "zoe, Asia/Tokyo"),
        (COMMAND_LINE, "changed a role", "zoe, admin"),
        (COMMAND_LINE, "set a password", "zoe"),
        (COMMAND_LINE, "added a user", "zoe, editor"),
    ]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("add", "zoe", "--role", "owner"), "is not a role"),
        (("remove", "nobody"), "there is no user"),
        (("role", "nobody", "viewer"), "there is no user"),
        (("role", "nobody", "owner"), "is not a role"),
        (("password", "nobody"), "there is no user"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], why: str) -> None:
    error = staff(*arguments).exception
    assert isinstance(error, SegueError)
    assert why in str(error)
