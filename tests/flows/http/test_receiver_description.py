"""The receiver conforms to its OpenAPI description, and refuses requests outside it."""

import logging
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.generation import GenerationMode

import flows.http.ingest.segment
from channels.links import preferences_url, unsubscribe_url
from config.access.signatures import SIGNATURE, TIMESTAMP, sign
from config.database.engine import Database
from config.database.schema import migrate
from config.settings import Settings
from journeys.dsl import Wait
from tests.support.http.receiving import WRITE_KEY, Receiving, receiving
from tests.support.proof import cases
from tests.support.shop import MONDAY, House, described

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
Prepared = requests.PreparedRequest

ANN = 1  # the only customer there is
_U = unsubscribe_url(Settings(), ANN, "email", "news", "ann@example.com")
_P = preferences_url(Settings(), ANN, "email", "ann@example.com", MONDAY)
# What leads to something of ours, path by path.
_OF_OURS = {
    "/hooks/journeys/{name}": {"name": "j"},
    "/v1/profiles/{identifier}": {"identifier": "user_id:c1"},
    "/u/{token}": {"token": _U.rpartition("/")[2]},
    "/preferences/{token}": {"token": _P.rpartition("/")[2]},
}


@pytest.fixture(scope="module")
def shared_receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    file: Path = tmp_path_factory.mktemp("receiver") / "segue.db"
    database = Database(f"sqlite:///{file}")
    migrate(database)
    house = House(database)
    house.open(described(Wait("1d")))
    assert house.customer() == ANN
    with receiving(house.segue) as receiver:
        yield receiver
    database.close()


@pytest.fixture(scope="module")
def description(shared_receiver: Receiving) -> Any:
    return schemathesis.openapi.from_url(f"{shared_receiver.url}/openapi.json")


def signed_in(request: Prepared) -> Prepared:
    """With the write key, and signed: so that more is reached than the door."""
    request.prepare_auth((WRITE_KEY, ""))
    body = request.body or b""
    if isinstance(body, str):
        body = body.encode()
    assert isinstance(body, bytes)
    request.headers[TIMESTAMP] = str(MONDAY)
    path = unquote(urlsplit(request.url).path)
    request.headers[SIGNATURE] = sign(Settings().hook_secret, str(MONDAY), path, body)
    return request


@pytest.mark.proof
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_response_is_described(description: Any, mode: GenerationMode) -> None:
    answers: dict[str, set[int]] = defaultdict(set)
    for found in description.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # there is nothing in it to get wrong

        @settings(max_examples=cases(test=4, prove=200), suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def answered(case: Any) -> None:
            case.validate_response(case.call(), checks=CHECKS)
            case.path_parameters.update(_OF_OURS.get(case.operation.path, {}))
            answer = case.call(auth=signed_in)
            case.validate_response(answer, checks=CHECKS)
            answers[case.operation.path].add(answer.status_code)

        answered()
    inside = {path for path, statuses in answers.items() if statuses & {200, 400}}
    ours = [path for path in _OF_OURS if path in answers]
    assert inside >= {"/v1/batch", "/v1/identify", "/hooks/journeys/{name}", *ours}
    assert mode is GenerationMode.NEGATIVE or ours == [*_OF_OURS]


# What is not described ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1", "/v1/x", "/v1/track/", "/V1/track", "/hooks", "/hooks/journeys", "/redoc"),
        *("/.env", "/static/../settings.py", "/v1/track%2F", "/%00", "/docs/oauth2-redirect"),
    ],
)
def test_other_paths_are_not_found(shared_receiver: Receiving, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = shared_receiver.client.request(method, path)
        assert answer.status_code == 404
        assert answer.json() == {
            "success": False,
            "code": "not_found",
            "message": "this path does not exist; /openapi.json lists the paths",
        }


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/track", "POST"),
        ("/v1/batch", "POST"),
        ("/hooks/sendgrid", "POST"),
        ("/hooks/twilio/inbound", "POST"),
        ("/hooks/journeys/j", "POST"),
        ("/v1/profiles/user_id:a/b", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/u/x", "GET, HEAD, POST"),
        ("/preferences/x", "GET, HEAD, POST"),
    ],
)
def test_another_method_is_refused(shared_receiver: Receiving, path: str, allowed: str) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"} - set(
        allowed.split(", ")
    ):
        answer = shared_receiver.client.request(method, path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
        assert method == "HEAD" or answer.json()["code"] == "wrong_method"


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json", "/u/x", "/preferences/x"])
def test_head_is_answered_as_get_without_the_body(shared_receiver: Receiving, path: str) -> None:
    get = shared_receiver.client.get(path)
    head = shared_receiver.client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for header in ("content-type", "content-length"):
        assert head.headers[header] == get.headers[header]


def test_the_description_is_valid_openapi(shared_receiver: Receiving) -> None:
    described = shared_receiver.client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(described).validate()


def test_the_description_and_its_page_are_made_once(
    shared_receiver: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = [shared_receiver.client.get(path) for path in ("/docs", "/openapi.json")]
    monkeypatch.setattr("flows.http.pages.rendering.CustomerPages.page", None)
    monkeypatch.setattr("fastapi.FastAPI.openapi", None)
    again = [shared_receiver.client.get(path) for path in ("/docs", "/openapi.json")]
    assert [one.content for one in once] == [one.content for one in again]


def test_every_call_is_described_with_an_example_that_is_accepted(
    shared_receiver: Receiving,
) -> None:
    paths = shared_receiver.client.get("/openapi.json").json()["paths"]
    posted = [path for path in paths if "requestBody" in paths[path].get("post", {})]
    posted = [path for path in posted if path.startswith("/v1/")]
    assert len(posted) == 11
    for path in posted:
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        answer = shared_receiver.post(path, json=content["example"])
        assert (path, answer.status_code) == (path, 200)
        assert answer.json()["success"] is True
        assert set(answer.json()) <= {"success", "results"}


def test_the_description_is_a_page_too(shared_receiver: Receiving) -> None:
    page = shared_receiver.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in shared_receiver.client.get("/openapi.json").json()["paths"]:
        assert path in page.text
    assert "<script" not in page.text
    assert "&quot;cart_abandoned&quot;" in page.text or "&#34;cart_abandoned&#34;" in page.text


def test_the_page_has_contents_that_lead_to_every_call(shared_receiver: Receiving) -> None:
    page = shared_receiver.client.get("/docs").text
    ids = re.findall(r' id="([^"]+)"', page)
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids)
    described = shared_receiver.client.get("/openapi.json").json()
    operations = [one for path in described["paths"].values() for one in path.values()]
    assert {one["operationId"] for one in operations} <= set(links)
    tags = {tag["name"] for tag in described["tags"]}
    assert {tag for one in operations for tag in one["tags"]} == tags <= set(links)
    assert all(one["summary"] for one in operations)
    assert described["servers"] == [{"url": "http://127.0.0.1:8080"}]
    assert "How to sign in" in page


def test_the_examples_with_curl_are_accepted(shared_receiver: Receiving) -> None:
    page = unescape(shared_receiver.client.get("/docs").text)
    examples = re.findall(r"<pre[^>]*>(curl '?http.*?)</pre>", page, re.DOTALL)
    assert len(examples) == 13
    for example in examples:
        _, url, _, user, *body = shlex.split(example.replace("\\\n", " "))
        assert user == "$SEGUE_WRITE_KEY:"
        _, _, path, query, _ = urlsplit(url)
        answer = shared_receiver.client.request(
            "POST" if body else "GET",
            f"{path}?{query}",
            auth=(WRITE_KEY, ""),
            content=body[1] if body else None,
        )
        assert (url, answer.status_code) == (url, 200)


# What we did not foresee --------------------------------------------------------------------------


def test_internal_errors_are_logged_without_the_request(
    shared_receiver: Receiving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no room for ann@example.com")

    monkeypatch.setattr(flows.http.ingest.segment, "take_calls", fail)
    with caplog.at_level(logging.DEBUG):
        said = {"userId": "ann@example.com", "event": "x"}
        answer = shared_receiver.post("/v1/track", json=said)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "failed")
    [entry] = [one for one in caplog.records if one.name == "flows.http.errors"]
    name = problem["message"].rpartition(" ")[2]
    assert f"error {name}: RuntimeError at " in entry.getMessage()
    assert "ann" not in answer.text
    assert "ann" not in caplog.text


def test_logs_hold_no_addresses_and_no_tokens(
    shared_receiver: Receiving, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        traits = {"email": "ann@example.com", "phone": "+447700900123"}
        shared_receiver.post("/v1/identify", json={"userId": "u-secret", "traits": traits})
        shared_receiver.post("/v1/identify", json={"userId": "u-secret", "traits": 7})
        shared_receiver.post("/v1/identify", content=b"u-secret")
        shared_receiver.client.post("/v1/track", auth=("not-the-key", ""), json={})
        shared_receiver.client.get("/preferences/some-token")
        for identifier in ("email:ann@example.com", "user_id:u-secret", "phone:+447700900123", "x"):
            shared_receiver.client.get(f"/v1/profiles/{identifier}", auth=(WRITE_KEY, ""))
        shared_receiver.client.get("/nothing/some-token?email=ann@example.com")
    ours = [one for one in caplog.records if not one.name.startswith(("httpx", "httpcore"))]
    text = " ".join(one.getMessage() for one in ours)
    for secret in ("ann@", "7700", "u-secret", "not-the-key", WRITE_KEY, "some-token"):
        assert secret not in text
