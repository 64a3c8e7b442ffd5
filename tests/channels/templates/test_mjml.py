"""MJML: the author's text and attributes are kept, and an error has its tag and line."""

import re

import pytest

from channels.templates.liquid import TemplateError
from channels.templates.mjml import to_html


def body(inside: str, head: str = "") -> str:
    column = f"<mj-section><mj-column>{inside}</mj-column></mj-section>"
    return f"<mjml><mj-head>{head}</mj-head><mj-body>{column}</mj-body></mjml>"


def rendered(inside: str, head: str = "") -> str:
    return to_html(body(inside, head), "t.email.mjml")


@pytest.mark.parametrize(
    "html",
    [
        '<span style="color:red;\nfont-size:14px">x</span>',
        '<span style="color:red;\tfont-size:14px">x</span>',
        "<span style=\"font-family:'A\\B'\">x</span>",
        '<span title="a\u00a0b\u200d\u00adc">x</span>',
        "<span title='say \"yes\"'>x</span>",
        "<td width=50>x</td>",
        '<a href="https://shop.example/?a=1&amp;b=2">&nbsp;&copy;&#x1F600;</a>',
        "<!--[if mso]><b>x</b><![endif]--><br><img src=a.png>",
    ],
)
def test_html_in_a_text_stays_as_it_was_written(html: str) -> None:
    for tag in ("mj-text", "mj-button", "mj-table"):
        assert html in rendered(f"<{tag}>{html}</{tag}>")


@pytest.mark.parametrize(
    ("written", "arrives"),
    [
        ('alt="two\nlines"', 'alt="two lines"'),
        ('alt="back\\slash"', 'alt="back\\slash"'),
        ("alt='say \"yes\"'", 'alt="say &quot;yes&quot;"'),
        ('alt="a&nbsp;b\u00a0c\u200dd"', 'alt="a&nbsp;b\u00a0c\u200dd"'),
        ('alt="Größe 1 > 0"', 'alt="Größe 1 &gt; 0"'),
        ('title="\u0301x"', 'title="\u0301x"'),
    ],
)
def test_an_attribute_of_an_mjml_tag_keeps_its_characters(written: str, arrives: str) -> None:
    assert arrives in rendered(f'<mj-image src="a.png" {written} />')


@pytest.mark.parametrize(
    ("classes", "color"), [("red big", "green"), ("big red", "red"), ("big nobody", "green")]
)
def test_of_several_mj_classes_the_last_wins(classes: str, color: str) -> None:
    head = (
        '<mj-attributes><mj-text color="blue" /><mj-class name="red" color="red" />'
        '<mj-class name="big" color="green" font-size="30px" /></mj-attributes>'
    )
    assert f"color:{color};" in rendered(f'<mj-text mj-class="{classes}">x</mj-text>', head)
    own = rendered(f'<mj-text mj-class="{classes}" color="black">x</mj-text>', head)
    assert "color:black;" in own


def test_css_classes_of_several_mj_classes_add_up() -> None:
    head = (
        '<mj-attributes><mj-class name="a" css-class="one" />'
        '<mj-class name="b" css-class="two" /></mj-attributes>'
    )
    assert 'class="one two"' in rendered('<mj-text mj-class="a b">x</mj-text>', head)


@pytest.mark.parametrize(
    ("columns", "width"),
    [
        ('<mj-column><mj-image src="a" width="900px" /></mj-column>', 550),
        ('<mj-column width="200px"><mj-image src="a" width="900px" /></mj-column>', 150),
        (
            '<mj-column padding="20px" border="5px solid"><mj-image src="a" width="900px" />'
            "</mj-column>",
            500,
        ),
        ('<mj-column inner-border="7px solid"><mj-image src="a" /></mj-column>', 536),
        ('<mj-column inner-border="7px solid"><mj-image src="a" width="90" /></mj-column>', 90),
    ],
)
def test_a_picture_is_no_wider_than_its_column(columns: str, width: int) -> None:
    html = to_html(
        f"<mjml><mj-body><mj-section>{columns}</mj-section></mj-body></mjml>", "t.email.mjml"
    )
    assert re.findall(r'<img [^>]*width="(\d+)"', html) == [str(width)]


def test_a_picture_without_alternative_text_is_silent() -> None:
    assert 'alt=""' in rendered('<mj-image src="a.png" />')


def test_a_style_sheet_is_written_into_the_tags() -> None:
    head = '<mj-style inline="inline">.a { color: red } p:hover { color: blue }</mj-style>'
    html = rendered('<mj-text><p class="a">{{ x }}</p></mj-text>', head)
    assert re.search(r'<p class="a" style="color: ?red;?">\{\{ x \}\}</p>', html)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("<mjml>\n<mj-body>\n<mj-section>\n</mj-body></mjml>",
         "line 3: MJML: <mj-section> is not closed before </mj-body>"),
        ("<mjml>\n<mj-body>\n</mj-section></mj-body></mjml>",
         "line 2: MJML: <mj-body> is not closed before </mj-section>"),
        ("<mjml>\n<mj-body>", "line 2: MJML: <mj-body> is not closed"),
        ("<mjml>\n<mj-body>\n<mj-text>x</mj-body></mjml>", "line 3: MJML: <mj-text> is not closed"),
        (body("<mj-text>\n<p>\n<b>x</p></mj-text>"),
         "line 3: MJML: <b> is not closed before </p>, in <mj-text>"),
        (body("\n<mj-text color=red>x</mj-text>"),
         "line 2: MJML: <mj-text> has 'color=red', which is not an attribute"),
        (body('\n<mj-text color="red" color="blue">x</mj-text>'),
         "line 2: MJML: <mj-text> has color twice"),
        (body('\n<mj-text color="red>x</mj-text>'),
         "line 2: MJML: the tag is incomplete; check for a missing quote"),
        (body("\n{{ a\n}}Hello"), "line 2: MJML: '{{ a\n}}Hello' is directly in <mj-column>"),
        (body("\n<mj-text {{ a }}>x</mj-text>"), "line 2: MJML: <mj-text> has '{{ a }}'"),
        (body("\n<mj-html-attributes></mj-html-attributes>"),
         "line 2: MJML: <mj-html-attributes> is not supported"),
        (body("\n<mj-image src='a' width='50%' />"),
         "line 2: MJML: <mj-image> has a width in %; write it in px"),
        (body("\n<mj-social><mj-text>x</mj-text></mj-social>"),
         "line 2: MJML: <mj-text> is not allowed in <mj-social>"),
        (body("", "\n<mj-attributes>\n<mj-class color='red' /></mj-attributes>"),
         "line 3: MJML: <mj-class> needs a name"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_tag_and_its_line(source: str, error: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(f"t.email.mjml, {error}")):
        to_html(source, "t.email.mjml")
