"""What the outbox asks about journeys: unwanted messages, template contexts and templates."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from channels.outbox.rows import MessageRow
from channels.templates.compile import Template
from config.database.arrays import any_of
from config.database.buckets import ALL_BUCKETS, in_buckets
from config.database.engine import Tx
from journeys.definition.steps import SendStep
from journeys.engine.exits import EXITED, exiting
from journeys.engine.move import Mover
from journeys.engine.send import answers_to, lock_waiting, wake_unlocked
from journeys.enrollments import enrollments, transitions
from journeys.operations.control import held
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles

_c = enrollments.c
_these = (any_of(_c.id, "enrollments"), in_buckets(_c.bucket))
_ENDS = select(_c.id, _c.journey, _c.version, _c.end_reason).where(*_these)
_CONTEXTS = select(_c.id, _c.context).where(*_these)


@dataclass(slots=True)
class _Following:
    more: bool = False


class CatalogJourneys:
    """Implements channels.outbox.claim.Journeys with a catalog and the enrollments."""

    def __init__(self, mover: Mover) -> None:
        self._catalog = mover.catalog
        self._mover = mover
        self._templates: dict[tuple[str, str, str, str], Template] = {}

    def held(self, tx: Tx) -> Collection[str]:
        """The journeys that are paused or stopped."""
        return held(tx)

    def unwanted(self, tx: Tx, rows: Sequence[MessageRow]) -> dict[int, str]:
        """The messages not to be sent, by id, with the reason.

        The enrollment exited early, its exit rule holds now, or the group was answered. The exit
        rule of the enrollment's current version counts.
        """
        left = self._left(tx, {row.enrollment_id for row in rows})
        reasons = {row.id: left[row.enrollment_id] for row in rows if row.enrollment_id in left}
        by_version: dict[tuple[str, str], list[MessageRow]] = defaultdict(list)
        for row in rows:
            by_version[row.journey, row.version].append(row)
        self._catalog.learn(tx, by_version)
        for (journey, digest), some in by_version.items():
            version = self._catalog.version(journey, digest)
            for step in version.journey.sends():
                of_step = [row for row in some if row.step == step.name]
                if of_step:
                    answers = answers_to(tx, version, step, {row.enrollment_id for row in of_step})
                    for row in of_step:
                        if answer := answers.get(row.enrollment_id):
                            reasons.setdefault(row.id, answer.reason)
        return reasons

    def _left(self, tx: Tx, enrollment_ids: Collection[int]) -> dict[int, str]:
        """The enrollments that ended early or whose exit rule holds now, with the reason."""
        found = tx.rows(_ENDS, {"enrollments": enrollment_ids, "buckets": tx.buckets})
        left: dict[int, str] = {}
        by_version: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row in found:
            if row.end_reason in (None, "completed"):
                by_version[row.journey, row.version].append(row.id)
            else:
                left[row.id] = row.end_reason
        self._catalog.learn(tx, by_version)
        for (journey, digest), ids in by_version.items():
            version = self._catalog.version(journey, digest)
            left |= dict.fromkeys(exiting(tx, version, ids), EXITED)
        return left

    def contexts(self, tx: Tx, enrollment_ids: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        """The variables of each enrollment: the entry event's properties as `event`."""
        found = tx.rows(_CONTEXTS, {"enrollments": enrollment_ids, "buckets": tx.buckets})
        return {row.id: {"event": row.context} for row in found}

    def settled(self, tx: Tx, enrollment_ids: Sequence[int]) -> None:
        """Make those of the enrollments due whose step waits for a message that is now settled."""
        wake_unlocked(tx, enrollment_ids)

    @contextmanager
    def following(
        self, tx: Tx, enrollment_ids: Collection[int], profile_ids: Collection[int], *, move: bool
    ) -> Iterator["_Following"]:
        """Lock the enrollments that wait for these messages, then the profiles; after the block
        move the enrollments on. Those of a paused journey become due.
        """
        tx.buckets = buckets_of(profile_ids)
        waiting = lock_waiting(tx, enrollment_ids)
        people = {*profile_ids, *(one.profile_id for one in waiting)}
        following = _Following()
        if len(lock_profiles(tx, people)) < len(people):
            # One was merged since the claim, which moved its rows to another bucket.
            tx.buckets = ALL_BUCKETS
            wake_unlocked(tx, list(enrollment_ids))
            following.more = True
        yield following
        holding = held(tx)
        moving = [one for one in waiting if move and one.journey not in holding]
        if len(moving) < len(waiting):
            ids = {one.enrollment_id for one in waiting}
            transitions.wake(tx, ids - {one.enrollment_id for one in moving})
            following.more |= not move
        if moving:
            moved = self._mover.move(tx, moving)
            following.more |= moved.more or bool(moved.planned_now)

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
