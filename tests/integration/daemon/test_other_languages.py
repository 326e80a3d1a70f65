"""A kernel that is not Python: everything but scripts and parameters works with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from colab_bridge.errors import UserError
from daemon_home import DaemonHome
from notebook_files import printed, read, write

BASH = {"kernelspec": {"name": "bash-here", "display_name": "Bash", "language": "bash"}}


@pytest.fixture
def home(daemon_home: DaemonHome, monkeypatch: pytest.MonkeyPatch) -> DaemonHome:
    """A home whose runtime sees a Bash kernel, as one that the user has installed."""
    spec = daemon_home.folder / "jupyter" / "kernels" / "bash-here"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Bash", "language": "bash"}), encoding="utf-8"
    )
    monkeypatch.setenv("JUPYTER_PATH", str(spec.parents[1]))
    return daemon_home


@pytest.fixture
def path(home: DaemonHome) -> Path:
    path = home.project / "shell.ipynb"
    write(path, "x=5; echo one $x", "echo two $x")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**notebook, "metadata": BASH}), encoding="utf-8")
    return path


def test_a_notebook_runs_on_the_kernel_of_its_own_language(home: DaemonHome, path: Path) -> None:
    assert home.notebook(path).status == "ok"
    assert [printed(cell) for cell in read(path)] == ["one 5\n", "two 5\n"]


def test_parameters_are_refused_where_they_would_be_python_in_another_language(home: DaemonHome, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError, match="parameters are written in Python"):
        home.notebook(path, parameters={"a": 1})
    assert path.read_bytes() == before
