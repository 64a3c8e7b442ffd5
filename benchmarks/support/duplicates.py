"""Invented people, some of them several times with mistakes, as records to match.

python -m benchmarks.support.duplicates PEOPLE FILE writes them as CSV with the column `person`.
"""

import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("given_name", "surname", "birth_date", "street", "postcode", "city", "email", "phone")
# How often a person has a second record, and how often a cell of it differs.
_SECOND = 0.2
_MISTAKES = 0.12
_MISSING = 0.05
_SYLLABLES = [first + vowel for first in "bdfghklmnprstvwz" for vowel in "aeiou"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _word(rng: random.Random, parts: int) -> str:
    return "".join(rng.choices(_SYLLABLES, k=parts))


def people(number: int, *, seed: int = 1) -> Iterator[tuple[str, list[str]]]:
    """`number` people and the second records of some: who it is, and the cells of COLUMNS.

    Few given names, more surnames, and some of each are frequent, as in a real shop.
    """
    rng = random.Random(seed)
    given = [_word(rng, 2) for _ in range(1_000)]
    surnames = [_word(rng, 3) for _ in range(20_000)]
    streets = [f"{_word(rng, 3)} street" for _ in range(5_000)]
    cities = [_word(rng, 3) for _ in range(500)]
    for person in range(number):
        first = given[int(len(given) * rng.random() ** 3)]
        last = surnames[int(len(surnames) * rng.random() ** 3)]
        at = int(len(cities) * rng.random() ** 2)
        cells = [
            first,
            last,
            f"{rng.randint(1930, 2005)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}",
            f"{rng.randint(1, 200)} {rng.choice(streets)}",
            f"{10_000 + at * 7 + rng.randint(0, 5)}",
            cities[at],
            f"{first}.{last}{rng.randint(1, 999)}@{rng.choice(['mail', 'post', 'web'])}.example",
            f"07{rng.randint(0, 999_999_999):09}",
        ]
        yield str(person), cells
        if rng.random() < _SECOND:
            yield str(person), [_written_again(cell, rng) for cell in cells]


def _written_again(cell: str, rng: random.Random) -> str:
    if rng.random() < _MISSING:
        return ""
    if rng.random() >= _MISTAKES:
        return cell
    at = rng.randrange(len(cell))
    letter = rng.choice("0123456789" if cell[at].isdigit() else _LETTERS)
    before, after = cell[:at], cell[at + 1 :]
    return before + rng.choice([letter, "", letter + cell[at]]) + after


def write(path: Path, number: int, *, seed: int = 1) -> int:
    """Write a CSV file of COLUMNS and `person`; returns the number of rows."""
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["person", *COLUMNS])
        for person, cells in people(number, seed=seed):
            writer.writerow([person, *cells])
            rows += 1
    return rows


if __name__ == "__main__":
    print(write(Path(sys.argv[2]), int(sys.argv[1])))
