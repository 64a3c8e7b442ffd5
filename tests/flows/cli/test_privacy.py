"""What a person may ask for, on the command line."""

from pathlib import Path

import orjson
from sqlalchemy import select

from journeys.dsl import Email, Send
from profiles.sample.shop import load_sample_shop
from profiles.tables import profiles
from tests.support.commands import Segue
from tests.support.shop import House, described
from tests.support.worlds.personal import PersonalShop, tables_of, traces


def test_a_person_is_erased_after_a_dry_run(house: House, segue: Segue) -> None:
    house.open(described(Send("hello", Email("hello"))))
    ann = house.customer("ann")
    house.launch("j")
    before = tables_of(house.db, ann)
    said = segue("erase", "ann@example.com", "--dry-run")
    assert said.status == 0
    assert "nothing was changed" in said.out
    for table in ("profile", "identifier", "message", "enrollment"):
        assert table in said.out
    planned = orjson.loads(segue("erase", "ann", "--dry-run", "--json").out)
    assert planned["erased"] is False
    assert planned["rows"]["identifier"] == 4
    assert tables_of(house.db, ann) == before
    done = orjson.loads(segue("erase", "ann", "--yes", "--json", "--by", "zoe").out)
    assert done == {**planned, "erased": True}
    assert tables_of(house.db, ann) == set()
    again = segue("erase", "ann")
    assert again.status == 1
    assert "no customer has the identifier 'ann'" in again.err
    house.customer("bob")
    refused = segue("erase", "bob")
    assert (refused.status, refused.out) == (1, "")
    assert "without a terminal to ask on, add --yes" in refused.err
    assert "erased." in segue("erase", "bob", "--yes").out


def test_an_export_has_everything_of_the_person_and_of_nobody_else(
    house: House, segue: Segue, tmp_path: Path
) -> None:
    shop = PersonalShop(house.db, house=house)
    ann, other, bob = (shop.arrive(number) for number in (1, 2, 3))
    shop.house.launch("trial", launch_id="trial 1")
    for person in (ann, bob):
        shop.live(person)
    shop.house.later("1h")
    shop.hear(ann)
    held = traces(house.db, "qz1x")
    shop.join(other, ann)
    printed = orjson.loads(segue("export", "qz2x-user", "--by", "zoe").out)
    assert printed["customer"] == ann
    assert printed["joined"] == [other]
    assert printed["requests"] == [
        {"act": "export", "at": printed["exported_at"], "asked_by": "zoe"}
    ]
    # Each place in which the database has the person's texts is in the export.
    for table, _, column in (place.partition(".") for place in held):
        assert any("qz1x" in str(row[column]).lower() for row in printed["data"][table]), table
    [said] = [row for row in printed["data"]["consent_record"] if row["wording"]]
    assert (said["wording"], said["evidence"]) == ("No, says qz1x", {"ip": "qz1x"})
    assert "qz3x" not in str(printed)
    folder = tmp_path / "for ann"
    assert segue("export", "qz1x-user", "--to", str(folder)).out.count("wrote ") == 2
    page = (folder / "export.html").read_text(encoding="utf-8")
    assert "No, says qz1x" in page
    assert "qz3x" not in page
    for name in ("export.json", "export.html"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    nobody = segue("export", "nobody@example.com")
    assert nobody.status == 1
    assert "no customer has the identifier 'nobody@example.com'" in nobody.err


def test_the_page_escapes_what_customers_wrote(house: House, segue: Segue, tmp_path: Path) -> None:
    house.open()
    house.customer("ann", attributes={"first_name": "<script>alert(1)</script>"})
    segue("export", "ann", "--to", str(tmp_path))
    page = (tmp_path / "export.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<script" not in page


def test_the_sample_shop_is_removed(house: House, segue: Segue) -> None:
    house.open()
    load_sample_shop(house.db, house.now, customers=5)
    ann = house.customer("ann")
    assert "5 sample customers; nothing was changed" in segue("sample", "remove", "--dry-run").out
    refused = segue("sample", "remove")
    assert (refused.status, "add --yes" in refused.err) == (1, True)
    assert segue("sample", "remove", "--yes").out == "erased 5 sample customers\n"
    with house.db.transaction(write=False) as tx:
        assert tx.conn.execute(select(profiles.c.id)).scalars().all() == [ann]
    assert traces(house.db, "sample-") == set()
    done = orjson.loads(segue("sample", "remove", "--yes", "--json").out)
    assert done == {"customers": 0, "erased": True}
