"""Links: https only, and if customer data decides the host, only hosts on the list."""

import re
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.kinds.email import EmailContent
from channels.outbox.render import link_rules
from channels.templates.compile import BadLink, Template, TemplateError, compile_template
from channels.templates.link_check import LinkRules
from config.settings import Settings

LISTED = LinkRules(frozenset({"shop.example"}))
SANDBOX = LinkRules(frozenset({"shop.example"}), loopback=True)

GOOD = [
    "https://shop.example",
    "https://shop.example/",
    "HTTPS://SHOP.example/Cart?id=1&b=2#top",
    "https://shop.example:443/cart",
    "https://shop.example?a=https://evil.example/",
    "https://shop.example/größe/日本",
]
BAD = [
    "https://evil.example/",
    "http://shop.example/",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    " javascript:alert(1)",
    "javascript&colon;alert(1)",
    "java&#x73;cript:alert(1)",
    "%6aavascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "data:text/html;base64,PHNjcmlwdD4=",
    "vbscript:x",
    "file:///etc/passwd",
    "ftp://shop.example/",
    "//evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "https:\\\\evil.example",
    "https://shop.example@evil.example/",
    "https://shop.example:pw@evil.example/",
    "https://shop.example%40evil.example/",
    "https://shop%2eexample/",
    "https://evil.example\\@shop.example/",
    "https://shop.example.evil.example/",
    "https://shop.example.",
    "https://shop.example:8443/",
    "https://evil-shop.example/",
    "https://sub.shop.example/",
    "https://shоp.example/",  # a Cyrillic о
    "https://ｓhop.example/",
    "https://shop。example/",
    "https://xn--shp-0ud.example/",
    "https://shop.exam\u00adple/",
    "https://shop.example/a\nb",
    "https://shop.example/a https://evil.example/",
    "https://[::1]/",
    "https://127.0.0.1/",
    "http://127.0.0.1:8080/",
    "shop://cart",
    "mailto:x@evil.example",
    "tel:+49190123",
    "evil.example/x",
    "x",
    "?x",
    "#x",
]


def mail(html: str) -> Template:
    return compile_template("email", "t", {"t.email.html": f"Subject: S\n\n{html}"})


def sms(body: str) -> Template:
    return compile_template("sms", "t", {"t.sms.txt": body})


def push(headers: str) -> Template:
    return compile_template("push", "t", {"t.push.txt": f"Title: T\n{headers}\n\nB"})


def mjml(inside: str) -> Template:
    source = (
        f"Subject: S\n\n<mjml><mj-body><mj-section><mj-column>{inside}"
        "</mj-column></mj-section></mj-body></mjml>"
    )
    return compile_template("email", "t", {"t.email.mjml": source})


def sent(template: Template, rules: LinkRules = LISTED, **data: Any) -> Any:
    return template.render(data, rules)


def refuses(template: Template, **data: Any) -> bool:
    """Whether a template with these data has a link that is not allowed."""
    try:
        sent(template, **data)
    except BadLink:
        return True
    return False


PLACES = [
    mail('<a href="{{ u }}">x</a>'),
    mail("<a href = '{{ u }}'>x</a>"),
    mail('<A CLASS=b HREF="{{ u | default: "https://shop.example/" }}">x</A>'),
    mail('<img alt="x" src="{{ u }}">y'),
    mail('<a href="{% if u %}{{ u }}{% else %}https://a.example/{% endif %}">x</a>'),
    mail("{% assign v = u %}<a href='{{ v }}'>x</a>"),
    mail("{% capture v %}{{ u }}{% endcapture %}<a href='{{ v }}'>x</a>"),
    mail("{% for v in us %}<a href='{{ v }}'>x</a>{% endfor %}"),
    mail('<!--[if mso]><v:fill src="{{ u }}"><![endif]-->x'),
    mail('<form action="{{ u }}"><button formaction="https://a.example/">x</button></form>'),
    mail('<table background="{{ u }}"><tr><td>x</td></tr></table>'),
    mjml('<mj-button href="{{ u }}">x</mj-button>'),
    mjml('<mj-text>x</mj-text><mj-image src="{{ u }}" />'),
    mjml('<mj-text>x</mj-text><mj-image src="https://a.example/" href="{{ u }}" />'),
    mjml('<mj-text>x <a href="{{ u }}">y</a></mj-text>'),
    push("Link: {{ u }}"),
    push("Image: {{ u }}"),
]


@pytest.mark.parametrize("url", GOOD)
def test_a_link_to_a_listed_host_is_sent(url: str) -> None:
    for template in PLACES:
        sent(template, u=url, us=[url])


@pytest.mark.parametrize("url", BAD)
def test_any_other_link_of_data_is_refused(url: str) -> None:
    assert [template for template in PLACES if not refuses(template, u=url, us=[url])] == []


TEXTS = [
    sms("Hi {{ u }} there"),
    sms("Hi {{ u }}"),
    sms("{{ a }}{{ u }}."),
    mail("<p>Hi {{ u }}</p>"),
    mail('<p>Hi <b>{{ u | replace: "q", "y" }}</b></p>'),
    compile_template("push", "t", {"t.push.txt": "Title: T {{ u }}\n\nB"}),
    compile_template("push", "t", {"t.push.txt": "Title: T\n\n{{ u }}"}),
    compile_template("email", "t", {"t.email.html": "Subject: {{ u }}\n\n<p>x</p>"}),
    mail('<img srcset="https://a.example/ 1x, {{ u }} 2x" src="https://a.example/">x'),
    mail('<meta http-equiv="refresh" content="0;url={{ u }}">x'),
]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "http://evil.example",
        "evil.example/x",
        "evil.example",
        "www.evil",
        "EVIL.COM",
        "evil.de",
        "bücher.de",
        "//evil.example/",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://shop.example@evil.example",
        "https:evil.example",
        "shop://cart",
        "a https://evil.example b",
        "(https://evil.example)",
        "https://shop.example/, https://evil.example/",
        "hi\nhttps://evil.example",
        "shop.example,https://evil.example/x",
        "https://shop.example,https://evil.example/x",
        "evil。com",
    ],
)
def test_a_link_that_data_puts_into_a_text_is_refused(url: str) -> None:
    assert [template for template in TEXTS if not refuses(template, u=url, a="")] == []


@pytest.mark.parametrize(
    "text",
    [
        "Ann",
        "O'Neil & Söhne",
        "Node.js",
        "3.50",
        "12.5.2026",
        "Dr.Smith",
        "J.R.R. Tolkien",
        "z.B. heute",
        "Size: L",
        "Data: 5 GB",
        "and/or",
        "a // b",
        "10:30",
        "ann@mail.example.com",
        "Thanks.It was good",
        "https://shop.example/cart.",
        "shop.example",
        "(https://shop.example/)",
        "…",
    ],
)
def test_other_texts_of_data_are_sent(text: str) -> None:
    assert text in sent(sms("Hi {{ u }}, hello"), u=text).body
    content = sent(mail('<p title="{{ u }}">{{ u }}</p>'), u=text)
    assert isinstance(content, EmailContent)
    assert content.text == text


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ("https://{{ a }}/x", {"a": "evil.example"}),
        ("https://shop.example{{ a }}", {"a": ".evil.example/"}),
        ("https://shop.example{{ a }}", {"a": "@evil.example/"}),
        ("{{ a }}://shop.example/", {"a": "javascript"}),
        ("{{ a }}{{ b }}", {"a": "htt", "b": "ps://evil.example"}),
        ("{{ a }}{{ b }}", {"a": "evil.", "b": "example/x"}),
        ("{{ a }}.evil.example/x", {"a": "x"}),
        ("www.{{ a }}.com", {"a": "evil"}),
    ],
)
def test_a_host_partly_from_data_is_refused(body: str, data: dict[str, Any]) -> None:
    for template in (sms(body), mail(f'<a href="{body}">x</a>')):
        with pytest.raises(BadLink):
            sent(template, **data)


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ("https://partner.example/{{ a }}", {"a": "../@evil.example"}),
        ("https://partner.example/?to={{ a | url_encode }}", {"a": "https://evil.example/"}),
        ("{{ a | default: 'https://partner.example/x' }}", {}),
        ("{% assign a = 'https://partner.example' %}{{ a }}/x", {}),
        ("{% if a %}{{ a }}{% else %}https://partner.example/{% endif %}", {}),
        ("https://partner.example/{% if a %}{{ a }}{% endif %}", {"a": "x"}),
    ],
)
def test_a_host_that_the_author_wrote_may_be_any(body: str, data: dict[str, Any]) -> None:
    assert "https://partner.example/" in sent(sms(body), **data).body
    assert 'href="https://partner.example/' in sent(mail(f'<a href="{body}">x</a>'), **data).html


def test_a_link_from_data_beside_a_link_of_the_author_is_checked() -> None:
    template = mail(
        '<a href="https://partner.example/">p</a>'
        '<a href="{{ u | default: "https://partner.example/" }}">x</a>'
    )
    with pytest.raises(BadLink) as caught:
        sent(template, u="https://partner.example/evil")
    assert caught.value.to == "https://partner.example"


@pytest.mark.parametrize(
    "html",
    [
        '<p style="color:{{ c }}">x</p>',
        "<p style='background:url({{ c }})'>x</p>",
        "<p style=\"background: url( '{{ c }}' )\">x</p>",
        "<style>p { background: url({{ c }}) }</style>x",
        "<style>p { color: {{ c }} }</style>x",
        "<style>@import '{{ c }}';</style>x",
    ],
)
@pytest.mark.parametrize(
    "evil",
    [
        "url(https://evil.example/x)",
        "red;background:url(https://evil.example/x)",
        "https://evil.example/x",
        "https://shop.example/);x:url(https://evil.example/",
        "\\75rl(https://evil.example)",
        "expression(alert(1))",
        "red}</style><script>",
        "https://shop.example/'",
        "//evil.example",
        "javascript:alert(1)",
        'image-set("https://evil.example")',
    ],
)
def test_data_adds_no_address_to_a_style(html: str, evil: str) -> None:
    with pytest.raises(BadLink):
        sent(mail(html), c=evil)


@pytest.mark.parametrize(
    ("html", "value"),
    [
        ('<p style="color:{{ c }}">x</p>', "#ff0000"),
        ('<p style="width:{{ c }}px">x</p>', 20),
        ("<p style='background:url({{ c }})'>x</p>", "https://shop.example/a.png?b=1&c=2"),
        ("<style>p { color: {{ c }} }</style>x", "dark-red"),
    ],
)
def test_a_style_takes_plain_values_and_listed_pictures(html: str, value: object) -> None:
    written = str(value).replace("&", "&amp;")
    assert written in sent(mail(html), c=value).html


def test_an_mjml_background_is_a_link() -> None:
    source = (
        'Subject: S\n\n<mjml><mj-body><mj-section background-url="{{ u }}"><mj-column>'
        "<mj-text>x</mj-text></mj-column></mj-section></mj-body></mjml>"
    )
    template = compile_template("email", "t", {"t.email.mjml": source})
    sent(template, u="https://shop.example/a.png")
    with pytest.raises(BadLink):
        sent(template, u="https://evil.example/a.png")


@pytest.mark.parametrize(
    ("html", "error"),
    [
        ('<p>x</p>\n<a href="http://shop.example/">x</a>', "line 4: <a> links to http://shop"),
        ('<a href="javascript:alert(1)">x</a>', "line 3: <a> links to javascript:"),
        ('<a href="java&#x09;script:x">x</a>', "<a> links to java"),
        ('<img src="data:image/png;base64,x">', "<img> links to data:"),
        ('<a href="//partner.example/">x</a>', "line 3: <a> links to //partner.example"),
        ('<a href="https:partner">x</a>', "line 3: <a> links to https:partner"),
        ('<a href="http://a.example/{{ u }}">x</a>', "line 3: <a> links to http://a.example"),
        ('<a href="javascript:{{ u }}">x</a>', "line 3: <a> links to javascript:"),
        ('<a href="shop:{{ u }}">x</a>', "line 3: <a> links to shop:"),
        ("<a href={{ u }}>x</a>", "line 3: <a href={{ u }}>: put the Liquid into a quoted"),
        ("<a {{ u }}>x</a>", "line 3: <a {{ u }}>: put the Liquid into a quoted"),
        ('<a x{{ u }}="y">x</a>', 'line 3: <a x{{ u }}="y">: put the Liquid into a quoted'),
        ('<a onclick="{{ u }}">x</a>', "onclick="),
        ("<p style=\"background:url('http://a.example/')\">x</p>", "<style> links to http://a"),
        ("<style>@x url(javascript:x)</style>", "<style> links to javascript:"),
    ],
)
def test_a_link_that_the_author_may_not_write_is_found_at_load(html: str, error: str) -> None:
    with pytest.raises(TemplateError) as caught:
        mail(html)
    assert str(caught.value).startswith("t.email.html")
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("channel", "file", "source"),
    [
        ("sms", "t.sms.txt", "a\nHi http://shop.example/"),
        ("push", "t.push.txt", "Title: T\nLink: http://shop.example/\n\nB"),
        ("push", "t.push.txt", "Title: T\nLink: javascript:x\n\nB"),
        ("push", "t.push.txt", "Title: T\nLink: http://shop.example/{{ u }}\n\nB"),
        ("push", "t.push.txt", "Title: T\nLink: javascript:{{ u }}\n\nB"),
        ("sms", "t.sms.txt", "a\nHi http://{{ u }}/"),
        ("push", "t.push.txt", "Title: T\nImage: shop://picture\n\nB"),
    ],
)
def test_a_forbidden_link_in_a_text_template_is_found_at_load(
    channel: Any, file: str, source: str
) -> None:
    with pytest.raises(TemplateError, match=rf"^{file}, line 2: .*need https"):
        compile_template(channel, "t", {file: source})


@pytest.mark.parametrize(
    "html",
    [
        '<a href="mailto:{{ u }}">x</a>',
        '<a href="tel:+49301234">x</a>',
        '<a href="#top">x</a>',
        '<a href="">x</a>',
        '<img src="cid:logo">x',
        '<a name="top" href="https://any.example/">x</a>',
        '<html xmlns="http://www.w3.org/1999/xhtml"><body>x</body></html>',
        '<a {% if u %}class="b"{% endif %} href="https://any.example/">x</a>',
    ],
)
def test_what_an_author_may_write(html: str) -> None:
    sent(mail(html), u="ann@mail.example")


def test_an_author_may_lead_into_the_app() -> None:
    assert sent(push("Link: shop://product/{{ u }}"), u="7").link == "shop://product/7"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "http://localhost/", "http://[::1]:1/"])
def test_http_on_this_machine_is_for_the_sandbox(url: str) -> None:
    for template in (
        mail(f'<a href="{url}">x</a>'),
        mail(f"<a href={url}>x</a>"),
        mail(f'<a href="{url}/{{{{ u | size }}}}">x</a>'),
        mail('<a href="{{ u }}">x</a>'),
        mail(f'<a href="{{{{ nobody | default: "{url}" }}}}">x</a>'),
        sms(f"Hi {url}"),
        sms("Hi {{ u }}"),
        push(f"Link: {url}"),
    ):
        sent(template, SANDBOX, u=url)
        with pytest.raises(BadLink):
            sent(template, LISTED, u=url)


@pytest.mark.parametrize("name", ["links", "brand"])
def test_a_template_cannot_reassign_built_in_variables(name: str) -> None:
    for body in (
        f"{{% assign {name} = event %}}x",
        f"{{% capture {name} %}}y{{% endcapture %}}x",
        f"{{% for {name} in event.items %}}y{{% endfor %}}x",
    ):
        with pytest.raises(TemplateError, match=f"Segue provides '{name}' to every template"):
            sms(body)
    with pytest.raises(TemplateError, match="cycle accepts only quoted texts"):
        sms("{% cycle event.a, event.b %}x")


def test_the_brand_and_our_own_links_are_no_data() -> None:
    links = {"preferences": "https://own.example/p/1"}
    content = sent(sms("{{ brand }}: {{ links.preferences }}"), brand="Booking.com", links=links)
    assert content.body == "Booking.com: https://own.example/p/1"


def test_our_own_links_are_not_wrapped_by_click_tracking() -> None:
    template = mail(
        '<a class="x" href="{{ links.preferences }}">a</a><a href=\'{{links.unsubscribe}}\'>b</a>'
        '<a href="https://shop.example/">c</a>'
    )
    links = {"preferences": "https://own.example/p/1", "unsubscribe": "https://own.example/u/1"}
    html = sent(template, links=links).html
    assert '<a clicktracking="off" class="x" href="https://own.example/p/1">' in html
    assert "<a clicktracking=\"off\" href='https://own.example/u/1'>" in html
    assert html.count("clicktracking") == 2
    button = mjml('<mj-button href="{{ links.preferences }}">x</mj-button>')
    assert 'clicktracking="off"' in sent(button, links=links).html


def test_link_marks_in_data_are_ignored() -> None:
    with pytest.raises(BadLink):
        sent(sms("Hi {{ u }}"), u="\ufdd1https://evil.example/\ufdd0")


PIECES = [
    "https:", "http:", "javascript:", "data:", "/", "//", "\\", "@", ":", "?", "#", ".", "%2f", " ",
    "shop.example", "evil.example",
    "\t", "\n", "\x00", "\u2028", "&#x2f;", "'", '"', ">", "<", "xn--",
]  # fmt: skip


class _Addresses(HTMLParser):
    """Every address in a mail, as a browser reads it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src"):
                read = re.sub(r"[\t\n\r]", "", value or "").strip("".join(map(chr, range(33))))
                self.found.append(read.replace("\\", "/"))


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_links_from_data_lead_only_to_listed_hosts(url: str) -> None:
    template = mail('<a href="{{ u }}">x</a><img src="{{ u }}" alt="{{ u }}"><p>{{ u }}</p>')
    try:
        html = sent(template, u=url).html
    except BadLink:
        return
    addresses = _Addresses(html).found
    assert len(addresses) == 2
    for address in addresses:
        leads = urlsplit(address)
        assert not address.strip() or (leads.scheme, leads.netloc.removesuffix(":443").lower()) == (
            "https",
            "shop.example",
        )


@pytest.mark.parametrize("unit", ["a", "a.", "a:", "/", "https:", "//a.", "&", "a@", "www."])
def test_long_data_costs_no_more_than_its_length(unit: str) -> None:
    # Quadratic cost would take hours here.
    with suppress(BadLink):
        sent(mail('<a href="{{ u }}">x</a>'), u=unit * 200_000)
    with suppress(BadLink):
        sent(sms("Hi {{ u }}"), u=unit * 200_000)


def test_the_rules_come_from_the_settings() -> None:
    settings = Settings.model_validate(
        {"link_hosts": ["Shop.example", "cdn.example"], "public_url": "https://own.example"}
    )
    assert link_rules(settings) == LinkRules(
        frozenset({"shop.example", "cdn.example", "own.example"}), loopback=True
    )
    assert Settings().link_hosts == {"shop.example"}
    with pytest.raises(ValueError, match="is not a host; use a name"):
        Settings.model_validate({"link_hosts": ["https://shop.example/"]})
    with pytest.raises(ValueError, match="xn--… for an international name"):
        Settings.model_validate({"link_hosts": ["bücher.example"]})
