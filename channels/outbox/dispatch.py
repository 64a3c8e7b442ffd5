"""Dispatch: claim due messages, render them, post them concurrently and record their outcomes.

The claim is committed before the request. Database work runs in a thread, requests on the event
loop, one after the other: at the same time they compete for the interpreter lock, which costs more
than it gains.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from channels.links import confirm_url, preferences_url, unsubscribe_url
from channels.metrics import MESSAGES, PROVIDER_SECONDS
from channels.outbox.breaker import Breaker
from channels.outbox.claim import (
    Claim,
    Claimed,
    ClaimFailed,
    HandOver,
    Journeys,
    claim,
    due_channels,
    outdated,
    put_off,
)
from channels.outbox.outcomes import Done, Tally, count_name, record, settled, skipped
from channels.outbox.rate_limit import allowance, spend
from channels.providers.registry import ConnectedProviders
from channels.providers.sending import Outgoing, SendOutcome
from channels.providers.transport import Transport
from channels.rules.planner import Planner
from channels.templates.compile import BadLink, MissingData, RenderError
from channels.templates.link_check import LinkRules
from config.batches import Halving
from config.channels import ChannelName, channel_of
from config.database.engine import Database
from config.database.failures import of_the_database, reason_of
from config.settings import Settings
from profiles.bulk import in_slices

log = logging.getLogger(__name__)

# For each provider: claims in one transaction, and concurrent requests.
CLAIM_BATCH = 500
IN_FLIGHT = 100
# Between attempts to record outcomes while the database fails, in seconds.
_FIRST_WAIT, _LAST_WAIT = 0.2, 5.0


class ClaimedBatch(NamedTuple):
    """A batch of claims, with the filters it was claimed with.

    at: the time of the claim on the monotonic clock.
    """

    claimed: Claimed
    at: float
    journey: str | None
    channel: ChannelName | None


class _Ready(NamedTuple):
    claim: Claim
    outgoing: Outgoing


class _Recheck:
    """The latest check of a batch of claims, repeated while they wait for their turn.

    taken, at: when the claims were taken and last checked, on the monotonic clock. outdated: the
    hand-overs that must not be posted.
    """

    def __init__(self, claims: Sequence[Claim], taken: float) -> None:
        self.claims = claims
        self.taken = self.at = taken
        self.outdated: set[HandOver] = set()
        self.lock = asyncio.Lock()

    def allows(self, one: _Ready) -> bool:
        """Whether it may be posted now: its claim is valid and not outdated."""
        claim, to = one.claim, one.outgoing.to
        spent = time.monotonic() - self.taken
        in_time = claim.send_at + spent < claim.not_after
        return in_time and (claim.message_id, to) not in self.outdated


class Dispatcher:
    """Hands due messages to the providers.

    One for each process: it keeps the connections and the breakers.
    """

    def __init__(
        self,
        *,
        db: Database,
        planner: Planner,
        journeys: Journeys,
        providers: ConnectedProviders,
        transport: Transport,
        settings: Settings,
        name: str,
    ) -> None:
        self._db = db
        self._timing = db.timing
        self._planner = planner
        self._journeys = journeys
        self._providers = providers.by_name
        self._routes = providers.routes
        self._transport = transport
        self._settings = settings
        self._name = name
        self._breakers = {name: Breaker(one, db.timing) for name, one in self._providers.items()}
        self._rates = {
            name: one.rate for name, one in self._providers.items() if one.rate is not None
        }
        self._link_rules = link_rules(settings)
        # One semaphore for each provider, so that a slow one does not block the others.
        self._slots = {name: asyncio.Semaphore(IN_FLIGHT) for name in self._providers}
        self._stopping = False

    async def run(self, *, journey: str | None = None, channel: ChannelName | None = None) -> Tally:
        """Send all due messages. Returns the counts of their outcomes.

        Parameters
        ----------
        journey: only messages of this journey.
        channel: only messages on this channel. Calls for different channels may run concurrently.
        """
        return await self.send(await self.take(journey=journey, channel=channel))

    async def take(
        self, *, journey: str | None = None, channel: ChannelName | None = None
    ) -> ClaimedBatch:
        """Claim a batch of due messages. The caller passes it to `send` at once."""
        channels = tuple(self._routes) if channel is None else (channel,)
        at = time.monotonic()
        claimed = Claimed([], more=False, refused=Counter())
        if not self._stopping:
            claimed = await asyncio.to_thread(self._claim, channels, journey)
        return ClaimedBatch(claimed=claimed, at=at, journey=journey, channel=channel)

    async def send(self, taken: ClaimedBatch) -> Tally:
        """Send a claimed batch, then all other due messages. Returns as `run` does."""
        tally: Tally = Counter()
        while True:
            claims, more, refused = taken.claimed
            _count(refused)
            tally += refused
            if claims:
                tally += await self._hand_over(claims, taken.at)
            if not more:
                return tally
            taken = await self.take(journey=taken.journey, channel=taken.channel)

    async def due(self) -> list[ChannelName]:
        """The channels with due messages."""
        return await asyncio.to_thread(self._due)

    def _due(self) -> list[ChannelName]:
        with self._db.transaction(write=False) as tx:
            return due_channels(tx, self._journeys, tuple(self._routes))

    def stop(self) -> None:
        """Stop claiming; `run` returns when the claimed messages are recorded."""
        self._stopping = True

    def _claim(self, channels: Sequence[ChannelName], journey: str | None) -> Claimed:
        """Claim a batch; a message whose evaluation fails is postponed."""
        try:
            return self._claim_among(channels, journey, None)
        except ClaimFailed as failure:
            left = failure.message_ids
        halving = Halving(len(left))
        claims: list[Claim] = []
        refused: Tally = Counter()
        while left:
            some = left[: halving.size]
            try:
                claimed = self._claim_among(channels, journey, some)
            except ClaimFailed as failure:
                if not halving.failed(len(failure.message_ids)):
                    continue
                self._put_off(failure)
            else:
                claims += claimed.claims
                refused += claimed.refused
                halving.worked()
            left = left[len(some) :]
        return Claimed(claims, more=True, refused=refused)

    def _put_off(self, failure: ClaimFailed) -> None:
        [message_id] = failure.message_ids
        error = failure.__cause__ or failure
        log.error(
            "message %d can't be claimed, to be tried again later: %s",
            message_id,
            reason_of(error),
            extra={"message_id": message_id},
        )
        with self._db.transaction() as tx:
            put_off(tx, message_id, f"error: {type(error).__name__}")

    def _claim_among(
        self, channels: Sequence[ChannelName], journey: str | None, only: Sequence[int] | None
    ) -> Claimed:
        with self._db.transaction() as tx:
            routes = {one: self._routes[one] for one in channels}
            names = [name for route in routes.values() for name in route.providers]
            running = [name for name in names if not self._breakers[name].is_open(tx.now)]
            # A simulated clock does not advance during a run, so rates can't apply.
            rates = {} if self._db.now is not None else self._rates
            limits = allowance(tx, rates, running, CLAIM_BATCH)
            limits |= {one: 1 for one in limits if self._breakers[one].on_trial}
            claimed = claim(
                tx,
                self._planner,
                self._journeys,
                claimed_by=self._name,
                routes=routes,
                limits=limits,
                journey=journey,
                only=only,
            )
            posts = Counter(self._provider_of(one) for one in claimed.claims for _ in one.targets)
            spend(tx, rates, posts)
            return claimed

    def _provider_of(self, claim: Claim) -> str:
        return self._routes[claim.channel].provider(claim.kind, claim.topic)

    async def _hand_over(self, claims: Sequence[Claim], taken: float) -> Tally:
        """Post claims and record their outcomes.

        taken: when they were claimed, on the monotonic clock.
        """
        done: list[Done] = []
        # A request holds messages of one step, because SendGrid's categories apply to a whole
        # request, and each message once: the first devices of all pushes, then the second ones.
        ready: dict[tuple[str, str, str, int], list[_Ready]] = defaultdict(list)
        for one in claims:
            try:
                rendered = self._render(one)
                if too_long := rendered[0].content.excess(self._settings):
                    done.append(skipped(one, f"too_long: {too_long}"))
                    continue
                provider = self._provider_of(one)
                for place, outgoing in enumerate(rendered):
                    ready[provider, one.journey, one.step, place].append(_Ready(one, outgoing))
            except BadLink as error:
                done.append(skipped(one, f"link_refused: {error.to}"))
            except MissingData as error:
                done.append(skipped(one, f"missing_data: {error.field}"))
            except RenderError as error:
                done.append(skipped(one, f"render_error: {error}"))
            except Exception as error:
                why = reason_of(error)
                log.error("message %d can't be rendered: %s", one.message_id, why, extra=_ids(one))
                done.append(skipped(one, f"render_error: {type(error).__name__}"))
        recheck = _Recheck(claims, taken)
        posts = {
            asyncio.create_task(self._post(provider, batch, recheck))
            for (provider, *_), some in ready.items()
            for batch in in_slices(some, self._providers[provider].sender.batch_size)
        }
        tally: Tally = Counter()
        while posts or done:
            # Outcomes are recorded while slow requests are still under way.
            if posts:
                posted, posts = await asyncio.wait(posts, timeout=self._timing.record_every)
                for task in posted:
                    done += [
                        settled(one.claim, one.outgoing, what, self._timing)
                        for one, what in task.result()
                    ]
            tally += await self._record(done)
            if log.isEnabledFor(logging.DEBUG):
                for settled_claim in done:
                    what = count_name(settled_claim.change.state, settled_claim.change.reason)
                    log.debug("%s", what, extra=_ids(settled_claim.claim))
            done = []
        _count(tally)
        return tally

    def _render(self, one: Claim) -> list[Outgoing]:
        """The rendered message for each of its targets."""
        template = self._journeys.template(one.journey, one.version, one.step, one.member)
        # Links are signed only if they are used; e-mail also carries one in its headers.
        address = one.targets[0].address  # for a push, the links are the same for all devices
        url = None
        in_text = "links.unsubscribe" in template.variables
        if one.kind == "marketing" and (in_text or channel_of(one.channel).unsubscribe_link):
            url = unsubscribe_url(self._settings, one.profile_id, one.channel, one.topic, address)
        links = {"unsubscribe": url} if url else {}
        if "links.preferences" in template.variables:
            links["preferences"] = preferences_url(
                self._settings, one.profile_id, one.channel, address, one.send_at
            )
        if "links.confirm" in template.variables:
            topic = str(one.context["event"]["topic"])
            links["confirm"] = confirm_url(self._settings, one.profile_id, address, topic)
        context = {**one.context, "brand": self._settings.brand, "links": links}
        content = template.render(context, self._link_rules)
        return [
            Outgoing(
                message_id=one.message_id,
                to=target.address,
                content=content,
                platform=target.platform,
                unsubscribe_url=url,
                topic=one.topic,
                kind=one.kind,
                journey=one.journey,
                step=one.step,
                # A text message that is queued at the provider must not arrive outside the window.
                ttl=None if one.closes is None else one.closes - one.send_at,
                now=one.send_at,
            )
            for target in one.targets
        ]

    async def _post(
        self, name: str, batch: Sequence[_Ready], recheck: _Recheck
    ) -> list[tuple[_Ready, SendOutcome | None]]:
        """Post one request. A message that can't be posted within its claim has no outcome."""
        provider = self._providers[name]
        async with self._slots[name]:
            await self._check_again(recheck)
            now = batch[0].claim.send_at
            if self._breakers[name].is_open(now):
                return [(one, None) for one in batch]
            going = [one for one in batch if recheck.allows(one)]

            async def may_leave() -> bool:
                """Check again: getting a token or a connection may have taken long."""
                await self._check_again(recheck)
                return all(recheck.allows(one) for one in going)

            outcomes: dict[int, SendOutcome] = {}
            if going:
                outgoing = [one.outgoing for one in going]
                with PROVIDER_SECONDS.labels(provider.channel, name).time():
                    answer = await self._transport.post(provider, outgoing, may_leave)
                if answer:
                    answered = now + int(time.monotonic() - recheck.taken)
                    self._breakers[name].note(answer, now, answered)
                outcomes = {outcome.message_id: outcome for outcome in answer}
        return [(one, outcomes.get(one.claim.message_id)) for one in batch]

    async def _check_again(self, recheck: _Recheck) -> None:
        """Check claims that waited too long against a STOP, a purchase or a pause since then."""
        if time.monotonic() - recheck.at <= self._timing.claim_is_fresh:
            return
        async with recheck.lock:
            begun = time.monotonic()
            if begun - recheck.at > self._timing.claim_is_fresh:
                try:
                    recheck.outdated |= await asyncio.to_thread(self._outdated, recheck.claims)
                except Exception as error:
                    log.error("%d claims were released: %s", len(recheck.claims), reason_of(error))
                    recheck.outdated |= {
                        (one.message_id, target.address)
                        for one in recheck.claims
                        for target in one.targets
                    }
                recheck.at = begun

    def _outdated(self, claims: Sequence[Claim]) -> set[HandOver]:
        with self._db.transaction(write=False) as tx:
            return outdated(tx, self._journeys, claims)

    async def _record(self, done: Sequence[Done]) -> Tally:
        """Record the outcomes. Only this process knows them, so it retries until they are recorded,
        or until it must stop while the database is unavailable.
        """
        tally: Tally = Counter()
        left, halving, wait = done, Halving(len(done)), _FIRST_WAIT
        while left:
            some = left[: halving.size]
            try:
                tally += await asyncio.to_thread(self._write, some)
            except Exception as error:
                if of_the_database(error):
                    if self._stopping:
                        raise
                    log.error("%d outcomes can't be recorded yet: %s", len(left), reason_of(error))
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, _LAST_WAIT)
                    continue
                if not halving.failed(len(some)):
                    continue
                claim = some[0].claim
                log.error(
                    "the outcome of message %d can't be recorded: %s",
                    claim.message_id,
                    reason_of(error),
                    extra=_ids(claim),
                )
            else:
                halving.worked()
                wait = _FIRST_WAIT
            left = left[len(some) :]
        return tally

    def _write(self, done: Sequence[Done]) -> Tally:
        with self._db.transaction() as tx:
            return record(tx, self._journeys, done)


def link_rules(settings: Settings) -> LinkRules:
    """Links from customer data may lead to SEGUE_LINK_HOSTS and to our own pages."""
    own = urlsplit(settings.public_url).hostname or ""
    return LinkRules(settings.link_hosts | {own}, loopback=settings.providers == "sandbox")


def _ids(one: Claim) -> dict[str, int | str]:
    """The ids that a log record about a message carries."""
    return {
        "message_id": one.message_id,
        "enrollment_id": one.enrollment_id,
        "profile_id": one.profile_id,
        "journey": one.journey,
        "step": one.step,
        "channel": one.channel,
    }


def _count(tally: Tally) -> None:
    for (_, channel, what), number in tally.items():
        MESSAGES.labels(channel, what).inc(number)
