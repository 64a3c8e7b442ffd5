"""The code of docs/reference/http.md, as it stands there, against a running receiver."""

import hmac
import json
import re
import shutil
import subprocess

import pytest
from pydantic import SecretStr

from config.access.signatures import sign
from config.settings import ROOT
from journeys.dsl import Email, Send
from journeys.library.segments import segments
from tests.support.http.receiving import WRITE_KEY, names, receiving
from tests.support.patience import PATIENCE
from tests.support.shop import House, described

PAGE = (ROOT / "docs" / "reference" / "http.md").read_text(encoding="utf-8")
HOST = "http://127.0.0.1:8080"
SECRET = "hook-secret-for-the-sandbox-only"  # the default of SEGUE_HOOK_SECRET


def block(language: str, part: str) -> str:
    """The one block in this language with this part."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    [code] = [one for one in found if part in one]
    return code


def test_the_lines_that_send_events(sqlite_house: House) -> None:
    sqlite_house.open()
    sqlite_house.db.now = None  # the client has a clock of its own
    with receiving(sqlite_house.segue) as receiver:
        code = block("python", "from segment.analytics ").replace(HOST, receiver.url)
        exec(f"{code}\nclient.shutdown()", {})
    assert names(sqlite_house) == ["cart_abandoned"]


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("openssl")), reason="apt-get install curl openssl"
)
def test_the_lines_that_start_a_journey(sqlite_house: House) -> None:
    house = sqlite_house
    house.open(described(Send("hello", Email("hello")), name="win-back"))
    house.customer("u-1042")
    house.db.now = None  # `date` has the clock of the machine
    with receiving(house.segue) as receiver:
        run = subprocess.run(
            ["bash", "-c", block("sh", "openssl dgst").replace(HOST, receiver.url)],
            env={"PATH": "/usr/bin:/bin", "SEGUE_HOOK_SECRET": SECRET},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    assert json.loads(run.stdout) == json.loads(block("json", '"entered": 1'))


@pytest.mark.skipif(not shutil.which("curl"), reason="apt-get install curl")
def test_the_lines_that_read_a_profile(sqlite_house: House) -> None:
    house = sqlite_house
    house.open(segments={one.name: one for one in segments})
    stated = {"first_name": "Ann", "plan": "gold"}
    ann = house.customer(
        "ann", attributes=stated, country="GB", language="en", timezone=None, consent={}
    )
    house.did(ann, "order_completed", order_id="7731", total=129.9)
    with receiving(house.segue) as receiver:
        run = subprocess.run(
            ["bash", "-c", block("sh", "/v1/profiles/").replace(HOST, receiver.url)],
            env={"PATH": "/usr/bin:/bin", "SEGUE_WRITE_KEY": WRITE_KEY},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    assert json.loads(run.stdout) == json.loads(block("json", '"new-customers"'))


def test_the_lines_that_sign() -> None:
    given = {"now": 1_772_000_000, "path": "/hooks/journeys/j", "body": b"{}", "secret": SECRET}
    exec(block("python", "signature = hmac"), {"hmac": hmac}, given)
    assert given["signature"] == sign(SecretStr(SECRET), "1772000000", "/hooks/journeys/j", b"{}")
