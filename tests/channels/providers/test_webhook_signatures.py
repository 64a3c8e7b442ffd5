"""Webhooks are accepted only with the provider's signature and a current time.

The vectors are those that the providers publish with their SDKs (sendgrid-python, twilio-python).
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.datastructures import MultiDict
from twilio.request_validator import RequestValidator

from channels.feedback.replies import stop_words_of
from channels.providers import postmark, sendgrid, twilio
from channels.providers.base import ProviderSettings
from channels.providers.postmark import PostmarkSettings
from channels.providers.registry import known_providers, webhooks
from channels.providers.sendgrid import SendGridSettings
from channels.providers.twilio import TwilioSettings
from channels.providers.webhook import Feedback, Refused, Unreadable, Webhook, WebhookRequest
from config.clock.times import parse_instant
from config.errors import SegueError
from config.policy import Policy
from config.settings import Settings
from tests.support.providers.callback_samples import (
    FORM,
    sendgrid_key,
    signed_by_sendgrid,
    signed_by_twilio,
    twilio_token,
)

# SendGrid's vector
KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw"
    "+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
)
OTHER_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqTxd43gyp8IOEto2LdIfjRQrIbsd4SXZkLW6jDutdhXSJCWHw8REntl"
    "o7aNDthvj+y7GjUuFDb/R1NGe1OPzpA=="
)
SIGNATURE = (
    "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtE"
    "ZtM="
)
OTHER_SIGNATURE = (
    "MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH3"
    "j/0="
)
SIGNED_AT = 1_600_112_502
EVENT = {
    "email": "hello@world.com",
    "event": "dropped",
    "reason": "Bounced Address",
    "sg_event_id": "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",
    "sg_message_id": ("LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0"),
    "smtp-id": "<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>",
    "timestamp": 1_600_112_492,
}
# The line end is signed too.
PAYLOAD = orjson.dumps([EVENT], option=orjson.OPT_SORT_KEYS) + b"\r\n"
LIVE = Settings(providers="live", public_url="https://mycompany.com")
ACCOUNTS: dict[str, ProviderSettings] = {
    "sendgrid": SendGridSettings(webhook_key=KEY),
    "twilio": TwilioSettings(auth_token=SecretStr("12345")),
    "postmark": PostmarkSettings(webhook_password=SecretStr("a1B2" * 8)),
}


def hook(path: str, **account: Any) -> Webhook:
    """A webhook of a real account, with some of its settings changed."""
    name = path.split("/")[2]
    own = ACCOUNTS[name].model_copy(update=account)
    [found] = [
        one for one in known_providers()[name].webhooks(own, LIVE, Policy()) if one.path == path
    ]
    return found


def sandbox_hook(path: str) -> Webhook:
    [found] = [one for one in webhooks(Settings(), Policy()) if one.path == path]
    return found


def mail(
    body: bytes = PAYLOAD,
    signature: str | None = SIGNATURE,
    timestamp: str | None = str(SIGNED_AT),
    now: int | None = SIGNED_AT,
) -> WebhookRequest:
    headers = {sendgrid.SIGNATURE: signature, sendgrid.TIMESTAMP: timestamp}
    given = {name: value for name, value in headers.items() if value is not None}
    return WebhookRequest(
        url="https://mycompany.com/hooks/sendgrid", headers=given, body=body, now=now
    )


# SendGrid ---------------------------------------------------------------------------------------


def test_sendgrids_published_example_is_verified() -> None:
    [said] = hook("/hooks/sendgrid").read(mail())
    assert said.id == f"sendgrid {EVENT['sg_event_id']}"
    assert (said.kind, said.suppress, said.address) == ("failed", "bounced", "hello@world.com")
    assert (said.at, said.message_id) == (EVENT["timestamp"], None)


@pytest.mark.parametrize(
    "key", [KEY, f"-----BEGIN PUBLIC KEY-----\n{KEY}\n-----END PUBLIC KEY-----"]
)
def test_the_public_key_is_accepted_with_and_without_pem_lines(key: str) -> None:
    assert hook("/hooks/sendgrid", webhook_key=key).read(mail())


@pytest.mark.parametrize(
    "forged",
    [
        mail(signature=OTHER_SIGNATURE),
        mail(body=b"payload"),
        mail(body=PAYLOAD.rstrip()),
        mail(body=PAYLOAD.replace(b"hello@", b"hallo@")),
        mail(body=PAYLOAD[:-20]),
        mail(body=b""),
        mail(body=PAYLOAD + b" "),
        mail(body=b"\xff\xfe"),
        mail(timestamp=str(SIGNED_AT + 1)),
        mail(timestamp=f"0{SIGNED_AT}"),
        mail(timestamp="timestamp"),
        mail(timestamp=""),
        mail(timestamp="-1"),
        mail(timestamp="²"),
        mail(timestamp="9" * 400),
        mail(timestamp=None),
        mail(signature=None),
        mail(signature=""),
        mail(signature="not base64!"),
        mail(signature="ÿ"),
        mail(signature=SIGNATURE[:-4]),
        mail(signature=SIGNATURE[4:]),
        mail(signature=b64encode(b"\0" * 70).decode()),
    ],
)
def test_what_sendgrid_did_not_sign_is_refused(forged: WebhookRequest) -> None:
    with pytest.raises(Refused):
        hook("/hooks/sendgrid").read(forged)


def test_another_key_is_refused() -> None:
    with pytest.raises(Refused, match="SEGUE_SENDGRID_WEBHOOK_KEY"):
        hook("/hooks/sendgrid", webhook_key=OTHER_KEY).read(mail())


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_signature_five_minutes_old_is_accepted(seconds: int) -> None:
    assert hook("/hooks/sendgrid").read(mail(now=SIGNED_AT + seconds))


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_a_signature_older_than_five_minutes_is_refused(seconds: int) -> None:
    with pytest.raises(Refused, match=f"{seconds} s old"):
        hook("/hooks/sendgrid").read(mail(now=SIGNED_AT + seconds))


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"null", b"7", b'"text"', b'"\\ud800"'])
def test_a_signed_body_that_is_not_a_list_is_unreadable(body: bytes) -> None:
    settings = Settings()
    headers = signed_by_sendgrid(sendgrid_key(settings), body, SIGNED_AT)
    with pytest.raises(Unreadable):
        sandbox_hook("/hooks/sendgrid").read(
            WebhookRequest(url="", headers=headers, body=body, now=SIGNED_AT)
        )


# Twilio -----------------------------------------------------------------------------------------

TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
PARAMS = {
    "CallSid": "CA1234567890ABCDE",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
    "Caller": "+14158675309",
}
BODY = b'{"property": "value", "boolean": true}'
BODY_HASH = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
EXPECTED = "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def posted(
    signature: str | None,
    url: str = URL,
    form: bytes | Mapping[str, str] | Sequence[tuple[str, str]] = PARAMS,
    headers: Mapping[str, str] = FORM,
) -> WebhookRequest:
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    given = {} if signature is None else {twilio.SIGNATURE: signature}
    return WebhookRequest(url=url, headers={**headers, **given}, body=body, now=None)


@pytest.mark.parametrize(
    ("signature", "url"),
    [
        (EXPECTED, URL),
        (EXPECTED, URL.replace(".com", ".com:1234")),
        ("Zmvh+3yNM1Phv2jhDCwEM3q5ebU=", "http://mycompany.com:1234/myapp.php?foo=1&bar=2"),
        ("kvajT1Ptam85bY51eRf/AJRuM3w=", URL),
        ("0ZXoZLH/DfblKGATFgpif+LLRf4=", "http://mycompany.com/myapp.php?foo=1&bar=2"),
    ],
)
def test_twilios_published_examples_are_verified(signature: str, url: str) -> None:
    assert dict(twilio.fields(TOKEN, posted(signature, url))) == PARAMS


def test_twilios_vector_of_a_field_given_twice() -> None:
    form = [("Sid", "CA123"), ("SidAccount", "AC123"), ("Digits", "5678"), ("Digits", "1234")]
    assert twilio.fields(TOKEN, posted("IK+Dwps556ElfBT0I3Rgjkr1wJU=", form=form))


def test_twilios_vector_of_a_json_body() -> None:
    url = f"{URL}&bodySHA256={BODY_HASH}"
    json = {"content-type": "application/json"}
    good = posted("a9nBmqA0ju/hNViExpshrM61xv4=", url, BODY, json)
    assert twilio.fields(TOKEN, good) == {"property": "value", "boolean": "True"}
    for forged in (
        posted("a9nBmqA0ju/hNViExpshrM61xv4=", url, BODY + b" ", json),
        posted("a9nBmqA0ju/hNViExpshrM61xv4=", url, BODY),
        posted("a9nBmqA0ju/hNViExpshrM61xv4=", URL, BODY, json),
        posted("a9nBmqA0ju/hNViExpshrM61xv4=", url.replace("0a1", "0a2"), BODY, json),
        posted("a9nBmqA0ju/hNViExpshrM61xv4=", url, b"\xff", json),
        posted(None, url, BODY, json),
        posted(EXPECTED, URL, BODY, json),
    ):
        with pytest.raises(Refused):
            twilio.fields(TOKEN, forged)


def of_json(body: bytes) -> WebhookRequest:
    """A request with a JSON body that Twilio signed."""
    url = f"{URL}&bodySHA256={hashlib.sha256(body).hexdigest()}"
    headers = {**signed_by_twilio(TOKEN, url, {}), "content-type": "application/json"}
    return WebhookRequest(url=url, headers=headers, body=body, now=None)


def test_a_signed_body_that_is_not_json_is_unreadable() -> None:
    for body in (b"[]", b"{", b"[" * 2000):
        with pytest.raises(Unreadable):
            twilio.fields(TOKEN, of_json(body))


def test_a_lone_surrogate_in_a_json_body_is_replaced() -> None:
    assert twilio.fields(TOKEN, of_json(rb'{"Body": "STOP \ud83d"}')) == {"Body": "STOP \ufffd"}


@pytest.mark.parametrize(
    "forged",
    [
        posted(None),
        posted(""),
        posted("junk"),
        posted("ÿ"),
        posted(EXPECTED[:-2]),
        posted(EXPECTED.lower()),
        posted(EXPECTED, URL + "&baz=3"),
        posted(EXPECTED, URL.replace("https", "http")),
        posted(EXPECTED, URL.replace("mycompany", "yourcompany")),
        posted(EXPECTED, form={**PARAMS, "Digits": "4321"}),
        posted(EXPECTED, form={**PARAMS, "More": ""}),
        posted(EXPECTED, form={name: PARAMS[name] for name in list(PARAMS)[:-1]}),
        posted(EXPECTED, form=urlencode(PARAMS).encode()[:-5]),
        posted(EXPECTED, form=b""),
        posted(EXPECTED, form=b"\xff%ff=&&&=;"),
    ],
)
def test_what_twilio_did_not_sign_is_refused(forged: WebhookRequest) -> None:
    with pytest.raises(Refused):
        twilio.fields(TOKEN, forged)


def test_blank_and_unknown_fields_are_part_of_the_signature() -> None:
    form = {**PARAMS, "FromCity": "", "OfTomorrow": "é + & ="}
    good = WebhookRequest(
        url=URL, headers=signed_by_twilio(TOKEN, URL, form), body=urlencode(form).encode(), now=None
    )
    assert dict(twilio.fields(TOKEN, good)) == form


@given(
    pairs=st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=20),
    url=st.sampled_from([URL, URL.replace(".com", ".com:1234"), "http://mycompany.com/x"]),
)
def test_signatures_of_twilios_package_are_accepted(pairs: list[tuple[str, str]], url: str) -> None:
    form = MultiDict(parse_qsl(urlencode(pairs), keep_blank_values=True))
    signature = RequestValidator(TOKEN).compute_signature(url, form)
    assert twilio.fields(TOKEN, posted(signature, url, pairs)) == dict(form.multi_items())


def test_too_many_form_fields_are_refused_before_parsing() -> None:
    form = {f"Field{number}": "" for number in range(twilio.FIELDS_LIMIT)}
    signature = signed_by_twilio(TOKEN, URL, form)[twilio.SIGNATURE]
    assert twilio.fields(TOKEN, posted(signature, form=form)) == form
    for more in ({**form, "One": "more"}, {f"{number}": "" for number in range(16_000)}):
        signature = signed_by_twilio(TOKEN, URL, more)[twilio.SIGNATURE]
        with pytest.raises(Refused, match="more than 200 fields"):
            twilio.fields(TOKEN, posted(signature, form=more))


# Postmark ---------------------------------------------------------------------------------------

PASSWORD = "a1B2" * 8
EVENTS_OF_POSTMARK: list[dict[str, Any]] = [
    # From Postmark's pages of its webhooks, with our metadata.
    {
        "RecordType": "Delivery",
        "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
        "Recipient": "John@example.com",
        "DeliveredAt": "2026-03-02T13:28:10.2735393-04:00",
        "Details": "Test delivery webhook details",
        "Tag": "welcome/hello",
        "ServerID": 23,
        "Metadata": {"message_id": "7"},
        "MessageStream": "outbound",
    },
    {
        "RecordType": "Bounce",
        "ID": 42,
        "Type": "HardBounce",
        "TypeCode": 1,
        "Name": "Hard bounce",
        "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
        "Description": "The server was unable to deliver your message (ex: unknown user).",
        "Details": "550 no mailbox JOHN@example.com here",
        "Email": "john@example.com",
        "BouncedAt": "2026-03-02T13:28:10.2735393-04:00",
        "Inactive": True,
        "Metadata": {"message_id": "7"},
    },
    {
        "RecordType": "SubscriptionChange",
        "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
        "ServerID": 123456,
        "MessageStream": "broadcast",
        "ChangedAt": "2026-03-02T10:53:34.416071Z",
        "Recipient": "john@example.com",
        "Origin": "Recipient",
        "SuppressSending": True,
        "SuppressionReason": "ManualSuppression",
        "Metadata": {"message_id": "7"},
    },
]


def of_postmark(event: object, login: str | None = f"segue:{PASSWORD}") -> WebhookRequest:
    body = event if isinstance(event, bytes) else orjson.dumps(event)
    headers = {"content-type": "application/json"}
    if login is not None:
        headers["authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    return WebhookRequest(
        url="https://mycompany.com/hooks/postmark", headers=headers, body=body, now=None
    )


def said_by_postmark(**fields: Any) -> list[Feedback]:
    return hook("/hooks/postmark").read(of_postmark({"Email": "a@x.example", **fields}))


def test_postmarks_published_examples_are_read() -> None:
    delivered, bounced, left = (
        feedback
        for event in EVENTS_OF_POSTMARK
        for feedback in hook("/hooks/postmark").read(of_postmark(event))
    )
    assert (delivered.kind, delivered.message_id, delivered.address) == (
        *("delivered", 7, "john@example.com"),
    )
    assert delivered.at == parse_instant("2026-03-02T17:28:11Z")
    assert (bounced.kind, bounced.suppress, bounced.id) == (
        *("bounced", "bounced", "postmark Bounce 42"),
    )
    assert bounced.reason == "postmark HardBounce: 550 no mailbox … here"
    assert bounced.properties == {"blocked": False}
    assert (left.kind, left.whole_channel, left.source) == (
        *("unsubscribed", True, "postmark SubscriptionChange"),
    )


@pytest.mark.parametrize(
    ("bounce", "kind", "suppress"),
    [
        ("HardBounce", "bounced", "bounced"),
        ("BadEmailAddress", "bounced", "bounced"),
        ("SoftBounce", "bounced", None),
        ("Blocked", "bounced", None),
        ("SpamNotification", "bounced", None),
        ("SpamComplaint", "complained", "complained"),
        ("Transient", "sent", None),
        ("ManuallyDeactivated", "failed", None),
        ("Unsubscribe", "unsubscribed", None),
        ("AutoResponder", None, None),
        ("Subscribe", None, None),
        ("of tomorrow", None, None),
    ],
)
def test_postmarks_types_of_bounces(bounce: str, kind: str | None, suppress: str | None) -> None:
    found = said_by_postmark(RecordType="Bounce", Type=bounce, ID=1)
    assert [(one.kind, one.suppress) for one in found] == ([(kind, suppress)] if kind else [])


@pytest.mark.parametrize(
    "change",
    [
        {"SuppressSending": False, "SuppressionReason": None},
        {"Origin": "Customer"},
        {"Origin": "Admin"},
        {"SuppressionReason": "HardBounce"},
        {"SuppressionReason": "SpamComplaint"},
    ],
)
def test_a_subscription_change_not_made_by_the_customer_is_no_unsubscribe(
    change: dict[str, Any],
) -> None:
    assert said_by_postmark(**EVENTS_OF_POSTMARK[2] | change) == []


def test_a_postmark_click_on_our_own_page_is_not_a_click() -> None:
    for url, kind in (
        ("https://mycompany.com/u/abc", "sent"),
        ("https://mycompany.com/shop", "clicked"),
    ):
        [said] = said_by_postmark(RecordType="Click", OriginalLink=url)
        assert said.kind == kind
    assert said_by_postmark(RecordType="Inbound") == []


def test_the_same_event_of_postmark_has_the_same_id() -> None:
    first, again, other = (
        said_by_postmark(RecordType="Open", ReceivedAt=f"2026-03-02T10:00:0{second}Z")[0].id
        for second in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    "login",
    [
        None,
        "",
        "segue:",
        f"segue:{PASSWORD[:-1]}",
        f"segue:{PASSWORD}x",
        f"segue:{PASSWORD.lower()}",
        f"somebody:{PASSWORD}",
        PASSWORD,
        "ÿ",
    ],
)
def test_a_login_that_is_not_postmarks_is_refused(login: str | None) -> None:
    request = of_postmark(EVENTS_OF_POSTMARK[0], login)
    with pytest.raises(Refused):
        hook("/hooks/postmark").read(request)
    with pytest.raises(Refused):
        hook("/hooks/postmark").admit(request.headers)


@pytest.mark.parametrize("given", ["", "Basic", "Basic not base64!", "Bearer abc", "Basic ÿ"])
def test_a_header_that_is_no_login_is_refused(given: str) -> None:
    with pytest.raises(Refused):
        hook("/hooks/postmark").admit({"authorization": given})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"7", b'"text"'])
def test_a_postmark_body_without_an_event_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        hook("/hooks/postmark").read(of_postmark(body))


# Keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        ("/hooks/sendgrid", "SEGUE_SENDGRID_WEBHOOK_KEY"),
        ("/hooks/postmark", "SEGUE_POSTMARK_WEBHOOK_PASSWORD"),
        ("/hooks/twilio/status", "SEGUE_TWILIO_AUTH_TOKEN"),
        ("/hooks/twilio/inbound", "SEGUE_TWILIO_AUTH_TOKEN"),
    ],
)
def test_without_a_key_every_webhook_is_refused(path: str, variable: str) -> None:
    none = dict.fromkeys(("auth_token", "webhook_password"), SecretStr(""))
    with pytest.raises(Refused, match=variable):
        hook(path, webhook_key="", **none).read(mail())


def test_live_mode_refuses_webhooks_of_the_sandbox() -> None:
    body = b"[]"
    headers = signed_by_sendgrid(sendgrid_key(LIVE), body, SIGNED_AT)
    assert (
        sandbox_hook("/hooks/sendgrid").read(
            WebhookRequest(url="", headers=headers, body=body, now=SIGNED_AT)
        )
        == []
    )
    with pytest.raises(Refused):
        hook("/hooks/sendgrid").read(
            WebhookRequest(url="", headers=headers, body=body, now=SIGNED_AT)
        )
    url = "https://mycompany.com/hooks/twilio/inbound"
    signed = WebhookRequest(
        url=url,
        headers=signed_by_twilio(twilio_token(LIVE), url, {"From": "1"}),
        body=b"From=1",
        now=None,
    )
    assert sandbox_hook("/hooks/twilio/inbound").read(signed)
    with pytest.raises(Refused):
        hook("/hooks/twilio/inbound").read(signed)


def test_every_installation_has_a_sandbox_key_of_its_own() -> None:
    one, other = Settings(), Settings(secret_key=SecretStr("x" * 40))
    assert sendgrid_key(one).private_numbers() == sendgrid_key(one).private_numbers()
    assert sendgrid_key(one).private_numbers() != sendgrid_key(other).private_numbers()
    assert twilio_token(one) != twilio_token(other)


@pytest.mark.parametrize("key", ["junk", "MFkw", OTHER_KEY[:-8]])
def test_an_unreadable_webhook_key_is_named_at_the_start(key: str) -> None:
    with pytest.raises(SegueError, match="SEGUE_SENDGRID_WEBHOOK_KEY is not a verification key"):
        hook("/hooks/sendgrid", webhook_key=key)


def test_a_key_of_another_kind_is_named_at_the_start() -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SegueError, match="another type"):
        hook("/hooks/sendgrid", webhook_key=b64encode(der).decode())


# Anything ---------------------------------------------------------------------------------------

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        *("email", "timestamp", "event", "sg_event_id", "message_id", "type", "reason", "status"),
        *("sg_machine_open", "url", "sg_message_id"),
    ]
)
EVENTS = st.sampled_from(["open", "click", "bounce", "dropped", "delivered", "unsubscribe"])


@given(
    event=st.dictionaries(FIELDS, ANY_VALUE, max_size=8),
    name=EVENTS | ANY_VALUE,
    rest=st.lists(ANY_VALUE, max_size=2),
)
def test_any_event_is_read(event: dict[str, object], name: object, rest: list[object]) -> None:
    for one in sendgrid.read_events(orjson.dumps([{**event, "event": name}, *rest])):
        assert one.channel == "email"
        assert one.id
        assert "\0" not in f"{one.id}{one.address}{one.reason}{one.properties}"


@given(
    event=st.dictionaries(
        st.sampled_from(
            [
                *("Email", "Recipient", "Type", "ID", "Metadata", "OriginalLink", "Details"),
                *("MessageID", "BouncedAt", "ReceivedAt", "Origin", "SuppressionReason"),
            ]
        ),
        ANY_VALUE | st.just({"message_id": "9" * 5000}),
    ),
    record=st.sampled_from(["Bounce", "Click", "Open", "SpamComplaint", "Delivery"]) | ANY_VALUE,
)
def test_any_event_of_postmark_is_read(event: dict[str, object], record: object) -> None:
    for one in postmark.read_event(orjson.dumps({**event, "RecordType": record})):
        assert one.channel == "email"
        assert one.id
        assert "\0" not in f"{one.id}{one.address}{one.reason}{one.properties}"


@given(
    form=st.dictionaries(
        st.sampled_from(
            [*("MessageSid", "MessageStatus", "ErrorCode", "To", "From", "Body", "OptOutType")]
        ),
        st.text(max_size=30)
        | st.sampled_from(["failed", "delivered", "30005", "9" * 5000, "STOP"]),
    ),
    query=st.text(max_size=30),
)
def test_any_form_is_read(form: dict[str, str], query: str) -> None:
    for one in (
        *twilio.read_status(form, f"{URL}&{query}"),
        *twilio.read_inbound(form, stop_words_of(Policy())),
    ):
        assert one.channel == "sms"
        assert one.id
        assert "\0" not in f"{one.id}{one.address}{one.reason}{one.properties}"


@given(
    headers=st.dictionaries(
        st.sampled_from(
            [
                sendgrid.SIGNATURE,
                sendgrid.TIMESTAMP,
                twilio.SIGNATURE,
                "authorization",
                "content-type",
            ]
        ),
        st.text(max_size=30) | st.sampled_from(["application/json", str(SIGNED_AT), SIGNATURE]),
    ),
    body=st.binary(max_size=60),
    query=st.text(max_size=20),
    path=st.sampled_from(
        ["/hooks/sendgrid", "/hooks/postmark", "/hooks/twilio/status", "/hooks/twilio/inbound"]
    ),
)
def test_nothing_unsigned_raises_anything_but_refused(
    headers: dict[str, str], body: bytes, query: str, path: str
) -> None:
    with pytest.raises(Refused):
        hook(path).read(
            WebhookRequest(
                url=f"https://mycompany.com{path}?{query}",
                headers=headers,
                body=body,
                now=SIGNED_AT,
            )
        )


def test_the_key_of_another_account_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signature = b64encode(key.sign(b"1" + PAYLOAD, ec.ECDSA(hashes.SHA256()))).decode()
    with pytest.raises(Refused):
        hook("/hooks/sendgrid").read(mail(signature=signature, timestamp="1", now=1))
