"""Size: what depends on the number of profiles, on PostgreSQL, with `--people` and with 20,000.

Each profile has 20 events and 5 messages of a year, which the database generates: 5 of the events
are orders, all messages are of one journey with 7 moves for each profile, and a third of the mails
were opened. It takes too long for the list of benchmarks, so it runs only when it is named:

    python -m benchmarks --only size --people 100000

Every audience is everybody. Memory is that of a process of its own (`python -m benchmarks.size`).
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func, select, text

from benchmarks.launch import enter_and_plan
from benchmarks.live import offer, percentiles
from benchmarks.memory import peak_mb
from benchmarks.support.databases import on_postgresql
from benchmarks.support.material import EMAIL, catalog_of, policy
from benchmarks.support.runner import Benchmark, Figures
from benchmarks.support.sandbox import Sandbox, running_sandbox
from benchmarks.support.working import workers
from channels.explain import history_of
from channels.rules.planner import Planner
from config.clock.times import Instant
from config.database.engine import Database
from config.database.schema import migrate
from journeys.analytics.reports.kept import keep_report, kept_report
from journeys.analytics.reports.period import ReportPeriod, ever
from journeys.analytics.reports.report import report_journey
from journeys.analytics.revenue import RevenueMapping
from journeys.definition.catalog import Catalog, load_catalog
from journeys.engine.advance import Engine
from journeys.engine.entry import audience_size
from journeys.explain.standing import standings_of
from journeys.operations.doctor import diagnose
from profiles.bucketing import bucket_of
from profiles.conditions.language import Condition
from profiles.imports.importer import import_file
from profiles.tables import profiles

_FEW = 20_000
_EVENTS, _MESSAGES = 20, 5
_RATE, _WARM_UP = 5, 20
# of profiles/imports/maps/customers.toml
_COLUMNS = ["customer_id", "email", "phone", "push_token", "country", "email_opt_in", "sms_opt_in"]
_JOURNEY = "welcome"
_MAPPING = RevenueMapping(
    event="order_completed", amount="total_gbp", currency_property="", currency="GBP"
)
# As profiles/bucketing.py computes them.
_BUCKET = "({} % 2147483648 * 2654435761 % 4294967296 / 16777216)::smallint"
_OF_PROFILE = _BUCKET.format("n")


def _of_identifier(kind: str, value: str) -> str:
    return f"get_byte(sha256(convert_to('{kind}:' || {value}, 'UTF8')), 0)::smallint"


_USER_ID, _MAIL, _PHONE = (
    "'u-' || n",
    "'customer.' || n || (ARRAY['@gmail.com', '@example.com'])[least(n % 3, 1) + 1]",
    "'+44770' || lpad(n::text, 7, '0')",
)
_IDENTIFIER = "INSERT INTO identifier (kind, value, profile_id, country, seen_at, bucket) SELECT "
_EVENT = """INSERT INTO event (profile_id, name, occurred_at, received_at, properties, dedupe_key,
    worked_at, identifier_kind, identifier_value, bucket)"""
_ARM = "(ARRAY['bestsellers', 'guide'])[n % 2 + 1]"
# :people profiles, numbered from 1; `n` is a profile, `k` numbers its rows.
_FILL = (
    f"""INSERT INTO profile (id, timezone, country, language, attributes, created_at, updated_at,
        bucket)
    SELECT n, (ARRAY['Europe/London', 'Europe/Berlin', NULL])[n % 3 + 1],
        (ARRAY['GB', 'DE', 'ES'])[n % 3 + 1], 'en', jsonb_build_object('first_name', 'Ada',
        'favourite', (ARRAY['Books', 'Garden'])[n % 2 + 1], 'lifetime_value', n % 1500),
        :now - 86400 * 365, :now - 86400, {_OF_PROFILE}
    FROM generate_series(1, :people) AS n""",
    f"{_IDENTIFIER} 'user_id', {_USER_ID}, n, NULL, :now - 86400, "
    f"{_of_identifier('user_id', _USER_ID)} FROM generate_series(1, :people) AS n",
    f"{_IDENTIFIER} 'email', {_MAIL}, n, NULL, :now - 86400, "
    f"{_of_identifier('email', _MAIL)} FROM generate_series(1, :people) AS n",
    f"{_IDENTIFIER} 'phone', {_PHONE}, n, 'GB', :now - 86400, "
    f"{_of_identifier('phone', _PHONE)} FROM generate_series(1, :people) AS n",
    f"""INSERT INTO consent (profile_id, channel, topic, granted, changed_at, bucket)
    SELECT n, 'sms', '*', true, :now - 86400, {_OF_PROFILE}
    FROM generate_series(1, :people) AS n""",
    f"""{_EVENT} SELECT n, (ARRAY['page_viewed', 'product_viewed', 'cart_viewed',
        'order_completed'])[k % 4 + 1], at, at, jsonb_build_object('url', '/products/' || n % 5000,
        'total_gbp', n % 300, 'number', k), 'generated-' || k, at, 'user_id', {_USER_ID},
        {_OF_PROFILE}
    FROM generate_series(1, {_EVENTS}) AS k, generate_series(1, :people) AS n,
        LATERAL (SELECT :now - 86400 * 18 * ({_EVENTS + 1} - k) + n % 86400 AS at) AS moment""",
    f"""INSERT INTO enrollment (profile_id, journey, version, entry_key, context, entered_at, since,
        step, arrived_at, phase, attempts, ended_at, end_reason, converted_at, bucket)
    SELECT n, '{_JOURNEY}', :version, '', '{{}}', :now - 86400 * 350, :now - 86400 * 350,
        'mark welcomed', :now - 86400 * 30, 0, 0, :now - 86400 * 30, 'completed',
        CASE WHEN n % 3 = 0 THEN :now - 86400 * 100 END, {_OF_PROFILE}
    FROM generate_series(1, :people) AS n""",
    f"""INSERT INTO message (profile_id, enrollment_id, journey, version, step, member, channel,
        kind, topic, priority, mode, after, on_cap, wanted_at, latest_anchor, send_at, state,
        reason, decision, attempts, provider_id, address, bucket)
    SELECT n, e.id, '{_JOURNEY}', :version, planned.step, channel, channel, 'marketing', 'welcome',
        50, 'any', 0, 'skip', at, at + 604800, at + n % 4 * 1800,
        CASE WHEN k = 5 THEN 'skipped' WHEN n % 50 = 0 THEN 'failed' ELSE 'delivered' END,
        CASE WHEN k = 5 THEN 'capped' WHEN n % 50 = 0 THEN '550: no mailbox' END,
        jsonb_build_object('outcome', 'send', 'timezone', 'Europe/London', 'timezone_source',
        'profile', 'counts', jsonb_build_array(n % 3), 'send_at', to_char(to_timestamp(
        at + n % 4 * 1800) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
        1, 'generated-' || n, CASE channel WHEN 'email' THEN {_MAIL} END, e.bucket
    FROM generate_series(1, {_MESSAGES}) AS k, enrollment AS e,
        LATERAL (SELECT e.profile_id AS n) AS profile,
        LATERAL (SELECT (ARRAY['hello', 'hello', {_ARM}, 'app tip', 'thanks'])[k] AS step,
            (ARRAY['email', 'push', 'email', 'push', 'email'])[k] AS channel,
            :now - 86400 * 60 * ({_MESSAGES + 1} - k) + n % 86400 AS at) AS planned""",
    f"""{_EVENT} SELECT m.profile_id, channel || '_' || reported, send_at + 3600, send_at + 3600,
        jsonb_build_object('message_id', m.id::text, 'url', 'https://shop.example/' || reported),
        reported || m.id, send_at + 3600, 'user_id', 'u-' || m.profile_id, m.bucket
    FROM message AS m, (VALUES ('opened', 3), ('machine_opened', 10), ('clicked', 25),
        ('complained', 1000)) AS reaction (reported, one_in)
    WHERE m.channel = 'email' AND m.state = 'delivered'
        AND (m.profile_id + m.id) % one_in = 0""",
    f"""INSERT INTO consent_record (profile_id, channel, topic, granted, occurred_at, recorded_at,
        source, bucket)
    SELECT n, 'email', '*', n % 100 > 0, at, at, 'preference page', {_OF_PROFILE}
    FROM generate_series(1, :people) AS n,
        LATERAL (SELECT :now - 86400 * 299 + n % 86400 AS at) AS moment""",
    f"""INSERT INTO passage (profile_id, enrollment_id, step, journey, version, outcome, at, bucket)
    SELECT profile_id, id, moved.step, journey, version, outcome, :now - 86400 * 299, bucket
    FROM enrollment, LATERAL (SELECT profile_id AS n) AS profile, LATERAL (VALUES
        ('hello', 'next'), ('first order', 'timeout'), ('which nudge', {_ARM}), ({_ARM}, 'next'),
        ('app user?', 'has the app'), ('app tip', 'next'), ('mark welcomed', 'next')
        ) AS moved (step, outcome)""",
    "SELECT setval(pg_get_serial_sequence('profile', 'id'), :people)",
)


def size(people: int) -> Benchmark:
    """The benchmark with this many profiles."""
    return Benchmark(
        "size: what depends on the number of profiles, PostgreSQL",
        lambda quick: _measure(200, 400, 1.0) if quick else _measure(_FEW, people, 30.0),
        {
            "p50_ratio_of_many_to_few": "at most 1.2",
            "launch_rate_ratio_of_many_to_few": "about 1",
            "launch_memory_ratio_of_many_to_few": "about 1",
            "import_memory_ratio_of_many_to_few": "about 1",
            **dict.fromkeys(
                (
                    "report_seconds",
                    "explain_seconds",
                    "slowest_segment_seconds",
                    "doctor_seconds",
                ),
                "at most 2",
            ),
        },
    )


class _Launched(NamedTuple):
    """A launch, or an import: its profiles or rows a second, and the peak memory."""

    per_second: float
    peak_mb: float


def _measure(few: int, many: int, seconds: float) -> Figures:
    """seconds: how long events are offered."""
    now = int(time.time())
    with on_postgresql(migrate, now=now) as fresh, running_sandbox() as sandbox:
        small, large = fresh(), fresh()
        catalog = load_catalog(policy())
        fill(small, few, now, catalog)
        began = time.perf_counter()
        fill(large, many, now, catalog)
        figures: dict[str, float] = {
            "profiles": many,
            "fill_seconds": time.perf_counter() - began,
            **_queries(large, catalog),
        }
        p50 = [
            _p50(db, sandbox, range(first, first + _WARM_UP + round(_RATE * seconds)))
            for db, first in ((small, 1), (large, few // 2))
        ]
        launches = [_apart("launch", db.url) for db in (small, large)]
        imports = [_import(large, rows) for rows in (many // 10, many)]
        for db in (small, large):
            db.close()
    return {
        **figures,
        "p50_ms": p50[1],
        "p50_ratio_of_many_to_few": p50[1] / p50[0],
        "launch_per_second": launches[1].per_second,
        "launch_rate_ratio_of_many_to_few": launches[1].per_second / launches[0].per_second,
        "launch_memory_ratio_of_many_to_few": launches[1].peak_mb / launches[0].peak_mb,
        "import_per_second": imports[1].per_second,
        "import_memory_ratio_of_many_to_few": imports[1].peak_mb / imports[0].peak_mb,
    }


def fill(db: Database, people: int, now: Instant, catalog: Catalog) -> None:
    """Generate this many profiles, and register the library's journeys."""
    given = {"people": people, "now": now, "version": catalog.journey(_JOURNEY).digest}
    with db.transaction() as tx:
        catalog.register(tx)
        for statement in _FILL:
            tx.conn.execute(text(statement), given)
        written = tx.conn.execute(select(profiles.c.bucket).where(profiles.c.id == people))
        assert written.scalar_one() == bucket_of(people)
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("VACUUM ANALYZE"))


def _queries(db: Database, catalog: Catalog) -> Figures:
    """Seconds of what people wait for, the first time it is asked, and of what a worker counts."""
    rules = policy()
    today = datetime.now(UTC).date()
    engine = Engine(db, catalog, Planner(rules))
    period = ever(rules.timezone)
    fortnight = ReportPeriod(
        first=today - timedelta(days=127),
        last=today - timedelta(days=114),
        zone=rules.timezone,
    )

    def goals() -> None:
        """What a worker does at its start and once a day, and a report without a worker."""
        engine.count_goals(_JOURNEY)

    def count_report() -> None:
        """What a worker does from time to time."""
        assert keep_report(db, catalog, _JOURNEY, _MAPPING, period)

    def report() -> None:
        with db.transaction(write=False) as tx:
            kept = kept_report(tx, catalog, _JOURNEY, _MAPPING, period)
            assert kept is not None
            assert kept.total.sent

    def report_of_a_fortnight() -> None:
        """A fifth of the messages."""
        with db.transaction(write=False) as tx:
            assert report_journey(tx, catalog, _JOURNEY, _MAPPING, fortnight).total.sent

    def explain() -> None:
        with db.transaction(write=False) as tx:
            assert history_of(tx, "u-17")
            assert standings_of(tx, catalog, rules, 17).journeys

    def doctor() -> None:
        with db.transaction(write=False) as tx:
            diagnose(tx)

    def count_people(condition: Condition) -> None:
        with db.transaction(write=False) as tx:
            audience_size(tx, condition)

    jobs = (count_report, report, report_of_a_fortnight, explain, doctor, goals)
    segments = [_seconds(partial(count_people, one.condition)) for one in catalog.segments.values()]
    return {
        **{f"{job.__name__}_seconds": _seconds(job) for job in jobs},
        "slowest_segment_seconds": max(segments),
    }


def _seconds(job: Callable[[], None]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def _p50(db: Database, sandbox: Sandbox, people: Sequence[int]) -> float:
    """The median of the milliseconds from an event to its message, for these customers."""
    with workers(1, db.url, sandbox.port) as ports:
        offer(ports, sandbox, list(people[:_WARM_UP]), _WARM_UP)
        _await_start(db)
        took = offer(ports, sandbox, list(people[_WARM_UP:]), _RATE)
    return percentiles(took, _RATE)[f"p50_ms_at_{_RATE}"]


def _await_start(db: Database) -> None:
    """Wait until the worker has done what it does once: it counts the goals of all enrollments."""
    long = text("""SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND backend_type = 'client backend' AND state = 'active'
        AND clock_timestamp() - query_start > interval '1 second'""")
    # A transaction would see the same activity for ever.
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        while conn.execute(long).scalar_one():
            time.sleep(1)


def _import(db: Database, rows: int) -> _Launched:
    """Import new customers from a file."""
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as folder:
        file = Path(folder) / f"{rows}.csv"
        with file.open("w", newline="") as written:
            lines = csv.writer(written)
            lines.writerow(_COLUMNS)
            for number in range(rows):
                name = f"new-{rows}-{number}"
                lines.writerow([name, f"{name}@example.com", "", "", "GB", "yes", ""])
        return _apart("import", db.url, str(file))


def _apart(*arguments: str) -> _Launched:
    command = [sys.executable, "-m", "benchmarks.size", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return _Launched(*json.loads(done.stdout))


def main(job: str, url: str, file: str = "") -> None:
    """Launch a journey for everybody, or import a file; print the speed and the peak memory."""
    db = Database(url)
    migrate(db)
    began = time.perf_counter()
    if job == "launch":
        enter_and_plan(db, catalog_of(EMAIL))
        with db.transaction(write=False) as tx:
            number = tx.conn.execute(select(func.count()).select_from(profiles)).scalar_one()
    else:
        number = import_file(db, Path(file)).created
    seconds = time.perf_counter() - began
    print(json.dumps([number / seconds, peak_mb()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
