"""On some channels free text may go only for some time after the customer's last message."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import func, select

from channels.outbox.rows import MessageRow
from channels.templates.compile import Template
from config.channels import ChannelName, channel_of
from config.clock.times import Instant
from config.database.engine import Tx
from profiles.bulk import among
from profiles.tables import events

# What a customer writes is one of these events, `whatsapp_replied` ...
_WRITTEN = ("replied", "stopped", "started")


class Templates(Protocol):
    """Where the compiled template of a message comes from."""

    def template(self, journey: str, version: str, step: str, member: str) -> Template:
        """The compiled template of a message."""


def session_ends(tx: Tx, templates: Templates, rows: Sequence[MessageRow]) -> dict[int, Instant]:
    """When the session ends that a message needs, by its id; 0: the customer never wrote.

    Messages that need no session are not in it.
    """
    waiting: dict[ChannelName, list[MessageRow]] = {}
    for row in rows:
        if channel_of(row.channel).session is not None:
            template = templates.template(row.journey, row.version, row.step, row.member)
            if template.is_free_text:
                waiting.setdefault(row.channel, []).append(row)
    ends: dict[int, Instant] = {}
    for channel, some in waiting.items():
        lasts = channel_of(channel).session
        assert lasts is not None
        c = events.c
        found = (
            select(c.profile_id, func.max(c.occurred_at).label("at"))
            .where(
                among(tx, c.profile_id, {row.profile_id for row in some}),
                c.name.in_([f"{channel}_{kind}" for kind in _WRITTEN]),
            )
            .group_by(c.profile_id)
        )
        until = {row.profile_id: row.at + lasts for row in tx.conn.execute(found)}
        ends |= {row.id: until.get(row.profile_id, 0) for row in some}
    return ends
