"""Requests to the providers; for SendGrid, Twilio and FCM they equal those of their SDKs."""

import json
import warnings
from base64 import b64encode
from dataclasses import replace
from email.utils import parseaddr
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from pydantic import SecretStr

from channels.kinds.email import EmailContent
from channels.kinds.push import PushContent
from channels.providers.base import ConnectedProvider
from channels.providers.sending import DoesNotFit, Outgoing
from config.channels import Content
from tests.support.providers.provider_samples import (
    CHANNEL_OF,
    CONTENT,
    PROVIDERS,
    SANDBOX,
    connected,
    mails,
    outgoing,
)


def body_of(provider: ConnectedProvider, *batch: Outgoing) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(provider.sender.prepare(batch).content)
    return body


def click_tracking() -> Any:
    from sendgrid.helpers.mail import ClickTracking, TrackingSettings

    settings = TrackingSettings()
    settings.click_tracking = ClickTracking(enable=True, enable_text=False)
    return settings


@pytest.mark.parametrize("unsubscribe_url", [None, "https://shop.example/u/abc"])
def test_one_mail_is_what_sendgrids_own_classes_build(unsubscribe_url: str | None) -> None:
    from sendgrid.helpers.mail import (
        Category,
        CustomArg,
        From,
        Header,
        Mail,
        To,
    )

    mail = Mail(
        from_email=From("hello@shop.example", SANDBOX.brand),
        to_emails=To("ann@example.com"),
        subject="Hello",
        plain_text_content="Hello",
        html_content="<p>Hello</p>",
    )
    mail.category = [Category("reminder"), Category("carts")]  # it puts each before the others
    mail.tracking_settings = click_tracking()
    mail.personalizations[0].add_custom_arg(CustomArg("message_id", "7"))
    if unsubscribe_url:
        header = Header("List-Unsubscribe", f"<{unsubscribe_url}>")
        mail.personalizations[0].add_header(header)
        one_click = Header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
        mail.personalizations[0].add_header(one_click)
    ours = outgoing("email", unsubscribe_url=unsubscribe_url)
    assert body_of(connected("sendgrid"), ours) == mail.get()


def test_a_batch_of_mails_equals_that_of_sendgrids_classes() -> None:
    from sendgrid.helpers.mail import Category, CustomArg, From, Mail, Personalization, ReplyTo
    from sendgrid.helpers.mail import To as Recipient

    sendgrid = connected("sendgrid", template_id="d-1", reply_to="help@shop.example")
    mail = Mail(from_email=From("hello@shop.example", SANDBOX.brand))
    mail.template_id = "d-1"
    mail.reply_to = ReplyTo("help@shop.example")
    mail.category = [Category("reminder"), Category("carts")]  # it puts each before the others
    mail.tracking_settings = click_tracking()
    for one in reversed(mails(3)):  # it puts each before the others
        to = Personalization()
        to.add_to(Recipient(one.to))
        to.add_custom_arg(CustomArg("message_id", str(one.message_id)))
        to.dynamic_template_data = {"subject": "Hello", "html": "<p>Hello</p>", "text": "Hello"}
        mail.add_personalization(to)
    assert body_of(sendgrid, *mails(3)) == mail.get()
    assert sendgrid.sender.batch_size == 1000
    assert connected("sendgrid").sender.batch_size == 1


def test_a_mail_without_plain_text_has_no_empty_part() -> None:
    content = EmailContent("Hello", "<img src='x'>", "")
    body = body_of(connected("sendgrid"), outgoing("email", content=content))
    assert [part["type"] for part in body["content"]] == ["text/html"]


def test_a_request_holds_one_journey_and_step() -> None:
    sendgrid = connected("sendgrid", template_id="d-1")
    one, other = mails(2)
    for changed in (replace(other, step="offer"), replace(other, journey="news")):
        with pytest.raises(DoesNotFit):
            sendgrid.sender.prepare([one, changed])
    alike = body_of(connected("sendgrid"), outgoing("email", journey="news", step="news"))
    assert alike["categories"] == ["news"]  # SendGrid takes each only once
    assert "reply_to" not in alike


@pytest.mark.parametrize(
    ("kind", "stream"), [("marketing", "broadcast"), ("transactional", "outbound")]
)
def test_a_postmark_mail_uses_the_stream_of_its_kind(kind: str, stream: str) -> None:
    url = "https://shop.example/u/abc" if kind == "marketing" else None
    postmark = connected("postmark", reply_to="help@shop.example")
    one = outgoing("email", kind=kind, unsubscribe_url=url)
    request = postmark.sender.prepare([one])
    assert request.url == f"{SANDBOX.sandbox_url}/email/batch"
    assert request.headers["X-Postmark-Server-Token"] == "sandbox"
    [mail] = orjson.loads(request.content)
    headers = [
        {"Name": "List-Unsubscribe", "Value": "<https://shop.example/u/abc>"},
        {"Name": "List-Unsubscribe-Post", "Value": "List-Unsubscribe=One-Click"},
    ]
    assert mail == {
        "From": '"Segue Sample Shop" <hello@shop.example>',
        "To": "ann@example.com",
        "ReplyTo": "help@shop.example",
        "Subject": "Hello",
        "HtmlBody": "<p>Hello</p>",
        "TextBody": "Hello",
        "Tag": "carts/reminder",
        "Metadata": {"message_id": "7"},
        "TrackOpens": True,
        "TrackLinks": "HtmlOnly",
        "MessageStream": stream,
        **({"Headers": headers} if url else {}),
    }


def test_five_hundred_different_mails_are_one_request_to_postmark() -> None:
    postmark = connected("postmark")
    assert postmark.sender.batch_size == 500
    batch = [replace(one, step=f"s{i}") for i, one in enumerate(mails(500))]
    sent = orjson.loads(postmark.sender.prepare(batch).content)
    assert [one["To"] for one in sent] == [one.to for one in batch]
    large = EmailContent("Hello", "x" * 20_000_000, "")
    with pytest.raises(DoesNotFit):
        postmark.sender.prepare([replace(one, content=large) for one in mails(3)])
    one = orjson.loads(postmark.sender.prepare([outgoing("email", content=large)]).content)
    assert "TextBody" not in one[0]


def test_a_name_in_quotes_stays_one_name() -> None:
    settings = SANDBOX.model_copy(update={"brand": 'Zoë, "the" <shop>'})
    request = connected("postmark", settings).sender.prepare(mails(1))
    [mail] = orjson.loads(request.content)
    assert parseaddr(mail["From"]) == ('Zoë, "the" <shop>', "hello@shop.example")


@pytest.mark.parametrize(
    ("sender", "ttl"), [("+15005550006", None), ("MG" + "a" * 32, 7200), ("SHOP", 90_000)]
)
def test_a_text_message_is_what_twilios_own_client_posts(sender: str, ttl: int | None) -> None:
    from twilio.http.response import Response
    from twilio.rest import Client

    posted: dict[str, Any] = {}

    class Capture:
        def request(self, method: str, url: str, **kwargs: Any) -> Any:
            posted.update(kwargs, method=method, url=url)
            return Response(201, "{}")

    client = Client("AC" + "0" * 32, "token", http_client=Capture())
    by: dict[str, Any] = {"messaging_service_sid" if sender.startswith("MG") else "from_": sender}
    if ttl:
        by["validity_period"] = min(ttl, 36_000)
    client.messages.create(
        to="+4915112345678",
        body="Hello – reply STOP to end",
        status_callback="http://127.0.0.1:8080/hooks/twilio/status?message_id=7",
        **by,
    )
    ours = connected("twilio", sender=sender, auth_token=SecretStr("token")).sender.prepare(
        [outgoing("sms", ttl=ttl)]
    )
    assert dict(parse_qsl(ours.content.decode())) == {k: str(v) for k, v in posted["data"].items()}
    assert ours.method == posted["method"]
    assert ours.url == posted["url"].replace("https://api.twilio.com", SANDBOX.sandbox_url)
    basic = b64encode(":".join(posted["auth"]).encode()).decode()
    assert ours.headers["Authorization"] == f"Basic {basic}"


@pytest.mark.parametrize("platform", ["android", "ios", "web", None])
@pytest.mark.parametrize("ttl", [None, 3600, 10**9])
def test_a_notification_is_what_firebases_own_classes_build(
    platform: str | None, ttl: int | None
) -> None:
    from firebase_admin import messaging
    from firebase_admin._messaging_encoder import (
        MessageEncoder,
    )

    limited = min(ttl, 28 * 86400) if ttl else None
    apns_headers = {"apns-collapse-id": "7"}
    web_headers = {"Topic": "7"}
    if limited:
        apns_headers["apns-expiration"] = str(1_772_426_000 + limited)
        web_headers["TTL"] = str(limited)
    image = "https://i.example/a.png"
    parts = {
        "android": messaging.AndroidConfig(
            collapse_key="7", ttl=limited, notification=messaging.AndroidNotification(tag="7")
        ),
        "apns": messaging.APNSConfig(
            headers=apns_headers,
            payload=messaging.APNSPayload(messaging.Aps(sound="default", mutable_content=True)),
            fcm_options=messaging.APNSFCMOptions(image=image),
        ),
        "webpush": messaging.WebpushConfig(
            headers=web_headers,
            notification=messaging.WebpushNotification(tag="7", image=image),
            fcm_options=messaging.WebpushFCMOptions(link="https://shop.example/cart"),
        ),
    }
    wanted = {"android": "android", "ios": "apns", "web": "webpush"}
    with warnings.catch_warnings():
        # The device's token is what customers' apps hold; the new kind of id is another thing.
        warnings.simplefilter("ignore", DeprecationWarning)
        message = messaging.Message(
            token="token-1",
            notification=messaging.Notification("Hello", "World", image),
            data={"message_id": "7", "link": "https://shop.example/cart"},
            **(parts if platform is None else {wanted[platform]: parts[wanted[platform]]}),
        )
    expected = json.loads(json.dumps(MessageEncoder().default(message)))
    ours = outgoing("push", platform=platform, ttl=ttl)
    assert body_of(connected("fcm"), ours) == {"message": expected}


def test_a_text_only_notification() -> None:
    content = PushContent("Hello", "World", link="app://cart")
    message = body_of(connected("fcm"), outgoing("push", content=content))["message"]
    assert message["notification"] == {"title": "Hello", "body": "World"}
    headers = {"apns-collapse-id": "7"}
    assert message["apns"] == {"headers": headers, "payload": {"aps": {"sound": "default"}}}
    silent = outgoing("push", content=replace(content, silent=True))
    assert body_of(connected("fcm"), silent)["message"]["apns"] == {"headers": headers}
    assert message["data"]["link"] == "app://cart"
    assert "fcm_options" not in message["webpush"]  # FCM takes https links only


def test_a_ttl_requires_now() -> None:
    with pytest.raises(ValueError, match="ttl needs `now`"):
        outgoing("push", ttl=60, now=None)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_message_of_another_channel_raises(name: str) -> None:
    channel = CHANNEL_OF[name]
    other: Content = CONTENT["sms" if channel != "sms" else "email"]
    with pytest.raises(TypeError, match="message 7 is no"):
        connected(name).sender.prepare([outgoing(channel, content=other)])
