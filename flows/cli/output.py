"""Shared by all commands: opening Segue, the --json option, and printing.

Output contains text from customers, providers and files. It is never interpreted as markup, and
characters that control a terminal are escaped.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.settings import Settings
from flows.app import Segue, open_segue
from journeys.operations.control import held, held_note

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

# C0 and C1 controls with DEL; the soft hyphen, zero-width characters and those that change the
# direction of text; line and paragraph separators; surrogates, which no terminal can be sent; tags.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


_UNLIMITED = 100_000  # columns


def opened(context: typer.Context, settings: Settings | None = None) -> Segue:
    """Segue for the current command; its database is closed when the command ends."""
    segue = open_segue(settings)
    context.call_on_close(segue.db.close)
    return segue


def shown(text: str) -> str:
    r"""The text with every character that controls a terminal escaped: \x1b, \n, \u202e."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(line: str, *, error: bool = False, style: str = "") -> None:
    """Print one line, on standard output or standard error."""
    Console(stderr=error).print(Text(shown(line), style), soft_wrap=True)


def say_done(sentence: str, *, as_json: bool, **facts: object) -> None:
    """Print what a command did: a sentence, or one JSON object with it and the facts."""
    if as_json:
        print_json({"done": sentence, **facts})
    else:
        say(sentence)


def say_if_held(segue: Segue, journey: str) -> None:
    """Say on standard error that a journey is paused or stopped."""
    with segue.db.transaction(write=False) as tx:
        state = held(tx).get(journey)
    if state is not None:
        say(held_note(journey, state), error=True)


def say_counts(result: Mapping[str, Any]) -> None:
    """Print a result of names and values, a line each; a value may be counts by name."""
    for name, value in result.items():
        if name == "summary":
            say("the launch would be:")
            say_counts(value)
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{number} {what}" for what, number in value.items()) or "none"
        say(f"{name.replace('_', ' ')}: {value}")


def show_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """Print a table on standard output; nothing without rows.

    If its words do not fit side by side, print each row as lines of heading and value.
    """
    table, console, cells = Table(*headings, title=title, title_justify="left"), Console(), []
    for row in rows:
        cells.append([shown(cell) for cell in row])
        table.add_row(*map(Text, cells[-1]))
    if not cells:
        return
    unlimited = console.options.update(max_width=_UNLIMITED)
    if console.measure(table, options=unlimited).minimum <= console.width:
        console.print(table)
        return
    for number, row in enumerate(cells):
        say(title if title and not number else "")
        for heading, cell in zip(headings, row, strict=True):
            say(f"  {heading}: {cell}")


def json_line(value: Any) -> bytes:
    r"""A line of JSON. Characters that control a terminal are \u escapes, which parse the same."""
    text = orjson.dumps(value).decode()
    return (_CONTROLS.sub(lambda found: _escaped(found[0]), text) + "\n").encode()


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json_line(value).decode())


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
