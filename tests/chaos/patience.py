"""Wait without an assumption about speed: as long as there is progress, and some time after."""

import time
from collections.abc import Callable

_TURN = 0.25
# So many turns without anything new are a standstill. Turns of our own, not seconds: a machine that
# has no time for us has none for those we wait for.
_TURNS = 360


def patiently(
    done: Callable[[], bool], progress: Callable[[], object], turn: float = _TURN
) -> bool:
    """Wait until it is done; False: it is not, and nothing has changed for long.

    turn: seconds between two looks.
    """
    before, turns = progress(), 0
    while not done():
        time.sleep(turn)
        turns += 1
        if (now := progress()) != before:
            before, turns = now, 0
        if turns > _TURNS:
            return False
    return True
