"""What a message of a journey would say to one customer, or why it could not be sent as it is."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import NamedTuple

from pydantic import SecretStr
from sqlalchemy import BigInteger, bindparam, select

from channels.explain import refusal_words
from channels.outbox.claims import Claim
from channels.outbox.render import NotRendered, Renderer
from channels.rules.loaders import load_contents, load_recipients
from channels.rules.recipient import Target
from config.channels import Content
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.policy import Policy
from config.settings import Settings
from journeys.definition.journey import Version
from journeys.definition.steps import MessageSpec, SendStep
from journeys.enrollments import enrollments
from profiles.bucketing import bucket_of

# Links in previews are signed with it: they look real, and do nothing.
_NO_KEY = SecretStr("links in previews do nothing")
_NOWHERE = Target(address="nobody@example.com", platform=None)

_PROFILE = bindparam("profile", type_=BigInteger)
_CONTEXT = (
    select(enrollments.c.context)
    .where(
        enrollments.c.profile_id == _PROFILE,
        in_buckets(enrollments.c.bucket),
        enrollments.c.journey == bindparam("of_journey"),
    )
    .order_by(enrollments.c.entered_at.desc(), enrollments.c.id.desc())
    .limit(1)
)
_LATEST = (
    select(enrollments.c.profile_id)
    .where(enrollments.c.journey == bindparam("of_journey"))
    .order_by(enrollments.c.id.desc())
    .limit(1)
)


class Preview(NamedTuple):
    """The rendered content, or in words why there is none.

    lacks_event: whether the template prints from the entry event, and the customer was never in the
    journey. unsubscribe_url: of marketing e-mail; it does nothing.
    """

    content: Content | None
    refusal: str
    lacks_event: bool
    unsubscribe_url: str | None = None


def latest_in(tx: Tx, journey: str) -> int | None:
    """The profile that entered a journey last."""
    return tx.conn.execute(_LATEST, {"of_journey": journey}).scalar()


def preview(
    tx: Tx,
    policy: Policy,
    settings: Settings,
    version: Version,
    step: SendStep,
    message: MessageSpec,
    profile_id: int,
) -> Preview:
    """Render a message for a profile, with its latest entry into the journey. Sends nothing."""
    given = {
        "profile": profile_id,
        "buckets": [bucket_of(profile_id)],
        "of_journey": version.journey.name,
    }
    event = tx.conn.execute(_CONTEXT, given).scalar()
    contents = load_contents(tx, [profile_id])
    targets = load_recipients(tx, policy, [profile_id])[profile_id].targets(message.channel)
    claim = Claim(
        message_id=0,
        profile_id=profile_id,
        enrollment_id=0,
        journey=version.journey.name,
        version=version.digest,
        step=step.name,
        member=message.member,
        channel=message.channel,
        kind=step.kind,
        topic=step.topic or version.journey.topic,
        attempts=1,
        send_at=tx.now,
        not_after=tx.now,
        closes=None,
        targets=targets or [_NOWHERE],
        context={**contents.context(profile_id), "event": event or {}},
        marks=contents.marks,
    )
    template = version.template(message)
    lacks_event = event is None and any(one.split(".")[0] == "event" for one in template.variables)
    renderer = Renderer(settings.model_copy(update={"secret_key": _NO_KEY}))
    try:
        rendered = renderer.render(claim, template)
    except NotRendered as refused:
        reason = str(refused)
        words = refusal_words(reason, message.channel, claim.topic) or f"{reason}."
        return Preview(content=None, refusal=words, lacks_event=lacks_event)
    return Preview(
        content=rendered.content,
        refusal="",
        lacks_event=lacks_event,
        unsubscribe_url=rendered.unsubscribe_url,
    )


def parts_of(content: Content) -> Iterator[tuple[str, str]]:
    """The parts of a message with their names in words, without the HTML of a mail."""
    for name, value in asdict(content).items():
        if name == "html" or not value:
            continue
        if name == "variables":
            yield from ((f"variable {number}", text) for number, text in value)
        elif isinstance(value, bool):
            yield name, "yes"
        else:
            yield {"text": "as plain text"}.get(name, name), str(value)
