"""The modules, tests, terms and links in the docs exist; the reference is as the code."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from channels.rules.planner import Reason
from config.settings import ROOT, Settings
from flows.cli.main import app
from tests.support.structure.reference import AGAIN, REFERENCE, SECTIONS
from tests.support.structure.reference import PAGES as MADE

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("*/*.md")])
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


def test_the_site_has_every_page() -> None:
    """The order of the pages in docs/site/conf.py, which only Sphinx can import."""
    tree = ast.parse((DOCS / "site" / "conf.py").read_text(encoding="utf-8"))
    [navigation] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAVIGATION"
    ]
    listed = {
        f"{folder}/{page}.md" for folder, (_, pages) in navigation.items() for page in pages.split()
    }
    there = {str(page.relative_to(DOCS)) for page in DOCS.glob("*/*.md")}
    assert listed == {name for name in there if not name.startswith("decisions/")}


@pytest.mark.parametrize(
    "page", sorted(DOCS.glob("[!d]*/*.md")), ids=lambda page: str(page.relative_to(DOCS))
)
def test_a_page_begins_with_what_it_is_for(page: Path) -> None:
    title, blank, first, *_ = page.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert blank == ""
    assert re.match(r"[A-Z`\[].*[.:]", first), first


def test_troubleshooting_explains_every_reason() -> None:
    page = (DOCS / "operate" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"\w+", row)} >= set(get_args(Reason))


# Code ---------------------------------------------------------------------------------------------

CODE = [
    (page, kind, text)
    for page in PAGES
    for kind, text in re.findall(
        r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
]
TARGETS = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def of(kind: str) -> pytest.MarkDecorator:
    found = [(page, text) for page, one, text in CODE if one == kind]
    assert found
    return pytest.mark.parametrize(
        ("page", "text"), found, ids=[str(page.relative_to(ROOT)) for page, _ in found]
    )


@of("python")
def test_the_python_in_a_page_can_be_compiled(page: Path, text: str) -> None:
    compile(text, str(page), "exec")


@of("toml")
def test_the_toml_in_a_page_can_be_read(page: Path, text: str) -> None:
    assert tomllib.loads(text)


@of("json")
def test_the_json_in_a_page_can_be_read(page: Path, text: str) -> None:
    try:
        assert json.loads(text)
    except json.JSONDecodeError:
        for line in text.splitlines():
            assert json.loads(line), line


@of("sh")
def test_the_commands_in_a_page_exist(page: Path, text: str) -> None:
    """Their names, arguments and options; other tests run those that a machine can run."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for number, word in enumerate(words):
            if word == "make" and number == 0:
                wanted = [one for one in words[1:] if re.fullmatch(r"[a-z]+(-[a-z]+)?", one)]
                assert set(wanted) <= TARGETS, line
            if word in ("segue", ".venv/bin/segue") and (not number or words[number - 1] == "exec"):
                assert_parses(words[number + 1 :])


def assert_parses(words: list[str]) -> None:
    """Fail unless the command line accepts the words."""
    command: Any = typer.main.get_command(app)
    name = "segue"
    while hasattr(command, "commands"):
        if not words and command.invoke_without_command:
            return
        assert words, f"{name} needs a command"
        name, *words = words
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    command.make_context(name, list(words))
