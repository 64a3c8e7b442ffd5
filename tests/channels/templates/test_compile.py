"""Templates: rendering, refused templates, and escaping of customer data."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.kinds.email import EmailContent
from channels.kinds.push import PushContent
from channels.kinds.sms import SMSContent
from channels.templates.compile import (
    MissingData,
    RenderError,
    Template,
    TemplateError,
    compile_template,
)
from channels.templates.link_check import LinkRules
from config.policy import CHANNELS

MJML = """\
Subject: {{ person.name | default: "You" }}, your cart waits
Preheader: {{ cart.items | size }} things > nothing

<mjml>
  <mj-body>
    <mj-section><mj-column>
      <mj-text><h1>Hello {{ person.name | default: "there" }}</h1><p>Tea &amp; cake.</p></mj-text>
    </mj-column></mj-section>
    <mj-raw>{% for item in cart.items %}</mj-raw>
    <mj-section><mj-column>
      <mj-image src="{{ item.image }}" alt="{{ item.name }}"
        href="{{ item.url | append: "?a=1" }}" />
      <mj-text>{{ item.name }}: {{ item.price }}<br />each</mj-text>
    </mj-column></mj-section>
    <mj-raw>{% endfor %}</mj-raw>
    <mj-section><mj-column>
      <mj-button href="{{ cart.url }}">Back to it</mj-button>
      <mj-text>{% if gift and cart.total > 3 %}<b>A gift!</b>{% endif %}</mj-text>
    </mj-column></mj-section>
  </mj-body>
</mjml>
"""
CART: dict[str, Any] = {
    "person": {"name": "Ann"},
    "gift": True,
    "cart": {
        "url": "https://shop.example/cart?id=1&b=2",
        "total": 7,
        "items": [
            {"name": "Tea", "price": 3.5, "image": "https://i.example/t", "url": "https://t"},
            {"name": "Cup", "price": 2, "image": "https://i.example/c", "url": "https://c"},
        ],
    },
}


# Where the data of these tests leads.
LISTED = LinkRules(frozenset({"shop.example", "i.example", "t", "c", "s"}))


def sms(body: str) -> Template:
    return compile_template("sms", "t", {"t.sms.txt": body})


def mail(html: str, head: str = "Subject: Hello") -> Template:
    return compile_template("email", "t", {"t.email.html": f"{head}\n\n{html}"})


def said(template: Template, **context: Any) -> str:
    content = template.render(context, LISTED)
    assert isinstance(content, SMSContent)
    return content.body


def mailed(template: Template, context: dict[str, Any]) -> EmailContent:
    content = template.render(context, LISTED)
    assert isinstance(content, EmailContent)
    return content


def test_a_text_message() -> None:
    template = sms("Hi {{ name | default: 'there' }}, {{ shop.url }}\n")
    assert template.variables == {"name", "shop.url"}
    assert said(template, shop={"url": "https://s"}) == "Hi there, https://s"


def test_a_push_notification() -> None:
    source = (
        "title: For {{ name }}\nLink: {{ url }}\nImage: {{ image | default: '' }}\n\nCome back\n"
    )
    template = compile_template("push", "t", {"t.push.txt": source})
    url = "https://shop.example/cart"
    assert template.render({"name": "Ann", "url": url}, LISTED) == PushContent(
        title="For Ann", body="Come back", link=url, image=None
    )


def test_mjml_carries_every_liquid_tag_to_its_place() -> None:
    template = compile_template("email", "t", {"t.email.mjml": MJML})
    assert template.variables == {"person.name", "cart.items", "cart.url", "cart.total", "gift"}
    content = mailed(template, CART)
    assert content.subject == "Ann, your cart waits"
    for part in (
        'href="https://shop.example/cart?id=1&amp;b=2"',
        'href="https://t?a=1"',
        'src="https://i.example/c"',
        'alt="Cup"',
        "<h1>Hello Ann</h1>",
        "Tea: 3.5",
        "<b>A gift!</b>",
        ">2 things > nothing</div>",
    ):
        assert part in content.html
    assert content.html.count("<img") == 2
    assert "liquidtag" not in content.html
    assert "<b>A gift!</b>" not in mailed(template, {**CART, "gift": False}).html


def test_mails_fetch_no_fonts_from_elsewhere() -> None:
    template = compile_template("email", "t", {"t.email.mjml": MJML})
    assert "fonts.googleapis" not in mailed(template, CART).html


def test_the_plain_text_is_made_of_the_html() -> None:
    template = compile_template("email", "t", {"t.email.mjml": MJML})
    assert mailed(template, CART).text == (
        "Hello Ann\n\nTea & cake.\n\nTea (https://t?a=1)\n\nTea: 3.5\neach\n\n"
        "Cup (https://c?a=1)\n\nCup: 2\neach\n\n"
        "Back to it (https://shop.example/cart?id=1&b=2)\n\nA gift!"
    )


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two<br>lines</p>", "One\n\nTwo\nlines"),
        ("<ul>{% for i in n %}<li>{{ i }}</li>{% endfor %}</ul><p>End", "- 1\n- 2\n\nEnd"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("{% for i in n %}{{ i }}, {% endfor %}end", "1, 2, end"),
        ("a <b>bold</b>, <i>{{ n | first }}</i>!", "a bold, 1!"),
        ("<style>p { x }</style><title>t</title>seen", "seen"),
        ('<div style="display: none">x<div>y</div></div>seen', "seen"),
        (
            '<a href="mailto:a@b.example">write</a> <a href="https://x">https://x</a>',
            "write https://x",
        ),
        ('<a href="{{ u }}">{{ u }}</a>', "https://t/x"),
        ('<a href="https://x"><img src="i" alt="Shop"></a>', "Shop (https://x)"),
        ('<a href="https://x"><img src="i"></a>', "https://x"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("<!--[if mso]>{% if n %}<![endif]-->x<!--[if mso]>{% endif %}<![endif]-->", "x"),
        ("{% if no %}<p>A</p>{% else %}<p>B</p>{% endif %}<p>C</p>", "B\n\nC"),
    ],
)
def test_plain_text_of(html: str, text: str) -> None:
    assert mailed(mail(html), {"n": [1, 2], "u": "https://t/x"}).text == text


def test_an_explicit_plain_text_has_priority() -> None:
    sources = {"t.email.html": "Subject: S\n\n<p>x</p>", "t.email.txt": "Dear {{ name }}"}
    template = compile_template("email", "t", sources)
    assert template.variables == {"name"}
    assert mailed(template, {"name": "<Ann>"}).text == "Dear <Ann>"


def test_customer_data_never_becomes_template_code() -> None:
    evil = "{{ 7*7 }}{% raw %}<script>alert('1')</script>\""
    content = mailed(mail('<a title="{{ n }}">{{ n }}</a>', "Subject: {{ n }}"), {"n": evil})
    assert content.subject == evil
    assert content.text == evil
    escaped = "{{ 7*7 }}{% raw %}&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;"
    assert f'<body><a title="{escaped}">{escaped}</a></body>' in content.html


@pytest.mark.parametrize("filters", ["upcase | downcase", "url_decode", "strip", "escape_once"])
def test_no_filter_lets_a_script_through(filters: str) -> None:
    template = mail("{{ n | " + filters + " }}")
    for evil in ("<script>", "%3Cscript%3E", "&lt;script&gt;"):
        assert "<script" not in mailed(template, {"n": evil}).html


@given(st.text())
def test_data_cannot_add_lines_to_a_header(evil: str) -> None:
    template = mail("<p>x</p>", "Subject: Hi {{ n }}")
    assert len(mailed(template, {"n": evil}).subject.splitlines()) == 1


def test_a_subject_stays_one_line() -> None:
    content = mailed(mail("x", "Subject: Hi {{ n }}"), {"n": "a\r\nBcc: x@y.example\u2028z"})
    assert content.subject == "Hi a Bcc: x@y.example z"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{{ a.b.c }}", "a.b.c"),
        ("{{ nothing }}", "nothing"),
        ("{{ none }}", "none"),
        ("{{ a.none }}", "a.none"),
        ("{{ missing | plus: 1 }}", "missing"),
        ("{{ missing | date: '%Y' }}", "missing"),
        ("{{ none | upcase }}", "none"),
        ("{{ 'x' | append: missing }}", "missing"),
        ("{% assign x = missing %}{{ x }}", "missing"),
        ("{% for i in missing %}{{ i }}{% endfor %}", "missing"),
        ("{% echo missing %}", "missing"),
        ("{{ bare | first }}", "bare | first"),
        ("{{ items | map: 'price' | join: ', ' }}", "… | join"),
        ("{% for i in items %}{{ i.price }}{% endfor %}", "i.price"),
        ("{{ now }}", "now"),
        ("{{ missing | default: other }}", "other"),
    ],
)
def test_a_missing_variable_is_an_error_that_names_it(body: str, field: str) -> None:
    template = sms("x" + body)
    context = {"a": {"none": None}, "none": None, "bare": [], "items": [{"price": 1}, {}]}
    with pytest.raises(MissingData) as caught:
        template.render(context, LISTED)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"t.sms.txt prints {field},")


def test_a_missing_value_may_be_tested_or_given_a_default() -> None:
    body = (
        "{% if a.b > 3 %}1{% endif %}{% if none %}2{% endif %}{% unless c %}3{% endunless %}"
        "{% if d == nil %}4{% endif %}{% if e contains 'x' %}5{% endif %}"
        "{{ f | default: '6' }}{{ none | default: '7' }}"
    )
    assert said(sms(body), none=None) == "3467"


def test_variables_are_dotted_paths_without_what_the_template_makes_itself() -> None:
    body = (
        "{% assign total = cart.total %}{{ total }}{% for i in cart.items %}{{ i.name }}"
        "{{ forloop.index }}{{ names[i.id] }}{% endfor %}{{ cart.items[0].name }}"
        "{{ cart.items.size }}{% if vip.level %}{{ x | default: fallback.y }}{% endif %}"
    )
    expected = {"cart.total", "cart.items", "names", "vip.level", "x", "fallback.y"}
    assert sms(body).variables == expected


def test_dates_do_not_depend_on_the_machine() -> None:
    template = sms("{{ at | date: '%d %B %H:%M' }}, {{ day | date: '%d.%m.%Y' }}")
    assert said(template, at=1772426000, day="2026-03-05") == "02 March 04:33, 05.03.2026"


@pytest.mark.parametrize(
    ("body", "context", "words"),
    [
        ("{{ day | date: '%d' }}", {"day": "soon"}, "date needs whole seconds or ISO 8601"),
        ("{{ 'now' | date: '%Y' }}", {}, "date needs whole seconds or ISO 8601"),
        ("{{ x | divided_by: 0 }}", {"x": 1}, "can't divide by 0"),
        ("{{ x | ceil }}", {"x": float("inf")}, "OverflowError"),
        ("{% for i in (1..20000) %}x{% endfor %}", {}, "loop iteration limit"),
        (" {{ x }} ", {"x": ""}, "the body is empty"),
    ],
)
def test_invalid_data_fails_only_its_message(
    body: str, context: dict[str, Any], words: str
) -> None:
    with pytest.raises(RenderError, match=words):
        sms(body).render(context, LISTED)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_any_data_renders_or_gives_a_reason(value: Any) -> None:
    template = sms("x{{ v }}{{ v.a | default: 1 }}{{ v | size | plus: 2 }}{{ v | round: 1 }}")
    with suppress(RenderError):
        assert said(template, v=value).startswith("x")


def test_the_same_sources_are_compiled_once() -> None:
    others = {"u.sms.txt": "other", "t.sms.txt": "same"}
    assert sms("same") is compile_template("sms", "t", others)
    assert sms("same") is not sms("other")


def test_windows_line_ends_make_no_difference() -> None:
    template = compile_template("push", "t", {"t.push.txt": "\ufeffTitle: T\r\n\r\nB\r\nC"})
    assert template.render({}, LISTED) == PushContent("T", "B\nC")


@pytest.mark.parametrize(
    ("file", "source", "error"),
    [
        ("sms.txt", "a\n{{ x | nope }}", "line 2: there is no Liquid filter 'nope'"),
        ("sms.txt", "a\n{{ x | safe }}", "line 2: there is no Liquid filter 'safe'"),
        ("sms.txt", "a\n{% if x %}\nb", "line 2: Liquid: expected tag endif"),
        ("sms.txt", "a\n\n{{ }}\nb", "line 3: Liquid: expected a primitive"),
        ("sms.txt", "a\n{{ x", "line 2: Liquid: expected '}}'"),
        ("sms.txt", "{% include 'x' %}", "line 1: Liquid: unexpected tag 'include'"),
        ("email.html", "<p>x", "line 1: '<p>x' is not a header; begin with header lines (Subject:"),
        ("email.html", "Subjct: x\n\nb",
         "line 1: the header Subjct: is unknown; allowed are Subject:"),
        ("email.html", "Preheader: x\n\nb", "line 1: the header Subject: is missing or empty"),
        ("email.html", "Subject:\n\nb", "line 1: the header Subject: is missing or empty"),
        ("email.html", "Preheader: y\nSubject: {{ x\n\nb", "line 2: Liquid: expected '}}'"),
        ("email.html", "Subject: a\nSubject: b\n\nb", "line 2: Subject: occurs twice"),
        ("email.html", "Subject: a\n\n\n{{ x | bad }}", "line 4: there is no Liquid filter 'bad'"),
        ("push.txt", "Link: x\n\nb", "line 1: the header Title: is missing or empty"),
        ("push.txt", "Title: x\nSubject: y\n\nb", "line 2: the header Subject: is unknown"),
        ("email.mjml", "Subject: a\n\n<mjml><mj-body>\n<mj-section>\n</mj-body></mjml>",
         "line 4: MJML: <mj-section> is not closed before </mj-body>"),
        ("email.mjml", "Subject: a\n\n<mjml><mj-body>{{ a\n}}\n<mj-sction /></mj-body></mjml>",
         "line 5: MJML: there is no MJML tag <mj-sction>"),
        ("email.mjml", "Subject: a\n\n<mjml>\n<mj-body><mj-text>1 < 2</mj-text></mj-body></mjml>",
         "line 4: MJML: a < begins no tag; write it as &lt;"),
        ("email.mjml", "Subject: a\n\n<mjml><mj-body>\n<mj-image width='{{ w }}' />"
         "</mj-body></mjml>",
         "line 4: MJML would drop or move {{ w }}"),
        ("email.mjml", "Subject: a\n\n<mjml><mj-body>\n<mj-include path='x' /></mj-body></mjml>",
         "line 4: MJML: <mj-include> is not supported.*can't include other files"),
        ("email.mjml", "Subject: a\n\n<p>x</p>", "line 3: MJML: unexpected <p>.*with <mjml>"),
    ],
)  # fmt: skip
def test_an_invalid_template_error_names_file_line_and_fix(
    file: str, source: str, error: str
) -> None:
    [channel] = [one for one in CHANNELS if file.startswith(f"{one}.")]
    pattern = error.replace("(", r"\(").replace("{{", r"\{\{").replace("}}", r"\}\}")
    with pytest.raises(TemplateError, match=rf"^t\.{file}.*{pattern}"):
        compile_template(channel, "t", {f"t.{file}": source})


def test_a_missing_or_duplicate_template_is_an_error() -> None:
    with pytest.raises(TemplateError, match=r"add t\.email\.mjml or t\.email\.html to the"):
        compile_template("email", "t", {"u.email.html": "Subject: x\n\nb"})
    both = {"t.email.html": "Subject: x\n\nb", "t.email.mjml": "Subject: x\n\nb"}
    with pytest.raises(TemplateError, match=r"the template has two bodies; remove one"):
        compile_template("email", "t", both)
