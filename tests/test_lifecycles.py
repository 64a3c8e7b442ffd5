"""One package each writes messages and enrollments, and the docs show its transitions."""

from pathlib import Path

import pytest

from tests.support.structure.lifecycles import DOCS, Lifecycle, diagram, diagrams, with_diagrams
from tests.support.structure.writers import HOMES, writes

ROOT = Path(__file__).parent.parent
LAYERS = ("config", "profiles", "channels", "journeys", "sandbox", "flows")
# A simulation writes into a database of its own.
MAY_WRITE = (
    *(*HOMES, "config/database/migrations/"),
    *("journeys/simulation/copy.py", "journeys/simulation/rewind.py"),
)


def test_nothing_else_writes_messages_or_enrollments() -> None:
    files = [
        (name, file)
        for layer in LAYERS
        for file in (ROOT / layer).rglob("*.py")
        if not (name := file.relative_to(ROOT).as_posix()).startswith(MAY_WRITE)
    ]
    found = {
        f"{name}:{place}"
        for name, file in files
        for place in writes(file.read_text(encoding="utf-8"))
    }
    assert found == set()
    assert len(files) > 100


MESSAGES = "from channels.messages import messages\n"


@pytest.mark.parametrize(
    "source",
    [
        MESSAGES + "update(messages).values(state='sent')",
        MESSAGES + "tx.conn.execute(insert(messages), rows)",
        MESSAGES + "sa.delete(messages).where(messages.c.id == 1)",
        MESSAGES + "messages.update().values(state='sent')",
        MESSAGES + "repoint(tx, messages, mergers)",
        MESSAGES + "for table in (messages, events): update(table)",
        MESSAGES + "table = messages",
        "from channels.messages import messages as outbox\nupdate(outbox)",
        "from channels.messages.table import message_devices\ninsert(message_devices)",
        "from journeys.enrollments import enrollments\nput(tx.conn, enrollments, row)",
        "from channels.messages.table import Message\nsession.add(Message())",
        "from channels import messages\nupdate(messages.messages)",
        "from channels.messages import table\nupdate(table.messages)",
        "import channels.messages\nupdate(channels.messages.messages)",
        "from journeys.enrollments.table import *",
        "update(SQLModel.metadata.tables['enrollment'])",
        "text('UPDATE message SET state = :state')",
        'text(f"delete from enrollment where id = {id}")',
        "text('INSERT INTO \"message_device\" VALUES (1)')",
    ],
)
def test_a_writer_is_found(source: str) -> None:
    assert list(writes(source))


@pytest.mark.parametrize(
    "source",
    [
        MESSAGES + "select(messages).where(messages.c.id == 1).with_for_update(of=messages)",
        MESSAGES + "select(func.count()).select_from(messages)",
        MESSAGES + "later = messages.alias('later')",
        "from profiles.tables import events\nupdate(events)",
        "from channels.messages import transitions\ntransitions.cancel(tx, reasons)",
        "text('UPDATE message_template SET body = 1')",
    ],
)
def test_a_reader_is_no_writer(source: str) -> None:
    assert list(writes(source)) == []


def test_the_docs_show_the_lifecycles_as_they_are() -> None:
    page = DOCS.read_text(encoding="utf-8")
    again = "run `python -m tests.support.structure.lifecycles`"
    assert page.count("```mermaid") == len(diagrams()), again
    assert page == with_diagrams(page), again


def test_a_diagram_changes_with_the_rule() -> None:
    rule: Lifecycle = {"plan": {None: ("planned",)}, "claim": {"planned": ("sending",)}}
    assert diagram(rule) == (
        "stateDiagram-v2\n    [*] --> planned: plan\n    planned --> sending: claim"
    )
    other: Lifecycle = {**rule, "send": {"planned": ("sending",)}}
    assert diagram(other, ["planned"]) == "stateDiagram-v2\n    planned --> sending: claim, send"
