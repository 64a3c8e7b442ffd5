"""Suggest the name that was probably meant."""

import difflib
from collections.abc import Collection

# How alike two names are, from 0 to 1, to be taken for one with a typing error.
ALIKE = 0.65


def alike(name: str, known: Collection[str], least: float = ALIKE) -> str | None:
    """The known name that is most like this one; None: none is.

    least: how alike they must be.
    """
    found = difflib.get_close_matches(name.lower(), [one.lower() for one in known], 1, least)
    return next((one for one in known if found and one.lower() == found[0]), None)


def meant(name: str, known: Collection[str]) -> str:
    """The beginning of an advice: "did you mean 'lapsed'? ", or nothing."""
    found = alike(name, known)
    return "" if found is None else f"did you mean {found!r}? "
