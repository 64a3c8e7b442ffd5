"""The limits of joins: which identifier of a call is left out, and its record.

A call whose identifiers all belong to one profile reads no limit (call_profiles.py).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import exists, insert, select

from config.clock.times import DAY
from config.database.arrays import rows_of
from config.database.engine import Tx
from config.join_rules import JoinKind, JoinRules
from profiles.bucketing import bucket_of
from profiles.identity.person import Key
from profiles.tables import join_limit_hits

_log = logging.getLogger(__name__)

# The same identifier is recorded for a profile at most once in this time, in seconds.
_EVERY = DAY

# The fields of a call that state each kind.
STATED_IN: Mapping[JoinKind, str] = {
    "user_id": "userId",
    "anonymous_id": "anonymousId",
    "email": "traits.email",
    "phone": "traits.phone",
    "push_token": "context.device.token",
}

_h = join_limit_hits.c
_COLUMNS = (
    *(_h.profile_id, _h.bucket, _h.at, _h.kind, _h.value),
    *(_h.limited_kind, _h.limited_to, _h.why, _h.exempt),
)
_ROWS = rows_of("hits", *_COLUMNS)
_recorded = join_limit_hits.alias("recorded")
_RECORD = insert(join_limit_hits).from_select(
    [column.name for column in _COLUMNS],
    select(_ROWS).where(
        ~exists().where(
            _recorded.c.profile_id == _ROWS.c.profile_id,
            _recorded.c.kind == _ROWS.c.kind,
            _recorded.c.value == _ROWS.c.value,
            _recorded.c.limited_kind == _ROWS.c.limited_kind,
            _recorded.c.at > _ROWS.c.at - _EVERY,
        )
    ),
    include_defaults=False,
)


class LimitHit(NamedTuple):
    """An identifier of a call whose join would exceed a limit.

    limited: the kind that has the limit. why: the kind of the call. exempt: it joined nevertheless,
    because an alias says so; otherwise it is left out.
    """

    key: Key
    limited: JoinKind
    why: str
    exempt: bool = False

    def warning(self, rules: JoinRules) -> str:
        """The warning for the sender of the call."""
        limit = rules.limits[self.limited]
        field = "previousId" if self.why == "alias" else STATED_IN[self.key[0]]
        if self.limited == "user_id" and limit.limit == 1:
            return f"{field} is left out: it belongs to another customer"
        return (
            f"{field} is left out: one profile takes {limit} of kind {self.limited} "
            f"(joins.limits.{self.limited} in the policy)"
        )


def exceeded(
    rules: JoinRules, ours: Mapping[str, int], theirs: Mapping[str, int], *, is_alias: bool
) -> JoinKind | None:
    """The first kind of which a joint profile would have too many; None if there is none.

    Parameters
    ----------
    ours, theirs: the number of identifiers that count, by kind.
    is_alias: an alias joins user ids without a limit.
    """
    for kind, limit in rules.limits.items():
        if kind == "user_id" and is_alias:
            continue
        mine, others = ours.get(kind, 0), theirs.get(kind, 0)
        if mine and others and mine + others > limit.limit:
            return kind
    return None


def record_hits(tx: Tx, hits: Sequence[tuple[int, LimitHit]], rules: JoinRules) -> None:
    """Record limits that calls met, by profile, and log them. Repeats within a day are skipped."""
    rows = {
        (profile_id, hit.key, hit.limited): (
            *(profile_id, bucket_of(profile_id), tx.now, *hit.key),
            *(hit.limited, str(rules.limits[hit.limited]), hit.why, hit.exempt),
        )
        for profile_id, hit in hits
    }
    if not rows or not tx.conn.execute(_RECORD, {"hits": list(rows.values())}).rowcount:
        return
    for (profile_id, key, limited), row in rows.items():
        done = "joined by an alias beyond" if row[-1] else "left out at"
        _log.warning(
            "profile %s: its %s is %s the limit of %s (%s)",
            *(profile_id, key[0], done, limited, rules.limits[limited]),
        )
