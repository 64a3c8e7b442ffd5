"""The commands that tell what journeys did: experiments and the long-run yardstick.

numpy, scipy and matplotlib are imported only by the commands that need them.
"""

import typer

from flows.cli.cases import Cases, answer_cases

commands = typer.Typer()


@commands.command(name="lift")
def lift_command(cases: Cases) -> None:
    """Compare an arm with the control in each case, one JSON object a line."""
    from journeys.analytics.lift import lift

    answer_cases(cases, lift)
