"""Enrollments: the table, the states and the transitions.

table.py: the table, which any module may read. states.py: the states and the allowed transitions.
transitions.py: one function per transition. nameless.py: what stays of an erased customer's. No
other module writes the table.
"""

from journeys.enrollments.table import enrollments

__all__ = ["enrollments"]
