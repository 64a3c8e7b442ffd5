"""What `make clean` and `make clean-data` remove."""

import shutil
import subprocess
from pathlib import Path

MAKEFILE = Path(__file__).parent.parent / "Makefile"


def test_only_clean_data_removes_data_and_only_when_told(tmp_path: Path) -> None:
    shutil.copy(MAKEFILE, tmp_path)
    venv, data = tmp_path / ".venv", tmp_path / ".segue"
    venv.mkdir()
    data.mkdir()

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    assert make("clean").returncode == 0
    assert (venv.exists(), data.exists()) == (False, True)
    refused = make("clean-data")
    assert refused.returncode != 0
    assert "make clean-data CONFIRM=yes" in refused.stderr
    assert data.exists()
    assert make("clean-data", "CONFIRM=yes").returncode == 0
    assert not data.exists()
