"""The commands that tell what journeys did: experiments and the long-run yardstick.

numpy, scipy and matplotlib are imported only by the commands that need them.
"""

from typing import Annotated

import typer

from config.errors import SegueError
from flows.cli.cases import Cases, answer_cases
from flows.cli.output import AsJson, opened, print_json, say, show_table
from journeys.operations.promotion import promote

commands = typer.Typer()


@commands.command(name="lift")
def lift_command(cases: Cases) -> None:
    """Compare an arm with the control in each case, one JSON object a line."""
    from journeys.analytics.lift import lift

    answer_cases(cases, lift)


@commands.command()
def experiment(
    context: typer.Context,
    journey: str,
    step: str,
    promoted: Annotated[
        str | None,
        typer.Option(
            "--promote",
            metavar="ARM",
            help="End the experiment: everybody who enters from now on takes this arm.",
        ),
    ] = None,
    people: Annotated[
        int | None,
        typer.Option(
            min=2, help="Show the smallest difference that this many people in all can show."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="With --people: the control's share of conversions, such as 0.02."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report on an experiment: its arms, their differences, and what they show."""
    if promoted is not None and people is not None:
        raise SegueError("give --promote or --people, not both")
    segue = opened(context)
    if promoted is not None:
        with segue.db.transaction() as tx:
            version = promote(tx, segue.catalog, journey, step, promoted)
        if as_json:
            print_json({"journey": journey, "promoted": promoted, "version": version.digest})
            return
        say(f"{journey}, {step!r}: everybody who enters from now on takes {promoted!r}")
        say(f"The new version is {version.digest}. Who is in the journey finishes on the version")
        say(f"they entered; `segue migrate {journey} --plan` shows whom it can move")
        return

    from journeys.analytics import experiment_views as views
    from journeys.analytics.experiments import plan_experiment, report_experiment
    from journeys.analytics.revenue import RevenueMapping

    if people is not None:
        with segue.db.transaction(write=False) as tx:
            plan = plan_experiment(tx, segue.catalog, journey, step, people, rate)
        if as_json:
            print_json(plan._asdict())
            return
        say(views.planned(plan))
        return
    segue.engine.count_goals(journey)
    with segue.db.transaction(write=False) as tx:
        mapping = RevenueMapping.of(segue.settings)
        found = report_experiment(tx, segue.catalog, journey, step, mapping)
    if as_json:
        print_json(views.as_json(found))
        return
    show_table(views.ARM_HEADINGS, views.arm_rows(found))
    show_table(views.DIFFERENCE_HEADINGS, views.difference_rows(found))
    for line in (*views.sentences(found), *found.left_out):
        say(line)


@commands.command(name="yardstick")
def yardstick_command(
    context: typer.Context,
    since: Annotated[
        str | None,
        typer.Option("--from", help="From the quarter and year of this date; default: last year."),
    ] = None,
    by_segment: Annotated[
        bool, typer.Option(help="Also for the people who are in each segment now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure revenue, customers and their patience by quarter and year, against the holdout."""
    from flows.yardstick import read_day, yardstick
    from journeys.analytics import yardstick_views as views

    segue = opened(context)
    day = None if since is None else read_day(since)
    history, reports = yardstick(segue, day, by_segment=by_segment)
    if as_json:
        print_json(views.as_json(history, reports))
        return
    show_table(views.HEADINGS, views.rows(reports))
    for line in views.left_out(history):
        say(line)
