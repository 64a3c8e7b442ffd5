"""What a link to a customer's own page may do.

A link is made for one profile and one address. While the profile is there the link counts for it,
whatever its address is by now. Once the profile is part of another one, the link can take back
consent for its address there, and nothing else; not even that where the join did not make the
address usable, for then nothing is sent to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from channels.links import address_of
from config.channels import ChannelName
from config.database import Tx
from config.settings import Settings
from profiles.consent.preferences import Chosen, read_chosen
from profiles.identity.addresses import CHANNELS_TO
from profiles.identity.merge import Heir, heir_of
from profiles.identity.person import Key
from profiles.tables import identifiers


@dataclass(frozen=True, slots=True)
class Rights:
    """Whom a link is about, and what it may do.

    chosen: of the profile that there is now.
    own: the link was made for that profile, and may do all that its page offers.
    withdraws: else the channels on which it can take back consent, each with the address that it
        was made for, where that is known.
    """

    chosen: Chosen
    own: bool
    withdraws: Mapping[ChannelName, str | None]


def rights_of(
    tx: Tx,
    settings: Settings,
    profile_id: int,
    digest: str,
    channel: ChannelName | None = None,
    *,
    lock: bool = False,
) -> Rights | None:
    """The rights of a link; None when nobody is on record any more.

    Parameters
    ----------
    profile_id, digest, channel: what the link names; links of earlier releases have no digest.
    lock: it stays so until the transaction ends.
    """
    found = chosen_now(tx, profile_id, lock=lock)
    if found is None:
        return None
    chosen, heir = found
    if heir is None:
        return Rights(chosen, own=True, withdraws={})
    return Rights(chosen, own=False, withdraws=_withdraws(tx, settings, heir, digest, channel))


def chosen_now(tx: Tx, profile_id: int, *, lock: bool = False) -> tuple[Chosen, Heir | None] | None:
    """What is on record of a profile, or of the one that it is part of by now, and how it went.

    None when nobody is on record any more. With `lock` it stays so until the transaction ends.
    """
    while True:
        heir = heir_of(tx, profile_id)
        now = profile_id if heir is None else heir.profile_id
        chosen = read_chosen(tx, now, lock=lock)
        if chosen is not None:
            return chosen, heir
        if heir_of(tx, now) is None:
            return None


def _withdraws(
    tx: Tx, settings: Settings, heir: Heir, digest: str, channel: ChannelName | None
) -> Mapping[ChannelName, str | None]:
    c = identifiers.c
    found = select(c.kind, c.value, c.retired_at).where(
        c.profile_id == heir.profile_id, c.kind.in_(tuple(CHANNELS_TO))
    )
    known: dict[Key, bool] = {
        (row.kind, row.value): row.retired_at is None for row in tx.conn.execute(found)
    }
    made_for = heir.addresses
    if digest:
        address = address_of(settings, digest, {*heir.addresses, *heir.withheld, *known})
        made_for = frozenset() if address is None else frozenset([address])
    if channel is not None:
        made_for = frozenset(key for key in made_for if channel in CHANNELS_TO[key[0]])
        if not made_for:  # nobody knows the address any more: a no is a no
            return {channel: None}
    return {
        name: key[1]
        for key in sorted(made_for)
        if key not in heir.withheld or known.get(key)
        for name in (CHANNELS_TO[key[0]] if channel is None else [channel])
    }
