"""Answer a file of cases, one JSON object a line, for `segue decide` and `segue lift`."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from config.errors import SegueError
from flows.cli.output import json_line

Cases = Annotated[str, typer.Argument(help="A file of cases, one JSON object a line, or -.")]


def answer_cases(cases: str, answer: Callable[[Mapping[str, Any]], Any]) -> None:
    """Print the answer to each case as a line of JSON, in order; blank lines have none.

    For an invalid case, the line has its `id`, the number of its line and an `error`. Then, after
    all cases are answered, raises typer.Exit with status 1.

    Parameters
    ----------
    cases: a file's path, or - for standard input. Raises SegueError if it can't be read.
    answer: raises ValueError for an invalid case.
    """
    failed = False
    with _lines(cases) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            case: Any = None
            try:
                case = orjson.loads(line)
                if not isinstance(case, dict):
                    raise ValueError("a case is a JSON object")
                printed = json_line(answer(case))
            # orjson raises TypeError for a value that is nested too deeply to be printed.
            except (ValueError, TypeError) as error:
                failed = True
                named = case.get("id") if isinstance(case, dict) else None
                if not isinstance(named, str | int | float):
                    named = None
                printed = json_line({"id": named, "line": number, "error": str(error)})
            sys.stdout.buffer.write(printed)
    sys.stdout.flush()
    if failed:
        raise typer.Exit(1)


@contextmanager
def _lines(path: str) -> Iterator[Iterator[bytes]]:
    if path == "-":
        yield iter(sys.stdin.buffer)
        return
    try:
        with Path(path).open("rb") as file:
            yield iter(file)
    except OSError as error:
        raise SegueError(f"can't read the cases in {path}: {error.strerror}") from error
