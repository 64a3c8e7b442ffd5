"""The page behind the unsubscribe link of a message: one topic on one channel stops."""

from collections.abc import Sequence

from fastapi import Response

from channels.links import Subscription, preferences_token, read_unsubscribe
from flows.receiver.choices import allowed, texts_stopped, topics_of
from flows.receiver.context import Receiver
from flows.receiver.form import Fields
from flows.receiver.rendering import Pages
from flows.receiver.view import CHANNEL_WORDS, reaches, to_confirm
from profiles.preferences import Changes, Chosen, read_chosen, save

_STOP, _UNDO = "stop", "undo"
_STAYS = (
    "Everything else stays as you chose it. Receipts, and whatever else an order can’t do without, "
    "still come."
)
_ALL_STOPPED = "You have stopped all text messages. To start them again, use the page below."


def show(receiver: Receiver, pages: Pages, token: str) -> Response:
    """What the link stops, and a button; or that it is stopped already."""
    link = read_unsubscribe(receiver.segue.settings, token)
    if link is None:
        return pages.unknown()
    with receiver.segue.db.transaction(write=False) as tx:
        chosen = read_chosen(tx, link.profile_id)
    if chosen is None:
        return pages.gone()
    page = _Page(receiver, pages, link)
    if page.comes(chosen):
        to = " ".join((page.about, reaches(link.channel, chosen))).strip()
        says = [f"We will send no more {to}. That holds at once, also for what is planned already."]
        return page.answer(f"Stop {page.about}?", [*says, _STAYS], _STOP, "Unsubscribe")
    return page.stopped(f"You get no {page.about}", chosen, "Send it to me again")


def act(receiver: Receiver, pages: Pages, token: str, form: Fields) -> Response:
    """Unsubscribe, or take that back; in force for everything not yet handed over."""
    link = read_unsubscribe(receiver.segue.settings, token)
    if link is None:
        return pages.unknown()
    one_click = form.get("List-Unsubscribe") == "One-Click"
    undo = form.get("action") == _UNDO and not one_click
    source = "one-click" if one_click else "unsubscribe link"
    with receiver.segue.db.transaction() as tx:
        before = read_chosen(tx, link.profile_id, lock=True)
        if before is None:
            return pages.gone()
        said = Changes(consent={(link.channel, link.topic): undo})
        source = f"{source}, undone" if undo else source
        changed = save(tx, before, said, source, receiver.segue.policy.double_opt_in)
        after = read_chosen(tx, link.profile_id)
        assert after is not None
    if changed:
        receiver.arrived()
    page = _Page(receiver, pages, link)
    if page.comes(after):
        says = [f"You get {page.about} as before."]
        return page.answer("You are subscribed again", says, _STOP, "Unsubscribe", quiet=True)
    if undo and link.channel == "email" and link.topic in after.unconfirmed:
        return page.answer("One step is left", [to_confirm(after, page.about)])
    if undo:
        return page.stopped("This stays stopped", after, "")
    back = "Undo" if page.comes(before) else "Send it to me again"
    return page.stopped("You are unsubscribed", after, back)


class _Page:
    """The page of one link."""

    def __init__(self, receiver: Receiver, pages: Pages, link: Subscription) -> None:
        self._pages = pages
        self._link = link
        self._policy = receiver.segue.policy
        self._preferences = preferences_token(receiver.segue.settings, link.profile_id)
        topic = topics_of(self._policy).get(link.topic, link.topic)
        self.about = f"{CHANNEL_WORDS[link.channel]} about “{topic}”"

    def comes(self, chosen: Chosen) -> bool:
        """Whether consent lets it through."""
        return allowed(self._policy, chosen.consent, self._link.channel, self._link.topic)

    def stopped(self, title: str, chosen: Chosen, back: str) -> Response:
        """The page that says that nothing more comes."""
        if self._link.channel == "sms" and texts_stopped(chosen.consent):
            return self.answer(title, [_ALL_STOPPED])
        says = [f"We send no more {self.about} from now on, and none that was planned.", _STAYS]
        return self.answer(title, says, _UNDO, back, quiet=True)

    def answer(
        self,
        title: str,
        says: Sequence[str],
        action: str = "",
        button: str = "",
        *,
        quiet: bool = False,
    ) -> Response:
        """A page with at most one button."""
        return self._pages.page(
            "unsubscribe",
            {
                "title": title,
                "paragraphs": says,
                "action": action,
                "button": button,
                "quiet": quiet,
                "preferences": self._preferences,
            },
        )
