"""Read `personas.toml`: groups of customers in order, of which each profile is in the first that
fits it."""

from collections.abc import Mapping
from pathlib import Path

from config.errors import SegueError
from journeys.definition.nesting import filled
from journeys.definition.segment import Segment
from journeys.definition.segment_file import read_one, read_tables
from profiles.conditions.language import Everyone

FILE = "personas.toml"


def read_personas(
    file: Path, segments: Mapping[str, Segment]
) -> tuple[list[Segment], list[SegueError]]:
    """The personas of the file in order, and what is wrong; none if there is no file.

    segments: those that conditions may name.
    """
    try:
        content = read_tables(file)
    except SegueError as error:
        return [], [error]
    tables = content.get("personas", [])
    if content and (set(content) != {"personas"} or not isinstance(tables, list)):
        return [], [SegueError(f"{file}: write each persona as [[personas]], in their order")]
    found: list[Segment] = []
    faults: list[SegueError] = []
    for number, table in enumerate(tables, 1):
        try:
            found.append(_read(table, f"{file}, persona {number}", segments))
        except SegueError as error:
            faults.append(error)
    if not faults and (fault := _wrong_order(found)):
        faults.append(SegueError(f"{file}: {fault}"))
    return found, faults


def _read(table: object, place: str, segments: Mapping[str, Segment]) -> Segment:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise SegueError(f'{place}: it needs name = "..."')
    rest = {key: value for key, value in table.items() if key != "name"}
    persona = read_one(table["name"], rest, f"{place}, {table['name']!r}")
    condition = filled(persona.condition, segments, f"persona {persona.name!r}")
    return Segment(persona.name, persona.description, condition)


def _wrong_order(personas: list[Segment]) -> str | None:
    names = [one.name for one in personas]
    for name in names:
        if names.count(name) > 1:
            return f"the persona {name!r} is defined twice; rename one"
    takes_all = [isinstance(one.condition, Everyone) for one in personas]
    if personas and not takes_all[-1]:
        return "the last persona takes everybody else; end with one that has everyone = true"
    if any(takes_all[:-1]):
        after = personas[takes_all.index(True)].name
        return f"nobody reaches the personas after {after!r}, which has everyone = true"
    return None
