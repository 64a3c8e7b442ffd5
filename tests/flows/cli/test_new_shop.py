"""`segue init` makes a shop in which the other commands work."""

import shlex
import tomllib
from pathlib import Path

import pytest

from profiles.imports.columns import PeopleMap
from profiles.imports.guess import guessed_map
from tests.support.commands import Segue
from tests.support.shop import House

GERMAN = "Kundennummer;E-Mail;Vorname;Land;Newsletter;Schuh größe\n1;ann@example.com;Ann;DE;ja;38\n"


def settings_of(shop: Path) -> dict[str, str]:
    """What a shell sets when it reads the file."""
    lines = (shop / "segue.env").read_text().splitlines()
    given = [shlex.split(line)[0] for line in lines if line and not line.startswith("#")]
    return dict(one.split("=", 1) for one in given)


def test_a_new_shop_passes_the_check(
    house: House, segue: Segue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.open()
    shop = tmp_path / "my shop"
    (tmp_path / "file.csv").write_text(GERMAN, encoding="utf-8")
    made = segue("init", str(shop), "--from", str(tmp_path / "file.csv"))
    assert made.status == 0
    assert "README.md has the next commands" in made.out
    for name, value in settings_of(shop).items():
        assert value.startswith(str(shop))
        if name != "SEGUE_DATA_DIR":
            monkeypatch.setenv(name, value)
    checked = segue("check")
    assert (checked.status, checked.err) == (0, "")
    assert checked.out.startswith("1 journeys, ")
    assert f". '{shop}/segue.env'" in (shop / "README.md").read_text()

    # What is there is never overwritten.
    (shop / "policy.toml").write_text("mine")
    again = segue("init", str(shop))
    assert again.status == 1
    assert "exists already and is not empty; choose another folder" in again.err
    assert (shop / "policy.toml").read_text() == "mine"


def test_a_file_that_does_not_exist_makes_no_folder(
    house: House, segue: Segue, tmp_path: Path
) -> None:
    house.open()
    refused = segue("init", str(tmp_path / "shop"), "--from", str(tmp_path / "none.csv"))
    assert refused.status == 1
    assert "none.csv does not exist" in refused.err
    assert not (tmp_path / "shop").exists()


@pytest.mark.parametrize(
    ("text", "columns", "rest"),
    [
        (
            GERMAN,
            {
                "columns": {"user_id": "Kundennummer", "email": "E-Mail", "country": "Land"},
                "attributes": {"first_name": "Vorname"},
                "consent": {"email.*": "Newsletter"},
            },
            '# "schuh_grösse" = "Schuh größe"',
        ),
        (
            "id,Email Address,Mobile,First Name,Last Name,Date of birth\n1,a@b.co,,A,B,\n",
            {
                "columns": {"user_id": "id", "email": "Email Address", "phone": "Mobile"},
                "attributes": {
                    "first_name": "First Name",
                    "last_name": "Last Name",
                    "birthday": "Date of birth",
                },
                "consent": {},
            },
            "",
        ),
    ],
)
def test_a_map_is_guessed(tmp_path: Path, text: str, columns: object, rest: str) -> None:
    file = tmp_path / "customers.csv"
    file.write_text(text, encoding="utf-8")
    guessed = guessed_map(file)
    found = tomllib.loads(guessed)
    assert found == columns
    PeopleMap.model_validate(found)
    assert rest in guessed
