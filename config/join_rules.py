"""The policy's rules for joining identifiers: limits, priorities, and values that never identify.

docs/operate/profiles.md describes them.
"""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from config.clock.times import Duration, format_duration
from config.text.strict import Strict

JoinKind = Literal["user_id", "email", "phone", "push_token", "anonymous_id"]
JOIN_KINDS: tuple[JoinKind, ...] = get_args(JoinKind)  # strongest first


class JoinLimit(Strict):
    """How many identifiers of a kind one profile takes: in all, or in any period of `within`."""

    limit: Annotated[int, Field(strict=True, ge=1)]
    within: Annotated[Duration, Field(gt=0)] | None = None

    def __str__(self) -> str:
        period = "" if self.within is None else f" in {format_duration(self.within)}"
        return f"at most {self.limit}{period}"


_DEFAULT_LIMITS: dict[JoinKind, JoinLimit] = {
    "user_id": JoinLimit(limit=1),
    "email": JoinLimit.model_validate({"limit": 5, "within": "365d"}),
    "anonymous_id": JoinLimit.model_validate({"limit": 5, "within": "7d"}),
}


def _join_limits(value: Any) -> Any:
    """The limits as in the file, with the defaults of the kinds that it does not name."""
    if not isinstance(value, dict):
        raise ValueError(
            'write one limit a kind, such as email = { limit = 5, within = "365d" } or '
            'phone = "none"'
        )
    for kind, one in value.items():
        if kind not in JOIN_KINDS:
            raise ValueError(f"{kind!r} is not one of {', '.join(JOIN_KINDS)}")
        if not isinstance(one, dict | JoinLimit) and one != "none":
            raise ValueError(
                f'{kind}: write {{ limit = 5 }}, {{ limit = 5, within = "7d" }} or "none"'
            )
    return {kind: one for kind, one in {**_DEFAULT_LIMITS, **value}.items() if one != "none"}


class JoinRules(Strict):
    """Which identifiers of a call become one profile.

    limits: for each kind; a kind without one is not limited. priority: the kinds, the strongest
    first. Over a limit the weakest identifier of the call is left out.
    """

    limits: Annotated[dict[JoinKind, JoinLimit], BeforeValidator(_join_limits)] = Field(
        default_factory=lambda: dict(_DEFAULT_LIMITS)
    )
    priority: tuple[JoinKind, ...] = JOIN_KINDS

    @model_validator(mode="after")
    def _every_kind_once(self) -> "JoinRules":
        missing = [kind for kind in JOIN_KINDS if kind not in self.priority]
        if missing or len(self.priority) != len(JOIN_KINDS):
            raise ValueError(
                f"priority: name each of {', '.join(JOIN_KINDS)} once, the strongest first"
                + (f"; it lacks {', '.join(missing)}" if missing else "")
            )
        return self

    def strength(self, kind: JoinKind) -> int:
        """The place of a kind in the priority; 0 is the strongest."""
        return [*self.priority].index(kind)


DEFAULT_JOIN_RULES = JoinRules()


class Pattern(Strict):
    """A regular expression for whole values, without regard to case: `{ pattern = "test-.*" }`."""

    pattern: Annotated[str, Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _compiles(self) -> "Pattern":
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is not a regular expression: {error}") from None
        return self


def _form(value: Any) -> str:
    return "pattern" if isinstance(value, dict | Pattern) else "text"


# A value that identifies nobody, or a pattern of such values.
Placeholder = Annotated[
    Annotated[Annotated[str, Field(min_length=1, max_length=1000)], Tag("text")]
    | Annotated[Pattern, Tag("pattern")],
    Discriminator(_form),
]
