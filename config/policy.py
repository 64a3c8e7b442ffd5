"""The policy: windows, caps, topics and consent rules.

It is read from `policy.toml` or from equivalent JSON; errors name the place and the fix.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from config.channels import ChannelName, channel_of, channels
from config.clock.times import DAY, Duration, Seconds, format_duration
from config.clock.zones import zone_names
from config.errors import SegueError
from config.join_rules import DEFAULT_JOIN_RULES, JoinRules, Placeholder
from config.matching_rules import DEFAULT_MATCHING_RULES, MatchingRules
from config.text.files import read_toml
from config.text.stop_words import StopWords
from config.text.strict import Strict, describe_errors
from config.text.suggestions import meant

CHANNELS: tuple[ChannelName, ...] = tuple(channels())
JoinOn = Literal["any", "verified"]
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORT = dict(zip(_LONG_WEEKDAYS, WEEKDAYS, strict=True))


def parse_weekdays(text: Any) -> tuple[int, ...]:
    """Parse names and ranges of days ("mon-wed,sat", "fri-mon") to weekdays, Monday is 0."""
    if not isinstance(text, str):
        raise ValueError(f"days must be text such as 'mon-fri', not {text!r}")
    found: set[int] = set()
    for part in text.lower().split(","):
        names = [_SHORT.get(name.strip(), name.strip()) for name in part.split("-")]
        unknown = [name for name in names if name not in WEEKDAYS]
        if unknown or len(names) > 2:
            raise ValueError(
                f"{part.strip()!r} is not a day or a range of days; write for example 'mon-fri', "
                "'fri-mon' or 'mon,wed,sat'"
            )
        first, last = WEEKDAYS.index(names[0]), WEEKDAYS.index(names[-1])
        found.update((first + step) % 7 for step in range((last - first) % 7 + 1))
    return tuple(sorted(found))


def parse_time_of_day(text: Any) -> Seconds:
    """Parse `HH:MM`, from 00:00 to 24:00, to seconds after local midnight."""
    if isinstance(text, str) and len(text) == 5 and text[2] == ":":
        hour, minute = text[:2], text[3:]
        if hour.isascii() and hour.isdigit() and minute.isascii() and minute.isdigit():
            seconds = int(hour) * 3600 + int(minute) * 60
            if int(minute) < 60 and seconds <= DAY:
                return seconds
    raise ValueError(f"{text!r} is not a time of day; write HH:MM, from 00:00 to 24:00")


def format_time(seconds: Seconds) -> str:
    """Seconds after local midnight as `HH:MM`."""
    return f"{seconds // 3600:02}:{seconds % 3600 // 60:02}"


class _Model(Strict):
    model_config = ConfigDict(populate_by_name=True)


class Window(_Model):
    """Hours on some weekdays in the recipient's time, from `from` to `to` (exclusive).

    A window whose `to` is earlier than its `from` crosses midnight and belongs to its first day.
    """

    days: Annotated[tuple[int, ...], BeforeValidator(parse_weekdays)]
    opens: Annotated[Seconds, BeforeValidator(parse_time_of_day)] = Field(alias="from")
    closes: Annotated[Seconds, BeforeValidator(parse_time_of_day)] = Field(alias="to")

    @model_validator(mode="after")
    def _not_empty(self) -> "Window":
        if self.opens == self.closes:
            raise ValueError("from and to are equal; for a whole day write 00:00 to 24:00")
        if self.opens == DAY:
            raise ValueError("a window can't begin at 24:00; use 00:00 on the next day")
        return self

    def __str__(self) -> str:
        days = ",".join(WEEKDAYS[day] for day in self.days)
        return f"{days} {format_time(self.opens)}-{format_time(self.closes)}"


class ChannelPolicy(_Model):
    """One channel's consent rule and windows; without windows the channel is always open."""

    consent: Literal["opt-in", "opt-out"] | None = None
    windows: tuple[Window, ...] | None = None

    @model_validator(mode="after")
    def _ever_open(self) -> "ChannelPolicy":
        if self.windows == ():
            raise ValueError(
                "windows = [] never opens; remove it to send at all hours, or close the channel "
                "with a cap of 0"
            )
        return self


def _cap_channels(value: Any) -> Any:
    return CHANNELS if value == "all" else value


class Cap(_Model):
    """At most `limit` messages in a period, summed over the channels."""

    channels: Annotated[
        tuple[ChannelName, ...], BeforeValidator(_cap_channels), Field(min_length=1)
    ]
    limit: Annotated[int, Field(strict=True, ge=0)]
    per: Literal["day", "week", "month"] | None = None
    within: Duration | None = None
    topic: str | None = None
    counts: Literal["marketing", "all"] = "marketing"

    @model_validator(mode="after")
    def _one_period(self) -> "Cap":
        if (self.per is None) == (self.within is None):
            raise ValueError(
                'a cap needs either per = "day" | "week" | "month" or within = "24h", "7d" ...'
            )
        if self.within == 0:
            raise ValueError("within must be longer than 0")
        return self

    def __str__(self) -> str:
        channels = "message" if set(self.channels) == set(CHANNELS) else "+".join(self.channels)
        about = f" about {self.topic}" if self.topic else ""
        period = f"a {self.per}" if self.within is None else f"in {format_duration(self.within)}"
        return f"at most {self.limit} {channels}{about} {period}"


class Topic(_Model):
    """A topic. In the file: `"name"` or `{ name = "...", double_opt_in = … }`.

    double_opt_in: whether a yes on e-mail needs a confirmation by a link in a mail.
    """

    name: str
    double_opt_in: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict):
            raise ValueError('write "name" or { name = "...", double_opt_in = true }')
        return value


class ConsentTrait(_Model):
    """The consent that a trait of an identify call states if it has this value."""

    trait: Annotated[str, Field(min_length=1)]
    value: StrictBool | StrictInt | StrictStr
    channel: ChannelName
    topic: str = "*"
    granted: Annotated[bool, Field(strict=True)]


class ApprovalRule(_Model):
    """The launches that wait until somebody approves them; by default none.

    people: those that would enter more profiles. topics: those of journeys with a message about one
    of these. lapses_after: how long a launch waits, and how long an approval holds until it starts.
    """

    people: Annotated[int, Field(strict=True, ge=0)] | None = None
    topics: tuple[str, ...] = ()
    lapses_after: Annotated[Duration, Field(gt=0)] = 3 * DAY


class Policy(_Model):
    """The whole policy. The defaults are those of an empty policy file."""

    timezone: str = "UTC"
    week_starts: Literal[
        "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"
    ] = "monday"
    max_delay: Duration = 7 * DAY
    # the addresses in calls that join profiles: all, or only those marked as verified
    join_on: JoinOn = "any"
    holdout_percent: Annotated[float, Field(ge=0, le=100)] = 0
    topics: dict[str, Topic] = Field(default_factory=dict)
    channels: dict[ChannelName, ChannelPolicy] = Field(default_factory=dict)
    caps: tuple[Cap, ...] = ()
    stop_words: dict[str, StopWords] = Field(default_factory=dict)
    consent_traits: tuple[ConsentTrait, ...] = ()
    meaningless: tuple[Placeholder, ...] = ()
    joins: JoinRules = DEFAULT_JOIN_RULES
    matching: MatchingRules = DEFAULT_MATCHING_RULES
    approval: ApprovalRule = ApprovalRule()

    @model_validator(mode="after")
    def _consistent(self) -> "Policy":
        if self.timezone not in zone_names():
            raise ValueError(
                f"timezone: there is no zone {self.timezone!r}; use an IANA name such as "
                "Europe/London"
            )
        named = [("caps", cap.topic) for cap in self.caps]
        named += [("consent_traits", one.topic) for one in self.consent_traits]
        named += [("approval.topics", topic) for topic in self.approval.topics]
        for place, topic in named:
            if topic not in (None, "*") and self.topics and topic not in self.topics:
                raise ValueError(
                    f"{place}: there is no topic {topic!r}; {meant(topic, self.topics)}there are: "
                    f"{', '.join(sorted(self.topics))}"
                )
        return self

    @cached_property
    def first_weekday(self) -> int:
        """The first day of calendar weeks; Monday is 0."""
        return _LONG_WEEKDAYS.index(self.week_starts)

    def opt_in(self, channel: ChannelName) -> bool:
        """Whether unset consent counts as no on this channel."""
        kind, named = channel_of(channel), self.channels.get(channel)
        chosen = None if kind.consent_fixed or named is None else named.consent
        return (chosen or kind.consent) == "opt-in"

    @cached_property
    def double_opt_in(self) -> dict[str, str]:
        """The names of the topics with double opt-in, by id."""
        return {topic: one.name for topic, one in self.topics.items() if one.double_opt_in}

    def own_yes_only(self, channel: ChannelName, topic: str) -> bool:
        """Whether the topic needs its own yes, regardless of the consent to the channel."""
        return channel_of(channel).double_opt_in and topic in self.double_opt_in

    def windows(self, channel: ChannelName) -> tuple[Window, ...] | None:
        """The channel's windows; None: always open."""
        named = self.channels.get(channel)
        return named.windows if named else None

    def warnings(self) -> list[str]:
        """Warnings about valid values that are probably unintended."""
        found = [
            f"caps[{number}]: a limit of 0 stops all marketing on {', '.join(cap.channels)}"
            for number, cap in enumerate(self.caps)
            if cap.limit == 0
        ]
        for name, named in self.channels.items():
            kind = channel_of(name)
            if kind.consent_fixed and named.consent not in (None, kind.consent):
                found.append(
                    f"channels.{name}.consent: it has no effect; {kind.plural} are always "
                    f"{kind.consent}"
                )
        return found


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises SegueError that names the file, the place and the fix."""
    if not path.exists():
        raise SegueError(f"the policy file {path} does not exist; set SEGUE_POLICY_FILE")
    try:
        return Policy.model_validate(read_toml(path))
    except ValidationError as error:
        raise SegueError(f"{path}: {describe_errors(error)}") from error
