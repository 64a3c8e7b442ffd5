"""Keys of senders: made, listed, revoked, and stored only as hashes."""

import pytest
from sqlalchemy import text

from config.access.api_keys import (
    ApiKey,
    digest_of,
    list_keys,
    live_keys,
    make_key,
    read_origin,
    revoke_key,
)
from config.database.engine import Database
from config.errors import SegueError


def test_a_key_is_made_listed_and_revoked(db: Database) -> None:
    with db.transaction() as tx:
        web = make_key(tx, "web", public=True, origins=["https://Shop.example:443/"])
        server = make_key(tx, "crm", public=False)
        assert (web[:3], server[:3]) == ("pk_", "sk_")
        assert live_keys(tx) == {
            digest_of(web): ApiKey(
                "web", is_public=True, origins=frozenset({"https://shop.example"})
            ),
            digest_of(server): ApiKey("crm"),
        }
        revoke_key(tx, "web")
        assert list(live_keys(tx).values()) == [ApiKey("crm")]
        listed = [(one.label, one.revoked_at is None) for one in list_keys(tx)]
        assert listed == [("crm", True), ("web", False)]
        for label in ("web", "nobody"):
            with pytest.raises(SegueError, match="no live key"):
                revoke_key(tx, label)


def test_only_the_hash_of_a_key_is_stored(db: Database) -> None:
    with db.transaction() as tx:
        key = make_key(tx, "web", public=True)
        [row] = tx.conn.execute(text("SELECT * FROM api_key")).all()
    assert key not in str(row)
    assert key.removeprefix("pk_") not in str(row)


@pytest.mark.parametrize(
    ("label", "public", "origins", "why"),
    [
        ("", True, [], "is not a label"),
        ("a b", True, [], "is not a label"),
        ("web", True, ["shop.example"], "is not an origin"),
        ("web", False, ["https://shop.example"], "no origins"),
        ("taken", True, [], "choose another label"),
    ],
)
def test_an_unusable_key_is_refused(
    db: Database, label: str, public: bool, origins: list[str], why: str
) -> None:
    with db.transaction() as tx:
        make_key(tx, "taken", public=True)
        with pytest.raises(SegueError, match=why):
            make_key(tx, label, public=public, origins=origins)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://shop.example", "https://shop.example"),
        (" HTTPS://SHOP.example/ ", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("https://shop.example:8443", "https://shop.example:8443"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_an_origin_is_stored_as_browsers_write_it(text: str, origin: str) -> None:
    assert read_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "null", "shop.example", "https://", "https://*.shop.example", "//shop.example"),
        *("https://shop.example/cart", "https://shop.example?a", "https://u:p@shop.example"),
        *("https://shop.example:port", "https://a b.example"),
    ],
)
def test_an_invalid_origin_is_refused(text: str) -> None:
    with pytest.raises(SegueError, match="is not an origin"):
        read_origin(text)
