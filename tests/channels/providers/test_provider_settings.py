"""The known providers and their required settings."""

import asyncio
import sys
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

import channels.providers
from channels.providers.base import ConnectedProvider
from channels.providers.registry import (
    Route,
    connect_providers,
    known_providers,
    routes,
    unmet_needs,
)
from channels.providers.sending import ProviderRequest
from channels.rules.recipient import Kind
from config.errors import SegueError
from config.settings import Settings
from flows.app import Segue
from flows.http.app import create_app
from journeys.dsl import Send, WhatsApp
from tests.support.configured import configured
from tests.support.providers.provider_samples import LIVE, SANDBOX, outgoing
from tests.support.shop import TEXTS, House, described


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
    return configured(**(LIVE | {"fcm_credentials_file": key_file(folder)} | changes))


def sample_request(provider: ConnectedProvider) -> ProviderRequest:
    return provider.sender.prepare([outgoing(provider.channel)])


def test_live_providers_talk_to_the_real_addresses(tmp_path: Path) -> None:
    found = connect_providers(live(tmp_path)).by_name
    assert {name: sample_request(one).url for name, one in found.items()} == {
        "sendgrid": "https://api.sendgrid.com/v3/mail/send",
        "twilio": "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages.json",
        "fcm": "https://fcm.googleapis.com/v1/projects/shop-1/messages:send",
        "twilio_whatsapp": "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages.json",
    }


def test_the_sandbox_needs_no_keys_and_gets_no_real_ones(tmp_path: Path) -> None:
    for one in connect_providers(live(tmp_path, providers="sandbox")).by_name.values():
        request = sample_request(one)
        assert request.url.startswith(SANDBOX.sandbox_url)
        assert "SG.key" not in str(request.headers)
        assert "Authorization" in request.headers


GENERAL = [name for name in LIVE if name in Settings.model_fields and name != "providers"]
# Those of a provider; whatsapp_provider chooses one.
OWN = [name for name in LIVE if name not in (*Settings.model_fields, "whatsapp_provider")]


@pytest.mark.parametrize("setting", GENERAL)
def test_live_names_the_setting_that_is_missing(tmp_path: Path, setting: str) -> None:
    default = Settings.model_fields[setting].default
    blank = SecretStr("  ") if isinstance(default, SecretStr) else "  "
    for value in (default, blank):
        settings = live(tmp_path).model_copy(update={setting: value})
        with pytest.raises(SegueError, match=rf"SEGUE_{setting.upper()} is not set: \w+"):
            connect_providers(settings)


@pytest.mark.parametrize("value", ["", "  ", None])
@pytest.mark.parametrize("setting", OWN)
def test_live_names_the_setting_of_a_provider_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str | None
) -> None:
    settings, variable = live(tmp_path), f"SEGUE_{setting.upper()}"
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(SegueError, match=rf"{variable} is not set: \w+"):
        connect_providers(settings)


def test_live_names_all_that_is_missing_with_what_is_lost(tmp_path: Path) -> None:
    with pytest.raises(SegueError) as refused:
        connect_providers(
            live(tmp_path, sendgrid_webhook_key="", twilio_auth_token="", receiver_port=0)
        )
    said = str(refused.value)
    assert "SEGUE_SENDGRID_WEBHOOK_KEY is not set: SendGrid's events are refused, so unsub" in said
    assert "SEGUE_TWILIO_AUTH_TOKEN is not set" in said
    assert "every STOP is lost" in said
    assert "SEGUE_RECEIVER_PORT is 0" in said
    assert "SEGUE_SECRET_KEY" not in said


def test_a_credentials_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SegueError, match="CREDENTIALS_FILE /nowhere"):
        connect_providers(live(tmp_path, fcm_credentials_file="/nowhere/key.json"))


@pytest.mark.parametrize("sender", ["Your Shop", "SHOP", "447700900001", "+0770", "MG123", "+44 7"])
def test_live_requires_an_sms_sender_that_receives_replies(tmp_path: Path, sender: str) -> None:
    with pytest.raises(SegueError, match=r"SEGUE_TWILIO_FROM is '.*STOP"):
        connect_providers(live(tmp_path, twilio_from=sender))


@pytest.mark.parametrize("sender", ["+447700900001", "60123", "MG" + "0a" * 16])
def test_live_accepts_sms_senders_that_receive_replies(tmp_path: Path, sender: str) -> None:
    assert unmet_needs(live(tmp_path, twilio_from=sender)) == []


def test_the_receiver_does_not_start_without_webhook_keys(house: House) -> None:
    segue = house.open(**LIVE | {"sendgrid_webhook_key": ""})
    with pytest.raises(SegueError, match="SEGUE_SENDGRID_WEBHOOK_KEY is not set"):
        create_app(segue, lambda _: None)


def test_settings_of_a_provider_that_sends_nothing_are_not_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = live(tmp_path, sendgrid_api_key="", sendgrid_webhook_key="")
    assert len(unmet_needs(settings)) == 2
    monkeypatch.setenv("SEGUE_EMAIL_PROVIDER", "postmark")
    assert [one.split()[0] for one in unmet_needs(settings)] == [
        *("SEGUE_POSTMARK_SERVER_TOKEN", "SEGUE_POSTMARK_FROM", "SEGUE_POSTMARK_WEBHOOK_PASSWORD"),
    ]
    monkeypatch.setenv("SEGUE_POSTMARK_WEBHOOK_PASSWORD", "short but secret")
    [*_, said] = unmet_needs(settings)
    assert said.startswith("SEGUE_POSTMARK_WEBHOOK_PASSWORD is invalid: Postmark's events are")
    assert "short" not in said


def chosen(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Route:
    for name, value in variables.items():
        monkeypatch.setenv(f"SEGUE_EMAIL_{name}", value)
    return routes(known_providers(), SANDBOX)["email"]


def test_sendgrid_sends_mail_unless_a_setting_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = routes(known_providers(), SANDBOX)
    assert {channel: route.providers for channel, route in found.items()} == {
        "email": ["sendgrid"], "sms": ["twilio"], "push": ["fcm"],
        "whatsapp": ["twilio_whatsapp"],
    }  # fmt: skip
    assert chosen(monkeypatch, PROVIDER="postmark").providers == ["postmark"]
    others = ["twilio", "fcm", "twilio_whatsapp"]
    assert list(connect_providers(Settings()).by_name) == ["postmark", *others]


def test_a_topic_counts_before_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    route = chosen(
        monkeypatch,
        PROVIDER_BY_KIND='{"transactional": "postmark"}',
        PROVIDER_BY_TOPIC='{"receipts": "sendgrid", "news": "postmark"}',
    )
    sent = {
        (kind, topic): route.provider(kind, topic)
        for kind in get_args(Kind)
        for topic in ("receipts", "news", "other")
    }
    assert {key for key, name in sent.items() if name == "postmark"} == {
        ("marketing", "news"),
        ("transactional", "news"),
        ("transactional", "other"),
    }
    [*names] = connect_providers(Settings()).by_name
    assert names == ["sendgrid", "postmark", "twilio", "fcm", "twilio_whatsapp"]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (
            "PROVIDER",
            "mailgun",
            "'mailgun', which is no provider of email; use postm",
        ),
        ("PROVIDER", "twilio", "'twilio', which is no provider of email"),
        ("PROVIDER_BY_KIND", '{"marketing": "mailgun"}', "SEGUE_EMAIL_PROVIDER_BY_KIND names"),
        ("PROVIDER_BY_KIND", '{"sales": "postmark"}', "SEGUE_EMAIL_PROVIDER_BY_KIND"),
        ("PROVIDER_BY_TOPIC", '{"news": "mailgun"}', "SEGUE_EMAIL_PROVIDER_BY_TOPIC names"),
        ("PROVIDER_BY_TOPIC", "news", r"SEGUE_EMAIL_\*: .*write it as JSON"),
    ],
)
def test_an_invalid_choice_of_provider_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    with pytest.raises(SegueError, match=words):
        chosen(monkeypatch, **{variable: value})


def test_a_rate_is_for_a_channel_or_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_EMAIL_PROVIDER_BY_KIND", '{"transactional": "postmark"}')
    connected = connect_providers(Settings(rates={"email": 9, "postmark": 5}))
    assert {name: one.rate for name, one in connected.by_name.items()} == {
        "sendgrid": 9, "postmark": 5, "twilio": None, "fcm": None,
        "twilio_whatsapp": None,
    }  # fmt: skip
    with pytest.raises(SegueError, match="SEGUE_RATES names 'mailgun', which is no channel and no"):
        connect_providers(Settings(rates={"mailgun": 1}))


def test_the_sandbox_needs_nothing() -> None:
    assert unmet_needs(Settings()) == []


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://journeys.your.shop", "https://", "https://localhost", "journeys.your.shop"),
        *("https://127.0.0.1", "https://[::1]:8443", "https://0.0.0.0/segue", "https://10.0.0.5"),
        *("https://segue.localhost:8443", "https://your.shop/?x=1", "https://[", "https://inside"),
        *("https://segue.local", "https://segue.shop.internal/x", "https://journeys.shop.example"),
        *("https://segue.test.", "https://nas.home.arpa", "https://a b.shop", "https://u:p@a.shop"),
    ],
)
def test_live_requires_a_public_base_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(SegueError, match=r"SEGUE_PUBLIC_URL is .*https:// URL"):
        connect_providers(live(tmp_path, public_url=url))


@pytest.mark.parametrize(
    "url",
    [
        *("https://your.shop/", "https://a.b.your.shop:8443/segue", "https://xn--4gq.xn--3pxu8k"),
        *("https://localhost.shop", "HTTPS://Journeys.Your.Shop", "https://127.0.0.1.nip.io"),
    ],
)
def test_live_accepts_any_base_url_of_the_operator(tmp_path: Path, url: str) -> None:
    assert unmet_needs(live(tmp_path, public_url=url)) == []


GOOD = """
from channels.providers.base import Provider, ProviderSettings
PROVIDER = Provider(name="{name}", channel="{channel}", settings=ProviderSettings, connect=object)
"""


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"broken": "import nonexistent_module"}, "broken can't be imported: ModuleNotFoundError"),
        ({"broken": "x = ("}, "broken can't be imported: SyntaxError"),
        ({"broken": "PROVIDER = object()"}, "broken is not a .*Provider named 'broken'"),
        ({"broken": GOOD.format(name="other", channel="email")}, "Provider named 'broken'"),
        ({"broken": GOOD.format(name="broken", channel="fax")}, "sends 'fax'; the channels are"),
    ],
)
def test_a_broken_provider_fails_loudly_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], words: str
) -> None:
    for file, source in files.items():
        (tmp_path / f"{file}.py").write_text(source)
        monkeypatch.delitem(sys.modules, f"channels.providers.{file}", raising=False)
    path = [*channels.providers.__path__, str(tmp_path)]
    monkeypatch.setattr(channels.providers, "__path__", path)
    with pytest.raises(SegueError, match=words):
        known_providers()


async def _dispatcher_of(segue: Segue) -> None:
    async with segue.dispatcher():
        pass


def test_a_journey_with_a_channel_that_nothing_sends_stops_the_start(
    house: House, tmp_path: Path
) -> None:
    journey = described(Send("hi", WhatsApp("hello")))
    texts = {**TEXTS, "hello.whatsapp.txt": "Hello"}
    given = LIVE | {"fcm_credentials_file": key_file(tmp_path)}
    asyncio.run(_dispatcher_of(house.open(journey, texts=texts, **given)))
    given["whatsapp_provider"] = ""
    wrong = "j, step 'hi': no provider sends whatsapp; set SEGUE_WHATSAPP_PROVIDER"
    with pytest.raises(SegueError, match=wrong):
        asyncio.run(_dispatcher_of(house.open(journey, texts=texts, **given)))
