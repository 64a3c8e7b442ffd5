"""Models of what people write in files and journeys, and their errors in words."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from config.text.suggestions import meant

# By the types of pydantic's errors. A type that is not here keeps pydantic's words.
_WORDS: Mapping[str, str] = {
    "missing": "it is needed",
    "extra_forbidden": "there is no such setting; check the spelling",
    "string_type": "it must be text",
    "string_too_short": "it must have at least {min_length} character",
    "string_too_long": "it must have at most {max_length} characters",
    "string_pattern_mismatch": "it must match the pattern {pattern}",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "list_type": "it must be a list",
    "tuple_type": "it must be a list",
    "dict_type": "it must have names and values",
    "too_short": "it needs at least {min_length} item",
    "too_long": "it may have at most {max_length} items",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "it must be {expected}",
}


class Strict(BaseModel):
    """Refuses names other than those of its fields, and says which there are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, value: Any) -> Any:
        if isinstance(value, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for name in value:
                if name not in known and name not in cls.model_fields:
                    raise ValueError(
                        f"there is no {name!r} here; {meant(str(name), known)}there are: "
                        f"{', '.join(known)}"
                    )
        return value


def in_words(mistake: ErrorDetails) -> str:
    """One of a ValidationError's errors, without its place."""
    if words := _WORDS.get(mistake["type"]):
        return words.format(**mistake.get("ctx", {}))
    return mistake["msg"].removeprefix("Value error, ")


def describe_errors(error: ValidationError) -> str:
    """The errors as `place: error`, with places as in the file."""
    lines = []
    for mistake in error.errors():
        place = ""
        for part in mistake["loc"]:
            if part == "[key]":  # the name itself is wrong, and the text says so
                break
            place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
        message = in_words(mistake)
        lines.append(f"{place}: {message}" if place else message)
    return "; ".join(dict.fromkeys(lines))
