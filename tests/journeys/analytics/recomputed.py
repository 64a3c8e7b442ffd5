"""The yardstick once more, in SQL: one statement for each measure and period."""

from typing import Any, NamedTuple

from sqlalchemy import text

from config.database.engine import Tx
from journeys.analytics.periods import Period


class Sums(NamedTuple):
    """A group: its people, the sum of their values, and the sum of the squares."""

    people: int
    total: float
    squares: float


_YEAR = 365 * 86400
_WITH = """
WITH ordering AS (
    SELECT profile_id, occurred_at AS at, {amount} AS amount FROM event
    WHERE name = 'order_completed'
), customer AS (
    SELECT profile.id, first_at,
        CASE WHEN any_at < profile.created_at THEN any_at ELSE profile.created_at END AS since,
        EXISTS (SELECT 1 FROM held_out WHERE profile_id = profile.id) AS held,
        EXISTS (
            SELECT 1 FROM message WHERE profile_id = profile.id AND kind = 'marketing'
            AND state IN ('sent', 'delivered', 'unknown')
        ) OR EXISTS (
            SELECT 1 FROM past_message WHERE profile_id = profile.id
            AND coalesce(kind, 'marketing') = 'marketing'
            AND state IN ('sent', 'delivered', 'unknown')
        ) AS had_marketing
    FROM profile LEFT JOIN (
        SELECT profile_id, MIN(at) AS any_at, MIN(CASE WHEN amount >= 0 THEN at END) AS first_at
        FROM ordering GROUP BY profile_id
    ) AS first ON first.profile_id = profile.id
    WHERE any_at IS NOT NULL OR EXISTS (
        SELECT 1 FROM identifier
        WHERE profile_id = profile.id AND kind <> 'anonymous_id'
    )
), measured AS (
    SELECT
        CASE WHEN held AND had_marketing THEN 'mixed' WHEN held THEN 'held_out' ELSE 'others' END
            AS place,
        CAST({value} AS DOUBLE PRECISION) AS value
    FROM customer WHERE since < :stop AND {base} AND {segment}
)
SELECT place, COUNT(*), SUM(value), SUM(value * value) FROM measured GROUP BY place
"""
_ORDERS = (
    "FROM event WHERE profile_id = customer.id AND name = 'order_completed' "
    "AND occurred_at >= :start AND occurred_at < :stop"
)
_PAST = _ORDERS.replace(":stop", ":start").replace(">= :start", ">= :past")
_EVENT = "profile_id = customer.id AND occurred_at >= :start AND occurred_at < :stop"
_SENT = (
    "profile_id = customer.id AND send_at >= :start AND send_at < :stop "
    "AND state IN ('sent', 'delivered', 'unknown')"
)
_ANSWER = (
    "SELECT {score} FROM event WHERE name = 'nps_answered' AND "
    + _EVENT
    + " AND {score} BETWEEN 0 AND 10 ORDER BY occurred_at DESC, id DESC LIMIT 1"
)
# The value of each measure, and for which customers it is defined.
_MEASURES = {
    "revenue": (f"(SELECT coalesce(SUM({{amount}}), 0) {_ORDERS})", "true"),
    "orders": (f"(SELECT COUNT(*) {_ORDERS} AND {{amount}} >= 0)", "true"),
    "new customers": (
        "CASE WHEN first_at >= :start AND first_at < :stop THEN 1 ELSE 0 END",
        "true",
    ),
    "lapsed": (
        f"CASE WHEN EXISTS (SELECT 1 {_ORDERS} AND {{amount}} >= 0) THEN 0 ELSE 1 END",
        f"EXISTS (SELECT 1 {_PAST} AND {{amount}} >= 0)",
    ),
    "unsubscribes": (
        f"CASE WHEN EXISTS (SELECT 1 FROM consent_record WHERE NOT granted AND {_EVENT}) "
        "THEN 1 ELSE 0 END",
        "true",
    ),
    "complaints": (
        "(SELECT COUNT(*) FROM event WHERE name IN ('email_complained', 'sms_complained', "
        f"'push_complained', 'whatsapp_complained') AND {_EVENT})",
        "true",
    ),
    "uninstalls": (
        "(SELECT COUNT(*) FROM identifier JOIN suppression ON address = value "
        "WHERE profile_id = customer.id AND kind = 'push_token' AND state = 'unregistered' "
        "AND since >= :start AND since < :stop)".replace("since", "suppression.since"),
        "true",
    ),
    "messages": (
        f"(SELECT COUNT(*) FROM message WHERE kind = 'marketing' AND {_SENT}) + "
        "(SELECT COUNT(*) FROM past_message WHERE coalesce(kind, 'marketing') = 'marketing' AND "
        f"{_SENT})",
        "true",
    ),
    "satisfaction": (
        f"CASE WHEN ({_ANSWER}) >= 9 THEN 100 WHEN ({_ANSWER}) <= 6 THEN -100 ELSE 0 END",
        f"({_ANSWER}) IS NOT NULL",
    ),
}
MEASURES = tuple(_MEASURES)
# The segments of the tests, now.
_SEGMENTS = {
    None: "true",
    "big": "(SELECT {size} FROM profile WHERE id = customer.id) > 5",
    "loyal": "(SELECT COUNT(*) FROM event WHERE profile_id = customer.id "
    "AND name = 'order_completed' AND occurred_at <= :now) >= 2",
}
SEGMENTS = tuple(_SEGMENTS)


def recomputed(tx: Tx, measure: str, period: Period, segment: str | None = None) -> dict[str, Sums]:
    """The sums of a measure in a period by group: held_out, others, mixed.

    segment: of those who are in it now; None: of all customers.
    """
    value, base = _MEASURES[measure]
    parts = {name: _number(tx, column, member) for name, (column, member) in _JSON.items()}
    sql = _WITH.format(
        amount=parts["amount"],
        value=value.format(**parts),
        base=base.format(**parts),
        segment=_SEGMENTS[segment].format(**parts),
    )
    given: dict[str, Any] = {
        name: number
        for name, number in (
            ("start", period.start),
            ("stop", period.end),
            ("past", period.start - _YEAR),
            ("now", tx.now),
        )
        if f":{name}" in sql
    }
    rows = tx.conn.execute(text(sql), given)
    return {place: Sums(people, total, squares) for place, people, total, squares in rows}


_JSON = {
    "amount": ("properties", "total_gbp"),
    "score": ("properties", "score"),
    "size": ("attributes", "size"),
}


def _number(tx: Tx, column: str, member: str) -> str:
    if tx.is_sqlite:
        return f"json_extract({column}, '$.{member}')"
    return f"CAST({column} ->> '{member}' AS DOUBLE PRECISION)"
