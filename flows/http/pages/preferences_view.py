"""The values that the templates of customers' pages use."""

from collections.abc import Iterable, Mapping, Sequence
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
from flows.http.pages.texts import Texts, sentence
from flows.http.pages.zone_list import city_of, zones_by_region
from profiles.consent.double_opt_in import CONFIRMED_ON
from profiles.consent.preferences import Chosen

_Options = list[tuple[str, str]]  # value and label


def field_labels(texts: Texts) -> dict[str, str]:
    """The labels of the fields that are no checkboxes."""
    return {
        "per_week": texts.gettext("Most messages in a week"),
        "opens": texts.gettext("From"),
        "closes": texts.gettext("Until"),
        "timezone": texts.gettext("Your time zone"),
        "language": texts.gettext("Your language"),
    }


def topic_label(policy: Policy, topic: str, texts: Texts) -> str:
    """The name of a topic: that of the policy, which the shop writes, or else a text of our own."""
    return texts.gettext(topics_of(policy).get(topic, topic))


def about(channel: ChannelName, topic: str, texts: Texts) -> str:
    """The messages on a channel about a topic, inside a sentence. topic: its label."""
    return texts.gettext(
        "{messages} about “{topic}”",
        messages=texts.gettext(channel_of(channel).plural),
        topic=topic,
    )


def listed(parts: Sequence[str], texts: Texts) -> str:
    """The parts as a list in words: "one and two"."""
    return texts.gettext(" and ").join(parts)


def masked(channel: ChannelName, address: str | None, texts: Texts) -> str:
    """An address, masked so that only its owner recognises it; "" without an address."""
    if address is None:
        return ""
    shown = channel_of(channel).masked(address)
    return texts.gettext(shown.text, shown=shown.shown)


def to_confirm(chosen: Chosen, what: str, texts: Texts) -> str:
    """The text that asks a customer to confirm an e-mail opt-in. what: as `about` says it."""
    return texts.gettext(
        "{what} waits for your confirmation. We send an e-mail {to} with a button, at most one a "
        "day. You get nothing until you press it.",
        what=sentence(what),
        to=masked(CONFIRMED_ON, chosen.addresses.get(CONFIRMED_ON), texts),
    )


def preferences_view(
    policy: Policy,
    languages: Mapping[str, str],
    chosen: Chosen,
    answer: FilledForm,
    errors: Mapping[str, str],
    texts: Texts,
) -> dict[str, Any]:
    """The template values of the form, filled in with `answer`."""
    values = answer.values
    gettext, labels = texts.gettext, field_labels(texts)

    def select(name: str, none: str, groups: Mapping[str, _Options]) -> dict[str, Any]:
        return _select(name, labels[name], values[name], none, groups, errors.get(name, ""))

    stopped = [gettext(channel_of(channel).plural) for channel in with_stop(policy, chosen)]
    nothing = listed([gettext("no {messages}", messages=one) for one in stopped], texts)
    hours = hours_offered(policy)
    numbers = [(str(number), str(number)) for number in numbers_offered(policy)]
    return {
        "channels": [
            {
                "id": channel,
                "name": gettext(channel_of(channel).title),
                "to": sentence(masked(channel, chosen.addresses.get(channel), texts))
                or gettext(channel_of(channel).no_address),
                "boxes": _boxes(policy, channel, values, chosen, texts),
            }
            for channel in offered(policy, chosen.consent)
        ],
        "stops": gettext(
            "This stops all of the above on every channel, and we send you {nothing} at all.",
            nothing=nothing,
        ),
        "per_week": select("per_week", gettext("No limit of my own"), {"": numbers}),
        "opens": select("opens", gettext("Any time"), {"": _times(hours)}),
        "closes": select(
            "closes", gettext("Any time"), {"": _times(hour + HOUR for hour in hours)}
        ),
        "timezone": select(
            "timezone",
            gettext("Leave it to us ({value})", value=_guess(policy, chosen, texts)),
            zones_by_region(texts.language),
        ),
        "language": select(
            "language", _known_language(languages, chosen, texts), {"": list(languages.items())}
        ),
        "shown": [{"name": SHOWN + name, "value": value} for name, value in answer.shown.items()],
        "errors": [
            {"name": name, "label": labels[name], "text": text} for name, text in errors.items()
        ],
    }


def notes(policy: Policy, chosen: Chosen, texts: Texts) -> list[str]:
    """Notes about effects of the choices that a customer may not expect."""
    topics = topics_of(policy)
    waiting = [
        to_confirm(chosen, about(CONFIRMED_ON, topic_label(policy, topic, texts), texts), texts)
        for topic in chosen.unconfirmed
        if topic in topics
    ]
    return waiting + [
        texts.gettext(
            "You get no {messages} at the hours that you chose: we send them only from {hours}.",
            messages=texts.gettext(channel_of(channel).plural),
            hours=windows_text(policy, channel, texts),
        )
        for channel in out_of_reach(policy, chosen)
    ]


def _boxes(
    policy: Policy, channel: ChannelName, values: Fields, chosen: Chosen, texts: Texts
) -> list[dict[str, Any]]:
    waiting = chosen.unconfirmed if channel == CONFIRMED_ON else {}
    labels = {}
    for topic in topics_of(policy):
        label = topic_label(policy, topic, texts)
        if topic in waiting:
            label = texts.gettext("{topic} (waiting for your confirmation)", topic=label)
        labels[box_name(channel, topic)] = label
    stop = stop_name(channel)
    if channel_of(channel).has_stop:
        labels[stop] = texts.gettext(channel_of(channel).stop_label)
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
    name: str, label: str, value: str, none: str, groups: Mapping[str, _Options], error: str
) -> dict[str, Any]:
    """A select element. A recorded value is listed even if it is no longer offered."""
    offered = {one for options in groups.values() for one, _ in options}
    own = [] if value in ("", *offered) else [(value, value)]
    return {
        "name": name,
        "label": label,
        "error": error,
        "apart": name in ("opens", "closes"),  # narrow fields: their error is above both
        "options": [_option(*option, value) for option in [("", none), *own]],
        "groups": [
            # the group without a label is rendered without optgroup
            {"label": group, "options": [_option(*option, value, name) for option in options]}
            for group, options in groups.items()
        ],
    }


def _option(value: str, label: str, chosen: str, of: str = "") -> dict[str, Any]:
    # each language is named in itself, so a screen reader needs its `lang`
    lang = value if of == "language" else ""
    return {"value": value, "label": label, "chosen": value == chosen, "lang": lang}


def _times(seconds: Iterable[int]) -> _Options:
    return [(format_time(one), format_time(one)) for one in seconds]


def _guess(policy: Policy, chosen: Chosen, texts: Texts) -> str:
    """The zone that is used without a choice; short, because a phone shows about 30 characters."""
    zones = zones_for(chosen.known_timezone, chosen.country, chosen.phone_country, policy.timezone)
    if len(zones.names) > 1:
        return texts.gettext("your country’s")
    return city_of(zones.names[0], texts.language)


def _known_language(languages: Mapping[str, str], chosen: Chosen, texts: Texts) -> str:
    """The label of the option without a choice: the language that is used then."""
    known = chosen.known_language
    if not known:
        return texts.gettext("No choice")
    spoken = languages.get(known) or languages.get(known.partition("-")[0]) or known
    return texts.gettext("Leave it to us ({value})", value=spoken)
