"""Render the customers' pages: templates, a style sheet, and the headers of every page.

No scripts, no cookies, no external resources: the style sheet is inline.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from liquid import CachingFileSystemLoader, Environment, Markup, StrictUndefined
from liquid.extra import GetText
from starlette.responses import HTMLResponse

from flows.http.pages.texts import Texts, accepted, texts_for
from profiles.consent.preferences import Chosen

_TEMPLATES = Path(__file__).parent / "templates"
_CSS = (_TEMPLATES / "pages.css").read_text(encoding="utf-8")
_CSS_DIGEST = b64encode(sha256(_CSS.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_CSS_DIGEST}'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # The URL is the key to the page. It must not leak by referrer, cache or search index.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
}


def page_templates(brand: str) -> Environment:
    """The templates of the pages, with the filter `gettext` for their texts."""
    templates = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=CachingFileSystemLoader(_TEMPLATES, ext=".html"),
        globals={"brand": brand, "css": Markup(_CSS)},
    )
    templates.add_filter("gettext", GetText())
    return templates


class CustomerPages:
    """Renders the pages of one brand in one language. All values are HTML-escaped.

    accepted: language tags of the request, the preferred one first.
    """

    def __init__(
        self, templates: Environment, accepted: Sequence[str] = (), texts: Texts | None = None
    ) -> None:
        self._templates = templates
        self._accepted = accepted
        self.texts = texts or texts_for(*accepted)

    def for_request(self, accept_language: str) -> Self:
        """The pages in the language of a request; the header may be empty."""
        return type(self)(self._templates, accepted(accept_language))

    def for_customer(self, chosen: Chosen) -> Self:
        """The pages in the customer's language, else in that of the request."""
        texts = texts_for(chosen.language, chosen.known_language, *self._accepted)
        return type(self)(self._templates, self._accepted, texts)

    def page(self, template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
        """Render a template."""
        html = self._templates.get_template(template).render(
            **values, lang=self.texts.language, translations=self.texts.translations
        )
        return HTMLResponse(html, status, headers=_HEADERS)

    def notice(self, status: int, title: str, *paragraphs: str) -> HTMLResponse:
        """A page with text only."""
        return self.page("notice", {"title": title, "paragraphs": paragraphs}, status)

    def act(
        self,
        title: str,
        paragraphs: Sequence[str],
        action: str = "",
        button: str = "",
        *,
        quiet: bool = False,
    ) -> HTMLResponse:
        """A page with at most one button, which posts `action`. An empty `button` means none."""
        values = {"paragraphs": paragraphs, "action": action, "button": button, "quiet": quiet}
        return self.page("act", {"title": title, **values})

    def unknown(self) -> HTMLResponse:
        """For an invalid token: truncated, forged, or signed with an old key."""
        return self.notice(
            404,
            self.texts.gettext("This link does not work"),
            self.texts.gettext(
                "A part of it may be missing, or it may be very old. Nothing was changed."
            ),
            self.texts.gettext(
                "Please open the link in our newest message to you. You can also reply STOP to a "
                "text message to stop all texts."
            ),
        )

    def nothing_sent(self) -> HTMLResponse:
        """For a link to an address that is no longer used."""
        return self.notice(
            200,
            self.texts.gettext("We no longer send to this address"),
            self.texts.gettext("This link was made for an address that we no longer use."),
        )

    def gone(self) -> HTMLResponse:
        """For a valid token whose profile no longer exists."""
        return self.notice(
            410,
            self.texts.gettext("This link is no longer valid"),
            self.texts.gettext(
                "We have no record of the customer for whom this link was made, so we send them "
                "nothing."
            ),
        )
