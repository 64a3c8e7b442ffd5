"""The outcomes of SendGrid's, Twilio's and FCM's responses for a message and its address."""

from typing import Any

import httpx
import orjson
import pytest
import respx

from channels.providers.sending import LONGEST_WAIT, SendOutcome, result_of, retry_after
from channels.providers.twilio import ERRORS
from tests.support.providers.provider_samples import (
    CHANNEL_OF,
    PROVIDERS,
    TO,
    answered,
    connected,
    mails,
    outgoing,
    post,
    refused,
)


def test_accepted() -> None:
    mail = answered("sendgrid", httpx.Response(202, headers={"X-Message-Id": "abc"}))
    assert mail == SendOutcome(7, "sent", provider_id="abc")
    text = answered("twilio", httpx.Response(201, json={"sid": "SM1", "status": "queued"}))
    assert text == SendOutcome(7, "sent", provider_id="SM1")
    push = answered("fcm", httpx.Response(200, json={"name": "projects/p/messages/1"}))
    assert push == SendOutcome(7, "sent", provider_id="projects/p/messages/1")


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("status", "result"),
    [
        (200, "sent"), (202, "sent"), (301, "stopped"), (307, "stopped"), (400, "failed"),
        (401, "stopped"), (403, "stopped"), (404, "stopped"), (405, "stopped"), (408, "unknown"),
        (413, "failed"), (422, "failed"), (429, "retry"), (500, "unknown"), (502, "unknown"),
        (503, "retry"), (504, "unknown"), (520, "unknown"),
    ],
)  # fmt: skip
def test_every_status_without_a_known_error_text(name: str, status: int, result: str) -> None:
    sender, message = connected(name).sender, outgoing(CHANNEL_OF[name])
    assert result == result_of(status)
    # Postmark accepts or refuses each mail of a request, which such a body does not say.
    expected = "unknown" if (name, result) == ("postmark", "sent") else result
    for body in (b"", b"<html>", b"[]", b'"x"', b'{"errors": 1, "error": []}'):
        [outcome] = sender.read(status, {}, body, [message])
        assert (outcome.result, outcome.suppress) == (expected, None), body


@pytest.mark.parametrize(
    ("code", "status", "result", "suppress"),
    [
        (20003, 401, "stopped", None),
        (20429, 429, "retry", None),
        (21211, 400, "failed", "bounced"),
        (21212, 400, "stopped", None),
        (21408, 403, "failed", None),
        (21603, 400, "stopped", None),
        (21610, 400, "failed", "opted_out"),
        (21614, 400, "failed", "bounced"),
        (21617, 400, "failed", None),
        (21703, 400, "stopped", None),
        (20500, 500, "unknown", None),
    ],
)
def test_twilios_error_codes(code: int, status: int, result: str, suppress: str | None) -> None:
    error = {"code": code, "message": f"about {TO['sms']}", "status": status}
    outcome = answered("twilio", httpx.Response(status, json=error))
    assert (outcome.result, outcome.suppress) == (result, suppress)
    assert outcome.reason is not None
    assert outcome.reason.startswith(f"twilio {code}: ")
    assert TO["sms"] not in outcome.reason


def test_codes_of_twilios_callbacks_are_known_too() -> None:
    assert {code: ERRORS[code].suppress for code in (30003, 30005, 30006, 30007)} == {
        30003: None, 30005: "unregistered", 30006: "bounced", 30007: None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "result", "suppress", "wait"),
    [
        (404, "UNREGISTERED", "failed", "unregistered", None),
        (403, "SENDER_ID_MISMATCH", "failed", "unregistered", None),
        (400, "INVALID_ARGUMENT", "failed", None, None),
        (429, "QUOTA_EXCEEDED", "retry", None, 60),
        (503, "UNAVAILABLE", "retry", None, 10),
        (500, "INTERNAL", "unknown", None, None),
        (401, "THIRD_PARTY_AUTH_ERROR", "stopped", None, None),
        (403, None, "stopped", None, None),
        (404, None, "stopped", None, None),
    ],
)
def test_fcms_error_codes(
    status: int, code: str | None, result: str, suppress: str | None, wait: int | None
) -> None:
    error = {"code": status, "status": "X", "message": "some words"}
    details = [{"@type": "type.googleapis.com/google.rpc.BadRequest"}, {"errorCode": code}]
    outcome = answered("fcm", httpx.Response(status, json={"error": {**error, "details": details}}))
    assert (outcome.result, outcome.suppress, outcome.first_wait) == (result, suppress, wait)
    assert outcome.retry_after is None
    assert outcome.reason == f"fcm {code or status}: some words"


def test_a_broken_token_is_unregistered() -> None:
    words = "The registration token is not a valid FCM registration token"
    error = {"message": words, "details": [{"errorCode": "INVALID_ARGUMENT"}]}
    outcome = answered("fcm", httpx.Response(400, json={"error": error}))
    assert (outcome.result, outcome.suppress) == ("failed", "unregistered")


@pytest.mark.parametrize(
    ("status", "field", "result", "suppress"),
    [
        (400, "personalizations.0.to.0.email", "failed", "bounced"),
        (400, "personalizations.0.headers", "failed", None),
        (400, "content.0.value", "failed", None),
        (400, "from.email", "stopped", None),
        (400, "template_id", "stopped", None),
        (413, None, "failed", None),
        (401, None, "stopped", None),
        (403, "from", "stopped", None),
        (500, None, "unknown", None),
    ],
)
def test_sendgrids_errors(
    status: int, field: str | None, result: str, suppress: str | None
) -> None:
    outcome = answered("sendgrid", refused(status, field))
    assert (outcome.result, outcome.suppress) == (result, suppress)
    assert outcome.reason == f"sendgrid {status}: words" + (f" ({field})" if field else "")


def test_the_rest_of_a_partly_refused_batch_is_sent_again() -> None:
    sendgrid = connected("sendgrid", template_id="d-1")
    response = refused(400, "personalizations.3.to.0.email", "personalizations.0.custom_args")
    with respx.mock() as mock:
        mock.post(host="127.0.0.1").mock(return_value=response)
        found = post(sendgrid, mails(5))
    assert [one.message_id for one in found] == [0, 1, 2, 3, 4]
    assert [one.result for one in found] == ["failed", "retry", "retry", "failed", "retry"]
    assert [one.suppress for one in found] == [None, None, None, "bounced", None]
    assert {one.retry_after for one in found if one.result == "retry"} == {1}


def test_a_batch_refused_for_what_all_share_fails_as_a_whole() -> None:
    sendgrid = connected("sendgrid", template_id="d-1")
    for field in ("content", "personalizations", "personalizations.99.to"):
        body = refused(400, field).content
        found = sendgrid.sender.read(400, {}, body, mails(3))
        assert [one.result for one in found] == ["failed"] * 3


DATE = "Mon, 02 Mar 2026 04:30:00 GMT"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "17"}, 17),
        ({"retry-after": " 17 "}, 17),
        ({"retry-after": "999999999999"}, LONGEST_WAIT),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "Mon, 02 Mar 2026 04:31:30 GMT", "date": DATE}, 90),
        ({"retry-after": "Monday, 02-Mar-26 04:31:30 GMT", "date": DATE}, 90),
        ({"retry-after": "Mon, 02 Mar 2026 04:00:00 GMT", "date": DATE}, 1),
        ({"retry-after": "Tue, 02 Mar 2027 04:00:00 GMT", "date": DATE}, LONGEST_WAIT),
        ({"retry-after": "Mon, 02 Mar 2026 04:31:30 GMT"}, None),
        ({"retry-after": "Mon, 99 Mar 2026 04:31:30 GMT", "date": DATE}, None),
    ],
)
def test_retry_after(headers: dict[str, str], wait: int | None) -> None:
    assert retry_after(headers) == wait


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_respected_for_every_provider(name: str, status: int) -> None:
    outcome = answered(name, httpx.Response(status, headers={"Retry-After": "42"}))
    assert (outcome.result, outcome.retry_after) == ("retry", 42)


def test_sendgrids_rate_limit_begins_anew_at_its_reset() -> None:
    headers = {"x-ratelimit-reset": "1772425890", "date": DATE}
    [outcome] = connected("sendgrid").sender.read(429, headers, b"", mails(1))
    assert outcome.retry_after == 90
    [outcome] = connected("sendgrid").sender.read(503, headers, b"", mails(1))
    assert outcome.retry_after is None


def of_postmark(code: int, words: str = "words", status: int = 200, **changes: Any) -> SendOutcome:
    """What a mail becomes when Postmark answers so."""
    answer: Any = {"ErrorCode": code, "Message": words, "MessageID": "m-1", "To": TO["email"]}
    body = orjson.dumps([answer] if status == 200 else answer)
    one = outgoing("email", **changes)
    [outcome] = connected("postmark").sender.read(status, {"retry-after": "9"}, body, [one])
    return outcome


def test_postmark_answers_for_each_mail() -> None:
    assert of_postmark(0) == SendOutcome(7, "sent", provider_id="m-1")
    answers = [{"ErrorCode": 0, "MessageID": "m"}, {"ErrorCode": 300, "Message": "no"}, None]
    found = connected("postmark").sender.read(200, {}, orjson.dumps(answers), mails(3))
    assert [(one.message_id, one.result) for one in found] == [
        (0, "sent"),
        (1, "failed"),
        (2, "unknown"),
    ]
    found = connected("postmark").sender.read(200, {}, orjson.dumps(answers), mails(4))
    assert {one.result for one in found} == {"unknown"}


@pytest.mark.parametrize(
    ("status", "code", "words", "result", "suppress"),
    [
        (401, 10, "no", "stopped", None),
        (503, 100, "no", "retry", None),
        (200, 300, "Invalid 'To' address: 'ANN@example.com'.", "failed", "bounced"),
        (200, 300, "Error parsing 'From': Illegal email domain", "stopped", None),
        (200, 300, "Invalid metadata content.", "failed", None),
        (200, 400, "no", "stopped", None),
        (200, 405, "no", "stopped", None),
        (200, 406, "Found inactive addresses: ann@example.com.", "failed", "opted_out"),
        (422, 410, "no", "stopped", None),
        (200, 412, "no", "stopped", None),
        (429, 429, "no", "retry", None),
        (200, 1235, "no", "stopped", None),
        (200, 701, "about ann@example.com", "failed", None),
        (500, 0, "no", "unknown", None),
    ],
)
def test_postmarks_error_codes(
    status: int, code: int, words: str, result: str, suppress: str | None
) -> None:
    outcome = of_postmark(code, words, status)
    assert (outcome.result, outcome.suppress) == (result, suppress)
    assert outcome.retry_after == (9 if result == "retry" else None)
    assert outcome.reason is not None
    assert outcome.reason.startswith("postmark ")
    assert TO["email"] not in outcome.reason.lower()


def test_an_inactive_recipient_of_a_broadcast_stream_counts_as_unsubscribed() -> None:
    assert of_postmark(406, kind="marketing").suppress == "opted_out"
    assert of_postmark(406, kind="transactional").suppress == "bounced"


def test_a_refused_request_suppresses_no_address() -> None:
    body = orjson.dumps({"ErrorCode": 300, "Message": "Invalid 'To' address: 'p1@example.com'."})
    found = connected("postmark").sender.read(422, {}, body, mails(3))
    assert {(one.result, one.suppress) for one in found} == {("failed", None)}
