"""The statements of a journey's report: counts of its messages and enrollments, in groups.

Each statement reads one journey on SQLite or PostgreSQL, and is built once for each
`ReportQuestion`. A message is in `message` or, when its retention is over, in `past_message`; most
statements have a branch for each table.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Select,
    Subquery,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from channels.messages import messages, past_messages
from config.channels import channels
from config.clock.times import DAY, MINUTE, Seconds
from config.database.arrays import STATEMENTS, any_of, one_of, rows_of
from journeys.analytics.revenue import RevenueMapping, order_values
from journeys.enrollments import enrollments
from journeys.operations.counts import (
    HANDED_OVER,
    REACTIONS,
    RETURNED,
    RETURNS,
    SENT,
    counted_state,
)
from journeys.tables import experiment_arms, passage_totals, passages
from profiles.conditions.json_path import Place
from profiles.conditions.language import Condition
from profiles.conditions.sql import Scope, condition_holds
from profiles.tables import consent_records, events, profiles

# What messages are grouped by; enrollments have no step.
Grouping = Literal["step", "arm", "week", "launch", "all"]
# Offsets of time zones are multiples of this, so each slot is in one week in every zone.
SLOT: Seconds = 15 * MINUTE
# Seconds after a message in which a no counts for it.
NO_WITHIN: Seconds = 7 * DAY
# Domains of the two large mailbox providers, as patterns of SQL's LIKE.
MAILBOXES = {
    "Gmail": ("%@gmail.com", "%@googlemail.com"),
    "Yahoo": ("%@yahoo.%", "%@ymail.com", "%@rocketmail.com", "%@aol.com", "%@myyahoo.com"),
}
OTHER_MAILBOX = "others"
# The one that reports no complaints to senders' providers; it shows them in its Postmaster Tools.
NO_COMPLAINTS = "Gmail"

# Of a row_number. PostgreSQL expects a third of the rows below a number, but 0.5 % that equal one,
# for which it takes a nested loop.
_SECOND = 2

_Columns = ReadOnlyColumnCollection[str, Any]
_v, _e, _n = events.c, enrollments.c, consent_records.c
# The columns that both tables of messages have.
_SHARED = [column.name for column in past_messages.c]
_since = bindparam("since", type_=BigInteger)
_until = bindparam("until", type_=BigInteger)
_now = bindparam("now", type_=BigInteger)
_journey = bindparam("of_journey", type_=Text)


class ReportQuestion(NamedTuple):
    """What a statement counts.

    grouping: by what. dated: only the period in the parameters `since` and `until` (instants; the
    end is exclusive). launched: only the launch in the parameter `of_launch`. within: only profiles
    for which this condition holds now.

    All statements take the parameters `of_journey` and `now`. The grouping `arm` takes
    `experiments`, the names of steps, and `following`, pairs of an experiment and a step after it.
    """

    grouping: Grouping
    sqlite: bool
    dated: bool = False
    launched: bool = False
    within: Condition | None = None


def _first_arms() -> Subquery:
    """The arm of each profile in each experiment: that of the first passage.

    Columns: profile_id, step, outcome, at.
    """
    columns = ("profile_id", "enrollment_id", "step", "outcome", "at")
    taken = union_all(
        *(
            select(*(table.c[name] for name in columns)).where(
                table.c.journey == _journey, any_of(table.c.step, "experiments")
            )
            for table in (passages, experiment_arms)
        )
    ).subquery()
    c = taken.c
    number = func.row_number().over(
        partition_by=(c.profile_id, c.step), order_by=(c.at, c.enrollment_id)
    )
    ranked = select(c.profile_id, c.step, c.outcome, c.at, number.label("nth")).subquery().c
    first = select(ranked.profile_id, ranked.step, ranked.outcome, ranked.at)
    return first.where(ranked.nth < _SECOND).subquery("arms")


_ARMS = _first_arms()
_FOLLOWING = select(rows_of("following", passages.c.step.label("of"), passages.c.step))


@lru_cache(maxsize=STATEMENTS)
def message_states(question: ReportQuestion) -> CompoundSelect[Any]:
    """Group, part, channel, mailbox provider, 1 for past messages, counted state, reason, number.

    A message that was handed over counts at that time, others when they were wanted.
    """
    m = messages.c
    state = counted_state()
    at = case((one_of(state, HANDED_OVER), m.send_at), else_=m.wanted_at)
    rows = select(
        *(*_keys(question, m), m.channel, _mailbox(m), literal(0)),
        *(state.label("counted"), m.reason, func.count()),
    )
    keys = ("key", "part", m.channel, "mailbox", "counted", m.reason)
    counted = _scoped(rows, question, m, at).group_by(*keys)
    if question.dated:  # `at` is one of these, which have an index
        counted = counted.where(or_(_in_period(m.send_at), _in_period(m.wanted_at)))
    p = past_messages.c
    was = case((p.state == "failed", RETURNED), else_=p.state)
    rows = select(
        *(*_keys(question, p), p.channel, _mailbox(p), literal(1)),
        *(was.label("counted"), null().label("reason"), func.count()),
    )
    past = _scoped(rows, question, p, p.send_at).where(_handed_over(p, question))
    return union_all(counted, past.group_by("key", "part", p.channel, "mailbox", "counted"))


@lru_cache(maxsize=STATEMENTS)
def feedback(question: ReportQuestion) -> CompoundSelect[Any]:
    """Group, part, channel, mailbox provider, kind of report, number of messages with one."""

    def branch(c: _Columns) -> Select[Any]:
        kind = func.substr(_v.name, func.length(c.channel) + 2).label("reported")
        number = func.count(c.id.distinct())
        rows = select(*_keys(question, c), c.channel, _mailbox(c), kind, number)
        return (
            _scoped(rows, question, c, c.send_at)
            .join(events, _reports(c, question, REACTIONS))
            .where(_handed_over(c, question))
            .group_by("key", "part", c.channel, "mailbox", "reported")
        )

    return _both(branch)


@lru_cache(maxsize=STATEMENTS)
def clicked_links(question: ReportQuestion) -> CompoundSelect[Any]:
    """Step, channel, URL (NULL: unknown), number of messages in which it was clicked."""

    def branch(c: _Columns) -> Select[Any]:
        url = _property("url", question.sqlite).label("url")
        rows = select(c.step, c.channel, url, func.count(c.id.distinct()))
        return (
            _scoped(rows, question, c, c.send_at)
            .join(events, _reports(c, question, ["clicked"]))
            .where(_handed_over(c, question))
            .group_by(c.step, c.channel, "url")
        )

    return _both(branch)


@lru_cache(maxsize=STATEMENTS)
def conversions(question: ReportQuestion) -> Select[Any]:
    """Group, part, channel, mailbox provider, number of conversions.

    Each counts for the last message of its enrollment before it.
    """

    def branch(c: _Columns) -> Select[Any]:
        mine = (
            (c.profile_id == _e.profile_id)
            & (c.bucket == _e.bucket)
            & (c.enrollment_id == _e.id)
            & (c.send_at <= _e.converted_at)
        )
        return (
            select(_e.id.label("cause"), *_columns(c))
            .join_from(enrollments, c.id.table, mine)
            .where(
                _e.journey == _journey,
                _e.converted_at.is_not(None),
                *((_e.converted_at >= _since, c.send_at >= _since) if question.dated else ()),
                _handed_over(c, question),
            )
        )

    c = _last(branch)
    rows = select(*_keys(question, c), c.channel, _mailbox(c), func.count())
    return _scoped(rows, question, c, c.send_at).group_by("key", "part", c.channel, "mailbox")


@lru_cache(maxsize=STATEMENTS)
def orders(question: ReportQuestion, mapping: RevenueMapping) -> Select[Any]:
    """Group, part, channel, mailbox provider, amount, currency, number of orders.

    Each counts for the last message before it, of all journeys. Takes the parameter `goal_within`,
    seconds.
    """
    amount, currency = order_values(mapping, sqlite=question.sqlite)
    within = bindparam("goal_within", type_=BigInteger)

    def branch(c: _Columns) -> Select[Any]:
        before = (
            (c.profile_id == _v.profile_id)
            & (c.bucket == _v.bucket)
            & (c.send_at <= _v.occurred_at)
            & (c.send_at > _v.occurred_at - within)
        )
        return (
            select(_v.id.label("cause"), amount, currency, *_columns(c))
            .join_from(events, c.id.table, before)
            .where(
                _v.name == mapping.event,
                *(_causes(_v.occurred_at, c, within) if question.dated else ()),
                _v.occurred_at <= _now,
                _v.profile_id.in_(select(_e.profile_id).where(_e.journey == _journey)),
                _handed_over(c, question),
            )
        )

    c = _last(branch, "amount", "currency")
    rows = select(*_keys(question, c), c.channel, _mailbox(c), c.amount, c.currency, func.count())
    found = _scoped(rows, question, c, c.send_at)
    return found.group_by("key", "part", c.channel, "mailbox", c.amount, c.currency)


@lru_cache(maxsize=STATEMENTS)
def noes(question: ReportQuestion) -> Select[Any]:
    """Group, part, channel, mailbox provider, number of messages after which the customer said no.

    The no is about the channel or the topic of the message, which is the last one on the channel
    before it, of all journeys. Imported statements are none.
    """

    def branch(c: _Columns) -> Select[Any]:
        before = (
            (c.profile_id == _n.profile_id)
            & (c.bucket == _n.bucket)
            & (c.channel == _n.channel)
            & (c.send_at <= _n.occurred_at)
            & (c.send_at > _n.occurred_at - NO_WITHIN)
        )
        return (
            select(_n.id.label("cause"), _n.topic.label("no_to"), *_columns(c))
            .join_from(consent_records, c.id.table, before)
            .where(
                _n.granted.is_(False),
                *(_causes(_n.occurred_at, c, literal(NO_WITHIN)) if question.dated else ()),
                ~_n.source.startswith("import "),
                _handed_over(c, question),
            )
        )

    c = _last(branch, "no_to")
    rows = select(*_keys(question, c), c.channel, _mailbox(c), func.count(c.id.distinct()))
    return (
        _scoped(rows, question, c, c.send_at)
        .where(or_(c.no_to == "*", c.no_to == c.topic))
        .group_by("key", "part", c.channel, "mailbox")
    )


@lru_cache(maxsize=STATEMENTS)
def delays(question: ReportQuestion) -> Select[Any]:
    """Channel, minutes, whether it is sent, number of the messages that were planned for later.

    A message counts if its rules allowed no earlier time than the one that it is planned for.
    """
    m = messages.c
    decided = cast(m.decision["send_at"].as_string(), Text)
    at = (
        func.unixepoch(decided)
        if question.sqlite
        else cast(func.extract("epoch", func.timestamptz(decided)), BigInteger)
    )
    wanted_at = m.wanted_at + m.after
    gone = case((one_of(m.state, SENT), 1), else_=0).label("gone")
    # A message never goes before the time that it was planned for, so most need no look at that.
    later = (
        _scoped(select(m.channel, (at - wanted_at).label("late"), gone), question, m, m.wanted_at)
        .where(
            one_of(m.state, ("planned", "sending", *SENT)),
            m.send_at - wanted_at >= MINUTE,
        )
        .offset(0)  # PostgreSQL would read the decision for each use of its time
        .subquery()
        .c
    )
    minutes = (later.late / MINUTE if question.sqlite else func.div(later.late, MINUTE)).label(
        "minutes"
    )
    return (
        select(later.channel, minutes, later.gone, func.count())
        .where(later.late >= MINUTE)
        .group_by(later.channel, "minutes", later.gone)
    )


@lru_cache(maxsize=STATEMENTS)
def entries(question: ReportQuestion) -> Select[Any]:
    """Group, part, active (0 or 1), number of enrollments, number of converted ones."""
    active = case((_e.ended_at.is_(None), 1), else_=0).label("active")
    rows = select(*_keys(question, _e), active, func.count(), func.count(_e.converted_at))
    return _scoped(rows, question, _e, _e.entered_at).group_by("key", "part", "active")


@lru_cache(maxsize=STATEMENTS)
def positions(question: ReportQuestion) -> Select[Any]:
    """Step, reason of the end (NULL: there now), number of enrollments."""
    rows = select(_e.step, _e.end_reason, func.count())
    return _scoped(rows, question, _e, _e.entered_at).group_by(_e.step, _e.end_reason)


@lru_cache(maxsize=STATEMENTS)
def moves(question: ReportQuestion) -> Select[Any]:
    """Step, outcome, number of the enrollments that left the step with it, without removed ones."""
    p = passages.c
    rows = select(p.step, p.outcome, func.count()).group_by(p.step, p.outcome)
    if not question.dated and not question.launched:
        return rows.where(p.journey == _journey)
    mine = (_e.id == p.enrollment_id) & (_e.bucket == p.bucket)
    return _scoped(rows.join_from(passages, enrollments, mine), question, _e, _e.entered_at)


_t = passage_totals.c
REMOVED_MOVES = (
    select(_t.step, _t.outcome, func.sum(_t.number))
    .where(_t.journey == _journey)
    .group_by(_t.step, _t.outcome)
)


# Parts --------------------------------------------------------------------------------------------


def _keys(question: ReportQuestion, c: _Columns) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The group and the part of it that a row counts for."""
    nothing = literal("").label("part")
    match question.grouping:
        case "step":
            return c.step.label("key"), c.channel.label("part")
        case "arm":
            return _ARMS.c.step.label("key"), _ARMS.c.outcome.label("part")
        case "week":
            at = c.send_at if "send_at" in c else c.entered_at
            return (at - at % SLOT).label("key"), nothing
        case "launch":
            return func.coalesce(_e.launch_id, "").label("key"), nothing
        case "all":
            return literal("").label("key"), nothing


def _scoped(
    rows: Select[Any], question: ReportQuestion, c: _Columns, at: ColumnElement[int]
) -> Select[Any]:
    """The rows of the question, in the period by their time `at`.

    For the arm of its profile, a message counts from the draw on at steps after the experiment, and
    an enrollment unless it ended before the draw.
    """
    rows = rows.select_from(c.profile_id.table)
    rows = rows.where(c.journey == _journey)
    if question.dated:
        rows = rows.where(_in_period(at))
    if (question.launched or question.grouping == "launch") and "launch_id" not in c:
        rows = rows.join(enrollments, (_e.id == c.enrollment_id) & (_e.bucket == c.bucket))
    if question.launched:
        rows = rows.where(_e.launch_id == bindparam("of_launch"))
    if question.grouping == "arm":
        drawn = c.profile_id == _ARMS.c.profile_id
        if "ended_at" in c:
            drawn &= or_(c.ended_at.is_(None), c.ended_at >= _ARMS.c.at)
        else:
            drawn &= (c.wanted_at >= _ARMS.c.at) & tuple_(_ARMS.c.step, c.step).in_(_FOLLOWING)
        rows = rows.join(_ARMS, drawn)
    if question.within is not None:
        rows = rows.where(c.profile_id.in_(_members(question)))
    return rows


def _in_period(at: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(at >= _since, at < _until)


def _causes(
    at: ColumnElement[int], c: _Columns, within: ColumnElement[int]
) -> list[ColumnElement[bool]]:
    """The conditions on what counts for the last message before it, and on these messages.

    A message of the period is the last one before what came up to `within` after the period; if the
    last one came before the period, nothing counts.
    """
    return [at >= _since, at < _until + within, c.send_at >= _since, c.send_at < _until + within]


def _mailbox(c: _Columns) -> ColumnElement[str]:
    """The mailbox provider of a message's address: one of MAILBOXES, or OTHER_MAILBOX."""
    which = [
        (or_(*(c.address.like(pattern) for pattern in patterns)), name)
        for name, patterns in MAILBOXES.items()
    ]
    return case(*which, else_=OTHER_MAILBOX).label("mailbox")


def _members(question: ReportQuestion) -> Select[tuple[int]]:
    assert question.within is not None
    scope = Scope(sqlite=question.sqlite, profile_id=profiles.c.id)
    return select(profiles.c.id).where(condition_holds(question.within, scope))


def _columns(c: _Columns) -> list[ColumnElement[Any]]:
    return [c[name] for name in _SHARED]


def _both(branch: Callable[[_Columns], Select[Any]]) -> CompoundSelect[Any]:
    return union_all(branch(messages.c), branch(past_messages.c))


def _last(branch: Callable[[_Columns], Select[Any]], *more: str) -> _Columns:
    """The last message of each `cause`, in both tables, with the columns of a past message."""
    found = _both(branch).subquery().c
    number = func.row_number().over(
        partition_by=found.cause, order_by=(found.send_at.desc(), found.id.desc())
    )
    kept: Sequence[ColumnElement[Any]] = [found[name] for name in (*_SHARED, *more)]
    ranked = select(number.label("nth"), *kept).subquery().c
    last = select(*(ranked[name] for name in (*_SHARED, *more))).where(ranked.nth < _SECOND)
    return last.subquery("last_message").c


def _handed_over(c: _Columns, question: ReportQuestion) -> ColumnElement[bool]:
    """Whether a provider accepted the message, or may have.

    A past message that failed does not say whether the provider had accepted it; a report does.
    """
    returned = (
        c.provider_id.is_not(None)
        if c is messages.c
        else select(literal(1))
        .select_from(events)
        .where(_reports(c, question, RETURNS))
        .correlate(c.id.table)
        .exists()
    )
    return or_(one_of(c.state, SENT), (c.state == "failed") & returned)


def _reports(c: _Columns, question: ReportQuestion, kinds: Sequence[str]) -> ColumnElement[bool]:
    """Whether an event is a report of one of these kinds on the message."""
    named: ColumnElement[bool]
    if question.sqlite and c is messages.c:
        # It searches by name and profile for each message: the fewer names the better.
        named = _v.name.in_([c.channel + f"_{kind}" for kind in kinds])
    else:
        named = one_of(_v.name, [f"{channel}_{kind}" for channel in channels() for kind in kinds])
    return and_(
        _v.profile_id == c.profile_id,
        _v.bucket == c.bucket,
        named,
        _property("message_id", question.sqlite) == cast(c.id, Text),
    )


def _property(name: str, sqlite: bool) -> ColumnElement[str]:
    value: ColumnElement[str] = Place(sqlite=sqlite, document=_v.properties, members=(name,)).value(
        ""
    )
    return value
