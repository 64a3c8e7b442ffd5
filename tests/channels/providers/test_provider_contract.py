"""The contract of every provider in channels/providers/; new files are tested automatically."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import get_args
from urllib.parse import parse_qsl

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.providers.base import ConnectedProvider
from channels.providers.registry import connect_providers, known_providers, webhooks
from channels.providers.sending import (
    LONGEST_WAIT,
    DoesNotFit,
    Outgoing,
    SendOutcome,
    SendResult,
    Suppress,
)
from config.policy import CHANNELS, Policy
from config.settings import Settings
from tests.support.providers.provider_samples import (
    CONTENT,
    PROVIDERS,
    SANDBOX,
    TO,
    connected,
    outgoing,
)

# Each as it is by default, and SendGrid with a pass-through template.
ALL = [*map(connected, PROVIDERS), connected("sendgrid", template_id="d-1")]
every_provider = pytest.mark.parametrize(
    "provider", ALL, ids=lambda one: f"{one.name}-{one.sender.batch_size}"
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99_999) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "errors",
                    "error",
                    "code",
                    "message",
                    "details",
                    "errorCode",
                    "field",
                    "sid",
                    "name",
                    "ErrorCode",
                    "Message",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def batch_for(provider: ConnectedProvider, number: int) -> list[Outgoing]:
    channel = provider.channel
    to = TO[channel]
    return [
        outgoing(channel, 4_200_000 + i, to=f"p{i}@example.com" if channel == "email" else to)
        for i in range(number)
    ]


def check(outcomes: Sequence[SendOutcome], batch: Sequence[Outgoing]) -> None:
    assert [one.message_id for one in outcomes] == [one.message_id for one in batch]
    for one in outcomes:
        assert one.result in get_args(SendResult)
        assert one.suppress is None or (one.suppress in get_args(Suppress))
        assert one.suppress is None or one.result == "failed"
        assert one.retry_after is None or 0 < one.retry_after <= LONGEST_WAIT
        assert one.first_wait is None or 0 < one.first_wait <= LONGEST_WAIT
        assert (one.reason is None) == (one.result == "sent")
        assert one.provider_id is None or one.result == "sent"


def test_each_channel_has_a_provider() -> None:
    assert set(connect_providers(SANDBOX).routes) == set(CHANNELS)


@every_provider
def test_a_full_batch_is_one_request_that_names_every_message(provider: ConnectedProvider) -> None:
    batch = batch_for(provider, provider.sender.batch_size)
    request = provider.sender.prepare(batch)
    assert request == provider.sender.prepare(batch)
    assert httpx.URL(request.url).host == "127.0.0.1"
    assert all(str(one.message_id).encode() in request.content for one in batch)
    kind = request.headers["Content-Type"]
    assert orjson.loads(request.content) if "json" in kind else parse_qsl(request.content.decode())


@every_provider
def test_a_single_message_always_fits(provider: ConnectedProvider) -> None:
    content = CONTENT[provider.channel]
    large = {field: "x" * 40_000_000 for field in ("html", "body") if hasattr(content, field)}
    values = asdict(content)
    one = outgoing(provider.channel, content=type(content)(**(values | large)))
    try:
        assert provider.sender.prepare([one]).content
    except DoesNotFit:
        pytest.fail("a message that never fits would be halved for ever")


@every_provider
def test_any_text_arrives_unchanged(provider: ConnectedProvider) -> None:
    words = "Zoë & “co” <b>+1%\n{{ x }} 😀 \\ \" '"
    content = CONTENT[provider.channel]
    values = asdict(content)
    field = "html" if "html" in values else "body"
    one = outgoing(provider.channel, content=type(content)(**(values | {field: words})))
    body = provider.sender.prepare([one]).content.decode()
    found = body if body.startswith(("{", "[")) else [value for _, value in parse_qsl(body)]
    assert words in found or orjson.dumps(words).decode()[1:-1] in found


@every_provider
@given(
    status=st.integers(200, 599),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "date", "x-ratelimit-reset", "x-message-id"]),
        st.text(max_size=30) | st.integers().map(str),
    ),
    body=st.binary(max_size=40) | JSON.map(orjson.dumps),
)
def test_any_answer_is_read(
    provider: ConnectedProvider, status: int, headers: dict[str, str], body: bytes
) -> None:
    batch = batch_for(provider, min(provider.sender.batch_size, 3))
    outcomes = provider.sender.read(status, headers, body, batch)
    check(outcomes, batch)
    for one in outcomes:
        # Nothing counts as accepted that was refused, and nothing that may have been accepted is
        # sent again: an accepted request whose answer says nothing about a mail is `unknown`.
        assert (one.result == "sent") <= (status < 300)
        if status < 300 and not body.startswith(b"["):
            assert one.result in ("sent", "unknown")


@every_provider
@pytest.mark.parametrize(
    ("status", "results"),
    [
        (401, {"stopped"}),
        (403, {"stopped"}),
        (429, {"retry"}),
        (503, {"retry"}),
        (504, {"unknown"}),
    ],
)
def test_every_status_code_has_its_result(
    provider: ConnectedProvider, status: int, results: set[str]
) -> None:
    batch = batch_for(provider, provider.sender.batch_size)
    outcomes = provider.sender.read(status, {"retry-after": "7"}, b"", batch)
    check(outcomes, batch)
    assert {one.result for one in outcomes} == results
    if results == {"retry"}:
        assert {one.retry_after for one in outcomes} == {7}


@every_provider
def test_keys_stay_out_of_the_body(provider: ConnectedProvider) -> None:
    request = provider.sender.prepare(batch_for(provider, 1))
    keys = {value.split()[-1] for name, value in request.headers.items() if name != "Content-Type"}
    assert keys
    assert all(key.encode() not in request.content for key in keys)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_needs_only_settings_that_it_has(name: str) -> None:
    provider = known_providers()[name]
    assert {need.setting for need in provider.needs} <= set(provider.settings.model_fields)
    assert provider.settings.model_config["env_prefix"] == f"SEGUE_{name.upper()}_"


def test_each_webhook_belongs_to_a_provider() -> None:
    hooks = webhooks(Settings(), Policy())
    assert {hook.path.split("/")[2] for hook in hooks} == set(PROVIDERS) - {"fcm"}
    assert len({hook.path for hook in hooks}) == len(hooks)
