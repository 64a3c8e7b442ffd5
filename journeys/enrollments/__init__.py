"""Enrollments: the table, the states, which state may follow which, and the only writer of both.

table.py: the table, which everybody may read. states.py: the states and `ALLOWED`. transitions.py:
one function a transition; nothing else in the product writes the table.
"""

from journeys.enrollments.table import enrollments

__all__ = ["enrollments"]
