"""Dispatch: due messages are claimed, rendered, posted concurrently, and their fate recorded.

The claim is committed before the post. Database work runs in a thread, posts on the event loop;
while one batch of claims is posted the next is being claimed.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, or_, update

from channels.breaker import Breaker
from channels.claiming import Claim, Journeys, claim
from channels.content import SMSContent, segments
from channels.decide import Planner
from channels.links import preferences_url, unsubscribe_url
from channels.metrics import MESSAGES, PROVIDER_SECONDS
from channels.pace import allowance, spend
from channels.provider import Outcome, Outgoing, Provider
from channels.recipient import WHOLE_CHANNEL
from channels.tables import messages
from channels.templates import MissingData, RenderError
from channels.transport import Transport
from config.database import Database, Tx
from config.policy import Channel
from config.settings import Settings
from config.times import HOUR, Instant, Seconds
from profiles.bulk import in_slices, lock_profiles
from profiles.consent import ConsentChange, change_consent
from profiles.tables import ADDRESS_KIND, identifiers

log = logging.getLogger(__name__)

# Claims taken in one transaction, posts under way at once.
CLAIM_BATCH = 500
IN_FLIGHT = 100
# "Try later" without a Retry-After: 30 s, doubled each time, an hour at most.
FIRST_RETRY: Seconds = 30
LAST_RETRY: Seconds = HOUR
Tally = Counter[tuple[str, str]]  # (channel, state or reason)


class _Ready(NamedTuple):
    claim: Claim
    outgoing: Outgoing


class Dispatcher:
    """Hands due messages to the providers.

    One for each process: it keeps the connections, and knows which channels are stopped.
    """

    def __init__(
        self,
        db: Database,
        planner: Planner,
        journeys: Journeys,
        providers: Mapping[Channel, Provider],
        transport: Transport,
        settings: Settings,
        *,
        name: str,
    ) -> None:
        self._db = db
        self._planner = planner
        self._journeys = journeys
        self._providers = providers
        self._transport = transport
        self._settings = settings
        self._name = name
        self._breakers = {channel: Breaker(channel) for channel in providers}
        self._rates = settings.rates
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._stopping = False

    async def run(self, *, journey: str | None = None) -> Tally:
        """Send everything that is due now. Returns what became of it, counted."""
        tally: Tally = Counter()
        posting: asyncio.Task[Tally] | None = None
        try:
            while not self._stopping:
                claims, seen = await asyncio.to_thread(self._claim, journey)
                if posting is not None:
                    tally += await posting
                posting = asyncio.create_task(self._hand_over(claims)) if claims else None
                if not seen:
                    break
        finally:
            # What is claimed is handed over and recorded, whatever else went wrong.
            if posting is not None:
                tally += await posting
        return tally

    def stop(self) -> None:
        """Claim no more: `run` returns when what is claimed has been recorded."""
        self._stopping = True

    def _claim(self, journey: str | None) -> tuple[list[Claim], int]:
        with self._db.transaction() as tx:
            closed = [name for name, one in self._breakers.items() if not one.is_open(tx.now)]
            # A simulated clock stands still, and so would a rate.
            rates = {} if self._db.now is not None else self._rates
            limits = allowance(tx, rates, closed, CLAIM_BATCH)
            claims, seen = claim(
                tx,
                self._planner,
                self._journeys,
                claimed_by=self._name,
                limits=limits,
                journey=journey,
            )
            spend(tx, rates, Counter(one.channel for one in claims))
            return claims, seen

    async def _hand_over(self, claims: Sequence[Claim]) -> Tally:
        started = time.monotonic()
        changes: list[dict[str, Any]] = []
        ready: dict[Channel, list[_Ready]] = defaultdict(list)
        for one in claims:
            try:
                ready[one.channel].append(_Ready(one, self._render(one)))
            except MissingData as error:
                changes.append(_change(one, state="skipped", reason=f"missing_data: {error.field}"))
            except RenderError as error:
                changes.append(_change(one, state="skipped", reason=f"render_error: {error}"))
        posts = [
            self._post(channel, batch, started)
            for channel, some in ready.items()
            for batch in in_slices(some, self._providers[channel].batch_size)
        ]
        suppress: list[tuple[Claim, str]] = []
        for done in await asyncio.gather(*posts):
            for posted, outcome in done:
                changes.append(self._settled(posted, outcome))
                if outcome is not None and outcome.suppress is not None:
                    suppress.append((posted.claim, outcome.suppress))
        by_id = {one.message_id: one for one in claims}
        settled = [by_id[one["row"]].enrollment_id for one in changes if one["state"] != "planned"]
        await asyncio.to_thread(self._record, changes, settled, suppress)
        tally: Tally = Counter(
            (by_id[change["row"]].channel, _told(change["state"], change["reason"]))
            for change in changes
        )
        for (channel_name, what), number in tally.items():
            MESSAGES.labels(channel_name, what).inc(number)
        return tally

    def _render(self, one: Claim) -> Outgoing:
        template = self._journeys.template(one.journey, one.version, one.step, one.member)
        # Only what is used: signing takes its time. Mail carries the link in its headers too.
        url = None
        in_text = "links.unsubscribe" in template.variables
        if one.kind == "marketing" and (in_text or one.channel == "email"):
            url = unsubscribe_url(self._settings, one.profile_id, one.channel, one.topic)
        links = {"unsubscribe": url} if url else {}
        if "links.preferences" in template.variables:
            links["preferences"] = preferences_url(self._settings, one.profile_id)
        content = template.render({**one.context, "brand": self._settings.brand, "links": links})
        return Outgoing(
            message_id=one.message_id,
            to=one.address,
            content=content,
            platform=one.platform,
            unsubscribe_url=url,
            topic=one.topic,
            kind=one.kind,
            # A text that waits at the provider must not arrive at night.
            ttl=None if one.closes is None else one.closes - one.send_at,
            now=one.send_at,
        )

    async def _post(
        self, channel: Channel, batch: Sequence[_Ready], started: float
    ) -> list[tuple[_Ready, Outcome | None]]:
        """Post one request's worth; no outcome for what could not be posted within its claim."""
        async with self._slots:
            spent = time.monotonic() - started
            now = batch[0].claim.send_at
            if self._breakers[channel].is_open(now):
                return [(one, None) for one in batch]
            # A window may close earlier for some of them.
            held = [one for one in batch if now + spent < one.claim.not_after]
            given_back = [one for one in batch if now + spent >= one.claim.not_after]
            outcomes = {}
            if held:
                provider = self._providers[channel]
                with PROVIDER_SECONDS.labels(channel).time():
                    answer = await self._transport.post(provider, [one.outgoing for one in held])
                self._breakers[channel].note(answer, now)
                outcomes = {outcome.message_id: outcome for outcome in answer}
        return [
            *((one, outcomes[one.claim.message_id]) for one in held),
            *((one, None) for one in given_back),
        ]

    def _settled(self, one: _Ready, outcome: Outcome | None) -> dict[str, Any]:
        claimed = one.claim
        if outcome is None or outcome.result == "stopped":
            return _change(claimed, state="planned", attempts=claimed.attempts - 1)
        if outcome.result == "retry":
            wait = outcome.retry_after
            if wait is None:
                wait = min(FIRST_RETRY * 2 ** (claimed.attempts - 1), LAST_RETRY)
            again = claimed.send_at + max(1, wait)
            return _change(claimed, state="planned", reason=outcome.reason, send_at=again)
        content = one.outgoing.content
        return _change(
            claimed,
            state=outcome.result,
            reason=outcome.reason,
            provider_id=outcome.provider_id,
            segments=segments(content.body) if isinstance(content, SMSContent) else None,
        )

    def _record(
        self,
        changes: Sequence[dict[str, Any]],
        settled: Sequence[int],
        suppress: Sequence[tuple[Claim, str]],
    ) -> None:
        with self._db.transaction() as tx:
            # Enrollments before profiles, as the engine locks them.
            self._journeys.settled(tx, settled)
            _suppress(tx, suppress)
            if changes:
                columns: dict[str, Any] = {
                    name: bindparam(name) for name in changes[0] if name != "row"
                }
                # A call-back that was faster than this record has the last word.
                tx.conn.execute(
                    update(messages)
                    .where(
                        messages.c.id == bindparam("row"),
                        or_(messages.c.state == "sending", messages.c.state == "unknown"),
                    )
                    .values(columns),
                    # In id order, as feedback locks them.
                    sorted(changes, key=lambda change: change["row"]),
                )


def _suppress(tx: Tx, found: Sequence[tuple[Claim, str]]) -> None:
    """Never again to this address; a STOP that the provider knows of is consent taken back.

    Under the profiles' locks, so that nobody else is about to claim for the same address.
    """
    lock_profiles(tx, {one.profile_id for one, _ in found})
    stopped = []
    for one, state in found:
        if state == "opted_out":
            stopped.append(
                ConsentChange(
                    one.profile_id, one.channel, WHOLE_CHANNEL, granted=False, occurred_at=tx.now
                )
            )
        else:
            tx.conn.execute(
                update(identifiers)
                .where(
                    identifiers.c.kind == ADDRESS_KIND[one.channel],
                    identifiers.c.value == one.address,
                )
                .values(state=state)
            )
    if stopped:
        change_consent(tx, stopped, source="the provider reports a STOP")


def _change(
    one: Claim,
    *,
    state: str,
    reason: str | None = None,
    send_at: Instant | None = None,
    attempts: int | None = None,
    provider_id: str | None = None,
    segments: int | None = None,
) -> dict[str, Any]:
    """All columns every time, so that a batch is one bulk statement."""
    return {
        "row": one.message_id,
        "state": state,
        "reason": reason,
        "send_at": one.send_at if send_at is None else send_at,
        "attempts": one.attempts if attempts is None else attempts,
        "provider_id": provider_id,
        "segments": segments,
        "claimed_by": None,
        "not_after": None,
    }


def _told(state: str, reason: str | None) -> str:
    """What a count is filed under: the state, or why it was not sent."""
    if state == "planned":
        return "to be tried again"
    if state == "skipped" and reason is not None:
        return reason.split(":")[0]
    return state
