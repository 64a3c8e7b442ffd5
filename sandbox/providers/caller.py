"""Post webhooks to the receiver as the providers do, in the background.

The numbers of waiting webhooks, of connections, and of attempts for each webhook are limited.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from math import ceil
from typing import Annotated, Any, NamedTuple
from uuid import uuid4

import httpx
from pydantic import BaseModel, ConfigDict, Field

from channels.providers import postmark, sendgrid, twilio, twilio_whatsapp
from channels.providers.registry import sandbox_settings
from config.access.sandbox_keys import sandbox_secret
from config.clock.times import Instant
from config.settings import Settings
from profiles.bulk import in_slices
from sandbox.providers.twilio import WHATSAPP
from sandbox.providers.webhook_payloads import (
    Signed,
    event_with_login,
    inbound_form,
    mail_event,
    own_address,
    postmark_event,
    signed_events,
    signed_form,
    status_form,
)
from sandbox.simulated_customer import Behaviour, reactions_to
from sandbox.store import Accepted

# Further webhooks are dropped and counted.
MOST_WAITING = 100_000
CONNECTIONS = 4
TIMEOUT = 10.0  # seconds
_EVENTS_AT_ONCE = 1000
# Messages whose reports are computed before other tasks run.
_MESSAGES_AT_ONCE = 100
# Twilio's default keywords.
_STOP_WORDS = frozenset(
    ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT")
)
_START_WORDS = frozenset(("START", "YES", "UNSTOP"))


class Reply(BaseModel):
    """A message that a customer sends to our number now; by WhatsApp `from` a whatsapp: number."""

    model_config = ConfigDict(extra="forbid")

    sender: Annotated[str, Field(alias="from", pattern=r"^(whatsapp:)?\+[1-9]\d{6,14}$")]
    body: Annotated[str, Field(max_length=1600)]


class _Form(NamedTuple):
    """A webhook of Twilio, with its URL."""

    url: str
    form: Mapping[str, str]


class _Event(NamedTuple):
    """One event of Postmark, which posts each in its own request."""

    event: Mapping[str, Any]


class _Post(NamedTuple):
    """The request; each try has a new signature."""

    url: str
    signed: Callable[[Instant], Signed]


class Callbacks:
    """Post the webhooks of a behaviour; without a behaviour, post none.

    Parameters
    ----------
    clock: the time in the webhooks and their signatures.
    tries_after: pauses between the tries of one webhook, in seconds.
    simulated: the clock stands until it is moved. Webhooks are then sent only by `catch_up`, so
        that the result does not depend on the speed of the machine.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], Instant],
        *,
        tries_after: Sequence[float] = (1, 2, 4, 8, 16),
        simulated: bool = False,
    ) -> None:
        self.behaviour: Behaviour | None = None
        # numbers that replied STOP, and addresses that are inactive at Postmark
        self.opted_out: set[str] = set()
        self._clock = clock
        self._tries_after = tries_after
        self._simulated = simulated
        own = sandbox_settings(twilio.PROVIDER, settings)
        password = sandbox_settings(postmark.PROVIDER, settings).webhook_password
        self._login = f"{postmark.WEBHOOK_USER}:{password.get_secret_value()}"
        self._postmark_url = f"{settings.public_url}/hooks/postmark"
        self._key = sendgrid.sandbox_key(sandbox_secret(settings, "sendgrid"))
        self._token = own.auth_token.get_secret_value()
        self._events_url = f"{settings.public_url}/hooks/sendgrid"
        by_whatsapp = sandbox_settings(twilio_whatsapp.PROVIDER, settings)
        self._whatsapp_token = by_whatsapp.auth_token.get_secret_value()
        self._hooks = f"{settings.public_url}/hooks"
        self._number = own.sender if own.sender.startswith("+") else twilio.TEST_NUMBER
        # Each with the name of the provider that accepted it.
        self._accepted: deque[tuple[str, Accepted]] = deque()
        self._waiting: list[tuple[float, int, _Form | _Event | dict[str, Any]]] = []
        self._posts: asyncio.Queue[_Post] = asyncio.Queue(CONNECTIONS)
        self._numbers = count()
        self._wake = asyncio.Event()
        self._active = self._posted = self._given_up = self._dropped = 0

    def behave(self, behaviour: Behaviour | None) -> None:
        """Set the behaviour; None stops all reactions and drops waiting webhooks."""
        self.behaviour = behaviour
        if behaviour is None:
            self._accepted.clear()
            self._waiting.clear()

    def take(self, provider: str, accepted: Sequence[Accepted]) -> None:
        """Plan the reports about messages that a provider has just accepted."""
        if self.behaviour is None or not accepted:
            return
        room = max(0, MOST_WAITING - len(self._accepted) - len(self._waiting))
        self._dropped += len(accepted[room:])
        if self._simulated:
            for one in accepted[:room]:
                self._queue_reports(provider, one)
            return
        self._accepted.extend((provider, one) for one in accepted[:room])
        self._wake.set()

    def reply(self, reply: Reply) -> None:
        """Plan a message from a customer, whatever the behaviour."""
        self._wait(0.0, self._inbound(reply.sender, reply.body, f"SM{uuid4().hex}"))
        self._wake.set()

    def _inbound(self, sender: str, body: str, sid: str) -> _Form:
        """The webhooks that Twilio posts for a message from a customer."""
        if sender.startswith(WHATSAPP):
            to, provider = WHATSAPP + twilio_whatsapp.SANDBOX_NUMBER, "twilio_whatsapp"
        else:
            to, provider = self._number, "twilio"
        form = inbound_form(sender, to, body, sid)
        return _Form(f"{self._hooks}/{provider}/inbound", form)

    def state(self) -> dict[str, Any]:
        """Counts; `waiting` are webhooks still to be posted, active requests included."""
        return {
            "behaviour": self.behaviour and self.behaviour.model_dump(),
            "waiting": len(self._accepted) + len(self._waiting) + self._active,
            "posted": self._posted,
            "given_up": self._given_up,
            "dropped": self._dropped,
        }

    @property
    def next_due(self) -> Instant | None:
        """The time of the next webhook, by the simulated clock."""
        return ceil(self._waiting[0][0]) if self._simulated and self._waiting else None

    async def catch_up(self) -> None:
        """Post all webhooks due by the simulated clock; return when all are accepted or given up.

        One after another, so that events arrive in the same order every time.
        """
        for post in self._due():
            self._active += 1
            await self._posts.put(post)
            await self._posts.join()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send webhooks inside the context; those that still wait at its end are dropped."""
        limits = httpx.Limits(max_connections=CONNECTIONS)
        async with httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False) as client:
            tasks = [asyncio.create_task(self._post_for_ever(client)) for _ in range(CONNECTIONS)]
            if not self._simulated:
                tasks.append(asyncio.create_task(self._schedule()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    # Planning ----------------------------------------------------------------------------

    async def _schedule(self) -> None:
        while True:
            self._wake.clear()
            for _ in range(min(_MESSAGES_AT_ONCE, len(self._accepted))):
                self._queue_reports(*self._accepted.popleft())
            for post in self._due():
                self._active += 1
                await self._posts.put(post)
            if self._accepted:
                await asyncio.sleep(0)
                continue
            pause = self._waiting[0][0] - self._now() if self._waiting else None
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    def _queue_reports(self, provider: str, one: Accepted) -> None:
        """Queue all reports about a message."""
        behaviour = self.behaviour
        if behaviour is None:
            return
        named = one.message_id or one.provider_id
        for kind, after, reported in reactions_to(behaviour, one.channel, one.address, named):
            report: _Form | _Event | dict[str, Any]
            if provider == "postmark":
                event = postmark_event(kind, one, self._clock() + int(after))
                if event is None:
                    continue
                report = _Event(event)
            elif one.channel == "email":
                report = mail_event(kind, one, self._clock() + int(after))
            elif kind == "stop":
                sid = f"SM{one.provider_id[2:][::-1]}"
                report = self._inbound(own_address(one), "STOP", sid)
            elif one.content["callback"]:
                report = _Form(one.content["callback"], status_form(kind, one))
            else:
                continue
            for later in reported:
                self._wait(later, report)

    def _wait(self, later: float, report: _Form | _Event | dict[str, Any]) -> None:
        at = self._now() + later
        gathered = self.behaviour.gathered if self.behaviour else 0
        if isinstance(report, dict) and gathered:
            at = ceil(at / gathered) * gathered
        if len(self._waiting) < MOST_WAITING:
            heapq.heappush(self._waiting, (at, next(self._numbers), report))
        else:
            self._dropped += 1

    def _due(self) -> Iterator[_Post]:
        """The requests for all due reports; SendGrid's events are posted in batches."""
        events: list[dict[str, Any]] = []
        now = self._now()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, report = heapq.heappop(self._waiting)
            if isinstance(report, dict):
                events.append(report)
            elif isinstance(report, _Event):
                self._note_inactive(report.event)
                yield _Post(self._postmark_url, partial(self._logged_in, report))
            else:
                self._note(report.form)
                yield _Post(report.url, partial(self._signed_form, report))
        for some in in_slices(events, _EVENTS_AT_ONCE):
            yield _Post(self._events_url, partial(signed_events, self._key, some))

    def _signed_form(self, report: _Form, _now: Instant) -> Signed:
        by_whatsapp = "/hooks/twilio_whatsapp/" in report.url
        token = self._whatsapp_token if by_whatsapp else self._token
        return signed_form(token, report.url, report.form)

    def _logged_in(self, report: _Event, _now: Instant) -> Signed:
        return event_with_login(self._login, report.event)

    def _note_inactive(self, event: Mapping[str, Any]) -> None:
        """Postmark refuses addresses with a permanent bounce or a spam complaint."""
        if event.get("Inactive"):
            self.opted_out.add(event["Email"])

    def _now(self) -> float:
        """The current time, on the clock by which webhooks are due."""
        if self._simulated:
            return float(self._clock())
        return asyncio.get_running_loop().time()

    def _note(self, form: Mapping[str, str]) -> None:
        """Twilio stores the numbers that sent STOP, and refuses messages to them."""
        word = form.get("Body", "").strip().upper()
        if word in _STOP_WORDS:
            self.opted_out.add(form["From"])
        elif word in _START_WORDS:
            self.opted_out.discard(form["From"])

    # Posting ------------------------------------------------------------------------------------

    async def _post_for_ever(self, client: httpx.AsyncClient) -> None:
        while True:
            post = await self._posts.get()
            if await self._get_through(client, post):
                self._posted += 1
            else:
                self._given_up += 1
            self._active -= 1
            self._posts.task_done()

    async def _get_through(self, client: httpx.AsyncClient, post: _Post) -> bool:
        """Post with retries, like the provider. Returns whether the receiver accepted it."""
        for pause in (*self._tries_after, None):
            signed = post.signed(self._clock())
            try:
                answer = await client.post(post.url, content=signed.body, headers=signed.headers)
                if answer.is_success:
                    return True
            except (httpx.TransportError, httpx.InvalidURL):
                pass
            if pause is not None:
                await asyncio.sleep(pause)
        return False
