"""The page behind the unsubscribe link of a message: it stops one topic on one channel."""

from collections.abc import Sequence

from fastapi import Response

from channels.links import Subscription, read_unsubscribe
from config.channels import channel_of
from flows.http.context import Receiver
from flows.http.pages.choices import allowed, stopped, topics_of
from flows.http.pages.form import Fields
from flows.http.pages.link_rights import Rights, rights_of
from flows.http.pages.preferences_view import masked, to_confirm
from flows.http.pages.rendering import CustomerPages
from profiles.consent.double_opt_in import CONFIRMED_ON
from profiles.consent.preferences import Changes, Chosen, read_chosen, save

_STOP, _UNDO = "stop", "undo"
_STAYS = (
    "Your other choices do not change. You still get receipts and other messages that an order "
    "needs."
)
_ALL_STOPPED = (
    "You have stopped all {channel}. To start them again, open the link to your choices in one of "
    "our messages."
)
_MORE = (
    "Our newest message to you has a link to all your choices: what you get, how often and when."
)


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
    if page.is_subscribed(rights.chosen):
        to = " ".join((page.about, page.to)).strip()
        text = f"We will send no more {to}. This also applies to messages that are already planned."
        return page.answer(f"Stop {page.about}?", [text, _STAYS], _STOP, "Unsubscribe")
    return page.stopped(f"You get no {page.about}", rights.chosen, "Send it to me again")


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
    if page.is_subscribed(after):
        text = f"You get {page.about} as before."
        return page.answer("You are subscribed again", [text], _STOP, "Unsubscribe", quiet=True)
    if undo and link.channel == CONFIRMED_ON and link.topic in after.unconfirmed:
        return page.answer("One step is left", [to_confirm(after, page.about)])
    if undo:
        return page.stopped("You are still unsubscribed", after, "")
    back = "Undo" if page.is_subscribed(before) else "Send it to me again"
    return page.stopped("You are unsubscribed", after, back)


class _Page:
    """The page of one link."""

    def __init__(
        self, *, receiver: Receiver, pages: CustomerPages, link: Subscription, rights: Rights
    ) -> None:
        self._pages = pages
        self._link = link
        self._rights = rights
        self._policy = receiver.segue.policy
        topic = topics_of(self._policy).get(link.topic, link.topic)
        self.about = f"{channel_of(link.channel).plural} about “{topic}”"

    @property
    def may_stop(self) -> bool:
        """Whether the link can stop anything."""
        return self._rights.own or self._link.channel in self._rights.withdraws

    @property
    def to(self) -> str:
        """The masked address in use or, without full rights, the one that the link was made for."""
        channel = self._link.channel
        if self._rights.own:
            return masked(channel, self._rights.chosen.addresses.get(channel))
        return masked(channel, self._rights.withdraws[channel])

    def is_subscribed(self, chosen: Chosen) -> bool:
        """Whether consent allows the topic on the channel."""
        return allowed(self._policy, chosen.consent, self._link.channel, self._link.topic)

    def stopped(self, title: str, chosen: Chosen, back: str) -> Response:
        """The page after an opt-out; `back` is the label of the button that undoes it."""
        channel = self._link.channel
        if stopped(chosen.consent, channel):
            return self.answer(title, [_ALL_STOPPED.format(channel=channel_of(channel).plural)])
        text = f"From now on we send no {self.about}, not even those that are already planned."
        back = back if self._rights.own else ""
        return self.answer(title, [text, _STAYS], _UNDO, back, quiet=True)

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
        return self._pages.act(title, [*paragraphs, _MORE], action, button, quiet=quiet)
