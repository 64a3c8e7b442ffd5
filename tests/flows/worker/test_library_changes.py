"""The log says which files have changed, and what to restart."""

import os
from pathlib import Path

import pytest

from config.settings import Settings
from flows.worker.library_changes import LibraryChanges


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library" / "welcome"
    folder.mkdir(parents=True)
    (folder / "journey.py").write_text("x = 1")
    (folder / "hello.email.html").write_text("Hello")
    (tmp_path / "policy.toml").write_text("")
    return tmp_path / "library"


def test_each_change_is_logged_once(library: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = library.parent / "policy.toml"
    changes = LibraryChanges(Settings(library=library, policy_file=policy))
    changes.warn()
    assert caplog.text == ""
    template = library / "welcome" / "hello.email.html"
    template.write_text("Hello you")
    (library / "cart").mkdir()
    (library / "cart" / "journey.py").write_text("x = 2")
    os.utime(policy, (1, 1))
    (library / "welcome" / "__pycache__").mkdir()
    changes.warn()
    told = [record.getMessage() for record in caplog.records]
    assert [one.split(" has changed; restart the workers")[0] for one in told] == [
        str(library / "cart" / "journey.py"),
        str(template),
        str(policy),
    ]
    changes.warn()
    assert len(caplog.records) == 3
    template.unlink()
    changes.warn()
    assert str(template) in caplog.records[-1].getMessage()
