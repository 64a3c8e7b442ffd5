"""The command that reports on a journey.

The report imports numpy, and its plot matplotlib: so it is imported when it is asked for.
"""

import sys
from collections import Counter
from typing import Annotated, Any, Literal

import typer

from config.errors import SegueError
from flows.app import Segue
from flows.cli.output import AsJson, opened, print_json, say, say_if_held, show_table, shown
from journeys.operations.doctor import LATE
from journeys.operations.heartbeat import last_seen

commands = typer.Typer()

_By = Literal["step", "arm", "channel", "segment", "week", "launch"]


@commands.command()
def report(
    context: typer.Context,
    journey: str,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="The first day, YYYY-MM-DD.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="The last day, YYYY-MM-DD.")
    ] = None,
    by: Annotated[_By, typer.Option(help="What the messages are grouped by.")] = "step",
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Count now; a report of many messages is otherwise up to an hour old."
        ),
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the groups as CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Report on a journey: funnel, opens, clicks, conversions, revenue, and what was not sent.

    Days are those of the policy's time zone.
    """
    from journeys.analytics.reports import views
    from journeys.analytics.reports.kept import kept_report
    from journeys.analytics.reports.period import period_of
    from journeys.analytics.reports.report import report_journey
    from journeys.analytics.revenue import RevenueMapping

    if as_csv and as_json:
        raise SegueError("give --csv or --json, not both")
    segue = opened(context)
    segue.catalog.journey(journey)
    policy = segue.policy
    mapping = RevenueMapping.of(segue.settings)
    found = None
    say_if_held(segue, journey)
    with segue.db.transaction(write=False) as tx:
        period = period_of(first, last, policy.timezone, tx.now, policy.first_weekday)
        if not now:
            found = kept_report(tx, segue.catalog, journey, mapping, period, by=by)
    if found is None:
        _count_goals(segue, journey)
        with segue.db.transaction(write=False) as tx:
            found = report_journey(tx, segue.catalog, journey, mapping, period, by=by)
    if as_json:
        print_json(views.as_json(found))
        return
    if as_csv:
        if found.empty:
            say(found.empty, error=True)
        for line in views.as_csv(found).splitlines():
            sys.stdout.write(shown(line) + "\n")
        return
    total = found.total
    say(f"{total.entered} entered, {total.active} active, {total.goals} converted")
    for sentence in (found.empty, *found.method, *found.notes):
        if sentence:
            say(sentence)
    if unknown := total.by_channel("unknown").total():
        closed = total.by_channel("closed").total()
        say(
            f"{unknown} messages with unknown outcome, {closed} of them closed, because no "
            "delivery report arrived"
        )
    for table in views.tables(found):
        show_table(table.headings, table.rows, title=table.title)
    if not period.is_limited:
        _show_outcomes(found.outcomes)


def _count_goals(segue: Segue, journey: str) -> None:
    """Count the goals that were reached, unless a worker does so all the time."""
    with segue.db.transaction(write=False) as tx:
        seen = last_seen(tx)
        counted = seen is not None and seen >= tx.now - LATE
    if not counted:
        segue.engine.count_goals(journey)


def _show_outcomes(outcomes: Counter[tuple[str, str, str]]) -> None:
    rows: list[Any] = [(*key, str(number)) for key, number in sorted(outcomes.items())]
    headings = ("channel", "state", "reason", "messages")
    show_table(headings, rows, title="Messages by state and reason")
