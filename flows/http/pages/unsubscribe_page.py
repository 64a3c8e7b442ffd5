"""The page behind the unsubscribe link of a message: it stops one topic on one channel."""

from collections.abc import Sequence

from fastapi import Response

from channels.links import Subscription, read_unsubscribe
from config.channels import channel_of
from flows.http.context import Receiver
from flows.http.pages.choices import allowed, stopped
from flows.http.pages.form import Fields
from flows.http.pages.link_rights import Rights, rights_of
from flows.http.pages.preferences_view import about, masked, to_confirm, topic_label
from flows.http.pages.rendering import CustomerPages
from profiles.consent.double_opt_in import CONFIRMED_ON
from profiles.consent.preferences import Changes, Chosen, read_chosen, save

_STOP, _UNDO = "stop", "undo"


def show(receiver: Receiver, pages: CustomerPages, token: str) -> Response:
    """Show what the link stops, and a button; or that it is already stopped. Changes nothing."""
    link = read_unsubscribe(receiver.segue.settings, token)
    if link is None:
        return pages.unknown()
    with receiver.segue.db.transaction(write=False) as tx:
        rights = rights_of(tx, receiver.segue.settings, link.profile_id, link.digest, link.channel)
    if rights is None:
        return pages.gone()
    page = _Page(receiver=receiver, pages=pages, link=link, rights=rights)
    if not page.may_stop:
        return pages.nothing_sent()
    gettext = page.gettext
    if page.is_subscribed(rights.chosen):
        text = gettext(
            "We will send no more {what}. This also applies to messages that are already planned.",
            what=" ".join((page.about, page.to)).strip(),
        )
        title = gettext("Stop {what}?", what=page.about)
        return page.answer(title, [text, page.stays], _STOP, gettext("Unsubscribe"))
    title = gettext("You get no {what}", what=page.about)
    return page.stopped(title, rights.chosen, gettext("Send it to me again"))


def act(receiver: Receiver, pages: CustomerPages, token: str, form: Fields) -> Response:
    """Unsubscribe, or undo that. It applies to every message that is not handed over yet."""
    link = read_unsubscribe(receiver.segue.settings, token)
    if link is None:
        return pages.unknown()
    one_click = form.get("List-Unsubscribe") == "One-Click"
    undo = form.get("action") == _UNDO and not one_click
    source = "one-click" if one_click else "unsubscribe link"
    with receiver.segue.db.transaction() as tx:
        rights = rights_of(
            tx, receiver.segue.settings, link.profile_id, link.digest, link.channel, lock=True
        )
        if rights is None:
            return pages.gone()
        page = _Page(receiver=receiver, pages=pages, link=link, rights=rights)
        if not page.may_stop:
            return pages.nothing_sent()
        before = rights.chosen
        undo = undo and rights.own
        changes = Changes(consent={(link.channel, link.topic): undo})
        source = f"{source}, undone" if undo else source
        changed = save(tx, before, changes, source, receiver.segue.policy.double_opt_in)
        after = read_chosen(tx, before.profile_id)
        assert after is not None
    if changed:
        receiver.arrived(tx.event_buckets)
    gettext = page.gettext
    if page.is_subscribed(after):
        text = gettext("You get {what} as before.", what=page.about)
        title = gettext("You are subscribed again")
        return page.answer(title, [text], _STOP, gettext("Unsubscribe"), quiet=True)
    if undo and link.channel == CONFIRMED_ON and link.topic in after.unconfirmed:
        return page.answer(gettext("One step is left"), [to_confirm(after, page.about, page.texts)])
    if undo:
        return page.stopped(gettext("You are still unsubscribed"), after, "")
    back = gettext("Undo") if page.is_subscribed(before) else gettext("Send it to me again")
    return page.stopped(gettext("You are unsubscribed"), after, back)


class _Page:
    """The page of one link."""

    def __init__(
        self, *, receiver: Receiver, pages: CustomerPages, link: Subscription, rights: Rights
    ) -> None:
        self._pages = pages.for_customer(rights.chosen)
        self._link = link
        self._rights = rights
        self._policy = receiver.segue.policy
        self.texts = self._pages.texts
        self.gettext = self.texts.gettext
        topic = topic_label(self._policy, link.topic, self.texts)
        self.about = about(link.channel, topic, self.texts)

    @property
    def may_stop(self) -> bool:
        """Whether the link can stop anything."""
        return self._rights.own or self._link.channel in self._rights.withdraws

    @property
    def to(self) -> str:
        """The masked address in use or, without full rights, the one that the link was made for."""
        channel = self._link.channel
        if self._rights.own:
            return masked(channel, self._rights.chosen.addresses.get(channel), self.texts)
        return masked(channel, self._rights.withdraws[channel], self.texts)

    def is_subscribed(self, chosen: Chosen) -> bool:
        """Whether consent allows the topic on the channel."""
        return allowed(self._policy, chosen.consent, self._link.channel, self._link.topic)

    def stopped(self, title: str, chosen: Chosen, back: str) -> Response:
        """The page after an opt-out; `back` is the label of the button that undoes it."""
        channel = self._link.channel
        if stopped(chosen.consent, channel):
            text = self.gettext(
                "You have stopped all {messages}. To start them again, open the link to your "
                "choices in one of our messages.",
                messages=self.gettext(channel_of(channel).plural),
            )
            return self.answer(title, [text])
        text = self.gettext(
            "From now on we send no {what}, not even those that are already planned.",
            what=self.about,
        )
        back = back if self._rights.own else ""
        return self.answer(title, [text, self.stays], _UNDO, back, quiet=True)

    @property
    def stays(self) -> str:
        """What an opt-out does not change."""
        return self.gettext(
            "Your other choices do not change. You still get receipts and other messages that an "
            "order needs."
        )

    def answer(
        self,
        title: str,
        paragraphs: Sequence[str],
        action: str = "",
        button: str = "",
        *,
        quiet: bool = False,
    ) -> Response:
        """A page with at most one button."""
        more = self.gettext(
            "Our newest message to you has a link to all your choices: what you get, how often and "
            "when."
        )
        return self._pages.act(title, [*paragraphs, more], action, button, quiet=quiet)
