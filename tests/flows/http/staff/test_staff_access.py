"""Who may do what on the staff site: sessions, forms, roles, a proxy's login, headers."""

import asyncio
import hashlib
import re
from typing import Any

import pytest

from config.access.staff_users import user_named
from config.database.engine import Database
from config.errors import SegueError
from config.settings import ROOT
from flows.http.staff.serving import serve
from journeys.dsl import Wait
from tests.support.http.staff import COOKIE, PASSWORD, URL, Staff, insert_user, staff_client
from tests.support.shop import House, described

ORIGIN = {"Origin": URL}


@pytest.fixture
def site(sqlite_house: House) -> House:
    sqlite_house.open(described(Wait("1d"), name="news"), staff_url=URL)
    return sqlite_house


def user(house: House, name: str, role: str = "viewer", *, one_time: bool = False) -> None:
    with house.db.transaction() as tx:
        insert_user(tx, name, role, one_time=one_time)


def test_signing_in_and_out(house: House) -> None:
    house.open(staff_url=URL)
    user(house, "zoe")
    client = staff_client(house)
    refused = client.get("/staff?before=9")
    assert refused.status_code == 303
    assert refused.headers["location"] == "/sign-in?next=%2Fstaff%3Fbefore%3D9"
    form = {"name": "Zoe", "password": PASSWORD, "next": "/staff?before=9"}
    done = client.post("/sign-in", data=form, headers=ORIGIN)
    assert (done.status_code, done.headers["location"]) == (303, "/staff?before=9")
    cookie = done.headers["set-cookie"]
    for part in (f"{COOKIE}=", "HttpOnly", "Secure", "Path=/", "SameSite=lax", "Max-Age=43200"):
        assert part in cookie
    session = {"Cookie": cookie.partition(";")[0], **ORIGIN}
    page = client.get("/", headers=session)
    assert page.status_code == 200
    [token] = set(re.findall('name="token" value="([^"]*)"', page.text))
    assert client.post("/sign-out", data={"token": token}, headers=session).status_code == 303
    assert client.get("/", headers=session).headers["location"] == "/sign-in"


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "https://evil.example", ""])
def test_a_sign_in_leads_to_no_other_site(site: House, path: str) -> None:
    user(site, "zoe")
    form = {"name": "zoe", "password": PASSWORD, "next": path}
    done = staff_client(site).post("/sign-in", data=form, headers=ORIGIN)
    assert done.headers["location"] == "/"


def test_a_wrong_name_and_a_wrong_password_look_alike(site: House) -> None:
    user(site, "zoe")
    client = staff_client(site)
    pages = []
    for name, password in (("zoe", "wrong"), ("eve", "wrong"), ("zoe", ""), ("eve", "x" * 1000)):
        page = client.post("/sign-in", data={"name": name, "password": password}, headers=ORIGIN)
        assert page.status_code == 403
        assert "set-cookie" not in page.headers
        pages.append(page.text.replace(f'value="{name}"', ""))
    assert len(set(pages)) == 1


def test_a_form_of_another_site_changes_nothing(site: House) -> None:
    staff = Staff(site, "editor")
    cookie = {"Cookie": f"{COOKIE}={staff.session}"}
    other = Staff(site, "editor", "eve")
    [theirs] = set(re.findall('name="token" value="([^"]*)"', other.get("/stop").text))
    for fields, headers in (
        ({}, ORIGIN),
        ({"token": "x"}, ORIGIN),
        ({"token": theirs}, ORIGIN),
        ({"token": theirs}, {"Origin": "https://evil.example"}),
        ({"token": theirs}, {"Origin": "null"}),
    ):
        data = {"action": "stop", **fields}
        page = staff.client.post("/stop", data=data, headers={**cookie, **headers})
        assert page.status_code == 403
    # A sign-in has no session yet; the browser says which site it comes from.
    form = {"name": "zoe", "password": PASSWORD}
    for headers in ({}, {"Origin": "https://evil.example"}):
        assert staff.client.post("/sign-in", data=form, headers=headers).status_code == 403
    assert staff.client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert [one.act for one in staff.acts()] == []


def test_a_role_may_do_what_it_names(site: House) -> None:
    users = {role: Staff(site, role, role) for role in ("viewer", "editor", "admin")}
    allowed = {
        role: [staff.get(path).status_code for path in ("/", "/stop", "/staff")]
        for role, staff in users.items()
    }
    assert allowed == {
        "viewer": [200, 403, 403],
        "editor": [200, 200, 403],
        "admin": [200, 200, 200],
    }
    viewer = Staff(site, "viewer", "vic")
    assert viewer.post("/stop", {"action": "stop"}).status_code == 403
    assert "Stop everything" not in viewer.read("/")


def test_a_user_sees_times_in_their_own_zone(site: House) -> None:
    staff, other = Staff(site), Staff(site, name="amy")
    assert "Times are in UTC" in staff.get("/").text
    assert "Mon 2 Mar 2026, 10:00" in staff.get("/").text
    saved = staff.post("/account", {"timezone": " Asia/Tokyo "})
    assert (saved.status_code, saved.headers["location"]) == (303, "/account")
    assert "Times are in Asia/Tokyo" in staff.get("/").text
    assert "Mon 2 Mar 2026, 19:00" in staff.get("/").text
    assert 'value="Asia/Tokyo"' in staff.get("/account").text
    assert "Times are in UTC" in other.get("/").text
    assert [one.about for one in staff.acts() if one.act == "set a time zone"] == [
        "zoe, Asia/Tokyo"
    ]
    refused = staff.post("/account", {"timezone": "<Tokyo>"})
    assert refused.status_code == 400
    assert "&#39;&lt;Tokyo&gt;&#39; is not a time zone" in refused.text
    staff.post("/account", {"timezone": ""})
    assert "Times are in UTC" in staff.get("/").text


def test_a_one_time_password_is_replaced_first(site: House) -> None:
    staff = Staff(site)
    with site.db.transaction() as tx:
        tx.conn.exec_driver_sql("UPDATE staff_user SET is_one_time = 1")
    assert staff.get("/").headers["location"] == "/password"
    for fields, why in (
        ({"password": "wrong", "new": "a new password", "again": "a new password"}, "is wrong"),
        ({"password": PASSWORD, "new": "a new password", "again": "another"}, "not the same"),
        ({"password": PASSWORD, "new": PASSWORD, "again": PASSWORD}, "the one of now"),
        ({"password": PASSWORD, "new": "short", "again": "short"}, "fewer than 12"),
    ):
        page = staff.post("/password", fields)
        assert page.status_code == 400
        assert why in page.text
    chosen = {"password": PASSWORD, "new": "a new password", "again": "a new password"}
    done = staff.post("/password", chosen)
    assert done.status_code == 303
    assert staff.get("/").status_code == 303, "earlier sessions have ended"
    staff.session = done.headers["set-cookie"].partition("=")[2].partition(";")[0]
    assert staff.get("/").status_code == 200
    assert staff.acts()[0].act == "changed the password"


def test_a_header_signs_in_only_from_the_proxies_that_a_setting_names(db: Database) -> None:
    house = House(db)
    settings: dict[str, Any] = {"staff_login_header": "X-Forwarded-Email", "staff_url": URL}
    mail = {"X-Forwarded-Email": "zoe@shop.example"}
    house.open(**settings, staff_login_proxies=["10.0.0.0/8"])
    user(house, "zoe@shop.example")
    # Requests of tests come from 127.0.0.1, which X-Forwarded-For does not change.
    for headers in (mail, {**mail, "X-Forwarded-For": "10.0.0.7"}):
        assert staff_client(house).get("/", headers=headers).status_code == 403
    house.open(**settings, staff_login_proxies=["127.0.0.0/8"])
    client = staff_client(house)
    page = client.get("/", headers=mail)
    assert page.status_code == 200
    assert "set-cookie" not in page.headers
    assert "Sign out" not in page.text
    assert client.get("/", headers={"X-Forwarded-Email": "eve@shop.example"}).status_code == 403
    assert client.get("/", headers={}).status_code == 403
    twice = [("X-Forwarded-Email", "zoe@shop.example"), ("X-Forwarded-Email", "eve@shop.example")]
    assert client.get("/", headers=twice).status_code == 403
    # A password is no way around the proxy, nor is a session of before.
    form = {"name": "zoe@shop.example", "password": PASSWORD}
    answer = client.post("/sign-in", data=form, headers=ORIGIN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "set-cookie" not in answer.headers


def test_an_error_keeps_the_navigation_and_tells_nothing_secret(
    site: House, caplog: pytest.LogCaptureFixture
) -> None:
    staff = Staff(site)
    wrong = staff.get("/journeys/nothing")
    assert wrong.status_code == 400
    assert "There is no journey 'nothing'; there are: news." in wrong.text.replace("&#39;", "'")
    assert "Sign out" in wrong.text
    with site.db.transaction() as tx:
        tx.conn.exec_driver_sql("DROP TABLE staff_act")
    broken = staff.get(f"/people/{site.customer('ann')}")
    assert broken.status_code == 503
    assert "ann@example.com" not in broken.text + caplog.text
    with site.db.transaction() as tx:
        tx.conn.exec_driver_sql("DROP TABLE staff_user")
    form = {"name": "zoe", "password": PASSWORD}
    assert staff.client.post("/sign-in", data=form, headers=ORIGIN).status_code == 503


def test_every_page_has_the_headers(site: House) -> None:
    staff = Staff(site, "admin")
    for response in (
        *(staff.get(path) for path in ("/", "/stop", "/staff", "/password", "/nothing")),
        staff.client.get("/sign-in"),
    ):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "same-origin"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "noindex" in response.headers["x-robots-tag"]
        assert "<script" not in response.text
        assert "style=" not in response.text
        for sheet in re.findall('rel="stylesheet" href="([^"]*)"', response.text):
            assert staff.client.get(sheet).headers["content-type"].startswith("text/css")


def test_the_vendored_style_sheet_is_the_published_one() -> None:
    folder = ROOT / "flows" / "http" / "staff" / "static" / "pico"
    origin = dict(line.split(": ", 1) for line in (folder / "ORIGIN.txt").read_text().splitlines())
    found = hashlib.sha256((folder / "pico.min.css").read_bytes()).hexdigest()
    assert found == origin["sha256"]
    assert "MIT" in (folder / "LICENSE.md").read_text()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"providers": "live"}, "SEGUE_STAFF_URL must be the https"),
        ({"staff_login_header": "X-User"}, "SEGUE_STAFF_LOGIN_PROXIES"),
    ],
)
def test_it_does_not_start_unsafely(
    sqlite_house: House, settings: dict[str, Any], why: str
) -> None:
    sqlite_house.open(**settings)
    with pytest.raises(SegueError, match=why):
        asyncio.run(serve(sqlite_house.segue))


def test_a_removed_user_is_out_at_once(site: House) -> None:
    staff = Staff(site, "editor")
    with site.db.transaction() as tx:
        assert user_named(tx, "zoe")
        tx.conn.exec_driver_sql("UPDATE staff_user SET role = 'viewer'")
    assert staff.get("/stop").status_code == 403
    with site.db.transaction() as tx:
        tx.conn.exec_driver_sql("DELETE FROM staff_user")
    assert staff.get("/").headers["location"] == "/sign-in"
