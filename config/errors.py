"""The one base error: its message names what is wrong and how to mend it."""


class SegueError(Exception):
    """Bad input or a bad environment. `str(error)` is fit to show to the person who caused it."""


class DatabaseUnusable(SegueError):
    """The database does not answer, or is damaged."""
