"""Tests with generated cases: few in `make test` and many in `make prove`.

A test with `@given` needs no further mark; any other has `pytest.mark.proof`. Both read the number
of cases from `cases`.
"""

from hypothesis import settings


def cases(*, test: int, prove: int) -> int:
    """The number of cases to try: `test` in `make test`, `prove` in `make prove`.

    Choose `test` so that a broken rule still fails: break one by hand and run the test.
    """
    return prove if settings.get_current_profile_name() == "prove" else test
