"""`segue keys`: what the commands print, and that the keys work."""

import orjson
import pytest
from typer.testing import CliRunner, Result

from config.access.api_keys import digest_of, live_keys
from config.errors import SegueError
from flows.cli.main import app
from tests.support.shop import House


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


@pytest.fixture(autouse=True)
def _database(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_DATABASE_URL", house.db.url)
    monkeypatch.setenv("COLUMNS", "200")


def test_keys_are_made_listed_and_revoked(house: House) -> None:
    made = keys("make", "web", "--public", "--origin", "https://shop.example", "--json")
    assert made.exit_code == 0, made.output
    said = orjson.loads(made.stdout)
    assert set(said) == {"key"}
    key = said["key"]
    server = keys("make", "crm").stdout.strip()
    with house.db.transaction() as tx:
        found = {digest: one.label for digest, one in live_keys(tx).items()}
    assert found == {digest_of(key): "web", digest_of(server): "crm"}

    listed = orjson.loads(keys("list", "--json").stdout)["keys"]
    assert [(one["label"], one["kind"], one["origins"]) for one in listed] == [
        ("crm", "server", []),
        ("web", "public", ["https://shop.example"]),
    ]
    assert {one["revoked_at"] for one in listed} == {None}
    assert "the key web is revoked" in keys("revoke", "web").stdout
    table = keys("list").stdout
    assert all(text in table for text in ("web", "public", "https://shop.example", "crm"))
    assert key not in table
    [web] = [one for one in orjson.loads(keys("list", "--json").stdout)["keys"] if one["origins"]]
    assert web["revoked_at"] is not None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["make", "web", "--origin", "https://shop.example"], "add --public"),
        (["make", "web", "--public", "--origin", "shop.example"], "is not an origin"),
        (["revoke", "nobody"], "no live key"),
    ],
)
def test_a_wrong_command_says_why(arguments: list[str], why: str) -> None:
    result = keys(*arguments)
    assert isinstance(result.exception, SegueError)
    assert why in str(result.exception)
