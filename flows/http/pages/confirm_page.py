"""The page on which the owner of an e-mail address confirms a yes (double opt-in)."""

from fastapi import Response

from channels.links import address_of, read_confirmation
from flows.http.context import Receiver
from flows.http.pages.choices import allowed
from flows.http.pages.form import Fields
from flows.http.pages.link_rights import chosen_now
from flows.http.pages.preferences_view import topic_label
from flows.http.pages.rendering import CustomerPages
from profiles.consent.changes import confirm
from profiles.consent.double_opt_in import CONFIRMED_ON
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND

_CONFIRM = "confirm"


def show(receiver: Receiver, pages: CustomerPages, token: str) -> Response:
    """Show what the link confirms, and a button. Changes nothing."""
    return _answer(receiver, pages, token, confirming=False)


def act(receiver: Receiver, pages: CustomerPages, token: str, form: Fields) -> Response:
    """Confirm the yes if the form has the button's action."""
    return _answer(receiver, pages, token, confirming=form.get("action") == _CONFIRM)


def _answer(receiver: Receiver, pages: CustomerPages, token: str, *, confirming: bool) -> Response:
    segue = receiver.segue
    link = read_confirmation(segue.settings, token)
    if link is None:
        return pages.unknown()
    with segue.db.transaction(write=confirming) as tx:
        found = chosen_now(tx, link.profile_id, lock=confirming)
        if found is None:
            return pages.gone()
        chosen, _ = found
        address = chosen.unconfirmed.get(link.topic)
        named: list[Key] = [] if address is None else [(ADDRESS_KIND[CONFIRMED_ON], address)]
        waits = address_of(segue.settings, link.digest, named) is not None
        confirmed = confirming and waits and confirm(tx, chosen.profile_id, link.topic)
    pages = pages.for_customer(chosen)
    gettext = pages.texts.gettext
    topic = topic_label(segue.policy, link.topic, pages.texts)
    if confirmed:
        receiver.arrived(tx.event_buckets)
        text = gettext("From now on you get e-mail about “{topic}”.", topic=topic)
        return _page(pages, gettext("You are subscribed"), text)
    if waits:
        text = gettext(
            "Press the button to get e-mail about “{topic}” at this address.", topic=topic
        )
        title = gettext("E-mail about “{topic}”?", topic=topic)
        return _page(pages, title, text, button=gettext("Yes, subscribe me"))
    if allowed(segue.policy, chosen.consent, CONFIRMED_ON, link.topic):
        text = gettext("You get e-mail about “{topic}”.", topic=topic)
        return _page(pages, gettext("You are subscribed"), text)
    return _page(
        pages,
        gettext("There is nothing to confirm"),
        gettext(
            "The link is older than seven days, or your choices or your address have changed "
            "since. It does not subscribe you. To subscribe, please sign up again."
        ),
    )


def _page(pages: CustomerPages, title: str, text: str, *, button: str = "") -> Response:
    return pages.act(title, [text], _CONFIRM, button)
