"""Every command that prints a result prints it as JSON too."""

from pathlib import Path

import orjson
import pytest
from typer.main import get_command

from flows.cli.main import app
from journeys.dsl import Email, Send
from tests.support.commands import Segue
from tests.support.shop import House, described
from tests.support.structure.reference import leaves

# Run until they are stopped, or print one JSON object a line anyway.
WITHOUT = {f"segue {one}" for one in ("up", "demo", "work", "staff serve", "decide", "lift")}


def test_every_command_has_the_option() -> None:
    without = {
        name
        for name, command in leaves(get_command(app), "segue")
        if not any("--json" in option.opts for option in command.params)
    }
    assert without == WITHOUT


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("pause", "j"), {"journey": "j", "action": "pause"}),
        (("resume", "j"), {"journey": "j", "action": "resume"}),
        (("stop", "j"), {"journey": "j", "action": "stop"}),
        (("tidy",), {"messages": 0, "passages": 0, "events": 0, "acts": 0}),
        (("resolve", "sent"), {"applied": False, "verdict": "sent", "messages": []}),
        (("staff", "role", "ann", "viewer"), {"name": "ann", "role": "viewer"}),
        (("staff", "timezone", "ann", "policy"), {"name": "ann", "timezone": None}),
        (("staff", "remove", "ann"), {"name": "ann"}),
        (("keys", "revoke", "web"), {"label": "web"}),
    ],
)
def test_what_was_done(
    house: House, segue: Segue, arguments: tuple[str, ...], facts: dict[str, object]
) -> None:
    house.open(described(Send("s", Email("hello"))))
    assert segue("keys", "make", "web").status == 0
    added = segue("staff", "add", "ann", "--role", "admin", "--json")
    assert orjson.loads(added.out).keys() == {"done", "name", "password"}
    said = segue(*arguments, "--json")
    assert (said.status, said.err) == (0, "")
    result = orjson.loads(said.out)
    assert result.pop("done")
    assert result == facts


def test_a_check_and_a_new_shop(house: House, segue: Segue, tmp_path: Path) -> None:
    house.open()
    checked = orjson.loads(segue("check", "--json").out)
    assert checked["errors"] == []
    assert checked["journeys"] > 0
    made = orjson.loads(segue("init", str(tmp_path / "shop"), "--json").out)
    assert made["folder"] == str(tmp_path / "shop")
