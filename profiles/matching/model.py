"""Learn the weights from the records: which agreement speaks for one person, and how much.

m of a level is how often two records of one person reach it, u how often two others do. Splink
estimates u from random pairs and m by expectation maximisation. Random pairs of a small file
contain pairs of one person, which makes u of an equal e-mail address far too large, so both are
then corrected by the pairs that match: u of equality is counted exactly, without those pairs.
"""

import logging
from collections.abc import Sequence
from math import log2
from typing import Any

from splink import DuckDBAPI, Linker, SettingsCreator
from splink.internals.exceptions import EMTrainingException

from profiles.matching.blocking import BlockingKey, whole
from profiles.matching.comparisons import comparisons
from profiles.matching.duck import Duck

# Splink reports its progress as warnings; a problem is an exception.
logging.getLogger("splink").setLevel(logging.CRITICAL)

_SEED = 1
_RANDOM_PAIRS = 300_000
# Pairs that expectation maximisation and the corrections read at most.
_TRAINING_PAIRS = 200_000
# Pairs for each record that fulfil a rule of training at most.
_TRAINING_A_RECORD = 10
_CORRECTIONS = 2
# The deterministic rules of the first estimate find about this share of the pairs of one person.
_RECALL = 0.8
_NAMES = {"given_name", "surname"}
# Added to each count, so that a level that was not seen is rare and not impossible.
_SMOOTHING = 0.2
# Agreement of one column alone says at most 100 : 1 that it is one person.
_ALONE = 100

MatchModel = dict[str, Any]  # Splink's settings with m and u


class Trainer:
    """Trains the model of the tables `people` and `pairs`. across: only pairs of two sides."""

    def __init__(
        self, duck: Duck, columns: Sequence[str], keys: list[BlockingKey], *, across: bool
    ) -> None:
        self._duck, self.columns, self._keys, self._across = duck, columns, keys, across
        self._api: Any = DuckDBAPI(connection=duck.connection)
        self._people = self._api.register("people")
        self._sides = " and l.side <> r.side" if across else ""
        self._total = self._pairs_in_all("unique_id")
        # A rule that more pairs fulfil teaches little: nearly none of them is one person.
        [[records]] = duck.rows("SELECT count(*) FROM people")
        self._most = _TRAINING_A_RECORD * records
        self._views = 0

    def trained(self) -> MatchModel:
        """The model, learned from the records."""
        model = self._estimated()
        sampled = {
            one["output_column_name"]: [level.get("u_probability") for level in _levels(one)]
            for one in model["comparisons"]
        }
        [[pairs]] = self._duck.rows("SELECT count(*) FROM pairs")
        share = min(1.0, _TRAINING_PAIRS / max(pairs, 1))
        self._duck.run(
            "CREATE VIEW sample AS SELECT * FROM pairs "
            f"WHERE hash(join_key_l, join_key_r) % 1000 < {int(share * 1000) or 1}"
        )
        agreeing = {column: self._agreeing(column) for column in self.columns}
        for _ in range(_CORRECTIONS):
            self._correct(model, sampled, agreeing, share)
        model["probability_two_random_records_match"] = self._prior(model, share)
        return model

    def scored(
        self, model: MatchModel, pairs: str, least: float | None = None, **keep: bool
    ) -> Any:
        """Splink's table of the pairs of a table or view, with their weights of at least `least`.

        keep: `retain_matching_columns`, `retain_intermediate_calculation_columns`.
        """
        linker = Linker(self._people, {**model, **keep}, log_level=None)
        self._views += 1
        view = f"pairs_{self._views}"
        self._duck.run(f"CREATE VIEW {view} AS SELECT * FROM {pairs}")
        linker.table_management.register_blocked_pairs_for_predict(self._api.register(view))
        return linker.inference.predict(threshold_match_weight=least, warning_mode="never")

    def _estimated(self) -> MatchModel:
        """Splink's estimates: u by random pairs, m by expectation maximisation."""
        settings = SettingsCreator(
            link_type="dedupe_only",
            comparisons=comparisons(self.columns),
            blocking_rules_to_generate_predictions=[],
            retain_matching_columns=False,
        )
        linker = Linker(self._people, settings, log_level=None)
        linker.training.estimate_u_using_random_sampling(max_pairs=_RANDOM_PAIRS, seed=_SEED)
        model: MatchModel = linker.misc.save_model_to_json()
        model["probability_two_random_records_match"] = self._first_prior()
        linker = Linker(self._people, model, log_level=None)
        untrained = {*self.columns}
        rules = whole(self._keys, self.columns)
        rules = [key for key in rules if key.in_all <= self._most] or rules[:1]
        while untrained and rules:
            rule = max(rules, key=lambda key: (len(self._trains(key) & untrained), -key.in_all))
            rules.remove(rule)
            if not self._trains(rule) & untrained:
                break
            sql = " and ".join(f"l.{one} = r.{one}" for one in rule.columns) + self._sides
            try:
                linker.training.estimate_parameters_using_expectation_maximisation(
                    sql,
                    estimate_without_term_frequencies=True,
                    max_pairs=_TRAINING_PAIRS if rule.in_all > _TRAINING_PAIRS else None,
                )
            except EMTrainingException:
                continue  # no two records of different sides agree in it
            untrained -= self._trains(rule)
        trained: MatchModel = linker.misc.save_model_to_json()
        return trained

    def _trains(self, key: BlockingKey) -> set[str]:
        """The columns that agreement in this key teaches about: a swapped name concerns both."""
        names = _NAMES if _NAMES.intersection(key.columns) else set()
        return {*self.columns} - {*key.columns} - names

    def _first_prior(self) -> float:
        """How likely two random records match: by deterministic rules, which are whole columns."""
        rules = [key.columns for key in whole(self._keys, self.columns)][:3]
        found = sum(key.pairs for key in self._keys if key.columns in rules) / max(len(rules), 1)
        return float(min(max(found, 1.0) / _RECALL / self._total, 0.1))

    def _correct(
        self,
        model: MatchModel,
        sampled: dict[str, list[float | None]],
        agreeing: dict[str, tuple[float, float]],
        share: float,
    ) -> None:
        """Count m among the pairs that match, and take those out of u."""
        table = self.scored(model, "sample", retain_matching_columns=True)
        prior, shift = self._shift(model, table.physical_name, share)
        if len(self.columns) > 1:
            for one in model["comparisons"]:
                name = one["output_column_name"]
                matching = {
                    level: count / share
                    for level, count in self._duck.rows(
                        f"SELECT gamma_{name}, sum(1 / (1 + power(2, -(match_weight + {shift})))) "
                        f"FROM {table.physical_name} WHERE gamma_{name} >= 0 GROUP BY 1"
                    )
                }
                _set(_levels(one), matching, sampled[name], agreeing[name], prior)
        model["probability_two_random_records_match"] = prior
        table.drop_table_from_database_and_remove_from_cache()

    def _prior(self, model: MatchModel, share: float) -> float:
        table = self.scored(model, "sample")
        prior, _ = self._shift(model, table.physical_name, share)
        table.drop_table_from_database_and_remove_from_cache()
        return prior

    def _shift(self, model: MatchModel, table: str, share: float) -> tuple[float, float]:
        """The prior that agrees with the weights of the pairs, and what it adds to each weight."""
        weights = self._duck.rows(
            f"SELECT round(match_weight * 8) / 8, count(*) FROM {table} GROUP BY 1"
        )
        prior = model["probability_two_random_records_match"]
        before, shift = _odds(prior), 0.0
        for _ in range(40):
            expected = sum(count * _likely(weight + shift) for weight, count in weights) / share
            prior = min(max(expected, 1.0) / self._total, 0.5)
            shift = _odds(prior) - before
        return prior, shift

    def _agreeing(self, column: str) -> tuple[float, float]:
        """How many pairs agree in a column, of how many that have it."""
        two = (
            "count(*) FILTER (side = 0) * count(*) FILTER (side = 1)"
            if self._across
            else "count(*) * (count(*) - 1) / 2"
        )
        [[agreeing]] = self._duck.rows(
            f"SELECT coalesce(sum(c), 0)::double FROM (SELECT {two} c FROM people "
            f"WHERE {column} IS NOT NULL GROUP BY {column})"
        )
        return agreeing, self._pairs_in_all(column)

    def _pairs_in_all(self, column: str) -> float:
        """The pairs of records that have a value in a column, at least 1."""
        [[left, right]] = self._duck.rows(
            f"SELECT count({column}) FILTER (side = 0), count({column}) FILTER (side = 1) "
            "FROM people"
        )
        both = left + right
        return float(max(left * right if self._across else both * (both - 1) // 2, 1))


def _levels(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in comparison["comparison_levels"] if not one.get("is_null_level")]


def _set(
    levels: list[dict[str, Any]],
    matching: dict[int, float],
    sampled: list[float | None],
    agreeing: tuple[float, float],
    prior: float,
) -> None:
    """Set m and u of a column's levels, the last of which is "different".

    matching: by Splink's number of the level, how many pairs that match reach it.
    """
    numbers = range(len(levels) - 1, -1, -1)
    known = sum(matching.values())
    of_all = known + _SMOOTHING * len(levels)
    m = [(matching.get(number, 0.0) + _SMOOTHING) / of_all for number in numbers]
    equal, pairs = agreeing
    u = [max(equal - matching.get(len(levels) - 1, 0.0), 0.1) / max(pairs - known, 1.0)]
    u += [(one or 0.0) - prior * m[at] for at, one in enumerate(sampled[1:-1], start=1)]
    u = [max(one, prior * m[at] / _ALONE, 1e-12) for at, one in enumerate(u)]
    u.append(max(1 - sum(u), 1e-6))
    for level, one_m, one_u in zip(levels, m, u, strict=True):
        level["m_probability"], level["u_probability"] = one_m, one_u


def _odds(probability: float) -> float:
    return log2(probability / (1 - probability))


def _likely(weight: float) -> float:
    """The probability of a weight, which is the binary logarithm of the odds."""
    return float(1 / (1 + 2 ** -max(min(weight, 500.0), -500.0)))
