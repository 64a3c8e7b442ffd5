"""A segment: a named group of profiles, chosen by a condition."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from config.errors import SegueError
from config.text.strict import describe_errors
from profiles.conditions.language import Condition

_CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)


@dataclass(frozen=True, slots=True)
class Segment:
    """A named condition; its profiles are those for which the condition holds now.

    Raises SegueError for an invalid condition, and for one with `same=`.
    """

    name: str
    description: str
    condition: Condition

    def __post_init__(self) -> None:
        try:
            _CONDITION.validate_python(self.condition)
        except ValidationError as error:
            raise SegueError(f"segment {self.name!r}: {describe_errors(error)}") from error
        for key in self.condition.entry_keys():
            raise SegueError(
                f"segment {self.name!r}: did(..., same={key!r}) compares with the entry event of a "
                "journey, and segments have none; leave same= out"
            )
