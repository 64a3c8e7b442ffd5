"""The pages about customers: shortened in lists, in full on their page, and each look recorded."""

from journeys.dsl import Email, Send
from tests.support.http.staff import URL, Staff, words_of
from tests.support.shop import House, described


def test_people_are_found_and_shown(house: House) -> None:
    house.open(described(Send("hello", Email("hello"))), staff_url=URL)
    staff = Staff(house)
    assert "There are no customers yet" in staff.read("/people")
    ann = house.customer("ann", attributes={"first_name": "Ann", "last_name": "O'<b>Neill"})
    house.customer("anna", attributes={"first_name": "Anna"})
    house.launch("j")
    # In lists only those who know an address recognise it.
    listed = staff.post("/people", {"q": "anna@"}, page="/people").headers["location"]
    found = staff.read("/people")
    assert "Ann O." in found
    for hidden in ("Neill", "ann@", "+4477", "900001"):
        assert hidden not in found
    assert staff.acts() == []
    answer = staff.post("/people", {"q": "+44 7700 900001"}, page="/people")
    assert answer.headers["location"] == f"/people/{ann}"
    assert listed != answer.headers["location"]
    page = staff.get(f"/people/{ann}")
    assert "O&#39;&lt;b&gt;Neill" in page.text
    assert page.text.count("<b>") == 0
    words = words_of(page.text)
    for part in (
        "+447700900001",
        "ann@example.com",
        "E-mail sent: j, step hello",
        "SMS: everything",
    ):
        assert part in words
    [act] = staff.acts()
    assert (act.name, act.act, act.profile_id) == ("zoe", "looked at a customer", ann)
    nobody = staff.post("/people", {"q": "zz"}, page="/people")
    assert "Nobody has the identifier “zz”" in nobody.text
    assert staff.post("/people", {"q": " "}, page="/people").headers["location"] == "/people"
    for path in ("/people/99", "/people/99999999999999999999999"):
        assert staff.get(path).status_code == 404
    with house.db.transaction() as tx:
        tx.conn.exec_driver_sql(
            "INSERT INTO merge (from_id, into_id, merged_at, why, moved) "
            f"VALUES (99, {ann}, 1, 'alias', '{{}}')"
        )
    assert staff.get("/people/99").headers["location"] == f"/people/{ann}"
    older = staff.read(f"/people/{ann}?before=2")
    assert "Found to be one person with customer 99" in older
    assert "Attributes" not in older
