"""Everything on record about one customer on one time line, in words for staff."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import BigInteger, bindparam, exists, or_, select

from channels.explain import EXPLAINED_COLUMNS, ExplainedMessage, explanation
from channels.messages import messages, past_messages
from config.channels import channel_of, channels
from config.clock.times import Instant
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.policy import Policy
from profiles.bucketing import bucket_of
from profiles.events import PROFILE_CHANGED
from profiles.tables import consent_records, events, identity_records, join_limit_hits, merges

Tone = Literal["", "ok", "warn", "bad"]
# After the last instant that is shown.
_END: Instant = 2**60
_MOST_JOINS = 100

_PROFILE = bindparam("profile", type_=BigInteger)
_BEFORE = bindparam("before", type_=BigInteger)
_MOST = bindparam("most", type_=BigInteger)
_m, _p, _e, _r, _j = messages.c, past_messages.c, events.c, consent_records.c, merges.c
_l, _h = join_limit_hits.c, identity_records.c
_MESSAGES = (
    select(*EXPLAINED_COLUMNS, _m.address)
    .where(_m.profile_id == _PROFILE, in_buckets(_m.bucket), _m.send_at < _BEFORE)
    .order_by(_m.send_at.desc(), _m.id.desc())
    .limit(_MOST)
)
_PAST = (
    select(_p.send_at, _p.journey, _p.step, _p.channel, _p.state, _p.address)
    .where(_p.profile_id == _PROFILE, in_buckets(_p.bucket), _p.send_at < _BEFORE)
    .order_by(_p.send_at.desc(), _p.id.desc())
    .limit(_MOST)
)
_EVENTS = (
    select(_e.name, _e.occurred_at, _e.properties)
    .where(
        _e.profile_id == _PROFILE,
        in_buckets(_e.bucket),
        _e.occurred_at < _BEFORE,
        _e.name != PROFILE_CHANGED,
    )
    .order_by(_e.occurred_at.desc(), _e.id.desc())
    .limit(_MOST)
)
_CONSENT = (
    select(
        *(_r.channel, _r.topic, _r.granted, _r.occurred_at, _r.recorded_at, _r.source),
        *(_r.wording, _r.evidence, _r.identifier_value),
    )
    .where(_r.profile_id == _PROFILE, in_buckets(_r.bucket), _r.occurred_at < _BEFORE)
    .order_by(_r.occurred_at.desc(), _r.id.desc())
    .limit(_MOST)
)
_OLD_JOINS = (
    select(_j.from_id, _j.into_id, _j.merged_at, _j.why)
    .where(
        or_(_j.into_id == _PROFILE, _j.from_id == _PROFILE),
        _j.merged_at < _BEFORE,
        ~exists().where(_h.kind == "join", _h.from_id == _j.from_id, _h.profile_id == _PROFILE),
    )
    .order_by(_j.merged_at.desc())
    .limit(_MOST)
)
_JOINS = (
    select(_h.id, _h.from_id, _h.into_id, _h.at, _h.why, _h.source, _h.undone_at, _h.undone_by)
    .where(
        _h.kind == "join",
        or_(_h.profile_id == _PROFILE, _h.from_id == _PROFILE, _h.into_id == _PROFILE),
        _h.at < _BEFORE,
    )
    .order_by(_h.at.desc(), _h.id.desc())
    .limit(_MOST)
)
_JOINED_INTO = select(_j.from_id).where(_j.into_id == _PROFILE).cte("joined_into", recursive=True)
# UNION, unlike UNION ALL, terminates on cycles, which manual changes of the table can create.
_parts = _JOINED_INTO.union(select(_j.from_id).where(_j.into_id == _JOINED_INTO.c.from_id))
_LIMITS = (
    select(_l.at, _l.kind, _l.value, _l.limited_kind, _l.limited_to, _l.why, _l.exempt)
    .where(
        or_(_l.profile_id == _PROFILE, _l.profile_id.in_(select(_parts.c.from_id))),
        _l.at < _BEFORE,
    )
    .order_by(_l.at.desc(), _l.kind, _l.value)
    .limit(_MOST)
)

_STATE = {
    "planned": "planned",
    "sending": "being handed over",
    "sent": "sent",
    "delivered": "delivered",
    "unknown": "perhaps sent",
    "skipped": "not sent",
    "cancelled": "cancelled",
    "failed": "refused by the provider",
}
_TONE: Mapping[str, Tone] = {
    **{"sent": "ok", "delivered": "ok", "unknown": "warn", "skipped": "warn"},
    **{"cancelled": "warn", "failed": "bad"},
}
# Kinds of identifiers in words.
_IDENTIFIER = {
    "user_id": "user id",
    "anonymous_id": "anonymous id",
    "email": "e-mail address",
    "phone": "phone number",
    "push_token": "device",
}
# What customers do with messages, by the second half of the event's name.
_REACTION = {
    "opened": "Opened the {}",
    "machine_opened": "A mail program opened the {}, not a person",
    "clicked": "Clicked in the {}",
    "replied": "Replied by {}",
    "complained": "Reported the {} as spam",
    "unsubscribed": "Unsubscribed from {}",
    "resubscribed": "Subscribed again to {}",
    "stopped": "Replied STOP by {}",
    "started": "Replied START by {}",
    "bounced": "The {} came back",
    "failed": "The {} failed",
}
_REACTIONS = {
    f"{name}_{kind}": text.format(channel.short)
    for name, channel in channels().items()
    for kind, text in _REACTION.items()
}


class Happening(NamedTuple):
    """One entry: what happened, in a few words, and more about it.

    kind: `message`, `event`, `consent` or `join`. details: labels with values. tone: `ok`, `warn`
    or `bad` for what should stand out. undo: the number of a join that can be undone.
    """

    at: Instant
    kind: str
    what: str
    why: str = ""
    details: Sequence[tuple[str, str]] = ()
    tone: Tone = ""
    undo: int | None = None


class TimeLine(NamedTuple):
    """Entries, newest first. older: the `before` of the next entries; None: there are no more."""

    entries: list[Happening]
    older: Instant | None


def time_line(
    tx: Tx, policy: Policy, profile_id: int, most: int, before: Instant | None = None
) -> TimeLine:
    """The latest entries before an instant, at least `most` if there are as many.

    Entries of one second stay together.
    """
    given = {
        "profile": profile_id,
        "buckets": [bucket_of(profile_id)],
        "before": _END if before is None else before,
        "most": most + 1,
    }

    def read(statement: Any) -> Iterable[Any]:
        return tx.conn.execute(statement, given)

    found = [
        *(_message(ExplainedMessage._make(row[:-1]), row.address) for row in read(_MESSAGES)),
        *(_past(row) for row in read(_PAST)),
        *(_event(row.name, row.occurred_at, row.properties) for row in read(_EVENTS)),
        *(_consent(policy, row) for row in read(_CONSENT)),
        *(_old_join(profile_id, row) for row in read(_OLD_JOINS)),
        *(one for row in read(_JOINS) for one in _join(profile_id, row)),
        *(_limit(row) for row in read(_LIMITS)),
    ]
    found.sort(key=lambda one: -one.at)
    if len(found) <= most:
        return TimeLine(found, None)
    last = found[most - 1].at
    return TimeLine([one for one in found if one.at >= last], last)


def joins_of(tx: Tx, profile_id: int) -> list[Happening]:
    """The joins of a customer and the limits that kept identifiers out, oldest first."""
    given = {"profile": profile_id, "before": _END, "most": _MOST_JOINS}
    found = [
        *(_old_join(profile_id, row) for row in tx.conn.execute(_OLD_JOINS, given)),
        *(one for row in tx.conn.execute(_JOINS, given) for one in _join(profile_id, row)),
        *(_limit(row) for row in tx.conn.execute(_LIMITS, given)),
    ]
    return sorted(found, key=lambda one: one.at)


def _message(row: ExplainedMessage, address: str | None) -> Happening:
    details = [("to", address)] if address else []
    return Happening(
        at=row.send_at,
        kind="message",
        what=f"{_channel(row.channel)} {_STATE[row.state]}: {row.journey}, step {row.step}",
        why=explanation(row),
        details=details,
        tone=_TONE.get(row.state, ""),
    )


def _past(row: Any) -> Happening:
    return Happening(
        at=row.send_at,
        kind="message",
        what=f"{_channel(row.channel)} {_STATE[row.state]}: {row.journey}, step {row.step}",
        why="Its details were removed when their retention ended.",
        details=[("to", row.address)] if row.address else [],
        tone=_TONE.get(row.state, ""),
    )


def _channel(name: str) -> str:
    short = channel_of(name).short
    return short[:1].upper() + short[1:]


def _event(name: str, at: Instant, properties: Mapping[str, Any]) -> Happening:
    what = _REACTIONS.get(name) or name.replace("_", " ")
    return Happening(
        at=at, kind="event", what=what[:1].upper() + what[1:], details=list(_listed(properties))
    )


def _listed(values: Any, within: str = "") -> Iterator[tuple[str, str]]:
    """The values of JSON with their paths: `address.city`."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _listed(value, f"{within}.{key}" if within else str(key))
    elif isinstance(values, list) and any(isinstance(one, dict | list) for one in values):
        for place, value in enumerate(values, 1):
            yield from _listed(value, f"{within}[{place}]")
    elif isinstance(values, list):
        yield within, ", ".join(map(str, values))
    elif values is not None:
        yield within, str(values)


def _consent(policy: Policy, row: Any) -> Happening:
    topic = policy.topics[row.topic].name if row.topic in policy.topics else row.topic
    about = f"{channel_of(row.channel).plural}" + ("" if row.topic == "*" else f" about “{topic}”")
    said = {True: "Said yes to", False: "Said no to", None: "Has no opinion any more on"}
    details = [("source", row.source)]
    if row.identifier_value:
        details.append(("about", row.identifier_value))
    if row.wording:
        details.append(("wording", row.wording))
    details += [(f"proof: {label}" if label else "proof", v) for label, v in _listed(row.evidence)]
    tones: Mapping[bool | None, Tone] = {True: "ok", False: "bad"}
    return Happening(
        at=row.occurred_at,
        kind="consent",
        what=f"{said[row.granted]} {about}",
        details=details,
        tone=tones.get(row.granted, ""),
    )


def _join(profile_id: int, row: Any) -> Iterator[Happening]:
    """A join, and its undoing."""
    other = row.from_id if row.into_id == profile_id else row.into_id
    details = [("join", str(row.id)), ("by", row.why), ("source", row.source)]
    undone = row.undone_at is not None
    yield Happening(
        at=row.at,
        kind="join",
        what=f"Found to be one person with customer {other}",
        why="It was undone later."
        if undone
        else "From then on there is one profile; what both did is on this time line.",
        details=details,
        undo=None if undone else row.id,
    )
    if undone:
        yield Happening(
            at=row.undone_at,
            kind="join",
            what=f"The join with customer {other} was undone",
            why="What either of them refused holds for both. Calls do not join them again.",
            details=[("join", str(row.id)), ("by", row.undone_by)],
        )


def _old_join(profile_id: int, row: Any) -> Happening:
    """A join from before schema 0033, which can't be undone."""
    other = row.from_id if row.into_id == profile_id else row.into_id
    return Happening(
        at=row.merged_at,
        kind="join",
        what=f"Found to be one person with customer {other}",
        why="From then on there is one profile; what both did is on this time line.",
        details=[("by", row.why)],
    )


def _limit(row: Any) -> Happening:
    kind, limited = _IDENTIFIER[row.kind], _IDENTIFIER[row.limited_kind]
    if row.exempt:
        what = f"An alias gave the customer one more {kind} than the limit"
        why = "An alias of a server key joins user ids without a limit."
    else:
        what = f"A call's {kind} was left out"
        why = f"With it the customer would have one {limited} more than the policy's limit."
    return Happening(
        at=row.at,
        kind="join",
        what=what,
        why=why,
        details=[(kind, row.value), ("limit", row.limited_to), ("by", row.why)],
        tone="warn",
    )
