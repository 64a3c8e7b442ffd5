"""Waits and time limits, as one value that a process gets with its database."""

from dataclasses import dataclass

from config.clock.times import HOUR, MINUTE, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Waits and time limits in seconds. Tests and the chaos harness shorten some of the defaults.

    A claim must outlast a request: `post_within` < `claim_lasts`.
    """

    # A claim -------------------------------------------------------------------------------------

    # How long after its claim a message may be handed over.
    claim_lasts: Seconds = MINUTE
    # How long after `claim_lasts` an unrecorded claim counts as lost.
    lost_after: Seconds = 2 * MINUTE
    # Claims older than this are checked again before they are posted.
    claim_is_fresh: float = 0.1
    # How often outcomes are recorded while other requests of the batch are under way.
    record_every: float = 0.5

    # A post --------------------------------------------------------------------------------------

    connect_within: float = 5
    # The longest pause between two parts of a request or answer.
    write_within: float = 10
    read_within: float = 30
    # The whole request including its token, because a slow answer can keep within the limits above.
    post_within: float = 50
    # The first and longest wait before a retry without Retry-After; it doubles with each attempt.
    first_retry: Seconds = 30
    last_retry: Seconds = HOUR
    # The first and longest pause of a breaker; it doubles with each failed trial.
    first_pause: Seconds = 15
    last_pause: Seconds = 5 * MINUTE
    # The pause after refused credentials, which take time to correct.
    refused_pause: Seconds = 5 * MINUTE

    # A step --------------------------------------------------------------------------------------

    # When a Send step evaluates an enrollment again whose message is being handed over.
    send_again: Seconds = MINUTE
    # From the first to the last byte of a Call step's request.
    call_within: float = 10

    # A worker ------------------------------------------------------------------------------------

    # The longest sleep if nothing is due; work that another process plans waits at most this long.
    idle: float = 0.5
    # The wait after an error.
    after_trouble: float = 5
    # How often a process renews its leases of buckets, and how long they last without that.
    renew_every: float = 1
    lease_lasts: Seconds = 5
    # How often housekeeping runs: goals, lost claims, stops, work of other processes.
    housekeeping: float = 30
    # The slow part of housekeeping runs every this many rounds (not seconds).
    large_round: int = 20

    # Prefect -------------------------------------------------------------------------------------

    # The shortest time between reports of counts to Prefect.
    report_every: float = 1
    # The time limit of a request to its API.
    report_within: float = 5
    # How often a worker without own counts reports those that a stopped worker left.
    report_again: float = 60
    # How often one worker compares the deployments with pauses and segments.
    describe_every: float = 10
    # How often it counts the people in each segment again, which takes seconds in a large shop.
    count_segments_every: float = 600

    # The receiver --------------------------------------------------------------------------------

    # The shortest time between counts of the backlog.
    backlog_every: float = 1
    # The shortest time between reads of the keys: a revoked key works for that long.
    keys_every: float = 1
    # Retry-After for clients while the backlog is full.
    backlog_retry: Seconds = 5

    # The database --------------------------------------------------------------------------------

    # PostgreSQL ends a transaction that is idle for this long, because its process hangs.
    transaction_idle: Seconds = MINUTE
    # The pause between attempts to lock all tables for an upgrade, and the number of attempts.
    upgrade_pause: float = 1
    upgrade_tries: int = 120


TIMING = Timing()
