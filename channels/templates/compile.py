"""Templates: compiled once, rendered once a message.

The files of a template lie beside its journey, `<name>.<channel>.<format>`; docs/channels.md shows
how they look. Here they come as text, so that the database can keep them with a journey's version.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from channels.templates.content import Content, EmailContent, PushContent, SMSContent
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
from config.policy import Channel

__all__ = ["BadLink", "MissingData", "RenderError", "Template", "TemplateError", "compile_template"]

# The header lines that a file begins with; each gives the part of the content of its name.
_HEADERS = {
    "email": ("subject", "preheader", "language"),
    "push": ("title", "link", "image", "language", "sound"),
}
_REQUIRED = {"email": "Subject", "push": "Title"}
_BODIES: dict[Channel, tuple[str, ...]] = {
    "email": (".email.mjml", ".email.html"),
    "sms": (".sms.txt",),
    "push": (".push.txt",),
}
_CONTENT: dict[Channel, type[Content]] = {
    "email": EmailContent,
    "sms": SMSContent,
    "push": PushContent,
}
_PLAIN = ".email.txt"

# What may come out empty: the rest would be refused by the provider, or not worth sending.
_OPTIONAL = frozenset({"link", "image", "text"})
_ONE_LINE = frozenset({"subject", "title", "link", "image"})

_LINKS = frozenset({"link", "image"})
# In the sandbox, links may lead to this machine; elsewhere they are refused when they are rendered.
_SANDBOX = LinkRules(loopback=True)

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_SOUND = re.compile(r"default|none")
_HTTP = re.compile(r"\bhttp://[^\s\"'<>)]+", re.IGNORECASE)
_HEADER = re.compile(r"([A-Za-z][A-Za-z-]*):[ \t]*(.*)")
_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Template:
    """One compiled template.

    variables: the dotted paths that it uses, printed or tested. language: in which it is written,
    as a BCP 47 tag; None: in each customer's. silent: whether a push makes no sound.
    """

    channel: Channel
    name: str
    variables: frozenset[str]
    parts: Mapping[str, Script]
    language: str | None = None
    silent: bool = False

    def render(self, context: Mapping[str, Any], rules: LinkRules) -> Content:
        """The message for one person. Raises MissingData, BadLink or RenderError."""
        rendering = Rendering(self.language or _language_of(context), rules)
        said: dict[str, Any] = {"silent": True} if self.silent else {}
        for part, script in self.parts.items():
            text = script.render(context, rendering)
            # A line end would begin another header in a mail, so none is left in these.
            text = " ".join(text.split()) if part in _ONE_LINE else text.strip()
            if part == "text":
                text = _BLANK_LINES.sub("\n\n", text)
            if not text and part not in _OPTIONAL:
                raise RenderError(f"{script.file}: the {part} comes out empty")
            said[part] = text or (None if part in ("link", "image") else "")
        return _CONTENT[self.channel](**said)


def _language_of(context: Mapping[str, Any]) -> str:
    """The customer's language, which may be anything that somebody once sent."""
    profile = context.get("profile")
    language = profile.get("language") if isinstance(profile, Mapping) else None
    tag = str(language).replace("_", "-") if language else ""
    return tag if _LANGUAGE.fullmatch(tag) else FALLBACK


def compile_template(channel: Channel, name: str, sources: Mapping[str, str]) -> Template:
    """Compile `name` for `channel` out of `sources`, file name -> text.

    Files of other templates may be among the sources. Raises TemplateError.
    """
    suffixes = (*_BODIES[channel], *([_PLAIN] if channel == "email" else []))
    files = tuple(
        (name + suffix, sources[name + suffix]) for suffix in suffixes if name + suffix in sources
    )
    return _compile(channel, name, files)


@lru_cache(maxsize=4096)
def _compile(channel: Channel, name: str, files: tuple[tuple[str, str], ...]) -> Template:
    texts = {file: text.removeprefix("\ufeff").replace("\r\n", "\n") for file, text in files}
    wanted = [name + suffix for suffix in _BODIES[channel]]
    bodies = [file for file in wanted if file in texts]
    if len(bodies) != 1:
        raise TemplateError(
            " and ".join(bodies) or wanted[0],
            None,
            "two bodies for one template; keep one"
            if bodies
            else f"there is no such template; write {' or '.join(wanted)} beside the journey",
        )
    file = bodies[0]
    headers: dict[str, tuple[str, int]] = {}
    body, first_line = texts[file], 1
    if channel in _HEADERS:
        headers, body, first_line = _split(channel, file, texts[file])
    language = _taken(headers, "language", file, _LANGUAGE, "a BCP 47 tag, such as en or de-AT")
    sound = _taken(headers, "sound", file, _SOUND, "default or none")
    if channel == "email":
        parts = _email(file, texts, headers, body, first_line)
    else:
        parts = {part: _header(file, part, value, line) for part, (value, line) in headers.items()}
        parts["body"] = _text(body, file, first_line)
    variables = frozenset[str]().union(*(script.variables for script in parts.values()))
    return Template(
        channel,
        name,
        variables,
        parts,
        language,
        silent=sound == "none",
    )


def _taken(
    headers: dict[str, tuple[str, int]], name: str, file: str, form: re.Pattern[str], words: str
) -> str | None:
    """Take a header that is not rendered."""
    if name not in headers:
        return None
    value, line = headers.pop(name)
    if not form.fullmatch(value):
        raise TemplateError(file, line, f"{name.title()}: {value[:40]!r} is not {words}")
    return value


def _header(file: str, part: str, value: str, line: int) -> Script:
    """A header line; a link in it is checked."""
    if part not in _LINKS:
        return _text(value, file, line)
    app = part == "link"
    hidden = Hidden(value)
    written = written_start(hidden.text) if hidden.tags else value
    if written and not hidden.found(written):
        _check_written(written, file, line, own_schemes=app)
    return parse(checked("app_link" if app else "link", value), file, line)


def _text(source: str, file: str, first_line: int = 1) -> Script:
    """Liquid that is sent as plain text, and so may hold links that the author wrote into it."""
    hidden = Hidden(source)

    def link(found: re.Match[str]) -> str:
        line = first_line + hidden.restore(found.string[: found.start()]).count("\n")
        _check_written(hidden.restore(found[0]), file, line)
        return checked("link", found[0])

    parse(source, file, first_line)  # as it was written, so that a mistake is found with its line
    return parse(hidden.restore(_HTTP.sub(link, hidden.text)), file, first_line)


def _check_written(link: str, file: str, line: int, *, own_schemes: bool = False) -> None:
    if not allowed_to_authors(link, _SANDBOX, own_schemes=own_schemes):
        raise TemplateError(file, line, f"it links to {shown(link)}; a link needs https")


def _email(
    file: str,
    texts: Mapping[str, str],
    headers: Mapping[str, tuple[str, int]],
    html: str,
    first_line: int,
) -> dict[str, Script]:
    parse(html, file, first_line)  # as it was written, so that a mistake is found with its line
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
                file, None, f"no plain text can be made of it ({error}); write {plain_file}"
            ) from error
    preheader = None
    if "preheader" in headers:
        preheader, line = headers["preheader"]
        parse(preheader, file, line)
    subject, line = headers["subject"]
    return {
        "subject": parse(subject, file, line),
        "html": parse(
            complete(html, subject, preheader, file, texts[file]), file, first_line, html=True
        ),
        "text": text,
    }


def _split(channel: Channel, file: str, source: str) -> tuple[dict[str, tuple[str, int]], str, int]:
    """The header lines (part -> value and line), the body, and the line that it begins at."""
    headers: dict[str, tuple[str, int]] = {}
    allowed = _HEADERS[channel]
    shown = ", ".join(f"{name.title()}:" for name in allowed)
    lines = source.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            break
        header = _HEADER.fullmatch(line)
        if header is None:
            raise TemplateError(
                file,
                number,
                f"{line.strip()[:40]!r} is no header; begin with header lines ({shown}), then an "
                "empty line, then the body",
            )
        part = header[1].lower()
        if part not in allowed:
            raise TemplateError(
                file, number, f"there is no header {header[1]}: here; allowed are {shown}"
            )
        if part in headers:
            raise TemplateError(file, number, f"{header[1]}: is there twice; keep one")
        headers[part] = header[2].strip(), number
    required = _REQUIRED[channel]
    if not headers.get(required.lower(), ("",))[0]:
        raise TemplateError(file, 1, f"it needs a line {required}: with something in it")
    return headers, "\n".join(lines[number:]), number + 1
