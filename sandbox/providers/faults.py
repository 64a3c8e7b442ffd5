"""Faults on demand: a provider refuses requests, responds slowly or closes the connection."""

from random import Random
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

ProviderName = Literal["sendgrid", "postmark", "twilio", "fcm"]


class Fault(BaseModel):
    """A fault of one provider, for its next `count` requests or for a `share` of all requests.

    A number responds with that status and accepts nothing (429 with `retry_after` seconds); `slow`
    waits `seconds` and then continues as usual; `drop` accepts the message and closes the
    connection without a response.
    """

    model_config = ConfigDict(extra="forbid")

    provider: ProviderName
    answer: Literal[401, 403, 429, 500, 503, "slow", "drop"]
    count: Annotated[int, Field(gt=0)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int = 0
    retry_after: Annotated[int, Field(ge=0)] = 1
    seconds: Annotated[float, Field(ge=0, le=600)] = 1

    @model_validator(mode="after")
    def _count_or_share(self) -> Self:
        if (self.count is None) == (self.share is None):
            raise ValueError("give either a count or a share")
        return self


class OptedOut(BaseModel):
    """Phone numbers (E.164) that replied STOP, which Twilio refuses with 21610; mail addresses that
    are inactive, which Postmark refuses with 406.
    """

    model_config = ConfigDict(extra="forbid")

    provider: Literal["twilio", "postmark"]
    answer: Literal["opted_out"]
    numbers: list[str]


_READER: TypeAdapter[Fault | OptedOut] = TypeAdapter(
    Annotated[Fault | OptedOut, Field(discriminator="answer")]
)


class _InForce:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.count
        self.dice = Random(fault.seed)  # noqa: S311  repeatable is the point

    def strikes(self, provider: ProviderName) -> bool:
        if provider != self.fault.provider:
            return False
        if self.left is None:
            return self.dice.random() < (self.fault.share or 0)
        self.left -= 1
        return self.left >= 0


class Faults:
    """The active faults, and the numbers and addresses that providers refuse."""

    def __init__(self, opted_out: set[str]) -> None:
        self.opted_out = opted_out
        self._in_force: list[_InForce] = []

    def add(self, body: bytes) -> None:
        """Add a fault. Raises pydantic's ValidationError for an invalid body."""
        match _READER.validate_json(body):
            case OptedOut(numbers=numbers):
                self.opted_out.update(numbers)
            case Fault() as fault:
                self._in_force.append(_InForce(fault))

    def clear(self) -> None:
        """Remove all faults."""
        self._in_force.clear()
        self.opted_out.clear()

    def next_for(self, provider: ProviderName) -> Fault | None:
        """The first fault that applies to this request, if any."""
        return next((one.fault for one in self._in_force if one.strikes(provider)), None)
