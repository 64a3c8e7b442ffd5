"""Dispatch: claim due messages, render them, post them concurrently and record their outcomes.

The claim is committed before the request. Database work runs in a thread, requests on the event
loop, one after the other: at the same time they compete for the interpreter lock, which costs more
than it gains.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from channels.metrics import MESSAGES, PROVIDER_SECONDS
from channels.outbox.breaker import Breaker
from channels.outbox.claim import claim, claim_planned, put_off
from channels.outbox.claims import Claim, Claimed, ClaimFailed, Journeys, PlannedNow
from channels.outbox.due import due_channels
from channels.outbox.outcomes import (
    Done,
    Outcomes,
    Tally,
    count_name,
    record,
    settled,
    skipped,
)
from channels.outbox.rate_limit import RateLimits
from channels.outbox.recheck import HandOver, outdated
from channels.outbox.render import NotRendered, Renderer
from channels.providers.base import ConnectedProvider
from channels.providers.registry import ConnectedProviders
from channels.providers.sending import Outgoing, SendOutcome
from channels.providers.transport import MayLeave
from channels.rules.planner import Planner
from config.batches import Halving
from config.channels import ChannelName
from config.clock.times import Instant
from config.database.buckets import ALL_BUCKETS, Leased, all_buckets
from config.database.engine import Database, Tx
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
    """A batch of claims, and where it was claimed.

    at: the time of the claim on the monotonic clock.
    """

    claimed: Claimed
    at: float
    journey: str | None
    channel: ChannelName | None
    leased: Leased


class SendReport(NamedTuple):
    """What a send did. more: whether enrollments or messages are due since."""

    outcomes: Tally
    more: bool


class Poster(Protocol):
    """Hands rendered messages to a provider, as channels/providers/transport.py does."""

    async def post(
        self, provider: ConnectedProvider, batch: Sequence[Outgoing], may_leave: MayLeave
    ) -> list[SendOutcome]:
        """One outcome for each message of the batch; none if `may_leave` returned False."""


class _Ready(NamedTuple):
    claim: Claim
    outgoing: Outgoing


class _Recheck:
    """The latest check of a batch of claims, repeated while they wait for their turn.

    taken, at: when the claims were taken and last checked, on the monotonic clock. outdated: the
    hand-overs that must not be posted.
    """

    def __init__(self, claims: Sequence[Claim], taken: float, clock: Callable[[], float]) -> None:
        self.claims = claims
        self.clock = clock
        self.taken = self.at = taken
        self.outdated: set[HandOver] = set()
        self.lock = asyncio.Lock()

    def allows(self, one: _Ready) -> bool:
        """Whether it may be posted now: its claim is valid and not outdated."""
        claim, to = one.claim, one.outgoing.to
        spent = self.clock() - self.taken
        in_time = claim.send_at + spent < claim.not_after
        return in_time and (claim.message_id, to) not in self.outdated


class Dispatcher:
    """Hands due messages to the providers.

    One for each process: it keeps the connections and the breakers.

    clock: seconds, for how long claims have waited; None: the monotonic clock. renderer: None: one
    with these settings.
    """

    def __init__(
        self,
        *,
        db: Database,
        planner: Planner,
        journeys: Journeys,
        providers: ConnectedProviders,
        transport: Poster,
        settings: Settings,
        name: str,
        clock: Callable[[], float] | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        self._db = db
        self._clock = clock or time.monotonic
        self._timing = db.timing
        self._planner = planner
        self._journeys = journeys
        self._providers = providers.by_name
        self._routes = providers.routes
        self._transport = transport
        self._settings = settings
        self._name = name
        self._breakers = {name: Breaker(one, db.timing) for name, one in self._providers.items()}
        rates = {name: one.rate for name, one in self._providers.items() if one.rate is not None}
        self._rates = RateLimits(db, rates)
        # Claims of passed transactions that are not recorded yet, by provider.
        self._open: Counter[str] = Counter()
        self._renderer = renderer or Renderer(settings)
        # One semaphore for each provider, so that a slow one does not block the others.
        self._slots = {name: asyncio.Semaphore(IN_FLIGHT) for name in self._providers}
        self._stopping = False

    async def run(self, *, journey: str | None = None, channel: ChannelName | None = None) -> Tally:
        """Send everything that is due now; returns the outcomes.

        Parameters
        ----------
        journey: only messages of this journey.
        channel: only messages on this channel. Calls for different channels may run concurrently.
        """
        report = await self.send(await self.take(journey=journey, channel=channel))
        return report.outcomes

    async def take(
        self,
        *,
        journey: str | None = None,
        channel: ChannelName | None = None,
        leased: Leased = all_buckets,
    ) -> ClaimedBatch:
        """Claim a batch of due messages. The caller passes it to `send` at once.

        leased: the buckets to look in.
        """
        channels = tuple(self._routes) if channel is None else (channel,)
        at = self._clock()
        claimed = Claimed([], more=False, refused=Counter())
        if not self._stopping:
            claimed = await asyncio.to_thread(self._claim, channels, journey, leased())
        return ClaimedBatch(claimed=claimed, at=at, journey=journey, channel=channel, leased=leased)

    async def send(self, taken: ClaimedBatch) -> SendReport:
        """Send what was taken, and then everything else that is due."""
        tally: Tally = Counter()
        left_due = False
        while True:
            claims, more, refused = taken.claimed
            _count(refused)
            tally += refused
            left_due |= bool(refused)
            if claims:
                sent = await self._hand_over(claims, taken.at)
                tally += sent.outcomes
                left_due |= sent.more
            if not more:
                return SendReport(tally, left_due)
            taken = await self.take(
                journey=taken.journey, channel=taken.channel, leased=taken.leased
            )

    def claim_planned(self, tx: Tx, planned_now: PlannedNow) -> list[Claim]:
        """Claim messages in the transaction that planned them for now, as far as limits allow.

        If the transaction is committed, the claims go to `send_claimed`.
        """
        if self._stopping or not planned_now:
            return []
        limits = {name: self._limit(name, tx.now) for name in self._providers}
        if not any(limits.values()):
            return []
        claims = claim_planned(
            tx,
            self._planner,
            self._journeys,
            planned_now,
            claimed_by=self._name,
            routes=self._routes,
            limits=limits,
        )
        self._spend(claims, tx.now)
        return claims

    def _limit(self, provider: str, now: Instant) -> int:
        """How many posts a transaction that plans messages may claim for a provider."""
        breaker = self._breakers[provider]
        if breaker.is_open(now) or breaker.on_trial:
            return 0
        left = self._rates.left(provider, now)
        room = max(0, CLAIM_BATCH - self._open[provider])
        return room if left is None else max(0, min(room, left))

    async def lease_ahead(self) -> None:
        """Lease a share of the rates, for what the next transaction plans."""
        if self._rates.any:
            await asyncio.to_thread(self._rates.lease_ahead)

    async def send_claimed(self, claims: Sequence[Claim], claimed_at: float) -> SendReport:
        """Send what `claim_planned` claimed.

        claimed_at: by the monotonic clock, not after the transaction's `now`.
        """
        open_now = Counter(self._provider_of(one) for one in claims)
        self._open.update(open_now)
        try:
            return await self._hand_over(claims, claimed_at)
        finally:
            self._open.subtract(open_now)

    def due_channels(self, tx: Tx) -> list[ChannelName]:
        """The channels on which there is something to send."""
        return due_channels(tx, self._journeys, tuple(self._routes))

    def stop(self) -> None:
        """Stop claiming; `run` returns when the claimed messages are recorded."""
        self._stopping = True

    def _claim(
        self,
        channels: Sequence[ChannelName],
        journey: str | None,
        buckets: Collection[int] = ALL_BUCKETS,
    ) -> Claimed:
        """Claim a batch; a message whose evaluation fails is postponed."""
        try:
            return self._claim_among(channels, journey, None, buckets)
        except ClaimFailed as failure:
            left = failure.message_ids
        halving = Halving(len(left))
        claims: list[Claim] = []
        refused: Tally = Counter()
        while left:
            some = left[: halving.size]
            try:
                claimed = self._claim_among(channels, journey, some, buckets)
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
        self,
        channels: Sequence[ChannelName],
        journey: str | None,
        only: Sequence[int] | None,
        buckets: Collection[int],
    ) -> Claimed:
        routes = {one: self._routes[one] for one in channels}
        names = [name for route in routes.values() for name in route.providers]
        self._rates.lease(dict.fromkeys(names, CLAIM_BATCH))
        with self._db.transaction() as tx:
            tx.buckets = buckets
            limits: dict[str, int] = {}
            for name in names:
                left = self._rates.left(name, tx.now)
                limit = CLAIM_BATCH if left is None else min(CLAIM_BATCH, left)
                if limit > 0 and not self._breakers[name].is_open(tx.now):
                    limits[name] = 1 if self._breakers[name].on_trial else limit
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
            self._spend(claimed.claims, tx.now)
        self._rates.settle()
        return claimed

    def _spend(self, claims: Sequence[Claim], now: Instant) -> None:
        posts = Counter(self._provider_of(one) for one in claims for _ in one.targets)
        for provider, number in posts.items():
            self._rates.spend(provider, number, now)

    def _provider_of(self, claim: Claim) -> str:
        return self._routes[claim.channel].provider(claim.kind, claim.topic)

    async def _hand_over(self, claims: Sequence[Claim], taken: float) -> SendReport:
        """Post what was claimed at `taken` (by the monotonic clock), and record what came of it."""
        done: list[Done] = []
        # A request holds messages of one step, because SendGrid's categories apply to a whole
        # request, and each message once: the first devices of all pushes, then the second ones.
        ready: dict[tuple[str, str, str, int], list[_Ready]] = defaultdict(list)
        for one in claims:
            try:
                rendered = self._outgoing(one)
            except NotRendered as refused:
                if refused.__cause__ is not None:
                    why = reason_of(refused.__cause__)
                    log.error(
                        "message %d can't be rendered: %s", one.message_id, why, extra=_ids(one)
                    )
                done.append(skipped(one, str(refused)))
                continue
            provider = self._provider_of(one)
            for place, outgoing in enumerate(rendered):
                ready[provider, one.journey, one.step, place].append(_Ready(one, outgoing))
        recheck = _Recheck(claims, taken, self._clock)
        posts = {
            asyncio.create_task(self._post(provider, batch, recheck))
            for (provider, *_), some in ready.items()
            for batch in in_slices(some, self._providers[provider].sender.batch_size)
        }
        tally: Tally = Counter()
        more = False
        while posts or done:
            # Outcomes are recorded while slow requests are still under way.
            if posts:
                posted, posts = await asyncio.wait(posts, timeout=self._timing.record_every)
                for task in posted:
                    done += [
                        settled(one.claim, one.outgoing, what, self._timing)
                        for one, what in task.result()
                    ]
            recorded = await self._record(done)
            tally += recorded.tally
            more |= recorded.more
            if log.isEnabledFor(logging.DEBUG):
                for settled_claim in done:
                    what = count_name(settled_claim.change.state, settled_claim.change.reason)
                    log.debug("%s", what, extra=_ids(settled_claim.claim))
            done = []
        _count(tally)
        return SendReport(tally, more)

    def _outgoing(self, one: Claim) -> list[Outgoing]:
        """The rendered message for each of its targets. Raises NotRendered."""
        try:
            template = self._journeys.template(one.journey, one.version, one.step, one.member)
        except Exception as error:
            raise NotRendered(f"render_error: {type(error).__name__}") from error
        content, url = self._renderer.render(one, template)
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
                    answered = now + int(self._clock() - recheck.taken)
                    self._breakers[name].note(answer, now, answered)
                outcomes = {outcome.message_id: outcome for outcome in answer}
        return [(one, outcomes.get(one.claim.message_id)) for one in batch]

    async def _check_again(self, recheck: _Recheck) -> None:
        """Check claims that waited too long against a STOP, a purchase or a pause since then."""
        if self._clock() - recheck.at <= self._timing.claim_is_fresh:
            return
        async with recheck.lock:
            begun = self._clock()
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

    async def _record(self, done: Sequence[Done]) -> Outcomes:
        """Record what the providers answered. No other process knows it, so it is tried until it
        is recorded, unless the process is to stop while the database is unavailable.
        """
        tally: Tally = Counter()
        left, halving, wait = done, Halving(len(done)), _FIRST_WAIT
        move, more = True, False
        while left:
            some = left[: halving.size]
            try:
                recorded = await asyncio.to_thread(self._write, some, move=move)
            except Exception as error:
                if of_the_database(error):
                    if self._stopping:
                        raise
                    log.error("%d outcomes can't be recorded yet: %s", len(left), reason_of(error))
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, _LAST_WAIT)
                    continue
                if move:
                    # The failure may be that of a step, which gets a transaction of its own.
                    move = False
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
                tally += recorded.tally
                more |= recorded.more
                halving.worked()
                wait = _FIRST_WAIT
            left = left[len(some) :]
        return Outcomes(tally, more)

    def _write(self, done: Sequence[Done], *, move: bool) -> Outcomes:
        with self._db.transaction() as tx:
            return record(tx, self._journeys, done, move=move)


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
