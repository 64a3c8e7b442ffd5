"""Find code that writes the tables of a lifecycle outside the lifecycle's package.

Other code may only read such a table: name its columns, select from it, join it. Every other use is
reported, so a new way to write needs no new rule.
"""

import ast
import re
from collections.abc import Collection, Iterator, Mapping

# The packages that may write, and the modules that define their tables.
HOMES = ("channels/messages/", "journeys/enrollments/")
_TABLES: Mapping[str, Collection[str]] = {
    "channels.messages": ("messages", "message_devices", "past_messages"),
    "channels.messages.table": ("messages", "message_devices", "past_messages"),
    "journeys.enrollments": ("enrollments",),
    "journeys.enrollments.table": ("enrollments",),
}
_MODELS = {"Message", "MessageDevice", "PastMessage", "Enrollment"}
# Uses that only read: attributes of a table, and functions with a table as argument.
_READS = {"c", "alias"}
_READERS = {"select", "select_from", "join", "outerjoin", "join_from", "correlate"}
_NAMES = {"message", "message_device", "past_message", "enrollment"}
_SQL = re.compile(
    r"\b(insert\s+into|update|delete\s+from|replace\s+into|merge\s+into|truncate(\s+table)?)"
    r"\s+(only\s+)?\W?(message|message_device|past_message|enrollment)\b",
    re.IGNORECASE,
)


def writes(source: str) -> Iterator[str]:
    """The places in a module that write such a table, or could: line and code of each."""
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
                    yield _place(node)  # importing the module gives access to all its tables
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
