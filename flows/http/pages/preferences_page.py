"""The preference center: topics, channels, a weekly limit, hours, zone and language."""

from collections.abc import Mapping
from dataclasses import replace

from fastapi import Response
from sqlalchemy import select

from channels.links import Access, read_preferences
from config.channels import channel_of
from config.clock.times import DAY
from config.database.engine import Tx
from config.policy import Policy
from flows.http.context import Receiver
from flows.http.pages.choices import allowed, nothing_at_all, nothing_on, topics_of
from flows.http.pages.form import Fields, FilledForm, fields_of, read_filled, requested_changes
from flows.http.pages.link_rights import Rights, rights_of
from flows.http.pages.preferences_view import listed, masked, notes, preferences_view
from flows.http.pages.rendering import CustomerPages
from profiles.consent import preferences
from profiles.consent.preferences import Changes, Chosen, TopicChanges, read_chosen
from profiles.tables import upgrades

_SOURCE = "preference page"
# Links contain their creation time since this schema revision.
_LINKS_HAVE_TIMES = "0009"


def show(receiver: Receiver, pages: CustomerPages, token: str) -> Response:
    """Show the form with the recorded choices."""
    access = read_preferences(receiver.segue.settings, token)
    if access is None:
        return pages.unknown()
    with receiver.segue.db.transaction(write=False) as tx:
        if _is_expired(receiver, tx, access):
            return _expired(receiver, pages)
        rights = rights_of(tx, receiver.segue.settings, access.profile_id, access.digest)
    if rights is None:
        return pages.gone()
    if not rights.own:
        return _to_withdraw(receiver, pages, rights)
    return _Page(receiver, pages.for_customer(rights.chosen)).on_record(rights.chosen, "")


def save(receiver: Receiver, pages: CustomerPages, token: str, form: Fields) -> Response:
    """Save the changed fields, if none has an error, and show the recorded choices."""
    access = read_preferences(receiver.segue.settings, token)
    if access is None:
        return pages.unknown()
    with receiver.segue.db.transaction() as tx:
        if _is_expired(receiver, tx, access):
            return _expired(receiver, pages)
        rights = rights_of(tx, receiver.segue.settings, access.profile_id, access.digest, lock=True)
        if rights is None:
            return pages.gone()
        before = rights.chosen
        page = _Page(receiver, pages.for_customer(before))
        if form.get("action") == "stop":
            changes = Changes(nothing_at_all(page.policy, before.consent))
            stopping = True
            if not rights.own:
                changes = Changes(_nothing_on(page.policy, rights))
        else:
            answer = read_filled(form, fields_of(page.policy, before))
            changes, errors = requested_changes(
                page.policy, page.languages, before, answer, page.texts
            )
            stopping = False
            if not rights.own:
                changes = Changes(_withdrawn(rights, changes))
            elif errors:
                return page.refused(before, answer, errors)
        changed = preferences.save(tx, before, changes, _SOURCE, page.policy.double_opt_in)
        after = read_chosen(tx, before.profile_id)
        assert after is not None
    if changed:
        receiver.arrived(tx.event_buckets)
    if not rights.own:
        return _to_withdraw(receiver, pages, replace(rights, chosen=after))
    # The language may be what was changed.
    page = _Page(receiver, pages.for_customer(after))
    gettext = page.texts.gettext
    return page.on_record(after, gettext("Everything is stopped") if stopping else gettext("Saved"))


def _is_expired(receiver: Receiver, tx: Tx, access: Access) -> bool:
    """Whether a link has expired. Links of earlier releases count from the upgrade."""
    made_at = access.made_at
    if made_at is None:
        since = select(upgrades.c.at).where(upgrades.c.revision == _LINKS_HAVE_TIMES)
        made_at = tx.conn.execute(since).scalar_one()
    return tx.now > made_at + receiver.segue.settings.preferences_link_lifetime


def _expired(receiver: Receiver, pages: CustomerPages) -> Response:
    lifetime = receiver.segue.settings.preferences_link_lifetime
    gettext = pages.texts.gettext
    return pages.notice(
        410,
        gettext("This link has expired"),
        gettext(
            "A link to your choices works for {time}. Nothing was changed.",
            time=pages.texts.ngettext("{number} day", "{number} days", max(1, lifetime // DAY)),
        ),
        gettext(
            "The next message that we send you has a new one. Links to unsubscribe do not expire."
        ),
    )


def _nothing_on(policy: Policy, rights: Rights) -> TopicChanges:
    """The changes that stop everything that a link without full rights can withdraw."""
    consent = rights.chosen.consent
    return {
        box: granted
        for channel in rights.withdraws
        for box, granted in nothing_on(policy, consent, channel).items()
    }


def _withdrawn(rights: Rights, changes: Changes) -> TopicChanges:
    """The part of a form's changes that a link without full rights may make: opt-outs."""
    return {
        (channel, topic): granted
        for (channel, topic), granted in changes.consent.items()
        if granted is False and channel in rights.withdraws
    }


def _to_withdraw(receiver: Receiver, pages: CustomerPages, rights: Rights) -> Response:
    """The page of a link that can only withdraw consent: one button."""
    pages = pages.for_customer(rights.chosen)
    if not rights.withdraws:
        return pages.nothing_sent()
    texts, gettext = pages.texts, pages.texts.gettext
    what = listed(
        [
            f"{gettext(channel_of(channel).plural)} {masked(channel, address, texts)}".strip()
            for channel, address in rights.withdraws.items()
        ],
        texts,
    )
    newer = gettext(
        "This link was made before we joined two records of you, so it can only stop messages. Our "
        "newest message to you has a link to all your choices."
    )
    policy, consent = receiver.segue.policy, rights.chosen.consent
    subscribed = any(
        allowed(policy, consent, channel, topic)
        for channel in rights.withdraws
        for topic in topics_of(policy)
    )
    if not subscribed:
        text = gettext(
            "We send no {what}, except receipts and other messages that an order needs.", what=what
        )
        return pages.act(gettext("Stopped"), [text, newer])
    text = gettext(
        "This stops all {what}. You still get receipts and other messages that an order needs.",
        what=what,
    )
    return pages.act(gettext("Stop all of it?"), [text, newer], "stop", gettext("Stop"))


class _Page:
    """The page with the form."""

    def __init__(self, receiver: Receiver, pages: CustomerPages) -> None:
        self.policy = receiver.segue.policy
        self.languages = receiver.segue.settings.languages
        self._pages = pages
        self.texts = pages.texts

    def on_record(self, chosen: Chosen, status: str) -> Response:
        """The form with the recorded choices. status: the result of the last action, or ""."""
        fields = fields_of(self.policy, chosen)
        return self._answer(chosen, FilledForm(fields, fields), status, {})

    def refused(self, chosen: Chosen, answer: FilledForm, errors: Mapping[str, str]) -> Response:
        """The submitted form, with its errors."""
        return self._answer(chosen, answer, "", errors)

    def _answer(
        self, chosen: Chosen, answer: FilledForm, status: str, errors: Mapping[str, str]
    ) -> Response:
        gettext = self.texts.gettext
        view = preferences_view(self.policy, self.languages, chosen, answer, errors, self.texts)
        heading = gettext("What you get, and when")
        about = [gettext("This also applies to messages that are already planned.")]
        state = gettext("Not saved") if errors else status
        return self._pages.page(
            "preferences",
            {
                **view,
                "title": f"{state}: {heading}".removeprefix(": "),
                "heading": heading,
                "status": status,
                "notes": (about if status else []) + notes(self.policy, chosen, self.texts),
            },
            400 if errors else 200,
        )
