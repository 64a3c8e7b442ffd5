"""The base errors."""


class SegueError(Exception):
    """Invalid input or environment. The text is for users: the error, its place and the fix."""


class DatabaseUnusable(SegueError):
    """The database does not respond or is damaged."""
