"""What every route of the receiver needs."""

from collections.abc import Callable
from dataclasses import dataclass

from flows.app import Segue


@dataclass(frozen=True, slots=True)
class Receiver:
    """The parts put together, and whom to tell.

    arrived: to be called, from any thread, once something is committed that journeys react to.
    """

    segue: Segue
    arrived: Callable[[], object]
