"""What a current enrollment waits for and until when, in words for staff."""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from channels.explain import ExplainedMessage, explanation
from config.channels import channel_of
from config.clock.times import Instant, format_duration
from config.policy import WEEKDAYS, format_time
from journeys.definition.graph import END, Node
from journeys.definition.journey import Version
from journeys.definition.steps import TIMEOUT, CallStep, SendStep, WaitStep, WaitUntilStep
from journeys.engine.retry import TRIES
from profiles.conditions.words import in_words

# An instant as text in the zone of the person.
Local = Callable[[Instant], str]


class Enrolled(NamedTuple):
    """An enrollment; the fields are columns of the table."""

    id: int
    journey: str
    version: str
    entry_key: str
    entered_at: Instant
    step: str
    arrived_at: Instant
    attempts: int
    due_at: Instant | None
    ended_at: Instant | None
    end_reason: str | None


def waiting_for(
    person: Enrolled,
    version: Version,
    ahead: Sequence[ExplainedMessage],
    now: Instant,
    local: Local,
) -> tuple[str, str]:
    """What an enrollment waits for: a code, and sentences.

    The codes: `wait`, `condition`, `message`, `answer`, `call`, `retry`, and `due` if nothing but a
    worker is missing.

    Parameters
    ----------
    person: a current enrollment.
    ahead: the messages of its step that are planned or being handed over.
    """
    node = version.journey.graph.get(person.step)
    code, sentence = _at_step(person, node, ahead, now, local)
    rule = version.journey.exit_when
    if rule is not None:
        sentence += f" It ends at once when this holds: {in_words(rule)}."
    return code, sentence


def _at_step(
    person: Enrolled,
    node: Node | None,
    ahead: Sequence[ExplainedMessage],
    now: Instant,
    local: Local,
) -> tuple[str, str]:
    assert person.due_at is not None  # it is current
    until = local(person.due_at)
    if node is None:
        return "due", f"The step is not in its version; it is looked at again on {until}."
    if person.due_at <= now:
        return "due", f"It is due since {until}: a worker moves it on."
    match node.step:
        case CallStep() as step:
            host = urlsplit(step.url).hostname
            return "call", (
                f"The call to {host} was tried {_times(person.attempts)} of {step.tries}; the next "
                f"try is on {until}, unless it succeeds before."
            )
        case _ if person.attempts:
            return "retry", (
                f"The step failed {_times(person.attempts)} of {TRIES}; it is tried again on "
                f"{until}."
            )
        case WaitStep() as step:
            return "wait", f"It waits {_until(step, until)}."
        case WaitUntilStep() as step:
            target = node.edges[TIMEOUT]
            goes_on = "it ends" if target == END else f"it goes on to {target!r}"
            return "condition", (
                f"It waits until this holds: {in_words(step.condition)}; at most until {until}, "
                f"then {goes_on}."
            )
        case SendStep() as step if not ahead and step.unless is not None:
            return "answer", (
                f"Its message was handed over. Unless it is {step.unless} by {until}, the next "
                "channel of the step follows."
            )
        case SendStep() if ahead:
            return "message", " ".join(_planned(one, local) for one in ahead)
        case _:
            return "wait", f"It is looked at again on {until}."


def _times(number: int) -> str:
    return "1 time" if number == 1 else f"{number} times"


def _until(step: WaitStep, until: str) -> str:
    """What a Wait step waits for."""
    at = "" if step.time is None else f" at {format_time(step.time)}"
    if step.duration is not None:
        return f"for {format_duration(step.duration)}, until {until}"
    if step.date is not None:
        day = f"{'the anniversary of ' if step.yearly else ''}the date in {step.date!r}"
        if step.before:
            day = f"{format_duration(step.before)} before {day}"
        if step.after:
            day = f"{format_duration(step.after)} after {day}"
        return f"until {day}{at}: {until}"
    days = "" if step.days is None else f" on {','.join(WEEKDAYS[day] for day in step.days)}"
    return f"until the next time in the customer's zone{at}{days}: {until}"


def _planned(message: ExplainedMessage, local: Local) -> str:
    """When a message goes, and what delays it."""
    what = channel_of(message.channel).short
    return f"Its {what} is planned for {local(message.send_at)}. {explanation(message)}"
