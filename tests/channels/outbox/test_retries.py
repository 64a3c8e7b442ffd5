"""Retries: at the provider's time or with growing pauses, with jitter."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from channels.providers.fcm import QUOTA_WAIT, SERVER_WAIT
from channels.providers.sending import SendOutcome
from channels.providers.transport import Transport
from config.channels import ChannelName
from config.timing import TIMING
from journeys.dsl import SMS, Send
from tests.support.failures import at
from tests.support.providers.dispatching import ONE
from tests.support.providers.provider_samples import SANDBOX, connected, may_leave, outgoing
from tests.support.shop import MONDAY, House, described


@pytest.mark.parametrize("channel", ["email", "sms", "push"])
@pytest.mark.parametrize(
    "named",
    [
        {"retry-after": "90"},
        {
            "retry-after": "Mon, 02 Mar 2026 03:01:30 GMT",  # by a clock that is not ours
            "date": "Mon, 02 Mar 2026 03:00:00 GMT",
        },
    ],
    ids=["seconds", "date"],
)
def test_the_provider_sets_the_retry_time(
    house: House, channel: ChannelName, named: dict[str, str]
) -> None:
    house.open(described(Send("s", ONE[channel])))
    house.customer()
    house.providers.answer(channel, httpx.Response(429, headers=named), httpx.Response(503))
    house.launch("j")
    [row] = house.rows()
    assert row.state == "planned"
    assert MONDAY + 90 <= row.send_at < MONDAY + 135
    house.later("89s")
    assert at(house, channel) == 1
    house.later("1h")
    assert at(house, channel) == 3
    assert [row.state for row in house.rows()] == ["sent"]


@pytest.mark.parametrize(
    ("channel", "answer", "first", "then"),
    [
        ("email", httpx.Response(503), TIMING.first_retry, 2 * TIMING.first_retry),
        ("sms", httpx.Response(503), TIMING.first_retry, 2 * TIMING.first_retry),
        ("push", httpx.Response(503), SERVER_WAIT, 2 * SERVER_WAIT),
        ("push", httpx.Response(429), QUOTA_WAIT, 2 * QUOTA_WAIT),
        *((one, httpx.Response(429, headers={"retry-after": "90"}), 90, 90) for one in ONE),
    ],
)
def test_retries_of_one_batch_are_spread_over_time(
    house: House, channel: ChannelName, answer: httpx.Response, first: int, then: int
) -> None:
    """Each waits as long as is due and up to half as much again, and longer each time unless the
    provider names the wait.
    """
    people = 15
    house.open(described(Send("s", ONE[channel])))
    for _ in range(people):
        house.customer()
    house.providers.answer(channel, *[answer] * 2 * people)
    house.launch("j")
    for wait in (first, then):
        waits = [row.send_at - house.now for row in house.rows()]
        assert min(waits) >= wait
        assert max(waits) < wait * 3 / 2
        assert len(set(waits)) > 3
        house.db.now = house.now + max(waits)
        house.dispatch()
    house.later("1h")
    assert {row.state for row in house.rows()} == {"sent"}


def test_a_retry_delay_begins_at_the_response(house: House) -> None:
    """It took longer to come than the provider asks us to wait."""
    house.open(described(Send("s", SMS("hello"))))
    house.customer()
    house.providers.answer("sms", httpx.Response(429, headers={"retry-after": "20"}))

    def slow() -> None:
        house.db.now = MONDAY + 30

    house.providers.meanwhile = slow
    house.launch("j")
    [row] = house.rows()
    assert MONDAY + 30 + 20 <= row.send_at < MONDAY + 30 + 30


@contextmanager
def https_server(directory: Path, *, valid: bool) -> Iterator[tuple[int, list[bytes]]]:
    """A TLS server with an untrusted or expired certificate; yields its port and its input."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=9 if valid else -1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                    said.append(tls.recv(1000))

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield listener.getsockname()[1], said
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


@pytest.mark.parametrize("valid", [True, False], ids=["nobody vouches for it", "expired"])
def test_an_untrusted_certificate_is_retried_later(tmp_path: Path, valid: bool) -> None:
    """Nothing is sent to such a server; the message waits until the certificate is valid."""
    with https_server(tmp_path, valid=valid) as (port, said):
        [outcome] = posted_to(f"https://127.0.0.1:{port}")
    assert outcome.result == "retry"
    assert "CERTIFICATE_VERIFY_FAILED" in str(outcome.reason)
    assert said == []


def test_a_name_that_does_not_resolve() -> None:
    [outcome] = posted_to("https://provider.invalid")
    assert outcome.result == "retry"
    assert str(outcome.reason).startswith("ConnectError")


def posted_to(url: str) -> list[SendOutcome]:
    """A real connection, or the lack of one."""

    async def post() -> list[SendOutcome]:
        twilio = connected("twilio", url=url)
        async with Transport(SANDBOX) as transport:
            return await transport.post(twilio, [outgoing("sms", 1)], may_leave)

    return asyncio.run(post())
