"""The staff site without a network: a client that is signed in, and what its pages say."""

import re
from base64 import b64encode
from hashlib import scrypt
from html import unescape
from typing import Any

from httpx import Response
from sqlalchemy import insert

from config.access.staff_acts import StaffAct, latest_acts
from config.access.staff_sessions import start_session
from config.access.staff_users import staff_users
from config.database.engine import Tx
from flows.http.limits.guessing import Guesses
from flows.http.staff.app import create_app
from tests.support.http.page_customers import Client
from tests.support.shop import House

URL = "https://shop.example"  # where `Client` sends its requests
COOKIE = "__Host-segue-staff"
PASSWORD = "correct horse battery"
# Its hash, made in no time: with parameters that no password of ours has.
_HASH = scrypt(PASSWORD.encode(), salt=b"salt", n=2, r=1, p=1, dklen=32)
_STORED = f"scrypt$2$1$1${b64encode(b'salt').decode()}${b64encode(_HASH).decode()}"


class Staff:
    """A user of the site, signed in."""

    def __init__(self, house: House, role: str = "viewer", name: str = "zoe") -> None:
        self.house = house
        self.name = name
        self.client = staff_client(house)
        with house.db.transaction() as tx:
            insert_user(tx, name, role)
            self.session = start_session(tx, name)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Cookie": f"{COOKIE}={self.session}", "Origin": URL}

    def get(self, path: str) -> Response:
        return self.client.get(path, headers=self._headers)

    def read(self, path: str) -> str:
        """The text of a page."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        return words_of(response.text)

    def post(self, path: str, fields: dict[str, Any], *, page: str = "/password") -> Response:
        """Submit a form with the token that a page has."""
        token = re.findall('name="token" value="([^"]*)"', self.get(page).text)[0]
        return self.client.post(path, data={"token": token, **fields}, headers=self._headers)

    def acts(self) -> list[StaffAct]:
        """The log, newest first."""
        with self.house.db.transaction(write=False) as tx:
            return list(latest_acts(tx, 100))


def insert_user(tx: Tx, name: str, role: str, *, one_time: bool = False) -> None:
    """Add a user with PASSWORD."""
    row = {"name": name, "role": role, "password": _STORED}
    tx.conn.execute(insert(staff_users), {**row, "is_one_time": one_time, "made_at": tx.now})


def staff_client(house: House) -> Client:
    """A client of the site; `house` must be open with `staff_url=URL`."""
    return Client(create_app(house.segue, Guesses(wait=0)))


def words_of(page: str) -> str:
    """The text of a page's main part, with single blanks."""
    main = page[page.index("<main") : page.index("</main>")]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", main)).split())
