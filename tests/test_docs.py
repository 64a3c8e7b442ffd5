"""The modules, tests, terms and links in the docs exist; the reference is as the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import ROOT, Settings
from tests.support.structure.reference import AGAIN, REFERENCE, SECTIONS
from tests.support.structure.reference import PAGES as MADE

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GLOSSARY = ROOT / "docs" / "reference" / "glossary.md"
MOVED = ROOT / "docs" / "decisions" / "0028-what-moved-where.md"
MODULE = re.compile(r"(?:config|profiles|channels|journeys|sandbox|flows|tests)/[\w/]+\.(?:py|sql)")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def defined(module: Path) -> set[str]:
    """The names that a module defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def terms() -> Iterator[tuple[str, str]]:
    """Each term of the glossary, with the cell that names its place."""
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0] not in ("Word", "---"):
            yield cells[0], cells[2]


def test_each_term_of_the_glossary_lives_where_it_says() -> None:
    found = list(terms())
    assert len(found) > 50
    for term, where in found:
        module, *names = re.findall(r"`([^`]+)`", where)
        assert (ROOT / module).is_file(), f"{term}: there is no {module}"
        for name in names:
            assert name in defined(ROOT / module), f"{term}: {module} defines no {name}"


def test_no_term_of_the_glossary_is_there_twice() -> None:
    words = [word for term, _ in terms() for word in term.split(", ")]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != MOVED], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_modules_that_a_page_names_exist(page: Path) -> None:
    named = MODULE.findall(page.read_text(encoding="utf-8"))
    assert {module for module in named if not (ROOT / module).is_file()} == set()


@every_page
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    files = {file.stem: file for file in (ROOT / "tests").rglob("test_*.py")}
    for file, test in re.findall(
        r"`(test_\w+)(?:::(test_\w+))?`", page.read_text(encoding="utf-8")
    ):
        assert file in files, f"there is no {file}.py"
        if test:
            assert f"def {test}(" in files[file].read_text(encoding="utf-8"), f"{file}::{test}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("name", MADE)
def test_the_reference_is_as_the_code(name: str) -> None:
    page = (REFERENCE / name).read_text(encoding="utf-8")
    assert page == MADE[name](), f"out of date: run `{AGAIN}`"


@pytest.mark.parametrize("name", MADE)
def test_the_reference_explains_everything(name: str) -> None:
    page = MADE[name]()
    assert re.findall(r"^\| (`(?:SEGUE|--).*) \| *\|$", page, re.MULTILINE) == []
    assert Settings.model_fields.keys() >= SECTIONS.keys()
