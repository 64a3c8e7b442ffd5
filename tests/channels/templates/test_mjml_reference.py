"""Our MJML renders like the reference implementation: every component, pixel by pixel.

The reference is the npm package `mjml`. To install it:
`npm ci --prefix tests/channels/templates/mjml`.
"""

import json
import re
import shutil
import struct
import subprocess
import zlib
from base64 import b64encode
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route

from channels.templates.mjml import to_html

HERE = Path(__file__).parent / "mjml"
NODE = shutil.which("node")
INSTALLED = NODE is not None and (HERE / "node_modules" / "mjml").is_dir()
pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("mjml"),  # so that the reference renders once
    pytest.mark.skipif(
        not INSTALLED,
        reason="no MJML: apt-get install nodejs npm; npm ci --prefix tests/channels/templates/mjml",
    ),
]

# Pixels that may differ, of a hundred: edges of letters, where widths are rounded.
TOLERATED = 0.5
WIDTHS = (600, 375)
_CASE = re.compile(r"<!-- case: (.*) -->\n")


def cases() -> dict[str, str]:
    """Every document under tests/channels/templates/mjml/cases, by its file and its name."""
    found: dict[str, str] = {}
    for file in sorted((HERE / "cases").glob("*.mjml")):
        _, *parts = _CASE.split(file.read_text(encoding="utf-8"))
        for name, source in zip(parts[::2], parts[1::2], strict=True):
            found[f"{file.stem}: {name}"] = source
    return found


CASES = cases()
# The pictures that differ: how many pixels of the larger of both, in percent.
COMPARE = """async (pictures) => {
  const images = await Promise.all(pictures.map(async (png) => {
    const image = new Image();
    image.src = "data:image/png;base64," + png;
    await image.decode();
    return image;
  }));
  const width = Math.max(...images.map((image) => image.width));
  const height = Math.max(...images.map((image) => image.height));
  const [ours, theirs] = images.map((image) => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  });
  let differing = 0;
  for (let at = 0; at < ours.length; at++) differing += ours[at] !== theirs[at];
  return 100 * differing / (width * height);
}"""


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """What the reference makes of each case."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, HERE / "render.cjs"],
        input=json.dumps(list(CASES.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module")
def pages(browser: Browser) -> dict[int, Page]:
    """One page of each width, which reaches no network."""
    found: dict[int, Page] = {}
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": 100})
        # A loaded machine makes a test slower, not red.
        page.set_default_timeout(0)
        page.route("**/*", _answer)
        found[width] = page
    return found


def _answer(route: Route) -> None:
    """A picture of the size that its address names, 64 by 64 without one; nothing else."""
    url = route.request.url
    if not url.endswith((".png", ".jpg")):
        route.abort()
        return
    size = re.search(r"(\d+)x(\d+)\.", url)
    width, height = (int(size[1]), int(size[2])) if size else (64, 64)
    route.fulfill(body=_picture(width, height), content_type="image/png")


@cache
def _picture(width: int, height: int) -> bytes:
    """A PNG in which no two parts look alike, so that a shift or a crop shows."""
    rows = b"".join(
        b"\0" + bytes(c for x in range(width) for c in (x * 255 // width, y * 255 // height, x % 9))
        for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _shown(page: Page, html: str) -> str:
    page.set_content(html)
    return b64encode(page.screenshot(full_page=True)).decode()


@pytest.mark.parametrize("name", CASES)
def test_a_component_looks_as_the_reference_renders_it(
    name: str, reference: dict[str, str], pages: dict[int, Page]
) -> None:
    ours = to_html(CASES[name], "t.email.mjml")
    for width, page in pages.items():
        pictures = [_shown(page, ours), _shown(page, reference[name])]
        differing = page.evaluate(COMPARE, pictures)
        assert differing <= TOLERATED, f"{differing:.2f} % of the pixels at {width} px"


def test_the_cases_hold_every_component() -> None:
    written = set(re.findall(r"<(mj[\w-]*)", "".join(CASES.values())))
    assert written == {
        "mjml", "mj-head", "mj-body", "mj-attributes", "mj-all", "mj-class", "mj-breakpoint",
        "mj-font", "mj-preview", "mj-style", "mj-title", "mj-wrapper", "mj-section", "mj-group",
        "mj-column", "mj-hero", "mj-accordion", "mj-accordion-element", "mj-accordion-title",
        "mj-accordion-text", "mj-button", "mj-carousel", "mj-carousel-image", "mj-divider",
        "mj-image", "mj-navbar", "mj-navbar-link", "mj-raw", "mj-social", "mj-social-element",
        "mj-spacer", "mj-table", "mj-text",
    }  # fmt: skip
