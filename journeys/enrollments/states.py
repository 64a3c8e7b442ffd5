"""The states of an enrollment and the allowed transitions.

The diagram in docs/how-it-works/lifecycles.md is generated from this table.
"""

from collections.abc import Mapping
from typing import Literal

EnrollmentState = Literal[
    "waiting",  # at a step, whose handler runs at `due_at`; `ended_at` is NULL
    "ended",  # `end_reason` has the reason; `due_at` is NULL
]

# The end reason of an enrollment by a launch that was undone before it sent anything. It does not
# count as an entry.
UNDONE = "exited: the launch was undone, nothing was sent"
# The end reason of the others, and the reason of their cancelled messages.
UNDONE_AFTER_SENDING = "exited: the launch was undone"

# The end reason of enrollments that the erasure of their customer ended, and the reason of their
# cancelled messages.
ERASED_REASON = "exited: the customer was erased"

# The states that may follow each state. None: the row does not exist yet.
EnrollmentFollow = Mapping[EnrollmentState | None, tuple[EnrollmentState, ...]]

# By transition, which is the name of a function in journeys/enrollments/transitions.py.
ALLOWED: Mapping[str, EnrollmentFollow] = {
    "enter": {None: ("waiting",)},
    "stay": {"waiting": ("waiting",)},
    "arrive": {"waiting": ("waiting",)},
    "retry": {"waiting": ("waiting",)},
    "lease": {"waiting": ("waiting",)},
    "wake": {"waiting": ("waiting",)},
    "migrate": {"waiting": ("waiting",)},
    "end": {"waiting": ("ended",)},
    # With another reason for those that have ended before.
    "undo": {"waiting": ("ended",), "ended": ("ended",)},
}
