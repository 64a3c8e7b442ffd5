"""A slow model of one customer's passage through one journey, written from the semantics.

Tests compare the engine and the outbox with it. It keeps plain lists and knows one journey, whose
steps are below. It uses no code of the product except config/clock/times.py;
tests/support/planning/reference.py decides when a message can be sent, by stepping through time.
All times are whole minutes.
"""

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from config.clock.times import DAY, HOUR, MINUTE, format_duration, format_instant, parse_instant
from tests.support.planning.reference import reference_answer

POLICY: dict[str, Any] = {
    "timezone": "UTC",
    "max_delay": "1d",
    "channels": {"email": {"windows": [{"days": "mon-sun", "from": "08:00", "to": "20:00"}]}},
    "caps": [
        {"channels": ["email"], "limit": 1, "per": "day"},
        {"channels": ["sms"], "limit": 1, "within": "24h"},
    ],
}
TOPIC = "news"
# The steps of each version in order, with the duration of waits in seconds.
STEPS: dict[str, dict[str, int]] = {
    "old": {"first": 0, "rest": HOUR, "back": 2 * HOUR, "only": 6 * HOUR, "last": 0},
    "new": {"first": 0, "rest": 3 * HOUR, "back": 4 * HOUR, "last": 0},
}
FALLBACK_AFTER = HOUR
# How long a claim is valid, and how long after that it counts as lost, in seconds.
CLAIM_LASTS, LOST_AFTER = MINUTE, 2 * MINUTE
# An enrollment at a send checks its messages this long after their send time, in seconds.
EVALUATE_AGAIN_AFTER = MINUTE

EXITED = "exited: exit rule"

Answer = Literal["sent", "failed", "gone", "later", "cut"]
Death = Literal["before the post", "after the post"]
OPEN = ("planned", "sending")
HANDED_OVER = ("sent", "delivered", "unknown")


@dataclass(eq=False, kw_only=True)
class Letter:
    """A wanted message, in any state."""

    step: str
    channel: str
    after: int
    on_cap: str
    wanted_at: int
    max_delay: int
    send_at: int
    state: str
    reason: str | None = None
    not_after: int | None = None

    @property
    def deadline(self) -> int:
        return self.wanted_at + self.max_delay


@dataclass(eq=False, kw_only=True)
class Stay:
    """One enrollment."""

    version: str
    since: int
    step: str
    arrived: int
    due: int | None
    phase: int = 0
    end: str | None = None
    letters: list[Letter] = field(default_factory=list)

    def at(self, step: str) -> list[Letter]:
        return [letter for letter in self.letters if letter.step == step]


# The members of the sends: channel, offset, on_cap, maximal delay.
FIRST = (("email", 0, "defer", DAY), ("sms", 2 * HOUR, "skip", 3 * HOUR))
LAST = (("push", 0, "skip", DAY), ("email", 0, "skip", 5 * HOUR))


@dataclass
class Life:
    """The customer's state at `now`."""

    now: int
    _: KW_ONLY
    version: str = "old"
    held: str | None = None
    no_consent: set[str] = field(default_factory=set)
    suppressed: set[str] = field(default_factory=set)
    events: list[tuple[str, int, Letter | None]] = field(default_factory=list)
    unworked: list[str] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(
        default_factory=lambda: {"email": [], "sms": [], "push": []}
    )
    death: Death | None = None

    @property
    def current(self) -> Stay | None:
        """The enrollment that has not ended."""
        return next((stay for stay in self.stays if stay.end is None), None)

    @property
    def letters(self) -> list[Letter]:
        return [letter for stay in self.stays for letter in stay.letters]

    def happens(self, name: str, about: Letter | None = None) -> None:
        """Record an event."""
        self.events.append((name, self.now, about))
        self.unworked.append(name)

    def react(self, name: str) -> None:
        """React to an event."""
        stay = self.current
        if name == "came" and stay is None and self.held != "stopped":
            self.stays.append(
                Stay(
                    version=self.version,
                    since=self.now,
                    step="first",
                    arrived=self.now,
                    due=self.now,
                )
            )
        elif name == "bought" and stay is not None:
            self.leave(stay, EXITED)
        elif stay is not None and stay.due is not None and self.wakes(stay, name):
            stay.due = min(stay.due, self.now)

    def wakes(self, stay: Stay, name: str) -> bool:
        wakers = {
            "first": ("email_clicked", "sms_clicked"),
            "back": ("looked", "profile_changed"),
            "last": ("push_opened", "email_opened", "email_bounced"),
        }
        return name in wakers.get(stay.step, ())

    def leave(self, stay: Stay, why: str) -> None:
        """End the enrollment early and cancel its planned messages."""
        stay.end, stay.due = why, None
        for letter in stay.letters:
            if letter.state == "planned":
                letter.state, letter.reason = "cancelled", why

    def stop(self) -> None:
        self.held = "stopped"
        if self.current is not None:
            self.leave(self.current, "the journey was stopped")

    def move_to_current_version(self) -> None:
        stay = self.current
        if stay is not None and stay.step in STEPS[self.version]:
            stay.version = self.version

    def reported(self, letter: Letter, word: str) -> None:
        """A delivery report. A message's state only advances, and a bounce is final."""
        order = ("sending", "unknown", "sent", "delivered", "failed")
        reaches = "failed" if word == "bounced" else "delivered"
        if order.index(letter.state) < order.index(reaches):
            letter.state, letter.not_after = reaches, None
            letter.reason = "bounced" if word == "bounced" else None
        if word == "bounced":
            self.suppressed.add(letter.channel)
        self.happens(f"{letter.channel}_{word}", letter)

    def next_due(self) -> int | None:
        """The next time at which work is due; None if there is none."""
        if self.held is not None:
            return None
        moments = [letter.send_at for letter in self.letters if letter.state == "planned"]
        if self.current is not None and self.current.due is not None:
            moments.append(self.current.due)
        return min(moments, default=None)

    def work(self) -> bool:
        """Do all work that is due now. Returns False if the process died while sending."""
        for letter in self.letters:
            if letter.not_after is not None and letter.not_after < self.now - LOST_AFTER:
                letter.state, letter.reason, letter.not_after = "unknown", "died", None
        while self.unworked:
            self.react(self.unworked.pop(0))
        while self.held is None:
            moved, due = self.move(), self.due_letters()
            if due and not self.dispatch(due):
                return False
            if not moved and not due:
                break
        return True

    def next_letter(self) -> int | None:
        """The send time of the next planned message."""
        planned = (one.send_at for one in self.letters if one.state == "planned")
        return min(planned, default=None)

    def due_letters(self) -> list[Letter]:
        due = (one for one in self.letters if one.state == "planned" and one.send_at <= self.now)
        return sorted(due, key=lambda one: one.send_at)

    def move(self) -> bool:
        moved = False
        while (stay := self.current) and stay.due is not None and stay.due <= self.now:
            moved = True
            over = self.leaves_at(stay)
            if over is None:
                continue
            steps = list(STEPS[stay.version])
            rest = steps[steps.index(stay.step) + 1 :]
            if rest:
                # The next step begins when this one was over, even if it is processed later.
                stay.arrived = min(max(over, stay.arrived), self.now)
                stay.step, stay.due, stay.phase = rest[0], self.now, 0
            else:
                stay.end, stay.due = "completed", None
        return moved

    def leaves_at(self, stay: Stay) -> int | None:
        """The time at which the step ended; None: it has not, and `due` is set."""
        lasts = STEPS[stay.version][stay.step]
        match stay.step:
            case "first":
                if stay.phase == 0:
                    return None if self.plan(stay, FIRST, "any") else stay.arrived
                return self.behind(stay, "clicked")
            case "last":
                if stay.phase == 0:
                    return None if self.plan(stay, LAST, "first") else stay.arrived
                return self.behind(stay, "opened")
            case "back":
                until = stay.arrived + lasts
                for name, at, _ in self.events:
                    if name == "looked" and stay.arrived <= at <= until:
                        return at
                if self.now >= until:
                    return until
            case _:
                if stay.phase > 0:
                    return stay.due
                until = stay.arrived + lasts
                if until <= self.now:
                    return until
        stay.due, stay.phase = until, 1
        return None

    def behind(self, stay: Stay, answer: str) -> int | None:
        """Wait at a send for its messages' outcomes, or for an answer. Returns as `leaves_at`."""
        letters = stay.at(stay.step)
        answered = self.answered_at(stay, stay.step)
        if answered is not None:
            for letter in letters:
                if letter.state == "planned":
                    letter.state, letter.reason = "cancelled", f"stopped: {answer}"
        waiting = [one.send_at for one in letters if one.state in OPEN]
        if waiting:
            stay.due = max(*waiting, self.now) + EVALUATE_AGAIN_AFTER
            return None
        gone = max((one.send_at for one in letters if one.state in HANDED_OVER), default=None)
        left = LAST[stay.phase :] if stay.step == "last" else ()
        if answered is not None:
            for channel, after, on_cap, max_delay in left:
                letter = Letter(
                    step="last",
                    channel=channel,
                    after=after,
                    on_cap=on_cap,
                    wanted_at=self.now,
                    max_delay=max_delay,
                    send_at=self.now,
                    state="skipped",
                    reason="not_chosen",
                )
                stay.letters.append(letter)
            return max(gone or 0, answered)
        if not left:
            return self.now if gone is None else gone
        if gone is not None and gone + FALLBACK_AFTER > self.now:
            stay.due = gone + FALLBACK_AFTER
            return None
        return None if self.plan(stay, left, "first") else self.now

    def answered_at(self, stay: Stay, step: str) -> int | None:
        """The first time at which a message of the step was answered, by the events."""
        word = {"first": "clicked", "last": "opened"}[step]
        return min(
            (
                at
                for letter in stay.at(step)
                for name, at, about in self.events
                if letter.state in HANDED_OVER
                and name == f"{letter.channel}_{word}"
                and at >= letter.send_at
                and about in (None, letter)
            ),
            default=None,
        )

    def plan(self, stay: Stay, members: Any, mode: str) -> bool:
        """Decide a send and record its messages. Returns whether any is planned."""
        decisions = self.decide(mode, members, self.now, self.letters)
        going = []
        for place, (member, (send_at, reason)) in enumerate(zip(members, decisions, strict=True)):
            channel, after, on_cap, max_delay = member
            if reason == "not_chosen":
                continue  # a later fallback can still choose it
            letter = Letter(
                step=stay.step,
                channel=channel,
                after=after,
                on_cap=on_cap,
                wanted_at=self.now,
                max_delay=max_delay,
                send_at=self.now + after if send_at is None else send_at,
                state="skipped" if reason else "planned",
                reason=reason,
            )
            stay.letters.append(letter)
            if send_at is not None:
                going.append((send_at, place))
        if going:
            last, place = max(going)
            stay.due, stay.phase = last + EVALUATE_AGAIN_AFTER, stay.phase + place + 1
        return bool(going)

    def decide(
        self, mode: str, members: Any, now: int, counted: list[Letter]
    ) -> list[tuple[int | None, str | None]]:
        case = {
            "id": None,
            "now": format_instant(now),
            "policy": POLICY,
            "profile": {
                "timezone": "UTC",
                "addresses": {"email": "a@example.com", "sms": "+447700900001", "push": ["t"]},
                "suppressed": sorted(self.suppressed),
                "consent": {
                    "email": {TOPIC: "email" not in self.no_consent},
                    "sms": {"*": "sms" not in self.no_consent},
                },
            },
            "history": [
                {
                    "channel": one.channel,
                    "kind": "marketing",
                    "topic": TOPIC,
                    "state": one.state,
                    "send_at": format_instant(one.send_at),
                }
                for one in counted
            ],
            "send": {
                "mode": mode,
                "messages": [
                    {
                        "channel": channel,
                        "kind": "marketing",
                        "topic": TOPIC,
                        "after": format_duration(after),
                        "on_cap": on_cap,
                        "max_delay": format_duration(max_delay),
                    }
                    for channel, after, on_cap, max_delay in members
                ],
            },
        }
        return [
            (one["send_at"] and parse_instant(one["send_at"]), one["reason"])
            for one in reference_answer(case)["decisions"]
        ]

    def dispatch(self, due: list[Letter]) -> bool:
        """Check, claim, post and record due messages, and move on who waited for their outcomes.

        Returns False if it died after the claim.
        """
        claimed: list[Letter] = []
        unfit: list[Letter] = []
        for letter in due:
            if why := self.unwanted(letter):
                letter.state, letter.reason = "cancelled", why
                self.wake(letter)
            elif self.now > letter.deadline + letter.after + CLAIM_LASTS:
                letter.state, letter.reason = "skipped", "expired"
                self.wake(letter)
            else:
                handed_over = [one for one in self.letters if one.state != "planned"]
                alone = ((letter.channel, 0, "skip", 0),)
                [(_, reason)] = self.decide("any", alone, self.now, handed_over)
                if reason:
                    unfit.append(letter)
                else:
                    claimed.append(letter)
                    letter.state, letter.send_at = "sending", self.now
                    letter.not_after = self.now + CLAIM_LASTS
        for stay in self.stays:
            for step in {letter.step for letter in unfit if letter in stay.letters}:
                self.decide_again(stay, step)
        if not claimed:
            return True
        if self.death == "before the post":
            self.death = None
            return False
        answers = [(letter, self.answer(letter.channel)) for letter in claimed]
        if self.death == "after the post":
            self.death = None
            return False
        for letter, answer in answers:
            self.record(letter, answer)
        self.move()
        return True

    def unwanted(self, letter: Letter) -> str | None:
        stay = self.of(letter)
        if stay.end not in (None, "completed"):
            return stay.end
        if stay.end is None and "bought" in self.unworked:
            return EXITED
        if self.answered_at(stay, letter.step) is not None:
            return "stopped: clicked" if letter.step == "first" else "stopped: opened"
        return None

    def of(self, letter: Letter) -> Stay:
        [stay] = [stay for stay in self.stays if letter in stay.letters]
        return stay

    def wake(self, letter: Letter) -> None:
        """Make an enrollment at a send due when one of its messages was sent or will not be."""
        stay = self.of(letter)
        if stay.due is not None and stay.phase > 0 and stay.at(stay.step):
            stay.due = min(stay.due, self.now)

    def decide_again(self, stay: Stay, step: str) -> None:
        """Decide the group again. No message moves before the time it was planned for."""
        group = [letter for letter in stay.at(step) if letter.state == "planned"]
        counted = [letter for letter in self.letters if letter not in group]
        first = min(letter.after for letter in group)
        start = max(self.now, min(letter.send_at for letter in group))
        members = [
            (
                letter.channel,
                letter.after - first,
                letter.on_cap,
                max(0, letter.deadline + first - start),
            )
            for letter in group
        ]
        for letter, (send_at, reason) in zip(
            group, self.decide("any", members, start, counted), strict=True
        ):
            letter.reason = reason
            if send_at is None:
                letter.state = "skipped"
                self.wake(letter)
            else:
                letter.send_at = send_at

    def answer(self, channel: str) -> Answer:
        waiting = self.answers[channel]
        return waiting.pop(0) if waiting else "sent"

    def record(self, letter: Letter, answer: Answer) -> None:
        letter.not_after = None
        match answer:
            case "sent":
                letter.state, letter.reason = "sent", None
            case "cut":
                letter.state, letter.reason = "unknown", "cut"
            case "later":
                letter.state, letter.send_at = "planned", self.now + MINUTE
            case "failed" | "gone":
                letter.state, letter.reason = "failed", answer
        if answer == "gone":
            self.suppressed.add(letter.channel)
        if answer != "later" or letter.channel == "push":
            # A push to several devices is looked at after each answer, also if it is tried again.
            self.wake(letter)
