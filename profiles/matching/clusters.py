"""Join pairs of records to clusters, each of which is one person. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

Pair = tuple[int, int, float]  # two records, and their weight: the binary logarithm of the odds

# Odds of 20 : 1. Where files have no duplicates of their own, a weaker pair makes none.
STRONG = 4.3
# A file has no duplicates of its own if at most this share of the clusters has any.
_FEW = 0.02


def clusters(pairs: Iterable[Pair], sides: Sequence[int], *, across: bool) -> list[int]:
    """The cluster of each record, named by one of its records.

    sides: the file of each record. across: only pairs of different files are given.
    """
    ordered = sorted(pairs, key=lambda pair: -pair[2])
    strong = [pair for pair in ordered if pair[2] >= STRONG]
    joined = _Sets(sides)
    for one, other, _ in strong:
        joined.join(one, other)
    weak = ordered[len(strong) :]
    single = across and joined.mostly_single()
    for one, other, _ in weak:
        if not (single and joined.would_repeat(one, other)):
            joined.join(one, other)
    return [joined.root(record) for record in range(len(sides))]


class _Sets:
    """Disjoint sets of records, with how many of each file a set has."""

    def __init__(self, sides: Sequence[int]) -> None:
        self._parent = list(range(len(sides)))
        self._first = [int(side == 0) for side in sides]
        self._second = [int(side != 0) for side in sides]

    def root(self, record: int) -> int:
        parent = self._parent
        while parent[record] != record:
            parent[record] = parent[parent[record]]
            record = parent[record]
        return record

    def join(self, one: int, other: int) -> None:
        one, other = sorted((self.root(one), self.root(other)))
        if one != other:
            self._parent[other] = one
            self._first[one] += self._first[other]
            self._second[one] += self._second[other]

    def would_repeat(self, one: int, other: int) -> bool:
        """Whether a join of two sets would hold two records of one file."""
        one, other = self.root(one), self.root(other)
        if one == other:
            return False
        first = self._first[one] + self._first[other]
        return first > 1 or self._second[one] + self._second[other] > 1

    def mostly_single(self) -> bool:
        """Whether nearly all sets of several records have one of each file."""
        sizes = Counter(
            max(self._first[at], self._second[at]) > 1
            for at, parent in enumerate(self._parent)
            if at == parent and self._first[at] + self._second[at] > 1
        )
        return sizes[True] <= _FEW * sizes.total()
