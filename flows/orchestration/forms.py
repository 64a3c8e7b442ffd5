"""What the forms of Prefect's UI say: titles of fields, help, names of runs, notes on deployments.

A module without Prefect, whose import takes seconds: workers keep the forms up to date.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from flows.orchestration.names import CONTROLS
from journeys.definition.segment import Segment
from journeys.operations.control import HELD_MEANS

# The choice of a run that enters nobody.
CONTINUE = "continue without new people"
# Precedes the list of segments in the help text of a field.
_SEGMENTS = "Segments: "
# The note on the deployment of a paused or stopped journey, which precedes its description.
_NOTE = re.compile(r"\A> \*\*(Paused|Stopped)\*\*.*\n\n")


def titled(title: str, **limits: Any) -> Any:
    """A field of a form, with a title in words. Prefect replaces pydantic's own titles.

    limits: as in pydantic's Field.
    """
    return Field(json_schema_extra={"title": title}, **limits)


def choice(title: str, options: Sequence[str]) -> Any:
    """The type of a field that offers these options."""
    offered: Any = Literal[tuple(options)]
    return Annotated[offered, titled(title)]


def listed(segments: Iterable[Segment], sizes: Mapping[str, int]) -> str:
    """The segments for the help text of a field. sizes: the people in each, where known."""
    return _SEGMENTS + " ".join(
        f"{one.name}{_people(sizes.get(one.name))}: {one.description.rstrip('.')}."
        for one in segments
    )


def _people(size: int | None) -> str:
    return "" if size is None else f" ({size:,} {'person' if size == 1 else 'people'})"


def run_name(journey: str, parameters: Mapping[str, Any]) -> str:
    """The name of a journey's run: "win-back: lapsed, at most 20 people, dry run"."""
    limit = parameters.get("limit") or 0
    parts = [
        str(parameters.get("audience", CONTINUE)),
        f"at most {limit:,} {'person' if limit == 1 else 'people'}" if limit else "",
        "dry run" if parameters.get("dry_run") else "",
    ]
    return f"{journey}: {', '.join(part for part in parts if part)}"


def described(deployment: Mapping[str, Any], held: str | None) -> dict[str, Any]:
    """The description and tags of a journey's deployment, which say whether it is held.

    deployment: as Prefect's API returns it. held: "paused", "stopped" or None.
    """
    text = _NOTE.sub("", deployment["description"] or "")
    tags = [one for one in deployment["tags"] if one not in HELD_MEANS]
    if held is None:
        return {"description": text, "tags": tags}
    note = f"> **{held.capitalize()}**: {HELD_MEANS[held]}. To go on: `{CONTROLS}`, `resume`."
    return {"description": f"{note}\n\n{text}", "tags": [*tags, held]}


def with_segments(
    schema: Mapping[str, Any], segments: Collection[Segment], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """The schema of a form whose field `audience` offers these segments, and tells their sizes.

    Its first choice stays: it is no segment.
    """
    audience = schema["properties"]["audience"]
    help_text, _, _ = audience["description"].partition(_SEGMENTS)
    offered = {
        **audience,
        "enum": [audience["enum"][0], *(one.name for one in segments)],
        "description": help_text + listed(segments, sizes),
    }
    return {**schema, "properties": {**schema["properties"], "audience": offered}}
