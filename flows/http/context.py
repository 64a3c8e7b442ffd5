"""What every route of the receiver uses."""

from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, dataclass, field

from flows.app import Segue
from flows.http.ingest.key_cache import KeyCache
from flows.http.limits.guessing import Guesses
from flows.http.limits.work import InProgress, Threads

# Threads that use the database. Their sum is below the 15 connections of SQLAlchemy's pool, to
# leave some for the engine and the dispatcher.
_THREADS = 4
_HOOK_THREADS = 4


@dataclass(frozen=True, slots=True)
class Receiver:
    """The parts that routes share.

    arrived: call it, from any thread, after committing something that journeys react to, with the
        buckets of the events.
    threads: run everything that uses the database or takes long, except provider webhooks.
    hook_threads: run the provider webhooks.
    """

    segue: Segue
    _: KW_ONLY
    arrived: Callable[[Collection[int]], object]
    guesses: Guesses
    keys: KeyCache
    in_progress: InProgress = field(default_factory=InProgress)
    threads: Threads = field(default_factory=lambda: Threads(_THREADS, "receiver"))
    hook_threads: Threads = field(default_factory=lambda: Threads(_HOOK_THREADS, "hooks"))
