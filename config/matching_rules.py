"""The policy's rules for matching: which pairs are suggested, and which join by themselves.

docs/operate/matching.md describes them.
"""

from typing import Annotated

from pydantic import Field, model_validator

from config.text.strict import Strict

Probability = Annotated[float, Field(gt=0, lt=1)]


class MatchingRules(Strict):
    """suggest_from: how likely a pair of profiles is one person, at least, to be suggested.
    join_from: from this on, pairs are joined without a person; None: never.
    """

    suggest_from: Probability = 0.9
    join_from: Probability | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "MatchingRules":
        if self.join_from is not None and self.join_from < self.suggest_from:
            raise ValueError(
                f"join_from ({self.join_from}) is below suggest_from ({self.suggest_from}): "
                "profiles would be joined that are too different to be suggested; raise join_from"
            )
        return self


DEFAULT_MATCHING_RULES = MatchingRules()
