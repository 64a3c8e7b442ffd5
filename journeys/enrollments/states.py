"""The states of an enrollment, and which may follow which.

docs/lifecycles.md has the picture, made from this table.
"""

from collections.abc import Mapping
from typing import Literal

EnrollmentState = Literal[
    "waiting",  # at a step, which looks at it at `due_at`; `ended_at` is NULL
    "ended",  # for the reason in `end_reason`; `due_at` is NULL
]

# The states that may follow each state; None: there is no row yet.
EnrollmentFollow = Mapping[EnrollmentState | None, tuple[EnrollmentState, ...]]

# By transition: a function of journeys/enrollments/transitions.py.
ALLOWED: Mapping[str, EnrollmentFollow] = {
    "enter": {None: ("waiting",)},
    "stay": {"waiting": ("waiting",)},
    "arrive": {"waiting": ("waiting",)},
    "retry": {"waiting": ("waiting",)},
    "lease": {"waiting": ("waiting",)},
    "wake": {"waiting": ("waiting",)},
    "wake_at": {"waiting": ("waiting",)},
    "migrate": {"waiting": ("waiting",)},
    "end": {"waiting": ("ended",)},
}
