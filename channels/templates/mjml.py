"""Convert MJML to HTML when a template is compiled; Liquid tags keep their places.

The renderer mrml differs from MJML's reference implementation (npm's mjml 5) in places. These are
corrected before or after rendering; tests/channels/templates/test_mjml_reference.py compares the
pixels.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import css_inline
import mrml

from channels.templates.liquid import Hidden, HiddenTexts, TemplateError
from channels.templates.mjml_source import COMMENT, Mistake, Tag, read

# No web fonts: loading them would report to another server that the mail was opened.
_OPTIONS = mrml.RenderOptions(fonts={})
# mrml escapes these characters in attributes with the rules of Rust, not of HTML.
_UNSAFE = re.compile(r"[^ !#-;=?-\[\]-~]+")
_COMMENTED = frozenset({"mj-body", "mj-wrapper", "mj-section", "mj-column"})
_POSITION = re.compile(r" at position \d+:\d+")
_EDGES = ("border-top", "border-right", "border-bottom", "border-left")
_PX = re.compile(r"(\d+)(?:\.\d+)?px")
_NUMBER = re.compile(r"(\d+)(?:\.\d+)?(?:px)?")
_BUTTON_WIDTH = r"(<(?:a|p) [^>]*?[^-]width:)(\d+)()"
_IMAGE_WIDTH = r'(<td style="width:)(\d+)([^>]*>(?:<a [^>]*>)?<img [^>]*width=")\2'


@dataclass(frozen=True, slots=True)
class _Correction:
    """One replacement in the HTML, after the tag whose class contains `mark`."""

    mark: str
    pattern: str
    replacement: str | Callable[[re.Match[str]], str]


def to_html(source: str, file: str, first_line: int = 1) -> str:
    """The HTML of MJML. first_line: the line of `file` at which it begins. Raises TemplateError."""
    hidden = Hidden(source)
    kept, marks = HiddenTexts(hidden.text, "mjmlkept"), HiddenTexts(hidden.text, "mjmlmark")
    try:
        tree = read(hidden.text)
        _resolve_attributes(tree)
        inline_css = _hide(tree, kept)
        corrections = _corrections(tree, marks)
    except Mistake as mistake:
        before = "\n".join(hidden.text.split("\n")[: mistake.line - 1])
        line = first_line + hidden.restore(before).count("\n") + (mistake.line > 1)
        raise TemplateError(file, line, f"MJML: {hidden.restore(mistake.problem)}") from mistake
    try:
        html = mrml.to_html(tree.write(), None, _OPTIONS).content
    except OSError as error:
        raise TemplateError(file, None, f"MJML: {_POSITION.sub('', str(error))}") from error
    html = kept.restore(_icons_on_the_right(_corrected(html, corrections), tree))
    if inline_css:
        inliner = css_inline.CSSInliner(
            inline_style_tags=False,
            keep_style_tags=True,
            load_remote_stylesheets=False,
            extra_css=inline_css,
        )
        html = inliner.inline(html)
    _check_tags(hidden, html, file, first_line)
    return hidden.restore(html)


def _resolve_attributes(tree: Tag) -> None:
    """Write the values of `mj-attributes` into the tags that they apply to.

    In ascending precedence, as in MJML's reference: defaults of the tag, each `mj-class` in its
    order, defaults of an enclosing tag's class, the tag's own. `mj-all` stays for mrml, since
    attributes that a parent passes to its children override it.
    """
    defaults: dict[str, dict[str, str]] = {}
    classes: dict[str, dict[str, str]] = {}
    inner: dict[tuple[str, str], dict[str, str]] = {}
    for head in (tag for tag in tree.walk() if tag.name == "mj-attributes"):
        for tag in head.children:
            if tag.name != "mj-class":
                defaults.setdefault(tag.name, {}).update(tag.attributes)
                continue
            name = tag.attributes.get("name")
            if name is None:
                raise Mistake(tag.line, '<mj-class> needs a name, as in name="big"')
            given = {key: value for key, value in tag.attributes.items() if key != "name"}
            classes.setdefault(name, {}).update(given)
            for child in tag.children:
                inner.setdefault((name, child.name), {}).update(child.attributes)
        head.children = [tag for tag in head.children if tag.name == "mj-all"]

    def apply(tag: Tag, enclosing: str) -> None:
        own = dict(tag.attributes)
        named = own.pop("mj-class", "").split()
        merged = dict(defaults.get(tag.name, {}))
        for name in named:
            both = [merged.get("css-class", ""), classes.get(name, {}).get("css-class", "")]
            merged |= classes.get(name, {})
            if all(both):
                merged["css-class"] = " ".join(both)
        for name in enclosing.split():
            merged |= inner.get((name, tag.name), {})
        tag.attributes = merged | own
        for child in tag.children:
            apply(child, " ".join(named) or enclosing)

    for part in tree.children:
        if part.name == "mj-body":
            apply(part, "")


def _hide(tree: Tag, kept: HiddenTexts) -> str:
    """Hide what mrml would change: the content of ending tags, and special characters.

    Returns the style sheet of `mj-style inline="inline"`.
    """
    inline_css: list[str] = []
    for tag in tree.walk():
        if tag.name == "mj-head":
            inline = [one for one in tag.children if one.attributes.get("inline") == "inline"]
            inline_css += [one.content or "" for one in inline]
            tag.children = [one for one in tag.children if one not in inline]
        elif tag.name not in _COMMENTED:
            tag.children = [one for one in tag.children if one.name != COMMENT]
        if tag.content and tag.name != COMMENT:
            tag.content = kept.hide(tag.content)
        for name, value in tag.attributes.items():
            tag.attributes[name] = _UNSAFE.sub(lambda text: kept.hide(escape(text[0])), value)
    return "\n".join(inline_css)


def _corrections(tree: Tag, marks: HiddenTexts) -> list[_Correction]:
    """Mark the tags that mrml renders wrongly; returns their corrections. Raises Mistake."""
    found: list[_Correction] = []

    def correct(tag: Tag, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> None:
        mark = marks.hide("")
        tag.attributes["css-class"] = f"{tag.attributes.get('css-class', '')} {mark}".strip()
        found.append(_Correction(mark, pattern, replacement))

    shared = {
        name: value
        for tag in tree.walk()
        if tag.name == "mj-all"
        for name, value in tag.attributes.items()
    }
    for tag in tree.walk():
        attributes = shared | tag.attributes
        if tag.name == "mj-image":
            for pattern, replacement in _image(tag, attributes):
                correct(tag, pattern, replacement)
        elif tag.name == "mj-button" and attributes.get("width", "").endswith("px"):
            if border := _border(attributes):
                correct(tag, _BUTTON_WIDTH, _narrower(border))
        elif tag.name == "mj-column":
            tag.attributes |= _whole_px(tag.attributes)
            if inner := _border(attributes, "inner-border"):
                for image in (child for child in tag.children if child.name == "mj-image"):
                    wanted = _NUMBER.match(image.attributes.pop("width", ""))
                    correct(image, _IMAGE_WIDTH, _narrower(inner, wanted and int(wanted[1])))
        elif tag.name == "mj-group":
            columns = [child for child in tag.children if child.name == "mj-column"]
            for column in columns:
                if "width" not in shared | column.attributes:
                    width = f";width:{100 // len(columns)}%"
                    correct(column, r";width:[\d.]+%", width)
        elif tag.name == "mj-wrapper" and (gap := attributes.get("gap")):
            for section in tag.children[1:]:
                if section.name == "mj-section":
                    correct(section, r'(style="[^"]*max-width:[^"]*)"', rf'\g<1>margin-top:{gap};"')
        elif tag.name == "mj-carousel":
            for pattern, replacement in _carousel(tag, attributes):
                for _ in tag.children:
                    correct(tag, pattern, replacement)
        elif tag.name == "mj-hero":
            for pattern, replacement in _hero(attributes):
                correct(tag, pattern, replacement)
        if tag.name in ("mj-section", "mj-wrapper") and attributes.get("full-width"):
            tag.attributes.pop("border-radius", None)
    return found


def _image(tag: Tag, attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Corrections of an image. Raises Mistake."""
    if attributes.get("width", "").endswith("%"):
        raise Mistake(tag.line, "<mj-image> has a width in %; write it in px")
    # Without alt a screen reader reads the URL.
    tag.attributes.setdefault("alt", "")
    tag.attributes |= _whole_px(tag.attributes)
    if edges := "".join(f"{edge}:{attributes[edge]};" for edge in _EDGES if edge in attributes):
        yield r'(<img [^>]*style="border:[^;"]*;)', rf"\g<1>{edges}"
    if sizes := attributes.get("sizes"):
        yield "<img ", f'<img sizes="{sizes}" '


def _narrower(by: int, wanted: int | None = None) -> Callable[[re.Match[str]], str]:
    """A replacement that reduces a width by `by` px, to at most `wanted` px."""

    def narrow(found: re.Match[str]) -> str:
        width = int(found[2])
        less = min(width - by, wanted or width)
        return f"{found[1]}{less}{found[3]}{less if found[3] else ''}"

    return narrow


def _whole_px(attributes: Mapping[str, str]) -> dict[str, str]:
    """The width, in px or without a unit, rounded down to whole px."""
    width = _NUMBER.fullmatch(attributes.get("width", ""))
    return {"width": f"{width[1]}px"} if width else {}


def _border(attributes: Mapping[str, str], name: str = "border") -> int:
    """The sum of the left and right border, in px."""
    both = attributes.get(name, "")
    edges = [_PX.search(attributes.get(f"{name}-{side}", both)) for side in ("left", "right")]
    return sum(int(edge[1]) for edge in edges if edge)


def _carousel(tag: Tag, attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Corrections of one thumbnail."""
    width = attributes.get("tb-width", "110px")
    tag.attributes["tb-width"] = width
    if width.endswith("%"):
        yield r"(-thumbnail [^>]*?;width:)[\d.]+px", rf"\g<1>{width}"
    if attributes.get("thumbnails") == "supported":
        # The style sheet shows the thumbnails in clients that support them.
        tag.attributes["thumbnails"] = "visible"
        yield r"(-thumbnail [^>]*?display:)inline-block", r"\1none"


def _hero(attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Corrections of a hero: its radius, the padding of its content, a fluid height."""
    if radius := attributes.get("border-radius"):
        yield r'(<td [^>]*style=")', rf"\g<1>border-radius:{radius};"
    paddings = "".join(
        f"{name.removeprefix('inner-')}:{value};"
        for name, value in attributes.items()
        if name.startswith("inner-padding")
    )
    if paddings:
        yield r'(<div class="mj-hero-content" style=")', rf"\g<1>{paddings}"
    if attributes.get("mode") == "fluid-height":
        height = _PX.match(attributes.get("background-height", ""))
        width = _PX.match(attributes.get("background-width", ""))
        ratio = round(100 * int(height[1]) / int(width[1])) if height and width else 0
        edge = f'<td style="width:0.01%;padding-bottom:{ratio}%;mso-padding-bottom-alt:0;"></td>'
        start = r'(<tr [^>]*>)(<td [^>]*?)( height="-?\d+")?( [^>]*?)height:-?\d+px;'
        end = r"(</div><!--\[if mso \| IE\]></td></tr></table><!\[endif\]--></td>)(</tr></tbody>)"
        yield start, rf"\1{edge}\2\4"
        yield end, rf"\1{edge}\2"


def _corrected(html: str, corrections: list[_Correction]) -> str:
    for one in corrections:
        start = re.search(rf'class="[^"]*{one.mark}(?!-outlook)', html)
        if start:
            before, after = html[: start.start()], html[start.start() :]
            html = before + re.sub(one.pattern, one.replacement, after, count=1)
        html = re.sub(rf"\s?{one.mark}(?:-outlook)?", "", html)
    # Whole widths for images, and alt: without it a screen reader reads the URL.
    html = re.sub(r'(<td style="width:\d+)\.\d+(?=px;?">(?:<a [^>]*>)?<img )', r"\1", html)
    html = re.sub(r'(<img [^>]*width="\d+)\.\d+', r"\1", html)
    html = re.sub(r"<img (?![^>]*alt=)", '<img alt="" ', html)
    # mrml's media query for Yahoo matches all clients.
    return html.replace("@media screen, yahoo", "@media screen yahoo")


def _icons_on_the_right(html: str, tree: Tag) -> str:
    """Swap icon and text of social elements; mrml ignores `icon-position`."""
    for tag in tree.walk():
        if tag.name == "mj-social-element" and tag.attributes.get("icon-position") == "right":
            text = rf"<td [^>]*><(?:a|span) [^>]*>{tag.content}</(?:a|span)></td>"
            html = re.sub(rf"({_ICON})({text})", r"\2\1", html)
    return html


_ICON = (
    r"<td [^>]*><table [^>]*><tbody><tr><td [^>]*>(?:<a [^>]*>)?<img [^>]*>(?:</a>)?</td></tr>"
    r"</tbody></table></td>"
)


def _check_tags(hidden: Hidden, html: str, file: str, first_line: int) -> None:
    """Check that the HTML has all Liquid tags, with blocks in the same order."""
    present = dict.fromkeys(hidden.found(html))
    blocks = [number for number in present if hidden.is_block(number)]
    lost = [number for number in range(len(hidden.tags)) if number not in present]
    moved = [number for number, next_ in pairwise(blocks) if number > next_]
    for number in lost + moved:
        before = hidden.text[: hidden.text.index(hidden.word(number))]
        raise TemplateError(
            file,
            first_line + hidden.restore(before).count("\n"),
            f"MJML would drop or move {hidden.tags[number]}; use Liquid tags in a text, in the URL "
            "of a link or image, or in an <mj-raw> of its own around sections",
        )
