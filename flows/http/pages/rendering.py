"""Render the customers' pages: templates, a style sheet, and the headers of every page.

No scripts, no cookies, no external resources: the style sheet is inline.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from liquid import CachingFileSystemLoader, Environment, Markup, StrictUndefined
from starlette.responses import HTMLResponse

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


class CustomerPages:
    """Renders the pages of one brand. All values are HTML-escaped."""

    def __init__(self, brand: str) -> None:
        self._templates = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            loader=CachingFileSystemLoader(_TEMPLATES, ext=".html"),
            globals={"brand": brand, "css": Markup(_CSS)},
        )

    def page(self, template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
        """Render a template."""
        html = self._templates.get_template(template).render(**values)
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
            "This link does not work",
            "A part of it may be missing, or it may be very old. Nothing was changed.",
            "Please open the link in our newest message to you. You can also reply STOP to a text "
            "message to stop all texts.",
        )

    def nothing_sent(self) -> HTMLResponse:
        """For a link to an address that is no longer used."""
        return self.notice(
            200,
            "We no longer send to this address",
            "This link was made for an address that we no longer use.",
        )

    def gone(self) -> HTMLResponse:
        """For a valid token whose profile no longer exists."""
        return self.notice(
            410,
            "This link is no longer valid",
            "We have no record of the customer for whom this link was made, so we send them "
            "nothing.",
        )
