"""Sessions: the time after a customer's last message in which a channel allows free text."""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

from sqlalchemy import Select, func, select

from channels.outbox.rows import MessageRow
from channels.templates.compile import Template
from config.channels import ChannelName, channel_of
from config.clock.times import Instant
from config.database.arrays import any_of, one_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from profiles.bucketing import buckets_of
from profiles.tables import events

# Inbound texts are recorded as these events: `whatsapp_replied` ...
_WRITTEN = ("replied", "stopped", "started")


class Templates(Protocol):
    """The source of compiled templates."""

    def template(self, journey: str, version: str, step: str, member: str) -> Template:
        """The compiled template of a message."""


def session_ends(tx: Tx, templates: Templates, rows: Sequence[MessageRow]) -> dict[int, Instant]:
    """By message id, the end of the session that the message needs; 0: the customer never wrote.

    Messages that need no session are left out.
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
        people = {row.profile_id for row in some}
        last = tx.conn.execute(
            _last_written(channel), {"people": people, "buckets": buckets_of(people)}
        )
        until = {profile_id: at + lasts for profile_id, at in last}
        ends |= {row.id: until.get(row.profile_id, 0) for row in some}
    return ends


@cache
def _last_written(channel: ChannelName) -> Select[tuple[int, Instant]]:
    """The time of the last message on the channel of each of `people` who wrote one."""
    c = events.c
    return (
        select(c.profile_id, func.max(c.occurred_at))
        .where(
            any_of(c.profile_id, "people"),
            in_buckets(c.bucket),
            one_of(c.name, [f"{channel}_{kind}" for kind in _WRITTEN]),
        )
        .group_by(c.profile_id)
    )
