"""Push notifications to devices that have the shop's app."""

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Self

import orjson
from typing_extensions import override

from config.channels import LANGUAGE, Channel, Content, Header, Masked
from config.settings import Settings

# The limit of FCM (Firebase, "About FCM messages") and of APNs is 4096 bytes for notification and
# data. The difference is for field names and the message id.
MOST_BYTES = 3800


@dataclass(frozen=True, slots=True)
class PushContent(Content):
    """The content of a notification. silent: without sound."""

    title: str
    body: str
    _: KW_ONLY
    link: str | None = None
    image: str | None = None
    silent: bool = False

    @classmethod
    def of(cls, parts: Mapping[str, str], options: Mapping[str, str]) -> Self:
        return cls(
            parts["title"],
            parts["body"],
            link=parts.get("link") or None,
            image=parts.get("image") or None,
            silent=options.get("sound") == "none",
        )

    @override
    def excess(self, settings: Settings) -> str | None:
        parts = [self.title, self.body, self.link or "", self.image or ""]
        size = len(orjson.dumps(parts))
        return f"{size} bytes; the limit is {MOST_BYTES}" if size > MOST_BYTES else None


def _masked(_token: str) -> Masked:
    """A token means nothing to its owner."""
    return Masked("to your devices with our app")


CHANNEL = Channel(
    name="push",
    step="Push",
    order=3,
    title="App notifications",
    plural="notifications in the app",
    short="push",
    icon="M6 16.500c1.200-1.200 1.500-2.500 1.500-6a4.500 4.500 0 0 1 9 0c0 3.500.3 4.800 1.500 6z "
    "M10.500 19a1.600 1.600 0 0 0 3 0 M12 4v1.500",
    address_kind="push_token",
    address="device",
    no_address="Not switched on in our app.",
    masked=_masked,
    content=PushContent,
    formats=("txt",),
    headers=(
        Header("Title", required=True, one_line=True),
        Header("Link", one_line=True, may_be_empty=True, link="app"),
        Header("Image", one_line=True, may_be_empty=True, link="web"),
        LANGUAGE,
        Header("Sound", fixed=re.compile("default|none"), expects="default or none"),
    ),
    # FCM reports neither delivery nor opening.
    evidence={"opened": "the app, as `push_opened`", "clicked": "the app, as `push_clicked`"},
)
