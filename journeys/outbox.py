"""What the outbox asks of journeys: is this still wanted, what do templates see, which template."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select

from channels.templates import Template
from config.database import Tx
from journeys.catalog import Catalog
from journeys.control import held
from journeys.journey import Version
from journeys.leaving import EXITED, exit_rule
from journeys.sending import answers_to, wake
from journeys.steps import SendStep
from journeys.tables import enrollments
from profiles.bulk import among


class CatalogJourneys:
    """Answers channels.claiming.Journeys out of a catalog and the enrollments."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._templates: dict[tuple[str, str, str, str], Template] = {}

    def held(self, tx: Tx) -> Collection[str]:
        """Journeys that are paused or stopped."""
        return held(tx)

    def unwanted(self, tx: Tx, rows: Sequence[Row[Any]]) -> dict[int, str]:
        """Messages whose enrollment has exited, whose exit rule holds, or that were answered."""
        reasons: dict[int, str] = {}
        by_version: dict[tuple[str, str], list[Row[Any]]] = defaultdict(list)
        for row in rows:
            by_version[row.journey, row.version].append(row)
        self._catalog.learn(tx, by_version)
        for (journey, digest), some in by_version.items():
            version = self._catalog.version(journey, digest)
            ids = {row.enrollment_id for row in some}
            left = _left(tx, version, ids)
            reasons |= {
                row.id: left[row.enrollment_id] for row in some if row.enrollment_id in left
            }
            for step in version.journey.sends():
                of_step = [row for row in some if row.step == step.name]
                if of_step:
                    answers = answers_to(tx, version, step, {row.enrollment_id for row in of_step})
                    for row in of_step:
                        if answer := answers.get(row.enrollment_id):
                            reasons.setdefault(row.id, answer.reason)
        return reasons

    def contexts(self, tx: Tx, enrollment_ids: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        """Templates see the entry event's properties as `event`."""
        found = select(enrollments.c.id, enrollments.c.context).where(
            among(tx, enrollments.c.id, enrollment_ids)
        )
        return {row.id: {"event": row.context} for row in tx.conn.execute(found)}

    def settled(self, tx: Tx, enrollment_ids: Sequence[int], *, skip_locked: bool = False) -> None:
        """People who stand behind these messages are due: their step looks again."""
        wake(tx, enrollment_ids, skip_locked=skip_locked)

    def template(self, journey: str, version: str, step: str, member: str) -> Template:
        """The compiled template of a message."""
        key = (journey, version, step, member)
        if key not in self._templates:
            known = self._catalog.version(journey, version)
            sends = known.journey.graph[step].step
            assert isinstance(sends, SendStep)
            [message] = [one for one in sends.messages if one.member == member]
            self._templates[key] = known.template(message)
        return self._templates[key]


def _left(tx: Tx, version: Version, enrollment_ids: set[int]) -> dict[int, str]:
    """The enrollments that have ended early, or would end now, each with the reason."""
    leaves = exit_rule(tx, version)
    found = select(enrollments.c.id, enrollments.c.end_reason).where(
        among(tx, enrollments.c.id, enrollment_ids),
        (enrollments.c.ended_at.is_not(None) & (enrollments.c.end_reason != "completed")) | leaves,
    )
    return {row.id: row.end_reason or EXITED for row in tx.conn.execute(found)}
