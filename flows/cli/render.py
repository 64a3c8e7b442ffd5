"""The command that shows a message of a journey as one customer would get it. It sends nothing."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from channels.explain import profile_named
from config.errors import SegueError
from config.text.suggestions import meant
from flows.cli.output import AsJson, opened, print_json, say
from journeys.definition.journey import Version
from journeys.definition.steps import MessageSpec, SendStep
from journeys.explain.preview import Preview, parts_of, preview

commands = typer.Typer()

_NEVER_IN = (
    "The template prints properties of the entry event, and the customer was never in the journey."
)


@commands.command()
def render(
    context: typer.Context,
    journey: str,
    step: Annotated[str, typer.Argument(help="A step that sends.")],
    person: Annotated[
        str, typer.Option("--for", help="A user id, e-mail, phone number or message id.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show the messages of a step as one customer would get them, or what they lack.

    Each is rendered with the customer's latest entry into the journey. Exit status 1: at least one
    of them can't be rendered for this customer.
    """
    segue = opened(context)
    version = segue.catalog.journey(journey)
    send = _step_named(version, step)
    with segue.db.transaction(write=False) as tx:
        profile_id = profile_named(tx, person, segue.rules.meaningless)
        found = [
            (message, preview(tx, segue.policy, segue.settings, version, send, message, profile_id))
            for message in send.messages
        ]
    if as_json:
        print_json(
            {
                "journey": journey,
                "step": step,
                "messages": [_json(message, shown) for message, shown in found],
            }
        )
    else:
        for message, shown in found:
            _print(message, shown)
    if any(shown.content is None for _, shown in found):
        raise typer.Exit(1)


def _step_named(version: Version, name: str) -> SendStep:
    steps = {step.name: step for step in version.journey.sends()}
    if name in steps:
        return steps[name]
    raise SegueError(
        f"{version.journey.name} has no step {name!r} that sends; "
        f"{meant(name, steps)}those that do are: {', '.join(steps) or 'none'}"
    )


def _json(message: MessageSpec, shown: Preview) -> dict[str, Any]:
    return {
        "member": message.member,
        "channel": message.channel,
        "template": message.template,
        "content": None if shown.content is None else asdict(shown.content),
        "missing": shown.refusal or None,
        "never_in_the_journey": shown.lacks_event,
    }


def _print(message: MessageSpec, shown: Preview) -> None:
    """The content part by part; of a mail the plain text, not the HTML."""
    say(f"{message.channel} “{message.template}”", style="bold")
    if shown.content is None:
        say(f"  It can't be rendered. {shown.refusal}", style="red")
        if shown.lacks_event:
            say(f"  {_NEVER_IN}")
        return
    for name, text in parts_of(shown.content):
        say(f"  {name}:")
        for line in text.splitlines():
            say(f"    {line}")
