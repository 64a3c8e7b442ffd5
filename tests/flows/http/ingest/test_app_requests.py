"""The requests of the app libraries, byte by byte: requests/ has one of each.

Kotlin 1.24, Swift 1.9 and React Native ask for the settings, which must be 200, and then post
batches with the key in the body alone. Anything from 300 on makes Kotlin and Swift keep or drop
the batch.
"""

import gzip
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from profiles.tables import identifiers, profiles
from tests.support.http.receiving import Receiving, happened, made_key, names, receiving
from tests.support.patience import PATIENCE
from tests.support.shop import House

HERE = Path(__file__).parent / "requests"
# A token of APNs: 32 bytes in hex.
APNS = "740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad"
CHUNK = 300


def request(name: str, key: str) -> bytes:
    """The request with this key, and with its body coded as its head says."""
    head, _, text = (HERE / f"{name}.http").read_text().partition("\n\n")
    body = text.rstrip("\n").replace("{key}", key).replace("{apns}", APNS).encode()
    if "Content-Encoding: gzip" in head:
        body = gzip.compress(body)
    head = head.replace("{length}", str(len(body)))
    if "Transfer-Encoding: chunked" in head:
        parts = [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


def status(receiver: Receiving, raw: bytes) -> int:
    """Send the bytes; returns the status of the response."""
    parts = urlsplit(receiver.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), PATIENCE) as connection:
        connection.sendall(raw)
        return int(connection.recv(100).split()[1])


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("kotlin", ["cart_abandoned", "screen_viewed"]),
        ("swift", ["cart_abandoned", "screen_viewed"]),
        ("react_native", ["cart_abandoned", "screen_viewed"]),
    ],
)
def test_the_requests_of_apps_are_accepted_once(house: House, name: str, events: list[str]) -> None:
    house.open()
    key = made_key(house, "app", origins=())
    with receiving(house.segue) as receiver:
        for path in (f"/v1/projects/{key}/settings", f"/projects/{key}/settings"):
            settings = receiver.client.get(path)
            assert settings.status_code == 200
            assert settings.json()["integrations"]["Segment.io"]["apiHost"].endswith("/v1")
        assert status(receiver, request(name, key)) == 200
        recorded = happened(house)
        assert names(house) == events
        assert status(receiver, request(name, key)) == 200, "the response was lost"
        assert happened(house) == recorded
        assert status(receiver, request(name, "pk_unknown")) == 401
    [cart] = [event for event in recorded if event.name == "cart_abandoned"]
    assert cart.properties["cart_id"] == "c-9"
    assert cart.received_at - cart.occurred_at == 1, "corrected by sentAt"
    with house.db.transaction(write=False) as tx:
        kinds = set(tx.conn.execute(select(identifiers.c.kind)).scalars())
        [row] = tx.conn.execute(select(profiles)).all()
    assert kinds == {"anonymous_id"}, "neither user id nor device without a token or server key"
    if name == "kotlin":
        assert row.attributes == {"plan": "basic", "unconfirmed_email": "ann@example.com"}


def test_an_apns_token_is_refused_with_a_warning(house: House) -> None:
    """Only FCM's token can be sent to; Swift's library fills in the other one."""
    house.open()
    key = made_key(house, "crm", public=False)
    with receiving(house.segue) as receiver:
        body = request("swift", key).partition(b"\r\n\r\n")[2]
        [warning] = receiver.client.post("/v1/b", content=body).json()["warnings"]
    assert warning.startswith("batch.0: context.device.token is left out: it is an APNs token")
