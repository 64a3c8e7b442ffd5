"""Rendering: the content of a claimed message, or the reason for which it is refused instead."""

from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import select

from channels.links import confirm_url, preferences_url, unsubscribe_url
from channels.messages import messages
from channels.outbox import devices
from channels.outbox.claim import with_content
from channels.outbox.claims import Claim, Journeys
from channels.outbox.rows import MESSAGE_COLUMNS, MessageRow
from channels.rules.loaders import load_recipients
from channels.templates.compile import BadLink, MissingData, RenderError, Template
from channels.templates.link_check import LinkRules
from config.channels import Content, channel_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.policy import Policy
from config.settings import Settings


class Rendered(NamedTuple):
    """unsubscribe_url: set for marketing messages that have or print one."""

    content: Content
    unsubscribe_url: str | None


class NotRendered(Exception):
    """A message can't be rendered. The text is the reason of its refusal: a code, a colon, details.

    `__cause__` is an error that no template or customer should cause.
    """


class Renderer:
    """Renders claimed messages with the settings of this installation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._link_rules = link_rules(settings)

    def render(self, one: Claim, template: Template) -> Rendered:
        """The content of a message. Raises NotRendered."""
        try:
            rendered = self._rendered(one, template)
        except BadLink as error:
            raise NotRendered(f"link_refused: {error.to}") from None
        except MissingData as error:
            raise NotRendered(f"missing_data: {error.field}") from None
        except RenderError as error:
            raise NotRendered(f"render_error: {error}") from None
        except Exception as error:
            raise NotRendered(f"render_error: {type(error).__name__}") from error
        if too_long := rendered.content.excess(self._settings):
            raise NotRendered(f"too_long: {too_long}")
        return rendered

    def _rendered(self, one: Claim, template: Template) -> Rendered:
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
        return Rendered(template.render(context, self._link_rules), url)


def link_rules(settings: Settings) -> LinkRules:
    """Links from customer data may lead to SEGUE_LINK_HOSTS and to our own pages."""
    own = urlsplit(settings.public_url).hostname or ""
    return LinkRules(settings.link_hosts | {own}, loopback=settings.providers == "sandbox")


_PLANNED = select(*MESSAGE_COLUMNS).where(
    messages.c.state == "planned", in_buckets(messages.c.bucket)
)


def unrenderable(tx: Tx, policy: Policy, journeys: Journeys, renderer: Renderer) -> dict[int, str]:
    """The planned messages that can't be rendered with today's data, by id, with the reason."""
    rows = [MessageRow._make(row) for row in tx.conn.execute(_PLANNED, {"buckets": tx.buckets})]
    recipients = load_recipients(tx, policy, {row.profile_id for row in rows})
    known = devices.look_up(
        tx, [row for row in rows if channel_of(row.channel).per_device], recipients
    )
    found: dict[int, str] = {}
    for one in with_content(tx, journeys, [(row, None) for row in rows], known, recipients):
        try:
            renderer.render(one, journeys.template(one.journey, one.version, one.step, one.member))
        except NotRendered as refused:
            found[one.message_id] = str(refused)
    return found
