"""Take the pictures of docs/marketer/staff.md: python -m tests.support.staff_pictures"""

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from playwright.sync_api import Page
from sqlalchemy import func, select

from channels.messages import messages
from config.database.engine import Database
from config.database.schema import migrate
from config.settings import ROOT
from tests.support.http.chromium import chromium
from tests.support.http.staff import PASSWORD
from tests.support.http.staff_site import staff_site

IMAGES = ROOT / "docs" / "images"
_MESSAGE = "/journeys/win-back/message?step=we+miss+you&member=email%3Awe_miss_you"
# A customer with several messages.
_WITH_MESSAGES = (
    select(messages.c.profile_id)
    .where(messages.c.state == "sent")
    .group_by(messages.c.profile_id)
    .having(func.count() > 1)
    .order_by(messages.c.profile_id)
    .limit(1)
)
# Name, path, width and height in pixels, and the colours.
PICTURES = (
    ("today", "/", 1280, 900, "light"),
    ("journey", "/journeys/win-back", 1280, 1000, "light"),
    ("person", "/people/{person}", 1280, 1000, "dark"),
    ("people", "/people", 1280, 900, "light"),
    ("journeys", "/journeys", 1280, 700, "light"),
    ("report", "/journeys/win-back/report", 1280, 1000, "light"),
    ("experiment", "/journeys/welcome/experiment?step=which+nudge", 1280, 900, "light"),
    ("segments", "/segments", 1280, 700, "light"),
    ("segment", "/segments/lapsed", 390, 844, "light"),
    ("personas", "/personas", 1280, 500, "light"),
    ("approvals", "/approvals", 1280, 700, "light"),
    ("yardstick", "/yardstick", 1280, 1000, "light"),
    ("message", _MESSAGE + "&person={person}&width=phone", 390, 844, "light"),
)


def sign_in(page: Page) -> None:
    """Sign in as `zoe`."""
    page.goto("/sign-in")
    page.get_by_label("Name").fill("zoe")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        url = f"sqlite:///{Path(folder) / 'segue.db'}"
        with closing(Database(url)) as db:
            migrate(db)
            with staff_site(db, 3000) as site:
                with db.transaction(write=False) as tx:
                    person = tx.conn.execute(_WITH_MESSAGES).scalar_one()
                context = browser.new_context(base_url=site, reduced_motion="reduce")
                page = context.new_page()
                sign_in(page)
                for name, path, width, height, colours in PICTURES:
                    page.set_viewport_size({"width": width, "height": height})
                    page.emulate_media(color_scheme="dark" if colours == "dark" else "light")
                    page.goto(path.format(person=person))
                    page.screenshot(path=IMAGES / f"staff-{name}.png")
                    sys.stdout.write(f"docs/images/staff-{name}.png\n")


if __name__ == "__main__":
    main()
