"""Compare clusters with the truth, by the pairs of records within them. Pure."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple


class Score(NamedTuple):
    """precision: the share of the pairs within clusters that are one person. recall: the share of
    the pairs of one person that are within clusters. Without such pairs each is 1.
    """

    precision: float
    recall: float
    f1: float


def pairs_within(groups: Iterable[Hashable], sides: Sequence[int], *, across: bool) -> int:
    """The pairs of records in the same group. across: only those of different sides."""
    sizes = Counter(zip(groups, sides if across else [0] * len(sides), strict=True))
    if across:
        return sum(size * sizes[group, 1] for (group, side), size in sizes.items() if side == 0)
    return sum(size * (size - 1) // 2 for size in sizes.values())


def score(
    clusters: Sequence[int], people: Sequence[str], sides: Sequence[int], *, across: bool
) -> Score:
    """Score the cluster of each record by the person that it is."""
    right = pairs_within(zip(clusters, people, strict=True), sides, across=across)
    found = pairs_within(clusters, sides, across=across)
    wanted = pairs_within(people, sides, across=across)
    precision = right / found if found else 1.0
    recall = right / wanted if wanted else 1.0
    both = precision + recall
    return Score(precision, recall, 2 * precision * recall / both if both else 0.0)
