"""Finds code that writes the tables of a lifecycle, other than in the lifecycle's own package.

Whoever imports such a table may only read it: name its columns, select from it, join it. Every
other use is reported, so that a new way to write needs no new rule.
"""

import ast
import re
from collections.abc import Collection, Iterator, Mapping

# The packages that may write, with the modules that hold their tables.
HOMES = ("channels/messages/", "journeys/enrollments/")
_TABLES: Mapping[str, Collection[str]] = {
    "channels.messages": ("messages", "message_devices"),
    "channels.messages.table": ("messages", "message_devices"),
    "journeys.enrollments": ("enrollments",),
    "journeys.enrollments.table": ("enrollments",),
}
_MODELS = {"Message", "MessageDevice", "Enrollment"}
# Reading: attributes of a table, and functions that take one.
_READS = {"c", "alias"}
_READERS = {"select", "select_from", "join", "outerjoin", "join_from", "correlate"}
_NAMES = {"message", "message_device", "enrollment"}
_SQL = re.compile(
    r"\b(insert\s+into|update|delete\s+from|replace\s+into|merge\s+into|truncate(\s+table)?)"
    r"\s+(only\s+)?\W?(message|message_device|enrollment)\b",
    re.IGNORECASE,
)


def writes(source: str) -> Iterator[str]:
    """What in a module writes such a table, or could: line and code of each place."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    tables: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                if name.name in _TABLES.get(node.module or "", ()):
                    tables.add(name.asname or name.name)
                elif name.name in (*_MODELS, "*") and node.module in _TABLES:
                    yield _place(node)
                elif f"{node.module}.{name.name}" in _TABLES:
                    yield _place(node)  # a module has everything in it
        elif isinstance(node, ast.Import) and any(name.name in _TABLES for name in node.names):
            yield _place(node)
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=known, ctx=ast.Load()) if known in tables:
                if not _only_reads(node, parents):
                    yield _place(parents[node])
            case ast.Constant(value=str(text)) if _SQL.search(text):
                yield _place(node)
            # SQLModel.metadata.tables["message"]
            case ast.Subscript(value=ast.Attribute(attr="tables"), slice=ast.Constant(value=key)):
                if key in _NAMES:
                    yield _place(node)


def _only_reads(name: ast.Name, parents: Mapping[ast.AST, ast.AST]) -> bool:
    parent = parents[name]
    if isinstance(parent, ast.Attribute):
        return parent.attr in _READS
    if isinstance(parent, ast.Call):
        return ast.unparse(parent.func).split(".")[-1] in _READERS
    return isinstance(parent, ast.keyword) and parent.arg == "of"  # with_for_update


def _place(node: ast.AST) -> str:
    return f"{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:80]}"
