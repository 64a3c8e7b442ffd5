"""The base error: its message names what is wrong and how to fix it."""


class SegueError(Exception):
    """Invalid input or environment. `str(error)` can be shown to the person who caused it."""


class DatabaseUnusable(SegueError):
    """The database does not respond, or is damaged."""
