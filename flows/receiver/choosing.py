"""The page on which customers choose what they get, on which channels, how often and when."""

from collections.abc import Mapping

from fastapi import Response

from channels.links import read_preferences
from flows.receiver.choices import nothing_at_all
from flows.receiver.context import Receiver
from flows.receiver.form import Answer, Fields, fields_of, read_answer, understand
from flows.receiver.rendering import Pages
from flows.receiver.view import notes, preferences_view
from profiles import preferences
from profiles.preferences import Changes, Chosen, read_chosen

_SOURCE = "preference page"
# What is said at the top, and in the title.
_SAVED = "Saved"
_STOPPED = "Everything is stopped"
_HOLDS = "It holds from now on, also for what was planned already."


def show(receiver: Receiver, pages: Pages, token: str) -> Response:
    """The form as things are on record."""
    profile_id = read_preferences(receiver.segue.settings, token)
    if profile_id is None:
        return pages.unknown()
    with receiver.segue.db.transaction(write=False) as tx:
        chosen = read_chosen(tx, profile_id)
    if chosen is None:
        return pages.gone()
    return _Page(receiver, pages).on_record(chosen, "")


def save(receiver: Receiver, pages: Pages, token: str, form: Fields) -> Response:
    """Save what was changed, if nothing is wrong with it, and show how things are now."""
    profile_id = read_preferences(receiver.segue.settings, token)
    if profile_id is None:
        return pages.unknown()
    page = _Page(receiver, pages)
    with receiver.segue.db.transaction() as tx:
        before = read_chosen(tx, profile_id, lock=True)
        if before is None:
            return pages.gone()
        if form.get("action") == "stop":
            changes, status = Changes(nothing_at_all(before.consent)), _STOPPED
        else:
            answer = read_answer(form, fields_of(page.policy, before))
            changes, errors = understand(page.policy, page.languages, before, answer)
            if errors:
                return page.refused(before, answer, errors)
            status = _SAVED
        changed = preferences.save(tx, before, changes, _SOURCE, page.policy.double_opt_in)
        after = read_chosen(tx, profile_id)
        assert after is not None
    if changed:
        receiver.arrived()
    return page.on_record(after, status)


class _Page:
    """The page with the form."""

    def __init__(self, receiver: Receiver, pages: Pages) -> None:
        self.policy = receiver.segue.policy
        self.languages = receiver.segue.settings.languages
        self._pages = pages

    def on_record(self, chosen: Chosen, status: str) -> Response:
        """The form as things are now; `status` says what was just done."""
        fields = fields_of(self.policy, chosen)
        return self._answer(chosen, Answer(fields, fields), status, {})

    def refused(self, chosen: Chosen, answer: Answer, errors: Mapping[str, str]) -> Response:
        """The form as it was filled in, with what is wrong beside it."""
        return self._answer(chosen, answer, "", errors)

    def _answer(
        self, chosen: Chosen, answer: Answer, status: str, errors: Mapping[str, str]
    ) -> Response:
        view = preferences_view(self.policy, self.languages, chosen, answer, errors)
        heading = "What you get, and when"
        said = [_HOLDS] if status else []
        return self._pages.page(
            "preferences",
            {
                **view,
                "title": f"{'Not saved' if errors else status}: {heading}".removeprefix(": "),
                "heading": heading,
                "status": status,
                "notes": said + notes(self.policy, chosen),
            },
            400 if errors else 200,
        )
