"""Clicks on our own links (unsubscribe, preferences) do not count; SendGrid does not wrap them."""

import orjson
import pytest

from channels.kinds.email import EmailContent
from channels.links import confirm_url, preferences_url, unsubscribe_url
from journeys.dsl import Email, Journey, OnLaunch, Push, Send
from tests.support.providers.callback_samples import FromProviders, mail_event
from tests.support.providers.feedback_shop import NEWS, AnnsShop
from tests.support.providers.provider_samples import SANDBOX, connected, outgoing
from tests.support.shop import MONDAY, House

OURS = [
    unsubscribe_url(SANDBOX, 1, "email", "news", "ann@example.com"),
    preferences_url(SANDBOX, 1, "email", "ann@example.com", MONDAY),
    confirm_url(SANDBOX, 1, "ann@example.com", "news"),
]


@pytest.mark.parametrize("number", range(3))
def test_a_click_on_our_own_page_is_not_recorded_as_a_click(house: House, number: int) -> None:
    shop = AnnsShop(house, NEWS)
    shop.mail("click", url=OURS[number])
    assert shop.heard() == []
    shop.mail("click", url="https://shop.example/u/offers", sg_event_id="another")
    assert shop.heard() == ["email_clicked"]


def test_a_click_on_our_own_link_confirms_the_hand_over(house: House) -> None:
    shop = AnnsShop(house, NEWS)
    shop.becomes("unknown")
    shop.mail("click", url=OURS[0])
    assert shop.state == "sent"


def test_a_click_on_our_own_link_cancels_no_message(house: House) -> None:
    both = Send("both", Email("hello"), Push("hello", after="1h"), stop_on="clicked")
    house.open(Journey("j", entry=OnLaunch(), topic="news", steps=[both]))
    house.customer("ann")
    house.launch("j")
    mail, push = house.rows()
    outside = FromProviders(house.segue)
    said = mail_event("click", mail.id, "ann@example.com", url=OURS[0])
    assert outside.mail(said).status_code == 200
    house.later("2h")
    assert [row.state for row in house.rows()] == ["sent", "sent"], push.id


@pytest.mark.parametrize("template", ["", "d-1"])
def test_our_links_in_html_are_marked_for_sendgrid_and_the_text_is_not_tracked(
    template: str,
) -> None:
    html = (
        f'<p><a style="a>b" href="{OURS[0]}">stop</a> <a\nhref=\'{OURS[1]}\'>choose</a> '
        f'<a class=x HREF={OURS[2]}>confirm</a> <a href="https://shop.example/">shop</a></p>'
    )
    content = EmailContent("Hello", html, f"stop: {OURS[0]}")
    sender = connected("sendgrid", template_id=template).sender
    request = sender.prepare([outgoing("email", content=content)])
    mail = orjson.loads(request.content)
    if template:
        sent = mail["personalizations"][0]["dynamic_template_data"]["html"]
    else:
        sent = mail["content"][1]["value"]
    assert sent == html.replace("<a style", '<a clicktracking="off" style').replace(
        "<a\nhref", '<a clicktracking="off"\nhref'
    ).replace("<a class", '<a clicktracking="off" class')
    assert mail["tracking_settings"] == {"click_tracking": {"enable": True, "enable_text": False}}


def test_our_links_are_marked_for_postmark_and_the_text_is_not_tracked() -> None:
    html = f'<a href="{OURS[0]}">stop</a> <a href="https://shop.example/">shop</a>'
    content = EmailContent("Hello", html, f"stop: {OURS[0]}")
    request = connected("postmark").sender.prepare([outgoing("email", content=content)])
    [mail] = orjson.loads(request.content)
    assert mail["HtmlBody"] == html.replace("<a ", "<a data-pm-no-track ", 1)
    assert mail["TrackLinks"] == "HtmlOnly"
