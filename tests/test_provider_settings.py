"""Which providers there are, and what they need to be set."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from channels.provider import providers
from config.errors import SegueError
from config.settings import Settings
from tests.provider_samples import CHANNELS, SANDBOX, outgoing


def key_file(folder: Path) -> Path:
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "key.json"
    path.write_bytes(
        orjson.dumps(
            {
                "type": "service_account",
                "project_id": "shop-1",
                "private_key": key.decode(),
                "client_email": "segue@shop-1.example",
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )
    )
    return path


def live(folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "providers": "live",
        "public_url": "https://journeys.your.shop",
        "secret_key": "a long random text",
        "sendgrid_api_key": "SG.key",
        "sendgrid_from": "hello@your.shop",
        "twilio_account_sid": "AC1",
        "twilio_auth_token": "secret",
        "twilio_from": "+15005550006",
        "fcm_credentials_file": key_file(folder),
    }
    return Settings(**(values | changes))


def test_live_providers_talk_to_the_real_addresses(tmp_path: Path) -> None:
    found = providers(live(tmp_path))
    urls = {channel: found[channel].prepare([outgoing(channel)]).url for channel in CHANNELS}
    assert urls == {
        "email": "https://api.sendgrid.com/v3/mail/send",
        "sms": "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages.json",
        "push": "https://fcm.googleapis.com/v1/projects/shop-1/messages:send",
    }


def test_the_sandbox_needs_no_keys_and_gets_no_real_ones(tmp_path: Path) -> None:
    found = providers(live(tmp_path, providers="sandbox"))
    for channel in CHANNELS:
        request = found[channel].prepare([outgoing(channel)])
        assert request.url.startswith(SANDBOX.sandbox_url)
        assert "SG.key" not in str(request.headers)
        assert "Authorization" in request.headers


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sendgrid_api_key": ""}, "SEGUE_SENDGRID_API_KEY"),
        ({"sendgrid_from": ""}, "SEGUE_SENDGRID_FROM is not set"),
        ({"sendgrid_from": Settings().sendgrid_from}, "SEGUE_SENDGRID_FROM is not set"),
        ({"twilio_auth_token": "", "twilio_from": ""}, "_TWILIO_AUTH_TOKEN and SEGUE_TWILIO_FROM"),
        ({"fcm_credentials_file": None}, "SEGUE_FCM_CREDENTIALS_FILE"),
        ({"fcm_credentials_file": Path("/nowhere/key.json")}, "CREDENTIALS_FILE /nowhere"),
        ({"secret_key": Settings.model_fields["secret_key"].default}, "SEGUE_SECRET_KEY"),
    ],
)  # fmt: skip
def test_live_names_the_setting_that_is_missing(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(SegueError, match=named):
        providers(live(tmp_path, **changes))


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://journeys.your.shop", "https://", "https://localhost", "journeys.your.shop"),
        *("https://127.0.0.1", "https://[::1]:8443", "https://0.0.0.0/segue", "https://10.0.0.5"),
        *("https://segue.localhost:8443", "https://your.shop/?x=1", "https://[", "https://inside"),
    ],
)
def test_live_demands_an_address_that_others_reach(tmp_path: Path, url: str) -> None:
    with pytest.raises(SegueError, match=r"SEGUE_PUBLIC_URL is .* Set it to yours"):
        providers(live(tmp_path, public_url=url))


@pytest.mark.parametrize(
    "url",
    [
        *("https://your.shop/", "https://a.b.your.shop:8443/segue", "https://xn--4gq.xn--3pxu8k"),
        *("https://localhost.shop", "HTTPS://Journeys.Your.Shop", "https://127.0.0.1.nip.io"),
    ],
)
def test_live_takes_any_address_of_ones_own(tmp_path: Path, url: str) -> None:
    assert len(providers(live(tmp_path, public_url=url))) == len(CHANNELS)


GOOD = """
from channels.providers.sendgrid import SendGrid
def connect(settings):
    return SendGrid(settings, "http://127.0.0.1:1", "key")
"""


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"broken": "import nonexistent_module"}, "broken does not start: ModuleNotFoundError"),
        ({"broken": "x = ("}, "broken does not start: SyntaxError"),
        ({"broken": ""}, r"broken does not start: AttributeError.*connect\(settings\)"),
        ({"broken": "def connect(settings): return 1 / 0"}, "broken does not start: ZeroDivision"),
        ({"broken": "def connect(settings): return object()"}, "broken gives no Provider"),
        ({"first": GOOD, "second": GOOD}, "sendgrid and .*second both send email"),
    ],
)
def test_a_broken_provider_fails_loudly_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], words: str
) -> None:
    name = f"plugins_{abs(hash(words))}"
    folder = tmp_path / name
    folder.mkdir()
    for file, source in files.items():
        (folder / f"{file}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, name, package)
    with pytest.raises(SegueError, match=words):
        providers(SANDBOX, package)
