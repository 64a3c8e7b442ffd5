"""Pause, resume or stop a journey, from Prefect's UI or the command line."""

from typing import Literal

from flows.app import Segue
from flows.orchestration.pages.labels import sentence
from journeys.operations.control import pause, resume, stop
from journeys.operations.counts import summarise

Action = Literal["pause", "resume", "stop"]


def control_journey(segue: Segue, journey: str, action: Action) -> str:
    """Apply the action; returns a sentence with the numbers of enrollments and messages.

    Raises SegueError for an unknown journey.
    """
    segue.catalog.journey(journey)
    with segue.db.transaction(write=False) as tx:
        before = summarise(tx, journey)
    active = f"{before.active:,} active enrollments"
    planned = f"{before.planned.total():,} planned messages"
    match action:
        case "pause":
            pause(segue.db, journey)
            parts = [f"{active} wait", f"{planned} wait"]
        case "resume":
            resume(segue.db, journey)
            parts = [f"{active} continue", f"{planned} are checked again before they are sent"]
        case "stop":
            stop(segue.db, journey)
            parts = [f"{active} have ended", f"{planned} are cancelled", "entries are refused"]
    state = {"pause": "paused", "resume": "running", "stop": "stopped"}[action]
    return f"{journey} is {state}: {sentence(parts)}"
