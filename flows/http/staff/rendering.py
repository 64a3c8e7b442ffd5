"""Render the staff's pages: Jinja2 templates, style sheets, and the headers of every page.

No scripts and no resources of other hosts. Pico CSS (MIT) is in static/pico, as published.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from flows.http.staff import words

_HERE = Path(__file__).parent
_SHEETS = {
    "pico.css": (_HERE / "static" / "pico" / "pico.min.css").read_bytes(),
    "staff.css": (_HERE / "static" / "staff.css").read_bytes(),
}
# The URL of a sheet changes with its content, so browsers keep it for good.
_URLS = {f"/static/{sha256(text).hexdigest()[:16]}/{name}": name for name, text in _SHEETS.items()}
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    # Not no-referrer: with it browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class StaffPages:
    """Renders the pages. All values are HTML-escaped.

    zone: of the times for users who have none of their own, an IANA name.
    """

    def __init__(self, brand: str, zone: str) -> None:
        self._brand = brand
        self._zone = zone
        self._by_zone: dict[str, Environment] = {}

    def _templates(self, zone: str) -> Environment:
        """The templates for times in a zone."""
        if zone not in self._by_zone:
            templates = Environment(
                autoescape=True,
                undefined=StrictUndefined,
                loader=FileSystemLoader(_HERE / "templates"),
                trim_blocks=True,
                lstrip_blocks=True,
            )
            templates.globals.update(
                brand=self._brand, zone=zone, sheets=list(_URLS), **words.GLOBALS
            )
            templates.filters.update(words.filters(zone))
            self._by_zone[zone] = templates
        return self._by_zone[zone]

    def page(
        self,
        template: str,
        values: Mapping[str, Any],
        status: int = 200,
        *,
        zone: str | None = None,
    ) -> Response:
        """Render a template. `values` has at least `title` and `visit`, None if signed out.

        zone: of the times.
        """
        found = self._templates(zone or self._zone).get_template(f"{template}.html")
        return HTMLResponse(found.render(values), status, headers=_HEADERS)

    def notice(self, status: int, title: str, *paragraphs: str) -> Response:
        """A page with text only."""
        values = {"title": title, "paragraphs": paragraphs, "visit": None, "here": ""}
        return self.page("notice", values, status)


def style_sheets() -> list[Route]:
    """The routes of the style sheets, which are readable without a session."""

    def sheet(request: Request) -> Response:
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        return Response(_SHEETS[_URLS[request.url.path]], media_type="text/css", headers=headers)

    return [Route(url, sheet) for url in _URLS]
