"""`segue match` on files, and on the invented people with known duplicates."""

import json
from pathlib import Path

import pytest

from benchmarks.support.duplicates import COLUMNS, write
from tests.support.commands import Segue
from tests.support.shared_data import DATA

IDENTITY = DATA / "identity"
TRUTH = r"rec_id:^rec-(\d+)"
needs_identity = pytest.mark.skipif(
    not (IDENTITY / "dataset3.csv").is_file(), reason=f"put FEBRL's data sets into {IDENTITY}"
)


@pytest.fixture
def map_file(tmp_path: Path) -> Path:
    file = tmp_path / "map.toml"
    file.write_text("[columns]\n" + "".join(f'{name} = "{name}"\n' for name in COLUMNS))
    return file


@pytest.fixture
def febrl(tmp_path: Path) -> Path:
    file = tmp_path / "febrl.toml"
    file.write_text(
        "[columns]\n"
        'given_name = "given_name"\nsurname = "surname"\nbirth_date = "date_of_birth"\n'
        'street = "address_1"\nsuburb = "suburb"\npostcode = "postcode"\nstate = "state"\n'
        'national_id = "soc_sec_id"\n'
    )
    return file


def test_the_last_line_is_json(segue: Segue, tmp_path: Path, map_file: Path) -> None:
    file = tmp_path / "people.csv"
    write(file, 300)
    said = segue("match", str(file), "--map", str(map_file), "--truth", "person:(.+)")
    assert said.status == 0
    assert said.err == ""
    found = json.loads(said.out.splitlines()[-1])
    assert list(found) == ["precision", "recall", "f1", "pairs", "seconds"]
    assert found["f1"] > 0.97
    assert "precision" in said.out.splitlines()[1]


def test_without_the_truth_there_is_no_score(segue: Segue, tmp_path: Path, map_file: Path) -> None:
    file, other = tmp_path / "people.csv", tmp_path / "other.csv"
    write(file, 200)
    write(other, 200)
    said = segue("match", str(file), "--against", str(other), "--map", str(map_file), "--json")
    found = json.loads(said.out)
    assert found["f1"] is None
    assert found["pairs"] >= 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--truth", "nobody:(.+)"], "has no column 'nobody' (--truth)"),
        (["--truth", "person"], "give a column and a pattern"),
        (["--against", "{file}"], "--against names the same file"),
        (["--against", "/nowhere.csv"], "/nowhere.csv does not exist"),
    ],
)
def test_what_is_wrong_is_one_line(
    segue: Segue, tmp_path: Path, map_file: Path, arguments: list[str], said: str
) -> None:
    file = tmp_path / "people.csv"
    write(file, 20)
    given = [one.format(file=file) for one in arguments]
    done = segue("match", str(file), "--map", str(map_file), *given)
    assert done.status == 1
    assert said in done.err
    assert len(done.err.splitlines()) == 1


@needs_identity
def test_two_files_of_the_same_people(segue: Segue, febrl: Path) -> None:
    files = [str(IDENTITY / "dataset4a.csv"), "--against", str(IDENTITY / "dataset4b.csv")]
    said = segue("match", *files, "--map", str(febrl), "--truth", TRUTH, "--json")
    assert json.loads(said.out)["f1"] >= 0.999


@needs_identity
def test_a_file_with_duplicates(segue: Segue, febrl: Path) -> None:
    file = str(IDENTITY / "dataset3.csv")
    said = segue("match", file, "--map", str(febrl), "--truth", TRUTH, "--json")
    assert json.loads(said.out)["f1"] >= 0.993
