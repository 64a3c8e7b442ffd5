"""Compile templates, and render them for each message.

The files of a template are in the folder of its journey: `<name>.<channel>.<format>`, described in
docs/journeys/templates.md. This module gets their text, because the database stores it with each
version.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from channels.templates.dialect import Rendering
from channels.templates.email_html import checked, complete
from channels.templates.link_check import LinkRules, allowed_to_authors, shown, written_start
from channels.templates.liquid import (
    BadLink,
    Hidden,
    MissingData,
    RenderError,
    Script,
    TemplateError,
    parse,
)
from channels.templates.localized import FALLBACK
from channels.templates.mjml import to_html
from channels.templates.plain_text import to_text
from config.channels import (
    LANGUAGE,
    Channel,
    ChannelName,
    Content,
    Header,
    channel_of,
    channels,
)

__all__ = ["BadLink", "MissingData", "RenderError", "Template", "TemplateError", "compile_template"]

# Loopback links are allowed here; outside the sandbox they are refused at rendering.
_SANDBOX = LinkRules(loopback=True)

_HTTP = re.compile(r"\bhttp://[^\s\"'<>)]+", re.IGNORECASE)
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*)")
_BLANK_LINES = re.compile(r"\n\s*\n")


class Part(NamedTuple):
    """A part of the content, such as the subject, and the rules for its text."""

    script: Script
    one_line: bool = False
    may_be_empty: bool = False


class _Line(NamedTuple):
    """A header line of a file."""

    header: Header
    value: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One compiled template.

    variables: the dotted paths that it prints or tests. options: the headers that are not rendered.
    language: BCP 47 tag for money and dates; None: the language of each customer.
    """

    channel: ChannelName
    name: str
    variables: frozenset[str]
    parts: Mapping[str, "Part"]
    options: Mapping[str, str]
    language: str | None = None

    @property
    def is_free_text(self) -> bool:
        """Whether it has a body of its own, and does not name a template at the provider."""
        return "body" in self.parts

    def render(self, context: Mapping[str, Any], rules: LinkRules) -> Content:
        """The content for one profile. Raises MissingData, BadLink or RenderError."""
        rendering = Rendering(self.language or _language_of(context), rules)
        rendered: dict[str, str] = {}
        for name, part in self.parts.items():
            text = part.script.render(context, rendering)
            # A line end in a subject would begin another header of the mail.
            text = " ".join(text.split()) if part.one_line else text.strip()
            if not text and not part.may_be_empty:
                raise RenderError(f"{part.script.file}: the {name} is empty")
            rendered[name] = text
        if "text" in rendered:
            rendered["text"] = _BLANK_LINES.sub("\n\n", rendered["text"])
        return channel_of(self.channel).content.of(rendered, self.options)


def _language_of(context: Mapping[str, Any]) -> str:
    """The customer's language if it is a valid tag, else FALLBACK."""
    profile = context.get("profile")
    language = profile.get("language") if isinstance(profile, Mapping) else None
    tag = str(language).replace("_", "-") if language else ""
    assert LANGUAGE.fixed is not None
    return tag if LANGUAGE.fixed.fullmatch(tag) else FALLBACK


def compile_template(channel: ChannelName, name: str, sources: Mapping[str, str]) -> Template:
    """Compile the template `name` for `channel`. sources: texts by file name.

    Files of other templates in `sources` are ignored. Raises TemplateError.
    """
    suffixes = _suffixes(channel_of(channel))
    files = tuple(
        (name + suffix, sources[name + suffix]) for suffix in suffixes if name + suffix in sources
    )
    return _compile(channel, name, files)


def template_suffixes() -> tuple[str, ...]:
    """The suffixes of template files, on all channels."""
    return tuple(suffix for channel in channels().values() for suffix in _suffixes(channel))


def _suffixes(channel: Channel) -> list[str]:
    """The suffixes of body files, and of the plain text that accompanies an HTML body."""
    found = _bodies(channel)
    return found if "txt" in channel.formats else [*found, f".{channel.name}.txt"]


def _bodies(channel: Channel) -> list[str]:
    return [f".{channel.name}.{form}" for form in channel.formats]


@lru_cache(maxsize=4096)
def _compile(channel: ChannelName, name: str, files: tuple[tuple[str, str], ...]) -> Template:
    kind = channel_of(channel)
    texts = {file: text.removeprefix("\ufeff").replace("\r\n", "\n") for file, text in files}
    wanted = [name + suffix for suffix in _bodies(kind)]
    bodies = [file for file in wanted if file in texts]
    if len(bodies) != 1:
        raise TemplateError(
            " and ".join(bodies) or wanted[0],
            None,
            "the template has two bodies; remove one"
            if bodies
            else f"the template does not exist; add {' or '.join(wanted)} to the journey's folder",
        )
    file = bodies[0]
    headers, body, first_line = _split(kind, file, texts[file])
    replaced = _replaced(kind, file, headers, body, first_line)
    options = _options(file, headers)
    if file.endswith(".txt"):
        parts = {part: _header(file, line) for part, line in headers.items()}
        if not replaced:
            parts["body"] = Part(_text(body, file, first_line))
    else:
        parts = _html(file, texts, headers, body, first_line)
    variables = frozenset[str]().union(*(part.script.variables for part in parts.values()))
    language = options.pop(LANGUAGE.name.lower(), None)
    return Template(
        channel=channel,
        name=name,
        variables=variables,
        parts=parts,
        options=options,
        language=language,
    )


def _replaced(
    channel: Channel, file: str, headers: Mapping[str, _Line], body: str, first_line: int
) -> bool:
    """Whether a header replaces the body. Raises TemplateError if the file has both."""
    [*replacing] = [line.header.name for line in headers.values() if line.header.replaces_body]
    if replacing and body.strip():
        raise TemplateError(
            file,
            first_line,
            f"{replacing[0]}: names a template at the provider; remove this body or the header",
        )
    for line in headers.values():
        if line.header.numbered and not replacing:
            wanted = " or ".join(f"{one.name}:" for one in channel.headers if one.replaces_body)
            raise TemplateError(file, line.number, f"{line.header.name}-…: needs a line {wanted}")
    return bool(replacing)


def _options(file: str, headers: dict[str, _Line]) -> dict[str, str]:
    """Remove the headers that are not rendered and return their values. Raises TemplateError."""
    options: dict[str, str] = {}
    for part, (header, value, line) in list(headers.items()):
        if header.fixed is not None:
            if not header.fixed.fullmatch(value):
                raise TemplateError(
                    file, line, f"{header.name}: {value[:40]!r} is not {header.expects}"
                )
            options[part] = value
            del headers[part]
    return options


def _header(file: str, line: _Line) -> Part:
    """Compile a header line, with a check if it holds a link. Raises TemplateError."""
    header, value, number = line
    if header.link is None:
        script = _text(value, file, number)
    else:
        app = header.link == "app"
        hidden = Hidden(value)
        written = written_start(hidden.text) if hidden.tags else value
        if written and not hidden.found(written):
            _check_written(written, file, number, own_schemes=app)
        script = parse(checked("app_link" if app else "link", value), file, number)
    return Part(script, header.one_line, header.may_be_empty)


def _text(source: str, file: str, first_line: int = 1) -> Script:
    """Compile Liquid that is sent as plain text, with checks around http links."""
    hidden = Hidden(source)

    def link(found: re.Match[str]) -> str:
        line = first_line + hidden.restore(found.string[: found.start()]).count("\n")
        _check_written(hidden.restore(found[0]), file, line)
        return checked("link", found[0])

    parse(source, file, first_line)  # the original, so that errors have the right line
    return parse(hidden.restore(_HTTP.sub(link, hidden.text)), file, first_line)


def _check_written(link: str, file: str, line: int, *, own_schemes: bool = False) -> None:
    if not allowed_to_authors(link, _SANDBOX, own_schemes=own_schemes):
        raise TemplateError(file, line, f"the template links to {shown(link)}; links need https")


def _html(
    file: str,
    texts: Mapping[str, str],
    headers: Mapping[str, _Line],
    html: str,
    first_line: int,
) -> dict[str, Part]:
    parse(html, file, first_line)  # the original, so that errors have the right line
    if file.endswith(".mjml"):
        html = to_html(html, file, first_line)
    plain_file = file.rsplit(".", 1)[0] + ".txt"
    if plain_file in texts:
        text = _text(texts[plain_file], plain_file)
    else:
        try:
            text = parse(to_text(html), file)
        except TemplateError as error:
            raise TemplateError(
                file, None, f"can't derive the plain text ({error}); add {plain_file}"
            ) from error
    preheader = None
    if "preheader" in headers:
        _, preheader, line = headers["preheader"]
        parse(preheader, file, line)
    _, subject, line = headers["subject"]
    content = complete(html, subject, preheader, file, texts[file])
    return {
        "subject": Part(parse(subject, file, line), one_line=True),
        "html": Part(parse(content, file, first_line, html=True)),
        "text": Part(text, may_be_empty=True),
    }


def _split(channel: Channel, file: str, source: str) -> tuple[dict[str, _Line], str, int]:
    """The header lines by part name, the body, and the line at which it begins."""
    if not channel.headers:
        return {}, source, 1
    headers: dict[str, _Line] = {}
    shown = ", ".join(f"{one.name}{'-1' if one.numbered else ''}:" for one in channel.headers)
    lines = source.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            break
        found = _HEADER.fullmatch(line)
        if found is None and number == 1 and not any(one.required for one in channel.headers):
            return {}, source, 1
        if found is None:
            raise TemplateError(
                file,
                number,
                f"{line.strip()[:40]!r} is not a header; begin with header lines ({shown}), then "
                "an empty line, then the body",
            )
        part = found[1].lower()
        header = next((one for one in channel.headers if one.is_called(part)), None)
        if header is None:
            raise TemplateError(
                file, number, f"the header {found[1]}: is unknown; allowed are {shown}"
            )
        if part in headers:
            raise TemplateError(file, number, f"{found[1]}: occurs twice; remove one")
        headers[part] = _Line(header, found[2].strip(), number)
    for required in channel.headers:
        given = headers.get(required.name.lower())
        if required.required and (given is None or not given.value):
            raise TemplateError(file, 1, f"the header {required.name}: is missing or empty")
    return headers, "\n".join(lines[number:]), number + 1
