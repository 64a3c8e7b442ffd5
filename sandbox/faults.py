"""Bad days on demand: a provider that is told to refuse, to crawl or to hang up."""

from random import Random
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

ProviderName = Literal["sendgrid", "twilio", "fcm"]


class Fault(BaseModel):
    """How one provider misbehaves, for its next `count` requests or for a `share` of all of them.

    A number answers with that status and takes nothing on (429 with `retry_after` seconds);
    `slow` waits `seconds` and then goes on as usual; `drop` takes the message on and hangs up
    without a word.
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
    """Phone numbers (E.164) whose owners replied STOP: Twilio refuses them with 21610."""

    model_config = ConfigDict(extra="forbid")

    provider: Literal["twilio"]
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
    """The faults in force, and the numbers that opted out."""

    def __init__(self, opted_out: set[str]) -> None:
        self.opted_out = opted_out
        self._in_force: list[_InForce] = []

    def add(self, body: bytes) -> None:
        """Put one more in force. Raises pydantic's ValidationError on a body that is none."""
        match _READER.validate_json(body):
            case OptedOut(numbers=numbers):
                self.opted_out.update(numbers)
            case Fault() as fault:
                self._in_force.append(_InForce(fault))

    def clear(self) -> None:
        """Back to good days."""
        self._in_force.clear()
        self.opted_out.clear()

    def next_for(self, provider: ProviderName) -> Fault | None:
        """What this request meets: the first in force that strikes, if any."""
        return next((one.fault for one in self._in_force if one.strikes(provider)), None)
