"""How each column is compared: Splink comparisons, whose levels go from equal to different.

The first level of each is equality; the last is everything else. The labels are shown to people.
"""

from collections.abc import Collection
from typing import Any

# Jaro-Winkler similarities at which two words are nearly the same, and alike.
_NEAR, _ALIKE = 0.92, 0.8
_EQUAL = {"label_for_charts": "equal"}
_DIFFERENT = {"label_for_charts": "different", "sql_condition": "ELSE"}


def comparisons(columns: Collection[str]) -> list[dict[str, Any]]:
    """Splink's description of the comparisons of these columns, in their order."""
    return [_comparison(column, _levels(column, columns)) for column in columns]


def _comparison(column: str, between: list[tuple[str, str]]) -> dict[str, Any]:
    null = f"{column}_l IS NULL OR {column}_r IS NULL"
    equal: dict[str, Any] = {"sql_condition": f"{column}_l = {column}_r", **_EQUAL}
    if column not in ("birth_date", "phone", "national_id", "email"):
        # Agreement on a rare value weighs more.
        equal["tf_adjustment_column"] = column
    return {
        "output_column_name": column,
        "comparison_levels": [
            {"sql_condition": null, "label_for_charts": "unknown", "is_null_level": True},
            equal,
            *({"sql_condition": sql, "label_for_charts": label} for sql, label in between),
            _DIFFERENT,
        ],
    }


def _levels(column: str, columns: Collection[str]) -> list[tuple[str, str]]:
    """The conditions between equality and difference, with their labels."""
    near = _similar(column, _NEAR), "nearly equal"
    alike = _similar(column, _ALIKE), "alike"
    match column:
        case "given_name" | "surname":
            other = "surname" if column == "given_name" else "given_name"
            swapped = [(f"{column}_l = {other}_r", "names swapped")] if other in columns else []
            begins = [(_begins(column), "begins alike")] if column == "given_name" else []
            return [*swapped, near, *begins, alike]
        case "street" | "suburb" | "city":
            return [near, alike]
        case "state":
            return []
        case "postcode":
            return [(_edits(column, 1), "one letter differs")]
        case "email":
            return [
                (_local("l") + " = " + _local("r"), "equal before the @"),
                (f"levenshtein({column}_l, {column}_r) <= 2", "two letters differ"),
                (f"jaro_winkler_similarity({_local('l')}, {_local('r')}) >= 0.9", "alike"),
            ]
        case _:
            return [
                (_edits(column, 1), "one digit differs"),
                (_edits(column, 2), "two digits differ"),
            ]


def _similar(column: str, least: float) -> str:
    return f"jaro_winkler_similarity({column}_l, {column}_r) >= {least}"


def _edits(column: str, most: int) -> str:
    return f"damerau_levenshtein({column}_l, {column}_r) <= {most}"


def _local(side: str) -> str:
    return f"split_part(email_{side}, '@', 1)"


def _begins(column: str) -> str:
    """The same first three letters, or one of the two is only an initial."""
    left, right = f"{column}_l", f"{column}_r"
    return (
        f"left({left}, 3) = left({right}, 3) or "
        f"(least(length({left}), length({right})) = 1 and left({left}, 1) = left({right}, 1))"
    )
