"""The columns that matching compares, and the map that names them in a file."""

import codecs
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from config.errors import SegueError
from config.text.files import read_toml
from config.text.strict import in_words

COLUMNS = (
    *("given_name", "surname", "birth_date", "street", "suburb", "postcode", "state", "city"),
    *("email", "phone", "national_id"),
)


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _named(names: list[str]) -> list[str]:
    stripped = [name.strip() for name in names]
    if not stripped or not all(stripped):
        raise ValueError("give the name of a column, or a list of names whose cells are joined")
    return stripped


def _known_encoding(text: str) -> str:
    try:
        return codecs.lookup(text).name
    except LookupError:
        raise ValueError(f'{text!r} is no encoding; write for example "windows-1252"') from None


_Names = Annotated[list[str], BeforeValidator(_several), AfterValidator(_named)]


class MatchMap(BaseModel):
    """Which column of a file is which. Several columns of one kind are joined with a blank."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, _Names]
    # How the file is written; what is None is found out.
    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = None
    delimiter: str | None = None

    def names(self) -> list[str]:
        """The columns of the file that the map names."""
        return [name for names in self.columns.values() for name in names]


def load_match_map(path: Path) -> MatchMap:
    """Read a map (TOML). Raises SegueError that names the file, the key and the fix."""
    if not path.exists():
        raise SegueError(f"the column map {path} does not exist")
    try:
        found = MatchMap.model_validate(read_toml(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = ", ".join(MatchMap.model_fields)
            raise SegueError(
                f"the column map {path}: {where} is unknown; allowed are {known}"
            ) from error
        said = in_words(fault)
        raise SegueError(f"the column map {path}: {where}: {said}") from error
    unknown = [name for name in found.columns if name not in COLUMNS]
    if unknown:
        raise SegueError(
            f"the column map {path}: columns.{unknown[0]} is unknown; "
            f"allowed are {', '.join(COLUMNS)}"
        )
    if not found.columns:
        raise SegueError(
            f"the column map {path} names no column; add for example [columns] "
            'with surname = "Last name"'
        )
    return found
