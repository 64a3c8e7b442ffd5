"""The rows that remain of an erased person, for reports: they name nobody. Pure.

They belong to a number that was drawn for them alone. Their ids are new, since providers and other
systems know the old ones. docs/decisions/0038-erasure.md says what a row keeps.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from channels.messages.states import CLOSED
from config.settings import Settings
from journeys.analytics.reports.statements import MAILBOXES
from journeys.operations.counts import FEEDBACK_EVENTS, HANDED_OVER
from profiles.bucketing import bucket_of
from profiles.conditions.json_path import parse_path

Row = Mapping[str, Any]
# What replaces a text that leads to the person, where reports ask whether there is one.
GONE = "erased"
_IN_FLIGHT = f"{CLOSED}: the customer was erased during the hand-over"
# The fewest characters of a value that is looked for in texts.
_SHORTEST = 3


class ReportedProperties(NamedTuple):
    """The properties of events that reports read, by the event's name: paths of their members."""

    paths: Mapping[str, Sequence[tuple[str, ...]]]

    @classmethod
    def of(cls, settings: Settings) -> "ReportedProperties":
        """Those of the settings, and of provider reports."""
        paths: dict[str, list[tuple[str, ...]]] = {name: [] for name in FEEDBACK_EVENTS}
        for name, *texts in (
            (settings.revenue_event, settings.revenue_amount, settings.revenue_currency_property),
            (settings.satisfaction_event, settings.satisfaction_score),
        ):
            if name:
                paths.setdefault(name, []).extend(parse_path(text)[0] for text in texts if text)
        return cls(paths)


class Renumbered(NamedTuple):
    """The new numbers: of the person, and by the old ones those of the rows."""

    profile_id: int
    enrollments: Mapping[int, int]
    messages: Mapping[int, int]
    events: Mapping[int, int]

    @property
    def owner(self) -> dict[str, int]:
        """The columns that say whose a row is."""
        return {"profile_id": self.profile_id, "bucket": bucket_of(self.profile_id)}


def new_number() -> int:
    """A number for nameless rows. It is negative, as no profile's is, and says nothing."""
    return -1 - secrets.randbits(62)


def personal_texts(documents: Sequence[Any]) -> set[str]:
    """The texts in JSON values, in lower case, that are long enough to be looked for."""
    found: set[str] = set()
    left = list(documents)
    while left:
        one = left.pop()
        if isinstance(one, str) and len(one) >= _SHORTEST:
            found.add(one.lower())
        elif isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, (list, tuple)):
            left += one
    return found


def nameless_enrollment(row: Row, new: Renumbered, texts: Collection[str]) -> dict[str, Any]:
    """An ended enrollment of nobody."""
    return {
        **row,
        **new.owner,
        "id": new.enrollments[row["id"]],
        "entry_key": "",
        "context": {},
        "entry_event_id": new.events.get(row["entry_event_id"]),
        "end_reason": _without(row["end_reason"], texts),
    }


def nameless_message(row: Row, new: Renumbered, texts: Collection[str]) -> dict[str, Any]:
    """A message to nobody. One that is being handed over may have been sent."""
    in_flight = row["state"] == "sending"
    reason = row["reason"]
    if row["state"] in (*HANDED_OVER, "failed") or (reason or "").startswith("link_refused"):
        # a provider's text may follow, or the host of a customer's link
        reason = reason if (reason or "").startswith(CLOSED) else _code(reason)
    return {
        **row,
        **new.owner,
        "id": new.messages[row["id"]],
        "enrollment_id": new.enrollments.get(row["enrollment_id"], 0),
        "state": "unknown" if in_flight else row["state"],
        "reason": _IN_FLIGHT if in_flight else _without(reason, texts),
        "decision": {
            name: row["decision"][name] for name in ("send_at",) if name in row["decision"]
        },
        "not_after": None,
        "claimed_by": None,
        "provider_id": None if row["provider_id"] is None else GONE,
        "address": _mailbox(row["address"]),
    }


def nameless_past_message(row: Row, new: Renumbered) -> dict[str, Any]:
    """What retention has left of a message, to nobody."""
    return {
        **row,
        **new.owner,
        "id": new.messages[row["id"]],
        "enrollment_id": new.enrollments.get(row["enrollment_id"], 0),
        "address": _mailbox(row["address"]),
    }


def nameless_passage(row: Row, new: Renumbered) -> dict[str, Any]:
    """A passage, or the arm of an experiment, of nobody."""
    enrollment = new.enrollments.get(row["enrollment_id"], 0)
    return {**row, **new.owner, "enrollment_id": enrollment}


def nameless_consent_record(row: Row, new: Renumbered) -> dict[str, Any]:
    """A no of nobody, without its id. Reports ask whether it was imported."""
    return {
        **{name: row[name] for name in row if name != "id"},
        **new.owner,
        "source": f"import {GONE}" if row["source"].startswith("import ") else GONE,
        "wording": None,
        "evidence": None,
        "identifier_kind": None,
        "identifier_value": None,
    }


def nameless_event(
    row: Row, new: Renumbered, reported: ReportedProperties, is_shared: Callable[[str], bool]
) -> dict[str, Any]:
    """An event of nobody that reports count.

    is_shared: whether another customer clicked a URL too; one that only this person clicked may
    lead to them.
    """
    properties: dict[str, Any] = {}
    before = row["properties"]
    for path in reported.paths[row["name"]]:
        _copy(before, properties, path)
    if str(before.get("message_id", "")).isdecimal():
        message = new.messages.get(int(before["message_id"]))
        properties |= {} if message is None else {"message_id": str(message)}
    url = before.get("url")
    if isinstance(url, str) and row["name"].endswith("_clicked"):
        url = url.partition("#")[0].partition("?")[0]  # reports do the same
        properties |= {"url": url} if is_shared(url) else {}
    return {
        **row,
        **new.owner,
        "id": new.events[row["id"]],
        "properties": properties,
        "dedupe_key": f"{GONE} {secrets.token_hex(12)}",
        "worked_at": row["received_at"] if row["worked_at"] is None else row["worked_at"],
        "identifier_kind": None,
        "identifier_value": None,
    }


def _copy(source: Any, target: dict[str, Any], path: Sequence[str]) -> None:
    """Copy a number, or the code of a currency, at the same place."""
    for name in path:
        source = source.get(name) if isinstance(source, Mapping) else None
    if isinstance(source, str):
        is_code = len(source) == 3 and source.isascii() and source.isalpha()
        if not is_code and not _is_number(source):
            return
    elif source is None or isinstance(source, (Mapping, list)):
        return
    *outer, last = path
    for name in outer:
        target = target.setdefault(name, {})
    target[last] = source


def _is_number(text: str) -> bool:
    return text.isascii() and text.strip("+-").replace(".", "", 1).isdecimal()


def _code(reason: str | None) -> str | None:
    return None if reason is None else reason.split(":")[0]


def _without(reason: str | None, texts: Collection[str]) -> str | None:
    """The reason, cut at its colon if it contains a text of the person."""
    known = (reason or "").lower()
    return _code(reason) if any(text in known for text in texts) else reason


def _mailbox(address: str | None) -> str | None:
    """The end of an address at a large mailbox provider, which reports tell apart."""
    known = (address or "").lower()
    for patterns in MAILBOXES.values():
        if any(fnmatchcase(known, pattern.replace("%", "*")) for pattern in patterns):
            return patterns[0].lstrip("%").replace("%", "com")
    return None
