"""The values that the templates of customers' pages use."""

from collections.abc import Iterable, Mapping
from typing import Any

from channels.rules.recipient import zones_for
from config.channels import ChannelName, channel_of
from config.clock.times import HOUR
from config.policy import Policy, format_time
from flows.http.pages.choices import offered, topics_of
from flows.http.pages.form import (
    SHOWN,
    TICKED,
    Fields,
    FilledForm,
    box_name,
    hours_offered,
    numbers_offered,
    out_of_reach,
    stop_name,
    windows_text,
    with_stop,
)
from flows.http.pages.zone_list import zones_by_region
from profiles.consent.double_opt_in import CONFIRMED_ON
from profiles.consent.preferences import Chosen

_FIELD_LABELS = {
    "per_week": "Most messages in a week",
    "opens": "From",
    "closes": "Until",
    "timezone": "Your time zone",
    "language": "Your language",
}

_Options = list[tuple[str, str]]  # value and label


def masked(channel: ChannelName, address: str | None) -> str:
    """An address, masked so that only its owner recognises it; "" without an address."""
    return "" if address is None else channel_of(channel).masked(address)


def to_confirm(chosen: Chosen, about: str) -> str:
    """The text that asks a customer to confirm an e-mail opt-in."""
    to = masked(CONFIRMED_ON, chosen.addresses.get(CONFIRMED_ON))
    return (
        f"{about[:1].upper()}{about[1:]} waits for your confirmation. We send an e-mail {to} with "
        "a button, at most one a day. You get nothing until you press it."
    )


def preferences_view(
    policy: Policy,
    languages: Mapping[str, str],
    chosen: Chosen,
    answer: FilledForm,
    errors: Mapping[str, str],
) -> dict[str, Any]:
    """The template values of the form, filled in with `answer`."""
    values = answer.values

    def select(name: str, none: str, groups: Mapping[str, _Options]) -> dict[str, Any]:
        return _select(name, values[name], none, groups, errors.get(name, ""))

    hours = hours_offered(policy)
    numbers = [(str(number), str(number)) for number in numbers_offered(policy)]
    return {
        "channels": [
            {
                "id": channel,
                "name": channel_of(channel).title,
                "to": masked(channel, chosen.addresses.get(channel)).capitalize()
                or channel_of(channel).no_address,
                "boxes": _boxes(policy, channel, values, chosen),
            }
            for channel in offered(policy, chosen.consent)
        ],
        "stops": " and ".join(
            f"no {channel_of(channel).plural}" for channel in with_stop(policy, chosen)
        ),
        "per_week": select("per_week", "No limit of my own", {"": numbers}),
        "opens": select("opens", "Any time", {"": _times(hours)}),
        "closes": select("closes", "Any time", {"": _times(hour + HOUR for hour in hours)}),
        "timezone": select(
            "timezone", f"Leave it to us ({_guess(policy, chosen)})", zones_by_region()
        ),
        "language": select(
            "language", _known_language(languages, chosen), {"": list(languages.items())}
        ),
        "shown": [{"name": SHOWN + name, "value": value} for name, value in answer.shown.items()],
        "errors": [
            {"name": name, "label": _FIELD_LABELS[name], "text": text}
            for name, text in errors.items()
        ],
    }


def notes(policy: Policy, chosen: Chosen) -> list[str]:
    """Notes about effects of the choices that a customer may not expect."""
    topics = topics_of(policy)
    waiting = [
        to_confirm(chosen, f"e-mail about “{topics[topic]}”")
        for topic in chosen.unconfirmed
        if topic in topics
    ]
    return waiting + [
        f"You get no {channel_of(channel).plural} at the hours that you chose: we send them only "
        f"from {windows_text(policy, channel)}."
        for channel in out_of_reach(policy, chosen)
    ]


def _boxes(
    policy: Policy, channel: ChannelName, values: Fields, chosen: Chosen
) -> list[dict[str, Any]]:
    waiting = chosen.unconfirmed if channel == CONFIRMED_ON else {}
    labels = {
        box_name(channel, topic): f"{label} (waiting for your confirmation)"
        if topic in waiting
        else label
        for topic, label in topics_of(policy).items()
    }
    stop = stop_name(channel)
    if channel_of(channel).has_stop:
        labels[stop] = channel_of(channel).stop_label
    return [
        {
            "id": f"{channel}-{number}",
            "name": name,
            "label": label,
            "ticked": values[name] == TICKED,
            "alone": name == stop,
        }
        for number, (name, label) in enumerate(labels.items())
    ]


def _select(
    name: str, value: str, none: str, groups: Mapping[str, _Options], error: str
) -> dict[str, Any]:
    """A select element. A recorded value is listed even if it is no longer offered."""
    offered = {one for options in groups.values() for one, _ in options}
    own = [] if value in ("", *offered) else [(value, value)]
    return {
        "name": name,
        "label": _FIELD_LABELS[name],
        "error": error,
        "apart": name in ("opens", "closes"),  # narrow fields: their error is above both
        "options": [_option(*option, value) for option in [("", none), *own]],
        "groups": [
            # the group without a label is rendered without optgroup
            {"label": label, "options": [_option(*option, value, name) for option in options]}
            for label, options in groups.items()
        ],
    }


def _option(value: str, label: str, chosen: str, of: str = "") -> dict[str, Any]:
    # each language is named in itself, so a screen reader needs its `lang`
    lang = value if of == "language" else ""
    return {"value": value, "label": label, "chosen": value == chosen, "lang": lang}


def _times(seconds: Iterable[int]) -> _Options:
    return [(format_time(one), format_time(one)) for one in seconds]


def _guess(policy: Policy, chosen: Chosen) -> str:
    """The zone that is used without a choice; short, because a phone shows about 30 characters."""
    zones = zones_for(chosen.known_timezone, chosen.country, chosen.phone_country, policy.timezone)
    if len(zones.names) > 1:
        return "your country’s"
    return zones.names[0].rsplit("/", 1)[-1].replace("_", " ")


def _known_language(languages: Mapping[str, str], chosen: Chosen) -> str:
    """The label of the option without a choice: the language that is used then."""
    known = chosen.known_language
    if not known:
        return "No choice"
    spoken = languages.get(known) or languages.get(known.partition("-")[0]) or known
    return f"Leave it to us ({spoken})"
