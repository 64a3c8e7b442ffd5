"""Find the conditions and templates that read a computed trait that is not defined."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from config.errors import SegueError
from config.text.suggestions import meant
from journeys.definition.journey import Version
from journeys.definition.segment import Segment


def unknown_traits(
    segments: Mapping[str, Segment],
    personas: Iterable[Segment],
    versions: Mapping[str, Version],
    known: Collection[str],
) -> list[SegueError]:
    """An error for each place that reads a trait that is not known."""
    uses = dict.fromkeys(
        [
            *_of_segments(segments.values(), "segment"),
            *_of_segments(personas, "persona"),
            *_of_versions(versions),
        ]
    )
    has = f"there are: {', '.join(known)}" if known else "define it in traits.toml"
    return [
        SegueError(f"{where}: there is no computed trait {name!r}; {meant(name, known)}{has}")
        for where, name in uses
        if name not in known
    ]


def _of_segments(segments: Iterable[Segment], kind: str) -> Iterator[tuple[str, str]]:
    for segment in segments:
        for name in segment.condition.computed_names():
            yield f"{kind} {segment.name!r}", name


def _of_versions(versions: Mapping[str, Version]) -> Iterator[tuple[str, str]]:
    for version in versions.values():
        journey = version.journey
        for condition in journey.conditions():
            for name in condition.computed_names():
                yield f"journey {journey.name}", name
        for name in traits_in_templates(version):
            yield f"journey {journey.name}, templates", name


def traits_in_templates(version: Version) -> set[str]:
    """The computed traits that the templates of a version print. Broken templates have none."""
    found = set()
    for step in version.journey.sends():
        for message in step.messages:
            try:
                variables = version.template(message).variables
            except SegueError:
                continue
            for variable in variables:
                root, _, path = variable.partition(".")
                if root == "trait" and path:
                    found.add(path.partition(".")[0])
    return found
