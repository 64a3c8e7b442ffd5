"""The command that matches the rows of files, without the database.

Splink and DuckDB are imported only by the command: they take longer to load than all else.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from config.errors import SegueError
from flows.cli.output import AsJson, print_json, say

commands = typer.Typer()


@commands.command(name="match")
def match_command(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet.")],
    map_file: Annotated[
        Path,
        typer.Option("--map", help="Which column is which (TOML); see docs/operate/matching.md."),
    ],
    against: Annotated[
        Path | None, typer.Option(help="Match with the rows of this file, not within one file.")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN:PATTERN",
            help="Score the result: the pattern's group in this column names the person.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    r"""Find the rows of a file that are one person, and score them if the truth is known.

    The last line is JSON. Example of --truth: 'rec_id:^rec-(\d+)'
    """
    from profiles.matching.clusters import clusters
    from profiles.matching.columns import load_match_map
    from profiles.matching.matching import match
    from profiles.matching.records import Records, Truth, read_file
    from profiles.matching.score import pairs_within, score

    started = time.monotonic()
    columns, known = load_match_map(map_file), Truth(truth) if truth is not None else None
    records = Records(list(columns.columns))
    people = read_file(file, columns, records, truth=known)
    if against is not None:
        if against.exists() and against.samefile(file):
            raise SegueError("--against names the same file; leave it out to match within the file")
        people += read_file(against, columns, records, side=1, truth=known)
    sides = [0] * records.counts[0] + [1] * records.counts[1]
    across = against is not None
    with match(records.table(), across=across) as found:
        joined = clusters(found.pairs, sides, across=across)
    pairs = pairs_within(joined, sides, across=across)
    scored = score(joined, people, sides, across=across) if known else None
    seconds = round(time.monotonic() - started, 2)
    if not as_json:
        say(f"{len(sides)} rows, {len(set(joined))} people, {pairs} pairs of rows of one person")
        if scored:
            say(f"precision {scored.precision:.4f}, recall {scored.recall:.4f}, f1 {scored.f1:.4f}")
    print_json(
        {
            "precision": scored and round(scored.precision, 6),
            "recall": scored and round(scored.recall, 6),
            "f1": scored and round(scored.f1, 6),
            "pairs": pairs,
            "seconds": seconds,
        }
    )
