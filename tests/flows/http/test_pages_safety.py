"""The customers' pages with invalid links, their headers and logs, and names that contain code."""

import logging
from typing import Any
from unittest.mock import Mock

import orjson
import pytest
from sqlalchemy import delete
from sqlalchemy.exc import DataError, OperationalError

from channels.links import preferences_url
from config.clock.times import HOUR
from config.database.engine import Database
from config.errors import DatabaseUnusable
from config.settings import Settings
from profiles.tables import consent_records, events, profiles
from sandbox.app import create_app as create_sandbox
from sandbox.inbox.timeline import DatabaseTimeline
from sandbox.store import Store
from tests.support.http.page_customers import Client, Shop, one_click, shown
from tests.support.providers.sandbox_requests import LOGIN
from tests.support.shop import MONDAY

HOSTILE = "<script>alert(1)</script>{{ 7*7 }}"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7*7 }}"


# What does not work ------------------------------------------------------------------------------


def test_an_invalid_token_gets_an_error_page(small_shop: Shop) -> None:
    shop = small_shop
    before = shop.everything()
    foreign = Settings.model_validate({"secret_key": "another key of another shop"})
    url = preferences_url(foreign, shop.ann, "email", "ann@example.com", MONDAY)
    forged = url.rpartition("/")[2]
    tokens = ["x", "%00", "é", "." * 500, shop.p()[13:-2], forged, shop.u()[3:], "x" * 5000]
    for token in tokens:
        for path in (f"/preferences/{token}", f"/u/{shop.p()[13:] if token[0] == 'W' else token}"):
            for answer in (
                shop.client.get(path),
                shop.client.post(path, data=one_click(action="stop")),
            ):
                assert answer.status_code == 404
                assert "This link does not work" in shown(answer.text)
                assert "newest message" in shown(answer.text)
    assert shop.everything() == before


def test_the_token_of_an_erased_customer_gets_an_error_page(shop: Shop) -> None:
    nobody = 4711
    for path in (shop.u(who=nobody), shop.p(who=nobody)):
        for answer in (shop.client.get(path), shop.client.post(path, data=one_click())):
            assert answer.status_code == 410
            assert "no record" in shown(answer.text)
    assert shop.rows(consent_records, events) == shop.rows(consent_records)


def test_a_body_without_end_is_refused(small_shop: Shop) -> None:
    shop = small_shop
    before = shop.everything()
    for path in (shop.u(), shop.p()):
        answer = shop.client.post(path, data=one_click(more="x" * 70_000))
        assert answer.status_code == 413
        assert "too long" in shown(answer.text)
    assert shop.everything() == before


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "unicode_escape"])
def test_a_charset_outside_the_list_is_not_used(
    small_shop: Shop, monkeypatch: pytest.MonkeyPatch, charset: str
) -> None:
    shop, used = small_shop, Mock()
    monkeypatch.setattr("starlette.formparsers._user_safe_decode", used)
    kind = f'multipart/form-data; boundary=x; charset="{charset}"'
    body = b'--x\r\nContent-Disposition: form-data; name="action"\r\n\r\nundo\r\n--x--\r\n'
    answer = shop.client.post(shop.u(), content=body, headers={"Content-Type": kind})
    assert (answer.status_code, used.mock_calls) == (200, [])
    assert shop.said()["email", "offers"] is False  # whatever can't be read is a no


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "us-ascii", "ISO-8859-1", "windows-1252"])
def test_a_form_may_name_a_usual_charset(small_shop: Shop, charset: str) -> None:
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    name = b'Content-Disposition: form-data; name="List-Unsubscribe"'
    body = b"--x\r\n" + name + b"\r\n\r\nOne-Click\r\n--x--\r\n"
    answer = small_shop.client.post(small_shop.u(), content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200
    assert small_shop.last_record()[-1] == "one-click"


def test_a_token_that_is_too_long_is_not_decoded(
    small_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.links.URLSafeSerializer.loads", None)
    for path in ("/u/", "/preferences/"):
        for token in ("x" * 1001, "a." * 4000):
            assert small_shop.client.get(path + token).status_code == 404
            assert small_shop.client.post(path + token, data=one_click()).status_code == 404


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (DatabaseUnusable("the database can't be reached"), 503),
        (OperationalError("", {}, Exception("disk I/O error")), 503),
        (DataError("", {}, Exception("Failing row contains (ann@example.com)")), 500),
        (KeyError("ann@example.com"), 500),
    ],
    ids=lambda given: type(given).__name__,
)
def test_errors_on_pages_are_friendly_and_logged_without_customer_data(
    small_shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: Exception,
    status: int,
) -> None:
    shop = small_shop
    paths = (shop.u(), shop.p())
    monkeypatch.setattr(Database, "transaction", Mock(side_effect=trouble))
    for path in paths:
        for answer in (shop.client.get(path), shop.client.post(path, data=one_click())):
            assert answer.status_code == status
            words = shown(answer.text)
            assert "This did not work just now" in words
            assert ("Nothing was changed" in words) == (status == 503)
    assert "can't be served" in caplog.text
    assert "ann@" not in caplog.text


# Safety ------------------------------------------------------------------------------------------


def test_every_answer_carries_the_headers(small_shop: Shop) -> None:
    shop = small_shop
    for answer in (
        shop.client.get(shop.u()),
        shop.client.request("HEAD", shop.p()),
        shop.client.post(shop.u(), data=one_click()),
        shop.client.post(shop.p(), data={"opens": "x"}),
        shop.client.get("/u/x"),
        shop.client.get(shop.p(4711)),
        shop.client.post(shop.p(), data={"x": "x" * 70_000}),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script" not in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "set-cookie" not in answer.headers
        assert "<script" not in answer.text


def test_nothing_redirects_anywhere(small_shop: Shop) -> None:
    shop = small_shop
    for path in (
        shop.u() + "/",
        shop.p() + "/",
        "/u//evil.example",
        "/preferences/https://evil.example",
    ):
        for answer in (
            shop.client.get(path, headers={"Host": "evil.example"}),
            shop.client.post(path, data=one_click()),
        ):
            assert answer.status_code == 404
            assert "location" not in answer.headers
    for path in (shop.u(), shop.p()):
        posted = {"next": "https://evil.example", "action": "https://evil.example"}
        answer = shop.client.post(f"{path}?next=https://evil.example", data=posted)
        assert answer.status_code == 200
        assert "evil.example" not in answer.text


def test_no_token_and_no_address_is_ever_logged(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    paths = [shop.u(), shop.p()]
    for path in [*paths, paths[0] + "x", "/preferences/garbage-token"]:
        shop.client.get(path)
        shop.client.post(path, data=one_click(**{"opens": "x", "email": "ann@example.com"}))
    shop.client.post(paths[1], data={"per_week": "2"})
    with shop.house.db.engine.begin() as conn:
        conn.execute(delete(profiles))
        conn.exec_driver_sql("DROP TABLE preference")
    assert shop.client.get(paths[1]).status_code in (500, 503)
    theirs = ("httpx", "httpcore")  # the client of this test
    logged = "\n".join(
        record.getMessage() + (record.exc_text or "")
        for record in caplog.records
        if not record.name.startswith(theirs)
    )
    assert "can't be served" in logged
    for secret in (*(path.rsplit("/", 1)[1] for path in paths), "ann@example", "garbage-token"):
        assert secret not in logged


def test_any_customer_name_is_shown_as_text(shop: Shop, tmp_path: Any) -> None:
    """In mail, on the pages, in the inbox."""
    house = shop.house
    house.change(shop.ann, first_name=HOSTILE, name=HOSTILE)
    with house.db.transaction() as tx:
        hostile = {"language": HOSTILE, "timezone": HOSTILE}
        tx.conn.execute(profiles.update().values(hostile))
    page = shop.get(shop.p())
    assert ESCAPED in page
    answer = shop.fill_in(page, {"timezone": HOSTILE + "!", "per_week": HOSTILE})
    assert answer.status_code == 400
    for text in (page, answer.text, shop.get(shop.u()), shop.get(shop.u("email", HOSTILE))):
        assert "<script" not in text
        assert "49" not in shown(text).replace("…", "")
    assert ESCAPED in answer.text
    assert ESCAPED in shop.get(shop.u("email", HOSTILE))

    house.launch("offers")
    house.until(MONDAY + 5 * HOUR)
    assert [sent.channel for sent in house.providers.accepted] == ["email", "sms", "push"]
    mail, sms, push = [request.content for request in house.providers.requests]
    data = orjson.loads(mail)["content"]
    html = next(part["value"] for part in data if part["type"] == "text/html")
    assert f"<p>{ESCAPED}</p>" in html
    assert "<script" not in html
    assert orjson.loads(mail)["subject"] == HOSTILE
    assert orjson.loads(push)["message"]["notification"]["title"] == HOSTILE
    assert "%3Cscript%3E" in sms.decode()

    store = Store(tmp_path / "sandbox.db")
    sandbox = Client(create_sandbox(store, DatabaseTimeline(house.db), login=LOGIN))
    for request in house.providers.requests:
        url, headers = f"http://127.0.0.1{request.url.path}", dict(request.headers)
        assert sandbox.post(url, content=request.content, headers=headers).status_code < 300
    for path in ("/inbox", f"/inbox/{shop.ann}"):
        inbox = sandbox.get(f"http://127.0.0.1{path}").text
        assert ESCAPED in inbox
        assert "<script" not in inbox
    store.close()
