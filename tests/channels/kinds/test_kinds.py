"""A channel is one file: the registry finds it, and no other product file names it."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from pydantic import ValidationError

import channels.kinds
from channels.kinds import email
from channels.templates.compile import template_suffixes
from config import channels as registry
from config.channels import AddressKind, channel_of
from config.errors import SegueError
from config.policy import CHANNELS, Policy

ROOT = Path(__file__).parents[3]
# The sample shop and the sample journeys, and the files that are of one provider.
OF_ONE_CHANNEL = (
    "channels/kinds/",
    "channels/providers/",
    "config/database/migrations/",
    "flows/local/",
    "journeys/library/",
    "journeys/confirm_subscription/",
    "profiles/sample/",
    "sandbox/",
)
# The scheme of a link, `sms:`; it is no channel.
LINK_SCHEMES = {"channels/templates/link_check.py"}


def product() -> Iterator[tuple[str, ast.Module]]:
    for layer in ("config", "profiles", "channels", "journeys", "flows", "sandbox"):
        for file in sorted((ROOT / layer).rglob("*.py")):
            name = str(file.relative_to(ROOT))
            if not name.startswith(OF_ONE_CHANNEL) and name not in LINK_SCHEMES:
                yield name, ast.parse(file.read_text(encoding="utf-8"))


def names_a_channel(node: ast.AST, only: set[str]) -> bool:
    """Whether a constant is a channel's name; `only`: those that name nothing else."""
    if isinstance(node, ast.Constant):
        return node.value in only
    if isinstance(node, ast.Compare):  # row.channel == "email"
        sides = [node.left, *node.comparators]
        compared = {one.value for one in sides if isinstance(one, ast.Constant)}
        of_channel = any("channel" in ast.unparse(one).rpartition(".")[2] for one in sides)
        return of_channel and not compared.isdisjoint(CHANNELS)
    if isinstance(node, ast.keyword):  # channel="email"
        return (
            node.arg == "channel"
            and isinstance(node.value, ast.Constant)
            and node.value.value in CHANNELS
        )
    return False


def test_no_other_file_names_a_channel() -> None:
    # "email" is also a kind of identifier, and the name of a field in calls and imports
    only = set(CHANNELS) - set(get_args(AddressKind))
    assert only == set(CHANNELS) - {"email"}
    found = {
        f"{name}:{node.lineno}"
        for name, tree in product()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.Compare | ast.keyword)
        and names_a_channel(node, only)
    }
    assert found == set()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is part of channels/kinds/ for the length of the test."""
    paths = [*channels.kinds.__path__, str(tmp_path)]
    monkeypatch.setattr(channels.kinds, "__path__", paths)
    registry.channels.cache_clear()
    yield tmp_path
    registry.channels.cache_clear()


def test_the_channels_are_in_their_order() -> None:
    assert list(registry.channels())[:3] == ["email", "sms", "push"]
    orders = [one.order for one in registry.channels().values()]
    assert orders == sorted(orders)


def test_an_unknown_channel_error_lists_the_known_channels() -> None:
    with pytest.raises(
        ValueError, match="there is no channel 'fax'; the channels are email, sms, push"
    ):
        channel_of("fax")
    with pytest.raises(ValidationError, match="there is no channel 'fax'"):
        Policy.model_validate({"channels": {"fax": {"consent": "opt-in"}}})


def test_a_file_that_exports_no_channel_is_an_error(package: Path) -> None:
    (package / "pager_without.py").write_text("")
    with pytest.raises(SegueError, match=r"channels\.kinds\.pager_without must define CHANNEL"):
        registry.channels()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("email", "two modules in channels/kinds/ define the channel email"),
        ("E-Mail", "'E-Mail' must have only lower-case letters and digits"),
    ],
)
def test_an_invalid_channel_name_is_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    (package / "another.py").touch()
    another = ModuleType("channels.kinds.another")
    vars(another)["CHANNEL"] = replace(email.CHANNEL, name=name)
    monkeypatch.setitem(sys.modules, another.__name__, another)
    with pytest.raises(SegueError, match=says):
        registry.channels()


DOCS = ROOT / "docs" / "journeys" / "templates.md"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    """The channels as docs/journeys/templates.md shows them."""
    found = row("Channel", "In a journey", "Goes to", "Consent", "STOP", "Known of a message")
    found += "|" + "---|" * 6 + "\n"
    for one in registry.channels().values():
        consent = (
            f"always {one.consent}" if one.consent_fixed else f"{one.consent}, or as the policy"
        )
        known = "; ".join(f"{what}: {who}" for what, who in one.evidence.items())
        stop = "yes, transactional included" if one.has_stop else "no"
        step = f"`{one.step}(template)`"
        optional = ", optional" if one.optional else ""
        found += row(f"`{one.name}`{optional}", step, one.address, consent, stop, known)
    return found


def test_the_docs_list_the_channels() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), table()


def test_the_docs_name_every_kind_of_template_file() -> None:
    docs = DOCS.read_text(encoding="utf-8")
    for suffix in template_suffixes():
        assert f"`<name>{suffix}`" in docs
