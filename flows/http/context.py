"""What every route of the receiver needs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from flows.app import Segue
from flows.http.limits.guessing import Guesses
from flows.http.limits.work import InHand, Threads

# Together they leave some of the 15 connections of SQLAlchemy's pool to those who move and send.
_THREADS = 4
_HOOK_THREADS = 4


@dataclass(frozen=True, slots=True)
class Receiver:
    """The parts put together, and whom to tell.

    arrived: to be called, from any thread, once something is committed that journeys react to.
    threads: for everything that waits for the database or takes long, but the providers' hooks.
    """

    segue: Segue
    arrived: Callable[[], object]
    guesses: Guesses
    in_hand: InHand = field(default_factory=InHand)
    threads: Threads = field(default_factory=lambda: Threads(_THREADS, "receiver"))
    hook_threads: Threads = field(default_factory=lambda: Threads(_HOOK_THREADS, "hooks"))
