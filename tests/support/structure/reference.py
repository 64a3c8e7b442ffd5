"""Generate the pages of docs/reference that follow from the code: commands and settings.

`python -m tests.support.structure.reference` writes both pages.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from channels.providers.registry import ChannelSettings, known_providers
from config.channels import channels
from config.clock.times import format_duration
from config.settings import ROOT, Settings, variable
from flows.cli.main import app

REFERENCE = ROOT / "docs" / "reference"
AGAIN = "python -m tests.support.structure.reference"

# Sections of the general settings, each with the field that begins it.
SECTIONS = {
    "data_dir": "Data and policy",
    "public_url": "Links and customers' pages",
    "write_key": "Receiving events",
    "call_hosts": "Calls, links and texts",
    "message_retention": "Retention",
    "revenue_event": "Reports",
    "log_level": "Processes on this machine",
    "staff_url": "Staff site",
    "providers": "Sending",
}
# Fields whose default is a number of seconds.
_DURATIONS = re.compile("retention|lifetime")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# Commands ----------------------------------------------------------------------------------------


def commands() -> str:
    """The page about the command line."""
    return "\n".join(_commands()) + "\n"


def _commands() -> Iterator[str]:
    yield from (
        "# Command line",
        "",
        "Every command of `segue` with its arguments and options, for whoever runs Segue from a "
        f"shell. The page is made from the code: `{AGAIN}`.",
        "",
        "Errors go to standard error, and the exit status is then not 0. `segue COMMAND --help` "
        "prints the same text.",
    )
    root = typer.main.get_command(app)
    for name, command in sorted(leaves(root, "segue")):
        yield from ("", f"## {name}", "", cleandoc(command.help or ""))
        rows = [_parameter(one) for one in command.params if not getattr(one, "hidden", False)]
        if rows:
            yield from ("", "| | Value | Meaning |", "|---|---|---|", *rows)


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each command that is not a group, with its whole name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for sub, one in command.commands.items():
        if not one.hidden:
            yield from leaves(one, f"{name} {sub}")


def _parameter(one: Any) -> str:
    option = one.param_type_name == "option"
    name = ", ".join(f"`{spelling}`" for spelling in (*one.opts, *one.secondary_opts))
    if not option:
        name = f"`{one.name.upper()}`"
    words = [getattr(one, "help", None) or ""]
    if one.required and option:
        words.append("Required.")
    if not one.required and not option:
        words.append("Optional.")
    if one.multiple and "repeatable" not in words[0]:
        words.append("Repeatable.")
    if not (one.default in (None, False) or callable(one.default) or one.multiple):
        words.append(f"Default: `{getattr(one.default, 'value', one.default)}`.")
    return f"| {name} | {_cell(_value(one))} | {_cell(' '.join(filter(None, words)))} |"


def _value(one: Any) -> str:
    """What stands after an option, or in the place of an argument."""
    if getattr(one, "is_flag", False):
        return ""
    kind = one.type_descriptor.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if one.min is not None and one.max is not None:
        return f"{one.min} to {one.max}"
    if one.min is not None:
        return f"at least {one.min}"
    return {int: "number", float: "number", Path: "file", datetime: "day"}.get(kind, "text")


# Settings ----------------------------------------------------------------------------------------


def settings() -> str:
    """The page about the settings."""
    return "\n".join(_settings()) + "\n"


def _settings() -> Iterator[str]:
    yield from (
        "# Settings",
        "",
        "Every environment variable that Segue reads, for whoever installs it. The page is made "
        f"from the code: `{AGAIN}`. [Windows, caps and topics](../journeys/policy.md) are in the "
        "policy file.",
        "",
        "A list or an object is written as JSON: "
        "`SEGUE_LINK_HOSTS='[\"www.your.shop\"]'`. A duration is a number with `s`, `m`, `h` or "
        "`d`. Segue does not start with an invalid value; it names the variable.",
    )
    for field in Settings.model_fields:
        if field in SECTIONS:
            yield from _table(SECTIONS[field])
        yield _setting(Settings, field)
    yield from _table("Choosing a provider")
    for field in ChannelSettings.model_fields:
        yield _setting(ChannelSettings, field, "SEGUE_<CHANNEL>_")
    yield ""
    yield f"`<CHANNEL>` is one of {', '.join(f'`{name.upper()}`' for name in channels())}."
    for name, provider in sorted(known_providers().items()):
        yield from _table(f"Provider `{name}`")
        needed = {need.setting: need.lost for need in provider.needs}
        for field in provider.settings.model_fields:
            yield _setting(provider.settings, field, lost=needed.get(field))


def _table(heading: str) -> Iterator[str]:
    yield from ("", f"## {heading}", "", "| Variable | Default | Meaning |", "|---|---|---|")


def _setting(
    model: type[BaseSettings], field: str, prefix: str | None = None, lost: str | None = None
) -> str:
    info = model.model_fields[field]
    meaning = _cell(info.description or "")
    if lost:
        meaning += f" Required for real messages: {_cell(lost)}."
    return f"| `{variable(model, field, prefix)}` | {_default(field, info.default)} | {meaning} |"


def _default(field: str, value: Any) -> str:
    match value:
        case SecretStr():
            return "the sandbox's" if value.get_secret_value() else ""
        case frozenset() if value:
            return _code(sorted(value))
        case None | "" | () | frozenset():
            return ""
        case bool():
            return _code(value)
        case int() if _DURATIONS.search(field):
            return f"`{format_duration(value)}`"
        case Path():
            inside = value.relative_to(ROOT) if value.is_relative_to(ROOT) else value
            return f"`{inside}`"
        case str():
            return f"`{value}`"
        case tuple():
            return _code([str(one) for one in value])
        case dict() if not value:
            return ""
        case _:
            return _code(value)


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


PAGES = {"command-line.md": commands, "settings.md": settings}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
