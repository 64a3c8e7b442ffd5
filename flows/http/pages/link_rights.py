"""The rights of a link to a customer's page.

A link is made for one profile and one address. While the profile exists, the link has all rights
for it, even if the address has changed. After the profile is merged into another one, the link can
only withdraw consent for its address. It has no rights if the merge withheld the address, because
nothing is sent to such an address.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from channels.links import address_of
from config.channels import ChannelName
from config.database.engine import Tx
from config.settings import Settings
from profiles.consent.preferences import Chosen, read_chosen
from profiles.identity.addresses import CHANNELS_TO, is_in_use
from profiles.identity.person import Key
from profiles.identity.survivors import Survivor, survivor_of
from profiles.tables import identifiers


@dataclass(frozen=True, slots=True)
class Rights:
    """The profile of a link, and the rights of the link.

    chosen: the choices of the profile that exists now.
    own: whether the link was made for that profile, and so has all rights.
    withdraws: if not, the channels on which it can withdraw consent, each with the address that the
    link was made for, if that is known.
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
    """The rights of a link; None if the profile no longer exists.

    Parameters
    ----------
    profile_id, digest, channel: read from the link; links of earlier releases have no digest.
    lock: lock the profile until the transaction ends.
    """
    found = chosen_now(tx, profile_id, lock=lock)
    if found is None:
        return None
    chosen, survivor = found
    if survivor is None:
        return Rights(chosen, own=True, withdraws={})
    return Rights(chosen, own=False, withdraws=_withdraws(tx, settings, survivor, digest, channel))


def chosen_now(
    tx: Tx, profile_id: int, *, lock: bool = False
) -> tuple[Chosen, Survivor | None] | None:
    """The choices of a profile, or of the one that it was merged into, with its merge.

    None if no profile is left. lock: lock the profile until the transaction ends.
    """
    while True:
        survivor = survivor_of(tx, profile_id)
        now = profile_id if survivor is None else survivor.profile_id
        chosen = read_chosen(tx, now, lock=lock)
        if chosen is not None:
            return chosen, survivor
        if survivor_of(tx, now) is None:
            return None


def _withdraws(
    tx: Tx, settings: Settings, survivor: Survivor, digest: str, channel: ChannelName | None
) -> Mapping[ChannelName, str | None]:
    c = identifiers.c
    found = select(c.kind, c.value, is_in_use().label("in_use")).where(
        c.profile_id == survivor.profile_id, c.kind.in_(tuple(CHANNELS_TO))
    )
    known: dict[Key, bool] = {(row.kind, row.value): row.in_use for row in tx.conn.execute(found)}
    made_for = survivor.addresses
    if digest:
        address = address_of(settings, digest, {*survivor.addresses, *survivor.withheld, *known})
        made_for = frozenset() if address is None else frozenset([address])
    if channel is not None:
        made_for = frozenset(key for key in made_for if channel in CHANNELS_TO[key[0]])
        if not made_for:  # the address is unknown; the opt-out still counts
            return {channel: None}
    return {
        name: key[1]
        for key in sorted(made_for)
        if key not in survivor.withheld or known.get(key)
        for name in (CHANNELS_TO[key[0]] if channel is None else [channel])
    }
