"""The retention of messages, passages and events. It changes no decision and no report.

- Messages that are long over are removed with their devices, when also their enrollment ended long
  ago. `message_total` counts them; `past_message` keeps what provider reports and goals need.
- Passages are removed. `passage_total` counts them; `experiment_arm` keeps the arms of profiles.
- Acts are removed from the log of the staff site.
- Of processed events the properties are removed, unless a condition reads those of events with this
  name, or reports do: orders, survey answers, opens and clicks. The row stays, because all-time
  conditions count it and its `dedupe_key` makes a repeated call change nothing.

docs/decisions/0033-retention.md has the reasons.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    insert,
    literal,
    not_,
    or_,
    select,
    tuple_,
    update,
)

from channels.messages import messages, past
from channels.messages.transitions import is_open
from channels.rules.caps import reach
from config.access.staff_acts import delete_acts
from config.clock.times import DAY, Instant, Seconds
from config.database.arrays import InsertRows, any_of, insert_or_update, one_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import lock_rows
from config.settings import Settings
from journeys.definition.catalog import Catalog
from journeys.engine.advance import Engine
from journeys.enrollments import enrollments
from journeys.operations.counts import (
    FEEDBACK_EVENTS,
    HANDED_OVER,
    counted_reason,
    counted_state,
)
from journeys.tables import (
    experiment_arms,
    journey_versions,
    message_totals,
    passage_totals,
    passages,
    retention_positions,
    steps_shown,
)
from profiles.tables import events

# Caps that customers choose are per week; calendar weeks of all time zones lie within 9 days.
_PREFERENCES_REACH: Seconds = 9 * DAY


_m, _e, _p, _v = messages.c, enrollments.c, passages.c, events.c


class Removed(NamedTuple):
    """How many messages and passages were removed, how many events lost their properties, and how
    many acts were removed from the log of the staff site.
    """

    messages: int
    passages: int
    events: int
    acts: int


class Retention:
    """Applies the retention that the settings state.

    Parameters
    ----------
    chunk: the most rows of a transaction.
    chunks: the most transactions for each table in one `apply`.
    """

    def __init__(
        self, engine: Engine, settings: Settings, *, chunk: int = 1_000, chunks: int = 200
    ) -> None:
        self._chunk = chunk
        self._chunks = chunks
        self._engine = engine
        self._db = engine.db
        caps = max(reach(engine.planner.policy.caps), _PREFERENCES_REACH)
        of_messages = settings.message_retention
        self._messages = None if of_messages is None else max(of_messages, caps)
        self._passages = settings.passage_retention
        self._events = settings.event_retention
        self._acts = settings.staff_log_retention
        self._reported = {settings.revenue_event, settings.satisfaction_event, *FEEDBACK_EVENTS}

    def apply(self) -> Removed:
        """Apply the retention in short transactions, some for each table.

        The next call continues. Where one has nothing left to do, the one after it begins anew.
        """
        return Removed(
            messages=self._apply(self._messages, self._remove_messages),
            passages=self._apply(self._passages, self._remove_passages),
            events=self._apply(self._events, self._remove_properties),
            acts=self._apply(self._acts, self._remove_acts),
        )

    def _apply(
        self, lasts: Seconds | None, chunk: Callable[[Tx, Instant], tuple[int, bool]]
    ) -> int:
        removed = 0
        for _ in range(0 if lasts is None else self._chunks):
            assert lasts is not None
            with self._db.transaction() as tx:
                number, more = chunk(tx, tx.now - lasts)
            removed += number
            if not more:
                break
        return removed

    def _remove_acts(self, tx: Tx, before: Instant) -> tuple[int, bool]:
        removed = delete_acts(tx, before, self._chunk)
        return removed, removed == self._chunk

    def _remove_messages(self, tx: Tx, before: Instant) -> tuple[int, bool]:
        window = self._window(tx, "message", before)
        if window is None:
            return 0, False
        rows = lock_rows(tx, _OVER, {**window, "before": before})
        if rows:
            shown = _shown(tx)
            numbers = Counter(
                (
                    *(row.journey, row.launch_id or "", row.step, row.channel, row.counted),
                    counted_reason(row.counted, row.reason),
                    _since(shown, row.journey, row.step, _acted_at(row)),
                )
                for row in rows
            )
            _ADD_MESSAGES(tx.conn, [(*key, numbers[key]) for key in sorted(numbers)])
            past.remove(tx, [row.id for row in rows])
        return len(rows), True

    def _remove_passages(self, tx: Tx, before: Instant) -> tuple[int, bool]:
        rows = lock_rows(tx, _OLD, {"before": before}, most=self._chunk)
        if rows:
            shown = _shown(tx)
            numbers = Counter(
                (
                    *(row.journey, row.step, row.outcome),
                    _since(shown, row.journey, row.step, row.at),
                )
                for row in rows
            )
            _ADD_PASSAGES(tx.conn, [(*key, numbers[key]) for key in sorted(numbers)])
            given = {
                "gone": [(row.profile_id, row.enrollment_id, row.step) for row in rows],
                "profiles": {row.profile_id for row in rows},
                "buckets": {row.bucket for row in rows},
                "experiments": _steps(tx, "experiment"),
            }
            tx.conn.execute(_KEEP_ARMS, given)
            tx.conn.execute(_REMOVE, given)
        return len(rows), len(rows) == self._chunk

    def _remove_properties(self, tx: Tx, before: Instant) -> tuple[int, bool]:
        window = self._window(tx, "event", before)
        if window is None:
            return 0, False
        read = _events_with_properties(tx, self._engine.catalog) | self._reported
        rows = lock_rows(tx, _WORKED, {**window, "before": before, "read": read})
        if rows:
            tx.conn.execute(_FORGET, {"events": [row.id for row in rows]})
        return len(rows), True

    def _window(self, tx: Tx, name: str, before: Instant) -> dict[str, int] | None:
        """The next rows of a table in the order of their ids: the parameters `after` and `up_to`.

        Ids have nearly the order of time, so the walk ends at the first window without a row from
        before `before`, and the next one starts at the beginning. Then, or while another process
        has a window of this table, there is none.
        """
        _ADD_POSITION(tx.conn, [(name, 0)])
        after = tx.conn.scalar(_POSITION, {"of": name})
        if after is None:
            return None
        given = {"after": after, "most": self._chunk}
        rows = tx.conn.execute(_IN_ORDER[name], given).all()
        there = any(row.at < before for row in rows)
        up_to = rows[-1].id if there else 0
        _PUT_POSITION(tx.conn, [(name, up_to)])
        return {"after": after, "up_to": up_to} if there else None


_r = retention_positions.c
_ADD_POSITION = InsertRows(_r.name, _r.position, on_conflict="DO NOTHING")
_PUT_POSITION = insert_or_update(_r.name, _r.position)
_POSITION = select(_r.position).where(_r.name == bindparam("of")).with_for_update(skip_locked=True)
_IN_ORDER = {
    number.table.name: select(number, at.label("at"))
    .where(number > bindparam("after"))
    .order_by(number)
    .limit(bindparam("most"))
    for number, at in ((_m.id, _m.wanted_at), (_v.id, _v.received_at))
}
_SHOWN = select(steps_shown)


def _shown(tx: Tx) -> dict[tuple[str, str], Instant]:
    """Up to when flow runs have shown each step."""
    return {(row.journey, row.step): row.until for row in tx.conn.execute(_SHOWN)}


def _since(shown: dict[tuple[str, str], Instant], journey: str, step: str, at: Instant) -> Instant:
    """`since` of a total: the next run counts what happened from the last one on."""
    until = shown.get((journey, step), 0)
    return until if until <= at else 0


# Messages -----------------------------------------------------------------------------------------


_BEFORE = bindparam("before", type_=BigInteger)
_OVER = (
    select(
        *(_m.id, _m.journey, _m.step, _m.channel, _m.reason, _m.wanted_at, _m.send_at),
        counted_state().label("counted"),
        _e.launch_id,
    )
    .join_from(messages, enrollments, (_e.id == _m.enrollment_id) & (_e.bucket == _m.bucket))
    .where(
        _m.id > bindparam("after"),
        _m.id <= bindparam("up_to"),
        in_buckets(_m.bucket),
        _m.wanted_at < _BEFORE,
        _m.send_at < _BEFORE,
        or_(
            one_of(_m.state, ("sent", "delivered", "failed", "skipped", "cancelled")),
            # reports on it are not expected any more
            (_m.state == "unknown") & not_(is_open),
        ),
        # Its steps and its Send steps' fallbacks read the messages of a current enrollment.
        _e.ended_at < _BEFORE,
    )
    .order_by(_m.id)
    .with_for_update(of=messages, skip_locked=True)
)
_ADD_MESSAGES = InsertRows(
    *message_totals.c,
    on_conflict="(journey, launch_id, step, channel, state, reason, since) "
    "DO UPDATE SET number = message_total.number + excluded.number",
)


def _acted_at(row: Any) -> Instant:
    """When runs show a message: when it was wanted, and again when it was handed over."""
    at: Instant = max(row.wanted_at, row.send_at) if row.counted in HANDED_OVER else row.wanted_at
    return at


# Passages -----------------------------------------------------------------------------------------


_OLD = (
    select(passages)
    .where(_p.at < _BEFORE, in_buckets(_p.bucket))
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_ADD_PASSAGES = InsertRows(
    *passage_totals.c,
    on_conflict="(journey, step, outcome, since) "
    "DO UPDATE SET number = passage_total.number + excluded.number",
)
_GONE = (
    any_of(_p.profile_id, "profiles"),
    in_buckets(_p.bucket),
    tuple_(_p.profile_id, _p.enrollment_id, _p.step).in_(
        select(rows_of("gone", _p.profile_id, _p.enrollment_id, _p.step))
    ),
)


def _earlier(table: Table) -> ColumnElement[bool]:
    """Whether the table has an earlier passage of the profile by the same arm."""
    other = table.alias()
    return (
        select(literal(1))
        .select_from(other)
        .where(
            *(other.c[name] == _p[name] for name in ("profile_id", "journey", "step", "outcome")),
            other.c.bucket == _p.bucket,
            tuple_(other.c.at, other.c.enrollment_id) < tuple_(_p.at, _p.enrollment_id),
        )
        .exists()
    )


_ARM = [column.name for column in experiment_arms.c]
_KEEP_ARMS = insert(experiment_arms).from_select(
    _ARM,
    select(*(_p[name] for name in _ARM)).where(
        *_GONE,
        tuple_(_p.journey, _p.step).in_(select(rows_of("experiments", _p.journey, _p.step))),
        not_(_earlier(passages)),
        not_(_earlier(experiment_arms)),
    ),
    include_defaults=False,
)
_REMOVE = delete(passages).where(*_GONE)


# Events -------------------------------------------------------------------------------------------


_WORKED = (
    select(_v.id)
    .where(
        _v.id > bindparam("after"),
        _v.id <= bindparam("up_to"),
        in_buckets(_v.bucket),
        _v.worked_at.is_not(None),
        _v.received_at < _BEFORE,
        _v.occurred_at < _BEFORE,
        cast(_v.properties, Text) != "{}",
        not_(any_of(_v.name, "read")),
        # Waits and exit rules read the events of a current enrollment.
        not_(
            select(literal(1))
            .select_from(enrollments)
            .where(
                _e.profile_id == _v.profile_id,
                _e.bucket == _v.bucket,
                _e.ended_at.is_(None),
                _e.since <= _v.occurred_at,
            )
            .exists()
        ),
    )
    .order_by(_v.id)
    .with_for_update(of=events, skip_locked=True)
)
_FORGET = update(events).where(any_of(_v.id, "events")).values(properties={})


def _events_with_properties(tx: Tx, catalog: Catalog) -> set[str]:
    """The names of events whose properties a condition reads, in any version or segment, and of
    those that computed traits read."""
    definitions = [definition for _, definition in tx.conn.execute(_JOURNEYS)]
    definitions += [segment.condition.model_dump() for segment in catalog.segments.values()]
    return catalog.traits.event_names() | {
        str(one["event"])
        for one in _parts(definitions, "did")
        if one.get("where") or one.get("same")
    }


def _steps(tx: Tx, kind: str) -> list[tuple[str, str]]:
    """Journey and name of the steps of a type, in any version."""
    return [
        (journey, str(one["name"]))
        for journey, definition in tx.conn.execute(_JOURNEYS)
        for one in _parts(definition, kind)
    ]


_JOURNEYS = select(journey_versions.c.journey, journey_versions.c.definition)


def _parts(definition: Any, kind: str) -> Iterator[dict[str, Any]]:
    """The objects of a type in a definition, at any depth.

    It also reads definitions that only a newer release can load.
    """
    if isinstance(definition, dict):
        if definition.get("type") == kind:
            yield definition
        definition = definition.values()
    elif not isinstance(definition, (list, tuple)):
        return
    for member in definition:
        yield from _parts(member, kind)
