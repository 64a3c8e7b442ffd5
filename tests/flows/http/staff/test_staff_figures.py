"""Segments, approvals, reports, experiments and the yardstick on the staff site."""

import re

from config.clock.zones import zone
from config.policy import Policy
from journeys.dsl import Email, Experiment, Goal, Segment, Send, arm, attribute, days, did, everyone
from journeys.operations.personas import assign_personas
from journeys.operations.segment_counts import count_segments
from profiles.identity.person import Person
from profiles.identity.upsert import upsert_people
from tests.support.http.staff import URL, Staff, words_of
from tests.support.shop import House, described

POLICY = Policy.model_validate({"topics": {"news": "News"}, "approval": {"people": 2}})
RICH = Segment("rich", "Spent a lot", attribute("ltv") > 200)
NEWS = described(
    Experiment("which", arm("one", 99, [Send("s", Email("hello"))]), arm("none", 1, [])),
    goal=Goal(did=did("order_completed"), within=days(9)),
)


def opened(house: House, role: str = "viewer") -> Staff:
    house.open(NEWS, policy=POLICY, segments={"rich": RICH}, staff_url=URL)
    return Staff(house, role)


def test_a_segment_has_a_size_some_people_and_users(house: House) -> None:
    staff = opened(house)
    for number in range(12):
        house.customer(attributes={"ltv": 100 * number, "first_name": f"Name{number}"})
    count_segments(house.db, [RICH], zone("UTC"))
    assert "rich 9 Spent a lot launches only" in staff.read("/segments")
    page = staff.read("/segments/rich")
    assert "people now 9 condition attribute ltv > 200" in page
    assert page.count("…") == 9, "addresses are shortened"
    assert "@example.com" in page
    assert "Day People 2026-03-02 9" in page
    assert staff.get("/segments/poor").status_code == 400
    assert staff.acts() == []


def test_the_personas_with_their_movement(house: House) -> None:
    rest = Segment("rest", "All others", everyone())
    personas = [RICH, rest]
    house.open(NEWS, policy=POLICY, personas=personas, staff_url=URL)
    staff = Staff(house, "viewer")
    house.customer("ann")
    assign_personas(house.db, personas, zone("UTC"))
    assert "Nobody has moved yet" in staff.read("/personas")
    with house.db.transaction() as tx:
        upsert_people(tx, [Person(user_id="ann", attributes={"ltv": 300})], "test")
    assign_personas(house.db, personas, zone("UTC"))
    page = staff.read("/personas")
    assert "rich 1 Spent a lot none" in page
    assert "2026-03 rest rich 1" in page


def test_without_personas_the_page_says_where_to_define_them(house: House) -> None:
    assert "personas.toml beside the policy" in opened(house).read("/personas")


def test_the_first_decision_about_a_launch_counts(house: House) -> None:
    staff = opened(house, "editor")
    viewer = Staff(house, "viewer", "vic")
    for _ in range(4):
        house.customer(attributes={"ltv": 300})
    for launch in ("spring", "winter"):
        house.launch("j", launch_id=launch)
    page = staff.read("/approvals")
    assert page.count("j for everyone , 4 people") == 2
    assert "entered 4" in page
    assert "An editor can approve or reject it" in viewer.read("/approvals")
    approve = {"action": "approve", "launch": "spring"}
    assert viewer.post("/approvals", approve).status_code == 403
    done = words_of(staff.post("/approvals", approve).text)
    assert "zoe approved the launch spring" in done
    reject = {"action": "reject", "launch": "winter", "reason": ""}
    assert staff.post("/approvals", reject).status_code == 400
    assert "Rejected" in staff.post("/approvals", {**reject, "reason": "too early"}).text
    # Somebody who comes second changes nothing.
    assert (
        "Not rejected"
        in staff.post("/approvals", {**reject, "launch": "spring", "reason": "x"}).text
    )
    assert staff.post("/approvals", {**approve, "launch": "winter"}).status_code == 400
    assert [(one.act, one.about) for one in reversed(staff.acts())] == [
        ("approved", "spring"),
        ("rejected", "winter"),
    ]
    page = staff.read("/approvals")
    assert "No launch waits" in page
    assert "everyone (4) rejected zoe" in page
    assert "too early" in page


def test_an_editor_promotes_an_arm(house: House) -> None:
    opened(house)
    editor, page = Staff(house, "editor", "eve"), "/journeys/j/experiment?step=which"
    form = editor.get(page).text
    arms = re.findall("<option>([^<]+)</option>", form)
    assert len(arms) > 1
    before = house.segue.catalog.journey("j").digest
    done = editor.post("/journeys/j/promote?step=which", {"arm": arms[0]}, page=page)
    assert f"“{arms[0]}” at “which”" in words_of(done.text)
    assert house.segue.catalog.journey("j").digest != before
    assert editor.acts()[0].about == f"j, which: {arms[0]}"
    refused = editor.post("/journeys/j/promote?step=which", {"arm": "x"}, page=page)
    assert refused.status_code == 400


def test_reports_have_a_plot_with_its_table(house: House) -> None:
    staff = opened(house)
    for _ in range(6):
        house.customer()
    assert "Report on j" in staff.read("/journeys/j/report")
    assert "<img" not in staff.get("/journeys/j/report").text, "there is nothing to plot"
    house.launch("j", people=2)
    page = staff.get("/journeys/j/report?by=arm&from=2026-03-01&to=2026-03-31")
    [alt] = re.findall('<img src="data:image/svg[^"]*" alt="([^"]*)"', page.text)
    assert "Bars of sent" in alt
    words = words_of(page.text)
    assert "2 entered" in words
    assert "How it is counted" in words
    late = staff.get("/journeys/j/report?from=2027-01-01")
    assert late.status_code == 400
    assert "is in the future" in words_of(late.text)
    experiment = staff.read("/journeys/j/experiment?step=which")
    assert "Arms" in experiment
    assert "Differences to" in experiment
    assert staff.get("/journeys/j/experiment?step=nothing").status_code == 400
    assert "Promote" not in experiment, "viewers look"
    assert "Revenue period total a customer" in staff.read("/yardstick")
