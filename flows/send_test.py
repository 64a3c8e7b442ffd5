"""Send one rendered message to a tester: it is stored nowhere, and counts nowhere."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from channels.providers.registry import connect_providers
from channels.providers.sending import Outgoing, SendOutcome, SendResult
from channels.providers.transport import Transport
from channels.rules.recipient import Kind
from config.channels import ChannelName, Content, channel_of
from config.errors import SegueError
from config.policy import CHANNELS
from config.settings import Settings
from flows.app import Segue
from journeys.definition.journey import Version
from journeys.definition.steps import MessageSpec, SendStep
from journeys.explain.preview import preview

_MARK = "[Test] "
# The parts of a content that its reader sees first.
_FIRST_SEEN = ("subject", "title", "body")
# No message has this number, so that what a provider reports of a test is of no message.
_NO_MESSAGE = 0
_PLATFORMS = ("android", "ios", "web")
# By result: what became of the test, and what the provider's reason means or what to do.
_TITLES: Mapping[SendResult, str] = {"sent": "The test is sent", "unknown": "Perhaps it is sent"}
_NOT_SENT = "The test is not sent"
_MEANING: Mapping[SendResult, str] = {
    "retry": "The provider can’t be reached, or does not accept it now; try again later",
    "failed": "The provider has refused it",
    "stopped": "The provider refuses all that we send; its settings or account are wrong",
    "unknown": "The provider’s answer did not arrive",
}


class SentTest(NamedTuple):
    """What became of a test, in words."""

    is_accepted: bool
    title: str
    why: str


def testers(settings: Settings, channel: ChannelName) -> tuple[str, ...]:
    """The addresses to which tests of a channel may go. Raises SegueError for unknown channels."""
    for name in settings.testers:
        if name not in CHANNELS:
            raise SegueError(
                f"SEGUE_TESTERS names {name!r}, which is no channel; use {', '.join(CHANNELS)}"
            )
    return settings.testers.get(channel, ())


def send_test(
    segue: Segue, version: Version, step: SendStep, message: MessageSpec, profile_id: int, to: str
) -> SentTest:
    """Send a message as the profile would get it to a tester.

    Consent, sending hours and caps are not checked, since the tester is not the customer. Links to
    the customer's own pages do nothing. Blocks until the provider answers.

    Raises SegueError for somebody who is no tester, and for a message that can't be rendered.
    """
    if to not in testers(segue.settings, message.channel):
        raise SegueError(
            f"{to!r} is no tester of {channel_of(message.channel).plural}; list it in SEGUE_TESTERS"
        )
    with segue.db.transaction(write=False) as tx:
        now = tx.now
        shown = preview(tx, segue.policy, segue.settings, version, step, message, profile_id)
    if shown.content is None:
        raise SegueError(f"the message can't be sent as a test: {shown.refusal}")
    platform, address = _device(to) if channel_of(message.channel).per_device else (None, to)
    outgoing = Outgoing(
        message_id=_NO_MESSAGE,
        to=address,
        content=_marked(shown.content),
        platform=platform,
        unsubscribe_url=shown.unsubscribe_url,
        topic=step.topic or version.journey.topic,
        kind=step.kind,
        journey=version.journey.name,
        step=step.name,
        ttl=None,
        now=now,
    )
    return _told(asyncio.run(_post(segue, message.channel, step.kind, outgoing)))


async def _post(segue: Segue, channel: ChannelName, kind: Kind, outgoing: Outgoing) -> SendOutcome:
    connected = connect_providers(segue.settings)
    if channel not in connected.routes:
        raise SegueError(f"no provider sends {channel}; set SEGUE_{channel.upper()}_PROVIDER")
    name = connected.routes[channel].provider(kind, outgoing.topic)

    async def may_leave() -> bool:
        return True

    async with Transport(segue.settings, segue.db.timing) as transport:
        [outcome] = await transport.post(connected.by_name[name], [outgoing], may_leave)
    return outcome


def _marked(content: Content) -> Content:
    """The content with a mark; an approved template can't be changed and has none."""
    for part in _FIRST_SEEN:
        if text := getattr(content, part, ""):
            changed: Any = {part: f"{_MARK}{text}"}
            return replace(content, **changed)
    return content


def _device(to: str) -> tuple[str, str]:
    platform, _, token = to.partition(":")
    if platform not in _PLATFORMS or not token:
        raise SegueError(
            f"{to!r} is no device; list it in SEGUE_TESTERS as its platform and token, such as "
            "ios:TOKEN"
        )
    return platform, token


def _told(outcome: SendOutcome) -> SentTest:
    if outcome.result == "sent":
        why = "The provider has accepted it."
        return SentTest(is_accepted=True, title=_TITLES["sent"], why=why)
    reason = f": {outcome.reason.rstrip('.')}" if outcome.reason else ""
    title = _TITLES.get(outcome.result, _NOT_SENT)
    why = f"{_MEANING[outcome.result]}{reason}."
    return SentTest(is_accepted=False, title=title, why=why)
