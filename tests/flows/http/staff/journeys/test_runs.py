"""A journey is tried, started, scheduled and simulated on its page, by Prefect's API."""

from collections.abc import Iterator

import httpx
import pytest

from journeys.dsl import Wait
from tests.support.http.fake_prefect import RUN, FakePrefect
from tests.support.http.staff import URL, Staff, words_of
from tests.support.shop import House, described


@pytest.fixture
def prefect(sqlite_house: House) -> Iterator[FakePrefect]:
    sqlite_house.open(
        described(Wait("1d")), staff_url=URL, prefect_api_url="http://prefect.example/api"
    )
    server = FakePrefect()
    sqlite_house.providers.hosts["prefect.example"] = server
    with sqlite_house.providers.listening():
        yield server


def submit(staff: Staff, **fields: str) -> httpx.Response:
    given = {"audience": "everyone", "key": "k-1", **fields}
    return staff.post("/journeys/j/start", given, page="/journeys/j/runs")


def test_the_page_shows_runs_and_schedules(sqlite_house: House, prefect: FakePrefect) -> None:
    page = Staff(sqlite_house).get("/journeys/j/runs")
    assert page.status_code == 200
    assert "2 sent &lt;b&gt;" in page.text
    assert 'href="http://prefect.example/v2/runs/flow-run/run-1"' in page.text
    text = words_of(page.text)
    assert "j: everyone Mon 2 Mar 2026, 09:30 Completed 3 entered; 2 sent" in text
    assert "every Mon at 8:00 (Europe/London) everyone active" in text
    assert "Start now" not in text, "viewers look"
    assert 'http-equiv="refresh"' not in page.text
    prefect.runs[0] = {**RUN, "state": {"type": "RUNNING", "name": "Running", "message": ""}}
    assert 'http-equiv="refresh"' in Staff(sqlite_house, name="amy").get("/journeys/j/runs").text


def test_a_journey_is_tried_started_and_simulated(
    sqlite_house: House, prefect: FakePrefect
) -> None:
    staff = Staff(sqlite_house, "editor")
    tried = submit(staff, action="try", limit="20")
    assert (tried.status_code, tried.headers["location"]) == (303, "/journeys/j/runs")
    method, path, asked = prefect.last
    assert (method, path) == ("POST", "/deployments/id-of-j/create_flow_run")
    assert asked["parameters"] == {"audience": "everyone", "limit": 20, "dry_run": True}
    # A double click is one run; the same form with another button is not.
    submit(staff, action="try", limit="20")
    assert prefect.last[2] == asked
    submit(staff, action="start", limit="20")
    assert prefect.last[2]["idempotency_key"] != asked["idempotency_key"]
    submit(staff, action="start")
    assert prefect.last[2]["parameters"] == {"audience": "everyone", "limit": 0, "dry_run": False}
    submit(staff, action="simulate")
    assert prefect.last[1] == "/deployments/id-of-simulate/create_flow_run"
    assert prefect.last[2]["parameters"] == {
        "journey": "j",
        "audience": "everyone",
        "days": 30,
        "limit": 0,
    }
    assert {one.about for one in staff.acts()} == {"j: everyone"}
    done = [one.act for one in staff.acts()]
    assert done == ["simulated", *["launched"] * 2, *["tried a launch"] * 2]


def test_a_journey_is_scheduled_by_the_users_clock(
    sqlite_house: House, prefect: FakePrefect
) -> None:
    staff = Staff(sqlite_house, "editor")
    staff.post("/account", {"timezone": "America/New_York"})
    at = "2026-03-09T09:00"  # the day after its clocks have changed
    submit(staff, action="schedule", at=at, repeats="once")
    assert prefect.last[2]["state"] == {
        "type": "SCHEDULED",
        "state_details": {"scheduled_time": "2026-03-09T13:00:00Z"},
    }
    for repeats, cron in (("daily", "0 9 * * *"), ("weekly", "0 9 * * mon")):
        submit(staff, action="schedule", at=at, repeats=repeats)
        method, path, [added] = prefect.last
        assert (method, path) == ("POST", "/deployments/id-of-j/schedules")
        assert added["schedule"] == {"cron": cron, "timezone": "America/New_York"}
        assert added["parameters"]["audience"] == "everyone"
        # A double click adds it once.
        prefect.schedules.append({**added, "id": repeats})
        asked = len(prefect.asked)
        submit(staff, action="schedule", at=at, repeats=repeats)
        assert len(prefect.asked) == asked


def test_schedules_are_removed_and_runs_cancelled(
    sqlite_house: House, prefect: FakePrefect
) -> None:
    staff = Staff(sqlite_house, "editor")
    page = staff.get("/journeys/j/runs").text
    assert page.count(">Remove</button>") == 1, "the journey's own schedule stays"
    staff.post("/journeys/j/unschedule", {"id": "s-2"})
    assert prefect.last == ("DELETE", "/deployments/id-of-j/schedules/s-2", None)
    staff.post("/journeys/j/cancel", {"id": "run-2"})
    assert prefect.last[1] == "/flow_runs/run-2/set_state"
    asked = len(prefect.asked)
    for path, number in (
        ("unschedule", "s-9"),
        ("unschedule", "s-1"),
        ("cancel", "run-1"),
        ("cancel", "../x"),
    ):
        assert staff.post(f"/journeys/j/{path}", {"id": number}).status_code == 400
    assert len(prefect.asked) == asked


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"action": "start", "audience": "lapst"}, "There is no segment 'lapst'"),
        ({"action": "start", "limit": "-3"}, "'-3' is no number of people"),
        ({"action": "start", "limit": "99999999999"}, "use up to 10,000,000"),
        ({"action": "schedule", "at": ""}, "Choose a day and a time"),
        ({"action": "schedule", "at": "tomorrow"}, "Choose a day and a time"),
        ({"action": "schedule", "at": "2026-03-02T09:00"}, "This time is past"),
        ({"action": "schedule", "at": "2026-03-29T01:30"}, "does not exist in Europe/London"),
        ({"action": "schedule", "at": "2027-01-01T09:00", "repeats": "x"}, "Choose how often"),
        ({"action": "explode"}, "Choose what to do"),
    ],
)
def test_an_invalid_form_says_what_is_wrong(
    sqlite_house: House, prefect: FakePrefect, fields: dict[str, str], words: str
) -> None:
    staff = Staff(sqlite_house, "editor")
    staff.post("/account", {"timezone": "Europe/London"})
    refused = submit(staff, **fields)
    assert refused.status_code == 400
    assert words in words_of(refused.text)
    assert prefect.asked == []


def test_prefect_may_be_away_or_refuse(sqlite_house: House, prefect: FakePrefect) -> None:
    staff = Staff(sqlite_house, "editor")
    prefect.answer = httpx.Response(409, json={"detail": "Error creating flow run: no"})
    refused = words_of(submit(staff, action="start").text)
    assert "Prefect refuses this (HTTP 409): Error creating flow run: no." in refused

    prefect.is_away = True
    page = staff.get("/journeys/j/runs")
    assert page.status_code == 503
    assert "Prefect does not respond at http://prefect.example/api" in words_of(page.text)


def test_viewers_start_nothing(sqlite_house: House, prefect: FakePrefect) -> None:
    staff = Staff(sqlite_house)
    for path in ("start", "unschedule", "cancel"):
        assert staff.post(f"/journeys/j/{path}", {"action": "start"}).status_code == 403
    assert prefect.asked == []
