"""The data of one recipient that planning needs: zone, addresses, consent, preferences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from config.channels import ChannelName, channel_of
from config.clock.times import Seconds
from config.clock.zones import zone_name, zones_of_country
from config.policy import CHANNELS, Cap, Policy, Window, format_time
from profiles.identity.addresses import InUse, identifiers_from

TimezoneSource = Literal["profile", "country", "phone", "brand"]
Kind = Literal["marketing", "transactional"]
# The topic of consent for a whole channel.
WHOLE_CHANNEL = "*"


class Zones(NamedTuple):
    """The zones that apply to a recipient, all at the same time, and their source."""

    names: tuple[str, ...]
    source: TimezoneSource
    invalid: str | None = None  # a zone name on the profile that does not exist
    chosen: bool = False  # by the customer, in the preference center


@lru_cache(maxsize=65536)
def zones_for(
    timezone: str | None,
    country: str | None,
    phone_country: str | None,
    brand: str,
    *,
    chosen: str | None = None,
) -> Zones:
    """The zone of the profile, else of its country, else of its phone's country, else the brand's.

    Parameters
    ----------
    timezone: the zone in the profile. country, phone_country: ISO 3166 alpha-2.
    chosen: the zone chosen in the preference center; it overrides all others.
    """
    if name := zone_name(chosen):
        return Zones((name,), "profile", chosen=True)
    invalid = chosen or timezone or None
    if name := zone_name(timezone):
        return Zones((name,), "profile", invalid=chosen)
    if country and (names := zones_of_country(country)):
        return Zones(names, "country", invalid=invalid)
    if phone_country and (names := zones_of_country(phone_country)):
        return Zones(names, "phone", invalid=invalid)
    return Zones((brand,), "brand", invalid=invalid)


class Preferences(NamedTuple):
    """A customer's choices for marketing messages; they apply in addition to the policy.

    per_week: cap on messages in a calendar week, over all channels. hours: window of the day.
    """

    per_week: Cap | None = None
    hours: Window | None = None


@lru_cache(maxsize=4096)
def preferences_of(
    per_week: int | None, opens: Seconds | None, closes: Seconds | None
) -> Preferences:
    """Preferences from the columns of a row. opens, closes: seconds of the local day."""
    cap = None if per_week is None else Cap(channels=CHANNELS, limit=per_week, per="week")
    hours = None
    if opens is not None and closes is not None and opens != closes:
        hours = Window.model_validate(
            {"days": "mon-sun", "from": format_time(opens), "to": format_time(closes)}
        )
    return Preferences(cap, hours)


NO_PREFERENCES = Preferences()


class StatedConsent(NamedTuple):
    """A profile's consent, as channel and topic of each statement; WHOLE_CHANNEL is a topic."""

    granted: frozenset[tuple[str, str]] = frozenset()
    refused: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, said: Iterable[tuple[str, str, object]]) -> "StatedConsent":
        """The consent of rows of channel, topic, and whether it is granted."""
        granted: set[tuple[str, str]] = set()
        refused: set[tuple[str, str]] = set()
        for channel, topic, yes in said:
            (granted if yes else refused).add((channel, topic))
        return cls(frozenset(granted), frozenset(refused))

    def to(self, channel: ChannelName, topic: str) -> bool | None:
        """What was stated of the channel and topic; None: nothing."""
        if (channel, topic) in self.granted:
            return True
        return False if (channel, topic) in self.refused else None


NO_CONSENT = StatedConsent()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Situation:
    """All about a profile that decisions depend on, without its addresses.

    Many profiles that are loaded together share one, so that a decision is made once for all.
    """

    zones: Zones
    addresses: frozenset[str] = frozenset()  # channels with an address
    suppressed: frozenset[str] = frozenset()  # channels whose addresses are all suppressed
    consent: StatedConsent = NO_CONSENT
    held_out: bool = False
    own: Preferences = NO_PREFERENCES

    def refusal(self, policy: Policy, channel: ChannelName, kind: Kind, topic: str) -> str | None:
        """Why messages of this kind may never be sent on the channel; None if they may."""
        if channel not in self.addresses:
            return "no_address"
        if channel in self.suppressed:
            return "suppressed"
        whole = self.consent.to(channel, WHOLE_CHANNEL)
        if whole is False and channel_of(channel).has_stop:
            return "no_consent"  # a STOP applies to all topics and kinds
        if kind == "transactional":
            return None
        granted = self.consent.to(channel, topic)
        if policy.own_yes_only(channel, topic):
            return None if granted else "no_consent"
        granted = whole if granted is None else granted
        if granted is False or (granted is None and policy.opt_in(channel)):
            return "no_consent"
        return "held_out" if self.held_out else None


class Target(NamedTuple):
    """The address that a message is sent to; for a push, one device.

    platform: of a device: ios, android or web.
    """

    address: str
    platform: str | None


class Recipient(NamedTuple):
    """One profile that messages are planned for.

    in_use: its addresses, as ADDRESSES_IN_USE has them.
    """

    situation: Situation
    in_use: Sequence[InUse]

    def targets(self, channel: ChannelName) -> list[Target]:
        """The usable addresses: for push all usable devices, the one seen last first; for other
        channels at most one.
        """
        kind = channel_of(channel).address_kind
        return [
            Target(one.value, one.platform)
            for one in identifiers_from(self.in_use)
            if one.kind == kind and channel not in one.suppressed_on
        ]
