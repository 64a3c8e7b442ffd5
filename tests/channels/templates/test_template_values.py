"""Values in templates: blank and missing values, money, dates, and mail headers."""

import re
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

NO_LINKS = LinkRules()


def sms(body: str) -> Template:
    return compile_template("sms", "t", {"t.sms.txt": body})


def said(body: str, **context: Any) -> str:
    content = sms(body).render(context, NO_LINKS)
    assert isinstance(content, SMSContent)
    return content.body


def mail(source: str, suffix: str = "html", **context: Any) -> EmailContent:
    template = compile_template("email", "t", {f"t.email.{suffix}": source})
    content = template.render(context, NO_LINKS)
    assert isinstance(content, EmailContent)
    return content


# What is blank -----------------------------------------------------------------------------------

PEOPLE: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing"),
    ({"x": None}, "nothing"),
    ({"x": False}, "false"),
    ({"x": ""}, "empty"),
    ({"x": "  \n"}, "spaces"),
    ({"x": []}, "empty"),
    ({"x": {}}, "empty"),
    ({"x": "Ann"}, "something"),
    ({"x": 0}, "something"),
    ({"x": True}, "something"),
    ({"x": [None]}, "something"),
]


@pytest.mark.parametrize(("profile", "kind"), PEOPLE)
@pytest.mark.parametrize(
    ("test", "kinds"),
    [
        ("profile.x == blank", {"nothing", "false", "empty", "spaces"}),
        ("blank == profile.x", {"nothing", "false", "empty", "spaces"}),
        ("profile.x != blank", {"something"}),
        ("blank != profile.x", {"something"}),
        ("profile.x == empty", {"empty"}),
        ("profile.x != empty", {"nothing", "false", "spaces", "something"}),
        ("profile.x == nil", {"nothing"}),
        ("profile.x != nil", {"false", "empty", "spaces", "something"}),
        ("profile.x", {"empty", "spaces", "something"}),
    ],
)
def test_blank_empty_and_nil_follow_shopifys_liquid(
    profile: dict[str, Any], kind: str, test: str, kinds: set[str]
) -> None:
    expected = "yes" if kind in kinds else "no"
    assert said(f"{{% if {test} %}}yes{{% else %}}no{{% endif %}}", profile=profile) == expected
    opposite = f"{{% unless {test} %}}no{{% else %}}yes{{% endunless %}}"
    assert said(opposite, profile=profile) == expected


@pytest.mark.parametrize(("profile", "kind"), PEOPLE)
def test_a_case_knows_blank_too(profile: dict[str, Any], kind: str) -> None:
    body = "{% case profile.x %}{% when blank %}blank{% when 'Ann' %}Ann{% else %}else{% endcase %}"
    blank = kind in ("nothing", "false", "empty", "spaces")
    expected = "blank" if blank else "Ann" if profile["x"] == "Ann" else "else"
    assert said(body, profile=profile) == expected


@pytest.mark.parametrize(
    "body",
    [
        "{% if profile.first_name != blank %}Hi {{ profile.first_name }}{% else %}Hello{% endif %}",
        "{% if profile.first_name == blank %}Hello{% else %}{{ profile.first_name }}{% endif %}",
        "{% if profile.first_name != blank and profile.x %}{{ profile.first_name }}{% else %}Hello"
        "{% endif %}",
        "{% unless profile.first_name == blank %}x{% else %}Hello{% endunless %}",
        "{% assign n = profile.first_name %}{% if n != blank %}{{ n }}{% else %}Hello{% endif %}",
    ],
)
def test_a_missing_name_is_not_rendered(body: str) -> None:
    assert said(body, profile={}) == "Hello"
    assert said(body, profile={"first_name": "  "}) == "Hello"


# What is missing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [{}, {"renewal": None}, {"renewal": ""}, {"renewal": " "}])
@pytest.mark.parametrize(
    "body",
    [
        '{{ profile.renewal | date: "%d %B" | default: "soon" }}',
        '{{ profile.renewal | default: "soon" | date: "%d %B" }}',
        '{{ profile.renewal | local_date | default: "soon" }}',
        '{{ profile.renewal | default: "soon" | local_date: "long" }}',
        '{{ profile.renewal | money: "EUR" | default: "soon" }}',
        '{{ profile.renewal | default: "soon" | money: "EUR" }}',
    ],
)
def test_a_default_applies_before_and_after_a_filter(body: str, profile: dict[str, Any]) -> None:
    if profile.get("renewal") == " " and body.index("default") < body.rindex("|"):
        # Liquid's default leaves a text of spaces as it is; it is missing all the same.
        with pytest.raises(MissingData):
            said(body, profile=profile)
    else:
        assert said(body, profile=profile) == "soon"
        assert "<body>soon</body>" in mail(f"Subject: S\n\n{body}", profile=profile).html


def test_a_default_may_be_a_date_or_an_amount() -> None:
    assert said('{{ x | default: "2026-03-05" | date: "%d.%m." }}') == "05.03."
    assert said('{{ x | default: 5 | money: "EUR" }}') == "€5.00"
    assert said('{{ x | default: "<b>" | upcase }}') == "<B>"


@pytest.mark.parametrize(
    "body",
    [
        "{{ x | upcase | default: 'y' }}",
        "{{ x | split: ',' | first | default: 'y' }}",
        "{{ list | first | upcase | default: 'y' }}",
        "{{ x | plus: 1 | times: 2 | default: 'y' }}",
        "{% assign z = x | upcase %}{{ z | default: 'y' }}",
    ],
)
def test_a_filter_leaves_what_is_missing_missing(body: str) -> None:
    assert said(body, list=[]) == "y"
    with pytest.raises(MissingData):
        said(body.replace("| default: 'y' ", ""), list=[])


PROPERTIES = ["size", "first", "last", "items", "keys", "values", "get", "pop", "copy", "__class__"]


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_that_the_data_lacks_is_missing(name: str) -> None:
    for path in (f"profile.{name}", f"profile.address.{name}", f"profile['{name}']"):
        template = sms(f"{{{{ {path} }}}}")
        with pytest.raises(MissingData) as caught:
            template.render({"profile": {"address": {"city": "Ulm"}}}, NO_LINKS)
        assert name in caught.value.field
    assert said(f"{{{{ profile.{name} | default: 'x' }}}}", profile={"a": 1}) == "x"
    assert said(f"{{% if profile.{name} %}}a{{% else %}}b{{% endif %}}", profile={"a": 1}) == "b"


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_that_the_data_has_is_printed(name: str) -> None:
    assert said(f"{{{{ profile.{name} }}}}", profile={name: "M"}) == "M"


@pytest.mark.parametrize("path", ["items.last", "items.first", "items.size", "items.last.name"])
def test_a_property_of_a_missing_value_is_missing(path: str) -> None:
    with pytest.raises(MissingData):
        said(f"{{{{ profile.{path} }}}}", profile={})
    if path != "items.size":
        with pytest.raises(MissingData):
            said(f"{{{{ profile.{path} }}}}", profile={"items": []})


def test_a_list_has_a_size_a_first_and_a_last() -> None:
    body = "{{ e.items.size }} {{ e.items.first }} {{ e.items.last }} {{ e.items[0] }}"
    assert said(body, e={"items": ["a", "b"]}) == "2 a b a"
    assert said("{{ e.name.size }}", e={"name": "Ann"}) == "3"


def test_a_size_of_an_object_is_a_variable_like_others() -> None:
    template = sms("{{ profile.size }} {{ event.first }} {{ event.items.size }}")
    assert template.variables == {"profile.size", "event.first", "event.items"}


# Money and dates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "value", "currency", "shown"),
    [
        ("en", 1234.5, "EUR", "€1,234.50"),
        ("de", 1234.5, "EUR", "1.234,50 €"),
        ("de-CH", 1234.5, "CHF", "CHF 1’234.50"),
        ("fr", 1234.5, "EUR", "1 234,50 €"),
        ("ja", 1234, "JPY", "￥1,234"),
        ("en", 0.1 + 0.2, "usd", "$0.30"),
        ("en", 2.675, "USD", "$2.68"),
        ("en", "12.50", "GBP", "£12.50"),
        ("en", -3, "EUR", "-€3.00"),
        ("en", 1e15, "EUR", "€1,000,000,000,000,000.00"),
        ("en", 1.2345, "KWD", "KWD1.235"),
        ("xx", 5, "EUR", "€5.00"),
        ("", 5, "EUR", "€5.00"),
        ("'><script>", 5, "EUR", "€5.00"),
        (None, 5, "EUR", "€5.00"),
    ],
)
def test_money_in_the_customers_language(
    language: str | None, value: object, currency: str, shown: str
) -> None:
    context = {"profile": {"language": language}, "event": {"total": value, "currency": currency}}
    assert said("{{ event.total | money: event.currency }}", **context) == shown
    assert said(f"{{{{ event.total | money: '{currency}' }}}}", **context) == shown
    assert said("{{ event.total | money }}", **context) == shown


def test_a_no_break_space_stays_in_html_only() -> None:
    context: dict[str, Any] = {"profile": {"language": "de"}, "total": 5}
    assert said("{{ total | money: 'EUR' }}", **context) == "5,00 €"
    assert "5,00\u00a0€" in mail("Subject: S\n\n{{ total | money: 'EUR' }}", **context).html


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("free", "is not an amount"),
        ("1,250.00", "is not an amount"),
        ("12 EUR", "is not an amount"),
        ("1e3", "is not an amount"),
        ("٣", "is not an amount"),
        (True, "is not an amount"),
        ([5], "is not an amount"),
        ({"a": 1}, "is not an amount"),
        (float("nan"), "is not an amount"),
        (float("inf"), "is not an amount"),
    ],
)
def test_an_invalid_amount_is_refused(value: object, words: str) -> None:
    with pytest.raises(RenderError, match=words):
        said("{{ total | money: 'EUR' }}", total=value)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.lists(st.integers())))
def test_any_amount_is_shown_as_it_is_or_refused(value: object) -> None:
    try:
        shown = said("{{ total | money: 'EUR' }}", total=value)
    except RenderError:
        return
    figures = re.sub(r"[^0-9.-]", "", shown)
    assert abs(float(figures) - float(str(value))) <= max(0.0051, abs(float(figures)) * 1e-15)


def test_a_missing_currency_is_missing_data() -> None:
    with pytest.raises(MissingData) as caught:
        said("{{ event.total | money }}", event={"total": 5})
    assert caught.value.field == "event.currency"
    with pytest.raises(MissingData) as caught:
        said("{{ event.total | money: event.coin }}", event={"total": 5})
    assert caught.value.field == "event.coin"
    with pytest.raises(RenderError, match="'EURO' is not a currency; use its ISO 4217 code"):
        said("{{ event.total | money: event.coin }}", event={"total": 5, "coin": "EURO"})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("x\n{{ total | money: 'EURO' }}", "line 2: Liquid: 'EURO' is not a currency"),
        ("{{ day | local_date: 'longer' }}", "line 1: Liquid: 'longer' is not a date length"),
    ],
)
def test_a_wrong_currency_or_length_is_found_at_load(body: str, error: str) -> None:
    with pytest.raises(TemplateError, match=f"^t.sms.txt, {error}"):
        sms(body)


@pytest.mark.parametrize(
    ("language", "length", "shown"),
    [
        ("en", "long", "March 5, 2026"),
        ("en-GB", "long", "5 March 2026"),
        ("de", "long", "5. März 2026"),
        ("de", "short", "05.03.26"),
        ("fr", "full", "jeudi 5 mars 2026"),
        ("ja", "medium", "2026/03/05"),
        ("pt_BR", "long", "5 de março de 2026"),
    ],
)
def test_dates_in_the_customers_language(language: str, length: str, shown: str) -> None:
    body = f"{{{{ day | local_date: '{length}' }}}}"
    for day in ("2026-03-05", "2026-03-05T23:30:00-11:00", 1_772_668_800):
        assert said(body, profile={"language": language}, day=day) == shown
    assert said("{{ day | local_date }}", day="2026-03-05") == "March 5, 2026"


@pytest.mark.parametrize("day", ["--05-04", "05/04/1990", "0000-00-00", "1990", True, 10**20, []])
def test_a_value_that_is_not_a_date_is_refused(day: object) -> None:
    with pytest.raises(RenderError):
        said("{{ day | local_date }}", day=day)


# The head of a mail ------------------------------------------------------------------------------

MJML = (
    "<mjml><mj-body><mj-section><mj-column><mj-text>x</mj-text></mj-column></mj-section></mj-body>"
    "</mjml>"
)
WHOLE = "<!DOCTYPE html>\n<html>\n<head>\n</head>\n<body class='b'>\nx</body></html>"


@pytest.mark.parametrize(
    ("suffix", "body"),
    [("mjml", MJML), ("html", "<p>x</p>"), ("html", WHOLE), ("html", "<body><p>x</p></body>")],
)
def test_a_mail_declares_its_language_title_and_colours(suffix: str, body: str) -> None:
    source = f"Subject: A & B for {{{{ profile.name }}}}\nPreheader: Now\n\n{body}"
    content = mail(source, suffix, profile={"name": "<Ann>", "language": "de-AT"})
    html = content.html
    assert content.subject == "A & B for <Ann>"
    assert re.search(r"<html[^>]* lang=\"de-AT\"", html)
    assert html.count("<html") == html.count("<head>") == html.count("<body") == 1
    assert html.count("<title>") == 1
    assert "<title>A &amp; B for &lt;Ann&gt;</title>" in html
    assert '<meta name="color-scheme" content="light">' in html
    assert '<meta name="supported-color-schemes" content="light">' in html
    head, after = html.split("</head>")
    assert "<title>" in head
    assert re.match(r"\s*<body[^>]*><div style=\"display:none[^>]*>Now</div>", after)
    assert 'lang="und"' not in html


@pytest.mark.parametrize(
    ("headers", "body", "lang"),
    [
        ("", "<p>x</p>", "sv"),
        ("\nLanguage: en", "<p>x</p>", "en"),
        ("", '<html lang="fr"><body>x</body></html>', "fr"),
        ("", '<html class="a" lang=""><body>x</body></html>', "sv"),
    ],
)
def test_the_authors_language_attribute_has_priority(headers: str, body: str, lang: str) -> None:
    html = mail(f"Subject: S{headers}\n\n{body}", profile={"language": "sv"}).html
    assert re.findall(r'lang="([^"]*)"', html) == [lang]


def test_an_author_may_write_the_head() -> None:
    source = (
        "Subject: S\n\n<html><head><title>Mine</title><meta name='color-scheme' content='light "
        "dark'></head><body>x</body></html>"
    )
    html = mail(source).html
    assert html.count("<title>") == 1
    assert "<title>Mine</title>" in html
    assert html.count("color-scheme") == 1


@pytest.mark.parametrize("language", [None, 5, "", "x'><script>"])
def test_an_unknown_language_falls_back_to_english(language: object) -> None:
    assert 'lang="en"' in mail("Subject: S\n\nx", profile={"language": language}).html


def test_dates_follow_the_language_of_the_template() -> None:
    source = "Subject: S\nLanguage: en\n\n{{ '2026-03-05' | local_date }}"
    assert "March 5, 2026" in mail(source, profile={"language": "de"}).html


@pytest.mark.parametrize(
    ("header", "error"),
    [("Language: en us", "Language: 'en us' is not a BCP 47 tag"), ("Language:", "BCP 47")],
)
def test_a_wrong_language_is_found_at_load(header: str, error: str) -> None:
    with pytest.raises(TemplateError, match=f"line 2: .*{error}"):
        mail(f"Subject: S\n{header}\n\nx")


def test_a_push_can_be_silent() -> None:
    def push(header: str) -> object:
        source = {"t.push.txt": f"Title: T\n{header}\n\nB"}
        return compile_template("push", "t", source).render({}, NO_LINKS)

    assert push("Sound: none") == PushContent("T", "B", silent=True)
    assert push("Sound: default") == PushContent("T", "B")
    with pytest.raises(TemplateError, match="line 2: Sound: 'ding' is not default or none"):
        push("Sound: ding")
