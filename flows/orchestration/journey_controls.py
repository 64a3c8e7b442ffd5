"""Pause, resume or stop a journey, from Prefect's UI or the command line."""

from typing import Literal

from flows.app import Segue
from flows.orchestration.labels import sentence
from journeys.operations.control import pause, resume, stop
from journeys.operations.report import summarise

Action = Literal["pause", "resume", "stop"]


def hold(segue: Segue, journey: str, action: Action) -> str:
    """Apply the action; returns a sentence about the journey's enrollments.

    Raises SegueError for an unknown journey.
    """
    segue.catalog.journey(journey)
    with segue.db.transaction(write=False) as tx:
        before = summarise(tx, journey)
    people = f"{before.active:,} people"
    planned = f"{before.planned.total():,} planned messages"
    match action:
        case "pause":
            pause(segue.db, journey)
            parts = [f"{people} stay where they are", f"{planned} wait"]
        case "resume":
            resume(segue.db, journey)
            parts = [f"{people} go on", f"{planned} are looked at again before they go"]
        case "stop":
            stop(segue.db, journey)
            parts = [f"{people} have left", f"{planned} are cancelled", "nobody enters"]
    state = {"pause": "paused", "resume": "running", "stop": "stopped"}[action]
    return f"{journey} is {state}: {sentence(parts)}"
