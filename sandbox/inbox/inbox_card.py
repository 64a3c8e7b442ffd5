"""The template values of one message in the inbox."""

from collections import Counter
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from config.channels import channel_of
from config.clock.times import Instant
from config.clock.zones import zone
from sandbox.inbox.timeline import PlannedMessage
from sandbox.store import Received

_STATE = {
    "planned": "Planned",
    "sending": "Being sent",
    "sent": "Sent",
    "delivered": "Delivered",
    "unknown": "Unknown",
    "skipped": "Not sent",
    "cancelled": "Cancelled",
    "failed": "Refused by the provider",
}
_ANSWER = {
    "opened": "Opened",
    "machine_opened": "Opened by a program",
    "clicked": "Clicked",
    "replied": "Replied",
    "complained": "Reported as spam",
    "unsubscribed": "Unsubscribed",
    "resubscribed": "Subscribed again",
    "stopped": "Replied STOP",
    "started": "Replied START",
}


def card(accepted: list[Received], planned: PlannedMessage | None) -> dict[str, Any]:
    """A message that was accepted, planned, or both.

    Parameters
    ----------
    accepted: one entry for each time it was accepted; the last is shown. A push is accepted once
        for each device.
    """
    last = accepted[-1] if accepted else None
    shown: dict[str, Any] = {
        "state": "sent",
        "state_name": "Accepted",
        "source": "",
        "note": "",
        "times": max(Counter(one.address for one in accepted).values(), default=0),
        "devices": len({one.address for one in accepted})
        if last and channel_of(last.channel).per_device
        else 0,
        "content": last.content | {"link": _link(last)} if last else None,
        "answers": [],
    }
    if planned:
        shown |= {
            "channel": planned.channel,
            "state": planned.state,
            "state_name": _state_name(planned, accepted),
            "source": f"{planned.journey} / {planned.step}",
            "note": planned.explanation,
            "answers": [
                {"name": _ANSWER[one.kind], **moment(one.at, planned.zone)}
                for one in planned.answers
            ],
            **moment(planned.send_at, planned.zone),
        }
    elif last:
        shown |= {"channel": last.channel, **moment(last.accepted_at, "UTC")}
    return shown | shown_channel(shown["channel"])


def shown_channel(name: str) -> dict[str, str]:
    """A channel's name as a heading, and its icon."""
    channel = channel_of(name)
    return {
        "channel_name": channel.short[:1].upper() + channel.short[1:],
        "icon": channel.icon,
    }


def _state_name(planned: PlannedMessage, accepted: list[Received]) -> str:
    if planned.state == "failed" and accepted:
        return "Returned"
    return _STATE.get(planned.state, planned.state)


def moment(instant: Instant, zone_name: str) -> dict[str, str]:
    """A time in the recipient's zone, as text for people and (`iso`) for programs."""
    try:
        local = datetime.fromtimestamp(instant, zone(zone_name))
    except KeyError:
        local, zone_name = datetime.fromtimestamp(instant, ZoneInfo("UTC")), "UTC"
    return {
        "day": f"{local:%A} {local.day} {local:%B %Y}",
        "date": f"{local.day} {local:%b}",
        "time": f"{local:%H:%M}",
        "zone": zone_name,
        "city": zone_name.rsplit("/")[-1].replace("_", " "),
        "iso": local.isoformat(),
    }


def _link(received: Received) -> str:
    """The target of a tap on a notification; only web addresses are links here."""
    link = received.content.get("data", {}).get("link", "")
    return link if link.startswith(("http://", "https://")) else ""
