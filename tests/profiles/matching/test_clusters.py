"""Clusters of records, and their score."""

import pytest

from profiles.matching.clusters import clusters
from profiles.matching.score import Score, pairs_within, score


def test_pairs_join_records_to_clusters() -> None:
    assert clusters([(0, 1, 9.0), (1, 2, 1.0)], [0] * 4, across=False) == [0, 0, 0, 3]


def test_a_weak_pair_joins_no_two_records_of_a_file_without_duplicates() -> None:
    sides = [0, 0, 1, 1]
    strong = [(0, 2, 9.0), (1, 3, 9.0)]
    assert clusters([*strong, (0, 3, 1.0)], sides, across=True) == [0, 1, 0, 1]
    assert clusters([*strong, (0, 3, 5.0)], sides, across=True) == [0, 0, 0, 0]


def test_the_score_counts_pairs() -> None:
    found = score([0, 0, 0, 3], ["a", "a", "b", "b"], [0] * 4, across=False)
    assert found == pytest.approx((1 / 3, 1 / 2, 0.4))


def test_only_pairs_across_the_files_count() -> None:
    assert pairs_within([7, 7, 7, 8], [0, 0, 1, 1], across=True) == 2
    assert score([7, 7, 7, 8], ["a", "b", "a", "c"], [0, 0, 1, 1], across=True).precision == 0.5


def test_without_pairs_nothing_is_wrong() -> None:
    assert score([0, 1], ["a", "b"], [0, 0], across=False) == Score(1.0, 1.0, 1.0)
