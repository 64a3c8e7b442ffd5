"""Match records: find those that are one person, with the weight of each column.

Nothing here reads the database, or is in the path of an event.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log2
from typing import Any, NamedTuple

from config.errors import SegueError
from profiles.matching.blocking import add_parts, block
from profiles.matching.clusters import Pair
from profiles.matching.duck import Duck, duck
from profiles.matching.model import MatchModel, Trainer

_KEYS = ("unique_id", "side")


class Bar(NamedTuple):
    """What one column adds to the weight of a pair: a step of its waterfall.

    level: how its values compare, such as "nearly equal". weight: binary logarithm of the odds.
    """

    column: str
    level: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The pairs that match, and a way to explain them while the match is open."""

    pairs: list[Pair]
    model: MatchModel
    _trainer: Trainer | None
    _duck: Duck

    @property
    def prior(self) -> float:
        """The weight of two random records."""
        prior = float(self.model["probability_two_random_records_match"])
        return log2(prior / (1 - prior))

    def explain(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, list[Bar]]]:
        """Each pair with what every column adds to its weight, after the prior."""
        if not pairs or self._trainer is None:
            return
        self._duck.run("CREATE OR REPLACE TABLE asked (l BIGINT, r BIGINT)")
        self._duck.connection.executemany(
            "INSERT INTO asked VALUES (?, ?)", [[left, right] for left, right, _ in pairs]
        ).fetchall()
        self._duck.run(
            "CREATE OR REPLACE TABLE to_explain AS "
            "SELECT l join_key_l, r join_key_r, '0' match_key FROM asked"
        )
        table = self._trainer.scored(
            self.model,
            "to_explain",
            retain_matching_columns=True,
            retain_intermediate_calculation_columns=True,
        )
        labels = {
            one["output_column_name"]: _labels(one["comparison_levels"])
            for one in self.model["comparisons"]
        }
        for row in table.as_record_list():
            pair = row["unique_id_l"], row["unique_id_r"], float(row["match_weight"])
            yield pair, [_bar(row, column, labels[column]) for column in labels]


@contextmanager
def match(table: Any, *, across: bool, least: float = 0.0) -> Iterator[Matches]:
    """Find the pairs of records that are one person with a weight of at least `least`.

    table: of `Records.table`. across: only pairs of different sides. least: binary logarithm of the
    odds; 0 is as likely as not. Raises SegueError if there is nothing to compare.
    """
    columns = [name for name in table.column_names if name not in _KEYS]
    if not columns:
        raise SegueError("there is no column to compare")
    with duck() as opened:
        opened.connection.register("records", table)
        add_parts(opened, columns)
        opened.connection.unregister("records")
        keys = block(opened, columns, across=across)
        if not keys:
            yield Matches(pairs=[], model=_NO_MODEL, _trainer=None, _duck=opened)
            return
        trainer = Trainer(opened, columns, keys, across=across)
        model = trainer.trained()
        scored = trainer.scored(model, "pairs", least)
        found: list[Pair] = opened.rows(
            f"SELECT unique_id_l, unique_id_r, match_weight FROM {scored.physical_name}"
        )
        yield Matches(pairs=found, model=model, _trainer=trainer, _duck=opened)


_NO_MODEL: MatchModel = {"probability_two_random_records_match": 0.5, "comparisons": []}


def _labels(levels: list[dict[str, Any]]) -> dict[int, str]:
    """The label of each level by Splink's number for it; the unknown one is -1."""
    known = [one["label_for_charts"] for one in levels if not one.get("is_null_level")]
    return {-1: "unknown", **{len(known) - 1 - at: label for at, label in enumerate(known)}}


def _bar(row: dict[str, Any], column: str, labels: dict[int, str]) -> Bar:
    weight = float(row[f"mw_{column}"]) + float(row.get(f"mw_tf_adj_{column}") or 0.0)
    return Bar(column, labels[int(row[f"gamma_{column}"])], weight)
