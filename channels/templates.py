"""Templates: compiled once, rendered once a message.

The files of a template lie beside its journey, `<name>.<channel>.<format>`; docs/channels.md shows
how they look. Here they come as text, so that the database can keep them with a journey's version.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from channels.content import Content, EmailContent, PushContent, SMSContent
from channels.language import Hidden, MissingData, RenderError, Script, TemplateError, parse
from channels.mjml import to_html
from channels.plaintext import to_text
from config.policy import Channel

__all__ = ["MissingData", "RenderError", "Template", "TemplateError", "compile_template"]

# The header lines that a file begins with; each gives the part of the content of its name.
_HEADERS = {
    "email": ("subject", "preheader"),
    "push": ("title", "link", "image"),
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

_HEADER = re.compile(r"([A-Za-z][A-Za-z-]*):[ \t]*(.*)")
_BODY_TAG = re.compile(r"<body\b[^>]*>", re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Template:
    """One compiled template. `variables` are the dotted paths that it uses, printed or tested."""

    channel: Channel
    name: str
    variables: frozenset[str]
    parts: Mapping[str, Script]

    def render(self, context: Mapping[str, Any]) -> Content:
        """The message for one person. Raises MissingData or RenderError."""
        said: dict[str, Any] = {}
        for part, script in self.parts.items():
            text = script.render(context)
            # A line end would begin another header in a mail, so none is left in these.
            text = " ".join(text.split()) if part in _ONE_LINE else text.strip()
            if part == "text":
                text = _BLANK_LINES.sub("\n\n", text)
            if not text and part not in _OPTIONAL:
                raise RenderError(f"{script.file}: the {part} comes out empty")
            said[part] = text or (None if part in ("link", "image") else "")
        return _CONTENT[self.channel](**said)


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
    parts = _email(file, texts) if channel == "email" else _message(channel, file, texts[file])
    variables = frozenset[str]().union(*(script.variables for script in parts.values()))
    return Template(channel, name, variables, parts)


def _message(channel: Channel, file: str, source: str) -> dict[str, Script]:
    if channel == "sms":
        return {"body": parse(source, file)}
    headers, body, first_line = _split(channel, file, source)
    parts = {part: parse(value, file, line) for part, (value, line) in headers.items()}
    return {**parts, "body": parse(body, file, first_line)}


def _email(file: str, texts: Mapping[str, str]) -> dict[str, Script]:
    headers, html, first_line = _split("email", file, texts[file])
    parse(html, file, first_line)  # as it was written, so that a mistake is found with its line
    if file.endswith(".mjml"):
        html = to_html(html, file, first_line)
    plain_file = file.rsplit(".", 1)[0] + ".txt"
    if plain_file in texts:
        text = parse(texts[plain_file], plain_file)
    else:
        try:
            text = parse(to_text(html), file)
        except TemplateError as error:
            raise TemplateError(
                file, None, f"no plain text can be made of it ({error}); write {plain_file}"
            ) from error
    if "preheader" in headers:
        preheader, line = headers["preheader"]
        parse(preheader, file, line)
        html = _with_preheader(html, preheader)
    subject, line = headers["subject"]
    return {
        "subject": parse(subject, file, line),
        "html": parse(html, file, first_line, html=True),
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


def _with_preheader(html: str, preheader: str) -> str:
    """What an inbox shows beside the subject: the first text of the mail, which itself hides it."""
    # Looked for among hidden tags, for a Liquid tag may hold a ">".
    hidden = Hidden(html)
    body = _BODY_TAG.search(hidden.text)
    at = body.end() if body else 0
    before, after = hidden.restore(hidden.text[:at]), hidden.restore(hidden.text[at:])
    return (
        f'{before}<div style="display:none;max-height:0;overflow:hidden">{preheader}</div>{after}'
    )
