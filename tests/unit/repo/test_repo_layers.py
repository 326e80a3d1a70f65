"""The layer contracts notice what they are there for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint_imports(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(source), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def copy_of_source(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "src"


@pytest.mark.parametrize(
    ("planted_in", "line", "named"),
    [
        ("wire/message.py", "import colab_bridge.sessions.service", "colab_bridge.wire.message"),
        ("store/rows.py", "import colab_bridge.providers.registry", "colab_bridge.store.rows"),
        ("client/http.py", "import pydantic", "colab_bridge.client.http"),
        ("agent/runner.py", "import colab_bridge.errors", "colab_bridge.agent.runner"),
        ("wire/outputs.py", "import socket", "colab_bridge.wire.outputs"),
    ],
)
def test_a_planted_import_is_found_and_named(
    copy_of_source: Path, tmp_path: Path, planted_in: str, line: str, named: str
) -> None:
    path = copy_of_source / "colab_bridge" / planted_in
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    found = lint_imports(copy_of_source, tmp_path)
    assert found.returncode == 1, found.stdout + found.stderr
    assert named in found.stdout


def test_the_code_as_it_is_keeps_all_contracts(tmp_path: Path) -> None:
    found = lint_imports(ROOT / "src", tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout
