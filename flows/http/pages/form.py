"""The form of the preference center: its fields, and the changes that a filled form requests. Pure.

The page also submits the value with which each field was shown, and only changed fields are saved.
So a page that was open for a week does not undo a STOP that arrived meanwhile.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from config.channels import ChannelName, channel_of
from config.clock.times import DAY, HOUR, Seconds
from config.clock.zones import zone_names
from config.policy import CHANNELS, Policy, Window, format_time, parse_time_of_day
from flows.http.pages.choices import boxes, consent_of, offered, stopped
from flows.http.pages.texts import Texts
from profiles.consent.preferences import Changes, Chosen

Fields = Mapping[str, str]
TICKED = "on"
# Prefix of the hidden fields with the values that were shown.
SHOWN = "shown."
# The fields that are no checkboxes.
_CHOICES = ("per_week", "opens", "closes", "timezone", "language")


class FilledForm(NamedTuple):
    """A submitted form: the value of every field now, and when the page was shown."""

    values: Fields
    shown: Fields

    def changed(self, *names: str) -> bool:
        """Whether the customer changed one of these fields."""
        return any(self.values[name] != self.shown[name] for name in names)


class RequestedChanges(NamedTuple):
    """The changes that a filled form requests, and the errors by field."""

    changes: Changes
    errors: dict[str, str]


def box_name(channel: ChannelName, topic: str) -> str:
    """The field of a channel and a topic."""
    return f"{channel}.{topic}"


def stop_name(channel: ChannelName) -> str:
    """The field of a channel's STOP."""
    return f"no_{channel}"


def with_stop(policy: Policy, chosen: Chosen) -> list[ChannelName]:
    """The channels on the page that have a STOP field."""
    return [one for one in offered(policy, chosen.consent) if channel_of(one).has_stop]


def fields_of(policy: Policy, chosen: Chosen) -> dict[str, str]:
    """The fields with the recorded values; "" means not ticked, or no choice."""
    ticked = boxes(policy, chosen.consent)
    known_zone = chosen.timezone if chosen.timezone in zone_names() else None
    return {
        **{box_name(*box): TICKED if yes else "" for box, yes in ticked.items()},
        **{
            stop_name(channel): TICKED if stopped(chosen.consent, channel) else ""
            for channel in with_stop(policy, chosen)
        },
        "per_week": "" if chosen.per_week is None else str(chosen.per_week),
        "opens": "" if chosen.opens is None else format_time(chosen.opens),
        "closes": "" if chosen.closes is None else format_time(chosen.closes),
        "timezone": known_zone or "",
        "language": chosen.language or "",
    }


def read_filled(posted: Fields, names: Iterable[str]) -> FilledForm:
    """Read the named fields.

    Browsers leave out clear checkboxes. Other missing fields stay as shown.
    """
    values, shown = {}, {}
    for name in names:
        shown[name] = posted.get(SHOWN + name, "")
        values[name] = posted.get(name, shown[name] if name in _CHOICES else "")
    return FilledForm(values, shown)


def requested_changes(
    policy: Policy,
    languages: Mapping[str, str],
    chosen: Chosen,
    answer: FilledForm,
    texts: Texts,
) -> RequestedChanges:
    """The changes that a filled form requests; none if a field has an error.

    Parameters
    ----------
    chosen: the choices on record now. texts: of the errors.
    """
    gettext = texts.gettext
    errors: dict[str, str] = {}
    choices: dict[str, int | str | None] = {}
    values = answer.values
    if answer.changed("per_week"):
        try:
            choices["per_week"] = _per_week(values["per_week"], texts)
        except ValueError as error:
            errors["per_week"] = str(error)
    if answer.changed("opens", "closes"):
        times: dict[str, Seconds | None] = {}
        for name in ("opens", "closes"):
            try:
                times[name] = parse_time_of_day(values[name]) if values[name] else None
            except ValueError:
                errors[name] = gettext("This is not a time of day. Choose one from the list.")
        if len(times) == 2:
            try:
                opens, closes = _hours(policy, times["opens"], times["closes"], texts)
                choices |= {"opens": opens, "closes": closes}
            except ValueError as error:
                errors["closes"] = str(error)
    if answer.changed("timezone"):
        if values["timezone"] and values["timezone"] not in zone_names():
            errors["timezone"] = gettext("We do not know this time zone. Choose one from the list.")
        choices["timezone"] = values["timezone"] or None
    if answer.changed("language"):
        if values["language"] and values["language"] not in languages:
            errors["language"] = gettext(
                "We do not send messages in this language. Choose one from the list."
            )
        choices["language"] = values["language"] or None
    ticked = {
        box: values[box_name(*box)] == TICKED
        for box in boxes(policy, chosen.consent)
        if answer.changed(box_name(*box))
    }
    stops = {
        channel: values[stop_name(channel)] == TICKED
        for channel in with_stop(policy, chosen)
        if answer.changed(stop_name(channel))
    }
    consent = consent_of(policy, chosen.consent, ticked, stops)
    return RequestedChanges(Changes() if errors else Changes(consent, choices), errors)


def _per_week(text: str, texts: Texts) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 3 and int(text) > 0:
        return int(text)
    raise ValueError(texts.gettext("This is not a number of the list. Choose one from the list."))


def _hours(
    policy: Policy, opens: Seconds | None, closes: Seconds | None, texts: Texts
) -> tuple[Seconds | None, Seconds | None]:
    """Check the hours. A missing start or end is midnight.

    Returns None, None for the whole day. Raises ValueError with a message for the customer.
    """
    opens, closes = opens or 0, closes or DAY
    if opens == 0 and closes == DAY:
        return None, None
    if opens in (closes, DAY):
        raise ValueError(
            texts.gettext("Choose an end that is later than {time}.", time=format_time(opens))
        )
    if not any(meets(policy, channel, opens, closes) for channel in offered(policy)):
        hours = hours_offered(policy)
        first, last = format_time(hours[0]), format_time(hours[-1] + HOUR)
        raise ValueError(
            texts.gettext(
                "We never send messages at these hours. Choose hours between {first} and {last}.",
                first=first,
                last=last,
            )
        )
    return opens, closes


def meets(policy: Policy, channel: ChannelName, opens: Seconds, closes: Seconds) -> bool:
    """Whether the hours overlap a window of the channel on at least one day."""
    windows = policy.windows(channel)
    return windows is None or any(
        max(start, begin) < min(end, stop)
        for window in windows
        for start, end in _stretches(window.opens, window.closes)
        for begin, stop in _stretches(opens, closes)
    )


def _stretches(opens: Seconds, closes: Seconds) -> Iterator[tuple[Seconds, Seconds]]:
    """The parts of one day that the hours cover: two when they cross midnight."""
    if opens < closes:
        yield opens, closes
    else:
        yield opens, DAY
        yield 0, closes


def windows_text(policy: Policy, channel: ChannelName, texts: Texts) -> str:
    """The hours of a channel as text: "09:00 to 20:00 or 10:00 to 18:00"."""
    windows: tuple[Window, ...] = policy.windows(channel) or ()
    hours = [
        texts.gettext(
            "{opens} to {closes}", opens=format_time(one.opens), closes=format_time(one.closes)
        )
        for one in windows
    ]
    return texts.gettext(" or ").join(dict.fromkeys(hours))


def numbers_offered(policy: Policy) -> list[int]:
    """The weekly limits to choose from: those below the policy's caps; others have no effect."""
    ours = [
        cap.limit
        for cap in policy.caps
        if set(cap.channels) == set(CHANNELS)
        and cap.topic is None
        and (cap.per == "week" or cap.within == 7 * DAY)
    ]
    return list(range(1, min([8, *ours])))


def hours_offered(policy: Policy) -> list[Seconds]:
    """The whole hours of the day at which a channel may send."""
    return [
        start
        for start in range(0, DAY, HOUR)
        if any(meets(policy, channel, start, start + HOUR) for channel in offered(policy))
    ]


def out_of_reach(policy: Policy, chosen: Chosen) -> list[ChannelName]:
    """Channels with consent on which nothing can be sent at the chosen hours."""
    if chosen.opens is None or chosen.closes is None:
        return []
    wanted = {channel for (channel, _), yes in boxes(policy, chosen.consent).items() if yes}
    return [
        channel
        for channel in offered(policy, chosen.consent)
        if channel in wanted
        and not stopped(chosen.consent, channel)
        and channel in chosen.addresses
        and not meets(policy, channel, chosen.opens, chosen.closes)
    ]
