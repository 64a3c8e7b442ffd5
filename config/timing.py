"""How long the parts of Segue wait: one value, which a process gets with its database."""

from dataclasses import dataclass

from config.clock.times import HOUR, MINUTE, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All in seconds. Production uses the defaults; tests and the chaos harness shorten some.

    A claim must outlast a post: `post_within` < `claim_lasts`, and `lost_after` comes on top.
    """

    # A claim -------------------------------------------------------------------------------------

    # So long after the claim the last byte may leave.
    claim_lasts: Seconds = MINUTE
    # So long after that a claim whose process has recorded nothing counts as lost.
    lost_after: Seconds = 2 * MINUTE
    # Claims that have waited longer for their turn are evaluated again before they are posted.
    claim_is_fresh: float = 0.1
    # Outcomes are recorded this often while others of the batch are awaited.
    record_every: float = 0.5

    # A post --------------------------------------------------------------------------------------

    connect_within: float = 5
    # Between two signs of life from the provider.
    write_within: float = 10
    read_within: float = 30
    # From first to last, getting a token included: an answer that trickles gives signs of life for
    # ever.
    post_within: float = 50
    # The first wait after "try later" without a Retry-After; it doubles with each try.
    first_retry: Seconds = 30
    last_retry: Seconds = HOUR
    # How long the breaker stops a provider; the pause doubles from the first to the last.
    first_pause: Seconds = 15
    last_pause: Seconds = 5 * MINUTE
    # Refused credentials are not corrected quickly.
    refused_pause: Seconds = 5 * MINUTE

    # A step --------------------------------------------------------------------------------------

    # A Send step examines those whose message is under way again after this.
    send_again: Seconds = MINUTE
    # From the first to the last byte of a Call step's request.
    call_within: float = 10

    # A worker ------------------------------------------------------------------------------------

    # The longest sleep when nothing is due: what another process plans is seen after this.
    idle: float = 0.5
    # The wait after an error.
    after_trouble: float = 5
    # How often housekeeping runs: goals, lost claims, stops, what other processes brought.
    housekeeping: float = 30
    # How often its slow part runs: every so many times, not seconds.
    large_round: int = 20

    # Prefect -------------------------------------------------------------------------------------

    # How often the counts go to Prefect, at most.
    report_every: float = 1
    # How long its API may take to answer.
    report_within: float = 5
    # How often a worker without counts of its own looks for those that another has left.
    report_again: float = 60

    # The receiver --------------------------------------------------------------------------------

    # How often the backlog is counted, at most.
    backlog_every: float = 1
    # What a client is told to wait when the backlog is full.
    backlog_retry: Seconds = 5

    # The database --------------------------------------------------------------------------------

    # PostgreSQL ends a transaction in which nothing has been asked for so long: its process hangs.
    transaction_idle: Seconds = MINUTE
    # Between tries to lock all tables for an upgrade, and how many tries there are.
    upgrade_pause: float = 1
    upgrade_tries: int = 120


TIMING = Timing()
