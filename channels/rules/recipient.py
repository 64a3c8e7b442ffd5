"""What planning has to know of one person: their zone and where they may be reached."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

from config.channels import ChannelName, channel_of
from config.clock.times import Seconds
from config.clock.zones import zone_name, zones_of_country
from config.policy import CHANNELS, Cap, Policy, Window, format_time

TimezoneSource = Literal["profile", "country", "phone", "brand"]
Kind = Literal["marketing", "transactional"]
# Consent for the whole of a channel, as opposed to one topic on it.
WHOLE_CHANNEL = "*"


class Zones(NamedTuple):
    """The zones that hold for a recipient, all of them at once, and where they came from."""

    names: tuple[str, ...]
    source: TimezoneSource
    invalid: str | None = None  # a zone name on the profile that does not exist
    chosen: bool = False  # by the person themselves, on their own page


@lru_cache(maxsize=65536)
def zones_for(
    timezone: str | None,
    country: str | None,
    phone_country: str | None,
    brand: str,
    *,
    chosen: str | None = None,
) -> Zones:
    """The profile's own zone, else its country's, else its phone's country's, else the brand's.

    Parameters
    ----------
    country, phone_country: ISO 3166 alpha-2.
    chosen: the zone that the person chose; it is the profile's own, whatever others say of them.
    """
    if name := zone_name(chosen):
        return Zones((name,), "profile", chosen=True)
    invalid = chosen or timezone or None
    if name := zone_name(timezone):
        return Zones((name,), "profile", chosen)
    if country and (names := zones_of_country(country)):
        return Zones(names, "country", invalid)
    if phone_country and (names := zones_of_country(phone_country)):
        return Zones(names, "phone", invalid)
    return Zones((brand,), "brand", invalid)


class Preferences(NamedTuple):
    """What a person chose themselves: it narrows the policy, for marketing.

    per_week: at most so many messages a calendar week, over all channels. hours: their own
    window of the day.
    """

    per_week: Cap | None = None
    hours: Window | None = None


@lru_cache(maxsize=4096)
def preferences_of(
    per_week: int | None, opens: Seconds | None, closes: Seconds | None
) -> Preferences:
    """Preferences from what the database keeps; opens and closes are seconds of the local day."""
    cap = None if per_week is None else Cap(channels=CHANNELS, limit=per_week, per="week")
    hours = None
    if opens is not None and closes is not None and opens != closes:
        hours = Window.model_validate(
            {"days": "mon-sun", "from": format_time(opens), "to": format_time(closes)}
        )
    return Preferences(cap, hours)


NO_PREFERENCES = Preferences()


@dataclass(slots=True)
class Recipient:
    """One person as planning sees them."""

    zones: Zones
    addresses: Set[str] = frozenset()  # channels with an address
    suppressed: Set[str] = frozenset()  # channels none of whose addresses may be used
    consent: Mapping[tuple[str, str], bool] = field(default_factory=dict)  # (channel, topic)
    held_out: bool = False
    own: Preferences = NO_PREFERENCES

    def refusal(self, policy: Policy, channel: ChannelName, kind: Kind, topic: str) -> str | None:
        """Why nothing of this kind may reach them on the channel at any hour; None when it may."""
        if channel not in self.addresses:
            return "no_address"
        if channel in self.suppressed:
            return "suppressed"
        whole = self.consent.get((channel, WHOLE_CHANNEL))
        if whole is False and channel_of(channel).has_stop:
            return "no_consent"  # a STOP binds every topic and every kind
        if kind == "transactional":
            return None
        said = self.consent.get((channel, topic))
        if policy.own_yes_only(channel, topic):
            return None if said else "no_consent"
        said = whole if said is None else said
        if said is False or (said is None and policy.opt_in(channel)):
            return "no_consent"
        return "held_out" if self.held_out else None
