"""`python -m flows.local.child MODULE ...`: run a module until the parent process ends.

The parent holds the other end of our standard input. When it ends, even by SIGKILL, we read
end-of-file, so no process is left running.
"""

import os
import runpy
import signal
import sys
import threading
import time

from config.garbage import collect_less_often

_SECONDS_TO_STOP = 4.0


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    collect_less_often()  # imports create objects that live on
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    # Our process group, so that our own children end too.
    os.killpg(0, signal.SIGTERM)
    time.sleep(_SECONDS_TO_STOP)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
