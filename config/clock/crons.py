"""Cron lines in words."""

import re


def cron_in_words(cron: str) -> str:
    """A cron line: "every Mon at 8:00"; the line itself if it is less plain."""
    found = re.fullmatch(r"(\d+) (\d+) \* \* (\*|[a-z]{3})", cron, re.IGNORECASE)
    if found is None:
        return cron
    minute, hour, day = found.groups()
    return f"every {'day' if day == '*' else day.capitalize()} at {int(hour)}:{int(minute):02}"
